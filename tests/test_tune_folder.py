"""lib.tune: folders as people keep them, what is left out, near-duplicates, and the split."""

import csv
import json
import os
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lib.params import ROOT, InputError
from lib.photos.drawn import procedural_flowers
from lib.tune.folder import LOST, find_twins, list_folder, read_photos
from lib.tune.run import _at_odds, _bent, _some
from lib.tune.settings import Settings, load_settings
from lib.tune.split import LEAST_UNITS, Split, read_groups, split_photos

IMAGES, _ = procedural_flowers(60, 64, 3)
SHARES = {"selection": 0.2, "test": 0.2, "folds": 3}


def put(folder, name, image, **how):
    """Write pixels, or bytes, below a folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes):
        path.write_bytes(image)
    else:
        Image.fromarray(image).save(path, **how)
    return path


def folder_of(tmp_path, counts):
    """A folder of drawn photos, so many of each class."""
    images = iter(IMAGES)
    for name, count in counts.items():
        for i in range(count):
            put(tmp_path, f"{name}/{i}.png", next(images))
    return tmp_path


def read(folder):
    return read_photos(list_folder(folder), 32)


def split(photos, seed=0, groups=(), **values):
    return split_photos(photos, find_twins(photos), groups, seed=seed, **(SHARES | values))


def reasons(photos):
    return {x.path: x.reason for x in photos.left_out}


def refused(call, *words):
    with pytest.raises(InputError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line


# ---------------------------------------------------------------------------------- what lies there


def test_what_cannot_be_used_is_left_out_and_named(tmp_path):
    folder = folder_of(tmp_path, {"a": 3, "b": 3})
    put(folder, "a/broken.jpg", b"no photo")
    put(folder, "a/notes.docx", b"text")
    put(folder, "licence.txt", b"text")
    put(folder, "empty/notes.txt", b"text")
    (folder / "b" / "gone.png").symlink_to("nowhere.png")
    found = reasons(read(folder))
    assert set(found) == {
        "a/broken.jpg",
        "a/notes.docx",
        "licence.txt",
        "empty/notes.txt",
        "empty",
        "b/gone.png",
    }
    assert "cannot be read as a photo" in found["a/broken.jpg"]
    assert "ends in '.docx'" in found["a/notes.docx"]
    assert found["empty"] == LOST
    assert found["b/gone.png"] == "is a link to nowhere.png, which is not there"


def test_hidden_and_system_files_are_no_photos_and_not_worth_a_word(tmp_path):
    folder = folder_of(tmp_path, {"a": 2, "b": 2})
    for name in ("a/.DS_Store", "a/Thumbs.db", ".ipynb_checkpoints/x.png", "a/.hidden/y.png"):
        put(folder, name, b"x")
    photos = read(folder)
    assert photos.names == ("a", "b") and len(photos) == 4
    assert photos.left_out == ()


def test_endings_modes_turns_and_folders_in_class_folders(tmp_path):
    folder = folder_of(tmp_path, {"b": 1})
    put(folder, "a/UPPER.PNG", IMAGES[10])
    put(folder, "a/deep/er/scan.jpeg", IMAGES[11][..., 0])  # greyscale
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by a quarter
    put(folder, "a/turned.png", IMAGES[12][:, :40], exif=turned)
    photos = read(folder)
    at = {path: i for i, path in enumerate(photos.paths)}
    assert set(at) == {"a/UPPER.PNG", "a/deep/er/scan.jpeg", "a/turned.png", "b/0.png"}
    grey = photos.images[at["a/deep/er/scan.jpeg"]]
    assert (grey == grey[..., :1]).all()
    assert tuple(photos.sizes[at["a/turned.png"]]) == (64, 40)


def test_a_link_back_to_its_own_folder_is_read_once(tmp_path):
    folder = folder_of(tmp_path, {"a": 2, "b": 2})
    (folder / "a" / "again").symlink_to(folder / "a", target_is_directory=True)
    assert len(read(folder)) == 4


def test_strange_names_are_names(tmp_path):
    names = ["two words", 'it\'s "x"=1$', "花", "<script>alert(1)<"]
    folder = folder_of(tmp_path, dict.fromkeys(names, 2))
    photos = read(folder)
    assert set(photos.names) == set(names)
    assert photos.counts() == dict.fromkeys(names, 2)


def test_bytes_that_are_no_text_are_written_out(tmp_path):
    folder = folder_of(tmp_path, {"a": 2, "b": 2})
    os.rename(os.fsencode(folder / "a"), os.fsencode(folder) + b"/caf\xe9")
    photos = read(folder)
    assert photos.names == ("b", "caf\\xe9")
    assert {p.split("/")[0] for p in photos.paths} == {"b", "caf\\xe9"}


def test_a_file_in_two_classes_is_left_out_of_both(tmp_path):
    folder = folder_of(tmp_path, {"a": 3, "b": 3})
    put(folder, "b/same.png", (folder / "a" / "0.png").read_bytes())
    found = reasons(read(folder))
    assert found == {
        "a/0.png": "the same file is in class b, too",
        "b/same.png": "the same file is in class a, too",
    }


def test_folders_that_may_not_be_entered_are_left_out(tmp_path, monkeypatch):
    """Whether they may be listed or not; root may do all, so the system's answer is played."""
    folder = folder_of(tmp_path, {"a": 3, "a/closed": 1, "a/listed": 1, "b": 3})
    listdir, stat = os.listdir, os.stat

    def closed(path, *rest, **more):
        if "closed" in os.fspath(path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return listdir(path, *rest, **more)

    def not_entered(path, *rest, **more):
        if "listed/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *rest, **more)

    monkeypatch.setattr(os, "listdir", closed)
    monkeypatch.setattr(os, "stat", not_entered)
    listing = list_folder(folder)
    assert len(listing.paths) == 6
    assert {x.path: x.reason for x in listing.left_out} == {
        "a/closed": "a folder that you may not read",
        "a/listed": "a folder that you may not read",
    }


def test_parts_of_a_data_set_are_no_classes(tmp_path):
    folder = folder_of(tmp_path, {"Train/a": 2, "Train/b": 2, "Test/a": 2})
    refused(lambda: list_folder(folder), "Test and Train", "no classes", "one sub-folder per class")
    assert list_folder(folder / "Train").names == ("a", "b")
    put(folder, "annotations/a.json", b"{}")  # no class: it holds no photo
    refused(lambda: list_folder(folder), "Test and Train", "no classes")
    put(folder, "bus/0.png", IMAGES[20])
    assert list_folder(folder).names == ("Test", "Train", "bus")  # vehicles, perhaps


def test_a_class_without_a_usable_photo_is_said_first(tmp_path):
    folder = folder_of(tmp_path, {"a": 3, "b": 3})
    for i in range(12):
        put(folder, f"a/{i}.heic", b"of a kind that is not read")
        put(folder, f"c/{i}.heic", b"of a kind that is not read")
        put(folder, f"d/{i}.png", b"no photo")
    photos = read(folder)
    assert [(x.path, x.reason) for x in photos.left_out[:2]] == [("d", LOST), ("c", LOST)]
    assert len(photos.left_out) == 2 + 3 * 12 and photos.names == ("a", "b")


def test_folders_that_are_none(tmp_path):
    refused(lambda: read(tmp_path / "nowhere"), "nowhere is not a folder")
    folder_of(tmp_path, {"a": 2})
    refused(lambda: read(tmp_path), "photos of 1 class;", "at least 2")
    put(tmp_path, "b/0.png", b"no photo")
    refused(lambda: read(tmp_path), "left out: 1, such as b/0.png: cannot be read")


# ----------------------------------------------------------------------------- the same photo twice


def test_near_duplicates_are_found_and_others_are_not(tmp_path):
    folder = folder_of(tmp_path, {"a": 20, "b": 20})
    first = IMAGES[0].astype(int)
    put(folder, "a/brighter.png", np.clip(first + 12, 0, 255).astype(np.uint8))
    put(folder, "a/smaller.jpg", np.asarray(Image.fromarray(IMAGES[0]).resize((48, 48))))
    put(folder, "b/copy.png", (folder / "b" / "3.png").read_bytes())
    photos = read(folder)
    near, exact = (
        sorted(sorted(photos.paths[i] for i in group) for group in find_twins(photos, duplicates))
        for duplicates in ("near", "exact")
    )
    assert exact == [["b/3.png", "b/copy.png"]]
    assert near == [["a/0.png", "a/brighter.png", "a/smaller.jpg"], *exact]


def test_near_duplicates_of_different_classes_are_said_to_be_at_odds(tmp_path):
    folder = folder_of(tmp_path, {"a": 20, "b": 20})
    brighter = np.clip(IMAGES[0].astype(int) + 12, 0, 255).astype(np.uint8)
    put(folder, "b/brighter.png", brighter)
    put(folder, "a/1 again.png", IMAGES[1] // 2 + 40)
    photos = read(folder)
    said = {_some(t, photos): _at_odds(t, photos) for t in find_twins(photos)}
    odds, same = sorted(said, key=lambda names: "brighter" not in names)
    assert said[odds] == ": in a and b, so one label may be wrong" and said[same] == ""


def test_photos_of_twenty_megapixels_are_read(tmp_path):
    folder = folder_of(tmp_path, {"a": 2, "b": 2})
    large = np.zeros((4000, 5000, 3), np.uint8)
    large[:2000, :, 0], large[:, 2500:, 2] = 255, 255
    put(folder, "a/large.jpg", large, quality=60)
    photos = read(folder)
    at = photos.paths.index("a/large.jpg")
    assert photos.extent == "64 x 64 to 5000 x 4000 pixels"
    expected = np.asarray(Image.fromarray(large).resize((32, 32), Image.Resampling.BILINEAR))
    assert np.abs(photos.images[at].astype(int) - expected).max() < 20


# ---------------------------------------------------------------------------------------- the split


def test_two_hundred_classes_are_split_and_each_part_has_all(tmp_path):
    each = np.repeat(np.arange(200), 5)
    photos = replace(
        read(folder_of(tmp_path, {"a": 2, "b": 2})),
        labels=each, names=tuple(f"class {c:03}" for c in range(200)),
        digests=tuple(f"{i:064x}" for i in range(1000)), paths=tuple(map(str, range(1000))),
    )  # fmt: skip
    found = split_photos(photos, [], (), seed=0, **SHARES)
    for places in found.parts().values():
        assert set(each[places]) == set(range(200))
    assert [len(x) for x in found.parts().values()] == [600, 200, 200]


def test_a_split_is_stratified_and_no_photo_is_on_two_sides(tmp_path):
    photos = read(folder_of(tmp_path, {"a": 10, "b": 20, "c": 30}))
    found = split(photos)
    places = np.concatenate(list(found.parts().values()))
    assert sorted(places) == list(range(60))
    counts = [np.bincount(photos.labels[x], minlength=3) for x in found.parts().values()]
    assert np.array(counts).tolist() == [[6, 12, 18], [2, 4, 6], [2, 4, 6]]
    of_folds = [np.bincount(photos.labels[found.training[found.folds == f]]) for f in range(3)]
    assert np.array(of_folds).tolist() == [[2, 4, 6]] * 3


def test_a_split_depends_on_content_and_seed_only(tmp_path):
    folder = folder_of(tmp_path / "one", {"a": 10, "b": 10})
    for i, path in enumerate(sorted(folder.glob("*/*.png"))):
        put(tmp_path / "two", f"{path.parent.name}/{97 - i}.png", path.read_bytes())

    def contents(photos, found):
        return {name: [photos.digests[i] for i in x] for name, x in found.parts().items()}

    one, two = read(folder), read(tmp_path / "two")
    assert one.paths != two.paths
    assert contents(one, split(one)) == contents(two, split(two))
    assert contents(one, split(one)) != contents(one, split(one, seed=1))


def test_twins_and_groups_stay_on_one_side(tmp_path):
    images = iter(IMAGES)
    for plant in range(12):
        for photo in range(2):
            put(tmp_path, f"{'ab'[plant % 2]}/plant{plant:02}_{photo}.png", next(images))
    for i in range(6):
        put(tmp_path, f"a/plant00_copy{i}.png", IMAGES[0] // 2 + 40 + i)
    photos = read(tmp_path)
    groups = read_groups(photos, r"(plant\d+)_")
    for seed in range(5):
        found = split(photos, seed=seed, groups=groups)
        sides = [{groups[i] for i in part} for part in found.parts().values()]
        assert len(set.union(*sides)) == sum(map(len, sides)) == 12
        folds = [{groups[i] for i in found.training[found.folds == f]} for f in range(3)]
        assert len(set.union(*folds)) == sum(map(len, folds))


def test_unequal_groups_are_dealt_by_the_seed_and_close_to_the_shares(tmp_path):
    photos = read(folder_of(tmp_path, {"a": 30, "b": 30}))
    # Of each class six photos on their own, and groups of two to six.
    sizes = [1] * 6 + [6, 5, 5, 4, 2, 2]
    names = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
    groups, left = [], {0: names.copy(), 1: names.copy()}
    for label in photos.labels:
        groups.append(f"{label} {left[label].pop()}")
    tests, shares = set(), []
    for seed in range(10):
        found = split(photos, seed=seed, groups=groups)
        tests.add(tuple(found.test))
        shares.append([len(x) / 60 for x in found.parts().values()])
        assert len({groups[i] for i in found.test}) >= 4
    assert len(tests) > 7
    np.testing.assert_allclose(np.mean(shares, axis=0), [0.6, 0.2, 0.2], atol=0.05)


def test_photos_that_all_look_alike_are_refused_by_name_and_may_be_told_apart(tmp_path):
    rng, scene = np.random.default_rng(0), IMAGES[0].astype(int)
    for i in range(24):
        noisy = np.clip(scene + rng.integers(-2, 3, scene.shape), 0, 255).astype(np.uint8)
        put(tmp_path, f"{'ab'[i % 2]}/{i:02}.png", noisy)
    photos = read(tmp_path)
    refused(lambda: split(photos), "a has 1 of 12, as 12 of them, such as a/", "duplicates=exact")
    exact = split_photos(photos, find_twins(photos, "exact"), (), seed=0, **SHARES)
    assert [len(x) for x in exact.parts().values()] == [14, 6, 4]


def test_shares_that_leave_too_few_photos_to_confirm_on_are_refused(tmp_path):
    photos = read(folder_of(tmp_path, {"a": 5, "b": 5}))
    refused(lambda: split(photos, selection=0.4, test=0.4), "folds: selection 0.4 and test 0.4")


def test_a_share_that_leaves_a_part_without_a_class_is_refused_by_its_name(tmp_path):
    photos = read(folder_of(tmp_path, {"a": 8, "b": 8}))
    refused(lambda: split(photos, selection=0.05), "no photo of a is left for the selection part",
            "a share of 0.05 of 8 photos", "allowed: more photos, or other shares")  # fmt: skip
    groups = ["one"] * 6 + [str(i) for i in range(10)]
    refused(lambda: split(photos, selection=0.05, groups=groups), "groups: no photo of ")


def test_photos_that_stay_together_and_are_most_of_a_part_are_told(tmp_path):
    photos = read(folder_of(tmp_path, {"a": 10, "b": 10}))
    labels, units = photos.labels, np.arange(20)
    parts = [np.concatenate([np.flatnonzero(labels == c)[a:b] for c in (0, 1)])
             for a, b in ((0, 6), (6, 8), (8, 10))]  # fmt: skip
    job = SimpleNamespace(photos=photos, split=Split(*parts, np.zeros(12, int), units))
    assert list(_bent(job)) == []
    units[parts[0][:4]] = units[parts[2][:2]] = 99
    of = photos.names[labels[parts[0][0]]]
    assert list(_bent(job)) == [
        f"    {part}: {most} of the {count} photos of {of} stay together, and show no more than few"
        for part, most, count in (("training", 4, 6), ("test", 2, 2))
    ]
    assert _some((0, 1), photos) == ", ".join(photos.paths[:2])
    assert _some(range(7), photos).endswith(f"{photos.paths[3]} and 3 more")


def test_the_notebook_starts_from_the_defaults():
    cells = json.loads((ROOT / "notebooks" / "09_your_photos.ipynb").read_text("utf-8"))["cells"]
    (given,) = (c for c in cells if "parameters" in c["metadata"].get("tags", []))
    values = {}
    exec("".join(given["source"]), values)
    defaults = {f.name: f.default for f in fields(Settings) if f.name not in ("dir", "out")}
    assert values["strategy"] and not [
        name for name in values.keys() & defaults.keys() if values[name] != defaults[name]
    ]


def test_groups_from_a_table(tmp_path):
    photos = read(folder_of(tmp_path / "photos", {"a": 6, "b": 6}))
    table = tmp_path / "groups.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "group"), *((p, p[-5]) for p in photos.paths)])
    assert read_groups(photos, str(table)) == [p[-5] for p in photos.paths]
    blanks = "".join(f"{p} , {p[-5]} \n" for p in photos.paths)
    table.write_text(f"file,group\n{blanks}")
    assert read_groups(photos, str(table)) == [p[-5] for p in photos.paths]
    table.write_text(f"file,group\n{blanks}a/0.png,other\n")
    refused(lambda: read_groups(photos, str(table)), "two groups of a/0.png: 0 and other")
    table.write_text("file,group\na/0.png,1\n")
    refused(lambda: read_groups(photos, str(table)), "groups.csv has no group of")
    table.write_text("name,plant\n")
    refused(
        lambda: read_groups(photos, str(table)),
        "has the columns name, plant; allowed: file and group",
    )


GROUPS = [("(", "no regular expression"), ("plant", "has 0 groups"), (r"(\d+)x", "does not match"),
          (r"(x*)", "does not match")]  # fmt: skip


@pytest.mark.parametrize(("pattern", "words"), GROUPS)
def test_groups_that_do_not_work_are_refused(tmp_path, pattern, words):
    photos = read(folder_of(tmp_path, {"a": 2, "b": 2}))
    refused(lambda: read_groups(photos, pattern), words)


def test_too_few_photos_are_refused_with_how_many_are_needed(tmp_path):
    photos = read(folder_of(tmp_path, {"a": 2, "b": 9}))
    refused(lambda: split(photos), "a has 2", f"at least {LEAST_UNITS} photos of each class")
    photos = read(folder_of(tmp_path / "twice", {"a": 9, "b": 9}))
    groups = ["one" if c == 0 else str(i) for i, c in enumerate(photos.labels)]
    refused(lambda: split(photos, groups=groups), "a has 1")


def test_one_class_with_nearly_all_photos_is_in_every_part(tmp_path):
    photos = read(folder_of(tmp_path, {"most": 50, "few": 5}))
    for part in split(photos).parts().values():
        assert set(photos.labels[part]) == {0, 1}


# ------------------------------------------------------------------------------------- the settings

REFUSED = [
    ({"dir": "x", "strategy": "shortlst"}, "did you mean shortlist?"),
    ({"dir": "x", "epohcs": 3}, "epohcs: unknown parameter (did you mean epochs?)"),
    ({"dir": "x", "keep": 1}, "below 1"),
    ({}, "DIR is missing"),
    ({"dir": "x", "weights": "none"}, "has seen no photos"),
    ({"dir": "x", "strategy": "fixed"}, "'fixed' needs layers"),
    ({"dir": "x", "layers": "conv*"}, "not for strategy shortlist"),
    ({"dir": "x", "backbone": "VGG16", "alpha": 0.5}, "0.5 is not for VGG16"),
    ({"dir": "x", "learning_rate": "5e-5"}, "write 5.0e-5"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED)
def test_settings_that_do_not_work_are_refused(values, words):
    refused(lambda: load_settings(values), "photos: ", words)


def test_what_comes_out_has_a_folder_of_plain_letters():
    out = load_settings({"dir": '/data/my $photos = "1"/'}).out_dir
    assert out.parts[-3:] == ("build", "photos", "my_photos_1")
