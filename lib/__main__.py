"""The commands behind the Makefile: ``python -m lib COMMAND KEY=VALUE ...``."""

import argparse
import io
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from .command import answered, read_texts, read_values, split_words
from .errors import readable
from .interrupt import kept_interrupts
from .params import (
    ROOT,
    TEXTS,
    InputError,
    Params,
    described,
    load_params,
    profile_path,
    shown_path,
)
from .quiet import import_quietly

if TYPE_CHECKING:
    from .results import Results

READING = ("settings", "params", "figures", "claim", "site")  # these start no Keras


def main(arguments: list[str]) -> int:
    """Run one command; 2 and one line on standard error where the input is refused."""
    if arguments[:1] == ["pool"]:
        return pool(arguments[1:])
    parser = argparse.ArgumentParser(prog="python -m lib", description=__doc__)
    commands = {f.__name__: f for f in (*ON_PARAMS, settings, params)} | OWN_PHOTOS
    parser.add_argument("command", choices=commands)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="profile=quick epochs=3")
    parser.add_argument("--set", default="", help="more of them in one text, quoted as in a shell")
    parser.add_argument("--only", default="", help="cases of bench, a claim")
    parser.add_argument("--python", default="", help="of the machine that a bundle is for: 3.12")
    # As UTF-8, whatever the locale: what is no text then, is refused as no YAML.
    decoded = [os.fsencode(word).decode("utf-8", "surrogateescape") for word in arguments]
    options = parser.parse_intermixed_args(decoded)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    return answered(lambda: _run(commands[options.command], options))


def _run(command: Any, options: argparse.Namespace) -> int | None:
    if options.command not in READING:
        import_quietly()
    words = [*options.settings, *split_words(options.set)]
    if options.command in OWN_PHOTOS:
        return command(words)
    given = read_settings(words)
    more = {bench: [options.only.split()], bundle: [options.python], claim: [options.only]}
    return command(load_params(**given) if command in ON_PARAMS else given, *more.get(command, []))


def read_settings(words: list[str]) -> dict[str, Any]:
    """Values by name from words such as ``epochs=3``; ``profile`` is quick where none is given.

    Names and paths are taken as they are written, other values are YAML; ``backbones`` may be
    names between spaces. An empty value leaves the profile's.

    Raises InputError as `read_values`.
    """
    return {"profile": "quick"} | read_values(words, TEXTS)


def check(params: Params) -> None:
    """Read the data and build every backbone, so that nothing that is wrong waits for its turn."""
    from .backend import check_keras
    from .photos.dataset import describe_classes, load_data
    from .sweep import plans
    from .upkeep.cost import check_room, estimate, report

    check_keras()
    check_room(params)
    dataset = load_data(params)
    size = f"{len(dataset)} images of {params.image_size} px"
    print(f"profile {params.profile}: {dataset.source}, {size}")
    print(*describe_classes(dataset), sep="\n")
    print(f"  rows go to {readable(str(params.results_dir))}")
    costs = []
    for plan in plans(params):
        plan.check()
        costs.append(estimate(plan))
    print(*report(params, costs), sep="\n", flush=True)


def settings(given: dict[str, Any]) -> None:
    """Write the parameters for the notebooks, remove executed ones, and print their folder."""
    from .executed import folder, prepare

    params, profile = load_params(**given), given["profile"]
    path = profile_path(profile)
    prepare(params, shown_path(path) if profile.endswith(".yaml") else profile)
    print(folder(params).relative_to(ROOT))


def params(given: dict[str, Any]) -> None:
    """Print every parameter and setting: what it is, what is allowed, and its default."""
    from .tune.settings import Settings

    titles = {"Parameters of a profile": Params, "Settings of make photos": Settings}
    for title, record in titles.items():
        print(title, "-" * len(title), sep="\n")
        for name, about, allowed, default in described(record):
            print(f"{name} ({f'default {default}' if default else 'required'})")
            print(f"    {about}", f"    allowed: {allowed}", sep="\n")
        print()


def train(params: Params) -> None:
    """Train all that the notebooks train: the searches of all methods, then the final runs."""
    from .methods import methods
    from .sweep import final

    check(params)
    final(params, *methods(params))


def bundle(params: Params, python: str) -> None:
    """Pack the project for a machine without a network, whose Python may be another."""
    from .upkeep.bundle import bundle, download_wheels, folder_for

    parts = bundle(params, ROOT / "build" / "bundle", partial(download_wheels, python=python))
    print(*parts, sep="\n")
    print(f"there: cat {params.profile}.tar.* | tar x && sh {params.profile}/run.sh")
    print(f"back:  copy {params.profile}/results/*.csv to {folder_for(params)}")


def bench(params: Params, cases: list[str]) -> None:
    """Measure plain against fused: these cases, or all."""
    from .upkeep.bench import bench

    bench(params, cases)


def memory(params: Params) -> None:
    """Measure the memory of each backbone's largest group of lanes against its estimate."""
    from .upkeep.bench import bench_memory

    bench_memory(params)


def seeds(params: Params) -> None:
    """Repeat the layer-wise search with other seeds: how much of its scatter is chance."""
    from .sweep import SEEDS, search

    search(params, "layer_wise", repeats=SEEDS)


def verify(params: Params) -> None:
    """Check everything that is committed, whatever the profile."""
    from .upkeep.verify import verify

    problems = list(verify())
    for problem in problems:
        print(problem)
    if problems:
        raise InputError(f"verify: {len(problems)} problems; allowed: none")
    print("every row, figure and table is as it should be")


def site(params: Params) -> None:
    """Render README, docs and the executed notebooks as pages that any browser shows."""
    from .executed import folder
    from .upkeep.site import build

    pages = build(folder(params), ROOT / "build" / "site")
    print(f"{len(pages)} pages; the first is {pages[0]}")


def pool(arguments: list[str]) -> int:
    """Run a command with workers: ``pool --workers=2 -- COMMAND``; its exit status."""
    from .pool.local import run

    parser = argparse.ArgumentParser(prog="python -m lib pool", description=pool.__doc__)
    parser.add_argument("--workers", default="", help="how many to start here; 0: none")
    parser.add_argument(
        "--scheduler", default="", help="a cluster that is there: tcp://... or file"
    )
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    return answered(lambda: run(options.command, options.workers, options.scheduler))


def photos(words: list[str]) -> None:
    """Find the layers to tune for a folder of photos, and write the tuned network."""
    from .tune import tune_photos
    from .tune.settings import TEXTS as texts

    tune_photos(**read_values(words, texts))


def predict(words: list[str]) -> int:
    """Write the classes of photos by a tuned network; 1 where some could not be read."""
    from .tune import predict as classes_of

    given = read_texts("predict", words, ("model", "dir", "out"))
    for name, example in (("model", "build/photos/mine/model.keras"), ("dir", "my/photos")):
        if name not in given:
            raise InputError(
                f"{name.upper()} is missing; allowed: {name.upper()}=<such as {example}>"
            )
    found = classes_of(given["model"], given["dir"], given.get("out"))
    for word, lines in (("left out", found.other), ("not read", found.unread)):
        for line in lines:
            print(f"{word}: {line}", file=sys.stderr)
    print(found.path)
    return int(bool(found.unread))


OWN_PHOTOS = {"photos": photos, "predict": predict}  # their settings are no profile's


def figures(params: Params) -> None:
    """Draw every figure and table from the rows."""
    from .audit.figures import save_paper_size, write_all
    from .results import Results
    from .upkeep import pages
    from .upkeep.speed import read_bench, save_bench, save_scaling

    results, native = _results(params), Results.read_native(params)
    print(*write_all(results, native, params.figures_dir), sep="\n")
    if params == load_params(pages.PROFILE):  # SET would give the pages other numbers
        bench = read_bench()
        folder, (own, own_native) = ROOT / "figures", pages.paper_sizes()
        drawn = save_bench(folder, bench) + save_scaling(folder, ROOT)
        print(*drawn, *save_paper_size(pages.together(own), folder), sep="\n")
        made = pages.sections(results, native, bench, own, own_native) | pages.more(own)
        pages.refresh(ROOT, made)


def claim(params: Params, name: str) -> None:
    """Print one claim of the paper, the verdict on it, and every comparison."""
    from .audit.claims import about_claim, find_claim

    find_claim(name)  # a misspelt name is said even where there are no rows
    print(*about_claim(name, _results(params), params), sep="\n")


def layers(params: Params) -> None:
    """Write the table of layers anew from Keras, whatever the profile."""
    from .report.layers import FILE, write_layers

    write_layers()
    print(shown_path(FILE))


def _results(params: Params) -> "Results":
    """The results of a profile. Raises InputError where it has no rows."""
    from .results import Results

    results = Results.read(params)
    if not len(results):
        raise InputError(f"results: {params.results_dir} holds no rows; make paper writes them")
    return results


ON_PARAMS = (check, train, seeds, claim, figures, layers, site, bench, memory, bundle, verify)

if __name__ == "__main__":
    with kept_interrupts():
        code = main(sys.argv[1:])
    sys.exit(code)
