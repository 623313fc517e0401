"""Images and labels: tf_flowers, a folder of photos, a packed file or drawn ones; slices; a cache.

Whatever the source, the result is one uint8 array in a fixed order, and a slice in the notation of
TFDS (``train[:10%]``) means the same images in every run. Images are decoded and resized once and
kept in an ``.npz`` file keyed by source and size; after that neither TensorFlow nor the photos are
needed.
"""

import hashlib
import os
import uuid
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lib import procedural
from lib.params import SPLIT_PATTERN, InputError, Params, resolve_path

TF_FLOWERS, TF_FLOWERS_VERSION = "tf_flowers", "3.0.1"
PACKED = ".npz"
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_PIXELS = 100_000_000  # of one photo; more is taken for a decompression bomb
SHUFFLE_SEED = 0  # orders a folder's photos; fixed, so that slices do not move with Params.seed


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
            slice, or a slice in which a class is missing.
    """
    evaluation = dataset.split(params.eval_split)
    for key in ("search_split", "final_split", "eval_split"):
        spec = getattr(params, key)
        indices = dataset.split(spec)
        where = f"profile {params.profile}: {key}: {spec!r} of {len(dataset)} images"
        missing = set(range(len(dataset.names))) - set(dataset.labels[indices].tolist())
        if len(indices) == 0:
            raise InputError(f"{where} is empty; allowed: a slice that holds every class")
        if missing:
            absent = ", ".join(dataset.names[label] for label in sorted(missing))
            raise InputError(f"{where} lacks {absent}; allowed: a slice that holds every class")
        if key != "eval_split" and len(np.intersect1d(indices, evaluation)):
            raise InputError(f"{where} overlaps eval_split {params.eval_split!r}; allowed: apart")


def _digest(images: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> str:
    digest = hashlib.sha256(f"{images.shape} {names}".encode())
    digest.update(np.ascontiguousarray(images))
    digest.update(np.ascontiguousarray(labels))
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------------ the cache

Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...]]  # images, labels, names


def _cached(folder: Path, key: str, make: Callable[[], Arrays]) -> Arrays:
    """Return what `make` returns, from ``<folder>/<key>.npz`` where that file is sound."""
    path = folder / f"{key}.npz"
    if path.exists():
        try:
            return _read_cache(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            warnings.warn(f"{path} is damaged ({_first_line(error)}): made again", stacklevel=2)
    arrays = make()
    _write_cache(path, arrays)
    return arrays


def _read_cache(path: Path) -> Arrays:
    """Read a cache file; the zip's checksums are verified on the way."""
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        images, labels, names = file["images"], file["labels"], file["names"]
    if images.dtype != np.uint8 or images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError("its arrays do not belong together")
    return images, labels.astype(np.int64), tuple(names.tolist())


def _write_cache(path: Path, arrays: Arrays) -> None:
    """Write under a temporary name and rename: a file under its own name is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}-{uuid.uuid4().hex}.npz")
    try:
        np.savez(draft, images=arrays[0], labels=arrays[1], names=np.array(arrays[2]))
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    """Return an error's first line, or its kind where it has none; never more than one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


# ------------------------------------------------------------------------------ the embedded set


def _load_procedural(params: Params) -> Dataset:
    """Draw the flowers; the key holds a hash of the drawing code, so that a change shows."""
    n_images, size, seed = params.n_images, params.image_size, params.seed
    code = hashlib.sha256(Path(procedural.__file__).read_bytes()).hexdigest()[:8]

    def make() -> Arrays:
        return *procedural.procedural_flowers(n_images, size, seed), procedural.CLASS_NAMES

    key = f"procedural_flowers-{code}-{n_images}-seed{seed}-{size}"
    return Dataset(*_cached(params.cache_dir, key, make), source=f"procedural_flowers, seed {seed}")


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
        folder, name = os.environ.get("TFDS_DATA_DIR") or None, "TFDS_DATA_DIR"

    def make() -> Arrays:
        if folder is not None:
            _require_tf_flowers(folder, name)
        return _read_tf_flowers(folder, params.image_size)

    key = f"{TF_FLOWERS}-{TF_FLOWERS_VERSION}-{params.image_size}"
    return Dataset(
        *_cached(params.cache_dir, key, make), source=f"{TF_FLOWERS} {TF_FLOWERS_VERSION} (TFDS)"
    )


def _require_tf_flowers(folder: str, name: str) -> None:
    prepared = Path(folder).expanduser() / TF_FLOWERS / TF_FLOWERS_VERSION
    if not (prepared / "dataset_info.json").is_file():
        raise InputError(
            f"{name}: {folder!r} does not hold {TF_FLOWERS}/{TF_FLOWERS_VERSION} as TFDS prepares "
            f"it, and nothing is downloaded into a given folder; allowed: a folder that holds it, "
            f"or no {name} to download it to TFDS' default place"
        )


def _read_tf_flowers(folder: str | None, size: int) -> Arrays:
    """Decode and resize tf_flowers; downloads it only where `folder` is None and it is absent."""
    builder = _tf_flowers_builder(folder)
    try:
        images, labels = _decode_records(builder, size)
    except Exception as error:  # TensorFlow's own errors derive from Exception only
        raise InputError(
            f"{TF_FLOWERS}: {builder.data_dir} cannot be read: {_first_line(error)}; "
            "allowed: an undamaged copy, made again by TFDS"
        ) from error
    return images, labels, tuple(builder.info.features["label"].names)


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
            f"{TF_FLOWERS}: cannot be had through TFDS: {_first_line(error)}; "
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
    """Write images, labels and names as one compressed file, for a machine without the photos."""
    arrays = {"images": dataset.images, "labels": dataset.labels, "names": np.array(dataset.names)}
    np.savez_compressed(path, **arrays, source=dataset.source)


def _load_packed(params: Params) -> Dataset:
    """Return what `pack` wrote; its digest is that of the data it was made from."""
    path = resolve_path(params.data)
    try:
        images, labels, names = _read_cache(path)
        with np.load(path, allow_pickle=False) as file:
            source = str(file["source"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"data: {path} cannot be read ({_first_line(error)}); "
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

    The cache is keyed by every photo's name, size and time of change.
    """
    folder = resolve_path(params.data)
    photos, labels, names = _list_photos(folder)
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(photos))
    photos, labels = [photos[i] for i in order], labels[order]
    stats = [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in photos]
    key = hashlib.sha256(repr((str(folder), stats)).encode()).hexdigest()[:16]

    def make() -> Arrays:
        images = np.empty((len(photos), params.image_size, params.image_size, 3), np.uint8)
        for i, photo in enumerate(photos):
            images[i] = _read_photo(photo, params.image_size)
        return images, labels, names

    arrays = _cached(params.cache_dir, f"folder-{key}-{params.image_size}", make)
    return Dataset(*arrays, source=f"photos in {folder.name}")


def _list_photos(folder: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Return the photos sorted by class and name, their labels and the classes' names.

    Hidden files and files beside the class folders (a licence, say) are left alone.
    """
    if not folder.is_dir():
        raise InputError(f"data: {folder} is not a folder; allowed: one sub-folder per class")
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        raise InputError(
            f"data: {folder} holds {len(classes)} class folders; allowed: at least 2, one per class"
        )
    by_class = [_photos_of_class(path) for path in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(p) for p in by_class])
    return (
        [photo for photos in by_class for photo in photos],
        labels,
        tuple(p.name for p in classes),
    )


def _photos_of_class(folder: Path) -> list[Path]:
    photos = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    if not photos:
        raise InputError(f"data: class folder {folder} is empty; allowed: at least one photo")
    for path in photos:
        if not path.is_file() or path.suffix.lower() not in EXTENSIONS:
            allowed = ", ".join(EXTENSIONS)
            raise InputError(f"data: {path} is not a photo; allowed: files ending in {allowed}")
    return photos


def _read_photo(path: Path, size: int) -> np.ndarray:
    """Return a photo upright, in RGB and resized: uint8 (size, size, 3).

    The resize is Pillow's, bilinear with antialiasing, because photos from a camera are many times
    larger than the result. Only the first picture of an animation is used.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked just below
            with Image.open(path) as photo:
                _check_pixels(photo)
                rgb = _to_rgb(ImageOps.exif_transpose(photo))
    except Exception as error:  # Pillow's decoders answer damaged files with errors of many kinds
        reason = "no image" if isinstance(error, UnidentifiedImageError) else _first_line(error)
        raise InputError(
            f"data: {path} cannot be read as a photo ({reason}); "
            f"allowed: whole images of at most {MAX_PIXELS} pixels"
        ) from error
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR))


def _check_pixels(photo: Image.Image) -> None:
    width, height = photo.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels")


def _to_rgb(photo: Image.Image) -> Image.Image:
    """Return a photo of any mode in RGB; transparent parts become white."""
    if photo.mode.startswith("I;16"):  # gray with 16 bits: convert() would clip, not scale
        high_bytes = np.asarray(photo) >> 8
        return Image.fromarray(high_bytes.astype(np.uint8)).convert("RGB")
    if photo.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits, mode {photo.mode}")
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        white = Image.new("RGBA", photo.size, "white")
        return Image.alpha_composite(white, photo).convert("RGB")
    return photo.convert("RGB")
