"""Intervals of accuracies, and decisions on several of them at once.

An accuracy is uncertain in two ways: other photos, and other runs of the same block (other seeds
and orders). Rows say which photos each run got right, so runs are compared photo by photo, and
what chance adds from run to run is estimated from repeated runs, without the part that the photos
of one run already show: the scatter of repeated runs on the same photos counts that part too, and
adding it whole would count it twice.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import t as student

from ..ledger import unpack_hits

LEVEL = 0.05  # how often a study of one claim may decide any of its comparisons wrongly
FOLDS = 10  # parts of the photos, of which one is scored and the others select
SPLITS = 100  # random divisions into so many parts


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3g} [{self.low:+.3g}, {self.high:+.3g}]"


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and the error's degrees of freedom; nan: not known."""

    value: float
    error: float
    freedom: float = np.inf

    def interval(self) -> Interval:
        """The 95 % interval by Student's distribution."""
        half = student.ppf(1 - LEVEL / 2, self.freedom) * self.error
        return Interval(self.value, self.value - half, self.value + half)

    def above(self, least: float) -> float:
        """The p-value of "the true number is at most `least`"; of its opposite it is 1 minus p.

        Where nothing is uncertain, as between two names of one run: 0, 1, or 0.5 if equal.
        """
        gap = self.value - least
        if self.error == 0 or np.isinf(gap):
            return 0.5 - 0.5 * float(np.sign(gap))
        return float(student.sf(gap / self.error, self.freedom))


def clustered(values: np.ndarray, units: np.ndarray) -> Estimate:
    """The mean of photos' values, with its error for other units: photos of one are alike.

    Args:
        values: ``(photos,)``.
        units: int ``(photos,)``, the unit of each: a plant, a patient, or the photo itself.

    The error is made of the units' sums (cluster-robust), and its degrees of freedom are
    Satterthwaite's, both as if the photos of a unit were all alike: a unit that holds most of the
    photos hides how far it lies from the mean of all. Where each photo is a unit of its own it is
    the usual error.
    """
    sizes = np.unique(units, return_counts=True)[1]
    error = float(np.sqrt(_variances(values, units))) if len(sizes) > 1 else np.inf
    return Estimate(float(values.mean()), error, _freedom(sizes))


def _variances(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Squared errors of the means over photos, ``(...)`` of values ``(..., photos)``.

    units: as `clustered` takes them, two different ones at least.
    """
    order = np.argsort(units, kind="stable")
    _, starts, sizes = np.unique(units[order], return_index=True, return_counts=True)
    rest = (values - values.mean(axis=-1, keepdims=True))[..., order]
    squares = np.add.reduceat(rest, starts, axis=-1) ** 2
    if np.ptp(sizes):
        squares = squares * ((1 - 1 / len(sizes)) / _own(sizes))
    return len(starts) / (len(starts) - 1) * squares.sum(axis=-1) / len(units) ** 2


def _own(sizes: np.ndarray) -> np.ndarray:
    """What is left of the variance of each unit's value less the mean over photos.

    sizes: photos of each unit, all alike in a unit. Of n equal units 1 - 1/n is left of each.
    """
    share = sizes / sizes.sum()
    return 1 - 2 * share + (share**2).sum()


def _freedom(sizes: np.ndarray) -> float:
    """Degrees of freedom of `_variances`, 1 at least; of n equal units they are n - 1.

    Satterthwaite's: twice the squared mean over the variance of a sum of squares, here of the
    units' values less their mean, weighted as there. Their covariances are 1 - 2p + s of one unit
    and s - p - q of two, for shares p and q of the photos and s the sum of all squared shares.
    """
    if not np.ptp(sizes):
        return float(max(1, len(sizes) - 1))
    share = sizes / sizes.sum()
    own, all_squared = _own(sizes), (share**2).sum()
    weight = share**2 / own
    sums = [(weight * share**power).sum() for power in range(3)]
    crossed = (
        all_squared**2 * sums[0] ** 2
        + 2 * sums[2] * sums[0]
        - 4 * all_squared * sums[1] * sums[0]
        + 2 * sums[1] ** 2
    )  # of all pairs of units, each with itself among them
    crossed += (weight**2 * (own**2 - (all_squared - 2 * share) ** 2)).sum()
    return float(max(1.0, all_squared**2 / crossed))


def holm(p: Sequence[float]) -> np.ndarray:
    """Which of some hypotheses Holm's procedure rejects at `LEVEL` over all of them, bool."""
    p = np.asarray(p, float)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    rejected = np.zeros(len(p), bool)
    rejected[order] = adjusted <= LEVEL
    return rejected


def at_least(p: Sequence[float], count: int) -> float:
    """The p-value of "fewer than `count` of these null hypotheses are false" (Bonferroni).

    The partial conjunction of Benjamini and Heller (2008): 1 for a count of 0 is 0.
    """
    return min(1.0, (len(p) - count + 1) * float(np.sort(p)[count - 1])) if count else 0.0


# ----------------------------------------------------------------------- photos and repeated runs


def hits(rows: pd.DataFrame) -> np.ndarray:
    """Which evaluation photos each run got right, float64 ``(runs, photos)``."""
    pairs = zip(rows["hits"], rows["eval_images"], strict=True)
    return np.array([unpack_hits(text, n) for text, n in pairs], float)


def layout(rows: pd.DataFrame, unit: str = "block") -> tuple[list[str], np.ndarray]:
    """The repeated runs of some units, float64 ``(units, repeats, photos)``, and their names.

    Units that lack a repeat are left out, and so is one that is another's runs under another name.
    """
    rows = rows.assign(place=range(len(rows)))
    table = rows.pivot(index=unit, columns="repeat", values="place").reindex(rows[unit].unique())
    table = table.dropna().astype(int)
    keys = rows["key"].to_numpy()[table.iloc[:, 0]] if len(table) else []
    table = table[~pd.Index(keys).duplicated()]
    return list(table.index), hits(rows)[table.to_numpy()] if len(table) else np.empty((0, 0, 0))


@dataclass(frozen=True)
class Noise:
    """What chance adds to one run's accuracy, beyond what its photos show.

    Attributes:
        runs: sum of squares of repeated runs' accuracies on the same photos.
        photos: what of it the photos account for.
        freedom: degrees of freedom of both.
    """

    runs: float = 0.0
    photos: float = 0.0
    freedom: float = 0.0

    def __add__(self, other: "Noise") -> "Noise":
        pairs = zip(self._sums(), other._sums(), strict=True)
        return Noise(*(one + more for one, more in pairs))

    def _sums(self) -> tuple[float, float, float]:
        return self.runs, self.photos, self.freedom

    @property
    def variance(self) -> float:
        """Of a run's true accuracy; nan where nothing was repeated."""
        return max(0.0, self.runs - self.photos) / self.freedom if self.freedom else np.nan

    @property
    def sd(self) -> float:
        """The same as a standard deviation; 0 where it is not known."""
        return float(np.sqrt(np.nan_to_num(self.variance)))

    @property
    def mean_square(self) -> float:
        """What `variance` was read from."""
        return self.runs / self.freedom if self.freedom else np.nan


def scatter(table: np.ndarray, shared: bool = True, units: np.ndarray | None = None) -> Noise:
    """The noise of a table of repeated runs ``(blocks, repeats, photos)``, see `Noise`.

    Args:
        shared: what a repeat adds to all blocks alike (its seed, its order) is no noise: it is in
            none of their differences.
        units: of the photos, see `clustered`; None: each is a unit of its own.
    """
    blocks, repeats, photos = table.shape
    units = np.arange(photos) if units is None else units
    if not blocks or repeats < 2 or len(np.unique(units)) < 2:  # one does not show how they scatter
        return Noise()
    rest, freedom = table - table.mean(axis=1, keepdims=True), blocks * (repeats - 1)
    if shared and blocks > 1:
        rest, freedom = rest - rest.mean(axis=0), (blocks - 1) * (repeats - 1)
    within = _variances(rest, units).sum()
    return Noise(float((rest.mean(axis=2) ** 2).sum()), float(within), freedom)


def pooled(noises: Iterable[Noise]) -> Noise:
    """The noise of several tables as one."""
    return sum(noises, Noise())


# ---------------------------------------------------------------------------------- the estimates


@dataclass(frozen=True)
class Score:
    """How a group of runs scored.

    Attributes:
        photos: share of the runs that got each photo right, ``(photos,)``.
        runs: each run's weight in it, by key.
        noise: of one run.
    """

    photos: np.ndarray
    runs: Mapping[Hashable, float]
    noise: Noise

    @property
    def value(self) -> float:
        """The accuracy."""
        return float(self.photos.mean())


def score(rows: pd.DataFrame, noise: Noise) -> Score:
    """The score of a group of runs that differ in seed and order only."""
    return Score(hits(rows).mean(axis=0), dict.fromkeys(rows["key"], 1 / len(rows)), noise)


def estimate(*terms: tuple[float, Score]) -> Estimate:
    """A weighted sum of scores on the same photos, such as a difference.

    Its error's degrees of freedom are Satterthwaite's, and 1 at least: where the photos account for
    all of the scatter between few runs, the formula gives next to none, and no finite interval.
    """
    photos = sum(weight * part.photos for weight, part in terms)
    variance, doubt = photos.var(ddof=1) / len(photos), 0.0
    for noise in {id(part.noise): part.noise for _, part in terms}.values():
        squares = _squares([term for term in terms if term[1].noise is noise])
        if squares:
            variance += squares * noise.variance
            doubt += (squares * noise.mean_square) ** 2 / (noise.freedom or np.nan)
    freedom = max(1.0, variance**2 / doubt) if doubt else np.inf
    return Estimate(float(photos.mean()), float(np.sqrt(variance)), float(freedom))


def _squares(terms: Iterable[tuple[float, Score]]) -> float:
    """The sum of the runs' squared weights; a run under two names is one run."""
    total: dict[Hashable, float] = {}
    for weight, part in terms:
        for key, share in part.runs.items():
            total[key] = total.get(key, 0.0) + weight * share
    return sum(share**2 for share in total.values() if abs(share) > 1e-12)


def same_runs(one: Score, other: Score) -> bool:
    """Whether two scores are of the same runs, weight by weight."""
    return _squares([(1.0, one), (-1.0, other)]) == 0


def difference(upper: Score, lower: Score) -> Estimate:
    """Upper minus lower."""
    return estimate((1.0, upper), (-1.0, lower))


def smooth(number: Callable[[np.ndarray], float], scores: Sequence[Score]) -> Estimate:
    """A smooth function of several accuracies, linearised where they are."""
    at, step = np.array([part.value for part in scores]), 1e-4
    nudges = np.eye(len(at)) * step
    slopes = [(number(at + nudge) - number(at - nudge)) / (2 * step) for nudge in nudges]
    linear = estimate(*zip(slopes, scores, strict=True))
    return Estimate(float(number(at)), linear.error, linear.freedom)


# --------------------------------------------------------------------------------------- winners


def choices(
    right: np.ndarray,
    count: int = 1,
    sd: float = 0.0,
    seed: int = 0,
    ahead: np.ndarray | float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Which blocks are best on the photos that do not score them (cross-fitting).

    The photos are divided at random into `FOLDS` parts, `SPLITS` times; for each part the `count`
    best blocks are chosen on the others. Of equal ones the first wins.

    Args:
        right: which photos the blocks got right, ``(blocks, photos)``.
        sd: of the chance in one run. Noise of this sd is added where blocks are chosen and taken
            off where they are scored: the chance in what chooses and in what is scored is then
            independent, as that of two runs is (data fission).
        ahead: what is added to the blocks' accuracies where they are chosen, ``(blocks,)``: of a
            score that is not the photos' own.

    Returns each block's share of the choices, ``(blocks, photos)``, and what to take off the
    score, ``(photos,)``.
    """
    rng, (blocks, photos) = np.random.default_rng(seed), right.shape
    share, luck, total = np.zeros(right.shape), np.zeros(photos), right.sum(axis=1, keepdims=True)
    starts = np.arange(FOLDS) * photos // FOLDS
    part = np.repeat(np.arange(FOLDS), np.diff([*starts, photos]))
    noise, ahead = np.zeros((blocks, 1)), np.reshape(ahead, (-1, 1))
    for split in range(SPLITS):
        order = rng.permutation(photos)
        others = total - np.add.reduceat(right[:, order], starts, axis=1)  # right outside a part
        noise = -noise if split % 2 else rng.normal(0.0, sd, (blocks, 1))
        outside = others / (photos - np.bincount(part)) + noise + ahead
        ranked = np.argsort(-outside, axis=0, kind="stable")
        for block in ranked[:count, part]:
            share[block, order] += 1
            luck[order] += noise[block, 0]
    return share / (SPLITS * count), luck / (SPLITS * count)
