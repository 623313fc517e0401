"""The engine's own way of computing a layer gives what Keras' layer gives."""

import keras
import numpy as np
import pytest
from keras import ops

from lib.lanes import layers

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="an operation of TensorFlow's"
)


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_taps_are_a_depthwise_convolution(size, kernel, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, size, size + 1, 3)).astype("float32")
    weights = rng.standard_normal((kernel, kernel, 3)).astype("float32")
    expected = ops.depthwise_conv(x, weights[..., None], stride, padding)
    found = layers.add_taps(x, weights, (stride, stride), padding)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@on_tensorflow
@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("kernel", [(4, 4), (5, 5), (7, 5)])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("multiplier", [1, 2])
def test_a_wide_depthwise_convolution_and_its_gradients(size, kernel, strides, padding, multiplier):
    layer = keras.layers.DepthwiseConv2D(
        kernel, strides, padding, multiplier, activation="relu", bias_initializer="normal"
    )
    x = random(3, size, size + 1, 4)
    layer(x)
    assert layers._is_wide_depthwise(layer)
    agree(layer, x)


@on_tensorflow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 6, 4), (2, 1, 1, 4)])
def test_a_tuned_batch_norm_its_gradients_and_statistics(training, scale, center, shape):
    layer = keras.layers.BatchNormalization(
        momentum=0.9,
        epsilon=1e-3,
        scale=scale,
        center=center,
        moving_mean_initializer="normal",
        moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2.0, seed=1),
    )
    x = random(*shape) + 3
    layer(x)
    assert layers._is_plain_norm(layer, x)
    agree(layer, x, training)


@on_tensorflow
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("size", [1, 5])
def test_a_tuned_convolution_of_single_pixels_and_its_gradients(size, use_bias):
    layer = keras.layers.Conv2D(
        6, 1, activation="relu", use_bias=use_bias, bias_initializer="normal"
    )
    x = random(3, size, size, 4)
    layer(x)
    assert layers._is_pointwise(layer)
    agree(layer, x)


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3}, {"kernel_size": 1, "strides": 2}, {"kernel_size": 1, "groups": 2}],
)
def test_other_convolutions_are_no_matrix_products(options):
    assert not layers._is_pointwise(keras.layers.Conv2D(4, **options))


@on_tensorflow
@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (3, 4), (2, 3, 4)])
def test_a_batch_norm_of_one_number_or_of_no_image_is_keras_own(shape):
    layer = keras.layers.BatchNormalization(moving_mean_initializer="normal")
    x = random(*shape)
    layer(x)
    assert not layers._is_plain_norm(layer, x)
    agree(layer, x)


def random(*shape):
    return ops.convert_to_tensor(np.random.default_rng(0).standard_normal(shape), "float32")


def agree(layer, x, training=True):
    """Outputs, gradients of input and weights, and new statistics are those of Keras' own call."""
    kwargs = {"training": training}
    ours = outcome(layer, x, lambda: layers.tuned_layer(layer, (x,), kwargs))
    keras_own = outcome(layer, x, lambda: layer(x, **kwargs))
    for found, expected in zip(ours, keras_own, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-5)


def outcome(layer, x, call):
    import tensorflow as tf

    values = [(v, ops.convert_to_tensor(v.numpy())) for v in layer.weights]
    with tf.GradientTape() as tape:
        tape.watch([x, *(value for _, value in values)])
        with keras.StatelessScope(values) as scope:
            y = call()
        loss = tf.reduce_sum(y * random(*y.shape))
    learned = [value for v, value in values if v.trainable]
    statistics = [scope.get_current_value(v) for v in layer.non_trainable_weights]
    return [y, *tape.gradient(loss, [x, *learned]), *statistics]
