"""The ledger: one CSV per (method, backbone), one row per run, and the tables read from it.

A row is written the moment its run ends, as one whole line that is flushed to disk, so an
interrupted sweep loses at most the run it was in. Figures and tables read rows and nothing else.
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
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from .errors import InputError
from .methods import PAPER, SEARCHES, allowed, is_method

SEARCH_SPLIT = "train[:10%]"  # the paper's slice for finding the best layer, block or window
FINAL_SPLIT = "train[:70%]"  # the paper's slice for training each method's winner

ACCURACIES = ("val_accuracy", "best_val_accuracy")


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
HEADER = (*COLUMNS, "check")  # of the file: a checksum ends each line


def run_key(row: Mapping[str, object], settings: Sequence[str] = SETTINGS) -> str:
    """The key of a run, 16 hex digits: a hash of its row's values of `settings`.

    A run whose key is in a ledger is not trained again.
    """
    texts = [
        _to_text(column, row[column.name], "run") for column in SCHEMA if column.name in settings
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


# ---------------------------------------------------------------------------------- writing


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

    A process that finds them held says so and waits: what the other finishes, it need not train.
    The operating system frees the lock of a process that dies, however it dies.
    """
    path = Path(folder) / f".{backbone}.lock"
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path}: another process trains {backbone}; waiting for it", file=sys.stderr)
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
            f" {sorted(unknown)}; it must have exactly the columns of lib.results.COLUMNS"
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


def rewrite_ledger(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Replace a ledger by these rows at one stroke: whole or not at all.

    Raises InputError where a row is not valid.
    """
    checked = [_checked(row, path) for row in rows]
    lines = [_line(HEADER), *(_line([*texts, _hash(texts, 12)]) for texts in checked)]
    draft = path.with_suffix(".draft")
    try:
        draft.write_bytes(b"".join(lines))
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(
            f"{path}: cannot be rewritten: {error.strerror}; it is as it was"
        ) from error


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


def _frame(rows: list[list]) -> pd.DataFrame:
    types = {column.name: "str" if column.kind is str else column.kind for column in SCHEMA}
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(types)


def _read_rows(path: Path) -> list[list]:
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


def _read_row(line: bytes, where: str) -> list:
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
    return row


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


# ---------------------------------------------------------------------------------- tables


def search_rows(df: pd.DataFrame, split: str = SEARCH_SPLIT) -> pd.DataFrame:
    """The runs of the search that did not fail, one for each method, backbone and block.

    Of a search that was repeated with other seeds, the first.

    Raises InputError where a block has two, or a method that proposes one block has two of them:
    rows of different settings in one folder.
    """
    rows = df[(df["split"] == split) & (df["repeat"] == 0) & (df["failed"] == "")]
    of_many = rows["method"].isin(SEARCHES)
    _one_setting(rows[~of_many], ["method", "backbone"])
    return _one_setting(rows, ["method", "backbone", "block"])


def final_rows(df: pd.DataFrame, split: str = FINAL_SPLIT) -> pd.DataFrame:
    """The final runs that did not fail, one for each method, backbone and repeat.

    Raises InputError where a repeat has two: rows of different settings in one folder.
    """
    rows = df[(df["split"] == split) & (df["failed"] == "")]
    return _one_setting(rows, ["method", "backbone", "repeat"])


def _one_setting(rows: pd.DataFrame, identity: list[str]) -> pd.DataFrame:
    """Refuse to mix runs that differ in a parameter (epochs, image size, data, ...)."""
    twice = rows[rows.duplicated(identity, keep=False)]
    if len(twice):
        group = twice[(twice[identity] == twice[identity].iloc[0]).all(axis=1)]
        varied = [c for c in COLUMNS if c in ("key", *SETTINGS) and group[c].nunique() > 1]
        what = ", ".join(f"{name} {value}" for name, value in group[identity].iloc[0].items())
        raise InputError(
            f"results hold {len(group)} runs of {what} that differ in {', '.join(varied)};"
            " keep the rows of one setting in a folder"
        )
    return rows.reset_index(drop=True)


def layer_order(df: pd.DataFrame, backbone: str) -> list[str]:
    """The layers with weights of a backbone from input to output, as far as rows tell.

    Baseline II tunes all layers, so its `layers` column is the order; without it the blocks of
    `block_wise`, which cover all layers once, are joined; else an empty list.
    """
    rows = df[df["backbone"] == backbone]
    for method in ("baseline_2", "block_wise"):
        of = rows[rows["method"] == method]
        place = of["block"].str.extract(r"(\d+)$", expand=False).fillna(0).astype(int)
        blocks = of.iloc[place.argsort(kind="stable")]["layers"].unique()
        if len(blocks):
            return ";".join(blocks[:1] if method == "baseline_2" else blocks).split(";")
    return []


def in_order(df: pd.DataFrame, method: str, backbone: str, split: str) -> pd.DataFrame:
    """The search runs of a method from the input to the output of a backbone.

    Adds `position`, int: the layer's index among the layers with weights (`layer_wise`), or the
    number in the block's name (`block_07`, `window_007`), counted from 1.
    """
    rows = search_rows(df, split)
    rows = rows[(rows["method"] == method) & (rows["backbone"] == backbone)].copy()
    if method == "layer_wise":
        places = {name: place for place, name in enumerate(layer_order(df, backbone), start=1)}
        unknown = [name for name in rows["block"] if name not in places]
        places |= {name: place for place, name in enumerate(unknown, start=len(places) + 1)}
        rows["position"] = rows["block"].map(places).astype(int)
    else:
        numbers = rows["block"].str.extract(r"(\d+)$", expand=False)
        rows["position"] = numbers.fillna(0).astype(int)
    return rows.sort_values("position", kind="stable").reset_index(drop=True)


def best_block(
    df: pd.DataFrame,
    method: str,
    backbone: str,
    select_on: str = "val_accuracy",
    split: str = SEARCH_SPLIT,
) -> pd.Series:
    """The winning run of a method's search (Algorithms 1 and 2): the highest accuracy.

    Of equal accuracies the one nearest the input wins, as in the paper's loop over Acc[1..N].
    select_on: val_accuracy or best_val_accuracy. Raises InputError if there is no such run.
    """
    if select_on not in ACCURACIES:
        raise InputError(f"select_on is {select_on!r}, must be one of {', '.join(ACCURACIES)}")
    rows = in_order(df, method, backbone, split)
    if rows.empty:
        raise InputError(f"no search runs of {method} on {backbone} with split {split}")
    return rows.loc[rows[select_on].idxmax()]


def check_winners(
    df: pd.DataFrame,
    select_on: str = "val_accuracy",
    search_split: str = SEARCH_SPLIT,
    final_split: str = FINAL_SPLIT,
) -> None:
    """Refuse final runs of a block that did not win its method's search.

    Such rows are of two plans, such as of another `select_on`. Raises InputError.
    """
    finals = final_rows(df, final_split).drop_duplicates(["method", "backbone", "layers"])
    searched = search_rows(df, search_split).groupby(["method", "backbone"]).groups
    for row in finals.to_dict("records"):
        method, backbone = row["method"], row["backbone"]
        if (method, backbone) in searched:
            best = best_block(df, method, backbone, select_on, search_split)
            if best["layers"] != row["layers"]:
                raise InputError(
                    f"results: final runs of {method} on {backbone} are of {row['block']}, and by "
                    f"{select_on} the search's best is {best['block']}; allowed: rows of one plan "
                    "in a folder"
                )


def summary(
    df: pd.DataFrame, value: str = "val_accuracy", split: str = FINAL_SPLIT
) -> pd.DataFrame:
    """Final accuracies over repeats: method, backbone, mean, sd (ddof 1; nan for one run), n.

    In the paper's order of methods, then of backbones as they come; without what was not run.
    """
    grouped = final_rows(df, split).groupby(["method", "backbone"], sort=False)[value]
    table = grouped.agg(mean="mean", sd="std", n="count").reset_index()
    place = table["method"].map(lambda name: PAPER.index(name) if name in PAPER else 99)
    return table.iloc[place.argsort(kind="stable")].reset_index(drop=True)
