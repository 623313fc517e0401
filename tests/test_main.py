"""What is refused, is refused with one line, before anything is trained."""

import h5py
import pytest
from PIL import Image

from lib.__main__ import main
from lib.params import ROOT


def photo(path, colour=(200, 30, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), colour).save(path)


def one_class(folder):
    for i in range(4):
        photo(folder / "photos" / "daisy" / f"{i}.png")


def no_image(folder):
    one_class(folder)
    photo(folder / "photos" / "roses" / "0.png")
    (folder / "photos" / "roses" / "1.jpg").write_text("this is no image")


def other_weights(folder):
    from lib.backbones import load_backbone

    other = load_backbone("VGG16", image_size=32, weights="none", thin=True)
    other.save_weights(folder / "vgg.weights.h5")


def no_weights(folder):
    with h5py.File(folder / "empty.weights.h5", "w"):
        pass


def strange_profile(text):
    return lambda folder: (folder / "mine.yaml").write_text(text)


def nothing(folder):
    (folder / "photos").mkdir()


# Name, what is prepared in a folder, settings ({} is the folder), words of the one line.
BAD = [
    ("unknown profile", nothing, "profile=quik", "quik quick"),
    ("profile that is no file", nothing, "profile={}/none.yaml", "none.yaml"),
    ("unknown key", nothing, "profile=smoke epohcs=3", "epohcs epochs"),
    ("unknown key in a file", strange_profile("lerning_rate: 0.1"), "profile={}/mine.yaml",
     "mine.yaml lerning_rate learning_rate"),
    ("misspelt backbone", nothing, "profile=smoke backbones=MobilNet", "MobilNet MobileNet"),
    ("number as text", strange_profile("learning_rate: 5e-5"), "profile={}/mine.yaml",
     "mine.yaml learning_rate 5e-5 5.0e-5"),
    ("negative epochs", nothing, "profile=smoke epochs=-1", "epochs -1 1"),
    ("fraction of an epoch", nothing, "profile=smoke epochs=1.5", "epochs 1.5"),
    ("file that is no YAML", strange_profile("a: [1"), "profile={}/mine.yaml", "mine.yaml YAML"),
    ("empty photo folder", nothing, "profile=smoke data={}/photos", "photos"),
    ("one class", one_class, "profile=smoke data={}/photos", "photos 1 class 2"),
    ("no image", no_image, "profile=smoke data={}/photos", "1.jpg"),
    ("weights of another network", other_weights,
     "profile=smoke backbones=MobileNet weights={}/vgg.weights.h5", "vgg.weights.h5 MobileNet"),
    ("weights file without weights", no_weights,
     "profile=smoke backbones=MobileNet weights={}/empty.weights.h5", "empty.weights.h5"),
    ("weights that are not there", nothing, "profile=smoke weights={}/gone.h5", "gone.h5"),
    ("data folder without tf_flowers", nothing, "profile=cpu data_dir={}/photos",
     "tf_flowers photos"),
    ("class missing in a slice", nothing, "profile=smoke search_split=train[:2%]", "search_split"),
    ("slices that overlap", nothing, "profile=smoke eval_split=train[60%:]", "eval_split"),
    ("not a setting", nothing, "profile=smoke epochs", "epochs KEY=VALUE"),
]  # fmt: skip


@pytest.mark.parametrize(("prepare", "settings", "words"), [b[1:] for b in BAD],
                         ids=[b[0] for b in BAD])  # fmt: skip
def test_bad_input_is_one_line(tmp_path, capsys, monkeypatch, prepare, settings, words):
    monkeypatch.setenv("BLOCKWISE_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path)
    results = tmp_path / "rows"
    code = main(["check", *settings.format(tmp_path).split(), f"results={results}"])
    error = capsys.readouterr().err.strip()
    assert code == 2
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    for word in words.split():
        assert word in error, error
    assert not results.exists()


def test_check_tells_the_cost_and_trains_nothing(tmp_path, capsys):
    rows = tmp_path / "rows"
    assert main(["check", "profile=smoke", "backbones=VGG16", f"results={rows}"]) == 0
    out = capsys.readouterr().out
    assert "100 images" in out and "VGG16" in out and "runs" in out
    assert not rows.exists()


def test_backbones_are_printed_for_make(capsys):
    assert main(["backbones", "profile=quick", "backbones=VGG16 MobileNet"]) == 0
    assert capsys.readouterr().out.split() == ["VGG16", "MobileNet"]


def test_figures_without_rows(tmp_path, capsys):
    assert main(["figures", "profile=smoke", f"results={tmp_path / 'rows'}"]) == 2
    assert "no rows" in capsys.readouterr().err


def test_every_profile_is_valid(capsys):
    for path in sorted((ROOT / "params").glob("*.yaml")):
        assert main(["backbones", f"profile={path.stem}"]) == 0
