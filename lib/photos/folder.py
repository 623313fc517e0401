"""A folder of photos: what it holds, whether it changed, and its pixels in 8-bit RGB.

Files with 16 bits a channel often hold the 10, 12 or 14 bits of a sensor, unscaled. What white is,
is then taken from the whole folder: the least of 8, 10, 12, 14 and 16 bits that holds its largest
value, so that photos keep their brightness relative to each other. A PNG file that declares its
significant bits (sBIT) narrows the choice to these and 16; a TIFF file of 12 bits is always that.
TIFF's MaxSampleValue is statistics by TIFF's own rules, and is not used.
"""

import errno
import hashlib
import os
import re
import struct
import sys
import warnings
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError, features

from ..errors import InputError, first_line, readable

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
MAX_PIXELS = 100_000_000  # of one photo; more is taken for a decompression bomb
SHUFFLE_SEED = 0  # orders a folder's photos; fixed, so that slices do not move with Params.seed
# Libraries that Pillow decodes with; not zlib, which TensorFlow replaces if it is imported first.
CODECS = ("jpg", "libjpeg_turbo", "libtiff", "webp")

# ---------------------------------------------------------------------- what the folder holds


def list_photos(folder: Path) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    """Return the photos in one fixed mixed order, their labels, and the classes' names.

    Hidden files and files beside the class folders (a licence, say) are left alone. Names that are
    not UTF-8 are written with their bytes as ``\\xe9``.

    Returns the paths; int64 (N,), indices into the names; the names, sorted.
    Raises InputError for a folder that is not one sub-folder of photos per class.
    """
    with reading(folder):
        if not folder.is_dir():
            raise InputError(
                f"data: {folder} {dead_link(folder) or 'is not a folder'}; "
                "allowed: one sub-folder per class"
            )
        classes = [path for path in _entries(folder) if path.is_dir()]
    if len(classes) < 2:
        raise InputError(
            f"data: {folder} holds {len(classes)} class folders; allowed: at least 2, one per class"
        )
    by_class = [_photos_of_class(path) for path in classes]
    labels = np.repeat(np.arange(len(classes), dtype=np.int64), [len(p) for p in by_class])
    photos = [photo for photos in by_class for photo in photos]
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(photos))
    return [photos[i] for i in order], labels[order], tuple(readable(p.name) for p in classes)


def _photos_of_class(folder: Path) -> list[Path]:
    with reading(folder):
        photos = _entries(folder)
        strange = [p for p in photos if not p.is_file() or p.suffix.lower() not in EXTENSIONS]
    if not photos:
        raise InputError(f"data: class folder {folder} is empty; allowed: at least one photo")
    if strange:
        allowed = ", ".join(EXTENSIONS)
        raise InputError(f"data: {strange[0]} is not a photo; allowed: files ending in {allowed}")
    return photos


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder but for hidden files, in the same order in every locale.

    A link that leads nowhere is refused: it may have been a class or a photo.
    """
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in paths:
        if reason := dead_link(path):
            raise InputError(f"data: {path} {reason}; allowed: links to what is there")
    return sorted(paths, key=lambda path: os.fsencode(path.name))


def dead_link(path: Path) -> str:
    """Return how a link leads nowhere, or "" where the path is no such link."""
    if not path.is_symlink():
        return ""
    try:
        path.stat()
    except FileNotFoundError:
        return f"is a link to {os.readlink(path)}, which is not there"
    except OSError as error:
        if error.errno == errno.ELOOP:
            return f"is a link to {os.readlink(path)}, which leads back to it"
        raise
    return ""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Refuse what the system does not let us read: InputError, one line that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"data: {error.filename or path} cannot be read ({error.strerror or error}); "
            "allowed: folders and photos that you may read"
        ) from error


def fingerprint(folder: Path, photos: Sequence[Path]) -> str:
    """Return 16 hex digits that change with all that a photo's pixels or label depend on.

    These are every photo's name below the folder and its bytes (a time of change proves nothing:
    copies can keep it), the code of this module, and the versions of Pillow and its codecs.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes())
    digest.update(repr([PIL.__version__, *map(features.version, CODECS)]).encode())
    for path in photos:
        name = os.fsencode(path.relative_to(folder))
        with reading(path), path.open("rb") as file:
            digest.update(repr((name, hashlib.file_digest(file, "sha256").digest())).encode())
    return digest.hexdigest()[:16]


# --------------------------------------------------------------------------- from file to pixels


@dataclass(frozen=True)
class Depth:
    """How many bits of a folder's 16-bit files are used, by colours and by transparency.

    Attributes:
        largest: the largest value of a colour in these files; 0 where there are none.
        sensor: the largest of one file that just fills fewer bits, as a sensor's white; or 0.
    """

    colour: int = 16
    alpha: int = 16
    largest: int = 0
    sensor: int = 0

    def __str__(self) -> str:
        """Say where black to white is not 0 to 65,535, or may not be for all; else nothing."""
        if self.colour == 16 and self.sensor:
            return (
                f"16-bit files: white is 65,535 in all, though one ends at {self.sensor:,}, as "
                f"those of a sensor of {self.sensor.bit_length()} bits"
            )
        if self.colour == 16:
            return ""
        return f"16-bit files taken for {self.colour} bits, as no value is above {self.largest:,}"


def read_photos(photos: Sequence[Path], size: int) -> tuple[np.ndarray, Depth]:
    """Return the pixels of photos, uint8 (N, size, size, 3), and the depth of their 16-bit files.

    Raises InputError for a file that cannot be read as a photo; the line names it.
    """
    depth = measure_depth(photos)
    images = np.empty((len(photos), size, size, 3), np.uint8)
    for i, path in enumerate(photos):
        images[i] = read_photo(path, size, depth)
    return images, depth


def read_photo(path: Path, size: int, depth: Depth) -> np.ndarray:
    """Return a photo upright, in RGB and resized: uint8 (size, size, 3)."""
    return shrunk(upright(path, depth), size)


def upright(path: Path, depth: Depth) -> Image.Image:
    """Return a photo upright and in RGB; of an animation, the first picture."""
    with _opened(path) as photo:
        packing = _deep_packing(photo)
        turned = _to_8_bits(path, photo, depth) if packing else ImageOps.exif_transpose(photo)
        return _to_rgb(turned)


def shrunk(rgb: Image.Image, size: int) -> np.ndarray:
    """Return a picture's pixels, uint8 (size, size, 3).

    The resize is Pillow's, bilinear with antialiasing, because photos from a camera are many times
    larger than the result.
    """
    return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # checked just below
            # Opened by its path, Pillow 13.0 maps the raw strip of a TIFF before it turns it.
            with path.open("rb") as file, Image.open(file) as photo:
                _check_pixels(photo)
                yield photo
    except InputError:
        raise  # of the same file, opened twice
    except Exception as error:  # Pillow's decoders answer damaged files with errors of many kinds
        raise InputError(
            f"data: {path} cannot be read as a photo ({_reason(error)}); "
            f"allowed: whole images of 8 or 16 bits a channel, of at most {MAX_PIXELS} pixels"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image, or pixels of a kind that Pillow does not read"
    return first_line(error)


def _check_pixels(photo: Image.Image) -> None:
    width, height = photo.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels")


def _to_rgb(photo: Image.Image) -> Image.Image:
    """Return a photo of 8 bits a channel and of any mode in RGB; transparent parts become white."""
    if photo.mode in ("I", "F"):
        raise ValueError(f"pixels of 32 bits or with a sign, mode {photo.mode}")
    if photo.has_transparency_data:
        photo = photo.convert("RGBA")
        white = Image.new("RGBA", photo.size, "white")
        return Image.alpha_composite(white, photo).convert("RGB")
    return photo.convert("RGB")


# ---------------------------------------------------------------- files of 12 and 16 bits a channel

DEPTHS = (8, 10, 12, 14)  # bits of sensors whose values are kept in files of 16
# How Pillow names the channels in a file, how to unpack them, and the mode that they make.
LAYOUTS = {
    "I": ("I", "L"),
    "LA": ("RGBA", "LA"),  # as four bytes
    "RGB": ("RGB", "RGB"),
    "RGBX": ("RGBX", "RGB"),
    "RGBA": ("RGBA", "RGBA"),
    "RGBa": ("RGBA", "RGBa"),  # Pillow would divide by the transparency, in 8 bits
    "CMYK": ("CMYK", "CMYK"),
}
SWAPPED = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
TIFF_PHOTOMETRIC, TIFF_BITS, TIFF_PLANES = 262, 258, 284  # numbers of TIFF's tags
WHITE_IS_ZERO = 0


def measure_depth(
    photos: Sequence[Path], unread: MutableMapping[Path, InputError] | None = None
) -> Depth:
    """Return the depth that the largest values in all 16-bit files ask for.

    unread: takes the files that cannot be read; None: they raise InputError.
    """
    largest, declared, ends = {"colour": 0, "alpha": 0}, set(), {0}
    for path in photos:
        try:
            values, mode, bits = _deep_values(path)
        except InputError as error:
            if unread is None:
                raise
            unread[path] = error
            continue
        declared |= bits
        own = {"colour": 0, "alpha": 0}
        for letter, channel in zip(mode, np.moveaxis(values, -1, 0), strict=True):
            kind = "alpha" if letter in "Aa" else "colour"
            own[kind] = max(own[kind], int(channel.max()))
        largest = {kind: max(largest[kind], value) for kind, value in own.items()}
        ends.add(own["colour"])
    if not any(largest.values()):
        return Depth()
    bits = {kind: _bits(value, declared) for kind, value in largest.items() if value}
    sensor = max(ends & {0, *(2**depth - 1 for depth in DEPTHS)})
    return Depth(**bits, largest=largest["colour"], sensor=sensor)


def _deep_values(path: Path) -> tuple[np.ndarray, str, set[int]]:
    """Return the samples of a file of 16 bits, their mode and the bits that it declares.

    Of any other file there are no channels: ``(0, 0, 0)``, "".
    """
    with _opened(path) as photo:
        if _deep_packing(photo) in (None, "I;12"):
            return np.empty((0, 0, 0), np.uint16), "", set()
        declared = _declared_bits(path) if photo.format == "PNG" else set()
        return *_samples(path, photo), declared


def _bits(largest: int, declared: set[int]) -> int:
    """Return the least depth that holds a value; PNG wants values spread over all 16 bits."""
    return next(bits for bits in sorted({*(declared or DEPTHS), 16}) if largest < 2**bits)


def _declared_bits(path: Path) -> set[int]:
    """Return the numbers of significant bits that a PNG file's sBIT chunk declares."""
    with path.open("rb") as file:
        file.seek(8)  # the signature
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"sBIT":
                return set(file.read(length))
            if kind == b"IDAT":
                break
            file.seek(length + 4, os.SEEK_CUR)  # the chunk and its checksum
    return set()


def _deep_packing(photo: Image.Image) -> str | None:
    """Return Pillow's name for the packing of 12 or 16 bits a channel, such as RGB;16B, or None.

    To be asked before the photo is loaded.
    """
    if photo.format not in ("PNG", "TIFF") or photo.mode in ("I", "F"):
        return None
    if photo.format == "TIFF" and _has_deep_planes(photo):
        raise ValueError("colours of more than 8 bits in separate planes")
    args = photo.tile[0].args
    packing = args if isinstance(args, str) else args[0]
    return packing if re.fullmatch(r"\w+;1[26][BLNR]?", packing) else None


def _has_deep_planes(photo: Image.Image) -> bool:
    """Whether a TIFF keeps colours of over 8 bits apart: Pillow would take bytes for pixels."""
    planes, bits = photo.tag_v2.get(TIFF_PLANES), photo.tag_v2.get(TIFF_BITS, (1,))
    return planes == 2 and max(bits) > 8 and len(photo.getbands()) > 1


def _samples(path: Path, photo: Image.Image) -> tuple[np.ndarray, str]:
    """Return all bits of a photo, uint16 (h, w, channels), upright, and the channels' mode.

    Pillow keeps the high byte of a colour. Unpacked in the other byte order, it keeps the low one.
    """
    channels, _, order = _deep_packing(photo).partition(";")
    raw, mode = LAYOUTS[channels]
    if mode == "L":
        return np.asarray(ImageOps.exif_transpose(photo)).astype(np.uint16)[..., None], mode
    if mode == "LA":
        return _unpacked(path, raw).view(">u2").astype(np.uint16), mode
    high, low = (_unpacked(path, f"{raw};{o}") for o in (order, SWAPPED[order]))
    return high.astype(np.uint16) << 8 | low, mode


def _unpacked(path: Path, raw: str) -> np.ndarray:
    """Return a photo's bytes, upright, read as if they were packed in another way."""
    with _opened(path) as photo:
        photo.tile = [
            tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:]))
            for tile in photo.tile
        ]
        return np.array(ImageOps.exif_transpose(photo))


def _to_8_bits(path: Path, photo: Image.Image, depth: Depth) -> Image.Image:
    """Return a photo of 12 or 16 bits with 8 bits a channel, upright."""
    colour_bits = 12 if _deep_packing(photo) == "I;12" else depth.colour
    values, mode = _samples(path, photo)
    key = photo.info.get("transparency")  # a colour, in 16 bits
    opaque = None if key is None else (values != np.uint16(key)).any(axis=-1)
    if photo.format == "TIFF" and photo.tag_v2.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
        values = 2**colour_bits - 1 - values
    bits = [depth.alpha if letter in "Aa" else colour_bits for letter in mode]
    channels = [_scaled(values[..., i], b) for i, b in enumerate(bits)]
    image = Image.merge(mode, [Image.fromarray(channel) for channel in channels])
    if opaque is not None:
        image.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return image


def _scaled(values: np.ndarray, bits: int) -> np.ndarray:
    """Return values of so many bits as uint8, rounded; black stays 0, white becomes 255.

    Raises ValueError for larger values: the depth is that of other files.
    """
    if values.max(initial=0) >= 2**bits:
        raise ValueError(f"values up to {values.max():,}, above the {bits} bits of its like")
    table = np.rint(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    return table[values]
