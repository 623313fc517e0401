"""`make photos` and what people use, at equal minutes, from its rows: a table. Starts no Keras."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pandas as pd

from ..audit.intervals import Interval, clustered
from ..errors import InputError
from ..ledger import unpack_hits
from ..report.tables import BLANK, markdown
from .protocol import NEAR, PROTOCOLS

FILE = "people.csv"
STRATEGIES = ("shortlist", "halving", "search")  # of `make photos`, each with the same minutes
PHOTOS = {f"make photos, {name}": name for name in STRATEGIES}
GUIDE, THIRD = "Keras guide", "top third"
WAYS = (*PHOTOS, GUIDE, THIRD)
COLUMNS = (
    "data",
    "backbone",
    "alpha",
    "seed",  # of the split, too: ways are compared on the same photos
    "way",  # one of WAYS
    "image_size",  # that the way works with
    "photos",  # that it is given
    "test_images",  # that no way has seen, the same for all seeds
    "hits",  # which of them were right: `lib.ledger.pack_hits`
    "minutes",
    "cpu_minutes",
    "lines",  # that a user types, the reading of photos left out
    "tuned",  # what was tuned, in words
    "machine",
    "versions",
    "git_sha",
    "finished_at",
)


def read_people(results: Path) -> pd.DataFrame:
    """The rows of the comparison; none where there is no file. Raises InputError."""
    path = results / FILE
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    found = pd.read_csv(path, keep_default_na=False, dtype={"hits": str})
    if tuple(found.columns) != COLUMNS:
        raise InputError(f"{path}: columns are {', '.join(found)}; allowed: {', '.join(COLUMNS)}")
    return found


def people_table(rows: pd.DataFrame) -> str:
    """Accuracy on photos that no way has seen, minutes and lines typed; empty without rows."""
    if not len(rows):
        return ""
    each = rows.drop_duplicates("data")
    tested = ", ".join(f"{row.test_images:,} of {row.data}" for row in each.itertuples())
    note = (
        f"{each['photos'].iloc[0]} photos of each data set, of which a fifth is kept for a test;"
        f" tested here on others that nothing has seen: {tested}. Each seed has a split of its own;"
        " of several, accuracy and minutes are means. Accuracy with its 95 % interval for other"
        " test photos, of these trainings; a photo that several seeds test counts as one. What a"
        f" way adds to {GUIDE} is paired, photo by photo, on the seeds that both have. Minutes on"
        f" {rows['machine'].iloc[0]}, with all that a way does."
    )
    header = ["", "", "tuned", "px", "seeds", "accuracy", f"adds to {GUIDE}", "minutes"]
    return markdown([*header, "CPU minutes", "lines typed"], list(_lines(rows)), note, left=3)


def _lines(rows: pd.DataFrame) -> Iterator[list[str]]:
    for (data, backbone), some in rows.groupby(["data", "backbone"], sort=False):
        title = f"{data}, {backbone}"
        for way in (w for w in WAYS if w in set(some["way"])):
            own = some[some["way"] == way]
            sizes = " and ".join(map(str, sorted(set(own["image_size"]))))
            tuned, seeds = "; ".join(dict.fromkeys(own["tuned"])), str(own["seed"].nunique())
            minutes = [f"{own[name].mean():.1f}" for name in ("minutes", "cpu_minutes")]
            lines = str(own["lines"].iloc[0])
            yield [
                title,
                way,
                tuned,
                sizes,
                seeds,
                _accuracy(own),
                _gain(some, way),
                *minutes,
                lines,
            ]
            title = ""


def strategy_means(rows: pd.DataFrame) -> pd.DataFrame | None:
    """Accuracy and minutes of each strategy, by its name: means over data sets of means over seeds.

    None until every strategy has all data sets and seeds of the protocol.
    """
    rows = rows[rows["way"].isin(PHOTOS)]
    full = PROTOCOLS["full"]
    wanted = set(product(PHOTOS, full.contests, full.contest_seeds))
    if not wanted <= set(rows[["way", "data", "seed"]].itertuples(index=False, name=None)):
        return None
    rows = rows.assign(accuracy=[_hits(row).mean() for row in rows.itertuples()])
    means = rows.groupby(["way", "data"])[["accuracy", "minutes"]].mean()
    return means.groupby("way").mean().rename(index=PHOTOS).loc[list(STRATEGIES)]


def best_strategy(rows: pd.DataFrame) -> str | None:
    """The strategy that does best in equal minutes, or one as good, within `NEAR`, in fewer.

    None where `strategy_means` has none yet.
    """
    means = strategy_means(rows)
    if means is None:
        return None
    good = means[means["accuracy"] >= means["accuracy"].max() - NEAR]
    return good["minutes"].idxmin()


def people_words(rows: pd.DataFrame) -> str:
    """What follows for the default strategy; empty where nothing does yet."""
    means = strategy_means(rows)
    if means is None:
        return ""
    each = ", ".join(
        f"`{name}` {mean.accuracy:.3f} in {mean.minutes:.1f} minutes"
        for name, mean in zip(means.index, means.itertuples(), strict=True)
    )
    return (
        f"\nMean accuracy over data sets and seeds: {each}. By the second rule, the default"
        f" strategy is `{best_strategy(rows)}`.\n"
    )


def _hits(row: tuple) -> pd.Series:
    """Which test photos a row has right, 0.0 or 1.0."""
    return pd.Series(unpack_hits(row.hits, row.test_images).astype(float))


def hits_by_photo(rows: pd.DataFrame) -> pd.Series:
    """Which test photos were right, 0.0 or 1.0, by seed and photo; of rows of one way."""
    return pd.concat({row.seed: _hits(row) for row in rows.itertuples()})


def _mean(right: pd.Series) -> Interval:
    """The mean over seeds and photos; seeds are tested on the same photos: a photo is a unit."""
    return clustered(right.to_numpy(), right.index.get_level_values(1).to_numpy()).interval()


def _accuracy(rows: pd.DataFrame) -> str:
    interval = _mean(hits_by_photo(rows))
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _gain(rows: pd.DataFrame, way: str) -> str:
    """What a way adds to Keras' guide, on the seeds that both have."""
    each = [rows[rows["way"] == name] for name in (way, GUIDE)]
    if way == GUIDE or any(part.empty for part in each):
        return BLANK
    ours, theirs = map(hits_by_photo, each)
    both = (ours - theirs).dropna()
    if both.empty:
        return BLANK
    interval = _mean(both)
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
