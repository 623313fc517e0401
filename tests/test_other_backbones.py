"""Backbones outside the paper: trained fused as by plain Keras, or refused by name in both."""

import keras
import numpy as np
import pytest
from against_keras import weights_of
from keras import layers, ops

from lib.backbones.pure import prepare_backbone
from lib.lanes.trunk import Trunk, read_graph
from lib.params import InputError, Params
from lib.partition import Block, baseline_2, batch_norm, block_wise, sliding_window, weighted_layers
from lib.train import Task, fit_plain, freeze_except, fuse, fused_steps, train_fused

SIZE, CLASSES = 8, 3


@pytest.fixture(autouse=True)
def eagerly(monkeypatch):
    """A few steps are not worth a graph in TensorFlow."""
    compiled = keras.Model.compile
    eager = {"run_eagerly": keras.backend.backend() == "tensorflow"}
    monkeypatch.setattr(keras.Model, "compile", lambda *a, **o: compiled(*a, **o, **eager))


def make_task(n=6) -> Task:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((n + 4, SIZE, SIZE, 3)).astype("float32")
    targets = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, n + 4)]
    params = Params("test", batch_size=2, learning_rate=1e-2, dropout=0.0)
    return Task(images[:n], targets[:n], images[n:], targets[n:], 2, params)


def backbone_of(*parts, name="odd_one") -> keras.Model:
    """Convolutions around `parts`, functions of a tensor; the same weights in every call."""
    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(4, 3, activation="tanh", name="first")(image)
    for part in parts:
        x = ops.tanh(part(x))  # a BatchNorm straight after another takes its gradient away
    return keras.Model(image, layers.Conv2D(4, 3, strides=2, name="last")(x), name=name)


def assert_both_engines_agree(backbone: keras.Model, blocks: list[Block]) -> None:
    """Lane by lane against `fit_plain`, relative to how far the tuned weights moved."""
    task, graph = make_task(), read_graph(backbone)
    train, evaluation = (Trunk.from_images(graph, x) for x in (task.train_images, task.eval_images))
    steps = fused_steps(fuse(train, blocks, [0] * len(blocks), task), train, evaluation, task)
    histories, before = train_fused(steps, task), backbone.get_weights()
    tuned = steps.model.tuned.split(ops.convert_to_tensor(weights_of(steps)[0]))
    for lane, (block, history) in enumerate(zip(blocks, histories, strict=True)):
        initial = {v.path: ops.convert_to_numpy(v) for v in backbone.weights}
        _, alone = fit_plain(backbone, block, 0, task)
        np.testing.assert_allclose(history.probabilities, alone.probabilities, atol=1e-4)
        for name in block.layers:
            ours = tuned[steps.model.slots[lane, name][0]]
            theirs = backbone.get_layer(name).trainable_weights
            assert len(ours) == len(theirs) > 0
            for array, v in zip(ours, theirs, strict=True):
                plain = ops.convert_to_numpy(v)
                moved = np.abs(plain - initial[v.path]).max()
                assert moved > 1e-3
                np.testing.assert_allclose(array, plain, atol=1e-2 * moved)
        backbone.set_weights(before)


class DropPath(keras.Layer):
    """As in ConvNeXt: the rate by another name."""

    def __init__(self, drop_path_rate, **options):
        super().__init__(**options)
        self.drop_path_rate, self.seed = drop_path_rate, keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        if not training:
            return x
        keep = 1 - self.drop_path_rate
        shape = (ops.shape(x)[0], 1, 1, 1)
        return x / keep * ops.floor(keep + keras.random.uniform(shape, seed=self.seed))


def attend(x):
    attention = layers.MultiHeadAttention(1, 2, dropout=0.5, use_bias=False, name="attention")
    rows = layers.Reshape((36, 4))(x)
    return layers.Reshape((6, 6, 4))(attention(rows, rows))


def test_dropout_of_every_kind_is_off_in_both_engines(capsys):
    inner = [layers.Conv2D(4, 1, name="within"), layers.Dropout(0.5)]
    backbone = backbone_of(
        layers.Dropout(0.5, name="drop"),
        layers.SpatialDropout2D(0.5),
        layers.GaussianDropout(0.5),
        layers.AlphaDropout(0.5),
        DropPath(0.5),
        keras.Sequential(inner, name="nested"),
        attend,
    )
    assert_both_engines_agree(backbone, [Block("some", ("first", "nested", "attention"))])
    said = [line for line in capsys.readouterr().err.splitlines() if "dropout" in line]
    assert len(said) == 1 and "odd_one" in said[0] and "drop," in said[0] and "4 more" in said[0]


class Hidden(keras.Layer):
    """A BatchNorm within a layer that knows nothing of training."""

    def __init__(self, **options):
        super().__init__(**options)
        self.norm = layers.BatchNormalization(momentum=0.5)

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x):
        return self.norm(x)


def test_training_reaches_what_is_within_a_tuned_layer_and_nothing_else():
    """Whatever was asked for where the graph was built: `fit` overrides it too."""
    nested = keras.Sequential([layers.Conv2D(4, 1, use_bias=False), Hidden()], name="nested")
    backbone = backbone_of(
        lambda x: layers.BatchNormalization(name="always", momentum=0.5)(x, training=True),
        lambda x: layers.BatchNormalization(name="never", momentum=0.5)(x, training=False),
        Hidden(name="hidden"),
        layers.TimeDistributed(layers.BatchNormalization(momentum=0.5), name="rows"),
        nested,
    )
    halves = ("always", "hidden"), ("never", "rows", "nested")
    assert_both_engines_agree(backbone, [Block("half", names) for names in halves])


def test_a_backbone_that_arrives_frozen_is_tuned_by_both_engines():
    backbone = backbone_of(keras.Sequential([layers.Conv2D(4, 1)], name="nested"))
    backbone.trainable = False
    assert weighted_layers(backbone) == ["first", "nested", "last"]
    assert_both_engines_agree(backbone, baseline_2(backbone))
    freeze_except(backbone, ["last"])  # and after the graph has been read
    graph = read_graph(backbone)
    freeze_except(backbone, [])
    trunk = Trunk.from_images(graph, make_task().train_images)
    model = fuse(trunk, [Block("last", ("last",))], [0], make_task())
    assert sum(model.tuned.sizes) == 4 * 4 * 9 + 4


def test_layers_that_only_hold_constants_are_not_tuned():
    """EfficientNet's Normalization, and a BatchNorm that neither scales nor shifts."""
    constants = layers.Normalization(mean=[0.1] * 4, variance=[2.0] * 4, name="given")
    counted = layers.Normalization(name="adapted")
    bare = layers.BatchNormalization(center=False, scale=False, name="bare")
    norm = layers.BatchNormalization(name="norm", momentum=0.5)
    backbone = backbone_of(constants, counted, norm, bare)
    assert weighted_layers(backbone) == ["first", "norm", "last"]
    assert [b.layers for b in block_wise(backbone)] == [("first",), ("norm",), ("last",)]
    assert batch_norm(backbone) == [Block("batch_norm", ("norm",))]
    assert sliding_window(backbone, 3)[1] == Block("window_002", ("norm",))
    assert_both_engines_agree(backbone, baseline_2(backbone))


def test_a_layer_without_weights_cannot_be_tuned_by_either_engine():
    constants = layers.Normalization(mean=0.1, variance=2.0, name="constants")
    backbone, block = backbone_of(constants), Block("odd", ("constants",))
    trunk = Trunk.from_images(read_graph(backbone), make_task().train_images)
    with pytest.raises(ValueError, match="constants"):
        freeze_except(backbone, block.layers)
    with pytest.raises(ValueError, match="constants"):
        fuse(trunk, [block], [0], make_task())


def test_layers_that_take_each_image_by_itself_are_accepted():
    backbone = backbone_of(
        layers.GroupNormalization(2),
        layers.LayerNormalization(),
        layers.UnitNormalization(axis=-1),
        layers.Lambda(lambda x: x * 2),
        layers.Softmax(),
        lambda x: layers.Concatenate()([x, ops.relu(x), ops.transpose(x, (0, 2, 1, 3))]),
        layers.GaussianNoise(0.0),
    )
    before = backbone.get_weights()
    assert len(prepare_backbone(backbone)) == 18
    for now, then in zip(backbone.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


class Noisy(keras.Layer):
    def call(self, x):
        return x + 0.01 * keras.random.normal(ops.shape(x))


class Penalised(keras.Layer):
    def call(self, x):
        self.add_loss(ops.mean(x))
        return x


class OwnNorm(keras.Layer):
    """Follows the mean of its batches whether it is frozen or not."""

    def build(self, shape):
        self.mean = self.add_weight(shape=(shape[-1],), trainable=False, name="follower")

    def call(self, x, training=None):
        if training:
            self.mean.assign(ops.mean(x, (0, 1, 2)))
        return x - self.mean


class Counter(keras.Layer):
    """Scales, and counts the steps for which it is tuned."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones")
        self.steps = self.add_weight(shape=(), dtype="int32", trainable=False, name="steps")

    def call(self, x, training=None):
        if training and self.trainable:
            self.steps.assign(self.steps + 1)
        return x * self.scale


def untracked_norm(x):
    norm = layers.BatchNormalization()
    norm.build(x.shape)
    return layers.Lambda(lambda y: norm(y), name="odd")(x)


def shared(x):
    conv = layers.Conv2D(4, 1, name="conv")
    return conv(keras.Sequential([conv], name="odd")(x))


def masked(x):
    return layers.ReLU()(layers.Masking(name="odd")(x))


def folded(x):
    return ops.reshape(ops.reshape(x, (-1, 6, 4)), (-1, 6, 6, 4))


RANDOM = "draws at random"
MIXES = "mixes the images"
REFUSED = {
    "noise": (layers.GaussianNoise(0.1, name="odd"), "odd.*GaussianNoise.*" + RANDOM),
    "flip": (layers.RandomFlip(name="odd"), "odd.*RandomFlip.*" + RANDOM),
    "contrast": (layers.RandomContrast(0.1, name="odd"), "odd.*RandomContrast.*" + RANDOM),
    "nested flip": (
        lambda x: keras.Sequential([keras.Sequential([layers.RandomFlip(name="odd")])])(x),
        "odd.*RandomFlip.*" + RANDOM,
    ),
    "noise without a seed": (Noisy(name="odd"), "odd.*Noisy.*" + RANDOM),
    "noise in a lambda": (
        layers.Lambda(lambda x: x * keras.random.uniform(()), name="odd"),
        "odd.*Lambda.*" + RANDOM,
    ),
    "mean": (
        layers.Lambda(lambda x: x - ops.mean(x, 0, keepdims=True), name="odd"),
        "odd.*Lambda.*" + MIXES,
    ),
    "a little of the batch": (
        layers.Lambda(lambda x: x + 1e-3 * ops.mean(x, 0), name="odd"),
        "odd.*Lambda.*" + MIXES,
    ),
    "place": (
        layers.Lambda(lambda x: x * ops.cumsum(ops.ones_like(x), 0), name="odd"),
        "odd.*Lambda.*" + MIXES,
    ),
    "number of images": (
        layers.Lambda(lambda x: x / ops.sum(ops.ones_like(x)), name="odd"),
        "odd.*Lambda.*" + MIXES,
    ),
    "flipped batch": (lambda x: ops.flip(x, 0), "Flip.*" + MIXES),
    "unit over the batch": (layers.UnitNormalization(axis=0, name="odd"), "odd.*Unit.*" + MIXES),
    "activation": (
        layers.Activation(lambda x: x / (1 + ops.max(x)), name="odd"),
        "odd.*Activation.*" + MIXES,
    ),
    "convolution's activation": (
        layers.Conv2D(4, 1, activation=lambda x: x - ops.mean(x), name="odd"),
        "odd.*Conv2D.*" + MIXES,
    ),
    "batch folded": (folded, "reshape.*Reshape.*" + MIXES),
    "twice the batch": (
        lambda x: layers.Concatenate(0, name="odd")([x, x]),
        "odd.*Concatenate.*" + MIXES,
    ),
    "one mean": (lambda x: x + ops.mean(x, 0, keepdims=True), r"Mean.*shape \(1, 6, 6, 4\)"),
    "kernel": (
        layers.Conv2D(4, 1, kernel_regularizer="l2", name="odd"),
        "odd.*Conv2D.*a regularizer on its kernel",
    ),
    "nested bias": (
        keras.Sequential([layers.Dense(4, bias_constraint="non_neg", name="odd")]),
        "odd.*Dense.*a constraint on its bias",
    ),
    "activity": (
        layers.Conv2D(4, 1, activity_regularizer="l1", name="odd"),
        "odd.*Conv2D.*activity regularizer",
    ),
    "half floats": (
        lambda x: keras.Sequential(
            [layers.Conv2D(4, 1, dtype="mixed_float16", name="odd"), layers.ReLU()]
        )(x),
        "odd.*Conv2D.*computes in float16 and float32: allowed is float32",
    ),
    "a cast": (
        lambda x: ops.cast(ops.cast(x, "float16"), "float32"),
        "Cast.*makes float16: allowed is float32",
    ),
    "own loss": (Penalised(name="odd"), "odd.*Penalised.*adds to the loss"),
    "spectral": (
        layers.SpectralNormalization(layers.Conv2D(4, 1), name="odd"),
        "odd.*SpectralNormalization.*changes its .* though it is frozen",
    ),
    "follower": (OwnNorm(name="odd"), "odd.*OwnNorm.*changes its follower though it is frozen"),
    "counter": (Counter(name="odd"), "odd.*Counter.*counts in int32 in its steps"),
    "untracked": (untracked_norm, "odd.*Lambda.*does something else in training"),
    "mask": (masked, "odd.*Masking.*makes a mask"),
    "shared": (shared, "shares its kernel"),
}


# Of those that take more, or something else, than a factor.
ARGUMENTS = {
    "RandomCrop": (6, 6),
    "RandomElasticTransform": (),
    "RandomErasing": (),
    "RandomPosterization": (4,),
    "RandomSharpness": (0.1, (0, 1)),
    "RandomTranslation": (0.1, 0.1),
}


@pytest.mark.parametrize("name", [x for x in dir(layers) if x.startswith("Random")])
def test_every_augmentation_of_keras_is_refused(name):
    layer = getattr(layers, name)(*ARGUMENTS.get(name, (0.1,)), name="odd")
    with pytest.raises(InputError, match=f"odd.*{name}.*{RANDOM}"):
        prepare_backbone(backbone_of(lambda x: layer(x[..., :3])))


if keras.backend.backend() == "jax":  # where Keras itself refuses what has no seed
    del REFUSED["noise without a seed"], REFUSED["noise in a lambda"]


@pytest.mark.filterwarnings("ignore:Layer 'last'.*passed an input with a mask")
@pytest.mark.parametrize("case", REFUSED)
def test_what_lanes_cannot_do_as_plain_keras_is_refused_by_both_engines(case):
    part, words = REFUSED[case]
    backbone = backbone_of(part)
    for start in (read_graph, lambda b: fit_plain(b, Block("none", ()), 0, make_task())):
        with pytest.raises(InputError, match=words) as error:
            start(backbone)
        assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (keras.Input((None, None, 3)), r"\(None, None, None, 3\): allowed is .* one known size"),
        (keras.Input((8, 8, 3), batch_size=2), r"\(2, 8, 8, 3\): allowed is any number of images"),
        (keras.Input((8, 8, 3), dtype="uint8"), r"images as uint8: allowed is float32"),
    ],
)
def test_images_of_no_known_size_number_or_kind_are_refused(image, words):
    backbone = keras.Model(image, layers.Conv2D(4, 3)(image))
    with pytest.raises(InputError, match=words):
        read_graph(backbone)


def test_a_layer_may_be_called_by_keyword():
    image = keras.Input((8, 8, 3))
    y = layers.Conv2D(4, 3, name="conv")(inputs=image)
    backbone = keras.Model(image, layers.BatchNormalization(name="norm")(inputs=y))
    photos = np.random.default_rng(0).random((2, 8, 8, 3), "float32")
    graph = read_graph(backbone)
    (call,) = graph.calls  # folded into one
    (found,) = call.frozen({graph.input: ops.convert_to_tensor(photos)})
    np.testing.assert_allclose(found, backbone(photos), atol=1e-6)
