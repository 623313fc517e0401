"""Checkpoints: where a group's training stands, kept on disk between epochs.

Rows are written when a group ends. At the paper's own size that may take hours, so a group that
was stopped goes on from its last checkpoint: on the same machine, with the same code, to the bit
where it would have stood had nobody stopped it.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .params import ROOT
from .provenance import running_code

EVERY = 300.0  # seconds of training between two checkpoints: a stop costs that and one epoch
SPARED = 2**30  # bytes of the disk that no checkpoint takes: rows come first
FOLDER = ROOT / "build" / "checkpoints"


class Checkpoint:
    """The file of one group, there only while the group is being trained.

    Args:
        keys: of the group's runs, lane by lane, see `lib.ledger.run_key`.
    """

    def __init__(self, keys: Sequence[str]):
        name = hashlib.sha256("\x1f".join((running_code(), *keys)).encode()).hexdigest()[:16]
        self.path = FOLDER / f"{name}.npy"
        self.saved = time.monotonic()

    @property
    def exists(self) -> bool:
        return self.path.is_file()

    @property
    def is_due(self) -> bool:
        """Whether the last one is so old that another is wanted."""
        return time.monotonic() - self.saved >= EVERY

    def save(self, arrays: Iterable[np.ndarray]) -> None:
        """Replace the checkpoint at one stroke; a disk that will not take it is no error.

        arrays: read one at a time, so that no second copy of all weights is ever in memory.
        """
        draft = self.path.with_suffix(f".{os.getpid()}")
        try:
            draft.parent.mkdir(parents=True, exist_ok=True)
            with open(draft, "wb") as file:
                for array in arrays:
                    _require(array.nbytes + SPARED)
                    np.save(file, array, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path)
        except OSError:
            _remove(draft)
        self.saved = time.monotonic()

    def load(self) -> list[np.ndarray]:
        """The arrays that were saved; none where there is no checkpoint that can be read."""
        try:
            with open(self.path, "rb") as file:
                return [*_arrays(file, self.path.stat().st_size)]
        except (OSError, ValueError):  # none, or torn by a machine that went down
            return []

    def clear(self) -> None:
        """The group has ended."""
        _remove(self.path)


def _remove(path: Path) -> None:
    with suppress(OSError):  # it is not there, or its folder is no folder
        path.unlink()


def _require(room: int) -> None:
    if shutil.disk_usage(FOLDER).free < room:
        raise OSError("no room for a checkpoint")


def _arrays(file: BinaryIO, size: int) -> Iterator[np.ndarray]:
    while file.tell() < size:
        yield np.load(file, allow_pickle=False)
