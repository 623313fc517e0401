"""How much accuracy a cheap choice costs, from the rows of runs and the picks in each halving.

Regret of a choice: accuracy of the search's pick minus that of its own pick, both on the photos
that neither has seen, mean over halvings and seeds. Nothing here starts Keras.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path

import numpy as np

from ..audit.intervals import Estimate, Noise, pooled, scatter
from ..ledger import read_results, unpack_hits
from ..params import InputError
from .picks import picks_path, read_picks, unpack_picks
from .protocol import CHOICES, NEAR, PROTOCOLS, SEARCH, TIMED, halvings

ALONE, WHOLE, RANDOM = "classifier alone", "everything", "random block"
LAST, MOST, CEILING = "last block", "most weights", "another seed's search"
REFERENCES = (RANDOM, LAST, MOST, ALONE, WHOLE)  # picks that look at no photo
KINDS = ("layer_wise", "block_wise", "sliding_window")  # methods of the search's own blocks


@dataclass(frozen=True, eq=False)
class Measured:
    """All that was measured on one data set with one network.

    Attributes:
        right: which evaluation photos each run got right, bool ``(photos,)``, by seed and layers;
            layers are joined with ``;``.
        picks: layers that each choice picks, one a halving, by seed and choice.
        blocks: layers of each block that the search trains, the baselines left out.
        last, most: layers of the last block of the network, and of the block with most weights.
        seconds: wall and processor seconds, by seed and choice; nan where it was not run by itself.
        alike: whether a strategy's own run picked what the record says, by seed and choice.
        size: height and width of the photos, in pixels.
    """

    data: str
    backbone: str
    photos: int
    right: Mapping[tuple[int, str], np.ndarray]
    picks: Mapping[tuple[int, str], np.ndarray]
    blocks: tuple[str, ...]
    last: str
    most: str
    everything: str
    seconds: Mapping[tuple[int, str], tuple[float, float]]
    alike: Mapping[tuple[int, str], bool]
    size: int

    @property
    def name(self) -> str:
        return f"{self.data}/{self.backbone}"

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Seeds whose search is done."""
        return tuple(sorted(seed for seed, choice in self.picks if choice == SEARCH))

    @cached_property
    def unseen(self) -> np.ndarray:
        """Which photos score in each halving, bool ``(halvings, photos)``; those never seen left.

        The photos that every half shows are left out.
        """
        hidden = ~halvings(self.photos, len(self.picks[self.seeds[0], SEARCH]))
        return hidden[:, self.scored]

    @cached_property
    def scored(self) -> np.ndarray:
        """Which photos score in any halving, bool ``(photos,)``."""
        count = len(self.picks[self.seeds[0], SEARCH])
        return (~halvings(self.photos, count)).any(axis=0)

    def hits(self, layers: Iterable[str], seed: int) -> np.ndarray:
        """Which photos a seed's runs got right, float ``(len(layers), scored photos)``.

        nan where a run is missing.
        """
        lost = np.full(self.photos, np.nan)
        return np.array([self.right.get((seed, name), lost)[self.scored] for name in layers])

    def chosen(self, name: str, pick: int, runs: int) -> np.ndarray:
        """`hits` of what a choice or reference picks in each halving, or of all that it may pick.

        Args:
            name: a choice or a reference.
            pick: the seed with which it picks; runs: the seed whose runs score it.

        Returns:
            ``(halvings or 1, scored photos)``.
        """
        fixed = {LAST: self.last, MOST: self.most, ALONE: "", WHOLE: self.everything}
        if name in fixed:
            return self.hits([fixed[name]], runs)
        if name == RANDOM:
            return self.hits(self.blocks, runs).mean(axis=0, keepdims=True)
        return self.hits(self.picks[pick, name], runs)

    def regrets(self, name: str) -> np.ndarray:
        """What each photo adds to the regret with each seed, ``(seeds, scored photos)``.

        The mean over the photos is the regret of a seed: the mean over the halvings of the
        difference on the photos that are not seen.
        """
        return np.array(
            [self._lost(self.chosen(SEARCH, s, s), self.chosen(name, s, s)) for s in self.seeds]
        )

    def crossed(self, name: str) -> np.ndarray:
        """The same where one seed picks and another one's runs score.

        Of a choice or a reference: both picks are the first seed's, as a network that is trained
        again is not the very run that was looked at. Of `CEILING`: the first seed's search against
        the second one's own.

        Returns:
            ``(seeds that pick, seeds that score, scored photos)``; 0 where both are one.
        """
        found = np.zeros((len(self.seeds), len(self.seeds), int(self.scored.sum())))
        for i, j in permutations(range(len(self.seeds)), 2):
            pick, runs = self.seeds[i], self.seeds[j]
            if name == CEILING:
                best, other = (self.chosen(SEARCH, seed, runs) for seed in (runs, pick))
            else:
                best, other = (self.chosen(n, pick, runs) for n in (SEARCH, name))
            found[i, j] = self._lost(best, other)
        return found

    def _lost(self, best: np.ndarray, other: np.ndarray) -> np.ndarray:
        """What each photo adds to the mean difference over halvings, ``(scored photos,)``."""
        scale = self.unseen.shape[1] / self.unseen.sum()
        return ((best - other) * self.unseen).sum(axis=0) * scale

    def names(self) -> list[str]:
        """The choices that every seed has picked with, but for the search."""
        return [n for n in CHOICES if n != SEARCH and all((s, n) in self.picks for s in self.seeds)]

    def share(self, name: str, clock: int = 0) -> float:
        """Seconds of a choice over those of the search; clock: 0 wall, 1 processor.

        Each is the mean of the seeds that were timed: with `lib.study.protocol.ONCE` that is one,
        and the first search of a process takes longer than the others.
        """
        own, search = (
            [self.seconds[s, n][clock] for s in self.seeds if (s, n) in self.seconds]
            for n in (name, SEARCH)
        )
        return float(np.mean(own) / np.mean(search)) if own else np.nan


# --------------------------------------------------------------------------------------- reading


def read_measured(results: Path) -> list[Measured]:
    """What the folders ``choice_<data>`` hold, in the order of the protocols.

    Raises InputError where rows and picks do not belong together.
    """
    order = {c.name: i for i, c in enumerate(c for p in PROTOCOLS.values() for c in p.cells())}
    found = [
        _read(folder, path.stem.removeprefix("picks_"))
        for folder in sorted(results.glob("choice_*"))
        for path in sorted(folder.glob("picks_*.csv"))
    ]
    return sorted(found, key=lambda m: (order.get(m.name, len(order)), m.name))


def _read(folder: Path, backbone: str) -> Measured:
    table, rows = read_picks(folder, backbone), read_results(folder, [backbone])
    layers = dict(zip(rows["key"], rows["layers"], strict=True))
    picks = {}
    for row in table.itertuples():
        keys = unpack_picks(row.keys, row.picks)
        lost = [key for key in keys if key not in layers]
        if lost:
            raise InputError(
                f"{picks_path(folder, backbone)}: picks run {lost[0]}, of which {folder} has no "
                "row; allowed: picks of runs whose rows are there"
            )
        picks[row.seed, row.choice] = np.array([layers[key] for key in keys])
    own = rows[rows["method"].isin(KINDS) & (rows["layers"] != "")]
    blocks = own[own["method"] == "block_wise"]
    pairs = zip(zip(table["seed"], table["choice"], strict=True),
                table[["seconds", "cpu_seconds"]].itertuples(index=False), strict=True)  # fmt: skip
    return Measured(
        data=folder.name.removeprefix("choice_"),
        backbone=backbone,
        photos=int(rows["eval_images"].iloc[0]),
        right={
            (r.seed, r.layers): unpack_hits(r.hits, r.eval_images).astype(float)
            for r in rows.itertuples()
        },
        picks=picks,
        blocks=tuple(own["layers"].unique()),
        last=blocks.loc[blocks["block"].idxmax(), "layers"] if len(blocks) else "",
        most=own.loc[own["n_trainable"].idxmax(), "layers"],
        everything=rows.loc[rows["method"] == "baseline_2", "layers"].iloc[0],
        seconds={key: tuple(times) for key, times in pairs if not np.isnan(times[0])},
        alike={
            (row.seed, row.choice): row.alike == "true" for row in table.itertuples() if row.alike
        },
        size=int(rows["image_size"].iloc[0]),
    )


# ------------------------------------------------------------------------------------- estimates

Table = Callable[[Measured], np.ndarray]  # as `Measured.regrets` or `Measured.crossed` gives it


def regret(name: str, again: bool = False) -> Table:
    """The regret of a choice or reference, as `average` takes it.

    again: scored by other seeds' runs of what was picked, as another seed's search always is.
    """
    if again or name == CEILING:
        return lambda measured: measured.crossed(name)
    return lambda measured: measured.regrets(name)


def saved(name: str, other: str = RANDOM) -> Table:
    """By how much the regret of a choice is below another's."""
    return lambda measured: measured.regrets(other) - measured.regrets(name)


def average(
    cells: Sequence[Measured], table: Table, every: Sequence[Measured] | None = None
) -> Estimate:
    """Mean over cells, with what other photos and other seeds would change.

    Networks on one data set share its photos, and are compared photo by photo; data sets are
    independent. What chance adds from seed to seed, beyond what the photos show, is pooled over
    `every` cell (these, where it is None): a few seeds alone say little of it. Degrees of freedom
    are Satterthwaite's.
    """
    tables = {cell.name: table(cell) for cell in (*cells, *(every or ()))}
    whole = [t for t in (tables[cell.name] for cell in every or cells) if not np.isnan(t).any()]
    noise = pooled(map(_noise, whole))
    by_data: dict[str, list[np.ndarray]] = {}
    for cell in cells:
        by_data.setdefault(cell.data, []).append(_mean(tables[cell.name]) / len(cells))
    photos = [np.sum(each, axis=0) for each in by_data.values()]
    value = sum(float(each.mean()) for each in photos)
    variance = sum(float(each.var(ddof=1)) / len(each) for each in photos)
    if not noise.freedom:
        return Estimate(value, float(np.sqrt(variance)))
    squares = sum(1 / (len(cells) ** 2 * len(tables[cell.name])) for cell in cells)
    variance += squares * noise.variance
    doubt = (squares * noise.mean_square) ** 2 / noise.freedom
    freedom = max(1.0, variance**2 / doubt) if doubt else np.inf
    return Estimate(value, float(np.sqrt(variance)), freedom)


def _mean(table: np.ndarray) -> np.ndarray:
    """The mean over seeds, ``(photos,)``; where they are crossed, over pairs of different ones."""
    if table.ndim == 2:
        return table.mean(axis=0)
    return table.sum(axis=(0, 1)) / (len(table) * (len(table) - 1) or np.nan)


def _noise(table: np.ndarray) -> Noise:
    """What chance adds to a regret from seed to seed.

    Where seeds are crossed, rows of the table share runs, so that they differ by less than chance
    does. What the picking seed adds, of variance a, and what the scoring one adds, b, are in the
    means over the other: the first scatter by a + b / (seeds - 1)^2, the second by b + a /
    (seeds - 1)^2. Their sum over 1 + 1 / (seeds - 1)^2 is a + b. Where what a seed adds to a pick
    and to a score go together, as with `CEILING`, the interval is wider than it need be.
    """
    if table.ndim == 2:
        return scatter(table[None], shared=False)
    others = len(table) - 1
    if not others:
        return Noise()
    both = pooled(scatter(table.sum(axis=k)[None] / others, shared=False) for k in (0, 1))
    share = 1 + 1 / others**2
    return Noise(both.runs / share, both.photos / share, both.freedom / 2)


# -------------------------------------------------------------------------------------- the rule


def share(cells: Sequence[Measured], name: str, clock: int = 0) -> float:
    """A choice's share of the search's seconds, mean over cells."""
    return float(np.mean([cell.share(name, clock) for cell in cells]))


def better_than_random(cells: Sequence[Measured]) -> list[str]:
    """The strategies whose regret is below the random block's beyond the interval.

    The search is one of them, with no regret and all of the cost.
    """
    return [n for n in _timed(cells) if average(cells, saved(n)).interval().low > 0]


def recommended(cells: Sequence[Measured]) -> str | None:
    """The default strategy by the rule of docs/choice.md; None where no strategy was measured.

    Of the strategies that beat the random block, those within `NEAR` of the least regret; of these
    the cheapest. Where none beats it, the cheapest of all.
    """
    timed = _timed(cells)
    if not timed:
        return None
    good = better_than_random(cells)
    values = {n: average(cells, regret(n)).value for n in good}
    near = [n for n in good if values[n] <= min(values.values()) + NEAR]
    return min(near or timed, key=lambda n: share(cells, n))


def _timed(cells: Sequence[Measured]) -> list[str]:
    """The strategies whose time is known, the search first; none where nothing was measured."""
    if not cells:
        return []
    return [SEARCH, *(n for n in TIMED if all(n in cell.names() for cell in cells))]
