"""The data sets of the study, each a fixed number of photos in a fixed order."""

import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from ..params import InputError, Params, resolve_path
from ..photos import drawn
from ..photos.dataset import TF_FLOWERS, TF_FLOWERS_VERSION, Dataset, load_data

SEED = 0  # of what is drawn: seeds of runs do not change the photos

Draw = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]

DRAWN: dict[str, tuple[Draw, tuple[str, ...]]] = {
    "digits": (drawn.digits, drawn.DIGIT_NAMES),
    "textures": (drawn.source_task, drawn.SOURCE_NAMES),
    "drawn": (drawn.procedural_flowers, drawn.CLASS_NAMES),
}
FLOWERS = "flowers"  # tf_flowers, in the order of its records


def load_photos(source: str, count: int, size: int, data_dir: str | None) -> Dataset:
    """The first `count` photos of a data set, of `size` pixels.

    Args:
        source: flowers, or a name in `DRAWN`.
        data_dir: where TFDS keeps tf_flowers; see `lib.params`.

    Raises InputError.
    """
    if source != FLOWERS:
        draw, names = DRAWN[source]
        return Dataset(*draw(count, size, SEED), names, f"{source}, drawn, seed {SEED}")
    params = Params(profile="study", data=TF_FLOWERS, data_dir=data_dir, image_size=size)
    every = load_data(params)
    return Dataset(every.images[:count], every.labels[:count], every.names, every.source)


def write_photos(
    folder: Path, source: str, given: int, others: int, size: int, data_dir: str | None
) -> Path:
    """The first photos of a data set as files in ``given``, the next in ``others``; once.

    Each is a folder a class. Photos of tf_flowers are written as they are, drawn ones with `size`
    pixels.

    Raises InputError where they cannot be had.
    """
    if not (folder / ".whole").is_file():
        some = _flowers(data_dir) if source == FLOWERS else _drawn(source, given + others, size)
        for i, (name, content) in enumerate(islice(some, given + others)):
            path = folder / ("given" if i < given else "others") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder / ".whole").touch()
    return folder


def _flowers(data_dir: str | None) -> Iterator[tuple[str, bytes]]:
    """Name and content of each photo of tf_flowers."""
    import tensorflow_datasets as tfds

    place = str(resolve_path(data_dir)) if data_dir else None
    builder = tfds.builder(f"{TF_FLOWERS}:{TF_FLOWERS_VERSION}", data_dir=place)
    if not builder.is_prepared():
        raise InputError(
            f"data_dir: {data_dir!r} does not hold {TF_FLOWERS}/{TF_FLOWERS_VERSION}; allowed: "
            "a folder that does, as TFDS prepares it"
        )
    names = builder.info.features["label"].names
    encoded = {"image": tfds.decode.SkipDecoding()}
    in_order = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    photos = builder.as_dataset(
        split="train", decoders=encoded, shuffle_files=False, read_config=in_order
    )
    for i, photo in enumerate(photos.as_numpy_iterator()):
        yield f"{names[photo['label']]}/{i:04}.jpg", photo["image"]


def _drawn(source: str, count: int, size: int) -> Iterator[tuple[str, bytes]]:
    """Name and content of each drawn photo."""
    draw, names = DRAWN[source]
    images, labels = draw(count, size, SEED)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png")
        yield f"{names[label]}/{i:04}.png", file.getvalue()
