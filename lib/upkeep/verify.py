"""Is everything that is committed what it says it is? ``make verify``.

Every ledger of ``results/``: schema, ranges and checksums (which reading checks), keys, accuracies
that agree with the images counted right, and every block of every partition present. Every figure
and table: byte for byte what its rows give.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from ..audit.figures import save_paper_size, write_all
from ..backbones.build import load_backbone
from ..backbones.records import BACKBONE_NAMES
from ..ledger import read_results, run_key, unpack_curve, unpack_hits
from ..methods import method, methods
from ..params import ROOT, InputError, Params, load_params
from ..provenance import own_git
from ..results import Results, planned
from ..study.report import save_choice
from . import pages
from .speed import read_bench, save_bench, save_scaling

UNFINISHED = "UNFINISHED"  # file in a folder whose rows are still being made: it may lack some


def verify(root: Path = ROOT) -> Iterator[str]:
    """One line for each thing that is wrong in results/, figures/, docs/ and README.md.

    What a user has added to them is not looked at, see `tracked`: all is read from a copy
    without it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve()
        copy_tracked(root, copy)
        for problem in everything_wrong(copy):
            yield problem.replace(str(copy), str(root))


def everything_wrong(root: Path) -> Iterator[str]:
    """What `verify` says of all files of a project."""
    yield from results_wrong(root)
    for folder in _folders(root / "figures"):
        try:
            rows = read_results(root / "results" / folder.name)
        except InputError:
            continue  # said above
        yield from files_wrong(rows, folder, _profile(root, folder.name))
    if (root / "results" / "bench.csv").exists():
        bench = read_bench(root / "results" / "bench.csv")

        def others(fresh: str) -> list[Path]:
            drawn = save_bench(fresh, bench) + save_scaling(fresh, root)
            own = pages.together(pages.paper_size(root))
            return [*drawn, *save_paper_size(own, fresh), *save_choice(fresh, root / "results")]

        yield from _unlike(others, root / "figures")
    yield from pages.outdated(root, pages.contents(root))


def results_wrong(root: Path) -> Iterator[str]:
    """One line for each thing that is wrong with the rows of ``results/``."""
    for folder in _folders(root / "results"):
        try:
            rows = read_results(folder)
        except InputError as error:
            yield str(error)
            continue
        lacking = list(rows_lacking(rows, _profile(root, folder.name)))
        if (folder / UNFINISHED).exists():
            lacking = [] if lacking else [f"lacks nothing; remove the file {UNFINISHED}"]
        for problem in (*rows_wrong(rows), *lacking):
            yield f"{folder.relative_to(root)}: {problem}"


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, which need not be there, by name."""
    return sorted(inside for inside in path.glob("*") if inside.is_dir())


def tracked(root: Path = ROOT) -> set[Path]:
    """What git tracks of params, results, figures, docs and the README, as paths from the root.

    Without a repository of its own, and in one that knows nothing of them, it is all that is there.
    """
    names = ("params", "results", "figures", "docs", "README.md")
    found = own_git(root, "ls-files", "-z", "--", *names)
    if found:
        return {Path(name) for name in found.split("\0") if name and (root / name).is_file()}
    there = [path for name in names for path in (root / name, *(root / name).rglob("*"))]
    return {path.relative_to(root) for path in there if path.is_file()}


def copy_tracked(root: Path, folder: Path) -> None:
    """Copy what is `tracked` of a project into another folder."""
    for path in tracked(root):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / path, folder / path)


def rows_wrong(rows: pd.DataFrame) -> Iterator[str]:
    """What single rows say that cannot be: keys, counts, accuracies."""
    for _, row in rows.iterrows():
        where = f"{row['method']}-{row['backbone']}, {row['block']}, repeat {row['repeat']}"
        yield from (f"{where}: {problem}" for problem in _row_wrong(row))
    results = rows.drop_duplicates(["key", "val_accuracy", "hits"])
    for key in results["key"][results["key"].duplicated()].unique():
        yield f"key {key} has two results"


def _row_wrong(row: pd.Series) -> Iterator[str]:
    if row["key"] != run_key(row):
        yield f"key is {row['key']}, its settings give {run_key(row)}"
    for name, images in (
        ("val_accuracy", "eval_images"),
        ("best_val_accuracy", "eval_images"),
        ("train_accuracy", "train_images"),
    ):
        if not np.isclose(row[name] * row[images], round(row[name] * row[images]), atol=1e-6):
            yield f"{name} is {row[name]}, no multiple of 1/{row[images]}"
    try:
        curve = unpack_curve(row["curve"]).tolist()
        right = int(unpack_hits(row["hits"], row["eval_images"]).sum())
    except ValueError as error:
        yield str(error)
        return
    n = row["eval_images"]
    counts = (round(row["val_accuracy"] * n), round(row["best_val_accuracy"] * n))
    if (curve[-1], max(curve)) != counts or right != curve[-1]:
        yield f"curve, hits and accuracies disagree: {curve[-1]}, {max(curve)}, {right}, {counts}"
    if np.isnan(row["val_loss"]) == (row["failed"] == ""):
        yield f"val_loss is {row['val_loss']}, failed is {row['failed']!r}"


def rows_lacking(rows: pd.DataFrame, params: Params | None) -> Iterator[str]:
    """Blocks that a method proposes and that have no row, and repeats that are missing.

    params: of the folder's profile, all of whose methods are then wanted; None wants only that
    methods which were begun are whole.
    """
    for name, runs in rows.groupby("backbone"):
        wanted = methods(params) if params else tuple(runs["method"].unique())
        for tuned in wanted:
            mine = runs[runs["method"] == tuned]
            search = mine[mine["split"] == params.search_split] if params else mine
            window = params.window if params else 3
            lacking = _partition(name, tuned, window) - set(search["layers"])
            if lacking:
                yield f"{tuned}-{name}: {len(lacking)} blocks lack a run, such as {min(lacking)!r}"
            elif search.empty:
                yield f"{tuned}-{name}: the search lacks its run"
            if params:
                finals = mine[mine["split"] == params.final_split]
                yield from (f"{tuned}-{name}: {w}" for w in _repeats_wrong(finals, params))


def _repeats_wrong(finals: pd.DataFrame, params: Params) -> Iterator[str]:
    """What is wrong with the repeats of one method's final runs on one backbone."""
    repeats = sorted(finals["repeat"])
    if repeats != list(range(params.repeats)):
        yield f"final repeats are {repeats}, wanted {params.repeats}"
    own = params.repeat_order == "own"
    if (finals["order_seed"] != params.seed + finals["repeat"] * own).any():
        yield f"orders are {list(finals['order_seed'])}, wanted {params.repeat_order}"


@cache
def _partition(name: str, tuned: str, window: int) -> set[str]:
    """The tuned layers of every block of a method; none where rows decide (ranks, random draws)."""
    record = method(tuned)
    if record.ranked or record.role == "start" or name not in BACKBONE_NAMES:
        return set()
    blocks = record.propose(_twin(name), Params("any", window=window), {})
    return {";".join(block.layers) for block in blocks}


@cache
def _twin(name: str) -> keras.Model:
    """The thin twin, which has the layers of a backbone and is made in less time."""
    return load_backbone(name, image_size=32, weights="none", thin=True)


def files_wrong(rows: pd.DataFrame, folder: Path, params: Params | None) -> Iterator[str]:
    """Figures and tables that are missing, too many, or not what the rows give."""
    if params is None:
        yield f"{folder}: no profile has this name"
        return
    results = Results.of(planned(rows, params), params)
    yield from _unlike(lambda fresh: write_all(results, Results.read_native(params), fresh), folder)


def _unlike(write: Callable[[str], list[Path]], folder: Path) -> Iterator[str]:
    """In what the files of a folder differ from those that `write` puts into another one."""
    with tempfile.TemporaryDirectory() as fresh:
        made = write(fresh)
        expected = {path.name: path.read_bytes() for path in made}
    there = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for name in sorted(expected.keys() | there.keys()):
        if name not in there:
            yield f"{folder / name} is missing"
        elif name not in expected:
            yield f"{folder / name} is made by nothing"
        elif there[name] != expected[name]:
            yield f"{folder / name} is not what its rows give"


def _profile(root: Path, name: str) -> Params | None:
    """The profile of a folder of rows; None where the project has none of this name."""
    path = root / "params" / f"{name}.yaml"
    return load_params(str(path), results=str(root / "results" / name)) if path.exists() else None
