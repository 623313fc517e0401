"""One run alone in Keras, one lane of the engine, and how far apart they end.

Adam moves a weight by about the learning rate whatever the size of its gradient. So a weight whose
true gradient is zero, such as a bias before a BatchNorm that is tuned too, takes whole steps in the
direction of its rounding noise, in either engine. What is noise is measured: the first step is done
twice in Keras, the second time with images moved by one part in 10^7, and an element counts as
known where its first gradient (of a moving statistic: its first change) is `ABOVE` times what that
changes in its array. Only known elements are compared, after all steps, and relative to how far
they moved from their start: a weight that an engine leaves where it was is off by 1.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from lib.backbones.build import classifier
from lib.backbones.pure import prepare_backbone
from lib.lanes.model import lane_variables
from lib.lanes.trunk import Trunk, read_graph
from lib.partition import Block
from lib.train import Task, batch_order, batches, freeze_except, fuse, fused_steps

# Largest distance of a lane from the run alone, in units of how far an array moved (most end within
# 1e-5, those of all of ResNet50V2 within 0.02), and of the few arrays that rounding moves further.
# What an engine leaves where it was is off by 1.
NEAR, FAR = 5e-2, 0.5
ABOVE = 100  # an element's gradient over the noise of its array, both as measured once
JAX = keras.backend.backend() == "jax"
Arrays = dict[str, np.ndarray]  # tuned weights, moving statistics and classifier, by name
to_numpy = keras.ops.convert_to_numpy


@dataclass(frozen=True)
class Alone:
    """What Keras makes of one run.

    Attributes:
        start: every array before training.
        first: first gradient of each weight, first change of each moving statistic.
        ends: every array after each epoch.
        untrained, probabilities: ``(images, classes)``, before training and after it.
    """

    start: Arrays
    first: Arrays
    ends: list[Arrays]
    untrained: np.ndarray
    probabilities: np.ndarray


def train_alone(
    backbone: keras.Model, block: Block, seed: int, rates: Sequence[float], task: Task
) -> Alone:
    """One run with Keras' own `train_on_batch` and Adam; the backbone is left as it was found.

    rates: the learning rate of each epoch; none does the first step alone.
    """
    prepare_backbone(backbone)
    initial, p = backbone.get_weights(), task.params
    freeze_except(backbone, block.layers)
    head = classifier(backbone.output.shape[1:], task.n_classes, dropout=p.dropout, seed=seed)
    model = keras.Model(backbone.input, head(backbone.output))
    adam = keras.optimizers.Adam(p.learning_rate)
    # A few steps are not worth a graph.
    model.compile(adam, "categorical_crossentropy", run_eagerly=True)
    variables = _variables(backbone, block, head)
    start, first, ends, untrained = _read(variables), {}, [], _predict(model, task)
    stream, per_epoch = batches(task), -(-len(task.train_images) // p.batch_size)
    for rate in rates or [p.learning_rate]:
        adam.learning_rate = rate
        for _ in range(per_epoch if rates else 1):
            model.train_on_batch(*next(stream))
            first = first or _first(model, adam, variables, start)
        ends.append(_read(variables))
    probabilities = _predict(model, task)
    prepare_backbone(backbone)  # every layer trainable again
    backbone.set_weights(initial)
    return Alone(start, first, ends, untrained, probabilities)


def _variables(backbone: keras.Model, block: Block, head: keras.Model) -> dict:
    layers = [*(backbone.get_layer(name) for name in block.layers), *head.layers]
    return {_name(x.name, v): v for x in layers for v in itertools.chain(*lane_variables(x))}


def read_arrays(backbone: keras.Model, block: Block, head: keras.Model) -> Arrays:
    """What a block's layers and a classifier hold now."""
    return _read(_variables(backbone, block, head))


def _name(layer: str, variable: keras.Variable) -> str:
    """Unique within a layer, also within one that holds others."""
    return f"{layer}/{variable.path.split(f'{layer}/', 1)[-1]}"


def _read(variables: Mapping) -> Arrays:
    return {name: np.array(to_numpy(v)) for name, v in variables.items()}


def _predict(model: keras.Model, task: Task) -> np.ndarray:
    return to_numpy(model(task.eval_images, training=False))


def _first(model: keras.Model, adam, variables: Mapping, start: Arrays) -> Arrays:
    """After the first step: Adam's first moment is then a tenth of the gradient."""
    moments = [v for v in adam.variables if v.name.endswith("momentum")]
    trained = {id(v): m for v, m in zip(model.trainable_variables, moments, strict=True)}
    return {
        name: to_numpy(trained[id(v)]) * 10 if id(v) in trained else to_numpy(v) - start[name]
        for name, v in variables.items()
    }


def moved(task: Task, share: float = 1e-7) -> Task:
    """The same task, every training pixel larger or smaller by one part in 10^7, or by `share`."""
    signs = np.random.default_rng(1).choice([-share, share], task.train_images.shape)
    return replace(task, train_images=(task.train_images * (1 + signs)).astype("float32"))


def known(run: Alone, again: Alone) -> dict[str, np.ndarray]:
    """Which elements of each array have a first gradient above the noise, bool.

    again: the same run on the task that `moved` returns; its first step is enough.
    """
    return {
        name: (g != 0) & (np.abs(g) >= ABOVE * _rms(again.first[name] - g))
        for name, g in run.first.items()
    }


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype="float64"))))


def distances(end: Arrays, run: Alone, mask: Mapping, epoch: int = -1) -> dict[str, float]:
    """How far `end` is from where `run` ended, relative to how far that is from its start.

    mask: as `known` returns it. Arrays of which nothing is known are left out.
    """
    found = {}
    for name, there in run.ends[epoch].items():
        m = mask[name]
        if m.any():
            distance = np.linalg.norm((end[name] - there)[m])
            found[name] = float(distance / np.linalg.norm((there - run.start[name])[m]))
    return found


def prediction_distance(probabilities: np.ndarray, run: Alone) -> float:
    """The same of the predictions, each by its largest difference."""
    there = run.probabilities
    return float(np.abs(probabilities - there).max() / np.abs(there - run.untrained).max())


def fused(backbone: keras.Model, blocks: Sequence[Block], seeds: Sequence[int], task: Task, cut=0):
    """The steps of a fused model of these lanes above `cut`."""
    graph = read_graph(backbone)
    train, evaluation = (
        Trunk.from_images(graph, x).advance(cut) for x in (task.train_images, task.eval_images)
    )
    return fused_steps(fuse(train, blocks, seeds, task), train, evaluation, task)


def train_fused_epochs(steps, rates: np.ndarray, task: Task) -> Iterator[list[Arrays]]:
    """Each lane's arrays after each epoch.

    rates: ``(lanes, epochs)``.
    """
    for epoch, now in enumerate(np.transpose(rates)):
        order = batch_order(len(task.train_targets), epoch, task.order_seed)
        steps.train_epoch(order, np.asarray(now))
        yield lane_arrays(steps)


def weights_of(steps) -> list[np.ndarray]:
    """The current values of `FusedModel.initial_weights`."""
    arrays = [*steps.state()]  # with two moments, the statistics and the number of steps
    return arrays[: (len(arrays) - 2) // 3]


def lane_arrays(steps) -> list[Arrays]:
    """What each lane of a fused model holds now, under the names that `train_alone` uses."""
    model, weights = steps.model, weights_of(steps)
    statistics = steps.carry[3] if JAX else steps.statistics.value()
    tuned = model.tuned.split(keras.ops.convert_to_tensor(weights[0]))
    moving = model.statistics.split(statistics)
    layers = {layer.name: layer for call in model.graph.calls for layer in call.operations}
    head = next(iter(model.classifier.models.values()))
    heads = [_name(x.name, v) for x in head.layers for v in x.trainable_variables]
    lanes: list[Arrays] = [{} for _ in model.lanes]
    for (lane, name), (t, s) in model.slots.items():
        own, arrays = lane_variables(layers[name]), (*tuned[t], *moving[s])
        for variable, array in zip(itertools.chain(*own), arrays, strict=True):
            lanes[lane][_name(name, variable)] = to_numpy(array)
    for j, lane in enumerate(lanes):
        lane.update(zip(heads, (w[j] for w in weights[1:]), strict=True))
    return lanes


def worst(found: Mapping[str, float]) -> tuple[float, str]:
    """The largest distance and the array that has it; one that is no number is larger than any."""
    name = max(found, key=lambda name: np.nan_to_num(found[name], nan=np.inf))
    return float(np.nan_to_num(found[name], nan=np.inf)), name


def agree(found: Mapping[str, float]) -> bool:
    """Whether distances are those of rounding: four arrays of five to `NEAR`, each to `FAR`.

    Not each to `NEAR`: a bias sums the gradients of thousands of pixels, and where they cancel the
    order of the sum decides, which moving the inputs does not show.
    """
    return worst(found)[0] < FAR and np.quantile([*found.values()], 0.8) < NEAR
