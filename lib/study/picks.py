"""Which layers each strategy picked in each halving, and what it took: one CSV a network.

They stand beside the rows of the runs, one line a seed and choice. Nothing here starts Keras.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..params import InputError

COLUMNS = (
    "data",
    "backbone",
    "alpha",
    "image_size",
    "train_images",
    "eval_images",
    "seed",
    "choice",  # by the names of `lib.study.protocol.CHOICES`
    "strategy",
    "seconds",  # wall time; empty where a choice was not run by itself
    "cpu_seconds",  # processor time of the process
    "alike",  # true where the strategy's own run picked what the record says it would
    "halvings",
    "keys",  # of the runs that are picked, between spaces
    "picks",  # place in keys of each halving's pick, joined with ";"
    "machine",
    "versions",
    "git_sha",
    "finished_at",
)


def picks_path(folder: Path, backbone: str) -> Path:
    """No hyphen in it: it is no ledger."""
    return folder / f"picks_{backbone}.csv"


def read_picks(folder: Path, backbone: str) -> pd.DataFrame:
    """The picks of a network, with the columns `COLUMNS`; no rows where there is no file.

    Raises InputError where the file is not what `lib.study` writes.
    """
    path = picks_path(folder, backbone)
    if not path.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    found = pd.read_csv(path, keep_default_na=False, dtype={"alike": str, "keys": str})
    if tuple(found.columns) != COLUMNS:
        raise InputError(f"{path}: columns are {', '.join(found)}; allowed: {', '.join(COLUMNS)}")
    times = found[["seconds", "cpu_seconds"]].apply(pd.to_numeric, errors="coerce")
    return found.assign(**times)


def pack_picks(keys: Sequence[str]) -> dict[str, str]:
    """The columns keys and picks of one key a halving."""
    each = list(dict.fromkeys(keys))
    return {"keys": " ".join(each), "picks": ";".join(str(each.index(key)) for key in keys)}


def unpack_picks(keys: str, picks: str) -> np.ndarray:
    """The inverse of `pack_picks`, text ``(halvings,)``."""
    return np.array(keys.split())[[int(place) for place in picks.split(";")]]
