"""Training fused equals training alone: lane by lane against `keras.Model.fit`."""

import os
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from against_keras import (
    JAX,
    NEAR,
    Alone,
    agree,
    distances,
    fused,
    known,
    moved,
    prediction_distance,
    train_alone,
    train_fused_epochs,
    worst,
)
from keras import ops

from lib import train
from lib.backbones.build import load_backbone, scale_inputs, weights_digest
from lib.backbones.records import BACKBONE_NAMES
from lib.lanes import layers as layers_module
from lib.lanes import model as fusion
from lib.lanes import steps as steps_module
from lib.lanes.trunk import read_graph
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
from lib.photos.drawn import procedural_flowers
from lib.train import Task, train_fused, train_plain

EVAL, CLASSES, SIZE = 12, 3, 32


@pytest.fixture
def eagerly(monkeypatch):
    """A few steps are not worth a graph in plain Keras."""
    compiled = keras.Model.compile
    eager = {"run_eagerly": not JAX}
    monkeypatch.setattr(keras.Model, "compile", lambda *a, **o: compiled(*a, **o, **eager))


def make_task(dropout=0.0, n=8, epochs=2, **changes) -> Task:
    """By default two epochs of two batches of four."""
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
    return train_fused(fused(backbone, blocks, seeds, task, cut), task)


def assert_same_run(history, reference, tolerance=1e-4):
    np.testing.assert_allclose(history.probabilities, reference.probabilities, atol=tolerance)
    np.testing.assert_allclose(history.val_loss, reference.val_loss, atol=10 * tolerance)


@dataclass(frozen=True)
class Network:
    """A thin backbone, six lanes of it, and what Keras makes of each of them alone.

    Seeds and rates differ from lane to lane and rates from epoch to epoch, so that a lane which
    takes those of another is noticed. The rates are about four times the paper's. With ten times
    as much, tuning all of ResNet50V2 amplifies the rounding of one step a hundredfold in the next.
    """

    backbone: keras.Model
    task: Task
    blocks: list[Block]
    seeds: list[int]
    rates: np.ndarray  # (lanes, epochs)
    alone: list[Alone]
    known: list[dict[str, np.ndarray]]  # what is compared, see `known`


def flowers(name: str, n: int = 8) -> Task:
    """Drawn flowers as the backbone expects them, so many to train on in batches of four.

    Noise would not do: to a network all images of it are nearly the same, and a BatchNorm then
    divides by their small difference. Nor would a batch of two: of two values of a feature map of
    one pixel, a BatchNorm makes -1 and 1, whatever they are.
    """
    images, labels = procedural_flowers(n + EVAL, SIZE)
    images = scale_inputs(images, name, "unit" if name == "VGG16" else "native")
    targets = np.eye(CLASSES, dtype="float32")[labels % CLASSES]
    params = Params("test", learning_rate=2e-4, dropout=0.5)
    return Task(images[:n], targets[:n], images[n:], targets[n:], 2, params)


def network_of(backbone: keras.Model, blocks: list[Block], task: Task) -> Network:
    shares = np.resize([1, 0.5, 2, 1.5, 0.7], len(blocks))
    rates = task.params.learning_rate * np.stack([shares, shares[::-1] / 2], axis=1)
    alone, compared, seeds = [], [], [*range(len(blocks))]
    for block, seed, rate in zip(blocks, seeds, rates.tolist(), strict=True):
        alone.append(train_alone(backbone, block, seed, rate, task))
        again = train_alone(backbone, block, seed, [], moved(task))
        compared.append(known(alone[-1], again))
    return Network(backbone, task, blocks, seeds, rates, alone, compared)


# XLA compiles each reference run for up to a minute on two cores: on JAX, the plainest alone and
# the branching backbone below, unless ALL_BACKBONES is set.
NAMES = BACKBONE_NAMES if not JAX or os.environ.get("ALL_BACKBONES") else ("VGG16",)


LONG = ("MobileNetV2", "ResNet50V2")  # the costliest, with what the others have


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.long] * (n in LONG)) for n in NAMES],
)
def network(request) -> Network:
    backbone = load_backbone(request.param, image_size=SIZE, weights="embedded", thin=True)
    # A last batch of three, which is a graph of its own, is enough once.
    return network_of(
        backbone,
        six_blocks(backbone),
        flowers(request.param, n=11 if request.param == "VGG16" else 8),
    )


def assert_lanes_equal_the_runs_alone(network: Network) -> None:
    """Every array after every epoch, and the predictions, relative to how far they moved."""
    before = weights_digest(network.backbone)
    steps = fused(network.backbone, network.blocks, network.seeds, network.task)
    for epoch, ends in enumerate(train_fused_epochs(steps, network.rates, network.task)):
        for block, *lane in zip(network.blocks, ends, network.alone, network.known, strict=True):
            found = distances(*lane, epoch)
            assert agree(found), (block.name, epoch, worst(found))
    for block, probabilities, alone in zip(
        network.blocks, steps.evaluate()[0], network.alone, strict=True
    ):
        assert prediction_distance(probabilities, alone) < NEAR, block.name
    assert weights_digest(network.backbone) == before  # the lanes' weights are their own


def test_each_lane_equals_the_run_alone(network):
    for alone, compared in zip(network.alone, network.known, strict=True):
        arrays = [mask.any() for mask in compared.values()]
        assert np.mean(arrays) > 0.85  # without the biases below a tuned BatchNorm, and so on
        assert np.abs(alone.probabilities - alone.untrained).max() > 1e-3
    assert_lanes_equal_the_runs_alone(network)


def test_dropout_masks_and_seeds_are_those_of_the_run_alone(eagerly):
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task = make_task(dropout=0.5, n=10)  # the last batch is one of two
    blocks, seeds = [layer_wise(backbone)[-1]] * 3 + baseline_1(backbone), [0, 1, 0, 1]
    histories = train_lanes(backbone, blocks, seeds, task)
    for j in (1, 3):
        assert_same_run(histories[j], train_plain(backbone, blocks[j], seeds[j], task))
    np.testing.assert_array_equal(histories[0].probabilities, histories[2].probabilities)
    assert abs(histories[0].probabilities - histories[1].probabilities).max() > 1e-3


def test_a_trunk_changes_nothing():
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task, blocks = make_task(dropout=0.5), layer_wise(backbone)[-4:]
    graph = read_graph(backbone)
    cut = min(graph.span(b.layers)[0] for b in blocks)
    whole = train_lanes(backbone, blocks, [0] * 4, task)
    above = train_lanes(backbone, blocks, [0] * 4, task, cut)
    for a, b in zip(whole, above, strict=True):
        assert_same_run(a, b)


def test_plateau_lowers_each_lanes_rate_as_keras_does(eagerly):
    """Some lanes stop improving before others: the rates must part, and the runs still agree."""
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task = make_task(epochs=5, plateau_patience=1, plateau_min_delta=0.05)
    blocks = [layer_wise(backbone)[-1], *baseline_2(backbone)]
    histories = train_lanes(backbone, blocks, [0, 0], task)
    for block, history in zip(blocks, histories, strict=True):
        assert_same_run(history, train_plain(backbone, block, 0, task))


def test_sure_and_wrong_predictions_cost_and_teach_what_they_do_in_keras(monkeypatch, eagerly):
    """Below a probability of 1e-7 Keras' loss is another one on TensorFlow than on JAX."""
    build = train.classifier

    def sure(*args, **options):
        model = build(*args, **options)
        *below, kernel, bias = model.get_weights()
        model.set_weights([*below, kernel * 30, bias])
        return model

    monkeypatch.setattr(train, "classifier", sure)
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task, block = flowers("VGG16", n=11), layer_wise(backbone)[-1]
    plain = train_plain(backbone, block, 0, task)
    (history,) = train_lanes(backbone, [block], [0], task)
    likelihoods = np.sum(plain.probabilities * task.eval_targets, axis=1)
    assert likelihoods.min() < 1e-7 and abs(np.diff(plain.val_loss)) > 0.1
    np.testing.assert_allclose(history.val_loss, plain.val_loss, rtol=1e-4)
    np.testing.assert_allclose(history.probabilities, plain.probabilities, atol=1e-4)


def tuned_weights_stay(monkeypatch):
    def broken(weight, *rest):
        new = adam(weight, *rest)
        return (weight if len(weight.shape) == 1 else new[0]), *new[1:]

    adam = steps_module.adam
    monkeypatch.setattr(steps_module, "adam", broken)


def lanes_share_moments(monkeypatch):
    """Those of the classifiers, whose first axis is the lane."""

    def shared(x):
        return ops.broadcast_to(ops.mean(x, axis=0, keepdims=True), x.shape)

    def broken(weight, m, v, *rest):
        if len(weight.shape) > 1:
            m, v = shared(m), shared(v)
        return adam(weight, m, v, *rest)

    adam = steps_module.adam
    monkeypatch.setattr(steps_module, "adam", broken)


def lanes_are_swapped(monkeypatch):
    call = fusion.LaneClassifier.__call__
    monkeypatch.setattr(
        fusion.LaneClassifier,
        "__call__",
        lambda self, w, x, *rest: call(self, w, ops.flip(x, 0), *rest),
    )


def statistics_stay(monkeypatch):
    def broken(model, weights, statistics, *rest):
        logits, _, inputs = call(model, weights, statistics, *rest)
        return logits, statistics, inputs

    call = fusion.FusedModel.__call__
    monkeypatch.setattr(fusion.FusedModel, "__call__", broken)


def mask_of_another_step(monkeypatch):
    mask = fusion.LaneClassifier._mask
    monkeypatch.setattr(
        fusion.LaneClassifier, "_mask", lambda self, *args: mask(self, *args[:-1], args[-1] + 1)
    )


def another_seed(monkeypatch):
    monkeypatch.setattr(train, "Lane", lambda layers, seed: fusion.Lane(layers, seed + 1))


def rate_of_another_lane(monkeypatch):
    spread = fusion.FusedModel.spread
    monkeypatch.setattr(
        fusion.FusedModel, "spread", lambda model, rates: spread(model, ops.roll(rates, 1))
    )


def kernel_of_another_lane(monkeypatch):
    gradient = steps_module.narrow_gradient
    monkeypatch.setattr(
        steps_module, "narrow_gradient", lambda x, back: gradient(x, ops.roll(back, 1, axis=0))
    )


def nothing_broken(monkeypatch):
    pass


MUTANTS = [
    *(tuned_weights_stay, lanes_share_moments, lanes_are_swapped, statistics_stay),
    *(mask_of_another_step, another_seed, rate_of_another_lane, kernel_of_another_lane),
    nothing_broken,
]


def train_eagerly(network: Network) -> dict[str, dict]:
    """The distances of each lane but the last two after one epoch, without a graph.

    Without one, because tracing it anew takes most of the time, and an engine broken on purpose
    must be traced anew.
    """
    lanes, tf = slice(4), pytest.importorskip("tensorflow")
    blocks, graph = network.blocks[lanes], read_graph(network.backbone)
    cut = min(graph.span(block.layers)[0] for block in blocks)
    tf.config.run_functions_eagerly(True)
    try:
        steps = fused(network.backbone, blocks, network.seeds[lanes], network.task, cut)
        steps._call = lambda function, *arrays: function(*map(tf.constant, arrays)).numpy()
        (ends,) = train_fused_epochs(steps, network.rates[lanes, :1], network.task)
    finally:
        tf.config.run_functions_eagerly(False)
    columns = zip(blocks, ends, network.alone[lanes], network.known[lanes], strict=True)
    return {block.name: distances(*lane, epoch=0) for block, *lane in columns}


@pytest.mark.skipif(JAX, reason="breaks the engine's common parts, and that once is enough")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_engine_broken_on_purpose_is_noticed(network, mutant, monkeypatch):
    """The comparison is a real test: each fault is far outside what it allows."""
    if mutant is statistics_stay and network.backbone.name == "vgg16":
        pytest.skip("it has no BatchNorm")
    mutant(monkeypatch)
    found = train_eagerly(network)
    largest = {name: worst(of) for name, of in found.items()}
    assert all(map(agree, found.values())) == (mutant is nothing_broken), largest


def test_a_large_batch_trains_as_a_small_one_does(monkeypatch):
    """The classifier's first kernel has its gradient inside Adam's pass or beside it."""
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task, blocks = make_task(dropout=0.5), layer_wise(backbone)[-3:]
    inside = train_lanes(backbone, blocks, [0, 1, 2], task)
    monkeypatch.setattr(steps_module, "NARROW", 0)
    monkeypatch.setattr(steps_module, "narrow_gradient", None)
    beside = train_lanes(backbone, blocks, [0, 1, 2], task)
    for one, other in zip(inside, beside, strict=True):
        assert one.val_accuracy == other.val_accuracy
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


@pytest.mark.skipif(JAX, reason="XLA joins operations by itself")
@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV3Small"])
def test_an_evaluation_of_much_work_gives_the_same_by_the_graph_optimisers(name, monkeypatch):
    backbone = load_backbone(name, image_size=SIZE, weights="embedded", thin=True)
    blocks, joined = [*six_blocks(backbone), *baseline_1(backbone)], []
    bias_add = layers_module._bias_add
    monkeypatch.setattr(layers_module, "_bias_add", lambda *a: joined.append(a) or bias_add(*a))
    graph = read_graph(backbone)
    work = EVAL * sum(graph.macs(graph.span(block.layers)[0]) for block in blocks)
    found = []
    for least, optimised in ((work + 1, False), (work, True)):
        monkeypatch.setattr(steps_module, "OPTIMISED", least)
        monkeypatch.setattr(steps_module, "device", lambda: "CPU")  # with a GPU it is never done
        steps = fused(backbone, blocks, [*range(len(blocks))], make_task())
        assert steps.optimised == optimised
        found.append(steps.evaluate())
        assert bool(joined) == optimised
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert np.ptp(one, axis=0).max() > 1e-3  # lanes differ


def test_a_lane_that_diverges_leaves_the_others_as_they_were(monkeypatch):
    """Bit by bit: the same lanes, with one of them not a number from the start."""
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task, blocks, build = make_task(dropout=0.5), layer_wise(backbone)[-3:], train.classifier
    sound = train_lanes(backbone, blocks, [0, 1, 2], task)

    def broken(*args, seed, **options):
        model = build(*args, seed=seed, **options)
        if seed == 1:
            model.set_weights([w * np.nan for w in model.get_weights()])
        return model

    monkeypatch.setattr(train, "classifier", broken)
    histories = train_lanes(backbone, blocks, [0, 1, 2], task)
    assert [h.failed for h in histories] == ["", "the loss is nan from epoch 1 on", ""]
    for j in (0, 2):
        np.testing.assert_array_equal(histories[j].probabilities, sound[j].probabilities)
        assert histories[j].val_loss == sound[j].val_loss


def test_a_pool_gives_back_what_it_holds():
    variables = [keras.Variable(np.arange(n, dtype="float32").reshape(-1, 2)) for n in (4, 6)]
    for some in ([], variables[:1], variables):
        pool = fusion.FlatArrays()
        pool.add(0, some)
        arrays = pool.split(keras.ops.convert_to_tensor(pool.initial()))
        for array, variable in zip(arrays, some, strict=True):
            np.testing.assert_array_equal(array, variable)
        np.testing.assert_array_equal(pool.join(arrays), pool.initial())


def test_any_order_of_the_stack_that_is_kept_track_of_is_right(monkeypatch):
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    task, blocks = make_task(learning_rate=1e-3), layer_wise(backbone)[-4:]
    right = train_lanes(backbone, blocks, [0] * 4, task)
    monkeypatch.setattr(fusion, "_in_order", lambda inputs, lanes: tuple(sorted(lanes))[::-1])
    reordered = train_lanes(backbone, blocks, [0] * 4, task)
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


def test_any_functional_backbone():
    keras.utils.set_random_seed(0)
    backbone, task = branching_backbone(), flowers("MobileNet")
    blocks = [
        *layer_wise(backbone),
        Block("both branches", ("left", "right_norm")),
        Block("far apart", ("stem", "residual")),
        Block("twice and gate", ("twice", "gate")),
    ]
    assert_lanes_equal_the_runs_alone(network_of(backbone, blocks, task))


def test_a_lane_below_the_cut_is_refused():
    backbone = load_backbone("VGG16", image_size=SIZE, weights="embedded", thin=True)
    with pytest.raises(ValueError, match="below the cut"):
        train_lanes(backbone, layer_wise(backbone)[:1], [0], make_task(), cut=5)


def test_other_classifiers_are_refused():
    from lib.lanes.model import LaneClassifier

    def build(seed):
        return keras.Sequential([keras.Input((4,)), keras.layers.UnitNormalization(name="odd")])

    with pytest.raises(InputError, match="odd.*UnitNormalization.*Flatten, Dense and Dropout"):
        LaneClassifier(build, [0])
