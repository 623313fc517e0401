"""How a run is trained: the plain Keras way, which is the reference, and the fused way.

Both start from the same weights, see the same batches in the same order, draw the same dropout
masks and follow the same schedule (paper, Section V), so that either can be checked against the
other run by run.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import keras
import numpy as np

from .backbones.build import classifier
from .backbones.pure import prepare_backbone
from .checkpoint import Checkpoint
from .lanes.memory import EVAL_BATCH
from .lanes.model import FusedModel, Lane
from .lanes.steps import make_steps
from .lanes.trunk import Trunk
from .params import Params
from .partition import Block


@dataclass(frozen=True)
class Task:
    """What every run of a group shares.

    Attributes:
        train_images, eval_images: float32 ``(images, height, width, 3)``, scaled as the backbone
            expects; the fused engine reads a `Trunk` instead and leaves them None.
        train_targets, eval_targets: one-hot float32 ``(images, classes)``.
        epochs: passes over the training images.
        order_seed: of the order in which the training images come.
    """

    train_images: np.ndarray | None
    train_targets: np.ndarray
    eval_images: np.ndarray | None
    eval_targets: np.ndarray
    epochs: int
    params: Params
    order_seed: int = 0

    @property
    def n_classes(self) -> int:
        return self.train_targets.shape[1]


@dataclass
class History:
    """How one run went, epoch by epoch; accuracies in [0, 1]."""

    train_accuracy: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    probabilities: np.ndarray | None = None  # float32 (evaluation images, classes), last epoch
    seconds: float = 0.0  # wall time; a lane's share of its group's
    epoch_seconds: list[float] = field(default_factory=list)  # the same, epoch by epoch

    @property
    def failed(self) -> str:
        """Why the run counts for nothing; empty where it did not fail."""
        lost = np.isnan(self.val_loss)
        return f"the loss is nan from epoch {lost.argmax() + 1} on" if lost.any() else ""


def batch_order(images: int, epoch: int, seed: int) -> np.ndarray:
    """The order in which the training images come in one epoch, int ``(images,)``.

    Lanes of one model share it, so runs of different orders are lanes of different models.
    """
    return np.random.default_rng([seed, epoch]).permutation(images)


def batches(task: Task) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training images and targets batch by batch, epoch after epoch without end.

    A plain generator, because `keras.Model.fit` takes its batches in exactly this order; a
    `PyDataset` is told of the first epoch's end before its first epoch is over.
    """
    p = task.params
    for epoch in itertools.count():
        order = batch_order(len(task.train_images), epoch, task.order_seed)
        for start in range(0, len(order), p.batch_size):
            rows = order[start : start + p.batch_size]
            yield task.train_images[rows], task.train_targets[rows]


def freeze_except(backbone: keras.Model, layers: Sequence[str]) -> None:
    """Make exactly `layers` trainable.

    Layer by layer: a flat model whose own flag is False trains nothing, whatever its layers say.

    Raises ValueError when other weights than those of `layers` end up trainable.
    """
    backbone.trainable = True
    for layer in backbone.layers:
        layer.trainable = layer.name in layers
    found = {layer.name for layer in backbone.layers if layer.trainable_weights}
    if found != set(layers):
        raise ValueError(f"trainable layers are {sorted(found)}, wanted {sorted(layers)}")


def train_plain(backbone: keras.Model, block: Block, seed: int, task: Task) -> History:
    """Train one run the plain way and leave the backbone as it was found.

    Same weights, every layer trainable.
    """
    initial = backbone.get_weights()
    try:
        return fit_plain(backbone, block, seed, task)[1]
    finally:
        backbone.trainable = True
        for layer in backbone.layers:
            layer.trainable = True
        backbone.set_weights(initial)


def fit_plain(
    backbone: keras.Model, block: Block, seed: int, task: Task
) -> tuple[keras.Model, History]:
    """Train one run as the paper describes it, with `keras.Model.fit` (Section V).

    Returns:
        The trained model, of which `backbone` is the lower part, and the run's history.

    Raises InputError for a backbone that `prepare_backbone` refuses.
    """
    prepare_backbone(backbone)
    start, p = time.perf_counter(), task.params
    freeze_except(backbone, block.layers)
    head = classifier(backbone.output.shape[1:], task.n_classes, dropout=p.dropout, seed=seed)
    model = keras.Model(backbone.input, head(backbone.output))
    model.compile(
        keras.optimizers.Adam(p.learning_rate), "categorical_crossentropy", metrics=["accuracy"]
    )
    clock = _Clock()
    log = model.fit(
        batches(task),
        shuffle=False,  # the generator has done it
        steps_per_epoch=-(-len(task.train_images) // p.batch_size),
        validation_data=(task.eval_images, task.eval_targets),
        validation_batch_size=EVAL_BATCH,
        epochs=task.epochs,
        callbacks=[plateau(p), clock],
        verbose=0,
    ).history
    probabilities = model.predict(task.eval_images, batch_size=EVAL_BATCH, verbose=0)
    return model, History(
        _fractions(log["accuracy"], len(task.train_targets)),
        _fractions(log["val_accuracy"], len(task.eval_targets)),
        log["val_loss"],
        probabilities,
        time.perf_counter() - start,
        np.diff(clock.ended, prepend=start).tolist(),
    )


class _Clock(keras.callbacks.Callback):
    """When each epoch ended, its evaluation included."""

    def __init__(self):
        super().__init__()
        self.ended: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.ended.append(time.perf_counter())


def _fractions(accuracies: Sequence[float], images: int) -> list[float]:
    """Keras' float32 accuracies as exact multiples of one over the number of images."""
    return [round(a * images) / images for a in accuracies]


def plateau(params: Params) -> keras.callbacks.ReduceLROnPlateau:
    """The callback of one run, on validation accuracy."""
    return keras.callbacks.ReduceLROnPlateau(
        monitor="val_accuracy",
        mode="max",
        factor=params.plateau_factor,
        patience=params.plateau_patience,
        min_delta=params.plateau_min_delta,
    )


class LanePlateau:
    """`keras.callbacks.ReduceLROnPlateau` on validation accuracy, one learning rate a lane.

    Keras' arithmetic, too: accuracies and rates are float32 there, and an accuracy that is better
    by the minimum alone may round to either side.

    Attributes:
        rates: float32 ``(lanes,)``, the learning rates of the next epoch.
    """

    def __init__(self, lanes: int, params: Params):
        self.params = params
        self.rates = np.full(lanes, params.learning_rate, "float32")
        self.best = np.full(lanes, -np.inf, "float32")
        self.wait = np.zeros(lanes, int)

    def update(self, accuracies: np.ndarray) -> None:
        """Take the lanes' validation accuracies of the epoch that has just ended."""
        p, accuracies = self.params, accuracies.astype("float32")
        gained = accuracies.astype("float64") - p.plateau_min_delta
        better = gained.astype("float32") > self.best
        self.best = np.where(better, accuracies, self.best)
        self.wait = np.where(better, 0, self.wait + 1)
        stuck = ~better & (self.wait >= p.plateau_patience)  # a patience of 0 waits for a miss, too
        lowered = (self.rates.astype("float64") * p.plateau_factor).astype("float32")
        self.rates = np.where(stuck, lowered, self.rates)
        self.wait = np.where(stuck, 0, self.wait)


def fuse(trunk: Trunk, blocks: Sequence[Block], seeds: Sequence[int], task: Task) -> FusedModel:
    """The fused model above a trunk whose lane ``i`` tunes ``blocks[i]`` from ``seeds[i]``."""

    def build(seed: int) -> keras.Sequential:
        shape = trunk.graph.shape
        return classifier(shape, task.n_classes, dropout=task.params.dropout, seed=seed)

    lanes = [Lane(b.layers, s) for b, s in zip(blocks, seeds, strict=True)]
    return FusedModel(trunk.graph, trunk.cut, lanes, build)


@cache
def classifier_weights(shape: tuple[int, ...], n_classes: int) -> int:
    """Weights of the paper's classifier on a feature map of `shape`."""
    return classifier(shape, n_classes, dropout=0, seed=0).count_params()


def fused_steps(
    model: FusedModel, train: Trunk, evaluation: Trunk, task: Task, eval_batch: int = EVAL_BATCH
):
    """The training and evaluation steps of a fused model, on trunks cut where the model is.

    eval_batch: images of an evaluation step; it changes speed, not results.
    """
    return make_steps(
        model,
        (train.features, task.train_targets),
        (evaluation.features, task.eval_targets),
        task.params.batch_size,
        eval_batch,
    )


def train_fused(
    steps: Any,
    task: Task,
    on_epoch: Callable[[int], None] = lambda epochs: None,
    checkpoint: Checkpoint | None = None,
) -> list[History]:
    """Train every lane of a fused model; the same results as `train_plain` run by run.

    Args:
        steps: as `fused_steps` makes them.
        on_epoch: told how many more epochs are done.
        checkpoint: of these runs; they go on from there.
    """
    lanes = len(steps.model.lanes)
    plateau, histories = LanePlateau(lanes, task.params), [History() for _ in range(lanes)]
    with checkpoint.load() if checkpoint else nullcontext() as saved:
        if saved:
            _stand(steps, plateau, histories, saved)
            on_epoch(len(histories[0].val_loss))
    for _ in epochs_left(steps, task, plateau, histories):
        on_epoch(1)
        if checkpoint:
            checkpoint.offer(_standing(steps, plateau, histories))
    return histories


def epochs_left(
    steps: Any, task: Task, plateau: LanePlateau, histories: Sequence[History]
) -> Iterator[None]:
    """Train all lanes from where they stand to the end of the task; yields after each epoch.

    plateau, histories: where the lanes stand; both go on with them.
    """
    for epoch in range(len(histories[0].val_loss), task.epochs):
        start = time.perf_counter()
        fused_epoch(steps, task, epoch, plateau, histories)
        share = (time.perf_counter() - start) / len(histories)
        for history in histories:
            history.epoch_seconds.append(share)
        yield
    for history in histories:
        history.seconds = sum(history.epoch_seconds)


EPOCHS = ("train_accuracy", "val_accuracy", "val_loss", "epoch_seconds")  # lists of a `History`


def _standing(steps: Any, plateau: LanePlateau, histories: list[History]) -> Iterator[np.ndarray]:
    """Where the lanes of a fused model stand after an epoch, array by array."""
    for name in EPOCHS:
        yield np.array([getattr(history, name) for history in histories])
    yield np.stack([history.probabilities for history in histories])
    yield from (plateau.rates, plateau.best, plateau.wait)
    yield from steps.state()


def _stand(
    steps: Any, plateau: LanePlateau, histories: list[History], arrays: Iterator[np.ndarray]
) -> None:
    """The inverse of `_standing`."""
    for name in EPOCHS:
        for history, values in zip(histories, next(arrays), strict=True):
            setattr(history, name, values.tolist())
    for history, values in zip(histories, next(arrays), strict=True):
        history.probabilities = values
    plateau.rates, plateau.best, plateau.wait = (next(arrays) for _ in range(3))
    steps.restore(arrays)


def fused_epoch(
    steps: Any, task: Task, epoch: int, plateau: LanePlateau, histories: Sequence[History]
) -> None:
    """One epoch of all lanes and its evaluation, written into their histories."""
    order = batch_order(len(task.train_targets), epoch, task.order_seed)
    train_accuracies = steps.train_epoch(order, plateau.rates)
    probabilities, losses = steps.evaluate()
    accuracies = accuracy(probabilities, task.eval_targets)
    plateau.update(accuracies)
    for j, history in enumerate(histories):
        history.train_accuracy.append(float(train_accuracies[j]))
        history.val_accuracy.append(float(accuracies[j]))
        history.val_loss.append(float(losses[j].mean(dtype="float64")))
        history.probabilities = probabilities[j]


def accuracy(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Share of images whose likeliest class is the right one, float64 ``(lanes,)``.

    Args:
        probabilities: ``(lanes, images, classes)``.
        targets: one-hot ``(images, classes)``.
    """
    return (probabilities.argmax(axis=-1) == targets.argmax(axis=-1)).mean(axis=1)
