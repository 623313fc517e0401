"""lib.photos.dataset: every source, the slices, the cache, and what is refused."""

import os
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lib import room
from lib.params import ROOT, InputError, Params
from lib.photos import dataset as data
from lib.photos.dataset import Dataset, check_splits, load_data, resolve_split
from lib.photos.folder import measure_depth, read_photo

SLICES = ("train[:10%]", "train[:70%]", "train[70%:]")


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """A cache folder of the test's own."""
    monkeypatch.setenv("BLOCKWISE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def make(**values):
    return Params("mine", **{"image_size": 32, "n_images": 100, "weights": "none"} | values)


def refusal(action, *args):
    """Return the one line with which an action refuses its input."""
    with pytest.raises(InputError) as caught:
        action(*args)
    line = str(caught.value)
    assert "\n" not in line
    return line


# ---------------------------------------------------------------------------------- slices


def test_the_papers_slices_of_3670_images():
    assert [len(resolve_split(spec, 3670)) for spec in SLICES] == [367, 2569, 1101]


@pytest.mark.parametrize(
    ("spec", "n", "first", "last"),
    [
        ("train", 10, 0, 9),
        ("train[:10%]", 3670, 0, 366),
        ("train[70%:]", 3670, 2569, 3669),
        ("train[10:20]", 100, 10, 19),
        ("train[-10:]", 100, 90, 99),
        ("train[:-10]", 100, 0, 89),
        ("train[-25%:]", 100, 75, 99),
        ("train[12.5%:]", 8, 1, 7),
        ("train[:50%]", 5, 0, 1),  # 2.5 rounds to the even number
        ("train[:50%]", 7, 0, 3),  # 3.5 as well
        ("train[10%:50]", 1000, 100, 499),  # a '%' at one bound holds for both
    ],
)
def test_slices_follow_the_rules_of_tfds(spec, n, first, last):
    indices = resolve_split(spec, n)
    assert indices.dtype == np.int64
    assert np.array_equal(indices, np.arange(first, last + 1))


def test_a_slice_that_runs_backwards_is_empty():
    assert len(resolve_split("train[5:2]", 10)) == 0


@pytest.mark.parametrize("spec", ["train[:10", "test", "train[:]", "", "train[:1.5]"])
def test_what_is_no_slice_is_refused(spec):
    assert repr(spec) in refusal(resolve_split, spec, 100)


@pytest.mark.parametrize("spec", ["train[:101]", "train[-101:]", "train[:110%]"])
def test_bounds_beyond_the_images_are_refused(spec):
    assert "100 images" in refusal(resolve_split, spec, 100)


@pytest.mark.parametrize("n", [37, 100, 333, 1000, 3670])
def test_the_rounding_is_that_of_tfds(n):
    splits = pytest.importorskip("tensorflow_datasets").core.splits
    info = splits.SplitInfo(name="train", shard_lengths=[n], num_bytes=0, filename_template=None)
    for percent in [*range(0, 101, 3), 12.5, 99.9]:
        spec = f"train[{percent}%:]"
        relative = splits.ReadInstruction.from_spec(spec)
        absolute = splits._rel_to_abs_instr(relative, {"train": info})
        assert n - len(resolve_split(spec, n)) == (absolute.from_ or 0), spec


# -------------------------------------------------------------------------- the embedded set


def test_the_embedded_set_loads_and_every_slice_holds_every_class():
    dataset = load_data(make())
    assert dataset.images.shape == (100, 32, 32, 3) and dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int64
    assert [len(dataset.split(spec)) for spec in SLICES] == [10, 70, 30]
    check_splits(dataset, make())


def test_the_embedded_set_follows_the_seed_and_the_digest_shows_it():
    first, other = load_data(make()), load_data(make(seed=1))
    assert first.digest != other.digest
    assert first.digest == load_data(make()).digest
    assert len(first.digest) == 16 and int(first.digest, 16) >= 0


def tiny(labels, n_classes=2):
    images = np.zeros((len(labels), 2, 2, 3), np.uint8)
    names = tuple("abcde"[:n_classes])
    return Dataset(images, np.array(labels, np.int64), names, "made up")


def test_the_digest_depends_on_images_labels_and_names():
    base = tiny([0, 1, 0])
    assert base.digest == tiny([0, 1, 0]).digest
    assert base.digest != tiny([0, 1, 1]).digest
    assert base.digest != tiny([0, 1, 0], n_classes=3).digest
    base.images[0, 0, 0, 0] = 1
    assert base.digest != Dataset(base.images, base.labels, base.names, "made up").digest


@pytest.mark.parametrize(
    ("labels", "values", "words"),
    [
        ([0, 1] * 5, {"search_split": "train[3:3]"}, ("search_split", "is empty")),
        ([0, 1] * 5, {"final_split": "train[:80%]"}, ("final_split", "overlaps eval_split")),
        ([0, 1] * 5, {"search_split": "train[:1]"}, ("search_split", "lacks b")),
        ([0, 1] * 3 + [1] * 4, {"eval_split": "train[7:]"}, ("eval_split", "lacks a")),
        ([0, 1] * 5, {"eval_split": "train[20:]"}, ("20", "10 images")),
    ],
)
def test_meaningless_slices_are_refused(labels, values, words):
    values = {"search_split": "train[:40%]"} | values
    line = refusal(check_splits, tiny(labels), make(**values))
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("spec", "key", "smallest"),
    [
        ("train[:10%]", "search_split", "train[:43%]"),
        ("train[:2]", "search_split", "train[:9]"),
        ("train[5%:20%]", "search_split", "train[5%:43%]"),
        ("train[3:3]", "search_split", "train[3:9]"),
        ("train[:-15]", "final_split", "train[:9]"),
        ("train[95%:]", "eval_split", "train[92%:]"),
        ("train[-1:]", "eval_split", "train[18:]"),
    ],
)
def test_the_smallest_slice_that_holds_every_class_is_named(spec, key, smallest):
    dataset = tiny([0] * 8 + [1] * 10 + [0] * 1 + [1] * 1)  # class 1 first at 8, class 0 last at 18
    values = {"search_split": "train[:9]", "final_split": "train[:9]", "eval_split": "train[17:]"}
    line = refusal(check_splits, dataset, make(**values | {key: spec}))
    assert line.endswith(f"allowed: a slice that holds every class, such as {smallest}")
    check_splits(dataset, make(**values | {key: smallest}))


def test_of_many_absent_classes_some_are_named():
    images = np.zeros((60, 2, 2, 3), np.uint8)
    many = Dataset(images, np.arange(60) % 30, tuple(f"c{i}" for i in range(30)), "made up")
    line = refusal(check_splits, many, make(search_split="train[:5]", eval_split="train[30:]"))
    assert "lacks c5, c6, " in line and "c24 and 5 more; allowed:" in line and "c25" not in line


def test_a_class_that_only_the_evaluation_slice_holds_is_said_to_be_there():
    dataset = tiny([0] * 15 + [1, 0] * 2 + [1])
    line = refusal(check_splits, dataset, make(search_split="train[:50%]"))
    assert line.endswith(
        "such as train[:78%] and an eval_split apart from it, unlike 'train[70%:]'"
    )
    line = refusal(check_splits, tiny([0] * 10, n_classes=2), make(search_split="train[:50%]"))
    assert line.endswith("allowed: a slice that holds every class")


def test_good_slices_pass():
    check_splits(tiny([0, 1] * 5), make(search_split="train[:40%]"))


# -------------------------------------------------------------------------------- the cache


def only_file(folder):
    (path,) = folder.iterdir()
    return path


def test_the_second_load_reads_the_cache(cache, monkeypatch):
    first = load_data(make())
    assert only_file(cache).suffix == ".npz"
    monkeypatch.setattr(data.procedural, "procedural_flowers", None)  # would fail if it were called
    second = load_data(make())
    assert np.array_equal(first.images, second.images) and first.digest == second.digest
    assert (second.names, second.source) == (first.names, first.source)
    assert second.labels.dtype == np.int64


@pytest.mark.parametrize("harm", ["cut", "flip", "empty", "text"])
def test_a_damaged_cache_is_made_again_with_a_warning(cache, harm):
    digest = load_data(make()).digest
    path = only_file(cache)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    harmed = {"cut": whole[:-5000], "flip": bytes(flipped), "empty": b"", "text": b"no zip"}
    path.write_bytes(harmed[harm])
    with pytest.warns(UserWarning, match="is damaged"):
        assert load_data(make()).digest == digest
    assert path.read_bytes() == whole


def test_a_cache_that_may_not_be_read_is_made_again_with_a_warning(cache, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    digest = load_data(make()).digest
    monkeypatch.setattr(data, "_read_cache", forbidden)  # root may read everything
    with pytest.warns(UserWarning, match=r"npz cannot be read \(Permission denied\): made again"):
        assert load_data(make()).digest == digest


def test_a_cache_that_cannot_be_written_costs_a_warning(cache):
    digest = load_data(make()).digest
    shutil.rmtree(cache)
    cache.write_text("a file in the way")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"npz cannot be written \(.+\): not kept") as found:
            assert load_data(make()).digest == digest
        assert len(found) == 1


def test_a_cache_of_pickled_objects_is_not_unpickled(cache):
    digest = load_data(make()).digest
    np.savez(only_file(cache), images=np.array([{}]), labels=np.zeros(1), names=np.array(["a"]))
    with pytest.warns(UserWarning, match="is damaged"):
        assert load_data(make()).digest == digest


def test_an_interrupted_write_leaves_nothing_behind(cache, monkeypatch):
    def interrupted(path, **arrays):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_data(make())
    assert list(cache.iterdir()) == []


def test_images_that_do_not_fit_in_memory_are_refused_before_they_are_read(
    monkeypatch, photos, tmp_path
):
    bytes_of = {"procedural_flowers": 100 * 3 * 32**2, str(photos): 40 * 3 * 32**2}
    data.pack(load_data(make()), packed := tmp_path / "packed.npz")
    bytes_of[str(packed)] = bytes_of["procedural_flowers"]
    for source, needed in bytes_of.items():
        with monkeypatch.context() as small:
            small.setattr("lib.room.free_memory", lambda room=needed: 5 * room - 1)
            small.setattr("lib.photos.dataset.read_photos", None)  # would fail if it were called
            small.setattr("lib.photos.drawn.procedural_flowers", None)
            for _ in range(2):  # the second time with what is cached
                line = refusal(load_data, make(data=source))
                assert "GiB of memory" in line and line.startswith(("data: ", "n_images: "))
        monkeypatch.setattr("lib.room.free_memory", lambda room=needed: 5 * room + 5000)
        assert load_data(make(data=source)).images.nbytes == needed


def test_photos_that_do_not_fit_on_the_disk_are_refused(monkeypatch, photos):
    monkeypatch.setattr("lib.room.shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    assert "40 photos of 32 px need" in (line := refusal(load_folder, photos))
    assert "GiB of disk" in line


V1_STAT = "total_inactive_file 100\ntotal_active_file 50\ninactive_file 7\n"


@pytest.mark.parametrize(
    ("groups", "files", "free"),
    [
        ("0::/", {"memory.max": 1000, "memory.current": 700}, 450),
        ("0::/", {"memory.max": "max", "memory.current": 700}, None),
        ("0::/a/b", {"memory.max": "max", "memory.current": 700, "a/memory.max": 300,
                     "a/memory.current": 200}, 250),
        ("0::/a", {"memory.max": 500, "memory.current": 200, "a/memory.max": 900,
                   "a/memory.current": 200}, 450),
        ("0::/", {"memory.max": 1000, "memory.current": 1300}, 0),
        ("4:memory:/docker/1\n5:cpu:/", {"memory/memory.limit_in_bytes": 1000,
                                         "memory/memory.usage_in_bytes": 600}, 550),
        ("4:cpu,memory:/x", {"memory/x/memory.limit_in_bytes": 800,
                             "memory/x/memory.usage_in_bytes": 600}, 350),
        ("4:memory:/", {"memory/memory.limit_in_bytes": 2**63 - 4096,
                        "memory/memory.usage_in_bytes": 600}, None),
        (None, {}, None),
    ],
)  # fmt: skip
def test_free_memory_is_what_the_container_leaves(tmp_path, monkeypatch, groups, files, free):
    monkeypatch.setattr(room.psutil, "virtual_memory", lambda: SimpleNamespace(available=10_000))
    if groups is not None:
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(f"{groups}\n")
    for name, value in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
        stat = V1_STAT if "bytes" in name else "inactive_file 100\nactive_file 50\n"
        path.with_name("memory.stat").write_text(stat)
    assert room.free_memory(tmp_path) == (10_000 if free is None else free)


# ------------------------------------------------------------------------- a folder of photos


@pytest.fixture
def photos(tmp_path):
    """Two classes of 20 photos each, red and blue, in different formats and sizes."""
    folder = tmp_path / "photos"
    for name, colour in (("red", (250, 0, 0)), ("blue", (0, 0, 250))):
        (folder / name).mkdir(parents=True)
        for i in range(20):
            ending = (".jpg", ".png", ".JPEG", ".webp")[i % 4]
            Image.new("RGB", (40 + i, 60), colour).save(folder / name / f"{i:02d}{ending}")
    return folder


def load_folder(folder, **values):
    return load_data(make(data=str(folder), **values))


def test_a_folder_is_read_with_sorted_classes_in_a_fixed_mixed_order(photos):
    dataset = load_folder(photos)
    assert dataset.names == ("blue", "red")
    assert dataset.images.shape == (40, 32, 32, 3) and dataset.images.dtype == np.uint8
    channel = dataset.images[:, 16, 16].argmax(axis=-1)  # 2 is blue, 0 is red
    assert np.array_equal(channel, np.where(dataset.labels == 0, 2, 0))
    assert np.array_equal(np.bincount(dataset.labels), [20, 20])
    assert np.array_equal(np.unique(dataset.labels[:10]), [0, 1])
    check_splits(dataset, make(data=str(photos), search_split="train[:30%]"))


def test_the_order_of_a_folder_does_not_depend_on_the_seed(photos):
    assert load_folder(photos).digest == load_folder(photos, seed=7).digest


def test_a_changed_photo_is_read_again(photos, cache):
    first = load_folder(photos).digest
    Image.new("RGB", (33, 33), (0, 250, 0)).save(photos / "red" / "00.jpg")
    assert load_folder(photos).digest != first
    assert len(list(cache.iterdir())) == 2


def test_hidden_files_and_files_beside_the_classes_are_left_alone(photos):
    first = load_folder(photos).digest
    (photos / "LICENSE.txt").write_text("free")
    (photos / "red" / ".hidden").write_text("x")
    (photos / ".git").mkdir()
    assert load_folder(photos).digest == first


@pytest.fixture
def read(tmp_path):
    """A function that saves a picture under a name and returns the pixels that are read."""

    def save_and_read(picture, name="photo.png", size=8, **options):
        path = tmp_path / name
        picture.save(path, **options)
        pixels = read_photo(path, size, measure_depth([path]))
        assert (pixels.shape, pixels.dtype) == ((size, size, 3), np.uint8)
        return pixels

    return save_and_read


GREEN = (0, 204, 0)  # in the palette that Pillow converts to


@pytest.mark.parametrize(
    ("picture", "name", "expected"),
    [
        (Image.new("RGB", (9, 7), GREEN), "a.bmp", GREEN),
        (Image.new("RGB", (9, 7), GREEN).convert("P"), "a.gif", GREEN),
        (Image.new("RGB", (9, 7), GREEN), "a.tiff", GREEN),
        (Image.new("CMYK", (9, 7), (0, 255, 255, 0)), "a.jpg", (255, 0, 0)),
        (Image.new("L", (9, 7), 90), "a.jpg", (90, 90, 90)),
        (Image.new("LA", (9, 7), (90, 255)), "a.png", (90, 90, 90)),
        (Image.new("1", (9, 7), 1), "a.png", (255, 255, 255)),
        (Image.new("RGBA", (9, 7), (*GREEN, 0)), "a.png", (255, 255, 255)),
        (Image.new("RGBA", (9, 7), (*GREEN, 255)), "a.webp", GREEN),
        (Image.fromarray(np.full((7, 9), 0x8034, np.uint16)), "a.png", (128, 128, 128)),
        (Image.fromarray(np.full((7, 9), 0x8034, np.uint16)), "a.tiff", (128, 128, 128)),
    ],
)
def test_a_photo_of_any_mode_becomes_rgb(read, picture, name, expected):
    assert np.abs(read(picture, name).astype(int) - expected).max() <= 3


def test_a_palette_with_transparency_becomes_white_where_it_is_transparent(read):
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([200, 0, 0, 0, 0, 200])
    picture.putpixel((0, 0), 1)
    pixels = read(picture, "a.png", transparency=0)
    assert pixels[0, 0].tolist() == [0, 0, 200] and pixels[7, 7].tolist() == [255, 255, 255]


def test_a_camera_held_upright_is_turned(read):
    picture = Image.fromarray(np.repeat(np.uint8([[[255] * 3], [[0] * 3]]), 8, axis=1).repeat(4, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    pixels = read(picture, "a.jpg", exif=exif, quality=100)
    assert pixels[:, 7].min() > 200 and pixels[:, 0].max() < 50  # white was above, is at the right


def test_only_the_first_picture_of_an_animation_counts(read):
    first, second = Image.new("RGB", (8, 8), GREEN), Image.new("RGB", (8, 8), (200, 0, 0))
    pixels = read(first, "a.gif", save_all=True, append_images=[second])
    assert pixels[4, 4].tolist() == list(GREEN)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif", ".gif"])
@pytest.mark.parametrize("harm", ["text", "cut", "empty"])
def test_a_file_that_is_no_whole_image_is_refused_by_name(photos, harm, ending):
    path = photos / "red" / f"zz{ending}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(
        {"text": b"this is no image", "cut": whole[: len(whole) // 2], "empty": b""}[harm]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow warns of a cut TIFF and then fails
        line = refusal(load_folder, photos)
    assert str(path) in line and "allowed:" in line


def test_a_decompression_bomb_is_refused(photos, monkeypatch):
    path = photos / "red" / "zz.png"
    Image.new("1", (20_000, 20_000)).save(path)  # 400 million pixels in a few kilobytes
    assert str(path) in refusal(load_folder, photos)
    Image.new("1", (12_000, 10_000)).save(path)
    line = refusal(load_folder, photos)
    assert str(path) in line and "12000 x 10000 pixels" in line


def test_pixels_of_32_bits_are_refused(photos):
    path = photos / "red" / "zz.tif"
    Image.fromarray(np.ones((8, 8), np.float32)).save(path)
    line = refusal(load_folder, photos)
    assert str(path) in line and "32 bits" in line


def test_a_file_of_another_kind_is_refused_by_name(photos):
    (photos / "red" / "notes.txt").write_text("hello")
    line = refusal(load_folder, photos)
    assert str(photos / "red" / "notes.txt") in line and ".jpg" in line
    (photos / "red" / "notes.txt").unlink()
    (photos / "red" / "more.jpg").mkdir()
    assert "more.jpg" in refusal(load_folder, photos)


def test_a_folder_without_two_classes_is_refused(photos, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds 0 class folders" in refusal(load_folder, tmp_path / "empty")
    shutil.rmtree(photos / "red")
    assert "holds 1 class folders" in refusal(load_folder, photos)
    (photos / "green").mkdir()
    assert str(photos / "green") in refusal(load_folder, photos)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert "nowhere" in refusal(load_folder, tmp_path / "nowhere")


# ------------------------------------------------------------------------------- tf_flowers


def real_data():
    """Return the folder that holds tf_flowers, or skip the test."""
    candidates = [os.environ.get("TFDS_DATA_DIR"), ROOT.parent / "shared" / "data"]
    for folder in candidates:
        if folder and (Path(folder) / "tf_flowers" / "3.0.1" / "dataset_info.json").is_file():
            pytest.importorskip("tensorflow_datasets")
            return Path(folder)
    pytest.skip("tf_flowers is not here: point TFDS_DATA_DIR at a folder that holds it")


def encoded(folder, split):
    """Return the JPEG files of a split as bytes, through TFDS' own slicing."""
    import tensorflow_datasets as tfds

    records = tfds.load(
        "tf_flowers",
        split=split,
        data_dir=folder,
        download=False,
        shuffle_files=False,
        decoders={"image": tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(interleave_cycle_length=1),
    )
    return [(record["image"], int(record["label"])) for record in records.as_numpy_iterator()]


def test_tf_flowers_has_3670_images_and_tfds_slices_are_ours(cache):
    folder = real_data()
    dataset = load_data(make(data="tf_flowers", data_dir=str(folder)))
    assert dataset.images.shape == (3670, 32, 32, 3)
    assert dataset.names == ("dandelion", "daisy", "tulips", "sunflowers", "roses")
    assert np.bincount(dataset.labels).tolist() == [898, 633, 799, 699, 641]
    assert [len(dataset.split(spec)) for spec in SLICES] == [367, 2569, 1101]
    check_splits(dataset, make(data="tf_flowers"))
    assert only_file(cache).name.startswith("tf_flowers-3.0.1-")
    images = encoded(folder, "train")
    for spec in SLICES:
        theirs = encoded(folder, spec)
        assert theirs == [images[i] for i in dataset.split(spec)], spec
        assert [label for _, label in theirs] == dataset.labels[dataset.split(spec)].tolist()
    assert_pixels_are_those_of_tensorflow(dataset, images)


def assert_pixels_are_those_of_tensorflow(dataset, images):
    """Compare some images, from both files of records, with TensorFlow's decoder and resize."""
    import tensorflow as tf

    for i in (0, 366, 2569, 3669):
        decoded = tf.io.decode_jpeg(images[i][0], channels=3)
        expected = tf.image.resize(decoded, (32, 32)).numpy()
        assert np.abs(dataset.images[i] - expected).max() <= 0.5, i


def keep_a_copy(cache, contents):
    """Write what is left in the cache when tf_flowers was decoded from files with that digest."""
    arrays = (np.zeros((4, 32, 32, 3), np.uint8), np.arange(4), ("a", "b", "c", "d"))
    data._write_cache(cache / f"{data._flowers_key(contents, 32)}.npz", data.Arrays(*arrays))


def test_a_cached_tf_flowers_needs_neither_photos_nor_tensorflow(cache, monkeypatch):
    keep_a_copy(cache, "0123abcd")
    monkeypatch.setitem(__import__("sys").modules, "tensorflow_datasets", None)
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    monkeypatch.setenv("TFDS_DATA_DIR", "/nowhere")
    assert len(load_data(make(data="tf_flowers"))) == 4


def prepared(tmp_path, content):
    """Write what passes for tf_flowers as long as it need not be decoded."""
    folder = tmp_path / "tf_flowers" / "3.0.1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "tf_flowers-train.tfrecord-00000-of-00001").write_bytes(content)
    return make(data="tf_flowers", data_dir=str(tmp_path))


def test_other_records_another_tensorflow_or_another_resize_are_decoded_again(
    cache, tmp_path, monkeypatch
):
    reads = []

    def read(folder, params):
        reads.append(folder)
        images = np.full((2, 32, 32, 3), len(reads), np.uint8)
        return data.Arrays(images, np.arange(2), ("a", "b"))

    monkeypatch.setattr(data, "_read_tf_flowers", read)
    first = load_data(prepared(tmp_path, b"one"))
    assert load_data(prepared(tmp_path, b"one")).digest == first.digest and len(reads) == 1
    load_data(prepared(tmp_path, b"two"))
    assert len(reads) == 2
    with monkeypatch.context() as other:
        other.setattr(data, "version", lambda package: "99.0")
        load_data(prepared(tmp_path, b"one"))
    assert len(reads) == 3
    monkeypatch.setattr(data.inspect, "getsource", lambda function: "another resize")
    load_data(prepared(tmp_path, b"one"))
    assert len(reads) == 4


def test_tf_flowers_that_do_not_fit_in_memory_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch
):
    info = SimpleNamespace(splits={"train": SimpleNamespace(num_examples=10**9)})
    builder = SimpleNamespace(data_dir=str(tmp_path), info=info)
    monkeypatch.setattr(data, "_tf_flowers_builder", lambda folder: builder)
    line = refusal(load_data, prepared(tmp_path, b"one"))
    assert line.startswith("data: tf_flowers of 32 px need 1.43e+04 GiB of memory; allowed: ")


def test_two_cached_copies_of_tf_flowers_are_not_guessed_between(cache, monkeypatch):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    keep_a_copy(cache, "0123abcd")
    assert len(load_data(make(data="tf_flowers"))) == 4
    keep_a_copy(cache, "4567abcd")
    line = refusal(load_data, make(data="tf_flowers"))
    assert "2 different copies" in line and "data_dir" in line and "0123abcd" in line


def test_a_data_dir_without_tf_flowers_is_refused_even_if_there_is_a_cache(cache, tmp_path):
    keep_a_copy(cache, "0123abcd")
    line = refusal(load_data, make(data="tf_flowers", data_dir=str(tmp_path)))
    assert line.startswith("data_dir: ") and str(tmp_path) in line
    assert "nothing is downloaded" in line


def test_a_tfds_data_dir_without_tf_flowers_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    line = refusal(load_data, make(data="tf_flowers"))
    assert line.startswith("TFDS_DATA_DIR: ") and str(tmp_path) in line


def test_damaged_records_are_refused_by_name(tmp_path):
    source = real_data() / "tf_flowers" / "3.0.1"
    copy = tmp_path / "tf_flowers" / "3.0.1"
    copy.mkdir(parents=True)
    for path in source.iterdir():
        with path.open("rb") as file:
            (copy / path.name).write_bytes(file.read(100_000))  # cuts the records, not the rest
    line = refusal(load_data, make(data="tf_flowers", data_dir=str(tmp_path)))
    assert str(copy) in line and "cannot be read" in line


def test_a_failed_download_is_one_line(monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")

    class NoNetwork:
        url_infos = None

        def __init__(self, *args, **kwargs):
            pass

        def is_prepared(self):
            return False

        def download_and_prepare(self):
            raise ConnectionError("no network\nand a second line")

    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setattr(tfds, "builder", NoNetwork)
    line = refusal(load_data, make(data="tf_flowers"))
    assert "no network" in line and "TFDS_DATA_DIR" in line
