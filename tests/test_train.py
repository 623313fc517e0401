"""The plain engine, and the parts of a training that both engines share."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from lib import train
from lib.backbones.build import load_backbone, weights_digest
from lib.ledger import read_results
from lib.params import ROOT, Params, load_params
from lib.partition import Block
from lib.results import Results
from lib.train import (
    LanePlateau,
    Task,
    accuracy,
    batch_order,
    batches,
    fit_plain,
    freeze_except,
    train_plain,
)


def make_task(n=10, epochs=2, **changes) -> Task:
    rng = np.random.default_rng(1)
    images = rng.random((n + 6, 32, 32, 3)).astype("float32")
    targets = np.eye(3, dtype="float32")[rng.integers(0, 3, n + 6)]
    params = Params("test", batch_size=4, learning_rate=1e-3, **changes)
    return Task(images[:n], targets[:n], images[n:], targets[n:], epochs, params)


@pytest.fixture(scope="module")
def mobilenet():
    return load_backbone("MobileNet", image_size=32, weights="embedded", thin=True)


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    layers, x = keras.layers, keras.Input((32, 32, 3))
    image = x
    for name in ("low", "middle", "high"):
        x = layers.Conv2D(4, 3, 2, use_bias=False, activation="tanh", name=name)(x)
        x = layers.BatchNormalization(name=f"{name}_norm")(x)
    return keras.Model(image, x)


def test_batch_order_is_a_permutation_that_changes_by_epoch_and_seed():
    orders = [batch_order(50, epoch, seed) for epoch in (0, 1) for seed in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    np.testing.assert_array_equal(orders[0], batch_order(50, 0, 0))


def test_batches_cover_an_epoch_in_its_order():
    task = replace(make_task(), order_seed=3)
    stream = batches(task)
    for epoch in range(2):
        parts = [next(stream)[0] for _ in range(3)]
        assert [len(p) for p in parts] == [4, 4, 2]
        order = batch_order(10, epoch, task.order_seed)
        np.testing.assert_array_equal(np.concatenate(parts), task.train_images[order])


def test_freeze_except_trains_exactly_these(mobilenet):
    freeze_except(mobilenet, ["conv1", "conv_pw_5_bn"])
    trainable = {v.path.split("/")[0] for v in mobilenet.trainable_weights}
    assert trainable == {"conv1", "conv_pw_5_bn"}
    freeze_except(mobilenet, [])
    assert mobilenet.trainable_weights == []
    with pytest.raises(ValueError, match="no_such_layer"):
        freeze_except(mobilenet, ["no_such_layer"])


def test_frozen_weights_stay_bit_identical_and_tuned_ones_move(small):
    before = {layer.name: layer.get_weights() for layer in small.layers}
    tuned = ("middle", "middle_norm")
    fit_plain(small, Block("two", tuned), 0, make_task())
    for layer in small.layers:
        for now, then in zip(layer.get_weights(), before[layer.name], strict=True):
            if layer.name in tuned:
                assert not np.array_equal(now, then)  # BatchNorm statistics included
            else:
                np.testing.assert_array_equal(now, then)
    small.set_weights([w for layer in small.layers for w in before[layer.name]])


def test_train_plain_leaves_the_backbone_as_it_was(small):
    before = weights_digest(small)
    history = train_plain(small, Block("one", ("low",)), 0, make_task(epochs=3))
    assert weights_digest(small) == before
    assert all(layer.trainable for layer in small.layers)
    assert len(history.val_accuracy) == len(history.val_loss) == len(history.train_accuracy) == 3
    assert history.probabilities.shape == (6, 3)
    assert {round(a * 6, 9) % 1 for a in history.val_accuracy} == {0}


class Schedule:
    """Keras' own callback on a made-up model, epoch by epoch."""

    def __init__(self, params):
        self.optimizer = keras.optimizers.SGD(params.learning_rate)
        self.callback = train.plateau(params)
        self.callback.set_model(self)
        self.callback.on_train_begin()

    def update(self, accuracy: float) -> np.float32:
        """The rate after an epoch with this accuracy, which `fit` reports as a float32."""
        self.callback.on_epoch_end(0, {"val_accuracy": float(np.float32(accuracy))})
        return np.float32(keras.ops.convert_to_numpy(self.optimizer.learning_rate))


def accuracies(images: int, rng) -> np.ndarray:
    """Of twelve epochs and three lanes: often equal, often one or two images apart."""
    steps = rng.integers(-1, 3, (12, 3)).cumsum(axis=0) + images // 3
    return steps.clip(0, images) / images


@pytest.mark.parametrize("images", [12, 50, 300, 1101])
@pytest.mark.parametrize("patience", range(11))
def test_lane_plateau_is_keras_rule_to_the_bit(patience, images):
    rng = np.random.default_rng([patience, images])
    for delta in (0.0, 1e-4, 1 / images, 2 / images, 0.02, 0.1):
        params = Params("test", plateau_patience=patience, plateau_min_delta=delta)
        params = replace(params, learning_rate=0.1, plateau_factor=1 / 3)
        ours, theirs = LanePlateau(3, params), [Schedule(params) for _ in range(3)]
        for epoch in accuracies(images, rng):
            ours.update(epoch)
            keras_rates = [lane.update(a) for lane, a in zip(theirs, epoch, strict=True)]
            np.testing.assert_array_equal(ours.rates, keras_rates)
        if patience < 2 and delta >= 2 / images:
            assert ours.rates.min() < np.float32(0.1)  # the rule was put to use


def test_accuracy():
    probabilities = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.4, 0.6], [0.5, 0.5]]], "float32")
    right = accuracy(probabilities, np.array([[1.0, 0.0], [0.0, 1.0]], "float32"))
    np.testing.assert_array_equal(right, [1.0, 0.0])


def curves(rows):
    """The photos that each run got right after each epoch."""
    return np.array([line.split(";") for line in rows["curve"]], float)


def falls(rows, params):
    """After which epochs, but the last, each run's learning rate fell, bool ``(runs, epochs)``."""
    plateau, found = LanePlateau(len(rows), params), []
    for right in curves(rows).T[:-1]:
        before = plateau.rates
        plateau.update(right / rows["eval_images"].iloc[0])
        found.append(plateau.rates < before)
    return np.array(found).T


def lowered(rows, params):
    """How often each run's learning rate fell before its last epoch."""
    return falls(rows, params).sum(axis=1)


def test_the_page_says_how_often_the_committed_runs_were_slowed():
    page = " ".join((ROOT / "docs" / "paper-size.md").read_text(encoding="utf-8").split())
    for profile in ("cpu", "cpu_native", "paper_short", "paper_native"):
        params = load_params(profile)
        rows = Results.read(params).valid.drop_duplicates("key")
        assert not any(lowered(of, params).any() for _, of in rows.groupby("split"))
    params = load_params("paper_small")
    rows = Results.read(params).valid.drop_duplicates("key")
    found = {key: (of, lowered(of, params)) for key, of in rows.groupby(["backbone", "split"])}
    _, search = found["MobileNet", "train[:10%]"]
    _, final = found["MobileNet", "train[:70%]"]
    of_mobilenet = f"{(search > 0).sum()} of {len(search)} search runs and {(final > 0).sum()} of"
    assert f"{of_mobilenet} {len(final)} final runs of MobileNet" in page
    runs, search = found["MobileNetV3Small", "train[:10%]"]
    one_class = runs["val_accuracy"].to_numpy() * 1101 == 259
    text = f"{(search > 0).sum()} of {len(search)} search runs of MobileNetV3Small"
    assert f"in {text}, in {(search == 4).sum()} of them four times" in page
    assert f"All {one_class.sum()} of its runs that end at one class" in page
    assert (search[one_class] == 4).all() and search[runs["val_accuracy"].argmax()] <= 1


def test_the_page_says_when_the_rate_of_the_committed_runs_fell():
    """And that only the run of Baseline II that fails was never slowed."""
    page = " ".join((ROOT / "docs" / "paper-size.md").read_text(encoding="utf-8").split())
    params = load_params("paper_small")
    rows = Results.read(params).only("MobileNetV3Small").final.sort_values("repeat")
    everything = rows[rows["method"] == "baseline_2"]
    right, slowed = curves(everything) / 1101, falls(everything, params)
    first = [1 + int(found.argmax()) for found in slowed if found.any()]
    failed = right[~slowed.any(axis=1)]
    assert "it falls after epochs {}, {} and {},".format(*first) in page and len(failed) == 1
    assert all(of[at + 2 :].min() > 0.82 for of, at in zip(right, first, strict=False))
    assert f"until epoch {1 + failed[0].argmax()}, to {failed[0].max():.3f}" in page
    learned = everything["train_accuracy"].to_numpy()[~slowed.any(axis=1)]
    assert f"of the training photos it has {learned[0]:.2f} right" in page
    ends = [*first, right.shape[1]]
    jumps = [np.abs(np.diff(of[:end])).max() for of, end in zip(right, ends, strict=True)]
    assert f"jumps by up to {max(jumps):.2f} from one epoch" in page
    other = read_results(ROOT / "results" / "paper_small_tensorflow")
    mine, others = (of[of["method"] == "block_wise"] for of in (rows, other))
    most = max(np.abs(np.diff(curves(of) / 1101)).max() for of in (mine, others))
    assert f"A block's accuracy jumps by {most:.2f} at most" in page
    found = falls(mine, params)
    assert [(lowered(of, params) == 0).sum() for of in (mine, others)] == [1, 1]
    first = sorted(1 + int(of.argmax()) for of in found if of.any())
    assert len(first) == 3 and f"first after epochs {first[0]} to {first[-1]}." in page
