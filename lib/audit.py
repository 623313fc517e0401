"""The paper's claims against our rows: intervals, and a verdict on each (notebook 8).

Rows say which evaluation images each run got right, so two runs can be compared image by image. An
interval is a 95 % percentile bootstrap that resamples the evaluation images, the same for all runs,
and the repeats of each group of runs.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations, permutations
from zlib import crc32

import numpy as np
import pandas as pd
from scipy.stats import chi2, spearmanr

from .paper import CLAIMS, METHODS, accuracies, label
from .results import FINAL_SPLIT, SEARCH_SPLIT, best_block, final_rows, search_rows, unpack_hits

DRAWS = 2000
SEARCHES = ("layer_wise", "block_wise", "sliding_window")
PROPOSED = ("block_wise", "top_3", "top_5", "sliding_window")
UNPROPOSED = ("baseline_1", "baseline_2", "layer_wise")
OURS = ("layer_wise", *PROPOSED)
NEAR = 0.02  # accuracies that differ by less are "comparable"
FEW = 0.25  # a share that is "few", of layers; of methods, half
STEADY = 0.02  # a standard deviation over repeats below this is "consistent"

# Written before the runs that they judge.
STATUSES = {
    "holds": "every comparison is as the paper says, and its 95 % interval lies inside the claim",
    "holds within noise": "no comparison contradicts the paper by more than its interval",
    "does not hold": "the interval of at least one comparison lies outside the claim",
    "not tested": "rows are missing",
}


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3g} [{self.low:+.3g}, {self.high:+.3g}]"


@dataclass(frozen=True)
class Finding:
    """One comparison: the claim says that the number lies above `least` and below `most`."""

    text: str
    interval: Interval
    least: float = 0.0
    most: float = np.inf

    @property
    def as_claimed(self) -> bool:
        """Whether the number itself, whatever its interval, is as the claim says."""
        return self.least <= self.interval.value <= self.most

    @property
    def supports(self) -> bool | None:
        """True or False where the whole interval lies inside or outside; None where it does not."""
        if self.least < self.interval.low and self.interval.high < self.most:
            return True
        if self.interval.high <= self.least or self.most <= self.interval.low:
            return False
        return None


def status(findings: Sequence[Finding]) -> str:
    """The verdict that some findings give, one of `STATUSES`."""
    if not findings:
        return "not tested"
    supports = [finding.supports for finding in findings]
    if False in supports:
        return "does not hold"
    return "holds within noise" if None in supports else "holds"


# -------------------------------------------------------------------------------- the bootstrap


def hits(rows: pd.DataFrame) -> np.ndarray:
    """Which evaluation images each run got right, float64 ``(runs, images)``."""
    pairs = zip(rows["hits"], rows["eval_images"], strict=True)
    return np.array([unpack_hits(text, n) for text, n in pairs], float)


@cache
def _resampled(n: int, seed: int) -> np.ndarray:
    """How often each of n images is drawn, over n, float64 ``(DRAWS, n)``."""
    return np.random.default_rng([seed, n]).multinomial(n, np.full(n, 1 / n), DRAWS) / n


class Bootstrap:
    """Accuracies of groups of runs, as they are and resampled `DRAWS` times.

    Args:
        groups: which images the runs of a group got right, ``(runs, images)``; runs of one group
            differ in their seed only, and all groups were scored on the same images.
    """

    def __init__(self, groups: Mapping[Hashable, np.ndarray], seed: int = 0):
        self.point = {key: runs.mean() for key, runs in groups.items()}
        self.drawn: dict[Hashable, np.ndarray] = {}
        if not groups:
            return
        images = _resampled(next(iter(groups.values())).shape[1], seed)
        for key, runs in groups.items():
            # Each group's own draws: the same interval, whatever groups are beside it.
            rng, r = np.random.default_rng([seed, crc32(str(key).encode())]), len(runs)
            weights = rng.multinomial(r, np.full(r, 1 / r), DRAWS) / r
            self.drawn[key] = ((images @ runs.T) * weights).sum(axis=1)

    def interval(self, number: Callable[[Mapping], float | np.ndarray]) -> Interval:
        """The interval of a number that is computed from the groups' accuracies."""
        low, high = np.percentile(number(self.drawn), [2.5, 97.5])
        return Interval(float(number(self.point)), float(low), float(high))


def final_sample(df: pd.DataFrame) -> Bootstrap:
    """All final runs; the groups are (method, backbone)."""
    groups = final_rows(df).groupby(["method", "backbone"], sort=False)
    return Bootstrap({key: hits(rows) for key, rows in groups})


def search_sample(df: pd.DataFrame) -> Bootstrap:
    """All runs of the search; the groups are (method, backbone, block)."""
    groups = search_rows(df).groupby(["method", "backbone", "block"], sort=False)
    return Bootstrap({key: hits(rows) for key, rows in groups})


# ------------------------------------------------------------------------------------- verdicts


def verdicts(df: pd.DataFrame) -> pd.DataFrame:
    """Every claim of the paper: one row a claim.

    Columns: claim, where, tested as, printed (how many comparisons of the printed Table I are as
    the claim says, where it is about Table I), as claimed (how many of ours), ours (each with its
    interval) and status.
    """
    found, paper = findings(df), printed()
    return pd.DataFrame(
        {
            "claim": claim.text,
            "where": claim.where,
            "tested as": claim.statement,
            "printed": paper.get(claim.name, "–"),
            "as claimed": _count([f.as_claimed for f in found[claim.name]]),
            "ours": "; ".join(f"{f.text} {f.interval}" for f in found[claim.name]) or "–",
            "status": status(found[claim.name]),
        }
        for claim in CLAIMS
    )


def printed() -> dict[str, str]:
    """How many comparisons of the paper's own Table I are as its claims about it say, by claim."""
    table = accuracies()
    mean, variance = table.mean(), table.var(ddof=1)
    others = [m for m in METHODS if m != "block_wise"]
    tests = {
        "block_wise_never_below_baseline_2": table["block_wise"] >= table["baseline_2"],
        "block_wise_highest_mean": [mean["block_wise"] > mean[m] for m in others],
        "block_wise_lowest_variance": [variance["block_wise"] < variance[m] for m in others],
        "proposed_beat_all": [
            better
            for ours in PROPOSED
            for other in UNPROPOSED
            for better in table[ours] >= table[other]
        ],
    }
    return {name: _count(test) for name, test in tests.items()}


def _count(answers: Iterable[bool]) -> str:
    answers = list(answers)
    return f"{sum(answers)} of {len(answers)}" if answers else "–"


def findings(df: pd.DataFrame) -> dict[str, list[Finding]]:
    """The comparisons that test each claim, by the claim's name."""
    search, final = search_sample(df), final_sample(df)
    best = _best_blocks(df)
    backbones = list(dict.fromkeys(df["backbone"]))

    def searched(upper: str, lower: str, **limits: float) -> list[Finding]:
        pairs = [((upper, b), (lower, b)) for b in backbones]
        pairs = [(best.get(x), best.get(y)) for x, y in pairs]
        return [_difference(search, x, y, **limits) for x, y in pairs if x and y]

    def trained(upper: str, lower: str) -> list[Finding]:
        pairs = [((upper, b), (lower, b)) for b in backbones]
        return [_difference(final, x, y) for x, y in pairs if {x, y} <= final.point.keys()]

    near = {"least": -NEAR, "most": NEAR}
    others = [m for m in METHODS if m != "block_wise"]
    return {
        "random_beats_baseline_1": searched("random", "baseline_1"),
        "random_near_baseline_2": searched("random", "baseline_2", **near),
        "layers_differ": layers_against_seeds(df),
        "few_layers_beat_both": _few_layers(search, backbones),
        "block_wise_improves": searched("block_wise", "layer_wise")
        + searched("block_wise", "baseline_1"),
        "window_near_block_and_baseline_2": searched("sliding_window", "block_wise", **near)
        + searched("sliding_window", "baseline_2", **near),
        "all_beat_baseline_1": [f for m in OURS for f in searched(m, "baseline_1")],
        "few_beat_baseline_2": _few_methods(search, best, backbones),
        "block_wise_never_below_baseline_2": trained("block_wise", "baseline_2"),
        "block_wise_highest_mean": _over_backbones(final, others, np.mean, 1),
        "block_wise_lowest_variance": _over_backbones(final, others, _variance, -1),
        "repeats_agree": _steady(df),
        "proposed_beat_all": [
            finding for ours in PROPOSED for other in UNPROPOSED for finding in trained(ours, other)
        ],
    }


def _best_blocks(df: pd.DataFrame) -> dict[tuple[str, str], tuple[str, str, str]]:
    """The group of `search_sample` that holds each method's winner, by (method, backbone)."""
    pairs = search_rows(df)[["method", "backbone"]].drop_duplicates().itertuples(index=False)
    return {(m, b): (m, b, best_block(df, m, b)["block"]) for m, b in pairs}


def _difference(sample: Bootstrap, upper: Hashable, lower: Hashable, **limits: float) -> Finding:
    text = f"{upper[1]}: {label(upper[0])} − {label(lower[0])}"
    return Finding(text, sample.interval(lambda a: a[upper] - a[lower]), **limits)


def _few_layers(search: Bootstrap, backbones: Iterable[str]) -> list[Finding]:
    """The share of layers that score above both baselines."""
    found = []
    for name in backbones:
        layers = [key for key in search.point if key[:2] == ("layer_wise", name)]
        baselines = [(m, name, m) for m in ("baseline_1", "baseline_2")]
        if layers and set(baselines) <= search.point.keys():
            share = search.interval(lambda a, x=layers, y=baselines: _share_above(a, x, y))
            found.append(Finding(f"{name}: share of layers", share, 1e-9, FEW))
    return found


def _few_methods(search: Bootstrap, best: Mapping, backbones: Iterable[str]) -> list[Finding]:
    """The share of approaches whose best block scores above Baseline II."""
    found = []
    for name in backbones:
        ours = [best[m, name] for m in OURS if (m, name) in best]
        if len(ours) == len(OURS) and ("baseline_2", name) in best:
            share = search.interval(
                lambda a, x=ours, y=name: _share_above(a, x, [best["baseline_2", y]])
            )
            found.append(Finding(f"{name}: share of approaches", share, 1e-9, 0.5 + 1e-9))
    return found


def _share_above(accuracy: Mapping, keys: Sequence, bars: Sequence) -> float | np.ndarray:
    bar = np.max([accuracy[key] for key in bars], axis=0)
    return np.mean([accuracy[key] > bar for key in keys], axis=0)


def _over_backbones(
    final: Bootstrap, others: Sequence[str], statistic: Callable, sign: int
) -> list[Finding]:
    """A statistic of block-wise over the backbones, minus that of each other method, times sign."""
    backbones = [name for method, name in final.point if method == "block_wise"]
    if len(backbones) < 2:
        return []

    def gap(accuracy: Mapping, other: str) -> float | np.ndarray:
        ours, theirs = (
            statistic([accuracy[method, name] for name in backbones], axis=0)
            for method in ("block_wise", other)
        )
        return sign * (ours - theirs)

    what = "mean of Block-wise − {}" if sign > 0 else "variance of {} − Block-wise"
    return [
        Finding(
            f"{what.format(label(m))} over {len(backbones)} backbones",
            final.interval(lambda a, m=m: gap(a, m)),
        )
        for m in others
        if all((m, name) in final.point for name in backbones)
    ]


def _variance(values: Sequence, axis: int) -> float | np.ndarray:
    return np.var(values, axis=axis, ddof=1)


def _steady(df: pd.DataFrame) -> list[Finding]:
    """The standard deviation over repeats, pooled over backbones, with its chi-square interval."""
    found = []
    for method in ("block_wise", "sliding_window"):
        rows = final_rows(df)
        groups = rows[rows["method"] == method].groupby("backbone")["val_accuracy"]
        squares, freedom = (groups.var() * (groups.size() - 1)).sum(), (groups.size() - 1).sum()
        if freedom > 0:
            low, high = (np.sqrt(squares / chi2.ppf(q, freedom)) for q in (0.975, 0.025))
            sd = Interval(float(np.sqrt(squares / freedom)), float(low), float(high))
            found.append(Finding(f"{label(method)}: sd over repeats", sd, -1e-9, STEADY))
    return found


def layers_against_seeds(df: pd.DataFrame) -> list[Finding]:
    """How much more the layers differ than chance does, for backbones searched more than once.

    One search starts all its layers from the same seed, and a seed that is lucky is so for most of
    them. What makes a layer look better than another is the rest, see `_components`. The interval
    resamples the layers.
    """
    rng, found = np.random.default_rng(0), []
    for name, table in seeds(df).items():
        values = table.to_numpy()
        draws = [
            _components(values[rng.integers(0, len(values), len(values))]) for _ in range(DRAWS)
        ]
        layers, chance = _components(values)
        low, high = np.percentile([one - other for one, other in draws], [2.5, 97.5])
        interval = Interval(float(layers - chance), float(low), float(high))
        text = f"{name}: sd over layers {layers:.4f} − by chance {chance:.4f}"
        found.append(Finding(f"{text} ({table.shape[1]} seeds)", interval))
    return found


def seeds(df: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Layer-wise accuracies by backbone, layer x repeat, where the search was repeated."""
    rows = df[(df["method"] == "layer_wise") & (df["split"] == SEARCH_SPLIT) & (df["failed"] == "")]
    tables = {
        name: of.pivot(index="block", columns="repeat", values="val_accuracy").dropna()
        for name, of in rows.groupby("backbone", sort=False)
    }
    return {name: table for name, table in tables.items() if table.shape[1] > 1 and len(table) > 1}


def _components(values: np.ndarray) -> tuple[float, float]:
    """What rows, such as layers, and chance add to a table's scatter, as standard deviations.

    values: accuracies ``(rows, seeds)``. The two-way layout: value = mean + row + seed + chance.
    What a seed adds to all rows alike is in neither number.
    """
    rows, seeds = values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - seeds + values.mean()
    chance = (rest**2).sum() / np.prod(np.subtract(values.shape, 1))
    between = rows.var(ddof=1) - chance / values.shape[1]
    return float(np.sqrt(max(between, 0.0))), float(np.sqrt(chance))


# ------------------------------------------------------------------------ doubts about the method


def optimism(df: pd.DataFrame, splits: int = 200) -> pd.DataFrame:
    """What selecting and scoring on the same images adds to a winner's accuracy.

    The evaluation images are halved at random; the block is selected on one half and scored on
    both. Columns: backbone, method, blocks, reported (on the half that selected), honest (on the
    other half), optimism (their difference), gain (honest minus Baseline I on the same half).
    """
    rng, records, rows = np.random.default_rng(0), [], search_rows(df)
    for (name, method), of in rows[rows["method"].isin(SEARCHES)].groupby(["backbone", "method"]):
        base = rows[(rows["backbone"] == name) & (rows["method"] == "baseline_1")]
        if base.empty:
            continue
        right, plain = hits(of), hits(base)[0]
        scores = []
        for _ in range(splits):
            order = rng.permutation(right.shape[1])
            one, other = np.array_split(order, 2)
            winner = right[:, one].mean(axis=1).argmax()
            honest = right[winner, other].mean()
            scores.append((right[winner, one].mean(), honest, honest - plain[other].mean()))
        reported, honest, gain = np.mean(scores, axis=0)
        records.append((name, method, len(of), reported, honest, reported - honest, gain))
    columns = ["backbone", "method", "blocks", "reported", "honest", "optimism", "gain"]
    return pd.DataFrame(records, columns=columns)


def rank_correlation(df: pd.DataFrame, long: pd.DataFrame, method: str = "block_wise"):
    """Does the 10 % search predict which block wins on 70 %?

    long: rows of all blocks of `method` trained on the final slice.

    Returns a frame: backbone, blocks, rho (Spearman), low, high, place (of the search's winner
    among the blocks trained on 70 %, 1 is best), lost (accuracy given up by the search's choice).
    """
    records = []
    for name in dict.fromkeys(long["backbone"]):
        short = _by_block(search_rows(df), method, name)
        full = _by_block(search_rows(long, FINAL_SPLIT), method, name)
        blocks = [block for block in short if block in full]
        if len(blocks) < 3:
            continue
        a = Bootstrap({block: short[block] for block in blocks}, seed=1)
        b = Bootstrap({block: full[block] for block in blocks}, seed=2)
        x, y = ([s.point[k] for k in blocks] for s in (a, b))
        drawn = [
            _spearman([a.drawn[k][i] for k in blocks], [b.drawn[k][i] for k in blocks])
            for i in range(0, DRAWS, 4)
        ]
        low, high = np.percentile(drawn, [2.5, 97.5])
        chosen = y[int(np.argmax(x))]
        place = 1 + sum(value > chosen for value in y)
        rho = _spearman(x, y)
        records.append((name, len(blocks), rho, low, high, place, max(y) - chosen))
    return pd.DataFrame(
        records, columns=["backbone", "blocks", "rho", "low", "high", "place", "lost"]
    )


def _by_block(rows: pd.DataFrame, method: str, name: str) -> dict[str, np.ndarray]:
    rows = rows[(rows["method"] == method) & (rows["backbone"] == name)]
    return {block: hits(of) for block, of in rows.groupby("block", sort=False)}


def compared(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Final accuracy by method and backbone under two settings, and what the second one adds.

    Columns: backbone, method, first, second, gain (second minus first), low, high.
    """
    records = []
    both = [final_rows(df).groupby(["backbone", "method"]) for df in (first, second)]
    groups = [{key: hits(rows) for key, rows in grouped} for grouped in both]
    for key in sorted(groups[0].keys() & groups[1].keys()):
        sample = Bootstrap({"first": groups[0][key], "second": groups[1][key]})
        gain = sample.interval(lambda a: a["second"] - a["first"])
        records.append((*key, *sample.point.values(), gain.value, gain.low, gain.high))
    columns = ["backbone", "method", "first", "second", "gain", "low", "high"]
    table = pd.DataFrame(records, columns=columns)
    return table[table["method"].isin(METHODS)].reset_index(drop=True)


def same_verdicts(first: pd.DataFrame, second: pd.DataFrame) -> tuple[int, int]:
    """How many claims get the same verdict from two sets of rows, and how many both can test."""
    one, other = (verdicts(df)["status"] for df in (first, second))
    tested = (one != "not tested") & (other != "not tested")
    return int(((one == other) & tested).sum()), int(tested.sum())


def same_ranks(first: pd.DataFrame, second: pd.DataFrame) -> dict[str, float]:
    """Spearman correlation of one backbone's blocks between two searches, by method."""
    scores = []
    for df in (first, second):
        rows = search_rows(df)
        rows = rows[rows["method"].isin(SEARCHES)].set_index(["method", "block"])
        scores.append(rows["val_accuracy"])
    both = pd.concat(scores, axis=1, join="inner", keys=["first", "second"])
    groups = both.groupby("method", sort=False)
    return {method: _spearman(of["first"], of["second"]) for method, of in groups}


def of_sizes(rows: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """The rows of larger photos and those of the profile for the same backbones, in one frame."""
    return pd.concat([rows[rows["backbone"].isin(sizes["backbone"])], sizes], ignore_index=True)


def by_size(rows: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Both baselines' final accuracy by image size, where there are rows of larger photos.

    Columns: backbone, image_size (pixels), values (that a BatchNorm of the last layers sees of a
    channel in one training step: batch size x height x width, at a 32nd of the image's),
    baseline_1, baseline_2 (means over repeats), gap (Baseline II minus Baseline I), low, high.
    """
    records = []
    for (name, n), of in of_sizes(rows, sizes).groupby(["backbone", "image_size"], sort=True):
        runs = {method: hits(x) for method, x in final_rows(of).groupby("method")}
        if {"baseline_1", "baseline_2"} <= runs.keys():
            sample = Bootstrap({m: runs[m] for m in ("baseline_1", "baseline_2")})
            gap = sample.interval(lambda a: a["baseline_2"] - a["baseline_1"])
            values = of["batch_size"].iloc[0] * (n // 32) ** 2
            records.append((name, n, values, *sample.point.values(), gap.value, gap.low, gap.high))
    columns = ["backbone", "image_size", "values", "baseline_1", "baseline_2", "gap", "low", "high"]
    return pd.DataFrame(records, columns=columns)


def final_gains(df: pd.DataFrame) -> pd.DataFrame:
    """What each method adds to Baseline I in the final runs.

    Columns: backbone, method, gain, low, high.
    """
    sample, records = final_sample(df), []
    for method, name in sample.point:
        ours, base = (method, name), ("baseline_1", name)
        if ours != base and base in sample.point:
            gain = sample.interval(lambda a, x=ours, y=base: a[x] - a[y])
            records.append((name, method, gain.value, gain.low, gain.high))
    return pd.DataFrame(records, columns=["backbone", "method", "gain", "low", "high"])


def gains(df: pd.DataFrame, kinds: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """What each layer's tuning adds to Baseline I in the search, with what kind of layer it is.

    kinds: kind of layer by backbone and name, such as "BatchNorm".

    Columns: backbone, block, depth (0 at the input, 1 at the output), kind, weights (tuned, the
    classifier's not counted), gain, low, high.
    """
    sample, records, rows = search_sample(df), [], search_rows(df)
    head = rows[rows["method"] == "baseline_1"].set_index("backbone")["n_trainable"]
    for _, row in rows[rows["method"] == "layer_wise"].iterrows():
        name, block = row["backbone"], row["block"]
        if name not in head:
            continue
        ours, base = ("layer_wise", name, block), ("baseline_1", name, "baseline_1")
        gain = sample.interval(lambda a, x=ours, y=base: a[x] - a[y])
        weights = row["n_trainable"] - head[name]
        kind = kinds.get((name, block), "?")
        records.append((name, block, kind, weights, gain.value, gain.low, gain.high))
    columns = ["backbone", "block", "kind", "weights", "gain", "low", "high"]
    table = pd.DataFrame(records, columns=columns)
    order = {}
    for name, of in rows[rows["method"] == "baseline_2"].set_index("backbone")["layers"].items():
        layers = of.split(";")
        order |= {(name, x): i / max(1, len(layers) - 1) for i, x in enumerate(layers)}
    table["depth"] = [
        order.get(k, np.nan) for k in zip(table["backbone"], table["block"], strict=True)
    ]
    return table


def last_against_best(df: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of the best epoch minus that of the last: mean and largest, by slice and method."""
    rows = df[(df["failed"] == "") & df["method"].isin((*METHODS, "random"))]
    gap = (rows["best_val_accuracy"] - rows["val_accuracy"]).groupby(
        [rows["split"], rows["method"]]
    )
    return gap.agg(["mean", "max", "count"]).reset_index()


def stop_early(df: pd.DataFrame, method: str = "block_wise") -> pd.DataFrame:
    """How far a search that stops after an epoch can be trusted, where it was repeated.

    Ranks are compared between different seeds only, so that chance is on neither side twice.

    Columns: backbone, epoch, accuracy (mean over blocks and seeds), again (Spearman correlation
    of the blocks' accuracies with those of another seed at the same epoch, mean over pairs of
    seeds), end (the same with those of another seed at the last epoch), spread (standard
    deviation over blocks without chance, see `_components`), chance.
    """
    records = []
    columns = ["backbone", "epoch", "accuracy", "again", "end", "spread", "chance"]
    for name, curves in _curves(df, method).items():
        for epoch in range(1, curves.shape[2] + 1):
            now = curves[:, :, epoch - 1]
            again, end = (_between_seeds(now, other) for other in (now, curves[:, :, -1]))
            records.append((name, epoch, now.mean(), again, end, *_components(now)))
    return pd.DataFrame(records, columns=columns)


def _curves(df: pd.DataFrame, method: str) -> dict[str, np.ndarray]:
    """Accuracies ``(blocks, seeds, epochs)`` of a repeated search, by backbone."""
    rows = df[(df["method"] == method) & (df["split"] == SEARCH_SPLIT) & (df["failed"] == "")]
    curves = {}
    for name, of in rows.groupby("backbone", sort=False):
        table = of.pivot(index="block", columns="repeat", values="curve").dropna()
        if table.shape[1] > 1 and len(table) > 2:
            counts = [[[int(n) for n in c.split(";")] for c in seeds] for seeds in table.to_numpy()]
            curves[name] = np.array(counts) / of["eval_images"].iloc[0]
    return curves


def _between_seeds(one: np.ndarray, other: np.ndarray) -> float:
    """Mean Spearman correlation of a column of one table with another column of the other one."""
    pairs = permutations(range(one.shape[1]), 2)
    return float(np.mean([_spearman(one[:, a], other[:, b]) for a, b in pairs]))


def _spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Rank correlation; nan where one side is constant, as one class predicted for all is."""
    return float(spearmanr(x, y).statistic) if np.ptp(x) and np.ptp(y) else np.nan


def variances(df: pd.DataFrame) -> pd.DataFrame:
    """Table I's Variance row, and without each backbone in turn: method by what is left out."""
    means = final_rows(df).pivot_table(index="backbone", columns="method", values="val_accuracy")
    means = means.reindex(columns=[m for m in METHODS if m in means])
    if len(means) < 2:
        return pd.DataFrame(columns=means.columns)
    table = {"all": means.var(ddof=1)}
    if len(means) > 2:
        for kept in combinations(means.index, len(means) - 1):
            (left,) = set(means.index) - set(kept)
            table[f"without {left}"] = means.loc[list(kept)].var(ddof=1)
    return pd.DataFrame(table).T
