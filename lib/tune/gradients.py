"""How strongly each layer would move: gradients of the loss on a few batches, nothing trained.

Measured after the classifier has been trained alone, because the gradients of an untrained one say
more of its random weights than of the layers. All measures of a group of layers are functions of
sums over its layers (`lib.tune.measures`), so one pass serves layers, blocks and windows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from keras import ops

from ..backbones.build import classifier
from ..backbones.pure import tunable_variables
from ..partition import weighted_layers
from ..train import Task
from ..whole import write_whole

BATCH, BATCHES = 16, 20  # photos of a batch; batches at most
COLUMNS = ("layer", "weights", "g2", "w2", "both", "t2", "s2")


def measure(
    backbone: keras.Model, head: Sequence[np.ndarray], task: Task, seed: int
) -> pd.DataFrame:
    """One row a layer with weights, from the input to the output.

    Columns: ``layer``; ``weights``, their number; ``g2``, the mean over the training batches of the
    squared norm of the gradient; ``w2``, the squared norm of the weights; ``t2`` and ``s2``, the
    squared norms of the mean gradients on training and selection photos, and ``both``, their
    product.

    Args:
        head: the trained classifier's arrays.
    """
    model = _model(backbone, head, task.n_classes)
    names = weighted_layers(backbone)
    groups = [tunable_variables(backbone.get_layer(name)) for name in names]
    gradient = _gradient(model, [v for variables in groups for v in variables])
    train, g2 = _means(_gradients(gradient, groups, task.train_images, task.train_targets, seed))
    other, _ = _means(_gradients(gradient, groups, task.eval_images, task.eval_targets, seed))
    rows = []
    for i, name in enumerate(names):
        t, s = train[i], other[i]
        w = np.concatenate([ops.convert_to_numpy(v).ravel() for v in groups[i]])
        rows.append((name, len(w), g2[i], w @ w, t @ s, t @ t, s @ s))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _means(batches: Iterable[list[np.ndarray]]) -> tuple[list[np.ndarray], np.ndarray]:
    """The mean gradient of each layer over batches, and the mean of its squared norm.

    Summed as they come: those of all batches at once can be gigabytes.
    """
    n, total, squares = 0, [], 0.0
    for gradients in batches:
        squares = squares + np.array([g @ g for g in gradients])
        for one, other in zip(total, gradients, strict=bool(n)):
            one += other
        n, total = n + 1, total or gradients
    return [one / n for one in total], squares / n


def _model(backbone: keras.Model, head: Sequence[np.ndarray], classes: int) -> keras.Model:
    top = classifier(backbone.output.shape[1:], classes, dropout=0, seed=0)
    top.set_weights(list(head))
    return keras.Model(backbone.input, top(backbone.output))


def _gradients(
    gradient: Callable,
    groups: Sequence[Sequence],
    images: np.ndarray,
    targets: np.ndarray,
    seed: int,
) -> Iterator[list[np.ndarray]]:
    """Of each batch, the gradient of each layer as one vector."""
    order = np.random.default_rng(seed).permutation(len(images))
    size = min(BATCH, len(order))
    for start in range(0, min(len(order) - size + 1, size * BATCHES), size):
        rows = order[start : start + size]
        flat = iter([np.ravel(g) for g in gradient(images[rows], targets[rows])])
        yield [np.concatenate([next(flat) for _ in variables]) for variables in groups]


def _gradient(model: keras.Model, variables: Sequence[keras.Variable]) -> Callable:
    """A function of images and targets: the gradient of the mean loss by each variable."""

    def loss(images: Any, targets: Any) -> Any:
        return ops.mean(ops.categorical_crossentropy(targets, model(images, training=False)))

    return (_jax if keras.backend.backend() == "jax" else _tensorflow)(loss, variables)


def _tensorflow(loss: Callable, variables: Sequence[keras.Variable]) -> Callable:
    import tensorflow as tf

    @tf.function
    def gradient(images, targets):
        with tf.GradientTape() as tape:
            value = loss(images, targets)
        return tape.gradient(value, [v.value for v in variables], unconnected_gradients="zero")

    return lambda *arrays: [g.numpy() for g in gradient(*map(tf.constant, arrays))]


def _jax(loss: Callable, variables: Sequence[keras.Variable]) -> Callable:
    import jax

    def at(values, images, targets):
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return loss(images, targets)

    gradient, values = jax.jit(jax.grad(at)), [v.value for v in variables]
    return lambda *arrays: list(map(np.asarray, gradient(values, *arrays)))


def kept(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """What `make` returns, from a CSV file where it is there and can be read."""
    with suppress(OSError, ValueError):
        return pd.read_csv(path)
    table = make()
    write_whole(path, table.to_csv(index=False))
    return table
