"""What grafts made of each selection photo, kept in one file: `lib.tune.search` makes them."""

import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..whole import whole

FILE = "grafts.npz"
# Which photos each graft gets right, bool, and its losses, float32, ``(photos,)`` each, by layers.
Grafts = Mapping[tuple[str, ...], tuple[np.ndarray, np.ndarray]]


def kept(path: Path, make: Callable[[], Grafts]) -> Grafts:
    """What `make` returns, from a file where it is there and can be read."""
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return read(path)
    found = make()
    right, losses = (np.stack([pair[i] for pair in found.values()]) for i in (0, 1))
    layers = np.array([";".join(names) for names in found])
    with whole(path) as draft:
        np.savez_compressed(draft, layers=layers, right=right, losses=losses)
    return found


def read(path: Path) -> Grafts:
    """What `kept` wrote. Raises OSError, or an error of its own where the file is damaged."""
    with np.load(path) as file:
        names = [tuple(text.split(";")) if text else () for text in file["layers"].tolist()]
        return dict(zip(names, zip(file["right"], file["losses"], strict=True), strict=True))
