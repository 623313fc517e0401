"""The study's runs, cell by cell: what is kept is not trained again.

Of each seed: the search, timed; each cheap strategy, timed, as `make photos` runs it; what the
strategies want on top; then every strategy's pick in every halving, from the record. Last, what was
picked with one seed is trained with the others.
"""

import gc
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from ..ledger import read_results
from ..params import InputError
from ..partition import Block
from ..photos.dataset import Dataset
from ..plan import Run
from ..provenance import RUNNING_COMMIT, versions
from ..tune import grafts
from ..tune.candidates import KINDS, Candidate, baselines
from ..tune.confirm import slices
from ..tune.lanes import PhotoPlan, PhotoStudy, pooled
from ..tune.run import network
from ..tune.search import Search
from ..tune.settings import Settings
from ..tune.strategies import STRATEGIES
from ..tune.strategies import halvings as stages
from ..upkeep.bench import machine
from ..whole import write_whole
from .data import load_photos
from .picks import COLUMNS, pack_picks, picks_path, read_picks
from .protocol import CHOICES, HALVINGS, RANKING, SEARCH, Cell, Protocol, halvings
from .record import Clock, Record, RecordedStudy
from .replay import Asking, Replayed, choose

Say = Callable[[str], None]


@dataclass(frozen=True)
class Places:
    """Where things are.

    Attributes:
        results: folder of the folders of rows; work: of what is kept on the way.
        weights: as in `lib.tune.settings`; data_dir: as in `lib.params`.
    """

    results: Path
    work: Path
    weights: str
    data_dir: str | None

    def rows(self, cell: Cell) -> Path:
        return self.results / f"choice_{cell.source}"


@dataclass(eq=False)
class Part:
    """One seed of a cell."""

    protocol: Protocol
    cell: Cell
    seed: int
    places: Places
    backbone: keras.Model
    dataset: Dataset

    @cached_property
    def settings(self) -> Settings:
        return settings_of(self.protocol, self.cell, self.seed, self.places)

    @property
    def work(self) -> Path:
        return self.places.work / self.cell.name / f"seed_{self.seed}"

    @cached_property
    def study(self) -> RecordedStudy:
        s = self.settings
        params = s.params(
            self.cell.size,
            self.places.rows(self.cell),
            **slices(self.protocol.train),
        )
        plan = PhotoPlan(params, self.backbone, self.dataset)
        return RecordedStudy(plan, Record(self.work / "told", stages(s)))

    def candidates(self) -> list[Candidate]:
        """All candidates, under each name that they have: every method's rows are whole."""
        s = self.settings
        return baselines(self.backbone) + [
            Candidate(name, KINDS[name].method, block)
            for name in s.candidates
            for block in KINDS[name].blocks(self.backbone, s.window)
        ]

    def train(self, some: Sequence[Candidate], stage: str) -> None:
        """Train what has no row. Raises InputError where a row is there and its record is not."""
        study, runs = self.study, [self.study.run(c.method, c.block) for c in some]
        study.record.stage = stage
        study.train(runs)
        self._check_told(runs)
        keras.utils.clear_session()
        gc.collect()

    def _check_told(self, runs: Sequence[Run]) -> None:
        told = self.study.record.told().places if self.study.record.folder.is_dir() else {}
        lost = [run for run in runs if run.key not in told]
        if lost:
            raise InputError(
                f"work: {self.study.record.folder} lacks {len(lost)} runs whose rows are in "
                f"{self.places.rows(self.cell)}, such as {lost[0].block.name}; allowed: the folder "
                "that was filled with these rows, or another folder of rows"
            )

    # ------------------------------------------------------------------------------- the replays

    def replayed(self, name: str, kind: type = Replayed, **more: Any) -> Replayed:
        """A search of one choice that is answered from the record."""
        choice = CHOICES[name]
        settings = replace(self.settings, strategy=choice.strategy, gradient=choice.gradient)
        told = self.study.record.told()
        places = {
            layers: told.places[key] for layers, key in self.keys().items() if key in told.places
        }
        return kind(self.study, settings, self.work, told=told, places=places, **more)

    def keys(self) -> dict[tuple[str, ...], str]:
        """The key of each run of this seed that has a row, by layers.

        Raises InputError where other settings made a row: backend, weights, or what is the default.
        """
        rows, found = read_results(self.places.rows(self.cell), [self.cell.backbone]), {}
        for row in rows[rows["seed"] == self.seed].to_dict("records"):
            layers = tuple(row["layers"].split(";")) if row["layers"] else ()
            run = self.study.run(row["method"], Block(row["block"], layers))
            self.study.plan.check_row(row, run)
            found[layers] = run.key
        return found

    @cached_property
    def measured(self) -> dict[str, Any]:
        """What the strategies' own runs have measured: gradients and grafts."""
        found: dict[str, Any] = {}
        if "gradient" in self.protocol.choices:
            found["gradients"] = pd.read_csv(self.work / "gradient" / "gradients.csv")
        if "graft" in self.protocol.choices:
            found["grafted"] = grafts.read(self.work / "graft" / grafts.FILE)
        return found

    def search(self) -> None:
        """The search of the paper, whole."""
        self.train(self.candidates(), SEARCH)
        self.train(self.together(), SEARCH)

    def together(self) -> list[Candidate]:
        """The best few layers together, by the photos that are in every half."""
        photos = np.arange(self.protocol.evaluation)
        replayed = self.replayed(SEARCH, shown=photos < len(photos) // RANKING)
        return replayed.together

    def wanted(self) -> list[Candidate]:
        """What strategies ask for that the search does not train."""
        there, found = self.keys(), {}
        for name in self.protocol.choices:
            if name != SEARCH:
                shown = halvings(self.protocol.evaluation, 1)[0]
                asking = self.replayed(name, Asking, shown=shown, **self.measured)
                choose(asking, CHOICES[name].strategy)
                found |= asking.wanted
        return [c for layers, c in found.items() if layers not in there]

    def picks(self, name: str, shown: np.ndarray) -> list[tuple[str, ...]]:
        """The layers that a choice picks for each mask of photos, bool ``(masks, photos)``."""
        replayed = self.replayed(name, **self.measured)
        if name == SEARCH:
            replayed.together = self.together()
        found = []
        for mask in shown:
            replayed.shown = mask
            found.append(choose(replayed, CHOICES[name].strategy).layers)
        return found

    # -------------------------------------------------------------------------------- the clock

    def timed(self, strategy: str) -> dict[str, Any]:
        """Seconds of a strategy that is run by itself, and the layers that it picks; once.

        It sees all evaluation photos, as the search does: their times can be compared.
        """
        folder = self.work / strategy
        path = folder / "timed.json"
        if not path.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # a part of its time is not known
            folder.mkdir(parents=True)
            settings = replace(self.settings, strategy=strategy)
            study, clock = PhotoStudy(self.study.plan), Clock()
            picked = STRATEGIES[strategy].choose(Search(study, settings, folder))
            seconds, cpu = clock.lap()
            timed = {"seconds": seconds, "cpu_seconds": cpu, "layers": picked.layers}
            write_whole(path, json.dumps(timed))
            keras.utils.clear_session()
            gc.collect()
        return json.loads(path.read_text(encoding="utf-8"))


def settings_of(protocol: Protocol, cell: Cell, seed: int, places: Places) -> Settings:
    """What `make photos` would be told, but for the strategy."""
    return Settings(
        dir=cell.source,
        backbone=cell.backbone,
        alpha=cell.alpha,
        weights=places.weights,
        image_size=cell.size,
        seed=seed,
        **protocol.values,
    )


# ---------------------------------------------------------------------------------------- the cells


def run_cells(protocol: Protocol, cells: Sequence[Cell], places: Places, say: Say = print) -> None:
    """Run cells that no other process is running; start it twice to use two cores.

    Raises InputError.
    """
    for cell in cells:
        path = places.work / f"{cell.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(path, timeout=0):
                run_cell(protocol, cell, places, say)
        except Timeout:
            say(f"{cell.name}: another process has it")


def run_cell(protocol: Protocol, cell: Cell, places: Places, say: Say = print) -> None:
    """Run what one data set and network still lack."""
    done = read_picks(places.rows(cell), cell.backbone)
    lacking = [s for s in protocol.seeds if (done["seed"] == s).sum() < len(protocol.choices)]
    photos = protocol.train + protocol.evaluation
    dataset = load_photos(cell.source, photos, cell.size, places.data_dir)
    settings = settings_of(protocol, cell, protocol.seeds[0], places)
    backbone = pooled(network(settings, cell.size))
    parts = [Part(protocol, cell, s, places, backbone, dataset) for s in protocol.seeds]
    for part in parts:
        part.keys()  # before anything is trained: rows of other settings are refused
    for part in parts:
        if part.seed in lacking:
            for line in _run_part(part):
                say(f"{cell.name}, seed {part.seed}: {line}")
    _cross(parts)
    say(f"{cell.name}: done")


def _run_part(part: Part) -> Iterator[str]:
    part.search()
    seconds, cpu = part.study.record.seconds(SEARCH)
    yield f"search {seconds:.0f} s, {cpu:.0f} CPU s"
    for strategy in part.protocol.timed(part.seed):
        timed = part.timed(strategy)
        yield f"{strategy} {timed['seconds']:.0f} s, {timed['cpu_seconds']:.0f} CPU s"
    part.train(part.wanted(), "more")
    _write_picks(part)
    yield "picks written"


def _cross(parts: Sequence[Part]) -> None:
    """Train what was picked with one seed with the others, too."""
    cell, places = parts[0].cell, parts[0].places
    picks = read_picks(places.rows(cell), cell.backbone)
    keys = {key for text in picks["keys"] for key in text.split()}
    rows = read_results(places.rows(cell), [cell.backbone])
    rows = rows[rows["key"].isin(keys)].drop_duplicates("layers")
    some = [
        Candidate("ranked", row["method"], Block(row["block"], tuple(row["layers"].split(";"))))
        for row in rows.to_dict("records")
        if row["layers"]
    ]
    for part in parts:
        there = part.keys()
        missing = [c for c in some if c.layers not in there]
        if missing:
            part.train(missing, "more")


def _write_picks(part: Part) -> None:
    """One row a choice, in the place of this seed's earlier ones."""
    folder, shown = part.places.rows(part.cell), halvings(part.protocol.evaluation)
    rows = [_common(part) | _picked(part, name, shown) for name in part.protocol.choices]
    old = read_picks(folder, part.cell.backbone)
    new = pd.concat([old[old["seed"] != part.seed], pd.DataFrame(rows, columns=list(COLUMNS))])
    write_whole(picks_path(folder, part.cell.backbone), new.to_csv(index=False))


def _common(part: Part) -> dict[str, Any]:
    """What all rows of picks of a seed say."""
    return {
        "data": part.cell.source,
        "backbone": part.cell.backbone,
        "alpha": part.cell.alpha,
        "image_size": part.cell.size,
        "train_images": part.protocol.train,
        "eval_images": part.protocol.evaluation,
        "seed": part.seed,
        "halvings": HALVINGS,
        "machine": machine(),
        "versions": versions(),
        "git_sha": RUNNING_COMMIT,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _picked(part: Part, name: str, shown: np.ndarray) -> dict[str, Any]:
    """What a row says of one choice: its time, and its picks on the halves that are shown."""
    times, alike, keys = _seconds_of(part, name), "", part.keys()
    if "layers" in times:
        every = np.ones((1, part.protocol.evaluation), bool)
        alike = str(part.picks(name, every)[0] == tuple(times["layers"])).lower()
    return {
        "choice": name,
        "strategy": CHOICES[name].strategy,
        "seconds": times["seconds"],
        "cpu_seconds": times["cpu_seconds"],
        "alike": alike,
        **pack_picks([keys[layers] for layers in part.picks(name, shown)]),
    }


def _seconds_of(part: Part, name: str) -> dict[str, Any]:
    """What a choice took; nothing for those that were not run by themselves."""
    if name in part.protocol.timed(part.seed):
        return part.timed(name)
    seconds = part.study.record.seconds(SEARCH) if name == SEARCH else (np.nan, np.nan)
    return dict(zip(("seconds", "cpu_seconds"), seconds, strict=True))
