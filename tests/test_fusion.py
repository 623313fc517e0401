"""Training fused equals training alone: lane by lane against `keras.Model.fit`."""

import itertools
import os
from dataclasses import replace

import keras
import numpy as np
import pytest

from lib import fusion, train
from lib import steps as steps_module
from lib.backbones import BACKBONES, classifier, load_backbone, weights_digest
from lib.params import InputError, Params
from lib.partition import (
    Block,
    baseline_1,
    baseline_2,
    block_wise,
    layer_wise,
    sliding_window,
    weighted_layers,
)
from lib.train import Task, batches, freeze_except, fuse, fused_steps, train_fused, train_plain
from lib.trunk import Trunk, read_graph

EVAL, CLASSES, SIZE = 12, 3, 32
# Adam's epsilon, on both sides. With Keras' 1e-7 a weight whose true gradient is zero, such as a
# kernel's scale before a BatchNorm, takes whole steps in the direction of its rounding noise.
EPSILON = 1e-3


def make_task(dropout=0.0, n=10, epochs=2, **changes) -> Task:
    """By default two epochs of ten images: two batches of four and one of two."""
    rng = np.random.default_rng(0)
    images = rng.random((n + EVAL, SIZE, SIZE, 3)).astype("float32")
    targets = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, n + EVAL)]
    params = Params("test", **{"learning_rate": 5e-5, "dropout": dropout} | changes)
    return Task(images[:n], targets[:n], images[n:], targets[n:], epochs, params)


def six_blocks(backbone: keras.Model) -> list[Block]:
    """A layer, a BatchNorm, a block, a window, a ranked triple and Baseline II."""
    names = weighted_layers(backbone)
    norms = [
        x.name for x in backbone.layers if isinstance(x, keras.layers.BatchNormalization)
    ] or names
    blocks, windows = block_wise(backbone), sliding_window(backbone, 3)
    return [
        layer_wise(backbone)[len(names) // 3],
        Block("norm", (norms[len(norms) // 2],)),
        blocks[len(blocks) // 2],
        windows[len(windows) // 2],
        Block("top_3", (names[0], names[len(names) // 2], names[-1])),
        *baseline_2(backbone),
    ]


def train_lanes(backbone, blocks, seeds, task, cut=0):
    graph = read_graph(backbone)
    train, evaluation = (
        Trunk.from_images(graph, x).advance(cut) for x in (task.train_images, task.eval_images)
    )
    steps = fused_steps(fuse(train, blocks, seeds, task), train, evaluation, task)
    return steps, train_fused(steps, task)


def assert_same_run(history, reference, tolerance=1e-4):
    np.testing.assert_allclose(history.probabilities, reference.probabilities, atol=tolerance)
    np.testing.assert_allclose(history.val_loss, reference.val_loss, atol=10 * tolerance)


def train_alone(backbone, block, task):
    """One run step by step with Keras' own `train_on_batch`; the trained model's probabilities."""
    freeze_except(backbone, block.layers)
    head = classifier(backbone.output.shape[1:], CLASSES, dropout=0, seed=0)
    model = keras.Model(backbone.input, head(backbone.output))
    eager = not JAX  # twenty steps are not worth a graph in TensorFlow
    adam = keras.optimizers.Adam(task.params.learning_rate, epsilon=EPSILON)
    model.compile(adam, "categorical_crossentropy", run_eagerly=eager)
    steps = task.epochs * len(task.train_images) // task.params.batch_size
    for images, targets in itertools.islice(batches(task), steps):
        model.train_on_batch(images, targets)
    return keras.ops.convert_to_numpy(model(task.eval_images, training=False))


# XLA compiles each reference run for up to a minute on two cores: on JAX, the plainest alone and
# the branching backbone below, unless ALL_BACKBONES is set.
JAX = keras.backend.backend() == "jax"
NAMES = BACKBONES if not JAX or os.environ.get("ALL_BACKBONES") else ("VGG16",)


@pytest.mark.parametrize("name", NAMES)
def test_each_lane_equals_the_run_alone(name, monkeypatch):
    monkeypatch.setattr(steps_module, "EPSILON", EPSILON)
    backbone = load_backbone(name, image_size=SIZE, weights="embedded", thin=True)
    task = make_task(n=20, epochs=4)  # 20 steps at the paper's rate
    if name == "MobileNetV3Small":  # rescales inside; [0, 1] would be noise around a blank image
        task = replace(
            task, train_images=task.train_images * 255, eval_images=task.eval_images * 255
        )
    blocks = six_blocks(backbone)
    before = weights_digest(backbone)
    steps, histories = train_lanes(backbone, blocks, [0] * len(blocks), task)
    assert weights_digest(backbone) == before  # the lanes' weights are their own
    initial = {x.name: x.get_weights() for x in backbone.layers}
    for lane, (block, history) in enumerate(zip(blocks, histories, strict=True)):
        backbone.set_weights([w for x in backbone.layers for w in initial[x.name]])
        alone = train_alone(backbone, block, task)
        # Most lanes agree to 1e-6. Not all: BatchNorms on the statistics of four images amplify
        # rounding, and a sum that rounds to the other side of a relu has another gradient.
        near = {"atol": 1e-4, "rtol": 0}
        np.testing.assert_allclose(history.probabilities, alone, **near)
        for layer in backbone.layers:
            if layer.name not in block.layers:
                for now, then in zip(layer.get_weights(), initial[layer.name], strict=True):
                    np.testing.assert_array_equal(now, then)  # frozen: bit-identical
            else:
                tuned = steps.model.tuned_weights(steps.weights(), lane, layer.name)
                for ours, theirs in zip(tuned, layer.trainable_variables, strict=True):
                    np.testing.assert_allclose(ours, keras.ops.convert_to_numpy(theirs), **near)


def test_dropout_masks_and_seeds_are_those_of_the_run_alone():
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task = make_task(dropout=0.5)
    blocks, seeds = [layer_wise(backbone)[-1]] * 3 + baseline_1(backbone), [0, 1, 0, 1]
    _, histories = train_lanes(backbone, blocks, seeds, task)
    for j in (1, 3):
        assert_same_run(histories[j], train_plain(backbone, blocks[j], seeds[j], task))
    np.testing.assert_array_equal(histories[0].probabilities, histories[2].probabilities)
    assert abs(histories[0].probabilities - histories[1].probabilities).max() > 1e-3


def test_a_trunk_changes_nothing():
    backbone = load_backbone("MobileNetV2", image_size=SIZE, weights="embedded", thin=True)
    task, blocks = make_task(dropout=0.5), layer_wise(backbone)[-4:]
    graph = read_graph(backbone)
    cut = min(graph.span(b.layers)[0] for b in blocks)
    _, whole = train_lanes(backbone, blocks, [0] * 4, task)
    _, above = train_lanes(backbone, blocks, [0] * 4, task, cut)
    for a, b in zip(whole, above, strict=True):
        assert_same_run(a, b)


def test_plateau_lowers_each_lanes_rate_as_keras_does():
    """Some lanes stop improving before others: the rates must part, and the runs still agree."""
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task = make_task(n=8, epochs=5, plateau_patience=1, plateau_min_delta=0.05)
    blocks = [layer_wise(backbone)[-1], *baseline_2(backbone)]
    _, histories = train_lanes(backbone, blocks, [0, 0], task)
    for block, history in zip(blocks, histories, strict=True):
        assert_same_run(history, train_plain(backbone, block, 0, task))


def test_wrong_lane_order_is_noticed(monkeypatch):
    """The equality above is a real test: an engine that mixes up its lanes fails it."""
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task, blocks = make_task(learning_rate=1e-3), layer_wise(backbone)[-4:]
    _, right = train_lanes(backbone, blocks, [0] * 4, task)
    stack = fusion.Value.stack
    monkeypatch.setattr(fusion.Value, "stack", lambda value, lanes: stack(value, lanes[::-1]))
    _, wrong = train_lanes(backbone, blocks, [0] * 4, task)
    with pytest.raises(AssertionError):
        for a, b in zip(right, wrong, strict=True):
            assert_same_run(a, b)


def test_a_lane_that_diverges_leaves_the_others_as_they_were(monkeypatch):
    """Bit by bit: the same lanes, with one of them not a number from the start."""
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task, blocks, build = make_task(dropout=0.5), layer_wise(backbone)[-3:], train.classifier
    _, sound = train_lanes(backbone, blocks, [0, 1, 2], task)

    def broken(*args, seed, **options):
        model = build(*args, seed=seed, **options)
        if seed == 1:
            model.set_weights([w * np.nan for w in model.get_weights()])
        return model

    monkeypatch.setattr(train, "classifier", broken)
    _, histories = train_lanes(backbone, blocks, [0, 1, 2], task)
    assert [h.failed for h in histories] == ["", "the loss is nan from epoch 1 on", ""]
    for j in (0, 2):
        np.testing.assert_array_equal(histories[j].probabilities, sound[j].probabilities)
        assert histories[j].val_loss == sound[j].val_loss


def test_a_pool_gives_back_what_it_holds():
    variables = [keras.Variable(np.arange(n, dtype="float32").reshape(-1, 2)) for n in (4, 6)]
    for some in ([], variables[:1], variables):
        pool = fusion.Pool()
        pool.add(0, some)
        arrays = pool.split(keras.ops.convert_to_tensor(pool.initial()))
        for array, variable in zip(arrays, some, strict=True):
            np.testing.assert_array_equal(array, variable)
        np.testing.assert_array_equal(pool.join(arrays), pool.initial())


def test_any_order_of_the_stack_that_is_kept_track_of_is_right(monkeypatch):
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task, blocks = make_task(learning_rate=1e-3), layer_wise(backbone)[-4:]
    _, right = train_lanes(backbone, blocks, [0] * 4, task)
    monkeypatch.setattr(fusion, "_in_order", lambda inputs, lanes: tuple(sorted(lanes))[::-1])
    _, reordered = train_lanes(backbone, blocks, [0] * 4, task)
    for a, b in zip(right, reordered, strict=True):
        assert_same_run(a, b)


def branching_backbone() -> keras.Model:
    """Branches, a concatenation, squeeze-and-excite, bare operations, a layer used twice."""
    layers = keras.layers
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, 2, padding="same", name="stem")(image)
    a = layers.Conv2D(8, 1, name="left")(x)
    b = layers.BatchNormalization(name="right_norm")(layers.Conv2D(8, 3, padding="same")(x))
    twice = layers.Conv2D(8, 3, padding="same", name="twice")
    c = twice(keras.ops.relu(twice(x)) * 0.5 + 1.0)
    x = layers.Concatenate()([a, b, c])
    gate = layers.Dense(24, "sigmoid", name="gate")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 24))(gate)])
    x = layers.add([x, layers.Conv2D(24, 1, name="residual")(x)])
    return keras.Model(image, layers.MaxPooling2D(4)(x))


def test_any_functional_backbone(monkeypatch):
    monkeypatch.setattr(steps_module, "EPSILON", EPSILON)
    keras.utils.set_random_seed(0)
    backbone, task = branching_backbone(), make_task(n=20, epochs=4)
    blocks = [
        *layer_wise(backbone),
        Block("both branches", ("left", "right_norm")),
        Block("far apart", ("stem", "residual")),
        Block("twice and gate", ("twice", "gate")),
    ]
    _, histories = train_lanes(backbone, blocks, [0] * len(blocks), task)
    for block, history in zip(blocks, histories, strict=True):
        initial = backbone.get_weights()
        alone = train_alone(backbone, block, task)
        backbone.set_weights(initial)
        np.testing.assert_allclose(history.probabilities, alone, atol=1e-4)


def test_a_lane_below_the_cut_is_refused():
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    with pytest.raises(ValueError, match="below the cut"):
        train_lanes(backbone, layer_wise(backbone)[:1], [0], make_task(), cut=5)


def test_other_classifiers_are_refused():
    from lib.fusion import LaneClassifier

    def build(seed):
        return keras.Sequential([keras.Input((4,)), keras.layers.UnitNormalization(name="odd")])

    with pytest.raises(InputError, match="odd.*UnitNormalization.*Flatten, Dense and Dropout"):
        LaneClassifier(build, [0])
