"""Images and labels: tf_flowers, a folder of photos, a packed file or drawn ones; slices; a cache.

Whatever the source, the result is one uint8 array in a fixed order, and a slice in the notation of
TFDS (``train[:10%]``) means the same images in every run. Images are decoded and resized once and
kept in an ``.npz`` file keyed by source, content, code and size; TensorFlow is not needed then.
"""

import bisect
import hashlib
import inspect
import io
import itertools
import os
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lib.errors import first_line, readable
from lib.params import SPLIT_PATTERN, InputError, Params, resolve_path
from lib.photos import drawn as procedural
from lib.photos.folder import fingerprint, list_photos, read_photos, reading
from lib.room import require_disk, require_memory
from lib.whole import whole

TF_FLOWERS, TF_FLOWERS_VERSION = "tf_flowers", "3.0.1"
PACKED = ".npz"
LISTED_CLASSES = 20  # so many are named one by one


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, in a fixed order.

    Attributes:
        images: uint8 (N, H, W, 3), RGB, 0 to 255.
        labels: int64 (N,), indices into names.
        names: the classes' names.
        source: what the images are, in words.
        digest: first 16 hex digits of the SHA-256 of images, labels and names.
    """

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    source: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self.images, self.labels, self.names))

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, spec: str) -> np.ndarray:
        """Return the indices, int64, of the images in a slice such as ``train[:10%]``."""
        return resolve_split(spec, len(self))


def load_data(params: Params) -> Dataset:
    """Return the data that the parameters name, from the cache where they are there.

    Raises:
        InputError: data that are absent, damaged, or not what they should be; the line names the
            folder or file.
    """
    if params.data == "procedural_flowers":
        return _load_procedural(params)
    if params.data == TF_FLOWERS:
        return _load_tf_flowers(params)
    if params.data.endswith(PACKED):
        return _load_packed(params)
    return _load_folder(params)


def resolve_split(spec: str, n: int) -> np.ndarray:
    """Return the indices, int64, that a slice takes of n images, by the rules of TFDS.

    A bound is a number of images or a percentage, rounded to the closest number of images; a
    negative one counts from the end. A '%' at one bound holds for both.

    Raises:
        InputError: not such a slice, or a bound beyond the images.
    """
    match = SPLIT_PATTERN.fullmatch(spec)
    if match is None:
        raise InputError(f"split: {spec!r} is not allowed; allowed: train, train[:10%], train[5:9]")
    low, high = match["low"], match["high"]
    percent = "%" in spec
    start = 0 if low is None else _bound(low, n, percent)
    stop = n if high is None else _bound(high, n, percent)
    if max(abs(start), abs(stop)) > n:
        raise InputError(f"split: {spec!r} is not allowed; allowed: bounds within the {n} images")
    start, stop = (bound + n if bound < 0 else bound for bound in (start, stop))
    return np.arange(start, stop, dtype=np.int64)


def _bound(text: str, n: int, percent: bool) -> int:
    """Return a bound as a number of images; the arithmetic is TFDS' own, so that halves agree."""
    value = text.rstrip("%")
    return int(round(float(value) * n / 100.0)) if percent else int(value)


def check_splits(dataset: Dataset, params: Params) -> None:
    """Refuse slices that make results meaningless.

    Raises:
        InputError: a slice without images, a training slice that shares images with the evaluation
            slice, or a slice in which a class is missing; the line names the smallest that works.
    """
    evaluation = dataset.split(params.eval_split)
    for key in ("search_split", "final_split", "eval_split"):
        spec = getattr(params, key)
        indices = dataset.split(spec)
        where = f"profile {params.profile}: {key}: {spec!r} of {len(dataset)} images"
        missing = set(range(len(dataset.names))) - set(dataset.labels[indices].tolist())
        if len(indices) == 0:
            raise InputError(f"{where} is empty; {_allowed_slice(dataset, key, params)}")
        if missing:
            absent = ", ".join(dataset.names[label] for label in sorted(missing)[:LISTED_CLASSES])
            absent += f" and {len(missing) - LISTED_CLASSES} more" * (len(missing) > LISTED_CLASSES)
            raise InputError(f"{where} lacks {absent}; {_allowed_slice(dataset, key, params)}")
        if key != "eval_split" and len(np.intersect1d(indices, evaluation)):
            raise InputError(f"{where} overlaps eval_split {params.eval_split!r}; allowed: apart")


def _allowed_slice(dataset: Dataset, key: str, params: Params) -> str:
    """Return what is allowed, with the smallest slice like the given one that holds every class."""
    smallest = _smallest_slice(dataset, getattr(params, key))
    if smallest is None:
        return "allowed: a slice that holds every class"
    apart = key == "eval_split" or not len(
        np.intersect1d(dataset.split(smallest), dataset.split(params.eval_split))
    )
    beware = "" if apart else f" and an eval_split apart from it, unlike {params.eval_split!r}"
    return f"allowed: a slice that holds every class, such as {smallest}{beware}"


def _smallest_slice(dataset: Dataset, spec: str) -> str | None:
    """Return the smallest slice that begins (or ends, where only that is open) as `spec` does.

    In percent where `spec` is. None where no such slice holds every class.
    """
    match = SPLIT_PATTERN.fullmatch(spec)
    low, high, sign = match["low"] or "", match["high"] or "", "%" * ("%" in spec)
    most = 100 if sign else len(dataset)

    def longer(step: int) -> str:
        return f"train[{most - step}{sign}:]" if low and not high else f"train[{low}:{step}{sign}]"

    steps = range(most + 1)  # what a slice holds, a longer one holds too
    step = bisect.bisect_left(steps, True, key=lambda s: _holds_every_class(dataset, longer(s)))
    return longer(step) if step in steps else None


def _holds_every_class(dataset: Dataset, spec: str) -> bool:
    return len(np.unique(dataset.labels[dataset.split(spec)])) == len(dataset.names)


def _digest(images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256(f"{images.shape} {names}".encode())
    digest.update(np.ascontiguousarray(images))
    digest.update(np.ascontiguousarray(labels))
    return digest.hexdigest()[:16]


# -------------------------------------------------------------------------------- the classes


def describe_classes(dataset: Dataset) -> Iterator[str]:
    """Return lines that say how many classes and photos of each there are, and what looks wrong."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.names)).tolist()
    if len(counts) <= LISTED_CLASSES:
        each = ", ".join(f"{n} {name}" for n, name in zip(counts, dataset.names, strict=True))
    else:
        few, many = np.argmin(counts), np.argmax(counts)
        each = (
            f"from {counts[few]} ({dataset.names[few]}) to {counts[many]} ({dataset.names[many]})"
        )
    yield f"  {len(counts)} classes: {each}"
    for first, other in _look_alikes(dataset.names):
        spelt = "" if ascii(first) == repr(first) else f" ({first!a} and {other!a})"
        yield f"warning: classes {first!r} and {other!r} look alike{spelt}: are they one?"


def _look_alikes(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Return pairs of names that differ only in case, blanks, or in how Unicode spells them."""
    by_look = sorted(names, key=_look)
    for _, group in itertools.groupby(by_look, key=_look):
        first, *others = group
        yield from ((first, other) for other in others)


def _look(name: str) -> str:
    """Return a name without what the eye misses: case, blanks, invisible and compound letters."""
    seen = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return " ".join("".join(c for c in seen if unicodedata.category(c) != "Cf").split())


# ------------------------------------------------------------------------------------ the cache


class Arrays(NamedTuple):
    """What the cache keeps: images, labels and names as in Dataset, and a word on the files."""

    images: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    note: str = ""


def _dataset(arrays: Arrays, source: str) -> Dataset:
    """Return the dataset of arrays; what is to be said of the files is said of the source."""
    source = f"{source} ({arrays.note})" if arrays.note else source
    return Dataset(arrays.images, arrays.labels, arrays.names, source)


DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


def _cached(folder: Path, key: str, make: Callable[[], Arrays]) -> Arrays:
    """Return what `make` returns, from ``<folder>/<key>.npz`` where that file is sound.

    A cache that cannot be read or written costs time only: a warning says so.
    """
    path = folder / f"{key}.npz"
    try:
        return _read_cache(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # not made yet
    except InputError:
        raise  # no room for it
    except PermissionError as error:
        warnings.warn(f"{path} cannot be read ({error.strerror}): made again", stacklevel=2)
    except DAMAGE as error:
        warnings.warn(f"{path} is damaged ({first_line(error)}): made again", stacklevel=2)
    arrays = make()
    try:
        _write_cache(path, arrays)
    except OSError as error:
        reason = error.strerror or first_line(error)
        warnings.warn(f"{path} cannot be written ({reason}): not kept", stacklevel=2)
    return arrays


def _read_cache(path: Path) -> Arrays:
    """Read a cache file; the zip's checksums are verified on the way.

    Raises InputError where its images do not fit in memory.
    """
    with path.open("rb") as raw, zipfile.ZipFile(raw) as file:
        require_memory(f"data: the images in {path}", file.getinfo("images.npy").file_size)
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        images, labels, names = file["images"], file["labels"], file["names"]
        note = str(file["note"]) if "note" in file else ""
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError("its arrays do not belong together")
    return Arrays(images, labels.astype(np.int64), tuple(names.tolist()), note)


def _write_cache(path: Path, arrays: Arrays) -> None:
    with whole(path) as draft:
        np.savez(draft, **arrays._asdict() | {"names": np.array(arrays.names)})


# ------------------------------------------------------------------------------ the embedded set


def _load_procedural(params: Params) -> Dataset:
    """Draw the flowers; the key holds a hash of the drawing code, so that a change shows."""
    n_images, size, seed = params.n_images, params.image_size, params.seed
    code = hashlib.sha256(Path(procedural.__file__).read_bytes()).hexdigest()[:8]

    def make() -> Arrays:
        images, labels = procedural.procedural_flowers(n_images, size, seed)
        return Arrays(images, labels, procedural.CLASS_NAMES)

    require_memory(f"n_images: {n_images} of {size} px", 3 * n_images * size**2)
    key = f"procedural_flowers-{code}-{n_images}-seed{seed}-{size}"
    return _dataset(_cached(params.cache_dir, key, make), f"procedural_flowers, seed {seed}")


# ----------------------------------------------------------------------------------- tf_flowers


def _load_tf_flowers(params: Params) -> Dataset:
    """Return tf_flowers in the order of its records.

    A folder that the profile names has to hold it. Without one a cached copy will do, and then
    $TFDS_DATA_DIR; only where neither is given may TFDS download it to its default place.
    """
    if params.data_dir:
        folder, name = str(resolve_path(params.data_dir)), "data_dir"
        _require_tf_flowers(folder, name)
    else:
        given = os.environ.get("TFDS_DATA_DIR")
        folder, name = str(resolve_path(given)) if given else None, "TFDS_DATA_DIR"

    def make() -> Arrays:
        if folder is not None:
            _require_tf_flowers(folder, name)
        return _read_tf_flowers(folder, params)

    key = _tf_flowers_key(folder, name, params)
    source = f"{TF_FLOWERS} {TF_FLOWERS_VERSION} (TFDS)"
    return _dataset(_cached(params.cache_dir, key, make), source)


def at_hand(params: Params) -> bool:
    """Whether `load_data` would find the photos on this machine, without a download."""
    if params.data != TF_FLOWERS:
        return True
    given = params.data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    cached = params.cache_dir.glob(f"{_flowers_key('*', params.image_size)}.npz")
    return any(cached) or _holds_tf_flowers(str(resolve_path(given)))


def _prepared(folder: str) -> Path:
    return Path(folder) / TF_FLOWERS / TF_FLOWERS_VERSION


def _holds_tf_flowers(folder: str) -> bool:
    with reading(_prepared(folder)):
        return (_prepared(folder) / "dataset_info.json").is_file()


def _require_tf_flowers(folder: str, name: str) -> None:
    if not _holds_tf_flowers(folder):
        raise InputError(
            f"{name}: {folder!r} does not hold {TF_FLOWERS}/{TF_FLOWERS_VERSION} as TFDS prepares "
            f"it, and nothing is downloaded into a given folder; allowed: a folder that holds it, "
            f"or no {name} to download it to TFDS' default place"
        )


def _tf_flowers_key(folder: str | None, name: str, params: Params) -> str:
    """Return the cache's key: the files at hand, or the only copy that is cached."""
    if folder is not None and _holds_tf_flowers(folder):
        return _flowers_key(_contents(_prepared(folder)), params.image_size)
    pattern = _flowers_key("*", params.image_size)
    copies = sorted(path.stem for path in params.cache_dir.glob(f"{pattern}{PACKED}"))
    if len(copies) > 1:
        raise InputError(
            f"data: {params.cache_dir} holds {len(copies)} different copies of {TF_FLOWERS}, "
            f"{', '.join(copies)}; allowed: one, or data_dir to name the one that is meant"
        )
    if copies:
        return copies[0]
    if folder is not None:
        _require_tf_flowers(folder, name)
    return _flowers_key(_contents(Path(_tf_flowers_builder(None).data_dir)), params.image_size)


def _flowers_key(contents: str, size: int) -> str:
    """Return a key of what decides the pixels: the files, our code, TensorFlow, the size."""
    code = hashlib.sha256(inspect.getsource(_decode_records).encode()).hexdigest()[:8]
    try:
        tensorflow = version("tensorflow")
    except PackageNotFoundError:  # nothing can be decoded here: whoever did it will do
        tensorflow = "*" if contents == "*" else "unknown"
    return f"{TF_FLOWERS}-{TF_FLOWERS_VERSION}-{code}-tf{tensorflow}-{contents}-{size}"


def _contents(folder: Path) -> str:
    """Return 8 hex digits of all files of a folder, names and bytes."""
    digest = hashlib.sha256()
    with reading(folder):
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            digest.update(repr((path.name, content)).encode())
    return digest.hexdigest()[:8]


def _read_tf_flowers(folder: str | None, params: Params) -> Arrays:
    """Decode and resize tf_flowers; downloads it only where `folder` is None and it is absent."""
    builder, size = _tf_flowers_builder(folder), params.image_size
    try:
        values = 3 * builder.info.splits["train"].num_examples * size**2
        require_memory(f"data: {TF_FLOWERS} of {size} px", values)
        require_disk(f"data: {TF_FLOWERS} of {size} px", values, params.cache_dir)
        images, labels = _decode_records(builder, size)
    except InputError:
        raise  # no room for it
    except Exception as error:  # TensorFlow's own errors derive from Exception only
        raise InputError(
            f"{TF_FLOWERS}: {builder.data_dir} cannot be read: {first_line(error)}; "
            "allowed: an undamaged copy, made again by TFDS"
        ) from error
    return Arrays(images, labels, tuple(builder.info.features["label"].names))


def _tf_flowers_builder(folder: str | None):
    """Return the TFDS builder of tf_flowers, with the data in place."""
    import tensorflow_datasets as tfds  # here, so that training works without TensorFlow

    _keep_tensorflow_off_the_gpu()
    try:
        builder = tfds.builder(f"{TF_FLOWERS}:{TF_FLOWERS_VERSION}", data_dir=folder)
        if folder is None and not builder.is_prepared():
            _check_network(builder)
            builder.download_and_prepare()
    except Exception as error:  # the network fails in many ways, TFDS adds its own
        raise InputError(
            f"{TF_FLOWERS}: cannot be had through TFDS: {first_line(error)}; "
            "allowed: a network, or data_dir or TFDS_DATA_DIR with a folder that holds it"
        ) from error
    return builder


def _check_network(builder) -> None:
    """Fail at once where there is no network: TFDS would try again for minutes."""
    import requests

    for url in builder.url_infos or ():
        requests.head(url, timeout=30)  # seconds


def _keep_tensorflow_off_the_gpu() -> None:
    """Leave the GPU's memory to Keras where its backend is not TensorFlow."""
    import keras  # it knows the backend also where Keras' own file names it

    if keras.backend.backend() != "tensorflow":
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")


def _decode_records(builder, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 (N, size, size, 3) and labels int64 (N,) in the order of the records.

    Files are read one after the other: TFDS' default interleaves them, and then the first images
    would not be those of ``train[:10%]``. The resize is `tf.image.resize` with its defaults,
    bilinear without antialiasing, as code written with TensorFlow would do.
    """
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def small(example):
        pixels = tf.image.resize(example["image"], (size, size), method="bilinear")
        return tf.cast(tf.round(pixels), tf.uint8), example["label"]

    n_images = builder.info.splits["train"].num_examples
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    records = builder.as_dataset(split="train", shuffle_files=False, read_config=in_order)
    images = np.empty((n_images, size, size, 3), np.uint8)
    labels = np.empty(n_images, np.int64)
    count = 0
    for image, label in records.map(small, num_parallel_calls=2).as_numpy_iterator():
        images[count], labels[count] = image, label
        count += 1
    if count != n_images:
        raise ValueError(f"it holds {count} images of {n_images}")
    return images, labels


# ------------------------------------------------------------------------------- one packed file


def pack(dataset: Dataset, path: Path) -> None:
    """Write images, labels and names as one file, for a machine without the photos.

    Each image is a lossless WebP file: half the bytes of its pixels.
    """
    photos = [_as_webp(image) for image in dataset.images]
    np.savez(
        path,
        photos=np.frombuffer(b"".join(photos), np.uint8),
        ends=np.cumsum([len(photo) for photo in photos]),
        shape=dataset.images.shape,
        labels=dataset.labels,
        names=np.array(dataset.names),
        source=dataset.source,
    )


def _as_webp(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", lossless=True, quality=0, method=2)
    return file.getvalue()


def _unpack(path: Path, file: np.lib.npyio.NpzFile) -> Arrays:
    """Return what `pack` wrote, the note being the source.

    Raises InputError where the images do not fit in memory.
    """
    shape, ends, photos = file["shape"], file["ends"], file["photos"]
    require_memory(f"data: the images in {path}", int(np.prod(shape)))
    images = np.empty(shape, np.uint8)
    for i, photo in enumerate(np.split(photos, ends[:-1])):
        images[i] = np.asarray(Image.open(io.BytesIO(photo.tobytes())).convert("RGB"))
    labels = file["labels"].astype(np.int64)
    if len(ends) != len(images) or labels.shape != images.shape[:1]:
        raise ValueError("its arrays do not belong together")
    return Arrays(images, labels, tuple(file["names"].tolist()), str(file["source"]))


def _load_packed(params: Params) -> Dataset:
    """Return what `pack` wrote; its digest is that of the data it was made from."""
    path = resolve_path(params.data)
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            images, labels, names, source = _unpack(path, file)
    except InputError:
        raise  # no room for it
    except DAMAGE as error:
        raise InputError(
            f"data: {path} cannot be read ({first_line(error)}); "
            "allowed: a file as `make bundle` packs it"
        ) from error
    if images.shape[1:] != (params.image_size, params.image_size, 3):
        raise InputError(
            f"image_size: {params.image_size} does not fit {path}, packed at {images.shape[1]} px; "
            "allowed: that size"
        )
    return Dataset(images, labels, names, source)


# ----------------------------------------------------------------------------- a folder of photos


def _load_folder(params: Params) -> Dataset:
    """Return the photos of a folder with one sub-folder per class, in one fixed mixed order.

    The cache is keyed by the photos' names and bytes, and by what decodes them.
    """
    folder, size = resolve_path(params.data), params.image_size
    photos, labels, names = list_photos(folder)
    subject, values = f"data: {len(photos)} photos of {size} px", 3 * len(photos) * size**2
    require_memory(subject, values)

    def make() -> Arrays:
        require_disk(subject, values, params.cache_dir)
        images, depth = read_photos(photos, size)
        return Arrays(images, labels, names, str(depth))

    key = f"folder-{fingerprint(folder, photos)}-{size}"
    return _dataset(_cached(params.cache_dir, key, make), f"photos in {readable(folder.name)}")
