"""lib.photos.folder: files of 12 and 16 bits, what counts as a change, links, names and rights."""

import io
import os
import re
import struct
import zlib

import numpy as np
import PIL
import pytest
from PIL import Image

from lib.params import InputError, Params
from lib.photos import folder as photos
from lib.photos.dataset import Dataset, describe_classes, load_data

WHITE = 4095  # of twelve bits


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """A cache folder of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("BLOCKWISE_CACHE", str(folder))
    return folder


def load(folder, **values):
    return load_data(Params("mine", data=str(folder), image_size=32, weights="none", **values))


def refusal(folder):
    with pytest.raises(InputError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------ files that Pillow cannot write


def png(values, bits=None, key=None):
    """A PNG file of values, uint16 (h, w, channels), with an sBIT and a tRNS chunk if asked for."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    chunks += [(b"sBIT", bytes([bits] * channels))] if bits else []
    chunks += [(b"tRNS", struct.pack(f">{channels}H", *key))] if key else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d))
              for n, d in chunks)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiff(values, photometric, order="<", packed=False, extra=(), planes=1, bits=16, tags=()):
    """A TIFF file of values, uint16 (h, w, channels)."""
    height, width, channels = values.shape
    if bits == 12:
        text = "".join(f"{value:012b}" for value in values.ravel())
        data = int(text, 2).to_bytes(len(text) // 8, "big")
    else:
        in_order = np.moveaxis(values, -1, 0) if planes == 2 else values
        data = np.ascontiguousarray(in_order).astype(f"{order}u2").tobytes()
    size = len(data) // (channels if planes == 2 else 1)
    strips = [data[i : i + size] for i in range(0, len(data), size)]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    places = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    body = b"".join(strips) + b"\0" * (sum(map(len, strips)) % 2)
    numbers = {256: [width], 257: [height], 258: [bits] * channels, 259: [8 if packed else 1],
               262: [photometric], 273: places, 277: [channels], 278: [height],
               279: list(map(len, strips)), 284: [planes], **dict(tags)}  # fmt: skip
    numbers |= {338: list(extra)} if extra else {}
    start, head, tail = 8 + len(body), struct.pack(f"{order}H", len(numbers)), b""
    after = start + 2 + 12 * len(numbers) + 4
    for tag, found in sorted(numbers.items()):
        text = struct.pack(f"{order}{len(found)}I", *found)
        place = text if len(found) == 1 else struct.pack(f"{order}I", after + len(tail))
        tail += text if len(found) > 1 else b""
        head += struct.pack(f"{order}HHI", tag, 4, len(found)) + place
    first = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, start)
    return first + body + head + b"\0\0\0\0" + tail


def flat(*colour):
    return np.full((8, 8, len(colour)), colour, np.uint16)


def save(folder, **files):
    """Write files given as bytes, values or colours, named class_number; returns the folder."""
    for name, content in files.items():
        label, number = name.split("_")
        ending = "png" if content.startswith(b"\x89PNG") else "tif"
        path = folder / label / f"{number}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def pixels(folder, *contents):
    """The middle pixel of each file, read as one folder; the last one is repeated as a class."""
    files = {f"a_{i}": content for i, content in enumerate(contents)}
    save(folder, **files, b_0=contents[-1])
    paths = [next((folder / "a").glob(f"{i}.*")) for i in range(len(contents))]
    depth = photos.measure_depth(paths)
    return [tuple(photos.read_photo(path, 8, depth)[4, 4].tolist()) for path in paths]


# ---------------------------------------------------------------------------------- 16-bit files


def test_the_depth_of_what_no_file_has_is_not_narrowed(tmp_path):
    """Photos without transparency say nothing of that of others."""
    save(tmp_path, a_0=png(flat(4000)), b_0=png(flat(300)))
    depth = photos.measure_depth([*tmp_path.rglob("*.png")])
    assert (depth.colour, depth.alpha, depth.largest) == (12, 16, 4000)


@pytest.mark.parametrize(("largest", "bits"), [
    (255, 8), (256, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 16),
    (65535, 16),
])  # fmt: skip
def test_the_depth_is_the_least_that_holds_the_largest_value(tmp_path, largest, bits):
    dark = largest // 3
    found = pixels(tmp_path, png(flat(dark)), png(flat(largest)))
    expected = [round(value * 255 / (2**bits - 1)) for value in (dark, largest)]
    assert found == [(value,) * 3 for value in expected]


def test_brightness_is_kept_from_photo_to_photo_and_class_to_class(tmp_path):
    save(tmp_path, bright_0=png(flat(WHITE)), dark_0=tiff(flat(1000), 1), dark_1=png(flat(0)))
    dataset = load(tmp_path)
    found = sorted((dataset.names[x], i[0, 0, 0]) for x, i in zip(dataset.labels, dataset.images,
                                                                  strict=True))  # fmt: skip
    assert found == [("bright", 255), ("dark", 0), ("dark", 62)]
    for again in (dataset, load(tmp_path)):  # the second from the cache
        assert "16-bit files taken for 12 bits, as no value is above 4,095" in again.source


def test_nothing_is_said_of_files_that_use_all_16_bits(tmp_path):
    save(tmp_path, a_0=png(flat(40_000)), b_0=png(flat(100)))
    assert load(tmp_path).source == f"photos in {tmp_path.name}"


@pytest.mark.parametrize(("largest", "declared", "white"), [
    (4000, 12, 4095),  # unscaled, against PNG's rule, as many cameras' programs write
    (5000, 12, 65535),  # spread over 16 bits, as PNG wants: a dark folder
    (65520, 12, 65535),
    (5000, None, 16383),
    (5000, 16, 65535),
    (700, 11, 2047),
])  # fmt: skip
def test_png_may_declare_its_significant_bits(tmp_path, largest, declared, white):
    found = pixels(tmp_path, png(flat(largest // 2), declared), png(flat(largest), declared))
    assert found == [(round(v * 255 / white),) * 3 for v in (largest // 2, largest)]


RGB = (4095, 1365, 273)  # 255, 85, 17 of 255
SCALED = (255, 85, 17)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("values", "photometric", "extra", "expected"), [
    (RGB, 2, (), SCALED),
    ((*RGB, WHITE), 2, (2,), SCALED),
    ((*RGB, 0), 2, (2,), (255, 255, 255)),
    ((*RGB, 77), 2, (0,), SCALED),  # a fourth channel without a meaning
    ((2048, 683, 0, 2048), 2, (1,), (255, 170, 127)),  # colours times transparency, on white
    ((0, 4095, 4095, 0), 5, (), (255, 0, 0)),
    ((1365,), 1, (), (85, 85, 85)),
])  # fmt: skip
def test_twelve_bits_in_a_tiff_file(tmp_path, order, packed, values, photometric, extra, expected):
    bright = tiff(np.full((8, 8, len(values)), WHITE, np.uint16), photometric, extra=extra)
    found, _ = pixels(tmp_path, tiff(flat(*values), photometric, order, packed, extra), bright)
    assert np.abs(np.subtract(found, expected)).max() <= 1, found


@pytest.mark.parametrize(("values", "expected"), [
    (RGB, SCALED), ((*RGB, WHITE), SCALED), ((*RGB, 0), (255, 255, 255)),
    ((1365, WHITE), (85, 85, 85)), ((1365, 0), (255, 255, 255)), ((1365,), (85, 85, 85)),
])  # fmt: skip
def test_twelve_bits_in_a_png_file(tmp_path, values, expected):
    bright = png(np.full((8, 8, len(values)), WHITE, np.uint16))
    assert pixels(tmp_path, png(flat(*values)), bright)[0] == expected


def test_all_sixteen_bits_of_a_colour_count(tmp_path):
    """Pillow's high byte alone would give 16, 16, 15."""
    assert pixels(tmp_path, png(flat(4224, 4223, 3970)), png(flat(*[65535] * 3)))[0] == (16, 16, 15)
    found = pixels(tmp_path / "dark", png(flat(200, 100, 50)), png(flat(255, 0, 0)))
    assert found == [(200, 100, 50), (255, 0, 0)]


@pytest.mark.parametrize("colour", [(3000,), (3000, 2000, 1000)])
def test_a_colour_that_png_calls_transparent_is_white(tmp_path, colour):
    other = tuple(value + 1 for value in colour)  # the same in 8 bits
    found = pixels(tmp_path, png(flat(*colour), key=colour), png(flat(*other), key=colour),
                   png(flat(*[WHITE] * len(colour))))  # fmt: skip
    assert found[0] == (255, 255, 255)
    assert found[1] == tuple(round(v * 255 / 4095) for v in (other * 3)[:3])


def test_where_white_is_zero_it_stays_white(tmp_path):
    found = pixels(tmp_path, tiff(flat(0), 0), tiff(flat(WHITE), 0), tiff(flat(1365), 0))
    assert found == [(255,) * 3, (0,) * 3, (170,) * 3]


@pytest.mark.parametrize("packed", [False, True])
def test_a_tiff_file_of_twelve_bits_is_of_twelve_bits(tmp_path, packed):
    files = [tiff(flat(value), 1, bits=12, packed=packed) for value in (1365, 10)]
    found = pixels(tmp_path, *files, png(flat(65535)))  # whatever the others are
    assert found == [(85,) * 3, (1,) * 3, (255,) * 3]


def test_a_deep_photo_is_turned_upright(tmp_path):
    values = np.zeros((8, 8, 3), np.uint16)
    values[:4] = WHITE  # white above, at the right once turned by 90 degrees
    save(tmp_path, a_0=tiff(values, 2, tags={274: [6]}), b_0=png(flat(WHITE)))
    images = load(tmp_path).images
    turned = images[np.argmin(images.mean(axis=(1, 2, 3)))]
    assert turned[:, 20:].min() > 200 and turned[:, :12].max() < 50


TURNED = {  # what an orientation asks for, of an array
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_photo_of_any_mode_is_turned_as_it_says(tmp_path, mode):
    """Also where a file holds bare pixels, which Pillow maps instead of reading them."""
    bands = {"RGB": 3, "RGBA": 4, "CMYK": 4}.get(mode, 1)
    kind = np.uint16 if mode == "I;16" else np.uint8
    values = np.random.default_rng(0).integers(0, 256, (4, 6, bands), kind).squeeze()
    raw = "I;16" if mode == "I;16" else mode
    picture = Image.frombytes(raw, (6, 4), values.tobytes())
    if mode == "P":
        picture.putpalette(np.arange(768, dtype=np.uint32).astype(np.uint8).tobytes())
    found = {}
    for orientation in TURNED:
        path = tmp_path / f"{orientation}.tif"
        picture.save(path, tiffinfo={274: orientation})
        found[orientation] = np.asarray(photos.upright(path, photos.measure_depth([path])))
    assert found[1].shape == (4, 6, 3) and len(np.unique(found[1])) > 4
    for orientation, turn in TURNED.items():
        np.testing.assert_array_equal(found[orientation], turn(found[1]), err_msg=str(orientation))


@pytest.mark.parametrize("packed", [False, True])
def test_colours_in_separate_planes_are_refused(tmp_path, packed):
    save(tmp_path, a_0=tiff(flat(*RGB), 2, planes=2, packed=packed), b_0=png(flat(1)))
    assert re.search("a/0.tif cannot be read .*separate planes", refusal(tmp_path))


# ------------------------------------------------------------------------------- other modes


@pytest.mark.parametrize(("mode", "colour", "expected"), [
    ("LAB", (136, 128 + 80, 128 + 67), (255, 0, 0)),
    ("YCbCr", (76, 85, 255), (254, 0, 0)),
    ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
    ("L", 90, (90, 90, 90)),
    ("LA", (90, 255), (90, 90, 90)),
    ("1", 1, (255, 255, 255)),
    ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
])  # fmt: skip
def test_every_mode_of_a_tiff_file_is_read_rightly(tmp_path, mode, colour, expected):
    path = tmp_path / "a.tif"
    Image.new(mode, (8, 8), colour).save(path)
    with Image.open(path) as image:
        assert image.mode in (mode, "RGB")
    found = photos.read_photo(path, 8, photos.measure_depth([path]))[4, 4]
    tolerance = 12 if mode == "LAB" else 2  # 8 bits of LAB are coarse
    assert np.abs(found.astype(int) - expected).max() <= tolerance, found


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.int16])
def test_values_with_a_sign_or_32_bits_are_refused(tmp_path, kind):
    if kind == np.int16:
        content = tiff(flat(5), 1, tags={339: [2]})
    else:
        buffer = io.BytesIO()
        Image.fromarray(np.ones((8, 8), kind)).save(buffer, "tiff")
        content = buffer.getvalue()
    save(tmp_path, a_0=content, b_0=png(flat(1)))
    assert re.search(
        "a/0.tif cannot be read .*32 bits or with a sign, mode [IF]", refusal(tmp_path)
    )


# ------------------------------------------------------------------------- what counts as a change


@pytest.fixture
def folder(tmp_path):
    """Two classes of two photos each, all of one size in bytes."""
    for i, name in enumerate(("a/0", "a/1", "b/0", "b/1")):
        path = tmp_path / "photos" / f"{name}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(path)
    return tmp_path / "photos"


def keep_times(path, change):
    """Change a file and give it its old time of change, as `cp -p` and `touch -r` can."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def reds(folder):
    """The red of every photo, by class."""
    dataset = load(folder)
    pairs = zip(dataset.labels, dataset.images[:, 16, 16, 0], strict=True)
    return sorted((dataset.names[label], int(red)) for label, red in pairs)


FIRST = [("a", 0), ("a", 60), ("b", 120), ("b", 180)]


def test_another_photo_of_the_same_size_and_time_is_noticed(folder, cache):
    assert reds(folder) == FIRST
    path = folder / "a" / "0.bmp"
    keep_times(path, lambda: Image.new("RGB", (8, 8), (33, 0, 0)).save(path))
    assert reds(folder) == [("a", 33), *FIRST[1:]]


def test_a_pair_that_is_swapped_is_noticed(folder):
    one, other = folder / "a" / "0.bmp", folder / "b" / "1.bmp"
    for path in (one, other):
        os.utime(path, ns=(0, 0))
    assert reds(folder) == FIRST
    first, second = one.read_bytes(), other.read_bytes()
    keep_times(one, lambda: one.write_bytes(second))
    keep_times(other, lambda: other.write_bytes(first))
    assert reds(folder) == [("a", 60), ("a", 180), ("b", 0), ("b", 120)]


@pytest.mark.parametrize("of_a_class", [False, True])
def test_a_link_with_another_target_is_noticed(folder, tmp_path, of_a_class):
    for name, red in (("old", 10), ("new", 20)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8), (red, 0, 0)).save(tmp_path / name / "p.bmp")
        os.utime(tmp_path / name / "p.bmp", ns=(0, 0))
    link, ending = (folder / "c", "") if of_a_class else (folder / "a" / "p.bmp", "p.bmp")
    for name, red in (("old", 10), ("new", 20)):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name / ending)
        assert ("c" if of_a_class else "a", red) in reds(folder)


def test_a_photo_that_exif_turns_is_noticed(folder):
    picture = Image.fromarray(np.repeat(np.uint8([255, 0]), 32).reshape(8, 8, 1).repeat(3, 2))
    path = folder / "a" / "z.jpg"
    digests = set()
    for orientation in (1, 6, 3):
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture.save(path, exif=exif)
        os.utime(path, ns=(0, 0))
        digests.add(load(folder).digest)
    assert len(digests) == 3


def test_what_decodes_is_part_of_the_key(folder, cache, monkeypatch, tmp_path):
    def entries():
        load(folder)
        return len(list(cache.iterdir()))

    assert entries() == 1
    with monkeypatch.context() as other:
        other.setattr(PIL, "__version__", "0.0")
        assert entries() == 2
    with monkeypatch.context() as other:
        other.setattr(photos, "features", type("features", (), {"version": lambda name: "0"}))
        assert entries() == 3
    with monkeypatch.context() as other:
        (tmp_path / "photos.py").write_text("# another resize")
        other.setattr(photos, "__file__", str(tmp_path / "photos.py"))
        assert entries() == 4
    (folder / "a" / "0.bmp").touch()
    assert entries() == 4  # a time alone is no change


# ------------------------------------------------------------------------- links, rights and names


def test_a_link_to_nothing_is_called_that(folder, tmp_path):
    for link in (folder / "a" / "2.bmp", folder / "c", tmp_path / "all"):
        link.symlink_to(tmp_path / "gone")
        line = refusal(link if link.name == "all" else folder)
        assert f"{link} is a link to {tmp_path / 'gone'}, which is not there" in line
        link.unlink()
    assert reds(folder) == FIRST


def test_a_loop_of_links_is_called_that(folder, tmp_path):
    for link in (folder / "a" / "2.bmp", folder / "c", tmp_path / "all"):
        link.symlink_to(link)
        line = refusal(link if link.name == "all" else folder)
        assert f"{link} is a link to {link}, which leads back to it" in line
        link.unlink()


@pytest.mark.parametrize("place", ["", "a"])
def test_a_folder_that_may_not_be_listed_is_one_line(folder, monkeypatch, place):
    shut, listed = folder / place, type(folder).iterdir

    def iterdir(path):
        if path == shut:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(type(folder), "iterdir", iterdir)
    assert f"data: {shut} cannot be read (Permission denied)" in refusal(folder)


def test_a_folder_that_may_not_be_entered_is_one_line(folder, monkeypatch):
    looked = type(folder).is_file

    def is_file(path):
        if path.name == "0.bmp":
            raise PermissionError(13, "Permission denied", str(path))
        return looked(path)

    monkeypatch.setattr(type(folder), "is_file", is_file)
    assert "0.bmp cannot be read (Permission denied)" in refusal(folder)


def test_a_photo_that_may_not_be_read_is_one_line(folder, monkeypatch):
    opened = type(folder).open

    def shut(path, *args, **kwargs):
        if path.name == "1.bmp":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args, **kwargs)

    monkeypatch.setattr(type(folder), "open", shut)
    assert "1.bmp cannot be read (Permission denied)" in refusal(folder)


def test_names_that_are_no_text_can_be_printed_and_cached(folder, cache):
    os.rename(folder / "a", os.fsencode(folder) + b"/caf\xe9")
    os.rename(folder / "b" / "0.bmp", os.fsencode(folder) + b"/b/\xff.bmp")
    first, again = load(folder), load(folder)
    assert len(list(cache.iterdir())) == 1
    assert first.names == again.names == ("b", r"caf\xe9") and first.digest == again.digest
    "\n".join(describe_classes(first)).encode("utf-8")
    (folder / "c").mkdir()
    (folder / "c" / "0.bmp").write_text("no image")
    os.rename(folder / "c" / "0.bmp", os.fsencode(folder) + b"/c/\xfe.bmp")
    refusal(folder).encode("utf-8")


def test_classes_that_look_alike_are_named():
    def lines(*names):
        labels = np.arange(len(names))
        return list(describe_classes(Dataset(np.zeros((len(names), 2, 2, 3), np.uint8), labels,
                                             names, "made up")))  # fmt: skip

    assert lines("rose", "tulip", "roses") == ["  3 classes: 1 rose, 1 tulip, 1 roses"]
    pairs = [("Rose", "rose"), ("rose", "rose "), ("fi", "\ufb01"), ("a  b", "a\u00a0b")]
    pairs += [("caf\u00e9", "cafe\u0301"), ("stra\u00dfe", "STRASSE"), ("a", "a\u200b")]
    for pair in pairs:
        _, warning = lines("tulip", *pair)
        assert warning.startswith("warning: ") and "tulip" not in warning
        assert all(repr(name) in warning or ascii(name) in warning for name in pair)
    assert "('caf\\xe9' and 'cafe\\u0301')" in lines("caf\u00e9", "cafe\u0301")[1]
    assert len(lines("x", "X", "x ")) == 3  # each but one of the three is one too many


def test_many_classes_are_counted_and_not_listed():
    labels = np.concatenate([np.arange(50), [7, 7, 9]])
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    names = tuple(f"c{i}" for i in range(50))
    (line,) = describe_classes(Dataset(images, labels, names, "made up"))
    assert line == "  50 classes: from 1 (c0) to 3 (c7)"


def test_files_of_a_sensor_beside_whole_ones_are_told(tmp_path):
    save(tmp_path, a_0=png(flat(4095)), b_0=png(flat(65535)))
    assert "though one ends at 4,095, as those of a sensor of 12 bits" in load(tmp_path).source
