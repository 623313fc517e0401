"""The ledger: one CSV per (method, backbone), one row per run.

A row is written the moment its group of runs ends, as one whole line that is flushed to disk, so
an interrupted sweep loses at most what its groups have done since their last checkpoints, see
`lib.checkpoint`. `lib.results` reads what the rows say.
"""

import csv
import hashlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from .errors import InputError
from .methods import allowed, is_method


class TornRowWarning(UserWarning):
    """The last line of a ledger has no end: a run was interrupted while its row was written."""


@dataclass(frozen=True)
class Column:
    """One column of a ledger: its type and what its values may be."""

    name: str
    kind: type  # str, int or float
    low: float = 0.0  # smallest value of a number
    high: float = float("inf")  # largest value of a number
    blank: bool = False  # text may be empty; a float may be nan


SCHEMA = (
    Column("key", str),  # hash of the columns in SETTINGS
    Column("profile", str),
    Column("method", str),  # one of `lib.methods`
    Column("backbone", str),
    Column("alpha", str, blank=True),  # width multiplier, as text
    Column("image_size", int, low=1),  # pixels
    Column("weights_sha256", str, blank=True),  # of the backbone before training
    Column("data_sha256", str),  # of images, labels and class names
    Column("input_scaling", str),  # unit or native
    Column("block", str),  # the block's name in its partition
    Column("layers", str, blank=True),  # tuned layers joined with ";", empty for Baseline I
    Column("n_trainable", int),  # trainable weights (scalars), classifier included
    Column("split", str),  # training slice
    Column("eval_split", str),  # evaluation slice
    Column("train_images", int, low=1),
    Column("eval_images", int, low=1),
    Column("seed", int),  # of the classifier's initial weights and dropout masks
    Column("order_seed", int),  # of the order of the batches
    Column("repeat", int),  # 0..R-1 in the final runs; 0 in the search, unless it is repeated
    Column("batch_size", int, low=1),
    Column("epochs", int, low=1),
    Column("learning_rate", float),
    Column("dropout", float, high=1.0),
    Column("plateau", str),  # factor, patience and min_delta of the learning-rate plateau
    Column("val_accuracy", float, high=1.0),  # of the last epoch
    Column("val_loss", float, blank=True),  # of the last epoch; nan where training diverged
    Column("best_val_accuracy", float, high=1.0),  # of the best epoch
    Column("train_accuracy", float, high=1.0),  # of the last epoch
    Column("seconds", float),
    Column("lanes", int, low=1),  # runs trained together in one model
    Column("backend", str),
    Column("versions", str, blank=True),
    Column("git_sha", str, blank=True),
    Column("finished_at", str),  # ISO 8601
    Column("failed", str, blank=True),  # why the run counts for nothing; empty: it did not fail
    Column("curve", str),  # evaluation images right after each epoch, joined with ";"
    Column("hits", str),  # which evaluation images were right after the last epoch: `pack_hits`
)
COLUMNS = tuple(column.name for column in SCHEMA)
# What determines a run's result; the method and the block's name do not.
SETTINGS = (
    "backbone",
    "alpha",
    "image_size",
    "weights_sha256",
    "data_sha256",
    "input_scaling",
    "layers",
    "split",
    "eval_split",
    "seed",
    "order_seed",
    "batch_size",
    "epochs",
    "learning_rate",
    "dropout",
    "plateau",
    "backend",
)
csv.field_size_limit(2**31 - 1)  # curves of many epochs are long; Python's own limit is 128 KiB
HEADER = (*COLUMNS, "check")  # of the file: a checksum ends each line


def run_key(row: Mapping[str, object]) -> str:
    """The key of a run, 16 hex digits: a hash of its row's values of `SETTINGS`.

    A run whose key is in a ledger is not trained again.
    """
    texts = [
        _to_text(column, row[column.name], "run") for column in SCHEMA if column.name in SETTINGS
    ]
    return _hash(texts, 16)


def _hash(texts: Iterable[str], digits: int) -> str:
    return hashlib.sha256("\x1f".join(texts).encode()).hexdigest()[:digits]


def pack_hits(hits: np.ndarray) -> str:
    """One bit an evaluation image, bool ``(images,)``, as hexadecimal digits."""
    return np.packbits(hits).tobytes().hex()


def unpack_hits(text: str, images: int) -> np.ndarray:
    """The inverse of `pack_hits`, bool ``(images,)``.

    Raises ValueError for text that is not that of so many images.
    """
    packed = np.frombuffer(bytes.fromhex(text), "uint8")
    if len(packed) != -(-images // 8):
        raise ValueError(f"{text[:20]!r}... is not one bit for each of {images} images")
    return np.unpackbits(packed, count=images).astype(bool)


def unpack_curve(text: str) -> np.ndarray:
    """A row's `curve`: how many evaluation images are right after each epoch, int ``(epochs,)``."""
    return np.array(text.split(";"), int)


# ---------------------------------------------------------------------------------- writing


def ledger_path(folder: str | Path, method: str, backbone: str) -> Path:
    """Where the rows of a method and a backbone stand."""
    return Path(folder) / f"{method}-{backbone}.csv"


def append_row(path: str | Path, row: Mapping[str, object]) -> None:
    """Append one run to a ledger as one flushed line; the file and its header are made if new.

    row: a value for every name of `COLUMNS` and for no other name.
    A torn last line, left by an interrupted write, is cut off first (`TornRowWarning`).
    Raises InputError, and leaves the file as it was, where the row or the file's header is not
    valid or the line cannot be written whole.
    """
    path = Path(path)
    texts = _checked(row, path)
    line = _line([*texts, _hash(texts, 12)])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            if _cut_torn_tail(file, path) == 0:
                line = _line(HEADER) + line
            else:
                _check_header(file, path)
            _write_whole(file, line)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write a row: {error.strerror}; the rows in it are intact: mend the "
            "cause and run the same command again"
        ) from error


def _write_whole(file: io.FileIO, line: bytes) -> None:
    """Append `line` and flush it to the disk, or raise OSError and leave the file as it was."""
    size = file.seek(0, os.SEEK_END)
    try:
        written = 0
        while written < len(line):  # a disk that fills up takes a part of the line first
            written += file.write(line[written:])
        os.fsync(file.fileno())
    except OSError:
        file.truncate(size)
        raise


@contextmanager
def ledger_lock(folder: str | Path, backbone: str) -> Iterator[None]:
    """Hold the ledgers of one backbone in one folder against other processes.

    What another process finishes meanwhile, this one need not train.
    """
    with held(Path(folder) / f".{backbone}.lock", f"trains {backbone}"):
        yield


@contextmanager
def held(path: Path, does: str) -> Iterator[None]:
    """Hold a lock file against other processes; say that another one has it, and wait.

    does: what the process with the lock does.

    The operating system frees the lock of a process that dies, however it dies.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path}: another process {does}; waiting for it", file=sys.stderr)
        lock.acquire()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be held: {error.strerror}; allowed: a folder that you may write"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _checked(row: Mapping[str, object], path: Path) -> list[str]:
    """The row's values as text, in the order of COLUMNS, each one proven readable again."""
    missing, unknown = set(COLUMNS) - set(row), set(row) - set(COLUMNS)
    if missing or unknown:
        raise InputError(
            f"{path}: row with missing columns {sorted(missing)} and unknown columns"
            f" {sorted(unknown)}; it must have exactly the columns of lib.ledger.COLUMNS"
        )
    texts = [_to_text(column, row[column.name], path) for column in SCHEMA]
    _values(texts, str(path))
    return texts


def _values(texts: Sequence[str], where: str) -> list:
    """A row's values from their texts; raises InputError where they are not those of one run."""
    values = [_from_text(column, text, where) for column, text in zip(SCHEMA, texts, strict=True)]
    row = dict(zip(COLUMNS, values, strict=True))
    counts = row["curve"].split(";")
    if len(counts) != row["epochs"] or not all(count.isdecimal() for count in counts):
        raise InputError(
            f"{where}: curve is {row['curve'][:60]!r}, must be {row['epochs']} whole numbers, one "
            "for each of its epochs"
        )
    return values


def _to_text(column: Column, value: object, path: Path | str) -> str:
    """A value as it stands in the file; floats keep all their digits."""
    try:
        if column.kind is str and not isinstance(value, str):
            raise TypeError
        text = repr(float(value)) if column.kind is float else str(value)
    except (TypeError, ValueError):
        raise InputError(
            f"{path}: {column.name} is {value!r}, must be {_allowed(column)}"
        ) from None
    if re.search(r"[\r\n\0]", text):
        raise InputError(f"{path}: {column.name} is {text!r}, must be text on one line")
    return text


def _line(texts: Iterable[str]) -> bytes:
    """One CSV line, ended by a newline."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(texts)
    return buffer.getvalue().encode()


def _cut_torn_tail(file: io.FileIO, path: Path) -> int:
    """Cut off what follows the last newline, so that a new row is not glued to it.

    Returns the number of bytes left.
    """
    file.seek(0)
    content = file.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        _warn_torn(path, content[whole:])
        file.truncate(whole)
    return whole


def _check_header(file: io.FileIO, path: Path) -> None:
    file.seek(0)
    header = file.read().split(b"\n", 1)[0]
    _check_columns(header.decode(errors="replace"), path)


# ---------------------------------------------------------------------------------- reading


def read_ledger(path: str | Path) -> pd.DataFrame:
    """The runs of one ledger, typed (text, int64, float64), in the order they were written.

    A missing or empty file gives an empty frame with the same columns and types. A last line
    without its newline is dropped with a `TornRowWarning`. Any other line that is not a row
    raises InputError with the file and the line.
    """
    return _frame(_read_rows(Path(path)))


def read_results(folder: str | Path, backbones: Iterable[str] | None = None) -> pd.DataFrame:
    """All ledgers `<method>-<backbone>.csv` of a folder as one frame, optionally of some backbones.

    The same run of the same block, written twice, counts once. A missing folder is an empty
    frame. Raises InputError as `read_ledger` does.
    """
    rows = [row for path in sorted(Path(folder).glob("*-*.csv")) for row in _read_rows(path)]
    df = _frame(rows)
    if backbones is not None:
        df = df[df["backbone"].isin(list(backbones))]
    same = ["key", "method", "backbone", "block", "split", "repeat"]
    return df.drop_duplicates(same).reset_index(drop=True)


def empty_rows() -> pd.DataFrame:
    """No runs, with all columns and their types."""
    return _frame([])


def _frame(rows: list[tuple]) -> pd.DataFrame:
    types = {column.name: "str" if column.kind is str else column.kind for column in SCHEMA}
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(types)


def _read_rows(path: Path) -> list[tuple]:
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if tail:
        _warn_torn(path, tail)
    if not lines:
        return []
    _check_columns(lines[0].decode(errors="replace"), path)
    return [_read_row(line, f"{path}, line {number}") for number, line in enumerate(lines[1:], 2)]


@lru_cache(maxsize=10_000)  # a sweep reads the same rows dozens of times
def _read_row(line: bytes, where: str) -> tuple:
    """One line's values; raises InputError with `where` if it is not a row."""
    try:
        (texts,) = csv.reader([line.decode().rstrip("\r")], strict=True)
    except (UnicodeDecodeError, ValueError, csv.Error):
        raise InputError(f"{where}: not a CSV row: {line[:60]!r}") from None
    if len(texts) != len(HEADER):
        raise InputError(f"{where}: {len(texts)} values, must be {len(HEADER)}")
    *texts, check = texts
    row = _values(texts, where)
    if check != _hash(texts, 12):
        raise InputError(
            f"{where}: check is {check!r}, must be {_hash(texts, 12)!r}: a value was altered"
        )
    return tuple(row)


def _from_text(column: Column, text: str, where: str) -> str | int | float:
    """A value from its text; raises InputError where type or range is wrong."""
    try:
        value = column.kind(text)
    except ValueError:
        value = None
    if value is None or not _in_range(column, value):
        raise InputError(f"{where}: {column.name} is {text!r}, must be {_allowed(column)}")
    return value


def _in_range(column: Column, value: str | int | float) -> bool:
    if column.kind is not str:
        return column.low <= value <= column.high or (column.blank and value != value)
    if column.name == "method":
        return is_method(value)
    return column.blank or value != ""


def _allowed(column: Column) -> str:
    if column.name == "method":
        return f"one of {allowed()}"
    if column.kind is str:
        return "text" if column.blank else "text that is not empty"
    number = "a whole number" if column.kind is int else "a number"
    return f"{number} in [{column.low:g}, {column.high:g}]" + (" or nan" if column.blank else "")


def _check_columns(header: str, path: Path) -> None:
    if header.rstrip("\r").split(",") != list(HEADER):
        raise InputError(
            f"{path}, line 1: header is {header[:60]!r}..., must be {','.join(HEADER)}"
        )


def _warn_torn(path: Path, tail: bytes) -> None:
    warnings.warn(
        f"{path}: the last line has no end (an interrupted write) and is dropped: {tail[:40]!r}",
        TornRowWarning,
        stacklevel=4,
    )
