"""What single layers compute, in the operations that are fastest: the numbers are Keras'.

Frozen, a convolution takes the BatchNorm after it along. Tuned, a layer is one lane's own, so its
passes over memory and its gradients are most of what that lane costs.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops


def tuned_layer(layer: Any, args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """What a layer that a lane tunes makes of its arguments, ``training`` among `kwargs`.

    Called within Keras' StatelessScope: variables are read, and statistics assigned, through it.
    The first argument is a float tensor ``(batch, ...)`` whose batch is known, channels last; what
    comes back is shaped as the layer's own call gives it.
    """
    if has_taps(layer):
        y = add_taps(args[0], layer.kernel[..., 0], layer.strides, layer.padding)
    elif _is_wide_depthwise(layer):
        y = _wide_depthwise(args[0], layer.kernel.value, layer)
    elif _is_pointwise(layer):
        y = _pointwise(args[0], layer.kernel)
    elif _is_plain_norm(layer, args[0]):
        return _batch_norm(layer, args[0], kwargs["training"])
    else:
        return layer(*args, **kwargs)
    return layer.activation(y if layer.bias is None else y + layer.bias)


def channels_last(layer: Any) -> bool:
    """Whether a convolution, or padding, takes channels for the last axis."""
    return layer.data_format == "channels_last"


def norms_last(norm: keras.layers.BatchNormalization) -> bool:
    """Whether a BatchNorm of images normalises the channels of the last axis."""
    return norm.axis in (-1, 3)


def undilated(conv: Any) -> bool:
    """Whether the taps of a convolution lie side by side."""
    return tuple(conv.dilation_rate) == (1, 1)


def _is_plain_depthwise(layer: Any) -> bool:
    """Whether a layer is a depthwise convolution, channels last and undilated."""
    return type(layer) is keras.layers.DepthwiseConv2D and channels_last(layer) and undilated(layer)


def _is_pointwise(layer: Any) -> bool:
    """Whether `_pointwise` does what a layer does, but for its bias."""
    return (
        type(layer) is keras.layers.Conv2D
        and layer.kernel_size == layer.strides == (1, 1)
        and layer.groups == 1
        and channels_last(layer)
    )


def _is_plain_norm(layer: Any, x: Any) -> bool:
    """Whether TensorFlow's own operation does what a BatchNorm does, in training or not."""
    return (
        keras.backend.backend() == "tensorflow"
        and type(layer) is keras.layers.BatchNormalization
        and len(x.shape) == 4
        and norms_last(layer)
        and x.dtype == layer.compute_dtype == "float32"
        and np.prod(x.shape[:3]) > 1  # of one number the operation has no variance
        and not getattr(layer, "renorm", False)
    )


def _batch_norm(layer: keras.layers.BatchNormalization, x: Any, training: bool) -> Any:
    """Keras' BatchNorm as one operation.

    Keras computes moments, scale and shift one after the other, each a pass over memory, and so
    do their gradients: on two cores, images of 112 x 112 pixels, four times as long.
    """
    import tensorflow as tf

    channels = x.shape[-1:]
    moving = layer.moving_mean, layer.moving_variance
    nothing = tf.zeros([0])
    mean, variance = (nothing if training else v.value for v in moving)
    y, *found, _, _, _ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=layer.gamma.value if layer.scale else tf.ones(channels),
        offset=layer.beta.value if layer.center else tf.zeros(channels),
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=training,
    )
    if training:
        numbers = int(np.prod(x.shape[:3]))
        # The operation divides by one number less, for an estimate; Keras takes the batch's own.
        batch = found[0], found[1] * ((numbers - 1) / numbers)
        for variable, value in zip(moving, batch, strict=True):
            variable.assign(variable * layer.momentum + value * (1.0 - layer.momentum))
    return y


def _is_wide_depthwise(layer: Any) -> bool:
    """Whether `_wide_depthwise` does what a layer does."""
    return (
        keras.backend.backend() == "tensorflow"
        and _is_plain_depthwise(layer)
        and min(layer.kernel_size) > 3
        and layer.strides[0] == layer.strides[1]
    )


def _wide_depthwise(x: Any, kernel: Any, layer: keras.layers.DepthwiseConv2D) -> Any:
    """A depthwise convolution whose kernel's gradient is made of gradients of 3 x 3 kernels.

    TensorFlow has a fast one for 3 x 3 only: 5 x 5 takes up to four times as long as the four
    3 x 3 that cover it (7 x 7 pixels, 576 channels).
    """
    import tensorflow as tf

    stride, strides, padding = layer.strides[0], [1, *layer.strides, 1], layer.padding.upper()

    @tf.custom_gradient
    def convolve(x, kernel):
        y = tf.nn.depthwise_conv2d(x, kernel, strides, padding)

        def gradient(back):
            into = tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
                input_sizes=x.shape,
                filter=kernel,
                out_backprop=back,
                strides=strides,
                padding=padding,
            )
            return into, _kernel_gradient(x, kernel.shape, back, stride)

        return y, gradient

    return convolve(x, kernel)


def _kernel_gradient(x: Any, shape: tuple[int, ...], back: Any, stride: int) -> Any:
    """The gradient of a depthwise kernel of this shape, from gradients of 3 x 3 kernels.

    Args:
        x: what the convolution reads, ``(batch, height, width, channels)``.
        shape: of the kernel, ``(rows, columns, channels, multiplier)``, more than 3 of both.
        back: the gradient of what it makes, ``(batch, height, width, channels * multiplier)``.
    """
    import tensorflow as tf

    around = [
        zeros_around(n, k, stride, outputs)
        for n, k, outputs in zip(x.shape[1:3], shape, back.shape[1:3], strict=False)
    ]
    x = tf.pad(x, [(0, 0), *around, (0, 0)])
    spans = [(outputs - 1) * stride + 3 for outputs in back.shape[1:3]]

    def part(i: int, j: int) -> Any:
        """The taps from row i and column j on, 3 x 3 of them."""
        return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
            input=x[:, i : i + spans[0], j : j + spans[1]],
            filter_sizes=[3, 3, *shape[2:]],
            out_backprop=back,
            strides=[1, stride, stride, 1],
            padding="VALID",
        )

    def joined(size: int, make: Any, axis: int) -> Any:
        """`make` of 0, 3, 6 and so on; the last one ends at `size` and has taps again."""
        starts = range(0, size - 3, 3)
        again = starts[-1] + 3 - (size - 3)
        last = tf.gather(make(size - 3), range(again, 3), axis=axis)
        return tf.concat([*map(make, starts), last], axis)

    return joined(shape[0], lambda i: joined(shape[1], lambda j: part(i, j), 1), 0)


def normalised_convolution(
    conv: Any, norm: keras.layers.BatchNormalization, padding: str, x: Any, optimised: bool = False
) -> Any:
    """``norm(conv(x))`` of frozen layers as one convolution with a bias.

    A frozen BatchNorm multiplies each channel by a constant and adds another. Both fit into the
    convolution's weights, which saves the two passes over memory that they would take.

    Args:
        optimised: TensorFlow's graph optimisers are on, and no gradient is taken: written so,
            they make convolution, bias and ReLU one operation (the forward pass alone of
            MobileNetV2 and MobileNetV3Small, 16 images of 224 pixels: 1.5 to 2 times faster).
    """
    depthwise = isinstance(conv, keras.layers.DepthwiseConv2D)
    kernel, bias = _folded_weights(conv, norm, depthwise)
    if _is_pointwise(conv) and not optimised:
        return ops.add(_pointwise(x, kernel), bias)
    if has_taps(conv):
        return ops.add(add_taps(x, kernel[..., 0], conv.strides, padding), bias)
    convolve = ops.depthwise_conv if depthwise else ops.conv
    y = convolve(x, kernel, conv.strides, padding, conv.data_format, conv.dilation_rate)
    return _bias_add(y, bias) if optimised else ops.add(y, bias)


def _bias_add(y: Any, bias: Any) -> Any:
    """The one kind of addition that TensorFlow joins to a convolution."""
    import tensorflow as tf

    return tf.nn.bias_add(y, bias)


def _folded_weights(
    conv: Any, norm: keras.layers.BatchNormalization, depthwise: bool
) -> tuple[Any, Any]:
    """Kernel and bias of a convolution that does what a BatchNorm after it did.

    On JAX they are computed here, by NumPy: as constants of a graph, XLA would take seconds to
    fold them whenever it compiles.
    """
    on_jax = keras.backend.backend() == "jax"
    xp, read = (np, ops.convert_to_numpy) if on_jax else (ops, lambda variable: variable)
    variance, mean = read(norm.moving_variance) + norm.epsilon, read(norm.moving_mean)
    scale = 1.0 / np.sqrt(variance) if on_jax else ops.rsqrt(variance)
    scale = scale * read(norm.gamma) if norm.scale else scale
    shift = -mean if conv.bias is None else read(conv.bias) - mean
    bias = shift * scale + read(norm.beta) if norm.center else shift * scale
    # A depthwise kernel is (height, width, inputs, multiplier), its channels inputs x multiplier.
    channels = conv.kernel.shape[2:] if depthwise else (-1,)
    return read(conv.kernel) * xp.reshape(scale, channels), bias


def has_taps(layer: Any) -> bool:
    """Whether `add_taps` is to do what a layer does.

    Only on JAX: XLA has no depthwise convolution worth the name (on two cores the taps take a
    thirtieth of its time), and TensorFlow has one.
    """
    on_jax = keras.backend.backend() == "jax"
    return on_jax and _is_plain_depthwise(layer) and layer.depth_multiplier == 1


def add_taps(x: Any, kernel: Any, strides: tuple[int, int], padding: str) -> Any:
    """A depthwise convolution as the sum of its taps, which XLA makes one loop.

    Args:
        x: ``(batch, height, width, channels)``.
        kernel: ``(height, width, channels)``.
        padding: "same" or "valid".
    """
    from jax import lax
    from jax import numpy as jnp

    pads, spans = [(0, 0)], []
    for n, k, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True):
        outputs = -(-n // stride) if padding == "same" else (n - k) // stride + 1
        pads.append(zeros_around(n, k, stride, outputs))
        spans.append((outputs - 1) * stride + 1)
    # Behind the barrier, for else XLA computes what made `x` again for each tap.
    x = jnp.pad(lax.optimization_barrier(x), [*pads, (0, 0)])
    taps = [
        x[:, i : i + spans[0] : strides[0], j : j + spans[1] : strides[1]] * kernel[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    return sum(taps[1:], taps[0])


def _pointwise(x: Any, kernel: Any) -> Any:
    """A convolution with a 1 x 1 kernel as the matrix product that it is.

    TensorFlow's gradient of the convolution is up to five times slower on two cores (2 x 2
    pixels, 160 to 960 channels, 64 images); forward there is no difference. A training step of
    MobileNetV3Small, all of it tuned, four images of 224 pixels, takes a seventh to a quarter less.
    """
    rows = ops.matmul(ops.reshape(x, (-1, kernel.shape[-2])), kernel[0, 0])
    return ops.reshape(rows, (*ops.shape(x)[:-1], kernel.shape[-1]))


def zeros_around(n: int, kernel: int, stride: int, outputs: int) -> tuple[int, int]:
    """Zeros before and after `n` pixels from which a convolution makes so many outputs."""
    total = max((outputs - 1) * stride + kernel - n, 0)
    return total // 2, total - total // 2
