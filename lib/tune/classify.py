"""Classes of photos by a tuned network: a CSV of file, class and probability."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

from ..errors import readable
from ..params import InputError, resolve_path
from ..photos.folder import EXTENSIONS, measure_depth, read_photo
from .export import RESIZE, load
from .folder import NO_PHOTOS

HEADER = ("file", "class", "probability")
BATCH = 32  # photos at a time


def predict(model: str, photos: str, out: str | None = None) -> tuple[Path, list[str]]:
    """Write the class of each photo.

    Args:
        model: path of a model.keras.
        photos: path of one photo or of a folder, whose folders are read, too.
        out: path of the CSV; None: predictions.csv beside the model.

    Returns:
        The path of the CSV, and a line for each file that could not be read.

    Raises InputError for a model that cannot be loaded, and where no photo can be read.
    """
    path = resolve_path(model)
    network, names = load(path)
    target = resolve_path(out) if out else path.with_name("predictions.csv")
    unread: list[str] = []
    rows = list(_rows(network, names, list(_files(resolve_path(photos))), unread))
    if unread and not rows:
        raise InputError(f"dir: {unread[0]}")
    if not rows:
        raise InputError(
            f"dir: {photos} holds no photo; allowed: a photo or a folder of photos, with names "
            f"ending in {', '.join(EXTENSIONS)}"
        )
    _write(target, rows)
    return target, unread


def _files(path: Path) -> Iterator[Path]:
    """A photo, or the photos of a folder and of the folders in it, sorted."""
    if not path.exists():
        raise InputError(f"dir: {path} is not there; allowed: a photo or a folder of photos")
    if not path.is_dir():
        yield path
        return
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if not _hidden(f))
        for name in sorted(f for f in files if not _hidden(f)):
            if Path(name).suffix.lower() in EXTENSIONS:
                yield Path(folder, name)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in NO_PHOTOS


def _rows(
    network: keras.Model, names: list[str], files: list[Path], unread: list[str]
) -> Iterator[tuple[str, str, str]]:
    """(file, class, probability) of the photos that can be read."""
    size = network.get_layer(RESIZE).height
    for start in range(0, len(files), BATCH):
        found = {}
        for path in files[start : start + BATCH]:
            try:
                found[path] = read_photo(path, size, measure_depth([path]))
            except InputError as error:
                unread.append(str(error).removeprefix("data: "))
        if found:
            probabilities = network.predict_on_batch(np.stack(list(found.values())))
            for path, p in zip(found, np.asarray(probabilities), strict=True):
                yield readable(str(path)), names[p.argmax()], f"{p.max():.4f}"


def _write(path: Path, rows: list[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER, *rows])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.getvalue(), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(
            f"out: {path} cannot be written: {error.strerror}; allowed: a file that you may write"
        ) from error
