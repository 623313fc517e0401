"""Classes of photos by a tuned network: a CSV of file, class and probability."""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from ..errors import readable
from ..params import InputError, resolve_path
from ..photos.folder import EXTENSIONS, Depth, measure_depth, read_photo, reading
from ..whole import write_whole
from .export import RESIZE, load, load_depth
from .folder import photos_below

HEADER = ("file", "class", "probability")
BATCH = 32  # photos at a time


@dataclass(frozen=True)
class Classified:
    """What came of some photos.

    Attributes:
        path: of the CSV.
        unread: a line for each photo and folder that could not be read.
        other: a line for each file of another kind.
    """

    path: Path
    unread: list[str]
    other: list[str]


def predict(model: str, photos: str, out: str | None = None) -> Classified:
    """Write the class of each photo.

    Args:
        model: path of a model.keras.
        photos: path of one photo or of a folder, whose folders are read, too.
        out: path of the CSV; None: predictions.csv beside the model.

    Files of 16 bits are taken as those that the network was trained on; where there were none, as
    the files of this folder together ask for, see `lib.photos.folder`.

    Raises InputError for a model that cannot be loaded, and where no photo can be read.
    """
    path = resolve_path(model)
    network, names = load(path)
    target = resolve_path(out) if out else path.with_name("predictions.csv")
    _check_target(target)
    files, unread, other = _files(resolve_path(photos))
    failed: dict[Path, InputError] = {}
    depth = load_depth(path) or measure_depth(files, failed)
    rows = list(_rows(network, names, files, depth, failed))
    unread += [str(error).removeprefix("data: ") for error in failed.values()]
    if unread and not rows:
        raise InputError(f"dir: {unread[0]}")
    if not rows:
        raise InputError(
            f"dir: {photos} holds no photo; allowed: a photo or a folder of photos, with names "
            f"ending in {', '.join(EXTENSIONS)}"
        )
    _write(target, rows)
    return Classified(target, unread, other)


def _files(path: Path) -> tuple[list[Path], list[str], list[str]]:
    """A photo, or those of a folder and of the folders in it; what is unread; other files."""
    if not path.exists():
        raise InputError(f"dir: {path} is not there; allowed: a photo or a folder of photos")
    if not path.is_dir():
        return [path], [], []
    files, *left_out = photos_below(path)
    named = ([f"{readable(str(path / x.path))}: {x.reason}" for x in some] for some in left_out)
    return files, *named


def _rows(
    network: keras.Model,
    names: list[str],
    files: list[Path],
    depth: Depth,
    failed: dict[Path, InputError],
) -> Iterator[tuple[str, str, str]]:
    """(file, class, probability) of the photos that can be read; takes note of the others."""
    size = network.get_layer(RESIZE).height
    for start in range(0, len(files), BATCH):
        found = {}
        for path in (path for path in files[start : start + BATCH] if path not in failed):
            try:
                found[path] = read_photo(path, size, depth)
            except InputError as error:
                failed[path] = error
        if found:
            probabilities = network.predict_on_batch(np.stack(list(found.values())))
            for path, p in zip(found, np.asarray(probabilities), strict=True):
                yield readable(str(path)), names[p.argmax()], f"{p.max():.4f}"


def _write(path: Path, rows: list[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    write_whole(path, text.getvalue())


def _check_target(path: Path) -> None:
    """Refuse to write over what is no table of classes, such as a photo, a folder or a device."""
    if not path.exists():
        return
    if path.is_file():
        with reading(path), path.open("rb") as file:
            first = file.readline()
        if not first or first.startswith(",".join(HEADER).encode()):
            return
    raise InputError(
        f"out: {path} is there, and make predict did not write it; allowed: a new file"
    )
