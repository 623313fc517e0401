"""The backbones: shapes, names, weights files and their errors, input scaling, classifier."""

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from lib.backbones import build as backbones
from lib.backbones.build import (
    classifier,
    file_names,
    find_weights,
    load_backbone,
    scale_inputs,
    weights_digest,
)
from lib.backbones.records import BACKBONE_NAMES
from lib.params import InputError

WITH_WEIGHTS = dict(zip(BACKBONE_NAMES, (13, 54, 104, 86, 102), strict=True))


def thin(name, **options):
    return load_backbone(name, **{"image_size": 32, "weights": "none", "thin": True} | options)


def weighted(model):
    return [layer.name for layer in model.layers if layer.weights]


@pytest.mark.parametrize("name", BACKBONE_NAMES)
def test_backbone_computes_what_keras_computes_and_its_twin_has_its_layers(name, monkeypatch):
    """The renaming copy keeps order, wiring and non-layer operations of Keras' model."""
    options = {"include_top": False, "weights": None, "input_shape": (32, 32, 3)}
    original = getattr(keras.applications, name)(**options)

    def built(**given):  # once is enough: it is copied and not changed
        assert options.items() <= given.items() and given.get("alpha", 1) == 1
        return original

    monkeypatch.setattr(keras.applications, name, built)
    full = load_backbone(name, image_size=32, weights="none")
    full.set_weights(original.get_weights())
    images = np.random.default_rng(0).random((1, 32, 32, 3), dtype="float32")
    np.testing.assert_array_equal(full(images), original(images))
    assert len(weighted(full)) == WITH_WEIGHTS[name]
    assert full.count_params() == sum(layer.count_params() for layer in full.layers)
    assert all(layer.trainable for layer in full.layers)
    check_twin(thin(name), full)


def check_twin(twin, full):
    assert [layer.name for layer in twin.layers] == [layer.name for layer in full.layers]
    assert 50_000 <= twin.count_params() <= 400_000
    assert twin.output_shape[:3] == full.output_shape[:3]


def test_names_and_random_weights_repeat_in_one_process():
    first, second = thin("MobileNetV3Small"), thin("MobileNetV3Small")
    names = [op.name for op in first.operations]
    assert names == [op.name for op in second.operations]
    assert len(set(names)) == len(names)
    assert weights_digest(first) == weights_digest(second)


def test_digest_sees_a_single_changed_weight():
    model = thin("VGG16")
    before = weights_digest(model)
    weights = model.get_weights()
    weights[0].flat[0] += 1
    model.set_weights(weights)
    assert len(before) == 64 and weights_digest(model) != before


def test_weights_of_a_file_or_folder_fit_any_image_size(tmp_path):
    saved = load_backbone("MobileNet", image_size=64, alpha=0.25, weights="none")
    saved.set_weights([w + 1 for w in saved.get_weights()])
    file = tmp_path / "mobilenet_0.25_224_notop.weights.h5"
    saved.save_weights(file)
    for where in (tmp_path, file):
        loaded = load_backbone("MobileNet", image_size=96, alpha=0.25, weights=str(where))
        assert weights_digest(loaded) == weights_digest(saved)


def test_weights_of_another_network_are_refused_in_one_line(tmp_path):
    file = tmp_path / "x.weights.h5"
    thin("MobileNet").save_weights(file)
    for name in ("VGG16", "MobileNetV2"):  # fewer layers, and more
        with pytest.raises(InputError, match=f"x.weights.h5 does not fit {name}: layer") as error:
            thin(name, weights=str(file))
        assert "\n" not in str(error.value)


def test_a_wider_network_of_the_same_layers_is_refused(tmp_path):
    file = tmp_path / "x.weights.h5"
    thin("VGG16").save_weights(file)
    with pytest.raises(InputError, match=r"layer block1_conv1 has shapes \[\(3, 3, 3, 64\), "):
        load_backbone("VGG16", image_size=32, weights=str(file))


def test_a_file_with_one_layer_more_is_refused(tmp_path):
    model = thin("VGG16")
    more = keras.layers.Dense(2, name="extra")(model.output)
    keras.Model(model.input, more).save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(InputError, match="the file's layer extra is not in the backbone"):
        thin("VGG16", weights=str(tmp_path / "x.weights.h5"))


@pytest.mark.parametrize("file", ["x.weights.h5", "x.h5"])
def test_a_file_that_is_no_hdf5_is_refused(tmp_path, file):
    (tmp_path / file).write_text("not weights")
    with pytest.raises(InputError, match=f"{file} does not fit VGG16: .*open file"):
        thin("VGG16", weights=str(tmp_path / file))


def save_as_keras_2(model, path):
    """Write weights in the layout of Keras 2, whatever the name."""
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)


def test_a_layout_that_is_not_that_of_the_name_says_what_to_rename_the_file_to(tmp_path):
    model = thin("VGG16")
    model.set_weights([w + 1 for w in model.get_weights()])
    save_as_keras_2(model, tmp_path / "x.weights.h5")
    model.save_weights(tmp_path / "y.weights.h5")
    (tmp_path / "y.weights.h5").rename(tmp_path / "y.h5")
    for name, version, right in (("x.weights.h5", 2, "x.h5"), ("y.h5", 3, "y.weights.h5")):
        with pytest.raises(InputError) as error:
            thin("VGG16", weights=str(tmp_path / name))
        line = f"{name} does not fit VGG16: it is laid out as by Keras {version}: rename it to "
        assert str(error.value).endswith(line + right)
        (tmp_path / name).rename(tmp_path / right)
        loaded = thin("VGG16", weights=str(tmp_path / right))
        assert weights_digest(loaded) == weights_digest(model)


def test_in_a_folder_the_new_name_is_one_that_is_looked_for(tmp_path):
    model = load_backbone("MobileNet", image_size=32, alpha=0.25, weights="none")
    save_as_keras_2(model, tmp_path / "mobilenet_0.25_224_notop.weights.h5")
    with pytest.raises(InputError, match="rename it to mobilenet_2_5_224_tf_no_top.h5$"):
        load_backbone("MobileNet", image_size=32, alpha=0.25, weights=str(tmp_path))


def test_a_folder_without_the_file_names_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match="no file for MobileNet in .*mobilenet_0.5_224_notop.wei"):
        load_backbone("MobileNet", image_size=32, alpha=0.5, weights=str(tmp_path))


def test_file_names_cover_those_of_keras():
    assert file_names("MobileNet", 0.25)[1] == "mobilenet_2_5_224_tf_no_top.h5"
    assert file_names("MobileNetV2", 1)[0] == "mobilenet_v2_1.0_224_notop.weights.h5"
    assert file_names("ResNet50V2", thin=True) == ("thin_resnet50v2.weights.h5",)


def test_no_network_is_one_line(monkeypatch):
    def no_network(**options):
        if options["weights"] == "imagenet":
            raise Exception("URL fetch failure on x: None -- no name\nmore")
        return build(**options)

    build = keras.applications.VGG16
    monkeypatch.setattr(keras.applications, "VGG16", no_network)
    with pytest.raises(InputError, match="imagenet for VGG16 .*URL fetch failure") as error:
        load_backbone("VGG16", image_size=32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "size", "alpha"),
    [("MobileNet", 64, 0.25), ("MobileNetV2", 100, 0.35), ("NASNetMobile", 100, 1.0)],
)
def test_imagenet_weights_made_for_224_serve_any_size(monkeypatch, name, size, alpha):
    """It is the network that Keras builds for the size, also where its padding depends on it."""
    build = getattr(keras.applications, name)
    made = []

    def downloaded(weights, input_shape, **options):
        model = build(weights=None, input_shape=input_shape, **options)
        if weights == "imagenet":
            assert input_shape == (224, 224, 3)
            made.append(model)
        return model

    monkeypatch.setattr(keras.applications, name, downloaded)
    model = load_backbone(name, image_size=size, alpha=alpha)
    assert model.input_shape == (None, size, size, 3)
    assert weights_digest(model) == weights_digest(made[0])
    other = load_backbone(name, image_size=size, alpha=alpha, weights="none")
    assert [x.output.shape for x in model.layers] == [x.output.shape for x in other.layers]
    pads = [
        [x.padding for x in m.layers if isinstance(x, keras.layers.ZeroPadding2D)]
        for m in (model, other)
    ]
    assert pads[0] == pads[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "VGG"}, "backbone: 'VGG' is unknown; allowed: VGG16, "),
        ({"image_size": 31}, "image_size: 31"),
        ({"alpha": 0.5}, "alpha: VGG16 cannot have 0.5"),
        ({"weights": "embedded"}, "embedded exists for thin twins only"),
        ({"weights": "imagenet", "thin": True}, "no imagenet for the thin VGG16"),
        ({"weights": "nowhere.h5"}, "nowhere.h5 does not exist"),
        ({"weights": "README.md"}, "README.md must end in"),
    ],
)
def test_bad_arguments_are_named(change, message, monkeypatch, tmp_path):
    monkeypatch.setattr(backbones, "ROOT", tmp_path)
    (tmp_path / "README.md").touch()
    options = {"name": "VGG16", "image_size": 32, "weights": "none"} | change
    with pytest.raises(InputError, match=message):
        load_backbone(options.pop("name"), **options)


def test_scale_inputs():
    images = np.array([0, 51, 255], dtype="uint8").reshape(1, 1, 1, 3)
    flat = {n: scale_inputs(images, n, "native").ravel() for n in BACKBONE_NAMES}
    np.testing.assert_allclose(scale_inputs(images, "VGG16", "unit").ravel(), [0, 0.2, 1])
    np.testing.assert_allclose(flat["MobileNetV3Small"], [0, 51, 255])
    np.testing.assert_allclose(flat["MobileNet"], [-1, -0.6, 1], rtol=1e-6)
    np.testing.assert_allclose(flat["VGG16"], [255 - 103.939, 51 - 116.779, -123.68], rtol=1e-6)
    assert flat["ResNet50V2"].dtype == np.float32 and images.max() == 255
    with pytest.raises(InputError, match="input_scaling: 'x'"):
        scale_inputs(images, "VGG16", "x")


def test_classifier_is_the_papers_and_repeats_with_its_seed():
    model = classifier((2, 2, 8), 5, dropout=0.5, seed=1)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["Flatten", "Dense", "Dropout", "Dense", "Dense"]
    assert [d.units for d in model.layers if hasattr(d, "units")] == [128, 64, 5]
    assert model.output_shape == (None, 5)
    assert weights_digest(model) == weights_digest(classifier((2, 2, 8), 5, dropout=0.5, seed=1))
    assert weights_digest(model) != weights_digest(classifier((2, 2, 8), 5, dropout=0.5, seed=2))


def test_a_folder_of_weights_that_may_not_be_entered_is_one_line(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", closed)
    with pytest.raises(InputError, match=r"weights: .*closed cannot be read \(Permission denied\)"):
        find_weights(tmp_path / "closed", "VGG16")
