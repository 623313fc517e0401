"""The paper's claims against our rows: intervals, and a verdict on each (notebook 8).

Rows say which evaluation photos each run got right, so two runs can be compared photo by photo.
Intervals are for other photos and other runs (`lib.intervals`); a winner is scored by what did not
choose it. docs/verdicts.md says so in words.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, chi2, spearmanr
from scipy.stats import f as fisher

from .intervals import (
    LEVEL,
    Estimate,
    Interval,
    Score,
    at_least,
    choices,
    difference,
    estimate,
    hits,
    holm,
    layout,
    pooled,
    scatter,
    smooth,
)
from .methods import APPROACHES, PROPOSED, SEARCHES, TABLE1, UNPROPOSED, label
from .paper import CLAIMS, accuracies
from .results import FINAL_SPLIT, SEARCH_SPLIT, final_rows, search_rows
from .scores import Scores, Search, scores

DRAWS = 2000  # of the layers, for the interval of their scatter
NEAR = 0.02  # accuracies that differ by less are "comparable"
FEW = 0.25  # a share that is "few", of layers; of methods, half
STEADY = 0.02  # a standard deviation over repeats below this is "consistent"

STATUSES = {
    "holds": "every comparison is decided as the paper says",
    "undecided": "no comparison is decided against the paper, and not all are decided",
    "does not hold": "at least one comparison is decided against the paper",
    "not tested": "rows are missing",
}
DECIDED = (
    "A comparison is decided by tests at 5 % over all comparisons of its claim together (Holm), for"
    " other photos and other runs: of twenty claims, about one at most has a comparison that is"
    " decided wrongly"
)


@dataclass(frozen=True)
class Finding:
    """One comparison that a claim says something about.

    Attributes:
        text: what is compared.
        interval: the number, with its own 95 % interval.
        as_claimed: whether the number itself, whatever its interval, is as the claim says.
        p_for: p-value of "it is not as the claim says".
        p_against: p-value of "it is as the claim says".
    """

    text: str
    interval: Interval
    as_claimed: bool
    p_for: float
    p_against: float


WORDS = {True: "· decided for", False: "· decided against", None: ""}  # see `decisions`


def finding(text: str, number: Estimate, least: float = 0.0, most: float = np.inf) -> Finding:
    """The finding for a claim that a number lies above `least` and below `most`."""
    inside = [number.above(least), 1 - number.above(most)]
    sides = 1 + np.isfinite(most)  # how many ways there are to lie outside
    against = min(1.0, sides * (1 - max(inside)))
    as_claimed = least <= number.value <= most
    return Finding(text, number.interval(), as_claimed, max(inside), against)


def decisions(findings: Sequence[Finding]) -> list[bool | None]:
    """Each comparison of one claim: True where it is decided as claimed, False where against it."""
    p = [min(1.0, 2 * min(f.p_for, f.p_against)) for f in findings]
    decided = holm(np.nan_to_num(p, nan=1.0))
    return [
        f.p_for < f.p_against if yes else None for f, yes in zip(findings, decided, strict=True)
    ]


def status(findings: Sequence[Finding]) -> str:
    """The verdict that some findings give, one of `STATUSES`."""
    if not findings:
        return "not tested"
    answers = decisions(findings)
    if False in answers:
        return "does not hold"
    return "undecided" if None in answers else "holds"


# ------------------------------------------------------------------------------------- verdicts


def verdicts(df: pd.DataFrame) -> pd.DataFrame:
    """Every claim of the paper: one row a claim.

    Columns: claim, where, tested as, printed (how many comparisons of the printed Table I are as
    the claim says, where it is about Table I), as claimed (how many of ours), decided (how many for
    and against it), ours (each with its interval), status, and scored as in the paper (the status
    if winners are scored by the run and on the photos that chose them).
    """
    found, paper, printed_counts = findings(df), findings(df, honest=False), printed()
    return pd.DataFrame(
        {
            "claim": claim.text,
            "where": claim.where,
            "tested as": claim.statement,
            "printed": printed_counts.get(claim.name, "–"),
            "as claimed": _count([f.as_claimed for f in found[claim.name]]),
            "decided": _decided(found[claim.name]),
            "ours": "; ".join(f"{f.text} {f.interval}" for f in found[claim.name]) or "–",
            "status": status(found[claim.name]),
            "scored as in the paper": status(paper[claim.name]),
        }
        for claim in CLAIMS
    )


def _decided(findings: Sequence[Finding]) -> str:
    answers = decisions(findings)
    return f"{answers.count(True)} for, {answers.count(False)} against" if answers else "–"


def printed() -> dict[str, str]:
    """How many comparisons of the paper's own Table I are as its claims about it say, by claim."""
    table = accuracies()
    mean, variance = table.mean(), table.var(ddof=1)
    others = [m for m in TABLE1 if m != "block_wise"]
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


def findings(df: pd.DataFrame, honest: bool = True) -> dict[str, list[Finding]]:
    """The comparisons that test each claim, by the claim's name; honest: see `scores`."""
    found = scores(df, honest)
    backbones = list(dict.fromkeys(df["backbone"]))

    def searched(upper: str, lower: str, **limits: float) -> list[Finding]:
        return list(_differences(found.winners, backbones, upper, lower, **limits))

    def trained(upper: str, lower: str) -> list[Finding]:
        return list(_differences(found.final, backbones, upper, lower))

    near = {"least": -NEAR, "most": NEAR}
    return {
        "random_beats_baseline_1": searched("random", "baseline_1"),
        "random_near_baseline_2": searched("random", "baseline_2", **near),
        "layers_differ": layers_against_seeds(df),
        "few_layers_beat_both": list(_few_layers(found, backbones)),
        "block_wise_improves": searched("block_wise", "layer_wise")
        + searched("block_wise", "baseline_1"),
        "window_near_block_and_baseline_2": searched("sliding_window", "block_wise", **near)
        + searched("sliding_window", "baseline_2", **near),
        "all_beat_baseline_1": [f for m in APPROACHES for f in searched(m, "baseline_1")],
        "few_beat_baseline_2": list(_few_methods(found, backbones)),
        "block_wise_never_below_baseline_2": trained("block_wise", "baseline_2"),
        "block_wise_highest_mean": list(_over_backbones(found.final, "mean")),
        "block_wise_lowest_variance": list(_over_backbones(found.final, "variance")),
        "repeats_agree": list(_steady(df)),
        "proposed_beat_all": [
            finding for ours in PROPOSED for other in UNPROPOSED for finding in trained(ours, other)
        ],
    }


def _differences(
    found: Mapping, backbones: Iterable[str], upper: str, lower: str, **limits: float
) -> Iterator[Finding]:
    for name in backbones:
        if {(upper, name), (lower, name)} <= found.keys():
            text = f"{name}: {label(upper)} − {label(lower)}"
            yield finding(text, difference(found[upper, name], found[lower, name]), **limits)


def _few_layers(found: Scores, backbones: Iterable[str]) -> Iterator[Finding]:
    """The share of layers that score above both baselines."""
    for name in backbones:
        layers = [of for key, of in found.blocks.items() if key[:2] == ("layer_wise", name)]
        bars = [found.winners.get((m, name)) for m in ("baseline_1", "baseline_2")]
        if layers and all(bars):
            yield _few(f"{name}: share of layers", layers, bars, FEW)


def _few_methods(found: Scores, backbones: Iterable[str]) -> Iterator[Finding]:
    """The share of approaches whose best block scores above Baseline II."""
    for name in backbones:
        ours = [found.winners[m, name] for m in APPROACHES if (m, name) in found.winners]
        bar = found.winners.get(("baseline_2", name))
        if len(ours) == len(APPROACHES) and bar:
            yield _few(f"{name}: share of approaches", ours, [bar], 0.5)


def _few(text: str, ours: Sequence[Score], bars: Sequence[Score], most: float) -> Finding:
    """The finding for a claim that some, and at most a share `most`, lie above all bars.

    Each score is tested against each bar; the interval is of how many tests together (see
    `at_least`) show to lie above, and not above.
    """
    gaps = [[difference(of, bar) for bar in bars] for of in ours]
    tests = np.array([[gap.above(0.0) for gap in of] for of in gaps])
    above = tests.max(axis=1)
    below = np.minimum(1.0, len(bars) * (1 - tests).min(axis=1))
    n, few = len(ours), int(most * len(ours))
    value = float(np.mean([all(gap.value > 0 for gap in of) for of in gaps]))
    interval = Interval(value, _shown(above) / n, 1 - _shown(below) / n)
    p_for = max(at_least(above, 1), at_least(below, n - few))
    p_against = min(1.0, 2 * min(at_least(below, n), at_least(above, few + 1)))
    return Finding(text, interval, 0 < value <= most, p_for, p_against)


def _shown(p: np.ndarray) -> int:
    """Of how many hypotheses, at least, one side of a 95 % interval says that they are false."""
    return next((u for u in range(len(p)) if not at_least(p, u + 1) <= LEVEL / 2), len(p))


def _over_backbones(final: Mapping[tuple, Score], statistic: str) -> Iterator[Finding]:
    """The mean, or variance, of block-wise over backbones, against each other method's."""
    names = [name for method, name in final if method == "block_wise"]
    text = {"mean": "mean of Block-wise − {}", "variance": "variance of {} − Block-wise"}[statistic]
    gap = {"mean": _mean_gap, "variance": _variance_gap}[statistic]
    for other in TABLE1 if len(names) > 1 else ():
        pairs = [(method, name) for method in ("block_wise", other) for name in names]
        if other != "block_wise" and set(pairs) <= final.keys():
            number = smooth(gap, [final[pair] for pair in pairs])
            yield finding(f"{text.format(label(other))} over {len(names)} backbones", number)


def _mean_gap(accuracies: np.ndarray) -> float:
    """The mean of the first half minus that of the second."""
    ours, others = np.split(accuracies, 2)
    return ours.mean() - others.mean()


def _variance_gap(accuracies: np.ndarray) -> float:
    """The variance of the second half minus that of the first."""
    ours, others = np.split(accuracies, 2)
    return others.var(ddof=1) - ours.var(ddof=1)


def _steady(df: pd.DataFrame) -> Iterator[Finding]:
    """The standard deviation over repeats, pooled over backbones, with its chi-square interval."""
    for method in ("block_wise", "sliding_window"):
        rows = final_rows(df)
        groups = rows[rows["method"] == method].groupby("backbone")["val_accuracy"]
        squares, freedom = (groups.var() * (groups.size() - 1)).sum(), (groups.size() - 1).sum()
        if freedom > 0:
            sd, low, high = np.sqrt(squares / [freedom, *chi2.ppf([0.975, 0.025], freedom)])
            tests = chi2(freedom)
            p_for, p_against = (of(squares / STEADY**2) for of in (tests.cdf, tests.sf))
            interval = Interval(float(sd), float(low), float(high))
            text = f"{label(method)}: sd over repeats"
            yield Finding(text, interval, sd < STEADY, float(p_for), float(p_against))


def layers_against_seeds(df: pd.DataFrame) -> list[Finding]:
    """Whether layers differ, and how much more than chance, for backbones searched repeatedly.

    One search starts all its layers from the same seed, and a seed that is lucky is so for most of
    them. What makes a layer look better than another is the rest, see `_components`. The F test of
    the layers against it decides; the number is an effect: the sd over layers minus that of chance,
    with an interval that resamples the layers.
    """
    found, rows = [], df[(df["split"] == SEARCH_SPLIT) & (df["method"] == "layer_wise")]
    for name, of in rows[rows["failed"] == ""].groupby("backbone", sort=False):
        table = layout(of)[1]
        if min(table.shape[:2]) > 1:
            interval, sds = _effect(table.mean(axis=2))
            ratio, p, freedom = _layers_test(table)
            text = (
                f"{name}: sd over layers {sds[0]:.4f} − by chance {sds[1]:.4f} ({table.shape[1]}"
                f" seeds; F({len(table) - 1}, {freedom:.0f}) = {ratio:.1f}, p = {p:.1g})"
            )
            found.append(Finding(text, interval, p < LEVEL, p, 1.0))
    return found


def _effect(values: np.ndarray) -> tuple[Interval, tuple[float, float]]:
    """How far the sd over rows exceeds that of chance, with both; values ``(rows, seeds)``."""
    rng = np.random.default_rng(0)
    sample = (values[rng.integers(0, len(values), len(values))] for _ in range(DRAWS))
    low, high = np.percentile([np.subtract(*_components(of)) for of in sample], [2.5, 97.5])
    sds = _components(values)
    return Interval(sds[0] - sds[1], float(low), float(high)), sds


def _layers_test(table: np.ndarray) -> tuple[float, float, float]:
    """The F test of "all layers are equally good": ratio, p-value, degrees of freedom below.

    table: ``(layers, seeds, photos)``. What the layers are compared with is the scatter over
    seeds, as in the two-way layout, and that over photos (Satterthwaite's quasi-F).
    """
    noise, means = scatter(table), table.mean(axis=1)
    rest, (layers, seeds, photos) = means - means.mean(axis=0), table.shape
    between = seeds * (rest.mean(axis=1) ** 2).sum() / (layers - 1)
    by_photo = seeds * rest.var(axis=1, ddof=1).sum() / photos / (layers - 1)
    error = max(noise.mean_square, noise.mean_square + by_photo - noise.photos / noise.freedom)
    freedom = noise.freedom * (error / noise.mean_square) ** 2
    ratio = between / error
    return float(ratio), float(fisher.sf(ratio, layers - 1, freedom)), float(freedom)


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


def optimism(df: pd.DataFrame) -> pd.DataFrame:
    """What selecting and scoring by the same run on the same photos adds to a winner's accuracy.

    Columns: backbone, method, blocks, reported (the winner's accuracy, as the paper scores it),
    honest (by what did not choose it, see `Search.winner`), optimism (their difference), gain
    (honest minus Baseline I), low, high, by (what scores it: "another seed" or "the same run").
    """
    honest, records = scores(df), []
    for (method, name), of in honest.winners.items():
        base = honest.winners.get(("baseline_1", name))
        if method in SEARCHES and base:
            search = Search.of(df, method, name)
            reported, gain = search.right.mean(axis=1).max(), difference(of, base)
            interval, by = gain.interval(), search.again.shape[1]
            numbers = (reported, of.value, reported - of.value, gain.value)
            by = "another seed" if by else "the same run"
            records.append((name, method, len(search.keys), *numbers, *_ends(interval), by))
    columns = ["backbone", "method", "blocks", "reported", "honest", "optimism", "gain"]
    return pd.DataFrame(records, columns=[*columns, "low", "high", "by"])


def _ends(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def rank_correlation(df: pd.DataFrame, long: pd.DataFrame, method: str = "block_wise"):
    """Does the 10 % search predict which block wins on 70 %?

    long: rows of all blocks of `method` trained on the final slice.

    Returns a frame: backbone, blocks, rho (Spearman), low, high (of a bootstrap of the photos, the
    same ones on both sides), place (of the search's winner among the blocks trained on 70 %, 1 is
    best), lost (accuracy given up by the search's choice), luck (what the photos that choose in the
    search add to the chosen block's accuracy on 70 %, cross-fitted).
    """
    records = []
    for name in dict.fromkeys(long["backbone"]):
        short = _by_block(search_rows(df), method, name)
        full = _by_block(search_rows(long, FINAL_SPLIT), method, name)
        blocks = [block for block in short if block in full]
        if len(blocks) > 2:
            right = [np.concatenate([of[block] for block in blocks]) for of in (short, full)]
            x, y = (of.mean(axis=1) for of in right)
            chosen = y[x.argmax()]
            share = choices(right[0])[0]
            luck = share.mean(axis=1) @ y - (share * right[1]).sum(axis=0).mean()
            numbers = (1 + (y > chosen).sum(), y.max() - chosen, luck)
            records.append((name, len(blocks), _spearman(x, y), *_rank_ends(*right), *numbers))
    columns = ["backbone", "blocks", "rho", "low", "high", "place", "lost", "luck"]
    return pd.DataFrame(records, columns=columns)


def _rank_ends(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of the rank correlation of two tables ``(blocks, photos)``."""

    def rho(photos: np.ndarray) -> float:
        return _spearman(one[:, photos].mean(axis=1), other[:, photos].mean(axis=1))

    sample = (np.arange(one.shape[1]),)
    ends = {"n_resamples": 1000, "method": "percentile", "vectorized": False, "rng": 0}
    return tuple(bootstrap(sample, rho, **ends).confidence_interval)


def _by_block(rows: pd.DataFrame, method: str, name: str) -> dict[str, np.ndarray]:
    rows = rows[(rows["method"] == method) & (rows["backbone"] == name)]
    return {block: hits(of) for block, of in rows.groupby("block", sort=False)}


def compared(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Final accuracy by method and backbone under two settings, and what the second one adds.

    Runs are paired by repeat, which has the same seed under both.

    Columns: backbone, method, first, second, gain (second minus first), low, high.
    """
    both = [
        final_rows(df)[["backbone", "method", "repeat", "hits", "eval_images"]]
        for df in (first, second)
    ]
    pairs = both[0].merge(both[1], on=["backbone", "method", "repeat"])
    columns = ["backbone", "method", "first", "second", "gain", "low", "high"]
    records = []
    for name, of in pairs[pairs["method"].isin(TABLE1)].groupby("backbone"):
        tables = {m: _paired(runs) for m, runs in of.groupby("method")}
        noise = pooled(scatter(table[None, 1] - table[None, 0]) for table in tables.values())
        for method, table in tables.items():
            gain = (table[1] - table[0]).mean(axis=0)
            runs = dict.fromkeys(range(table.shape[1]), 1 / table.shape[1])
            number = estimate((1.0, Score(gain, runs, noise)))
            means = table.mean(axis=(1, 2))
            records.append((name, method, *means, number.value, *_ends(number.interval())))
    return pd.DataFrame(records, columns=columns)


def _paired(runs: pd.DataFrame) -> np.ndarray:
    """Which photos the runs of two settings got right, ``(2, repeats, photos)``."""
    sides = [
        runs[[f"hits_{side}", f"eval_images_{side}"]].set_axis(["hits", "eval_images"], axis=1)
        for side in "xy"
    ]
    return np.array([hits(of) for of in sides])


def same_verdicts(first: pd.DataFrame, second: pd.DataFrame) -> tuple[int, int]:
    """How many claims get the same verdict from two sets of rows, and how many both can test."""
    found = [{name: status(of) for name, of in findings(df).items()} for df in (first, second)]
    pairs = [(one, found[1][name]) for name, one in found[0].items()]
    tested = [pair for pair in pairs if "not tested" not in pair]
    return sum(one == other for one, other in tested), len(tested)


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
        final = scores(of, honest=False).final
        if {("baseline_1", name), ("baseline_2", name)} <= final.keys():
            base, tuned = (final[m, name] for m in ("baseline_1", "baseline_2"))
            gap = difference(tuned, base)
            values = of["batch_size"].iloc[0] * (n // 32) ** 2
            means = (base.value, tuned.value, gap.value)
            records.append((name, n, values, *means, *_ends(gap.interval())))
    columns = ["backbone", "image_size", "values", "baseline_1", "baseline_2", "gap", "low", "high"]
    return pd.DataFrame(records, columns=columns)


def final_gains(df: pd.DataFrame) -> pd.DataFrame:
    """What each method adds to Baseline I in the final runs.

    Columns: backbone, method, gain, low, high, paper (the gain on the photos that chose the block,
    as the paper scores it; in the others that luck is taken off, see `Search.carried`).
    """
    final, plain, records = scores(df).final, scores(df, honest=False).final, []
    for method, name in final:
        ours, base = (method, name), ("baseline_1", name)
        if ours != base and base in final:
            gain = difference(final[ours], final[base])
            paper = plain[ours].value - plain[base].value
            records.append((name, method, gain.value, *_ends(gain.interval()), paper))
    return pd.DataFrame(records, columns=["backbone", "method", "gain", "low", "high", "paper"])


def gains(df: pd.DataFrame, kinds: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """What each layer's tuning adds to Baseline I in the search, with what kind of layer it is.

    kinds: kind of layer by backbone and name, such as "BatchNorm".

    Columns: backbone, block, depth (0 at the input, 1 at the output), kind, weights (tuned, the
    classifier's not counted), gain, low, high.
    """
    blocks, records, rows = scores(df, honest=False).blocks, [], search_rows(df)
    head = rows[rows["method"] == "baseline_1"].set_index("backbone")["n_trainable"]
    for _, row in rows[rows["method"] == "layer_wise"].iterrows():
        name, block = row["backbone"], row["block"]
        if name not in head:
            continue
        ours, base = ("layer_wise", name, block), ("baseline_1", name, "baseline_1")
        gain = difference(blocks[ours], blocks[base]).interval()
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
    rows = df[(df["failed"] == "") & df["method"].isin((*TABLE1, "random"))]
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
    means = means.reindex(columns=[m for m in TABLE1 if m in means])
    if len(means) < 2:
        return pd.DataFrame(columns=means.columns)
    table = {"all": means.var(ddof=1)}
    if len(means) > 2:
        for kept in combinations(means.index, len(means) - 1):
            (left,) = set(means.index) - set(kept)
            table[f"without {left}"] = means.loc[list(kept)].var(ddof=1)
    return pd.DataFrame(table).T
