"""`make photos` as its users run it: hard folders, kills, and the network where nothing else is."""

import json
import os
import re
import subprocess
import sys
import time
import venv
from importlib.metadata import version

import keras
import numpy as np
import pytest
from PIL import Image

from lib.params import ROOT
from lib.photos.drawn import procedural_flowers
from lib.tune.report import FILE
from lib.tune.run import CARD, MODEL

pytestmark = pytest.mark.long
THIN = ("backbone=VGG16", "thin=true", "weights=none", "image_size=32", "exports=")
LIMIT = 600  # seconds


def folder_of(folder, counts):
    """A folder of drawn photos, so many of each class."""
    images = iter(procedural_flowers(sum(counts), 40, 5)[0])
    for c, count in enumerate(counts):
        place = folder / f"class {c:03}"
        place.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(next(images)).save(place / f"{i}.png")
    return folder


def started(folder, out, *words):
    words = [f"dir={folder}", f"out={out}", *THIN, *words]
    return subprocess.Popen(
        [sys.executable, "-m", "lib", "photos", *words], cwd=ROOT, env=os.environ,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(process):
    said, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    return said


@pytest.mark.parametrize("counts", [[5] * 200, [90, 5, 5]], ids=["200 classes", "one has 90 %"])
def test_hard_folders_end_with_a_network_and_a_report(tmp_path, counts):
    folder = folder_of(tmp_path / "photos", counts)
    words = ("strategy=fixed", "layers=block5*", "epochs=2", "duplicates=exact")
    said = ended(started(folder, tmp_path / "out", *words))
    assert f"{sum(counts)} photos" in said
    model = keras.models.load_model(tmp_path / "out" / MODEL)
    assert model(np.zeros((1, 40, 40, 3))).shape == (1, len(counts))
    page = (tmp_path / "out" / FILE).read_text(encoding="utf-8")
    assert ("The classes that are mistaken most" in page) == (len(counts) > 25)
    assert f"class {len(counts) - 1:03}" in page


TESTED = "final_*/test.json"


@pytest.mark.parametrize(
    ("strategy", "moments"),
    [
        (("strategy=halving", "candidates=blocks"), ("epochs_*/*.csv", TESTED)),
        (("strategy=fixed", "layers=block5*"), ("folds/**/*.csv", TESTED)),
    ],
    ids=["while it chooses", "while it confirms"],
)
def test_a_command_that_is_killed_goes_on_to_the_answer_of_another_that_is_not(
    tmp_path, strategy, moments
):
    """moments: what is there when each kill comes."""
    folder = folder_of(tmp_path / "photos", [20, 20, 20])
    words = (*strategy, "epochs=6", "learning_rate=0.002")
    for moment in moments:
        process, end = started(folder, tmp_path / "killed", *words), time.monotonic() + LIMIT
        while not list((tmp_path / "killed" / "rows").glob(f"*/{moment}")):
            assert process.poll() is None and time.monotonic() < end, moment
            time.sleep(0.02)
        process.kill()
        process.communicate()
    found = {name: tmp_path / name for name in ("killed", "whole")}
    for out in found.values():
        ended(started(folder, out, *words))
    one, other = (
        {path.parent.name: json.loads(path.read_text()) for path in out.rglob("final_*/test.json")}
        for out in found.values()
    )
    assert one.keys() == other.keys()
    for name, tested in one.items():
        assert tested["epochs"] == other[name]["epochs"]
        np.testing.assert_allclose(
            tested["probabilities"], other[name]["probabilities"], atol=0.01, err_msg=name
        )
    cards = ((out / CARD).read_text(encoding="utf-8").splitlines()[2] for out in found.values())
    one, other = (re.sub(r"[+-]?\d\.\d+", "#", card) for card in cards)
    assert one == other


ALONE = """
import json, sys
import keras, numpy
try:
    import lib
except ImportError:
    pass
else:
    sys.exit("the project is there")
model = keras.models.load_model(sys.argv[1])
print(json.dumps(model.predict(numpy.load(sys.argv[2]), verbose=0).tolist()))
"""


def test_the_network_is_loaded_where_there_is_keras_and_tensorflow_alone(tmp_path):
    """In a new environment, by pip."""
    folder = folder_of(tmp_path / "photos", [8, 8])
    ended(started(folder, tmp_path / "out", "strategy=fixed", "layers=block5*", "epochs=1"))
    path, photos = tmp_path / "out" / MODEL, procedural_flowers(4, 50, 1)[0]
    np.save(tmp_path / "photos.npy", photos)
    venv.create(tmp_path / "alone", with_pip=True)
    python = tmp_path / "alone" / "bin" / "python"
    wanted = [f"{name}=={version(name)}" for name in ("keras", "tensorflow")]
    subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True, timeout=LIMIT)
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [python, "-c", ALONE, path, tmp_path / "photos.npy"], cwd=tmp_path, env=own,
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = keras.models.load_model(path).predict(photos, verbose=0)
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-5)
