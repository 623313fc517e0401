"""A folder of photos as people keep them: what is used, what is left out, and what is twice there.

One folder a class; a class folder may hold folders. Nothing here stops at a bad file: what cannot
be used is left out and named. Photos come in the order of a hash of their content, so that the same
photos give the same split on every machine, whatever they are called.
"""

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import readable
from ..params import InputError, resolve_path
from ..photos.folder import EXTENSIONS, Depth, dead_link, measure_depth, reading, shrunk, upright
from ..room import require_memory

SYSTEM = ("thumbs.db", "desktop.ini", "__macosx")  # what systems leave behind; in lower case
# Why files of another kind and folders are left out.
NO_PHOTO, EMPTY = "no photo", "a folder without photos"
LOST = "no photo in this folder can be used, so it is no class"
# Names of folders that divide photos which are already split: none is a class.
PARTS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
TIMED = 8  # photos that tell how long all take to read
HASH_SIZE = 16  # of the perceptual hash: 256 bits
# Bits that differ at most between near-duplicates. Of the 6.7 million pairs of tf_flowers, 23
# differ in 36 or fewer, the next in 48, and hardly any in fewer than 80; chance gives 128.
NEAR = 40


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not used, its path below the folder of photos, and why."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Photos:
    """The photos of a folder that can be used, in the order of their content's hash.

    Attributes:
        folder: where they lie.
        paths: their paths below it, ``(N,)``, with ``/`` between the parts.
        images: uint8 ``(N, size, size, 3)``, upright, RGB.
        labels: int64 ``(N,)``, indices into names.
        names: the classes' names, sorted as their folders are.
        digests: SHA-256 of each file, ``(N,)``.
        hashes: perceptual hashes, bool ``(N, 256)``.
        sizes: width and height in pixels before resizing, int ``(N, 2)``.
        left_out: what is not used.
        depth: how many bits of files of 16 are used.
    """

    folder: Path
    paths: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    digests: tuple[str, ...]
    hashes: np.ndarray
    sizes: np.ndarray
    left_out: tuple[LeftOut, ...]
    depth: Depth = Depth()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def extent(self) -> str:
        """The sizes of the smallest and the largest one, in words."""
        areas = self.sizes.prod(axis=1)
        ends = (self.sizes[i].tolist() for i in (areas.argmin(), areas.argmax()))
        return f"{' to '.join(f'{width} x {height}' for width, height in ends)} pixels"

    def classes(self, places: Iterable[int]) -> list[str]:
        """Names of the classes of some photos."""
        return [self.names[c] for c in sorted({self.labels[i] for i in places})]

    def counts(self) -> dict[str, int]:
        """Number of photos by class."""
        found = np.bincount(self.labels, minlength=len(self.names)).tolist()
        return dict(zip(self.names, found, strict=True))


# ---------------------------------------------------------------------------------- what lies there


@dataclass(frozen=True)
class Listing:
    """The files of a folder that look like photos, before any is decoded.

    Attributes:
        paths: below the folder; labels: indices into names; digests: SHA-256 of each file.
    """

    folder: Path
    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    digests: tuple[str, ...]
    names: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


def list_folder(folder: str | Path) -> Listing:
    """Return what a folder holds, photos in the order of their content's hash.

    A photo that is in two classes, the same file byte by byte, has no right label: it is left out
    of both. Raises InputError for what is no folder, or one with photos of fewer than two classes.
    """
    folder = resolve_path(str(folder))
    if not folder.is_dir():
        raise InputError(f"dir: {folder} is not a folder; allowed: one sub-folder per class")
    left_out: list[LeftOut] = []
    classes = _classes(folder, left_out)
    found = [x for c in classes for x in _files(folder, c, left_out)]
    _check_no_parts(folder, {label.name for _, label in found})
    with_digest = list(_with_digests(folder, found, left_out))
    kept = list(_one_label(with_digest, left_out))
    names = tuple(sorted({name for *_, name in kept}, key=os.fsencode))
    if len(names) < 2:
        raise InputError(
            f"dir: {folder} holds photos of {_in_words(len(names))}{_such_as(left_out)}; allowed: "
            f"at least 2, one sub-folder per class, with files ending in {', '.join(EXTENSIONS)}"
        )
    kept.sort(key=lambda x: (x[0], os.fsencode(x[1])))
    lost = [LeftOut(_text(c), LOST) for c in classes if c.name not in names]
    return Listing(
        folder,
        tuple(path for _, path, _ in kept),
        tuple(names.index(name) for *_, name in kept),
        tuple(digest for digest, *_ in kept),
        tuple(map(readable, names)),
        (*lost, *(x for x in left_out if x.reason != EMPTY)),
    )


def _in_words(count: int) -> str:
    return f"{count or 'no'} class{'es' * (count > 1)}"


def _such_as(left_out: Sequence[LeftOut]) -> str:
    """How many are left out, and why the first of them is."""
    if not left_out:
        return ""
    return f"; left out: {len(left_out)}, such as {left_out[0].path}: {left_out[0].reason}"


def _with_digests(
    folder: Path, found: Sequence[tuple[Path, Path]], left_out: list[LeftOut]
) -> Iterator[tuple[str, Path, str]]:
    """(SHA-256, path, name of the class folder) of the files that may be read."""
    for path, label in found:
        try:
            with reading(folder / path), (folder / path).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except InputError:
            left_out.append(LeftOut(_text(path), "you may not read it"))
        else:
            yield digest, path, label.name


def _check_no_parts(folder: Path, names: Collection[str]) -> None:
    """Refuse folders that are parts of a data set. Raises InputError."""
    if len(names) > 1 and PARTS.issuperset(map(str.lower, names)):
        parts = sorted(names)
        raise InputError(
            f"dir: {folder} holds {' and '.join(parts)}, which are parts of a data set and no "
            f"classes; allowed: one sub-folder per class, such as {folder / parts[0]}"
        )


def _classes(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """The class folders, below `folder`; what lies beside them is left out."""
    entries = _entries(folder, Path(), left_out)
    left_out += [LeftOut(_text(p), "beside the class folders") for p in entries
                 if not (folder / p).is_dir()]  # fmt: skip
    return [path for path in entries if (folder / path).is_dir()]


def _entries(folder: Path, below: Path, left_out: list[LeftOut]) -> list[Path]:
    """What is in a folder but for hidden and system files, sorted; dead links are left out."""
    entries = []
    with reading(folder / below):
        for path in sorted((folder / below).iterdir(), key=lambda path: os.fsencode(path.name)):
            if path.name.startswith(".") or path.name.lower() in SYSTEM:
                continue
            if reason := dead_link(path):
                left_out.append(LeftOut(_text(below / path.name), reason))
            else:
                path.stat()  # of a folder that may be listed and not entered, it may not be asked
                entries.append(below / path.name)
    return entries


def _files(folder: Path, below: Path, left_out: list[LeftOut]) -> Iterator[tuple[Path, Path]]:
    """The photos of one class folder, and of folders in it, with the class folder."""
    seen, waiting, empty = set(), [below], True
    while waiting:
        place = waiting.pop()
        real = (folder / place).resolve()
        if real in seen:
            continue  # a link back to a folder that was read
        seen.add(real)
        try:
            entries = _entries(folder, place, left_out)
        except InputError:
            left_out.append(LeftOut(_text(place), "a folder that you may not read"))
            empty = False
            continue
        for path in entries:
            if (folder / path).is_dir():
                waiting.append(path)
            elif path.suffix.lower() in EXTENSIONS:
                empty = False
                yield path, below
            else:
                left_out.append(LeftOut(_text(path), f"{NO_PHOTO}: ends in {path.suffix!r}"))
    if empty:
        left_out.append(LeftOut(_text(below), EMPTY))


def photos_below(folder: Path) -> tuple[list[Path], list[LeftOut], list[LeftOut]]:
    """The photos in a folder and in all folders in it, sorted; what cannot be read; other files."""
    left_out: list[LeftOut] = []
    found = [folder / path for path, _ in _files(folder, Path(), left_out)]
    other = [x for x in left_out if x.reason.startswith(NO_PHOTO)]
    unread = [x for x in left_out if x not in other and x.reason != EMPTY]
    return sorted(found, key=os.fsencode), unread, other


def _one_label(
    found: Sequence[tuple[str, Path, str]], left_out: list[LeftOut]
) -> Iterator[tuple[str, Path, str]]:
    """Those of (digest, path, class) whose content is in one class only."""
    classes = defaultdict(set)
    for digest, _, name in found:
        classes[digest].add(name)
    for digest, path, name in found:
        if len(classes[digest]) == 1:
            yield digest, path, name
        else:
            others = ", ".join(sorted(readable(n) for n in classes[digest] - {name}))
            left_out.append(LeftOut(_text(path), f"the same file is in class {others}, too"))


def _text(path: Path) -> str:
    return readable(path.as_posix())


# ----------------------------------------------------------------------------- from files to pixels


def read_photos(listing: Listing, size: int) -> Photos:
    """Decode the photos of a listing; those that cannot be read are left out and named.

    Args:
        size: height and width in pixels that they are resized to.

    Raises InputError where they do not fit in memory, or too few can be read.
    """
    require_memory(
        f"dir: {len(listing.paths)} photos of {size} px", 3 * len(listing.paths) * size**2
    )
    left_out = list(listing.left_out)
    files, unread, found = [listing.folder / path for path in listing.paths], {}, {}
    depth = measure_depth(files, unread)
    for i, path in enumerate(files):
        try:
            if path in unread:
                raise unread[path]
            found[i] = _read(path, depth, size)
        except InputError as error:
            left_out.append(_unread(listing, i, error))
    return _photos(listing, found, left_out, depth)


def _read(path: Path, depth: Depth, size: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """A photo's pixels, resized, its perceptual hash, and the size that it has."""
    rgb = upright(path, depth)
    return shrunk(rgb, size), perceptual_hash(rgb), rgb.size


def seconds_to_read(listing: Listing) -> float:
    """Seconds that `read_photos` will take, by a few photos of the listing."""

    def read(path: Path) -> None:
        with suppress(InputError):
            _read(listing.folder / path, measure_depth([listing.folder / path]), 224)

    some = listing.paths[:: max(1, len(listing.paths) // TIMED)][:TIMED]
    read(some[0])  # the first one of a process loads the decoders
    start = time.perf_counter()
    for path in some:
        read(path)
    return (time.perf_counter() - start) / len(some) * len(listing.paths)


def _unread(listing: Listing, i: int, error: InputError) -> LeftOut:
    """The line of `lib.photos.folder` without its path and what is allowed."""
    path = readable(str(listing.folder / listing.paths[i]))
    reason = str(error).removeprefix(f"data: {path} ").rsplit("; allowed", 1)[0]
    return LeftOut(_text(listing.paths[i]), reason)


def perceptual_hash(rgb) -> np.ndarray:
    """The perceptual hash of a picture, bool (256,): the signs of its lowest frequencies."""
    return imagehash.phash(rgb, hash_size=HASH_SIZE).hash.ravel()


def _photos(listing: Listing, found: dict, left_out: list[LeftOut], depth: Depth) -> Photos:
    labels = np.array([listing.labels[i] for i in found], np.int64)
    there = np.unique(labels)
    if len(there) < 2:
        raise InputError(
            f"dir: {listing.folder} holds readable photos of {_in_words(len(there))}"
            f"{_such_as(left_out)}; allowed: at least 2"
        )
    lost = [LeftOut(name, LOST) for c, name in enumerate(listing.names) if c not in there]
    return Photos(
        listing.folder,
        tuple(_text(listing.paths[i]) for i in found),
        np.stack([pixels for pixels, *_ in found.values()]),
        np.searchsorted(there, labels),
        tuple(listing.names[c] for c in there),
        tuple(listing.digests[i] for i in found),
        np.stack([bits for _, bits, _ in found.values()]),
        np.array([size for *_, size in found.values()]),
        (*lost, *left_out),
        depth,
    )


# ------------------------------------------------------------------------------ what is twice there


def find_twins(photos: Photos, duplicates: str = "near") -> list[tuple[int, ...]]:
    """Indices of photos that are the same file or, unless `duplicates` is exact, nearly the same.

    Near: their perceptual hashes hardly differ. It is carried on: if A is near B and B near C, the
    three are one group.
    """
    first: dict[str, int] = {}
    pairs = [(first.setdefault(digest, i), i) for i, digest in enumerate(photos.digests)]
    if duplicates == "near":
        pairs += _near_pairs(photos.hashes)
    return [tuple(group) for group in together(len(photos), pairs) if len(group) > 1]


def together(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """So many indices, in groups that chains of pairs link; in the order of their first ones."""
    ends = np.array(list(pairs), int).reshape(-1, 2).T
    links = coo_array((np.ones(ends.shape[1]), tuple(ends)), (count, count))
    labels = connected_components(links, directed=False)[1]
    order = np.argsort(labels, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return sorted(group.tolist() for group in groups)


def _near_pairs(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (i, j), i < j, whose hashes differ in at most `NEAR` bits."""
    signs = np.where(hashes, 1, -1).astype(np.float32)
    least = signs.shape[1] - 2 * NEAR  # of a product of signs
    for i in range(len(signs)):
        for j in np.flatnonzero(signs[i + 1 :] @ signs[i] >= least):
            yield i, i + 1 + int(j)
