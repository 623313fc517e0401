"""Checkpoints: where a group's training stands, kept on disk between epochs.

Rows are written when a group ends. At the paper's own size that may take hours, so a group that
was stopped goes on from its last checkpoint: on the same machine, with the same code and versions.
It ends with the same rows, up to rounding; to the bit where rows are deterministic.
"""

import hashlib
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np

from .params import ROOT
from .provenance import RUNNING_CODE, device, versions
from .room import cores
from .whole import whole

EVERY = 300.0  # seconds of training between two checkpoints: a stop costs that and one epoch
SPARED = 2**30  # bytes of the disk that no checkpoint takes: rows come first
FORGOTTEN = 7 * 24 * 3600.0  # seconds after which nobody is expected to go on any more
FOLDER = ROOT / "build" / "checkpoints"
KEYS, END = "keys", "end"  # first and last member of the file, a zip of arrays: it has checksums


class Checkpoint:
    """The file of one group, there until the group's rows are.

    Args:
        keys: of the group's runs, lane by lane, see `lib.ledger.run_key`.
        deterministic: whether bits repeat; such runs do not go on from others.
        say: told when a group goes on.
        where: the device that trains the group; empty: this process'.
    """

    def __init__(
        self,
        keys: Sequence[str],
        deterministic: bool = False,
        say: Callable[[str], None] = lambda text: None,
        where: str = "",
    ):
        self.keys, self.say = tuple(keys), say
        made = RUNNING_CODE, versions(), where or device(), str(deterministic and _threads())
        name = hashlib.sha256("\x1f".join((*made, *keys)).encode()).hexdigest()[:16]
        self.path = FOLDER / f"{name}.npz"
        self.saved = time.monotonic()

    @property
    def exists(self) -> bool:
        return self.path.is_file()

    def offer(self, arrays: Iterable[np.ndarray]) -> None:
        """Save the arrays if the last checkpoint, or the start, is long ago."""
        if time.monotonic() - self.saved >= EVERY:
            self._save(arrays)
            self.saved = time.monotonic()

    def _save(self, arrays: Iterable[np.ndarray]) -> None:
        """Replace the checkpoint at one stroke; a disk that will not take it is no error.

        arrays: read one at a time, so that they are never all in memory twice.
        """
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _clear_old()
            with whole(self.path) as draft, zipfile.ZipFile(draft, "w") as members:
                _write(members, KEYS, np.array(self.keys))
                for i, array in enumerate(arrays):
                    _write(members, str(i), array)
                _write(members, END, np.zeros(0))

    @contextmanager
    def load(self) -> Iterator[Iterator[np.ndarray] | None]:
        """The arrays that were saved, read one at a time; None where there are none.

        A damaged checkpoint, as of a machine that went down, counts for none and is removed.
        """
        members = self._opened()
        if members is None:
            yield None
            return
        with members:
            self.say(f"{len(self.keys)} lanes go on from their checkpoint")
            yield (_read(members, name) for name in members.namelist()[1:-1])

    def _opened(self) -> zipfile.ZipFile | None:
        """The file, opened once: it can be read to its end, though others may remove it."""
        try:
            with ExitStack() as opened:
                members = opened.enter_context(zipfile.ZipFile(self.path))
                _check_whole(members)
                opened.pop_all()  # it is whole and stays open
                return members
        except (OSError, MemoryError):  # it is not there, or cannot be read just now
            return None
        except Exception:  # of what is no whole zip: there are a dozen kinds
            self.clear()
            return None

    def clear(self) -> None:
        """Nobody will go on from it."""
        _remove(self.path)


def _threads() -> str:
    """How many threads sums are divided among: their bits depend on it."""
    return os.environ.get("TF_NUM_INTRAOP_THREADS") or str(cores())


def begun(deterministic: bool, where: str = "") -> list[tuple[str, ...]]:
    """The keys of the groups that this process, or another device, could go on with."""
    found = ((path, k, Checkpoint(k, deterministic, where=where)) for path, k in _found())
    return [keys for path, keys, own in found if own.path == path]


def clear_done(done: Collection[str], trained: Collection[str]) -> None:
    """Remove the checkpoints of groups whose runs all have their rows.

    Args:
        done: keys of runs that have; trained: of those that the caller trains, one a group at
            least. Other groups may be another folder's, which has no rows of them yet.
    """
    for path, keys in _found():
        if all(key in done for key in keys) and any(key in trained for key in keys):
            _remove(path)


def _found() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every checkpoint and the keys of its runs."""
    for path in sorted(FOLDER.glob("*.npz")):
        with suppress(Exception), zipfile.ZipFile(path) as members:
            yield path, tuple(_read(members, KEYS).tolist())


def _clear_old() -> None:
    """Remove what was left here long ago, such as drafts of processes that were killed."""
    for path in FOLDER.iterdir():
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > FORGOTTEN:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _write(members: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    if shutil.disk_usage(FOLDER).free < array.nbytes + SPARED:
        raise OSError("no room for a checkpoint")
    with members.open(name, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def _check_whole(members: zipfile.ZipFile) -> None:
    """Raise ValueError where members are missing, or a checksum is wrong."""
    names = members.namelist()
    if (names[:1], names[-1:]) != ([KEYS], [END]) or members.testzip():
        raise ValueError("not a whole checkpoint")


def _read(members: zipfile.ZipFile, name: str) -> np.ndarray:
    with members.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _remove(path: Path) -> None:
    with suppress(OSError):  # it is not there, or its folder is no folder
        path.unlink()
