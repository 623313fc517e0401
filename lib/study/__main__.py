"""The commands of the study: ``python -m lib.study COMMAND KEY=VALUE ...``.

run: train what is lacking, cell by cell; figures: table and figure from the rows; people: `make
photos` and what people use, in equal minutes; cost: how long each cell will take.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..command import answered, read_texts
from ..interrupt import kept_interrupts
from ..params import ROOT, InputError, resolve_path
from ..quiet import import_quietly
from .protocol import PROTOCOLS, Cell, Protocol


@dataclass(frozen=True)
class Words:
    """What a command was told.

    Attributes:
        protocol: full, or smoke for a test of every step.
        only: a cell, such as flowers/MobileNetV2, or a data set; empty: all.
        results: folder of the folders of rows; work: of what is kept on the way.
        weights: as in `lib.tune.settings`; data_dir: where TFDS keeps tf_flowers.
    """

    protocol: str = "full"
    only: str = ""
    results: str = ""
    work: str = ""
    weights: str = ""
    data_dir: str | None = None

    def __post_init__(self) -> None:
        if self.protocol not in PROTOCOLS:
            raise InputError(
                f"study: protocol: {self.protocol!r} is not allowed; allowed: "
                f"{', '.join(PROTOCOLS)}"
            )

    @property
    def plan(self) -> Protocol:
        return PROTOCOLS[self.protocol]

    @property
    def cells(self) -> list[Cell]:
        """Raises InputError where none is meant."""
        every = list(self.plan.cells())
        some = [c for c in every if self.only in ("", c.name, c.source)]
        if not some:
            raise InputError(
                f"study: only: {self.only!r} is not allowed; allowed: "
                f"{', '.join([*self.plan.sizes, *(c.name for c in every)])}"
            )
        return some

    def places(self) -> Any:
        from .run import Places

        full = self.protocol == "full"
        base = Path("build") / f"choice_{self.protocol}"
        return Places(
            resolve_path(self.results or ("results" if full else str(base / "results"))),
            resolve_path(self.work or str(base / "work")),
            self.weights or ("imagenet" if full else "none"),
            self.data_dir,
        )


def run(words: Words) -> None:
    """Train what is lacking."""
    from .run import run_cells

    run_cells(words.plan, words.cells, words.places(), _say)


def cost(words: Words) -> None:
    """Print how long each cell will take on this machine, by its speed now."""
    from .cost import report

    for line in report(words.plan, words.cells, words.places()):
        _say(line)


def figures(words: Words) -> None:
    """Write the figure, and the sections of docs/choice.md where these are the project's rows.

    Of other rows the figure goes beside them, and the sections are printed.
    """
    from ..upkeep.pages import refresh
    from .report import save_choice, sections

    if words.results or words.protocol != "full":
        results = words.places().results
        paths = save_choice(results.with_name("figures"), results)
        print(*sections(results).values(), sep="\n")
    else:
        paths = save_choice(ROOT / "figures", ROOT / "results")
        refresh(ROOT, sections(ROOT / "results"))
    print(*paths, sep="\n")


def people(words: Words) -> None:
    """Run what is lacking of the comparison with what people use, seed by seed."""
    from .data import write_photos
    from .recipes import Contest, compare

    places, plan = words.places(), words.plan
    for seed in plan.contest_seeds:
        for source, (given, others, size) in plan.contests.items():
            folder = places.work / source
            write_photos(folder, source, given, others, size, words.data_dir)
            contest = Contest.of(plan, next(iter(plan.alphas)), seed, folder, places)
            compare(contest, places.results, _say)


COMMANDS: Mapping[str, Callable[[Words], None]] = {
    f.__name__: f for f in (run, cost, figures, people)
}


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Run one command; 2 and one line on standard error where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m lib.study", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="weights=<folder>")
    options = parser.parse_args(arguments)
    return answered(lambda: _run(COMMANDS[options.command], options.words))


def _run(command: Callable[[Words], None], words: Sequence[str]) -> None:
    told = Words(**read_texts("study", words, tuple(Words.__dataclass_fields__)))
    if command is not figures:
        import_quietly()
    command(told)


if __name__ == "__main__":
    with kept_interrupts():
        code = main(sys.argv[1:])
    sys.exit(code)
