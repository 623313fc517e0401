"""The records: every network of Keras and nothing else, and what they say of it is so."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from lib.backbones.build import file_names, load_backbone, scale_inputs
from lib.backbones.records import (
    ALPHA_BACKBONES,
    BACKBONE_NAMES,
    CENTRED,
    NORMALISED,
    PIXELS,
    RECORDS,
    THIN_BACKBONES,
    UNIT_RANGE,
    Backbone,
    backbone_name,
    is_own_name,
)
from lib.params import ROOT, InputError, load_params

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
BGR_MEAN = np.array([103.939, 116.779, 123.68])
NATIVE = {  # of RGB pixels, as the papers of these networks have it
    UNIT_RANGE: lambda x: x / 127.5 - 1,
    CENTRED: lambda x: x[..., ::-1] - BGR_MEAN,
    NORMALISED: lambda x: (x / 255 - MEAN) / DEVIATION,
    PIXELS: lambda x: x,
}


def test_the_records_are_the_networks_of_keras_and_nothing_else():
    """A version of Keras with more networks fails here: they want records."""
    there = vars(keras.applications)
    assert {name for name, x in there.items() if callable(x)} == set(RECORDS)
    for name in set(there) - set(RECORDS):
        with pytest.raises(InputError, match="backbones"):
            load_params("paper", backbones=[name])


def test_every_network_can_be_named_and_the_papers_come_first():
    names = [*RECORDS]
    assert load_params("paper", backbones=names).backbones == tuple(names)
    assert names[:5] == [*BACKBONE_NAMES] == [*load_params("paper").backbones]
    assert set(THIN_BACKBONES) >= set(BACKBONE_NAMES)


def test_those_that_have_a_width_multiplier_take_it_and_no_others():
    for name in RECORDS:
        code = getattr(keras.applications, name).__code__
        arguments = code.co_varnames[: code.co_argcount]
        assert ("alpha" in arguments) == (name in ALPHA_BACKBONES)


@pytest.mark.parametrize("name", RECORDS)
def test_native_inputs_are_those_of_the_record(name):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 3), dtype="uint8")
    before = images.copy()
    expected = NATIVE[RECORDS[name].native](images.astype("float64"))
    native = scale_inputs(images, name, "native")
    assert native.dtype == np.float32
    np.testing.assert_allclose(native, expected, atol=1e-4)
    np.testing.assert_array_equal(scale_inputs(images, name, "unit") * 255, images)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", [n for n in RECORDS if not n.startswith("MobileNetV3")])
def test_the_size_of_its_training_is_keras_own(name, monkeypatch):
    """The size that each function asks for where it is given none; MobileNetV3 asks for none."""
    asked = []

    def ask(shape, default_size, **_):
        asked.append(default_size)
        raise InterruptedError

    monkeypatch.setattr(keras.src.applications.imagenet_utils, "obtain_input_shape", ask)
    with pytest.raises(InterruptedError):
        getattr(keras.applications, name)(weights=None)
    assert asked == [RECORDS[name].imagenet_size]


@pytest.mark.parametrize("name", ["Xception", "InceptionV3", "VGG19"])
def test_the_least_size_is_keras_own(name):
    build, least = getattr(keras.applications, name), RECORDS[name].least_size
    with pytest.raises(ValueError, match=f"at least {least}x{least}"):
        build(include_top=False, weights=None, input_shape=(least - 1, least - 1, 3))
    with pytest.raises(InputError, match=f"{least - 1} is too small for {name}; allowed: {least}"):
        load_backbone(name, image_size=least - 1, weights="none")


def test_a_network_that_keras_builds_with_a_layer_more_takes_no_weights_file(monkeypatch):
    built = {}

    def downloaded(**options):  # as Keras does, but for the download
        built.update(options)
        raise ValueError("no network")

    monkeypatch.setattr(keras.applications, "EfficientNetB0", downloaded)
    with pytest.raises(InputError, match="imagenet for EfficientNetB0 .*no network"):
        load_backbone("EfficientNetB0", image_size=32)
    assert built["input_shape"] == (224, 224, 3) and "alpha" not in built
    with pytest.raises(InputError, match="file cannot be given to EfficientNetB0") as error:
        load_backbone("EfficientNetB0", image_size=32, weights="x.weights.h5")
    assert "imagenet, none, or a .keras file in backbones" in str(error.value)


def test_names_of_weights_files():
    assert file_names("DenseNet121") == ("densenet121_notop.weights.h5",)
    assert Backbone("New", PIXELS).weight_files == ("new_notop.weights.h5",)
    assert file_names("EfficientNetB0") == ()


def test_names_of_rows():
    assert backbone_name("a/b.c/mine.v2.keras") == "mine.v2" and backbone_name("VGG16") == "VGG16"
    assert all(map(is_own_name, ("mine.v2", "vgg16", "a" * 60)))
    assert not any(map(is_own_name, ("VGG16", "", ".keras", "my own", "-a", "é", "a" * 61, "a/b")))


@pytest.mark.parametrize(
    ("backbones", "words"),
    [
        (["EficientNetB0"], "did you mean EfficientNetB0, "),
        (["densenet121"], "did you mean DenseNet121[?]"),
        (["a/my own.keras"], "rows of 'a/my own.keras' would be named 'my own'"),
        (["VGG16.keras"], "would be named 'VGG16'"),
        (["a/x.keras", "b/x.keras"], "rows of 'a/x.keras' would be named 'x'"),
    ],
)
def test_what_is_no_backbone_is_one_line(backbones, words):
    with pytest.raises(InputError, match=words) as error:
        load_params("cpu", backbones=backbones)
    assert "allowed: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["EfficientNetB0", "a/mine.keras"])
def test_thin_is_for_those_that_have_a_twin(name):
    with pytest.raises(InputError, match=f"thin: true is not allowed for {name}, .*allowed: false"):
        load_params("smoke", backbones=["VGG16", name])
    with pytest.raises(InputError, match="thin: Xception has no thin twin"):
        load_backbone("Xception", image_size=96, weights="none", thin=True)


def test_a_size_that_is_too_small_for_one_of_the_networks_is_refused():
    with pytest.raises(InputError, match="image_size: 64 is too small for Xception; allowed: 71"):
        load_params("cpu", backbones=["VGG16", "Xception"])


def test_parameters_are_checked_without_keras():
    code = "import sys, lib.params as p; p.load_params('paper', backbones=['Xception']); "
    code += "sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
