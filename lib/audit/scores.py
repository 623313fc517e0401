"""How blocks, winners and final runs scored: as in the paper, or by what did not choose them.

The paper's winner is the best of many blocks on the very photos, and in the very run, that score
it, and final runs are scored on these photos again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from scipy.stats import f as fisher
from scipy.stats import median_abs_deviation

from ..methods import EXTRA, SEARCHES, method
from ..results import Results
from .intervals import LEVEL, Noise, Score, choices, hits, layout, pooled, scatter, score


@dataclass(frozen=True, eq=False)
class Scores:
    """How every block, every method's winner and every final block of some results scored.

    Attributes:
        results: what was scored.
        blocks: of the search, by (method, backbone, block).
        winners: of the search, by (method, backbone).
        final: of the final runs, by (method, backbone).
    """

    results: Results
    blocks: dict[tuple[str, str, str], Score]
    winners: dict[tuple[str, str], Score]
    final: dict[tuple[str, str], Score]


KEPT = 64  # so many results have their scores kept: claims, gains and winners ask for the same


@lru_cache(maxsize=KEPT)
def scores(results: Results, honest: bool = True) -> Scores:
    """All scores of some results, by the photos that were right after the last epoch.

    honest: a winner is scored by what did not choose it; otherwise as the paper does, by the run
        and the photos that did. Either way `select_on` chooses, as in the figures.
    """
    noise, searches = noises(results), all_searches(results)
    blocks, final = _runs(results)
    single = {key[:2]: found for key, found in blocks.items() if key[0] not in SEARCHES}
    scored = Searched.winner if honest else Searched.best
    best = {
        (tuned, name): scored(found, noise["search", name, tuned])
        for (tuned, name), found in searches.items()
    }
    if not honest:
        return Scores(results, blocks, single | best, final)
    return Scores(results, blocks, _unlucky(single, searches) | best, _unlucky(final, searches))


@lru_cache(maxsize=KEPT)
def _runs(results: Results) -> tuple[dict[tuple, Score], dict[tuple, Score]]:
    """The scores of blocks and of final runs as they are, see `Scores`."""
    noise = noises(results)
    rows = results.search.groupby(["method", "backbone", "block"], sort=False)
    blocks = {key: score(runs, noise["search", key[1], key[0]]) for key, runs in rows}
    rows = results.final.groupby(["method", "backbone"], sort=False)
    return blocks, {key: score(runs, noise["final", key[1], key[0]]) for key, runs in rows}


@lru_cache(maxsize=KEPT)
def noises(results: Results) -> dict[tuple[str, str, str], Noise]:
    """The noise of one run, by stage ("search" or "final"), backbone and method.

    From repeated runs on the same slice with the same backbone. A search with one seed takes that
    of the other backbones' repeated searches and of its own final runs, pooled, and final runs
    without repeats that of the searches. A method whose final runs scatter far more than the
    others', see `outlying`, has a noise of its own, in a search too where that has one seed. Where
    methods have other repeats than others, what a repeat adds to all is noise: it is not in all.
    """
    names = list(dict.fromkeys(results.valid["backbone"]))
    searched = {name: _of_search(results.only(name).searched) for name in names}
    found = {}
    for name in names:
        final, search = results.only(name).final, results.only(name).searched
        methods = final[~final["method"].isin(EXTRA)]
        even = methods.groupby("method")["repeat"].agg(frozenset).nunique() < 2
        common, outlier = outlying(*layout(methods, "method"), shared=even)
        elsewhere = pooled([*searched.values(), common])
        # The best window may be the best block: then both methods have the same runs.
        same = final[final["key"].isin(final["key"][final["method"].isin(outlier)])]
        own = {tuned: noise for noise in outlier.values() for tuned in same["method"]}
        again = set(search["method"][search["repeat"] > 0])
        for tuned in results.only(name).valid["method"].unique():
            apart = own.get(tuned)
            noise = {
                "search": apart if apart and tuned not in again else searched[name],
                "final": apart or common,
            }
            for stage, one in noise.items():
                found[stage, name, tuned] = one if one.freedom else elsewhere
    return found


def outlying(
    names: Sequence[str], table: np.ndarray, shared: bool = True
) -> tuple[Noise, dict[str, Noise]]:
    """The noise that methods' repeated runs have in common, and that of an outlying one, if any.

    It is outlying if it scatters more than the others, by an F test of its runs' distances from the
    others' mean of the same repeat, at `LEVEL` over all methods (Bonferroni). Of Baseline II, say,
    one run of four may fail, which says nothing of the runs of a block.

    Args:
        table: ``(methods, repeats, photos)``.
        shared: as `scatter` takes it.
    """
    outlier = _outlying(table)
    if outlier is None:
        return scatter(table, shared), {}
    others = np.delete(table, outlier, axis=0)
    return scatter(others, shared), {names[outlier]: scatter(table[[outlier]])}


ZERO = 1e-15  # a variance that is nothing but rounding: one photo of 1e7 is more


def _outlying(table: np.ndarray) -> int | None:
    """Which of ``(methods, repeats, photos)`` scatters more than the others, if any does."""
    methods, repeats, photos = table.shape
    if methods < 3 or min(repeats, photos) < 2:
        return None
    accuracy, p = table.mean(axis=2), []
    for place, own in enumerate(accuracy):
        far = (own - np.delete(accuracy, place, axis=0).mean(axis=0)).var(ddof=1)
        others = scatter(np.delete(table, place, axis=0))
        expected = others.mean_square * methods / (methods - 1)
        freedom = repeats - 1, others.freedom
        p.append(fisher.sf(far / expected, *freedom) if expected > ZERO else float(far < ZERO))
    place = int(np.argmin(p))
    return place if p[place] * methods <= LEVEL else None


def _of_search(rows: pd.DataFrame) -> Noise:
    """The noise of one backbone's repeated searches."""
    return pooled(scatter(layout(runs)[1]) for _, runs in rows.groupby("method", sort=False))


@dataclass(frozen=True, eq=False)
class Searched:
    """A method's search on one backbone, from input to output; runs with two names count once.

    Attributes:
        keys: of the first seed's runs.
        accuracy: of them, by the score that chooses, `Results.select_on`, ``(blocks,)``.
        right: which photos they got right after the last epoch, ``(blocks, photos)``.
        again: the same for the other seeds, if any, ``(blocks, seeds, photos)``.
    """

    keys: tuple[str, ...]
    accuracy: np.ndarray
    right: np.ndarray
    again: np.ndarray

    @classmethod
    def read(cls, results: Results, method: str, backbone: str) -> "Searched":
        """The search of some results."""
        first = results.in_order(method, backbone).drop_duplicates("key")
        rows = results.searched
        rows = rows[(rows["method"] == method) & (rows["backbone"] == backbone)]
        rows = rows.set_index("block", drop=False)
        blocks, table = layout(rows.loc[first["block"]].reset_index(drop=True))
        whole = blocks == first["block"].tolist()  # every block has every repeat
        right, accuracy = hits(first), first[results.select_on].to_numpy()
        again = table[:, 1:] if whole else right[:, None][:, 1:]
        return cls(tuple(first["key"]), accuracy, right, again)

    @property
    def best_place(self) -> int:
        """Where the winner stands; of equal ones the one nearest the input."""
        return int(self.accuracy.argmax())

    @property
    def ahead(self) -> np.ndarray:
        """By how much the score that chooses lies above the last epoch's, ``(blocks,)``.

        Rows say of the last epoch alone which photos were right; where the best epoch chooses,
        this is added to what other photos say. Zero, exactly, where the last epoch chooses.
        """
        photos = self.right.shape[1]
        return (np.round(self.accuracy * photos) - self.right.sum(axis=1)) / photos

    def best(self, noise: Noise) -> Score:
        """The winner as the paper scores it."""
        best = self.best_place
        return Score(self.right[best], {self.keys[best]: 1.0}, noise)

    def winner(self, noise: Noise) -> Score:
        """The winner, chosen on some photos and scored on others, and by other runs.

        Scored by the other seeds, brought to the first one's level; where there are none, by the
        run that chose it, with the luck of one run taken off (see `choices`).
        """
        alone, accuracy = self.again.shape[1] == 0, self.right.mean(axis=1)
        # Noise from elsewhere may be too large: chance spreads blocks no further than they lie.
        sd = min(noise.sd, median_abs_deviation(accuracy, scale="normal")) if alone else 0.0
        share, luck = choices(self.right, sd=sd, ahead=self.ahead)
        weights = share.mean(axis=1)
        if alone:
            runs = dict(zip(self.keys, weights, strict=True))
            rest = np.sqrt(max(0.0, 1 - (weights**2).sum()))  # no less than one run's noise
            return Score((share * self.right).sum(axis=0) - luck, runs | {self.keys: rest}, noise)
        level = (self.again - self.right[:, None]).mean(axis=0)
        photos = (share[:, None] * (self.again - level)).sum(axis=0).mean(axis=0)
        seeds = range(self.again.shape[1])
        pairs = zip(self.keys, weights / len(seeds), strict=True)
        return Score(photos, {(key, s): w for key, w in pairs for s in seeds}, noise)

    def _elsewhere(self, ranked: int) -> np.ndarray:
        """How often other photos choose each block, see `choices`; ranked: as `carried` has it."""
        if ranked not in self._shares:
            turn = _turned(ranked)
            share, _ = choices(self.right[turn], ranked or 1, ahead=self.ahead[turn])
            self._shares[ranked] = share[turn]
        return self._shares[ranked]

    @cached_property
    def _shares(self) -> dict[int, np.ndarray]:
        return {}

    def carried(self, gain: np.ndarray, ranked: int = 0) -> np.ndarray:
        """What the luck that chose the best blocks adds to later runs of them, by photo.

        The chosen blocks are too good on the photos that chose them, by what they lose when other
        photos choose. Of that luck later runs keep the share that their gain keeps of the chosen
        blocks' gain over all blocks, photo by photo: its regression on it.

        Args:
            gain: of the later runs over those that nothing was chosen for, ``(photos,)``.
            ranked: how many of the best layers they tune together; 0: they tune the winner.
        """
        turn = _turned(ranked)
        best = np.argsort(-self.accuracy[turn], kind="stable")[: ranked or 1]
        chosen = self.right[turn][best].mean(axis=0)
        lucky = chosen - (self._elsewhere(ranked) * self.right).sum(axis=0)
        # The share is cov(the chosen blocks' gain, the later runs' gain) / var(the former).
        covariance = np.cov(chosen - self.right.mean(axis=0), gain)
        return lucky * covariance[0, 1] / covariance[0, 0] if covariance[0, 0] else 0 * lucky


def _turned(ranked: int) -> slice:
    """Where to begin so that, of equal blocks, the first is the one that was tuned.

    The winner is the one nearest the input (`Results.winner`); of equal layers the one nearer the
    output ranks first (`top_ranked`).
    """
    return slice(None, None, -1 if ranked else 1)


@lru_cache(maxsize=KEPT)
def all_searches(results: Results) -> dict[tuple[str, str], Searched]:
    """The searches of some results by (method, backbone)."""
    pairs = results.search[["method", "backbone"]].drop_duplicates().itertuples(index=False)
    return {tuple(pair): Searched.read(results, *pair) for pair in pairs if pair[0] in SEARCHES}


def _unlucky(
    found: Mapping[tuple, Score], searches: Mapping[tuple, Searched]
) -> dict[tuple, Score]:
    """Scores of blocks that a search chose, without its luck; others as they are.

    Runs that two searches chose, as where the best window is the best block, have one score: that
    without the luck of the first. Where Baseline I was not run, how much of the luck is kept is not
    known, and all scores are as they are.
    """
    table, done = dict(found), {}
    for (tuned, name), scored in found.items():
        if (runs := frozenset(scored.runs)) in done:
            table[tuned, name] = done[runs]
            continue
        ranked = method(tuned).ranked
        source = searches.get(("layer_wise" if ranked else tuned, name))
        base = found.get(("baseline_1", name))
        if source and base:
            luck = source.carried(scored.photos - base.photos, ranked)
            done[runs] = Score(scored.photos - luck, scored.runs, scored.noise)
            table[tuned, name] = done[runs]
    return table
