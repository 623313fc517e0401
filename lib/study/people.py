"""`make photos` against what people use, from its rows: a table. Starts no Keras."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ..audit.intervals import Interval, clustered
from ..errors import InputError
from ..ledger import unpack_hits
from ..report.tables import BLANK, markdown

FILE = "people.csv"
PHOTOS = "make photos"
GUIDE, THIRD = "Keras guide", "top third"
WAYS = (PHOTOS, GUIDE, THIRD)
COLUMNS = (
    "data",
    "backbone",
    "alpha",
    "image_size",
    "seed",  # of the split, too: ways are compared on the same photos
    "way",  # one of WAYS
    "train_images",  # all but the test photos
    "test_images",
    "tested",  # places of the test photos among all, joined with ";"
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
    found = pd.read_csv(path, keep_default_na=False, dtype={"hits": str, "tested": str})
    if tuple(found.columns) != COLUMNS:
        raise InputError(f"{path}: columns are {', '.join(found)}; allowed: {', '.join(COLUMNS)}")
    return found


def people_table(rows: pd.DataFrame) -> str:
    """Accuracy on test photos, minutes and lines typed of each way; empty without rows."""
    if not len(rows):
        return ""
    first = rows.iloc[0]
    note = (
        f"{first['train_images'] + first['test_images']} photos of {first['data']}, of which "
        f"{first['test_images']} test; seeds, each with a split of its own: "
        f"{rows['seed'].nunique()}. Accuracy with its 95 % interval for other test photos, of "
        f"these trainings; a photo that several seeds test counts as one. The gain of `{PHOTOS}` "
        f"over a way is paired, photo by photo. Minutes on {first['machine']}, with all that a way "
        f"does; reading the photos counts for `{PHOTOS}` alone."
    )
    header = ["", "", "accuracy", f"{PHOTOS} adds", "minutes", "CPU minutes", "lines typed"]
    return markdown(header, list(_lines(rows)), note)


def _lines(rows: pd.DataFrame) -> Iterator[list[str]]:
    for (backbone, size), some in rows.groupby(["backbone", "image_size"], sort=False):
        title = f"{backbone}, {size} px"
        for way in (w for w in WAYS if w in set(some["way"])):
            own = some[some["way"] == way]
            minutes = [f"{own[name].mean():.1f}" for name in ("minutes", "cpu_minutes")]
            lines = str(own["lines"].iloc[0])
            yield [title, way, _accuracy(own), _gain(some, way), *minutes, lines]
            title = ""


def hits_by_photo(rows: pd.DataFrame) -> pd.Series:
    """Which test photos were right, 0.0 or 1.0, by seed and photo; of rows of one way."""
    found = {
        row.seed: pd.Series(
            unpack_hits(row.hits, row.test_images).astype(float), map(int, row.tested.split(";"))
        )
        for row in rows.itertuples()
    }
    return pd.concat(found)


def _mean(right: pd.Series) -> Interval:
    """The mean over seeds and photos: the seeds' test photos overlap, so a photo is one unit."""
    return clustered(right.to_numpy(), right.index.get_level_values(1).to_numpy()).interval()


def _accuracy(rows: pd.DataFrame) -> str:
    interval = _mean(hits_by_photo(rows))
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _gain(rows: pd.DataFrame, way: str) -> str:
    """What `make photos` adds to another way, on the seeds that both have."""
    each = [rows[rows["way"] == name] for name in (PHOTOS, way)]
    if way == PHOTOS or any(part.empty for part in each):
        return BLANK
    ours, theirs = map(hits_by_photo, each)
    both = (ours - theirs).dropna()
    if both.empty:
        return BLANK
    interval = _mean(both)
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
