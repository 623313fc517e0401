"""`make photos` against what people use, from its rows: a table. Starts no Keras."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..audit.intervals import Estimate
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
    "hits",  # which test photos were right: `lib.ledger.pack_hits`
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
    """Accuracy on test photos, minutes and lines typed of each way; empty without rows."""
    if not len(rows):
        return ""
    first = rows.iloc[0]
    note = (
        f"{first['train_images'] + first['test_images']} photos of {first['data']}, of which "
        f"{first['test_images']} test; seeds, each with a split of its own: "
        f"{rows['seed'].nunique()}. Accuracy with its 95 % interval for other photos; the gain of "
        f"`{PHOTOS}` over a way is paired, photo by photo. Minutes on {first['machine']}, with all "
        f"that a way does; reading the photos counts for `{PHOTOS}` alone."
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


def hits_by_seed(rows: pd.DataFrame) -> dict[int, np.ndarray]:
    """Which test photos were right, float ``(photos,)``, by seed; of rows of one way."""
    return {r.seed: unpack_hits(r.hits, r.test_images).astype(float) for r in rows.itertuples()}


def mean_over_seeds(tables: Sequence[np.ndarray]) -> Estimate:
    """The mean of what each seed's test photos say, with what other photos would change."""
    value = float(np.mean([table.mean() for table in tables]))
    variance = sum(table.var(ddof=1) / len(table) for table in tables) / len(tables) ** 2
    return Estimate(value, float(np.sqrt(variance)), sum(len(table) - 1 for table in tables))


def _accuracy(rows: pd.DataFrame) -> str:
    interval = mean_over_seeds(list(hits_by_seed(rows).values())).interval()
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _gain(rows: pd.DataFrame, way: str) -> str:
    """What `make photos` adds to another way, on the seeds that both have."""
    ours, theirs = (hits_by_seed(rows[rows["way"] == name]) for name in (PHOTOS, way))
    both = [ours[s] - theirs[s] for s in ours if s in theirs]
    if way == PHOTOS or not both:
        return BLANK
    interval = mean_over_seeds(both).interval()
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"
