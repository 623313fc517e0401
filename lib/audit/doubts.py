"""Doubts about the paper's method, measured on our rows: what luck, seeds, epochs and size add."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from ..backbones.records import OTHER_KIND
from ..methods import PAPER, SEARCHES, TABLE1
from ..report.layers import layer_kinds
from ..results import Results
from .claims import findings, status
from .intervals import Interval, Score, difference, estimate, hits
from .scores import all_searches, outlying, scores

# -------------------------------------------------------------------------------- gains and luck


def optimism(results: Results) -> pd.DataFrame:
    """What selecting and scoring by the same run on the same photos adds to a winner's accuracy.

    Columns: backbone, method, blocks, reported (the winner's accuracy, as the paper scores it),
    honest (by what did not choose it, see `Searched.winner`), optimism (their difference), gain
    (honest minus Baseline I), low, high, by (what scores it: "another seed" or "the same run").
    """
    honest, searches, records = scores(results).winners, all_searches(results), []
    for (method, name), winner in honest.items():
        base = honest.get(("baseline_1", name))
        if method in SEARCHES and base:
            search = searches[method, name]
            reported = search.right[search.best_place].mean()
            gain = difference(winner, base)
            by = "another seed" if search.again.shape[1] else "the same run"
            numbers = (reported, winner.value, reported - winner.value, gain.value)
            ends = _ends(gain.interval())
            records.append((name, method, len(search.keys), *numbers, *ends, by))
    columns = ["backbone", "method", "blocks", "reported", "honest", "optimism", "gain"]
    return pd.DataFrame(records, columns=[*columns, "low", "high", "by"])


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def final_gains(results: Results) -> pd.DataFrame:
    """What each method adds to Baseline I in the final runs.

    Columns: backbone, method, gain, low, high, paper (the gain on the photos that chose the block,
    as the paper scores it; in the others that luck is taken off, see `Searched.carried`).
    """
    final, plain = scores(results).final, scores(results, honest=False).final
    records = []
    for method, name in final:
        ours, base = (method, name), ("baseline_1", name)
        if ours != base and base in final:
            gain = difference(final[ours], final[base])
            paper = plain[ours].value - plain[base].value
            records.append((name, method, gain.value, *_ends(gain.interval()), paper))
    return pd.DataFrame(records, columns=["backbone", "method", "gain", "low", "high", "paper"])


def layer_gains(results: Results) -> pd.DataFrame:
    """What each layer's tuning adds to Baseline I in the search, with what kind of layer it is.

    Columns: backbone, block, kind, weights (tuned, the classifier's not counted), gain, low, high,
    depth (0 at the input, 1 at the output; nan where Baseline II was not run).
    """
    blocks, rows = scores(results, honest=False).blocks, results.search
    records, order = [], _depths(rows)
    head = rows[rows["method"] == "baseline_1"].set_index("backbone")["n_trainable"]
    layers = rows[(rows["method"] == "layer_wise") & rows["backbone"].isin(head.index)]
    for name, block, trainable in zip(
        layers["backbone"], layers["block"], layers["n_trainable"], strict=True
    ):
        base = blocks["baseline_1", name, "baseline_1"]
        gain = difference(blocks["layer_wise", name, block], base).interval()
        kind, depth = layer_kinds(name).get(block, OTHER_KIND), order.get((name, block), np.nan)
        weights = trainable - head[name]
        records.append((name, block, kind, weights, gain.value, *_ends(gain), depth))
    columns = ["backbone", "block", "kind", "weights", "gain", "low", "high", "depth"]
    return pd.DataFrame(records, columns=columns)


def _depths(rows: pd.DataFrame) -> dict[tuple[str, str], float]:
    """How deep each layer lies, 0 to 1, by backbone and name; Baseline II tunes them in order."""
    depths = {}
    for name, text in rows[rows["method"] == "baseline_2"].set_index("backbone")["layers"].items():
        layers = text.split(";")
        last = max(1, len(layers) - 1)
        depths |= {(name, layer): place / last for place, layer in enumerate(layers)}
    return depths


# ------------------------------------------------------------------------------- other settings


def setting_gains(first: Results, second: Results) -> pd.DataFrame:
    """Final accuracy by method and backbone under two settings, and what the second one adds.

    Runs are paired by repeat, which has the same seed under both. Two methods with the same runs,
    under both, count once for the noise; one that scatters far more has its own, see `outlying`.

    Columns: backbone, method, first, second, gain (second minus first), low, high.
    """
    columns = ["backbone", "method", "repeat", "hits", "eval_images", "key"]
    pairs = first.final[columns].merge(second.final[columns], on=columns[:3])
    records = []
    for name, runs in pairs[pairs["method"].isin(TABLE1)].groupby("backbone"):
        tables = {method: _paired(pair) for method, pair in runs.groupby("method")}
        noise, apart = outlying(*_distinct(runs, tables), shared=False)
        for method, table in tables.items():
            gain = (table[1] - table[0]).mean(axis=0)
            weights = dict.fromkeys(range(table.shape[1]), 1 / table.shape[1])
            number = estimate((1.0, Score(gain, weights, apart.get(method, noise))))
            means = table.mean(axis=(1, 2))
            records.append((name, method, *means, number.value, *_ends(number.interval())))
    columns = ["backbone", "method", "first", "second", "gain", "low", "high"]
    return pd.DataFrame(records, columns=columns)


def _distinct(runs: pd.DataFrame, tables: Mapping[str, np.ndarray]) -> tuple[list[str], np.ndarray]:
    """Methods with runs of their own and the most repeats; gains ``(methods, repeats, photos)``."""
    keys = runs.groupby("method")[["key_x", "key_y"]].agg(tuple)
    most = max(table.shape[1] for table in tables.values())
    names = [m for m in keys[~keys.duplicated()].index if tables[m].shape[1] == most]
    return names, np.array([tables[m][1] - tables[m][0] for m in names])


def _paired(runs: pd.DataFrame) -> np.ndarray:
    """Which photos the runs of two settings got right, ``(2, repeats, photos)``."""
    sides = [
        runs[[f"hits_{side}", f"eval_images_{side}"]].set_axis(["hits", "eval_images"], axis=1)
        for side in "xy"
    ]
    return np.array([hits(side) for side in sides])


def same_verdicts(first: Results, second: Results) -> tuple[int, int, int]:
    """How many claims two settings decide alike, decide both, and leave both undecided."""
    verdicts = [
        {name: status(found) for name, found in findings(results).items()}
        for results in (first, second)
    ]
    pairs = [(verdict, verdicts[1][name]) for name, verdict in verdicts[0].items()]
    decided = [pair for pair in pairs if not {"not tested", "undecided"} & {*pair}]
    alike = sum(one == other for one, other in decided)
    return alike, len(decided), pairs.count(("undecided", "undecided"))


def _spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; nan where one side is constant, as one class predicted for all is."""
    return float(spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else np.nan


def same_ranks(first: Results, second: Results) -> dict[str, float]:
    """Spearman correlation of one backbone's blocks between two searches, by method."""
    sides = []
    for results in (first, second):
        rows = results.search[results.search["method"].isin(SEARCHES)]
        sides.append(rows.set_index(["method", "block"])["val_accuracy"])
    both = pd.concat(sides, axis=1, join="inner", keys=["first", "second"])
    groups = both.groupby("method", sort=False)
    return {method: _spearman(pair["first"], pair["second"]) for method, pair in groups}


def variances(results: Results) -> pd.DataFrame:
    """Table I's Variance row, and without each backbone in turn: method by what is left out."""
    rows = results.final
    means = rows.pivot_table(index="backbone", columns="method", values="val_accuracy")
    means = means.reindex(columns=[method for method in TABLE1 if method in means])
    if len(means) < 2:
        return pd.DataFrame(columns=means.columns)
    table = {"all": means.var(ddof=1)}
    if len(means) > 2:
        for kept in combinations(means.index, len(means) - 1):
            (left,) = set(means.index) - set(kept)
            table[f"without {left}"] = means.loc[list(kept)].var(ddof=1)
    return pd.DataFrame(table).T


# ------------------------------------------------------------------------------ epochs and seeds


def last_against_best(results: Results) -> pd.DataFrame:
    """The accuracy of the last epoch and of the best, which the photos that score it choose.

    Columns: split, backbone, method, last, best (means over runs), most (largest gap of a run).
    """
    rows = results.valid[results.valid["method"].isin(PAPER)]
    rows = rows.assign(gap=rows["best_val_accuracy"] - rows["val_accuracy"])
    groups = rows.groupby(["split", "backbone", "method"], sort=False)
    table = groups.agg(
        last=("val_accuracy", "mean"), best=("best_val_accuracy", "mean"), most=("gap", "max")
    )
    return table.reset_index()


def seeds(results: Results) -> dict[str, pd.DataFrame]:
    """Layer-wise accuracies by backbone, layer x repeat, where the search was repeated."""
    rows = results.searched[results.searched["method"] == "layer_wise"]
    tables = {
        name: runs.pivot(index="block", columns="repeat", values="val_accuracy").dropna()
        for name, runs in rows.groupby("backbone", sort=False)
    }
    return {name: table for name, table in tables.items() if table.shape[1] > 1 and len(table) > 1}
