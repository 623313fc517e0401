"""Kill a real sweep at random moments, resume it, and count what that did to its rows.

``python tests/torture.py [KILLS]`` is ``make torture``; `test_faults.py` does the same with fewer.
"""

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from lib import checkpoint
from lib.ledger import COLUMNS, TornRowWarning, read_ledger
from lib.params import Params, load_params
from lib.quiet import silence

with silence():
    from lib.sweep import search

METHODS = ("baseline_1", "block_wise")
LIMIT = 600  # seconds that a sweep of six small runs may take
TAIL = ("seconds", "lanes", "finished_at", "git_sha")  # these may differ between equal runs
# One process imports everything; every sweep is a fork of it, so that a kill costs no import.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torture"])


@dataclass
class Counts:
    """What a campaign of kills did; all but the first two should be zero."""

    kills: int = 0
    sweeps: int = 0  # that were brought to their end, killed any number of times before
    lost: int = 0  # rows of the uninterrupted sweep that are missing
    duplicated: int = 0  # rows beyond one a key
    different: int = 0  # rows with another value than the uninterrupted sweep's
    retrained: int = 0  # rows that were there before a kill and were written anew after it


def parameters(folder: Path) -> Params:
    """A smoke sweep of six runs in the exact mode."""
    return load_params(
        "smoke",
        backbones=("VGG16",),
        n_images=60,
        epochs=2,
        deterministic=True,
        results=str(folder),
    )


def sweep(folder: Path) -> None:
    """Run, or resume, the sweep, with a checkpoint after every epoch; its output goes nowhere."""
    checkpoint.EVERY, checkpoint.FOLDER = 0.0, folder / "checkpoints"
    # As in a terminal: a shell without one has its background jobs ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    search(parameters(folder), *METHODS)


def start(folder: Path) -> multiprocessing.Process:
    process = CONTEXT.Process(target=sweep, args=(folder,))
    process.start()
    return process


def rows(folder: Path) -> pd.DataFrame:
    """All rows as they stand in the files, duplicates included, without the torn ones."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TornRowWarning)
        ledgers = [read_ledger(path) for path in sorted(folder.glob("*.csv"))]
    return pd.concat([*ledgers, pd.DataFrame(columns=list(COLUMNS))], ignore_index=True)


def campaign(kills: int, folder: Path, seed: int = 0, longest: float = 6.0) -> Counts:
    """Kill sweeps until `kills` have been killed, bring each to its end, and compare.

    longest: seconds; the moments of the kills are drawn evenly from 0 to this.
    """
    rng, counts = random.Random(seed), Counts()
    whole = start(folder / "whole")
    whole.join()
    expected = content(rows(folder / "whole"))
    while counts.kills < kills:
        place = folder / f"sweep_{counts.sweeps}"
        while True:
            before = rows(place)
            process = start(place)
            process.join(rng.uniform(0, longest) if counts.kills < kills else LIMIT)
            if process.is_alive():
                assert counts.kills < kills, f"a sweep took more than {LIMIT} s"
                os.kill(process.pid, signal.SIGKILL)
                counts.kills += 1
            process.join()
            _compare_with_before(counts, before, rows(place))
            if process.exitcode == 0:
                break
        found = rows(place)
        counts.sweeps += 1
        counts.lost += len(expected.index.difference(content(found).index))
        counts.duplicated += int(found.duplicated(["key", "method"]).sum())
        same = content(found).reindex(expected.index)
        counts.different += int((same != expected).any(axis=1).sum())
    return counts


def content(df: pd.DataFrame) -> pd.DataFrame:
    """What two equal runs share, by method and key."""
    df = df.drop(columns=list(TAIL)).drop_duplicates(["method", "key"])
    return df.set_index(["method", "key"]).sort_index()


def _compare_with_before(counts: Counts, before: pd.DataFrame, after: pd.DataFrame) -> None:
    if not len(before):
        return
    kept = after.drop_duplicates(["method", "key"], keep="last").set_index(["method", "key"])[
        "finished_at"
    ]
    for _, row in before.iterrows():
        if kept.get((row["method"], row["key"])) is None:
            counts.lost += 1
        elif kept[row["method"], row["key"]] != row["finished_at"]:
            counts.retrained += 1


def main(kills: int) -> int:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(kills, Path(folder))
    print(", ".join(f"{name} {value}" for name, value in asdict(counts).items()), end="; ")
    print(f"{time.perf_counter() - began:.0f} s")
    return int(any((counts.lost, counts.duplicated, counts.different, counts.retrained)))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    import torture  # under the name that the forked processes know it by

    sys.exit(torture.main(int(sys.argv[1]) if len(sys.argv) > 1 else 200))
