"""One model that trains many runs of one backbone at once, each as a lane.

Every run of a search differs from its neighbours in a few tuned layers. The backbone's graph is
walked once; each of its tensors is held as a `Value`:

- ``shared``: what every lane sees that no tuned layer has touched yet;
- ``stacked``: the lanes that have passed their last tuned layer, folded into the batch, so that
  one call of a frozen layer serves all of them;
- ``own``: the lanes between their first and last tuned layer, one tensor each.

The loss is the sum over the lanes and Adam works weight by weight, so no lane's gradient touches
another: training fused equals training alone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from ..backbones.pure import infer
from ..params import InputError
from .layers import tuned_layer
from .trunk import Call, Graph


@dataclass(frozen=True)
class Lane:
    """One run inside a fused model.

    Attributes:
        layers: names of the tuned layers; none is Baseline I.
        seed: decides the classifier's initial weights and dropout masks.
    """

    layers: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Value:
    """One tensor of the backbone's graph, for all lanes of a batch.

    Attributes:
        shared: tensor ``(batch, ...)``.
        stacked: tensor ``(len(lanes) * batch, ...)``, lane by lane, or None without lanes.
        lanes: the lanes in `stacked`, in its order.
        own: tensors ``(batch, ...)`` by lane.
    """

    shared: Any
    stacked: Any = None
    lanes: tuple[int, ...] = ()
    own: Mapping[int, Any] = field(default_factory=dict)

    def of(self, lane: int) -> Any:
        """What `lane` sees, ``(batch, ...)``."""
        if lane in self.own:
            return self.own[lane]
        if lane in self.lanes:
            return self._slice(self.lanes.index(lane), 1)
        return self.shared

    def stack(self, lanes: tuple[int, ...]) -> Any:
        """What `lanes` see, folded into the batch in this order, ``(len(lanes) * batch, ...)``."""
        if lanes == self.lanes:
            return self.stacked
        pieces, i = [], 0
        while i < len(lanes):
            n = self._side_by_side(lanes[i:])
            stacked = lanes[i] in self.lanes
            pieces.append(
                self._slice(self.lanes.index(lanes[i]), n) if stacked else self.of(lanes[i])
            )
            i += n
        return _concatenate(pieces)

    def _side_by_side(self, lanes: tuple[int, ...]) -> int:
        """How many of `lanes`, from the first on, lie side by side in `stacked`; at least 1."""
        if lanes[0] not in self.lanes:
            return 1
        there = self.lanes[self.lanes.index(lanes[0]) :]
        n = 1
        while n < min(len(lanes), len(there)) and lanes[n] == there[n]:
            n += 1
        return n

    def _slice(self, start: int, n: int) -> Any:
        if n == len(self.lanes):
            return self.stacked  # the gradient of a slice is a padded copy, also of the whole
        batch = self.shared.shape[0]
        return self.stacked[start * batch : (start + n) * batch]


class FlatArrays:
    """Arrays of many lanes and layers, held as one flat float32 vector.

    One vector instead of hundreds of small variables: the optimiser is then a handful of
    operations, whatever the number of lanes, and tracing them is no longer most of the time.
    """

    def __init__(self):
        self.shapes: list[tuple[int, ...]] = []
        self.values: list[np.ndarray] = []
        self.lane_of: list[int] = []  # of each array

    def add(self, lane: int, variables: Iterable[keras.Variable]) -> slice:
        """Append copies of `variables`; the slice of the list that `split` returns."""
        start = len(self.shapes)
        for v in variables:
            if v.dtype != "float32":
                raise InputError(f"variable {v.path} is {v.dtype}: a tuned layer may hold float32")
            self.shapes.append(tuple(v.shape))
            self.values.append(ops.convert_to_numpy(v).ravel())
            self.lane_of.append(lane)
        return slice(start, len(self.shapes))

    @property
    def sizes(self) -> list[int]:
        return [v.size for v in self.values]

    def initial(self) -> np.ndarray:
        """The flat vector before training, float32."""
        return np.concatenate([*self.values, np.zeros(0, "float32")])

    def split(self, flat: Any) -> list:
        """The arrays that a flat vector holds."""
        if not self.shapes:
            return []
        ends = np.cumsum(self.sizes)[:-1].tolist()
        pieces = ops.split(flat, ends) if ends else [flat]
        return [ops.reshape(x, s) for x, s in zip(pieces, self.shapes, strict=True)]

    def join(self, arrays: Sequence[Any]) -> Any:
        """The flat vector of `arrays`; the inverse of `split`."""
        if not arrays:
            return ops.zeros((0,))
        return ops.concatenate([ops.reshape(x, (-1,)) for x in arrays])


class LaneClassifier:
    """The classifiers of all lanes as batched matrix products, lanes first.

    Args:
        build: makes the classifier of one seed: a `keras.Sequential` of Flatten, Dense and
            Dropout.
        seeds: one a lane.

    Raises InputError for a classifier with other layers.
    """

    KNOWN = (keras.layers.Flatten, keras.layers.Dense, keras.layers.Dropout)

    def __init__(self, build: Callable[[int], keras.Sequential], seeds: Sequence[int]):
        self.build, self.seeds = build, tuple(seeds)
        self.models = {seed: build(seed) for seed in sorted(set(seeds))}
        self.layers = next(iter(self.models.values())).layers
        for layer in self.layers:
            if not isinstance(layer, self.KNOWN):
                raise InputError(
                    f"classifier layer {layer.name!r} is a {type(layer).__name__}: allowed are "
                    "Flatten, Dense and Dropout"
                )

    def restart(self, seeds: Sequence[int]) -> bool:
        """Start from other seeds, one a lane; the graphs that were traced stay as they are.

        Returns:
            False, and nothing is changed, where lanes that share a seed would no longer.
        """
        pairs = dict(zip(self.seeds, seeds, strict=True))
        shared = len(set(pairs.values())) == len(pairs)
        if not shared or [pairs[s] for s in self.seeds] != [*seeds]:
            return False
        fresh = {old: self.build(new) for old, new in pairs.items()}
        for old, model in self.models.items():
            model.set_weights(fresh[old].get_weights())
            for layer, other in zip(model.layers, fresh[old].layers, strict=True):
                if isinstance(layer, keras.layers.Dropout) and layer.rate:  # else it draws nothing
                    layer.seed_generator.state.assign(other.seed_generator.state)
        self.seeds = tuple(seeds)
        self.models = {pairs[old]: model for old, model in self.models.items()}
        return True

    def initial(self) -> list[np.ndarray]:
        """Kernels ``(lanes, inputs, outputs)`` and biases ``(lanes, outputs)``, layer by layer."""
        weights = {seed: model.get_weights() for seed, model in self.models.items()}
        return [np.stack(arrays) for arrays in zip(*(weights[s] for s in self.seeds), strict=True)]

    def __call__(
        self, weights: Sequence[Any], features: Any, step: Any, added: Any = 0.0
    ) -> tuple[Any, Any]:
        """Logits, and what the first Dense reads.

        Args:
            weights: as `initial` returns them.
            features: ``(lanes, batch, ...)``.
            step: number of training steps done, or None outside training: no dropout.
            added: to what the first Dense makes, ``(lanes, batch, units)``.

        Returns:
            ``(lanes, batch, classes)`` and ``(lanes, batch, inputs)``.
        """
        x, i, first = features, 0, None
        for layer in self.layers:
            if isinstance(layer, keras.layers.Flatten):
                x = ops.reshape(x, (*x.shape[:2], int(np.prod(x.shape[2:]))))
            elif isinstance(layer, keras.layers.Dropout):
                if step is not None and layer.rate > 0:
                    x = x * self._mask(layer.name, x.shape[1:], step)
            else:
                bias = weights[i + 1][:, None, :]
                if first is None:
                    first, bias = x, bias + added
                x = ops.matmul(x, weights[i]) + bias
                x = x if layer is self.layers[-1] else layer.activation(x)
                i += 2
        return x, first

    def _mask(self, name: str, shape: tuple[int, ...], step: Any) -> Any:
        """The scaled dropout masks of one step: what each lane's own Keras layer would draw.

        The state of a Keras seed is (seed, number of draws). Lanes with one seed share one mask.
        """
        masks = {}
        for seed, model in self.models.items():
            layer = model.get_layer(name)
            first = layer.seed_generator.state
            state = ops.stack([first.value[0], first.value[1] + ops.cast(step, first.dtype)])
            masks[seed], _ = layer.stateless_call([], [state], ops.ones(shape), training=True)
        return ops.stack([masks[s] for s in self.seeds]) if len(masks) > 1 else masks[seed]


class FusedModel:
    """The lanes of one backbone above a cut, as one function of its weights.

    Args:
        graph: the backbone's calls; its layers keep their weights, which no lane ever writes.
        cut: number of calls below the trunk's cut.
        lanes: the runs. No lane may tune a layer below the cut, or one without weights.
        build_classifier: makes the classifier of one seed.
    """

    def __init__(
        self,
        graph: Graph,
        cut: int,
        lanes: Sequence[Lane],
        build_classifier: Callable[[int], keras.Sequential],
    ):
        self.graph, self.cut, self.lanes = graph, cut, tuple(lanes)
        self.spans = [graph.span(lane.layers) for lane in lanes]
        if any(first < cut for first, _ in self.spans):
            raise ValueError(f"a lane tunes a layer below the cut at call {cut}")
        self.classifier = LaneClassifier(build_classifier, [lane.seed for lane in lanes])
        self.tuned, self.statistics = FlatArrays(), FlatArrays()
        self.slots: dict[tuple[int, str], tuple[slice, slice]] = {}
        self.tuners: dict[str, list[int]] = {}
        layers = {layer.name: layer for call in graph.calls for layer in call.operations}
        for j, lane in enumerate(lanes):
            for name in lane.layers:
                layers[name].trainable = True  # whatever plain training has left there
                tuned, statistics = lane_variables(layers[name])
                if not tuned:
                    raise ValueError(f"layer {name!r} has no weights that training moves")
                self.slots[j, name] = self.tuned.add(j, tuned), self.statistics.add(j, statistics)
                self.tuners.setdefault(name, []).append(j)

    def restart(self, seeds: Sequence[int]) -> bool:
        """Have the same lanes start from other seeds, see `LaneClassifier.restart`."""
        if not self.classifier.restart(seeds):
            return False
        self.lanes = tuple(Lane(x.layers, s) for x, s in zip(self.lanes, seeds, strict=True))
        return True

    def initial_weights(self) -> list[np.ndarray]:
        """What the optimiser updates: the flat pool of tuned weights, then the classifiers'."""
        return [self.tuned.initial(), *self.classifier.initial()]

    def initial_statistics(self) -> np.ndarray:
        """What training updates besides: moving statistics of the tuned BatchNorms, flat."""
        return self.statistics.initial()

    def spread(self, per_lane: Any) -> list:
        """One number a lane, ``(lanes,)``, in the shape that multiplies each array of weights."""
        by_array = np.asarray(self.tuned.lane_of, "int32")
        by_element = np.repeat(by_array, self.tuned.sizes).astype("int32")
        ranks = [len(v.shape) for v in next(iter(self.classifier.models.values())).weights]
        heads = [ops.reshape(per_lane, (-1,) + (1,) * rank) for rank in ranks]
        return [ops.take(per_lane, by_element), *heads]

    def __call__(
        self,
        weights: Sequence[Any],
        statistics: Any,
        features: Mapping,
        step: Any,
        added: Any = 0.0,
        optimised: bool = False,
    ) -> tuple[Any, Any, Any]:
        """Logits of every lane.

        Args:
            weights: values as of `initial_weights`.
            statistics: values as of `initial_statistics`.
            features: the tensors that cross the cut, ``(batch, ...)``, by number; the batch
                size must be known when the model is traced.
            step: number of training steps done, or None outside training (no dropout, tuned
                BatchNorms on their moving statistics).
            added: to what the classifiers' first Dense makes, ``(lanes, batch, units)``.
            optimised: see `normalised_convolution`.

        Returns:
            Logits ``(lanes, batch, classes)``, the new statistics, and what the first Dense
            reads, ``(lanes, batch, inputs)``.
        """
        tuned, statistics = self.tuned.split(weights[0]), self.statistics.split(statistics)
        walk = _Walk(self, tuned, statistics, step, optimised)
        values = {t: Value(x) for t, x in features.items()}
        for i, call in enumerate(self.graph.calls[self.cut :], self.cut):
            values.update(walk.call(i, call, values))
        end = values[self.graph.output]
        stacked = end.stack(tuple(range(len(self.lanes))))
        by_lane = ops.reshape(stacked, (len(self.lanes), -1, *stacked.shape[1:]))
        logits, inputs = self.classifier(weights[1:], by_lane, step, added)
        return logits, self.statistics.join(walk.statistics), inputs


@dataclass
class _Walk:
    """One execution of a fused model: its tuned weights and statistics, threaded through."""

    model: FusedModel
    tuned: list
    statistics: list
    step: Any
    optimised: bool

    def call(self, i: int, call: Call, values: Mapping[int, Value]) -> dict[int, Value]:
        """Execute call `i` of the graph for all lanes."""
        inputs = [values[t] for t in call.inputs]
        tuners = {j for name in call.names for j in self.model.tuners.get(name, ())}
        diverged = {j for v in inputs for j in (*v.lanes, *v.own)} | tuners
        active = {j for j in diverged if i < self.model.spans[j][1]}
        finished = _in_order(inputs, diverged - active - tuners)
        shared = self._frozen(call, values, lambda v: v.shared)
        stacked = self._frozen(call, values, lambda v: v.stack(finished)) if finished else None
        own = {j: self._one(call, values, j, j in tuners) for j in sorted(active | tuners)}
        return {
            t: _retire(Value(shared[k], stacked and stacked[k], finished), active, own, k)
            for k, t in enumerate(call.outputs)
        }

    def _frozen(self, call: Call, values: Mapping[int, Value], view: Callable) -> list:
        return call.frozen({t: view(values[t]) for t in call.inputs}, self.optimised)

    def _one(self, call: Call, values: Mapping[int, Value], lane: int, tunes: bool) -> list:
        """What `call` makes of one lane's inputs; the layers that it tunes are its own."""
        if not tunes:
            return self._frozen(call, values, lambda v: v.of(lane))
        args, kwargs = call.arguments({t: values[t].of(lane) for t in call.inputs})
        for operation in call.operations:
            outputs = self._layer(operation, lane, args, kwargs)
            args, kwargs = (outputs,), {}  # of the BatchNorm after a convolution
        return keras.tree.flatten(outputs)

    def _layer(self, layer: Any, lane: int, args: tuple, kwargs: dict) -> Any:
        if (lane, layer.name) not in self.model.slots:
            return infer(layer, args, kwargs)
        t, s = self.model.slots[lane, layer.name]
        tuned, statistics = lane_variables(layer)
        values = [*zip(tuned, self.tuned[t], strict=True)]
        values += zip(statistics, self.statistics[s], strict=True)
        # Called, not `stateless_call`: that one does not tell the layers inside of the training.
        with keras.StatelessScope(values) as scope:
            outputs = tuned_layer(layer, args, {**kwargs, "training": self.step is not None})
        self.statistics[s] = [scope.get_current_value(v) for v in statistics]
        return outputs


def lane_variables(layer: keras.Layer) -> tuple[list, list]:
    """What a lane that tunes `layer` has of its own: trainable variables, and statistics.

    A seed or a count is no statistic: no dropout is left that draws, and `prepare_backbone`
    refuses a layer whose count changes.
    """
    statistics = [v for v in layer.non_trainable_weights if v.dtype == "float32"]
    return layer.trainable_weights, statistics


def _in_order(inputs: Sequence[Value], lanes: set[int]) -> tuple[int, ...]:
    """`lanes` in the order of the longest stack among `inputs`, so that it need not be moved."""
    longest = max(inputs, key=lambda v: len(v.lanes)).lanes
    kept = tuple(j for j in longest if j in lanes)
    return kept + tuple(sorted(lanes - set(kept)))


def _retire(value: Value, active: set[int], own: Mapping[int, list], k: int) -> Value:
    """Append the lanes that have passed their last tuned layer to the stack of output `k`."""
    retired = tuple(j for j in own if j not in active)
    pieces = ([value.stacked] if value.lanes else []) + [own[j][k] for j in retired]
    stacked = _concatenate(pieces) if pieces else None
    return Value(
        value.shared,
        stacked,
        value.lanes + retired,
        {j: x[k] for j, x in own.items() if j in active},
    )


def _concatenate(pieces: Sequence[Any]) -> Any:
    return ops.concatenate(pieces, axis=0) if len(pieces) > 1 else pieces[0]
