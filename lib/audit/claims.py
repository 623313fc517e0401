"""The paper's claims, one record each, against our rows: its words and the test of them together.

A new claim is one function under `claim`: the function's name is the claim's short name. Rows say
which evaluation photos each run got right, so two runs can be compared photo by photo; intervals
are for other photos and other runs (`lib.audit.intervals`), and a winner is scored by what
did not choose it (`lib.audit.scores`). docs/verdicts.md says so in words.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2
from scipy.stats import f as fisher

from ..errors import InputError
from ..ledger import ledger_path
from ..methods import APPROACHES, PAPER, PROPOSED, TABLE1, UNPROPOSED, label
from ..params import Params, shown_path
from ..report.paper import accuracies
from ..results import Results
from .intervals import (
    LEVEL,
    Estimate,
    Interval,
    Score,
    at_least,
    difference,
    holm,
    layout,
    same_runs,
    scatter,
    smooth,
)
from .scores import Scores, scores

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
    " other photos and other runs: at most about one claim in twenty has a comparison that is"
    " decided wrongly"
)
WORDS = {True: "· decided for", False: "· decided against", None: ""}  # see `decisions`


# ---------------------------------------------------------------------------- one comparison


@dataclass(frozen=True)
class Finding:
    """One comparison that a claim says something about.

    Attributes:
        text: what is compared.
        interval: the number, with its own 95 % interval.
        as_claimed: whether the number itself, whatever its interval, is as the claim says.
        p_for: p-value of "it is not as the claim says".
        p_against: p-value of "it is as the claim says".
        networks: those whose rows are compared.
    """

    text: str
    interval: Interval
    as_claimed: bool
    p_for: float
    p_against: float
    networks: tuple[str, ...] = ()


def finding(
    text: str,
    number: Estimate,
    networks: Sequence[str] = (),
    least: float = 0.0,
    most: float = np.inf,
    or_equal: bool = False,
) -> Finding:
    """The finding for a claim that a number lies above `least` and below `most`.

    or_equal: whether `least` itself is as claimed, too.
    """
    inside = [number.above(least), 1 - number.above(most)]
    sides = 1 + np.isfinite(most)  # how many ways there are to lie outside
    against = min(1.0, sides * (1 - max(inside)))
    as_claimed = least < number.value < most or (or_equal and number.value == least)
    return Finding(
        text, number.interval(), as_claimed, max(inside), against, networks=tuple(networks)
    )


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


# ------------------------------------------------------------------------------- the records


@dataclass(frozen=True)
class Claim:
    """One thing that the paper says its experiments show.

    Attributes:
        name: short: of the function that tests it, in `verdicts.csv` and for ``make claim``.
        text: the paper's words.
        where: their place in the paper.
        statement: the same as a statement about rows; "accuracy" is the validation accuracy.
        methods: those that it compares.
        test: the comparisons that test it, from the scores of some results; none without rows.
        printed: which comparisons of the paper's own Table I (backbone x method) are as the claim
            says; None where it is not about Table I.
    """

    name: str
    text: str
    where: str
    statement: str
    methods: tuple[str, ...]
    test: Callable[[Scores], Iterable[Finding]]
    printed: Callable[[pd.DataFrame], Iterable[bool]] | None = None


CLAIMS: list[Claim] = []
Test = Callable[[Scores], Iterable[Finding]]


def claim(
    text: str,
    where: str,
    statement: str,
    methods: Sequence[str],
    printed: Callable[[pd.DataFrame], Iterable[bool]] | None = None,
) -> Callable[[Test], Test]:
    """Make a function the test of a claim, see `Claim`; claims stand in the order of the file."""

    def register(test: Test) -> Test:
        CLAIMS.append(Claim(test.__name__, text, where, statement, tuple(methods), test, printed))
        return test

    return register


def _searched(scored: Scores, upper: str, lower: str, **limits: Any) -> Iterator[Finding]:
    """The winners of two methods' searches, network by network."""
    return _differences(scored, scored.winners, upper, lower, **limits)


def _trained(scored: Scores, upper: str, lower: str, **limits: Any) -> Iterator[Finding]:
    """The final runs of two methods, network by network."""
    return _differences(scored, scored.final, upper, lower, **limits)


def _differences(
    scored: Scores, found: Mapping, upper: str, lower: str, **limits: Any
) -> Iterator[Finding]:
    """The differences of two methods; limits: as `finding` takes them.

    Runs are not compared with themselves, as where the best window is the best block.
    """
    for name in scored.results.backbones:
        if {(upper, name), (lower, name)} <= found.keys():
            one, other = found[upper, name], found[lower, name]
            if not same_runs(one, other):
                text = f"{name}: {label(upper)} − {label(lower)}"
                yield finding(text, difference(one, other), [name], **limits)


@claim(
    "the model with randomly chosen layers outperforms the Baseline I method in all tested models",
    "Section VI, Figure 3",
    "search: accuracy of random, one draw of layers, > baseline_1 for every backbone",
    ["random", "baseline_1"],
)
def random_beats_baseline_1(scored: Scores) -> Iterator[Finding]:
    return _searched(scored, "random", "baseline_1")


@claim(
    "and achieves a comparable performance with Baseline II",
    "Section VI, Figure 3",
    "search: accuracy of random, one draw of layers, is about that of baseline_2 everywhere",
    ["random", "baseline_2"],
)
def random_near_baseline_2(scored: Scores) -> Iterator[Finding]:
    return _searched(scored, "random", "baseline_2", least=-NEAR, most=NEAR)


@claim(
    "the classifier accuracy varies significantly between different layers",
    "Section VI, Figure 4",
    "search: the spread of layer_wise over layers exceeds what chance, other seeds, gives it",
    ["layer_wise"],
)
def layers_differ(scored: Scores) -> Iterator[Finding]:
    return layers_against_seeds(scored.results)


@claim(
    "A very few layer are able to identify the classes with a high accuracy, even exciting both"
    " Baseline approaches, while the vast majority would not achieve high accuracy",
    "Section VI, Figure 4",
    "search: some but few layers of layer_wise exceed both baselines",
    ["layer_wise", "baseline_1", "baseline_2"],
)
def few_layers_beat_both(scored: Scores) -> Iterator[Finding]:
    for name in scored.results.backbones:
        layers = [s for key, s in scored.blocks.items() if key[:2] == ("layer_wise", name)]
        bars = [scored.winners.get((m, name)) for m in ("baseline_1", "baseline_2")]
        if layers and all(bars):
            yield _few(name, "share of layers", layers, bars, FEW)


@claim(
    "the classification accuracy has been significantly improved with the use of block wise FT",
    "Section VI, Figure 5",
    "search: the best block of block_wise > the best layer of layer_wise and baseline_1",
    ["block_wise", "layer_wise", "baseline_1"],
)
def block_wise_improves(scored: Scores) -> Iterator[Finding]:
    yield from _searched(scored, "block_wise", "layer_wise")
    yield from _searched(scored, "block_wise", "baseline_1")


@claim(
    "the achieved accuracy was comparable with the block-wise and the Baseline II approaches",
    "Section VI, Figure 6",
    "search: the best window of sliding_window is about the best block and baseline_2",
    ["sliding_window", "block_wise", "baseline_2"],
)
def window_near_block_and_baseline_2(scored: Scores) -> Iterator[Finding]:
    near = {"least": -NEAR, "most": NEAR}
    yield from _searched(scored, "sliding_window", "block_wise", **near)
    yield from _searched(scored, "sliding_window", "baseline_2", **near)


@claim(
    "all the tested approaches outperform Baseline I approach",
    "Section VI, Figure 7",
    "search: the best of every method > baseline_1 for every backbone",
    [*APPROACHES, "baseline_1"],
)
def all_beat_baseline_1(scored: Scores) -> Iterator[Finding]:
    for method in APPROACHES:
        yield from _searched(scored, method, "baseline_1")


@claim(
    "and few outperform Baseline II approach",
    "Section VI, Figure 7",
    "search: the best of some methods > baseline_2",
    [*APPROACHES, "baseline_2"],
)
def few_beat_baseline_2(scored: Scores) -> Iterator[Finding]:
    found = scored.winners
    for name in scored.results.backbones:
        ours = [found[m, name] for m in APPROACHES if (m, name) in found]
        bar = found.get(("baseline_2", name))
        if len(ours) == len(APPROACHES) and bar:
            yield _few(name, "share of approaches", ours, [bar], 0.5)


@claim(
    "the block-wise approach had been consistent in achieving high accuracy. As it has always"
    " either score higher or equal to the Baseline II approach",
    "Section VI, Figure 8",
    "final: accuracy of block_wise >= baseline_2 for every backbone",
    ["block_wise", "baseline_2"],
    printed=lambda table: table["block_wise"] >= table["baseline_2"],
)
def block_wise_never_below_baseline_2(scored: Scores) -> Iterator[Finding]:
    return _trained(scored, "block_wise", "baseline_2", or_equal=True)


def _against_others(statistic: pd.Series) -> Iterator[tuple[float, float]]:
    """Block-wise's and every other method's value of a row of Table I."""
    return ((statistic["block_wise"], statistic[m]) for m in TABLE1 if m != "block_wise")


@claim(
    "the Block-wise approach has the highest average validation accuracy outperforming the"
    " Baseline II approach",
    "Section VI, Table I",
    "final: the mean of block_wise over backbones is the highest of all methods",
    TABLE1,
    printed=lambda table: (ours > other for ours, other in _against_others(table.mean())),
)
def block_wise_highest_mean(scored: Scores) -> Iterator[Finding]:
    return _over_backbones(scored, "mean of Block-wise − {}", _mean_gap)


@claim(
    "Moreover it has a lower accuracy variance, thus yield a consistent reliable performance",
    "Section VI, Table I",
    "final: the variance of block_wise over backbones is the lowest of all methods",
    TABLE1,
    printed=lambda table: (ours < other for ours, other in _against_others(table.var(ddof=1))),
)
def block_wise_lowest_variance(scored: Scores) -> Iterator[Finding]:
    return _over_backbones(scored, "variance of {} − Block-wise", _variance_gap)


@claim(
    "both approaches yield consistent performance",
    "Appendix A, Figures 9 and 10",
    "final: the spread over repeats of block_wise and sliding_window is small",
    ["block_wise", "sliding_window"],
)
def repeats_agree(scored: Scores) -> Iterator[Finding]:
    rows = scored.results.final
    blocks, windows = (rows[rows["method"] == m] for m in ("block_wise", "sliding_window"))
    windows = windows[~windows["key"].isin(blocks["key"])]  # a run counts once
    yield from _steady("block_wise", blocks)
    yield from _steady("sliding_window", windows)


@claim(
    "the use of our proposed block-wise approaches can achieve better performances than the two"
    " baseline methods and the layer-wise method",
    "Abstract",
    "final: block_wise, top_3, top_5 and sliding_window > both baselines and layer_wise",
    [*PROPOSED, *UNPROPOSED],
    printed=lambda table: (
        yes for ours in PROPOSED for other in UNPROPOSED for yes in table[ours] > table[other]
    ),
)
def proposed_beat_all(scored: Scores) -> Iterator[Finding]:
    for ours in PROPOSED:
        for other in UNPROPOSED:
            yield from _trained(scored, ours, other)


# --------------------------------------------------------------------------------- the tests


def _few(
    name: str, what: str, ours: Sequence[Score], bars: Sequence[Score], most: float
) -> Finding:
    """The finding for a claim that some, and at most a share `most`, lie above all bars.

    Each score is tested against each bar; the interval is of how many tests together (see
    `at_least`) show to lie above, and not above.
    """
    gaps = [[difference(score, bar) for bar in bars] for score in ours]
    tests = np.array([[gap.above(0.0) for gap in row] for row in gaps])
    above = tests.max(axis=1)
    below = np.minimum(1.0, len(bars) * (1 - tests).min(axis=1))
    n, few = len(ours), int(most * len(ours))
    value = float(np.mean([all(gap.value > 0 for gap in row) for row in gaps]))
    interval = Interval(value, _shown(above) / n, 1 - _shown(below) / n)
    p_for = max(at_least(above, 1), at_least(below, n - few))
    p_against = min(1.0, 2 * min(at_least(below, n), at_least(above, few + 1)))
    return Finding(f"{name}: {what}", interval, 0 < value <= most, p_for, p_against, (name,))


def _shown(p: np.ndarray) -> int:
    """Of how many hypotheses, at least, one side of a 95 % interval says that they are false."""
    return next((u for u in range(len(p)) if not at_least(p, u + 1) <= LEVEL / 2), len(p))


def _over_backbones(
    scored: Scores, text: str, gap: Callable[[np.ndarray], float]
) -> Iterator[Finding]:
    """Block-wise against each other method, by a statistic over the backbones that have both.

    gap: of the accuracies of block-wise, then of the other method, ``(2 * backbones,)``.
    """
    final = scored.final
    for other in TABLE1:
        names = [n for method, n in final if method == "block_wise" and (other, n) in final]
        ours, others = ([final[method, n] for n in names] for method in ("block_wise", other))
        same = all(map(same_runs, ours, others))  # block_wise itself, too
        if len(names) > 1 and not same:
            number = smooth(gap, [*ours, *others])
            yield finding(f"{text.format(label(other))} over {len(names)} backbones", number, names)


def _mean_gap(accuracies: np.ndarray) -> float:
    """The mean of the first half minus that of the second."""
    ours, others = np.split(accuracies, 2)
    return ours.mean() - others.mean()


def _variance_gap(accuracies: np.ndarray) -> float:
    """The variance of the second half minus that of the first."""
    ours, others = np.split(accuracies, 2)
    return others.var(ddof=1) - ours.var(ddof=1)


def _steady(method: str, rows: pd.DataFrame) -> Iterator[Finding]:
    """The standard deviation over repeats, pooled over backbones, with its chi-square interval.

    rows: final runs of a method.
    """
    groups = rows.groupby("backbone")["val_accuracy"]
    squares, freedom = (groups.var() * (groups.size() - 1)).sum(), (groups.size() - 1).sum()
    if freedom > 0:
        sd, low, high = np.sqrt(squares / [freedom, *chi2.ppf([0.975, 0.025], freedom)])
        interval = Interval(float(sd), float(low), float(high))
        ratio, law = squares / STEADY**2, chi2(freedom)
        p_for, p_against = float(law.cdf(ratio)), float(law.sf(ratio))
        text, names = f"{label(method)}: sd over repeats", tuple(groups.groups)
        yield Finding(text, interval, sd < STEADY, p_for, p_against, names)


def layers_against_seeds(results: Results) -> Iterator[Finding]:
    """Whether layers differ, and how much more than chance, for backbones searched repeatedly.

    One search starts all its layers from the same seed, and a seed that is lucky is so for most of
    them. What makes a layer look better than another is the rest, see `components`. The F test of
    the layers against it decides; the number is an effect: the sd over layers minus that of chance,
    with an interval that resamples the layers.
    """
    rows = results.searched[results.searched["method"] == "layer_wise"]
    for name, runs in rows.groupby("backbone", sort=False):
        table = layout(runs)[1]
        if min(table.shape[:2]) > 1:
            interval, sds = _effect(table.mean(axis=2))
            ratio, p, freedom = _layers_test(table)
            text = (
                f"{name}: sd over layers {sds[0]:.4f} − by chance {sds[1]:.4f} ({table.shape[1]}"
                f" seeds; F({len(table) - 1}, {freedom:.0f}) = {ratio:.1f}, p = {p:.1g})"
            )
            yield Finding(text, interval, interval.value > 0, p, 1.0, (name,))


def _effect(values: np.ndarray) -> tuple[Interval, tuple[float, float]]:
    """How far the sd over rows exceeds that of chance, with both; values ``(rows, seeds)``."""
    rng = np.random.default_rng(0)
    draws = np.array([rng.integers(0, len(values), len(values)) for _ in range(DRAWS)])
    between, chance = components(values[draws])
    low, high = np.percentile(between - chance, [2.5, 97.5])
    sds = tuple(float(sd) for sd in components(values))
    return Interval(sds[0] - sds[1], float(low), float(high)), sds


def components(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What rows, such as layers, and chance add to a table's scatter, as standard deviations.

    values: accuracies ``(..., rows, seeds)``, one table or several. The two-way layout: value =
    mean + row + seed + chance. What a seed adds to all rows alike is in neither number.
    """
    rows, seeds = values.mean(axis=-1), values.mean(axis=-2)
    mean = values.mean(axis=(-2, -1), keepdims=True)
    rest = values - rows[..., None] - seeds[..., None, :] + mean
    chance = (rest**2).sum(axis=(-2, -1)) / np.prod(np.subtract(values.shape[-2:], 1))
    between = rows.var(axis=-1, ddof=1) - chance / values.shape[-1]
    return np.sqrt(np.maximum(between, 0.0)), np.sqrt(chance)


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
    if error == 0:  # each layer is right on all photos or on none, with every seed
        return (np.inf, 0.0, np.inf) if between else (0.0, 1.0, np.inf)
    ratio = between / error
    if noise.mean_square == 0:  # seeds agree: only photos say how sure the layers' ranks are
        return float(ratio), float(chi2.sf(ratio * (layers - 1), layers - 1)), np.inf
    freedom = noise.freedom * (error / noise.mean_square) ** 2
    return float(ratio), float(fisher.sf(ratio, layers - 1, freedom)), float(freedom)


# ------------------------------------------------------------------------------- the verdicts


@lru_cache(maxsize=64)
def findings(results: Results, honest: bool = True) -> dict[str, list[Finding]]:
    """The comparisons that test each claim, by the claim's name; honest: see `scores`."""
    scored = scores(results, honest)
    return {claim.name: list(claim.test(scored)) for claim in CLAIMS}


def verdicts(results: Results) -> pd.DataFrame:
    """Every claim of the paper: one row a claim.

    Columns: name, claim, where, tested as, printed (how many comparisons of the printed Table I are
    as the claim says, where it is about Table I), as claimed (how many of ours), decided (how many
    for and against it), networks (that it was tested on, where rows of others lack what the test
    needs), ours (each with its interval), status, and scored as in the paper (the status if winners
    are scored by the run and on the photos that chose them).
    """
    found, paper, printed_counts = findings(results), findings(results, honest=False), printed()
    return pd.DataFrame(
        {
            "name": claim.name,
            "claim": claim.text,
            "where": claim.where,
            "tested as": claim.statement,
            "printed": printed_counts.get(claim.name, "–"),
            "as claimed": _count([f.as_claimed for f in found[claim.name]]),
            "decided": _decided(found[claim.name]),
            "networks": _tested_on(found[claim.name], results.backbones),
            "ours": "; ".join(f"{f.text} {f.interval}" for f in found[claim.name]) or "–",
            "status": status(found[claim.name]),
            "scored as in the paper": status(paper[claim.name]),
        }
        for claim in CLAIMS
    )


def _decided(findings: Sequence[Finding]) -> str:
    answers = decisions(findings)
    return f"{answers.count(True)} for, {answers.count(False)} against" if answers else "–"


def _tested_on(findings: Sequence[Finding], names: Sequence[str]) -> str:
    """The networks that findings are of, unless they are of all, or there are none."""
    mine = [name for name in names if any(name in f.networks for f in findings)]
    return "" if mine == list(names) else ", ".join(mine)


def printed() -> dict[str, str]:
    """How many comparisons of the paper's own Table I are as its claims about it say, by claim."""
    table = accuracies()
    return {claim.name: _count(claim.printed(table)) for claim in CLAIMS if claim.printed}


def _count(answers: Iterable[bool]) -> str:
    answers = list(answers)
    return f"{sum(answers)} of {len(answers)}" if answers else "–"


# ----------------------------------------------------------------------------- one claim, in full


def find_claim(name: str) -> Claim:
    """The claim of a name. Raises InputError, which lists the names."""
    for record in CLAIMS:
        if record.name == name:
            return record
    known = ", ".join(record.name for record in CLAIMS)
    raise InputError(f"claim: {name!r} is unknown; allowed: {known}")


def about_claim(name: str, results: Results, params: Params) -> Iterator[str]:
    """Lines on one claim: its words, verdict, comparisons, and the files of their rows.

    Raises InputError for a name that is none.
    """
    record = find_claim(name)
    found = findings(results)[name]
    yield f"“{record.text}” ({record.where})"
    yield f"tested as  {record.statement}"
    yield f"verdict    {status(found)}: {STATUSES[status(found)]}"
    if name in printed():
        yield f"Table I    {printed()[name]} comparisons as printed are as the claim says"
    for each, answer in zip(found, decisions(found), strict=True):
        yield f"  {each.text} {each.interval} {WORDS[answer]}".rstrip()
    for path in _files(record, results, params):
        yield f"rows       {path}"


def in_a_sentence(name: str, results: Results) -> str:
    """What the paper says, the verdict of these rows, and the numbers behind it.

    Raises InputError for a name that is none.
    """
    record = find_claim(name)
    found = list(record.test(scores(results)))
    numbers = "; ".join(f"{each.text} {each.interval}" for each in found)
    told = f"{status(found)} ({STATUSES[status(found)]})"
    return f"The paper: “{record.text}” ({record.where}). Here: {told}. {numbers}".strip()


def _files(record: Claim, results: Results, params: Params) -> Iterator[str]:
    """The ledgers that hold rows of the methods that a claim compares."""
    for method in PAPER:
        for backbone in results.backbones if method in record.methods else ():
            path = ledger_path(params.results_dir, method, backbone)
            if path.is_file():
                yield shown_path(path)
