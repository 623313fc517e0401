"""Where a backbone can be cut, and the outputs of the trunk below a cut, computed once.

A frozen layer is a pure function of its input (BatchNorm in inference mode, no dropout, no
augmentation), so everything below the first tuned layer can be computed once per image and
reused by every epoch, every run and every repeat above the cut.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from keras import ops

from ..backbones.pure import infer, prepare_backbone
from ..backend import out_of_memory
from .layers import channels_last, normalised_convolution, norms_last, undilated, zeros_around


@dataclass(frozen=True)
class Call:
    """One call of a layer, or of a bare operation such as ``x + 3``, in a backbone's graph.

    A convolution and the BatchNorm that alone reads it are one call: frozen, they are executed as
    one convolution, see `normalised_convolution`. So is zero padding that only this convolution
    reads and that it can do by itself.

    Tensors are named by integers that are unique within one backbone.
    """

    operation: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: Callable[[Mapping[int, Any]], tuple[tuple, dict]]  # tensors -> (args, kwargs)
    macs: int  # multiply-adds for one image, of convolutions and matrix products
    norm: keras.layers.BatchNormalization | None = None
    pad: keras.layers.ZeroPadding2D | None = None

    @property
    def operations(self) -> tuple:
        """What is called, one after the other."""
        return tuple(x for x in (self.pad, self.operation, self.norm) if x is not None)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(operation.name for operation in self.operations)

    def frozen(self, tensors: Mapping[int, Any], optimised: bool = False) -> list:
        """The outputs with the backbone's own weights, from the inputs by number.

        optimised: as `normalised_convolution` takes it.
        """
        args, kwargs = self.arguments(tensors)
        if self.norm is not None:
            padding = "same" if self.pad else self.operation.padding
            return [normalised_convolution(self.operation, self.norm, padding, *args, optimised)]
        return keras.tree.flatten(infer(self.operation, args, kwargs))


@dataclass(frozen=True)
class Graph:
    """A backbone as the list of its calls, in an order in which they can be executed."""

    input: int
    output: int
    calls: tuple[Call, ...]
    sizes: Mapping[int, int]  # floats per image of each tensor
    shape: tuple[int, ...]  # of the output, without the batch

    def span(self, layers: Sequence[str]) -> tuple[int, int]:
        """First and last call that use one of `layers`; ``(n, n)`` with n calls if there is none.

        An empty block is Baseline I: it tunes nothing below the end of the backbone.
        """
        wanted = set(layers)
        used = [i for i, call in enumerate(self.calls) if not wanted.isdisjoint(call.names)]
        return (used[0], used[-1]) if used else (len(self.calls), len(self.calls))

    def macs(self, first: int = 0, end: int | None = None) -> int:
        """Multiply-adds for one image of ``calls[first:end]``."""
        return sum(call.macs for call in self.calls[first:end])

    def frontier(self, cut: int) -> tuple[int, ...]:
        """Tensors that cross `cut`: made by ``calls[:cut]`` and used by ``calls[cut:]``.

        A cut inside a residual block is crossed by several tensors.
        """
        below = {self.input, *(t for call in self.calls[:cut] for t in call.outputs)}
        above = {self.output, *(t for call in self.calls[cut:] for t in call.inputs)}
        return tuple(sorted(below & above))


def read_graph(backbone: keras.Model) -> Graph:
    """The calls of a functional Keras model, in Keras' own order of execution.

    The backbone is prepared first: `prepare_backbone` says what that changes and refuses.

    Raises InputError for a model that is not functional or has not one input and one output, and
    for a layer that lanes could not train as plain Keras does.
    """
    nodes = prepare_backbone(backbone)
    tensors = [*backbone.inputs, *(t for n in nodes for t in n.outputs)]
    number = {id(t): i for i, t in enumerate(tensors)}
    return Graph(
        input=0,
        output=number[id(backbone.outputs[0])],
        calls=tuple(
            _folded(
                [_call(node, number) for node in nodes],
                {number[id(t)]: tuple(t.shape) for t in tensors},
            )
        ),
        sizes={number[id(t)]: int(np.prod(t.shape[1:])) for t in tensors},
        shape=tuple(backbone.outputs[0].shape[1:]),
    )


def _call(node: Any, number: Mapping[int, int]) -> Call:
    """One node of Keras' graph as a `Call`."""
    first = next(iter(inspect.signature(node.operation.call).parameters), "")

    def arguments(values: Mapping[int, Any]) -> tuple[tuple, dict]:
        # Keras fills its own nested structure; it looks tensors up by their Python identity.
        found = {id(t): values[number[id(t)]] for t in node.input_tensors}
        args, kwargs = node.arguments.fill_in(found)
        if not args and first in kwargs:  # called as layer(inputs=x)
            args = (kwargs.pop(first),)
        return args, kwargs

    return Call(
        operation=node.operation,
        inputs=tuple(number[id(t)] for t in node.input_tensors),
        outputs=tuple(number[id(t)] for t in node.outputs),
        arguments=arguments,
        macs=_macs(node.operation, node.outputs[0].shape),
    )


def _folded(calls: Sequence[Call], shapes: Mapping[int, tuple]) -> Iterator[Call]:
    """`calls`, with BatchNorms and zero padding made part of the convolution between them.

    shapes: of each tensor, batch first.
    """
    makers = {t: call for call in calls for t in call.outputs}
    readers: dict[int, list[Call]] = {}
    for call in calls:
        for t in call.inputs:
            readers.setdefault(t, []).append(call)
    uses = Counter(id(call.operation) for call in calls)

    def alone(before: Call | None, after: Call | None) -> bool:
        """Whether two calls, one reading the other, are the only ones of their operations."""
        once = before and after and uses[id(before.operation)] == uses[id(after.operation)] == 1
        return bool(once) and len(readers[before.outputs[0]]) == 1

    folded, whole = set(), {}
    for call in calls:
        norm = next(iter(readers.get(call.outputs[0], ())), None)
        if (
            alone(call, norm)
            and norm.inputs == call.outputs
            and _can_fold(call.operation, norm.operation)
        ):
            whole[id(call)] = replace(call, norm=norm.operation, outputs=norm.outputs)
            folded.add(id(norm))
            pad = makers.get(call.inputs[0])
            if alone(pad, call) and _pads_as_same(
                pad.operation, call.operation, shapes[pad.inputs[0]]
            ):
                whole[id(call)] = replace(
                    whole[id(call)], pad=pad.operation, inputs=pad.inputs, arguments=pad.arguments
                )
                folded.add(id(pad))
    yield from (whole.get(id(call), call) for call in calls if id(call) not in folded)


def _can_fold(conv: Any, norm: Any) -> bool:
    return (
        type(conv) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
        and type(norm) is keras.layers.BatchNormalization
        and conv.activation is keras.activations.linear
        and channels_last(conv)
        and norms_last(norm)
    )


def _pads_as_same(pad: Any, conv: Any, shape: tuple) -> bool:
    """Whether `conv` with "same" padding adds the zeros that `pad` adds before it.

    shape: of the input of `pad`, ``(batch, height, width, channels)``.

    TensorFlow's padding as an operation of its own takes a quarter of an evaluation step of
    MobileNetV2's first layers, and the convolution does the same for nothing.
    """
    if type(pad) is not keras.layers.ZeroPadding2D or conv.padding != "valid":
        return False
    sizes = shape[1:3]
    if None in sizes or not undilated(conv):
        return False
    wanted = []
    for n, kernel, stride in zip(sizes, conv.kernel_size, conv.strides, strict=True):
        wanted.append(zeros_around(n, kernel, stride, -(-n // stride)))
    return channels_last(pad) and [tuple(p) for p in pad.padding] == wanted


def _macs(operation: Any, shape: tuple[int | None, ...]) -> int:
    """Every kernel is applied once at each position of the output (channels last)."""
    kernels = [w for w in getattr(operation, "weights", ()) if len(w.shape) > 1]
    return int(np.prod(shape[1:-1])) * sum(int(np.prod(w.shape)) for w in kernels)


def run_calls(graph: Graph, tensors: Mapping[int, Any], start: int, stop: int) -> dict[int, Any]:
    """Execute ``calls[start:stop]`` frozen, from the tensors that cross `start`.

    Args:
        tensors: the tensors of ``graph.frontier(start)``, batch first.

    Returns:
        The tensors of ``graph.frontier(stop)``.
    """
    values = dict(tensors)
    for call in graph.calls[start:stop]:
        values.update(zip(call.outputs, call.frozen(values), strict=True))
    return {t: values[t] for t in graph.frontier(stop)}


@dataclass
class Trunk:
    """The tensors that cross a cut, for every image of a data set.

    Attributes:
        cut: number of calls that lie below.
        features: float32 arrays ``(images, ...)`` by tensor number.
    """

    graph: Graph
    cut: int
    features: dict[int, np.ndarray]

    @classmethod
    def from_images(cls, graph: Graph, images: np.ndarray) -> "Trunk":
        """The trivial trunk: a cut below the first call, crossed by the scaled images.

        Args:
            images: float32 ``(images, height, width, 3)``, scaled as the backbone expects.
        """
        return cls(graph, 0, {graph.input: images})

    def advance(self, cut: int, batch_size: int = 64) -> "Trunk":
        """The trunk at a deeper cut, computed from this one's outputs.

        Args:
            batch_size: images at a time; fewer once the device's memory does not suffice.

        Raises ValueError if `cut` lies below this trunk's, and the backend's own error where the
        memory does not suffice for one image.
        """
        if cut < self.cut:
            raise ValueError(f"cut {cut} lies below the trunk's own, {self.cut}")
        if cut == self.cut:
            return self
        run = _compiled(lambda values: run_calls(self.graph, values, self.cut, cut))
        features: dict[int, np.ndarray] = {}
        for start, outputs in self._outputs(run, batch_size):
            for t, x in outputs.items():
                if t not in features:  # made once and filled: parts, joined, would be held twice
                    features[t] = np.empty((len(self), *x.shape[1:]), x.dtype)
                features[t][start : start + len(x)] = x
        return Trunk(self.graph, cut, features)

    def __len__(self) -> int:
        """Number of images."""
        return len(next(iter(self.features.values())))

    def _outputs(self, run: Callable, size: int) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        """The number of a batch's first image and what `run` makes of the batch."""
        start = 0
        while start < len(self):
            rows = slice(start, start + size)
            try:
                batch = {t: ops.convert_to_tensor(f[rows]) for t, f in self.features.items()}
                outputs = _to_numpy(run(batch))
            except Exception as error:
                if size == 1 or not out_of_memory(error):
                    raise
                size //= 2
                continue
            yield start, outputs
            start += size


def choose_cut(first: int, budget_bytes: float, needed: Callable[[int], float]) -> int:
    """The deepest cut at or below call `first` for which the budget suffices.

    The deepest cut costs the least per step. Cut 0, the images themselves, always counts as
    fitting, since they are held in any case.

    Args:
        needed: bytes by cut.
    """
    return next((cut for cut in range(first, 0, -1) if needed(cut) <= budget_bytes), 0)


def _compiled(function: Callable) -> Callable:
    """`function` as a graph of the current backend."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True)


def _to_numpy(tensors: Mapping[int, Any]) -> dict[int, np.ndarray]:
    return {t: ops.convert_to_numpy(x) for t, x in tensors.items()}
