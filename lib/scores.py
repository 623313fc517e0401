"""How blocks, winners and final runs scored: as in the paper, or by what did not choose them.

The paper's winner is the best of many blocks on the very photos, and in the very run, that score
it, and final runs are scored on these photos again.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import median_abs_deviation

from .intervals import Noise, Score, choices, hits, layout, pooled, scatter, score
from .methods import EXTRA, SEARCHES, method
from .results import (
    FINAL_SPLIT,
    SEARCH_SPLIT,
    final_rows,
    in_order,
    search_rows,
)


@dataclass(frozen=True)
class Scores:
    """How every block, every method's winner and every final block of some rows scored.

    Attributes:
        blocks: of the search, by (method, backbone, block).
        winners: of the search, by (method, backbone).
        final: of the final runs, by (method, backbone).
    """

    blocks: dict[tuple[str, str, str], Score]
    winners: dict[tuple[str, str], Score]
    final: dict[tuple[str, str], Score]


def scores(df: pd.DataFrame, honest: bool = True) -> Scores:
    """All scores of some rows.

    honest: a winner is scored by what did not choose it; otherwise as the paper does, by the run
        and the photos that did.
    """
    noise = noises(df)
    rows = search_rows(df).groupby(["method", "backbone", "block"], sort=False)
    blocks = {key: score(of, noise[SEARCH_SPLIT, key[1]]) for key, of in rows}
    rows = final_rows(df).groupby(["method", "backbone"], sort=False)
    final = {key: score(of, noise[FINAL_SPLIT, key[1]]) for key, of in rows}
    pairs = dict.fromkeys((method, name) for method, name, _ in blocks)
    searches = {pair: Search.of(df, *pair) for pair in pairs if pair[0] in SEARCHES}
    winners = {key[:2]: of for key, of in blocks.items() if key[0] not in SEARCHES}
    if not honest:
        best = {pair: of.best(noise[SEARCH_SPLIT, pair[1]]) for pair, of in searches.items()}
        return Scores(blocks, winners | best, final)
    best = {pair: of.winner(noise[SEARCH_SPLIT, pair[1]]) for pair, of in searches.items()}
    return Scores(blocks, _unlucky(winners, searches) | best, _unlucky(final, searches))


def noises(df: pd.DataFrame) -> dict[tuple[str, str], Noise]:
    """The noise of one run, by (slice, backbone).

    From repeated runs on the same slice with the same backbone. A search with one seed takes that
    of the other backbones' repeated searches and of its own final runs, pooled, and final runs
    without repeats that of the searches.
    """
    rows = df[df["failed"] == ""]
    search = rows[rows["split"] == SEARCH_SPLIT]
    final = rows[(rows["split"] == FINAL_SPLIT) & ~rows["method"].isin(EXTRA)]
    names = list(dict.fromkeys(rows["backbone"]))
    searched = {name: _of_search(search[search["backbone"] == name]) for name in names}
    trained = {
        name: scatter(layout(final[final["backbone"] == name], "method")[1]) for name in names
    }
    found = {}
    for name in names:
        elsewhere = pooled([*searched.values(), trained[name]])
        for split, own in ((SEARCH_SPLIT, searched[name]), (FINAL_SPLIT, trained[name])):
            found[split, name] = own if own.freedom else elsewhere
    return found


def _of_search(rows: pd.DataFrame) -> Noise:
    """The noise of one backbone's repeated searches."""
    return pooled(scatter(layout(of)[1]) for _, of in rows.groupby("method", sort=False))


@dataclass(frozen=True)
class Search:
    """A method's search on one backbone, from input to output; runs with two names count once.

    Attributes:
        keys: of the first seed's runs.
        right: which photos they got right, ``(blocks, photos)``.
        again: the same for the other seeds, if any, ``(blocks, seeds, photos)``.
    """

    keys: tuple[str, ...]
    right: np.ndarray
    again: np.ndarray

    @classmethod
    def of(cls, df: pd.DataFrame, method: str, backbone: str) -> "Search":
        """The search of some rows."""
        first = in_order(df, method, backbone, SEARCH_SPLIT).drop_duplicates("key")
        same = (df["method"] == method) & (df["backbone"] == backbone) & (df["failed"] == "")
        rows = df[same & (df["split"] == SEARCH_SPLIT)].set_index("block", drop=False)
        blocks, table = layout(rows.loc[first["block"]].reset_index(drop=True))
        whole = blocks == first["block"].tolist()  # every block has every repeat
        right = hits(first)
        return cls(tuple(first["key"]), right, table[:, 1:] if whole else right[:, None][:, 1:])

    def best(self, noise: Noise) -> Score:
        """The winner as the paper scores it; of equal ones the one nearest the input."""
        best = self.right.mean(axis=1).argmax()
        return Score(self.right[best], {self.keys[best]: 1.0}, noise)

    def winner(self, noise: Noise) -> Score:
        """The winner, chosen on some photos and scored on others, and by other runs.

        Scored by the other seeds, brought to the first one's level; where there are none, by the
        run that chose it, with the luck of one run taken off (see `choices`).
        """
        alone, accuracy = self.again.shape[1] == 0, self.right.mean(axis=1)
        # Noise from elsewhere may be too large: chance spreads blocks no further than they lie.
        sd = min(noise.sd, median_abs_deviation(accuracy, scale="normal")) if alone else 0.0
        share, luck = choices(self.right, sd=sd)
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

    def carried(self, gain: np.ndarray, count: int) -> np.ndarray:
        """What the luck that chose the `count` best blocks adds to later runs of them, by photo.

        The chosen blocks are too good on the photos that chose them, by what they lose when other
        photos choose. Of that luck later runs keep the share that their gain keeps of the chosen
        blocks' gain over all blocks, photo by photo: its regression on it.

        gain: of the later runs over those that nothing was chosen for, ``(photos,)``.
        """
        best = np.argsort(-self.right.mean(axis=1), kind="stable")[:count]
        chosen = self.right[best].mean(axis=0)
        lucky = chosen - (choices(self.right, count)[0] * self.right).sum(axis=0)
        covariance = np.cov(chosen - self.right.mean(axis=0), gain)
        return lucky * covariance[0, 1] / covariance[0, 0] if covariance[0, 0] else 0 * lucky


def _unlucky(found: Mapping[tuple, Score], searches: Mapping[tuple, Search]) -> dict[tuple, Score]:
    """Scores of blocks that a search chose, without its luck; others as they are."""
    table = dict(found)
    for (tuned, name), of in found.items():
        ranked = method(tuned).ranked
        source = searches.get(("layer_wise" if ranked else tuned, name))
        base = found.get(("baseline_1", name))
        if source and base:
            luck = source.carried(of.photos - base.photos, ranked or 1)
            table[tuned, name] = Score(of.photos - luck, of.runs, of.noise)
    return table
