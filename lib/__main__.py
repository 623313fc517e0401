"""The commands behind the Makefile: ``python -m lib COMMAND KEY=VALUE ...``."""

import argparse
import os
import sys

import yaml

from .params import ROOT, InputError, Params, load_params
from .quiet import import_quietly


def main(arguments: list[str]) -> int:
    """Run one command; 2 and one line on standard error where the input is refused."""
    parser = argparse.ArgumentParser(prog="python -m lib", description=__doc__)
    commands = {
        f.__name__: f
        for f in (check, backbones, train, audit, figures, bench, memory, bundle, verify)
    }
    parser.add_argument("command", choices=commands)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="profile=quick epochs=3")
    options = parser.parse_args(arguments)
    import_quietly()
    try:
        commands[options.command](parse_settings(options.settings))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse_settings(settings: list[str]) -> Params:
    """Parameters from words such as ``profile=quick`` and ``epochs=3``; values are YAML.

    ``backbones`` may be written as names between spaces. An empty value leaves the profile's.

    Raises InputError.
    """
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"settings: {setting!r} is not allowed; allowed: KEY=VALUE")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"settings: {name}: {text!r} is not YAML: {reason}") from error
        if name == "backbones" and isinstance(values[name], str):
            values[name] = values[name].split()
    given = {name: value for name, value in values.items() if value is not None}
    return load_params(given.pop("profile", "quick"), **given)


def check(params: Params) -> None:
    """Read the data and build every backbone, so that nothing that is wrong waits for its turn."""
    from .cost import check_room, estimate, report
    from .data import load_data
    from .sweep import studies

    check_room(params)
    dataset = load_data(params)
    size = f"{len(dataset)} images of {params.image_size} px"
    print(f"profile {params.profile}: {dataset.source}, {size}")
    print(f"  rows go to {params.results_dir}")
    costs = []
    for study in studies(params):
        study.check()
        costs.append(estimate(study))
    print(*report(params, costs), sep="\n", flush=True)


def backbones(params: Params) -> None:
    """Print the names of the profile's backbones."""
    print(*params.backbones)


def train(params: Params) -> None:
    """Train all that the notebooks train: the searches of all methods, then the final runs."""
    from .sweep import final, methods, search

    check(params)
    search(params, *methods(params))
    final(params, *methods(params))


def bundle(params: Params) -> None:
    """Pack the project for a machine without a network."""
    from .bundle import bundle, download_wheels

    parts = bundle(params, ROOT / "build" / "bundle", download_wheels)
    print(*parts, sep="\n")
    print(f"there: cat {params.profile}.tar.* | tar x && sh {params.profile}/run.sh")
    print(f"back:  copy {params.profile}/results/*.csv to {params.results_dir}")


def bench(params: Params) -> None:
    """Measure plain against fused: the cases in $CASE, names between spaces; all by default."""
    from .bench import bench

    bench(params, os.environ.get("CASE", "").split())


def memory(params: Params) -> None:
    """Measure the memory of each backbone's largest group of lanes against its estimate."""
    from .bench import bench_memory

    bench_memory(params)


def audit(params: Params) -> None:
    """Train the runs that the audit needs beyond the paper's: the controls in $CONTROL, or all."""
    from .controls import train_controls

    train_controls(params, os.environ.get("CONTROL", "").split())


def verify(params: Params) -> None:
    """Check everything that is committed, whatever the profile."""
    from .verify import verify

    problems = list(verify())
    for problem in problems:
        print(problem)
    if problems:
        raise InputError(f"verify: {len(problems)} problems; allowed: none")
    print("every row, figure and table is as it should be")


def figures(params: Params) -> None:
    """Draw every figure and table from the rows."""
    from . import readme
    from .audit_figures import write_all
    from .results import read_results
    from .speed import read_bench, save_bench

    rows = read_results(params.results_dir)
    if rows.empty:
        raise InputError(f"results: {params.results_dir} holds no rows; make paper writes them")
    print(*write_all(rows, params, params.figures_dir), sep="\n")
    if params.profile == readme.PROFILE and params.results is None:
        print(*save_bench(ROOT / "figures", read_bench()), sep="\n")
        readme.refresh()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
