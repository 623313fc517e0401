"""What a backbone must be: frozen, each of its layers is a pure function of each image.

The fused engine executes a frozen layer once for many lanes and many epochs, and plain training
executes it in every step. Both give the same only if a frozen layer draws nothing at random, keeps
no state and never mixes the images of a batch. `prepare_backbone` sees to that for both engines: a
backbone runs as in inference, but for what the tuned layers themselves do in training.
"""

import inspect
import numbers
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import keras
import numpy as np
from keras import layers, ops

from ..params import InputError

# Layers that take each image by itself and, frozen, do the same in training as in inference.
# Others are tried out, see `_fault`. Not here: what has an axis to choose, or takes a function.
KNOWN = (
    *(layers.Conv1D, layers.Conv2D, layers.DepthwiseConv2D, layers.SeparableConv2D, layers.Dense),
    *(layers.BatchNormalization, layers.Activation, layers.ReLU, layers.Rescaling),
    *(layers.ZeroPadding2D, layers.Cropping2D, layers.UpSampling2D, layers.Flatten, layers.Reshape),
    *(layers.MaxPooling2D, layers.AveragePooling2D),
    *(layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D),
    *(layers.Add, layers.Multiply, layers.Subtract, layers.Average, layers.Maximum),
    *(layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout, layers.AlphaDropout),
)
# How layers that drop something call their rate, and by what they are known.
RATES = (
    *("rate", "dropout", "recurrent_dropout", "dropout_rate"),
    *("drop_rate", "drop_prob", "drop_path_rate"),
)
DROPS = (
    *(layers.Dropout, layers.GaussianDropout, layers.AlphaDropout, layers.Attention),
    *(layers.SimpleRNNCell, layers.GRUCell, layers.LSTMCell),
)
DROPS_BY_NAME = re.compile("drop|stochastic_?depth", re.IGNORECASE)

RANDOM = "draws at random, and a backbone runs as in inference"
_tried: WeakSet = WeakSet()  # backbones whose unknown layers have been tried out


def prepare_backbone(backbone: keras.Model) -> list:
    """Make every layer trainable and every dropout rate zero, and refuse what is not pure.

    Both engines call it first. Rates that it changes are named in one line on standard error. A
    layer of a class that is not in KNOWN is executed a few times, on made-up images.

    Returns:
        The nodes of the backbone's graph, in Keras' own order of execution.

    Raises InputError, which names the layer and says why.
    """
    nodes = _nodes(backbone)
    backbone.trainable = True  # of its layers too, and of theirs
    _stop_dropping(backbone)
    for node in nodes:
        _check_shapes(node)
        for layer in _with_sublayers(node.operation):
            _check_layer(layer)
    _check_owners(nodes)
    if backbone not in _tried:
        for node in nodes:
            _try_out(node)
        _tried.add(backbone)
    return nodes


def infer(operation: Any, args: Sequence, kwargs: Mapping) -> Any:
    """What an operation makes of its arguments in inference, or any layer inside it."""
    return _call(operation, args, kwargs, training=False)


def tunable_variables(layer: keras.Layer) -> list:
    """The variables that training moves when `layer` is tuned, whether it is frozen now or not."""
    own = [v for part in _with_sublayers(layer) for v in part._trainable_variables]
    return list({id(v): v for v in own}.values())


def _nodes(backbone: Any) -> list:
    """The calls that a functional model records.

    `_nodes_by_depth`, and in this module `_flatten_layers`, `_trainable_variables`,
    `_seed_generators` and `_keras_mask` are private to Keras and have no public name
    (`tests/test_trunk.py` watches that they keep working).
    """
    name = getattr(backbone, "name", backbone)
    if not hasattr(backbone, "_nodes_by_depth"):
        raise InputError(
            f"backbone {name!r} is a {type(backbone).__name__}: allowed is a functional "
            "Keras model, such as those of keras.applications"
        )
    if len(backbone.inputs) != 1 or len(backbone.outputs) != 1:
        raise InputError(
            f"backbone {name!r} has {len(backbone.inputs)} inputs and "
            f"{len(backbone.outputs)} outputs: allowed is one of each"
        )
    shape = tuple(backbone.inputs[0].shape)
    if shape[0] is not None or None in shape[1:]:
        raise InputError(
            f"backbone {name!r} takes images of shape {shape}: allowed is any number of images, "
            "None, of one known size"
        )
    if backbone.inputs[0].dtype != "float32":
        raise InputError(
            f"backbone {name!r} takes images as {backbone.inputs[0].dtype}: allowed is float32"
        )
    by_depth = backbone._nodes_by_depth
    return [n for d in sorted(by_depth, reverse=True) for n in by_depth[d] if not n.is_input]


def _with_sublayers(operation: Any) -> list[keras.Layer]:
    return operation._flatten_layers() if isinstance(operation, keras.Layer) else []


def _stop_dropping(backbone: keras.Model) -> None:
    stopped = [layer.name for layer in _with_sublayers(backbone) if _stop(layer)]
    if stopped:
        more = f" and {len(stopped) - 3} more" if len(stopped) > 3 else ""
        print(
            f"backbone {backbone.name!r}: dropout rates of {', '.join(stopped[:3])}{more} are "
            "set to 0, since a backbone runs as in inference",
            file=sys.stderr,
        )


def _stop(layer: keras.Layer) -> bool:
    """Set the dropout rates of one layer to zero; whether one was not."""
    rates = {name: getattr(layer, name, None) for name in RATES} if _drops(layer) else {}
    found = [name for name, rate in rates.items() if isinstance(rate, numbers.Real) and rate]
    for name in found:
        setattr(layer, name, 0.0)
    return bool(found)


def _drops(layer: keras.Layer) -> bool:
    return isinstance(layer, DROPS) or bool(DROPS_BY_NAME.search(type(layer).__name__))


def _check_shapes(node: Any) -> None:
    for t in node.outputs:
        shape = tuple(t.shape)
        if shape[:1] != (None,) or None in shape[1:]:
            why = f"makes an output of shape {shape}: allowed is one of known size for each image"
            _refuse(node.operation, why)
        if "float" in t.dtype and t.dtype != "float32":
            _refuse(node.operation, f"makes {t.dtype}: allowed is float32")
        if getattr(t, "_keras_mask", None) is not None:
            _refuse(node.operation, "makes a mask, which lanes do not carry")


def _check_layer(layer: keras.Layer) -> None:
    """What can be seen without executing the layer."""
    if layer._seed_generators and not _drops(layer):
        _refuse(layer, RANDOM)
    kinds = {layer.compute_dtype, layer.variable_dtype}
    if kinds != {"float32"}:
        _refuse(layer, f"computes in {' and '.join(sorted(kinds))}: allowed is float32")
    if layer.activity_regularizer is not None:
        _refuse(layer, "has an activity regularizer, and the loss is the classifier's alone")
    for v in layer._trainable_variables:
        for extra in ("regularizer", "constraint"):
            if getattr(v, extra, None) is not None:
                _refuse(layer, f"has a {extra} on its {v.name}; build it without")


def _check_owners(nodes: Sequence) -> None:
    """Two layers that share a weight would both be tuned where only one of them is named."""
    owners = {}
    for layer in (node.operation for node in nodes):
        for v in getattr(layer, "weights", ()):
            if owners.setdefault(id(v), layer) is not layer:
                _refuse(layer, f"shares its {v.name} with layer {owners[id(v)].name!r}")


def _refuse(operation: Any, why: str) -> None:
    raise InputError(f"backbone layer {operation.name!r} ({type(operation).__name__}) {why}")


def _try_out(node: Any) -> None:
    """Refuse a call that, executed on made-up images, turns out not to be pure."""
    if type(node.operation) in KNOWN and _keras_activation(node.operation):
        return
    fault = _fault(node)
    if fault:
        _refuse(node.operation, fault)


def _keras_activation(layer: keras.Layer) -> bool:
    function = getattr(layer, "activation", keras.activations.linear)
    return inspect.isfunction(function) and function.__module__.startswith("keras.")


def _fault(node: Any) -> str:
    """Why a call is not a pure function of each image; empty where it is."""
    layer, images = node.operation, _made_up(node.input_tensors)

    def run(training: bool, rows: Sequence[int] = (0, 1)) -> list[np.ndarray]:
        args, kwargs = node.arguments.fill_in(
            {t: ops.convert_to_tensor(x[list(rows)]) for t, x in images.items()}
        )
        outputs = keras.tree.flatten(_call(layer, args, kwargs, training))
        return [ops.convert_to_numpy(x) for x in outputs]

    with _frozen(layer), keras.StatelessScope(collect_losses=True) as scope:
        first, second, inferred = run(True), run(True), run(False)
        mixes = _mixes(run, inferred)
    changed = _changed(layer, scope)
    if changed:
        return f"changes its {changed[0].name} though it is frozen"
    if not _near(first, second):
        return RANDOM
    if not _near(first, inferred):
        return "does something else in training than in inference though it is frozen"
    if mixes:
        return "mixes the images of a batch"
    return _loss_fault(scope) or _tuned_fault(layer, run)


def _mixes(run: Callable, pair: Sequence[np.ndarray]) -> bool:
    """Whether what becomes of an image depends on the image beside it, or on its place.

    pair: what `run` makes of the images 0 and 1 together.
    """
    if any(len(x) != 2 for x in pair):
        return True
    others = zip(run(False, (0, 2)), run(False, (2, 1)), strict=True)
    single = zip(run(False, (0,)), run(False, (1,)), strict=True)
    beside_others = [np.stack([a[0], b[1]]) for a, b in others]
    alone = [np.concatenate(both) for both in single]
    # A batch of another size may be rounded in another way, on a GPU to 10 bits.
    return not (_near(pair, beside_others) and _near(pair, alone, 5e-3))


def _loss_fault(scope: keras.StatelessScope) -> str:
    return "adds to the loss, which is the classifier's alone" if scope.losses else ""


def _tuned_fault(layer: Any, run: Callable) -> str:
    """The same of a layer that is tuned: what it does that the lanes of a model cannot."""
    if not isinstance(layer, keras.Layer) or not tunable_variables(layer):
        return ""
    with keras.StatelessScope(collect_losses=True) as scope:
        run(True)
    for v in _changed(layer, scope):
        if v.trainable:
            return f"itself changes its {v.name}, which training moves"
        if v.dtype != "float32":
            return f"counts in {v.dtype} in its {v.name}: allowed is float32"
    return _loss_fault(scope)


def _call(operation: Any, args: Sequence, kwargs: Mapping, training: bool) -> Any:
    # As Keras' functional models do: it overrides what was given where the graph was built, and
    # reaches the layers inside a layer.
    if isinstance(operation, keras.Layer):
        kwargs = {**kwargs, "training": training}
    return operation(*args, **kwargs)


def _made_up(tensors: Sequence) -> dict[int, np.ndarray]:
    """Three images' worth of each symbolic tensor, by its Python identity.

    They differ in mean and spread, so that statistics of a batch change with what is in it.
    """
    rng, images = np.random.default_rng(0), {}
    for t in tensors:
        x = rng.standard_normal((3, *t.shape[1:]))
        x[1], x[2] = 2 * x[1] + 1, 3 * x[2] - 1
        images[id(t)] = (x if "float" in t.dtype else x > 0).astype(t.dtype)
    return images


@contextmanager
def _frozen(operation: Any) -> Iterator[None]:
    if isinstance(operation, keras.Layer):
        operation.trainable = False
    try:
        yield
    finally:
        if isinstance(operation, keras.Layer):
            operation.trainable = True


def _changed(layer: Any, scope: keras.StatelessScope) -> list:
    """The weights that the calls within a scope, now left, have given other values."""
    found = [(v, scope.get_current_value(v)) for v in getattr(layer, "weights", ())]
    to_numpy = ops.convert_to_numpy
    return [
        v for v, x in found if x is not None and not np.array_equal(to_numpy(x), to_numpy(v.value))
    ]


def _near(some: Sequence, others: Sequence, share: float = 1e-5) -> bool:
    """Whether arrays agree, up to a share of the largest number: rounding depends on the batch."""
    return all(
        a.shape == b.shape
        and np.allclose(a, b, share, share * np.abs(b).max(initial=0), equal_nan=True)
        for a, b in zip(some, others, strict=True)
    )
