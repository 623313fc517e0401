"""Networks outside the paper through the normal parameters: searched, and fused equals plain."""

import hashlib
import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from lib.backbones.build import _rebuild, load_backbone, scale_inputs, weights_digest
from lib.executed import resolved
from lib.params import InputError, Params, from_notebook, load_params
from lib.partition import weighted_layers
from lib.sweep import final, plans, search, train_runs

SIZES = {  # pixels: the least that each takes
    "EfficientNetB0": 32,
    "DenseNet121": 32,
    "ConvNeXtTiny": 32,
    "NASNetMobile": 32,
    "Xception": 71,
}
INDEX = ["method", "block"]


@pytest.fixture(autouse=True)
def eagerly(monkeypatch):
    """A few steps are not worth a graph in plain Keras."""
    compiled = keras.Model.compile
    eager = {"run_eagerly": keras.backend.backend() == "tensorflow"}
    monkeypatch.setattr(keras.Model, "compile", lambda *a, **o: compiled(*a, **o, **eager))


def params_of(tmp_path, backbone: str, engine: str = "fused", **changes) -> Params:
    """Ten photos to train on, fifteen to score, two steps."""
    changes = {"image_size": 32, "n_images": 50, "search_split": "train[:10]"} | changes
    settings = {"thin": False, "learning_rate": 1e-3, "input_scaling": "native", "repeats": 2}
    rows = str(tmp_path / engine)
    return load_params(
        "smoke", backbones=[backbone], engine=engine, results=rows, **settings | changes
    )


def searched(params: Params, last: int):
    """The search rows of the last blocks, so many, and of Baseline I."""
    (plan,) = plans(params)
    runs = plan.search_runs("block_wise")[-last:] + plan.search_runs("baseline_1")
    train_runs([plan], lambda _: runs)
    return plan.results().rows.set_index(INDEX).sort_index()


def assert_the_same(fused, plain) -> None:
    """Losses agree to a small part of what tuning a block changes in them."""
    assert list(fused.index) == list(plain.index) and list(fused["key"]) == list(plain["key"])
    alone = fused.loc["baseline_1"]["val_loss"].iloc[0]
    moved = np.abs(fused.loc["block_wise"]["val_loss"] - alone).min()
    assert moved > 1e-5
    np.testing.assert_allclose(fused["val_loss"], plain["val_loss"], atol=0.02 * moved)
    assert list(fused["curve"]) == list(plain["curve"]) and not any(fused["failed"])


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.long) for name in SIZES])
def test_a_network_outside_the_paper_is_searched_and_fused_equals_plain(name, tmp_path):
    settings = {"image_size": SIZES[name]}
    fused, plain = (
        searched(params_of(tmp_path, name, engine, **settings), last=1)
        for engine in ("fused", "plain")
    )
    assert_the_same(fused, plain)
    assert set(fused["backbone"]) == {name} and set(fused["alpha"]) == {"1.0"}


def test_what_training_cannot_move_is_proposed_by_no_method():
    options = {"include_top": False, "weights": None, "input_shape": (32, 32, 3)}
    backbone = keras.applications.EfficientNetB0(**options)
    kinds = {type(backbone.get_layer(name)).__name__ for name in weighted_layers(backbone)}
    (constants,) = (x for x in backbone.layers if isinstance(x, layers.Normalization))
    assert constants.weights
    assert kinds == {"Conv2D", "DepthwiseConv2D", "BatchNormalization"}


def test_random_weights_of_layers_within_layers_repeat_too():
    """As in ConvNeXt's stem."""
    stem = keras.Sequential([layers.Conv2D(4, 1, name="conv")], name="stem")
    model = small(32, 3, stem)
    first, second = (_rebuild(model, 32, 1, model) for _ in "ab")
    assert weights_digest(first) == weights_digest(second) != weights_digest(model)
    assert np.std(first.get_layer("stem").get_weights()[0]) > 0


# ------------------------------------------------------------------------------ a .keras file


def small(size=32, channels=3, *parts, name="any") -> keras.Model:
    """Two convolutions, a BatchNorm and an addition; what is given comes last."""
    image = keras.Input((size, size, channels))
    x = layers.Conv2D(4, 3, strides=2, name="first")(image)
    y = layers.Conv2D(4, 3, padding="same", name="second")(
        layers.BatchNormalization(name="norm")(x)
    )
    x = layers.ReLU(name="relu")(layers.Add(name="sum")([x, y]))
    for part in parts:
        x = part(x)
    return keras.Model(image, x, name=name)


@pytest.fixture
def file(tmp_path):
    small().save(tmp_path / "mine.v2.keras")
    return tmp_path / "mine.v2.keras"


def test_a_keras_file_is_searched_and_its_rows_bear_its_name(file, tmp_path):
    fused, plain = (
        searched(params_of(tmp_path, str(file), engine), last=2) for engine in ("fused", "plain")
    )
    assert_the_same(fused, plain)
    assert set(fused["layers"]) == {"", "first;norm;second"}
    assert set(fused["backbone"]) == {"mine.v2"}
    assert set(fused["weights_sha256"]) == {hashlib.sha256(file.read_bytes()).hexdigest()}
    assert (tmp_path / "fused" / "block_wise-mine.v2.csv").is_file()


def test_ranks_and_final_runs_take_a_keras_file_and_do_nothing_twice(file, tmp_path):
    params = params_of(tmp_path, str(file), top_k=[2], random_layers=2, repeats=1)
    names = ("layer_wise", "top_2")
    rows = search(params, *names), final(params, *names)
    assert [len(x) for x in rows] == [3 + 1, 2]
    again = search(params, *names), final(params, *names)
    assert [list(x["finished_at"]) for x in again] == [list(x["finished_at"]) for x in rows]


@pytest.mark.parametrize("size", [32, 48])
def test_a_keras_file_keeps_names_and_weights_at_any_size(file, size):
    saved, model = keras.saving.load_model(file), load_backbone(str(file), image_size=size)
    assert model.input_shape == (None, size, size, 3)
    assert [x.name for x in model.layers[1:]] == [x.name for x in saved.layers[1:]]
    assert weights_digest(model) == weights_digest(saved)


def test_inputs_of_a_keras_file(tmp_path):
    """As they are, unless it is a network of Keras under the name that Keras gave it."""
    images = np.arange(12, dtype="uint8").reshape(1, 2, 2, 3) * 20
    for name, like in (
        ("any", None),
        ("xception", "Xception"),
        ("mobilenet_0.25_224", "MobileNet"),
        ("vgg16", "VGG16"),
        ("efficientnetv2-b0", "EfficientNetV2B0"),
        ("xception_of_mine", None),
    ):
        small(name=name).save(tmp_path / "it.keras")
        native = scale_inputs(images, str(tmp_path / "it.keras"), "native")
        expected = images if like is None else scale_inputs(images, like, "native")
        np.testing.assert_array_equal(native, expected)
    unit = scale_inputs(images, str(tmp_path / "it.keras"), "unit")
    np.testing.assert_array_equal(unit, images / np.float32(255))


@keras.saving.register_keras_serializable("ours")
class Own(layers.Layer):
    def call(self, x):
        return x


def sequential():
    return keras.Sequential([keras.Input((32, 32, 3)), layers.Conv2D(4, 3)])


REFUSED = {
    "sequential": (sequential, "is a Sequential; allowed: a functional"),
    "lambda": (
        lambda: small(32, 3, layers.Lambda(lambda x: x)),
        "Lambda.*Python lambda; allowed: .*without code",
    ),
    "of one channel": (lambda: small(32, 1), r"images have the shape \(32, 32, 1\)"),
    "of one size": (lambda: small(48, 3, layers.Flatten(), layers.Dense(2)), "for images of 32 px"),
    "semicolon": (lambda: small(32, 3, layers.ReLU(name="a;b")), "layer 'a;b'; allowed: a name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_keras_file_that_cannot_be_a_backbone_is_one_line(case, tmp_path):
    make, words = REFUSED[case]
    path = tmp_path / "odd.keras"
    make().save(path)
    with pytest.raises(InputError, match=f"backbones: {path}.*{words}") as error:
        load_backbone(str(path), image_size=32)
    assert "\n" not in str(error.value)


def test_a_layer_that_keras_does_not_know_is_named(tmp_path, monkeypatch):
    small(32, 3, Own(name="odd")).save(tmp_path / "own.keras")
    assert load_backbone(str(tmp_path / "own.keras"), image_size=48).layers[-1].name == "odd"
    monkeypatch.setattr(keras.saving, "get_registered_object", lambda name: None)
    with pytest.raises(InputError, match="layer 'odd' is of a class Own that Keras does not know"):
        load_backbone(str(tmp_path / "own.keras"), image_size=32)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "not a zip"),
        ("{", "Expecting"),
        ("[]", ""),
        ("{}", "config"),
        ('{"class_name": "Functional", "config": {"name": "x", "layers": [3]}}', ""),
    ],
)
def test_a_file_that_keras_did_not_write_is_one_line(config, reason, tmp_path):
    path = tmp_path / "odd.keras"
    path.write_text("not a model")
    if config is not None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", config)
    words = f"odd.keras cannot be read .*{reason}.*allowed: a model that Keras 3 saved"
    with pytest.raises(InputError, match=words):
        load_backbone(str(path), image_size=32)


def test_a_config_that_names_other_code_is_not_executed(file, tmp_path):
    """Safe mode: a file may not have Python's own functions called."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    config["config"]["layers"][-1] |= {"module": "os", "class_name": "abort"}
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(InputError, match="layer 'relu' is of a class abort"):
        load_backbone(str(file), image_size=32)


def test_a_notebook_is_told_where_the_file_of_its_backbone_is(file, tmp_path):
    params = params_of(tmp_path, str(file))
    found = from_notebook(resolved(params, "smoke"))
    assert found.backbones == (str(file),) and found.backbone_names == ("mine.v2",)
