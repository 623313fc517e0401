"""The trunk below a cut, then the rest, is the whole backbone."""

import tracemalloc

import keras
import numpy as np
import pytest
from keras import ops

from lib.backbones.build import load_backbone
from lib.backbones.records import BACKBONE_NAMES
from lib.lanes import trunk as trunk_module
from lib.lanes.trunk import Trunk, choose_cut, read_graph, run_calls
from lib.params import InputError

SIZE = 32


def images(n=2):
    return np.random.default_rng(0).random((n, SIZE, SIZE, 3)).astype("float32")


@pytest.fixture(scope="module", params=BACKBONE_NAMES)
def twin(request):
    """A thin network, which has the layers, branches and bare operations of the whole one."""
    return load_backbone(request.param, image_size=SIZE, weights="embedded", thin=True)


def test_trunk_and_rest_are_the_whole_at_every_cut(twin):
    graph, photo = read_graph(twin), ops.convert_to_tensor(images(1))
    expected = ops.convert_to_numpy(twin(photo))
    below = {graph.input: photo}
    for cut in range(len(graph.calls) + 1):
        if cut:
            below = run_calls(graph, below, cut - 1, cut)
        assert set(below) == set(graph.frontier(cut))
    np.testing.assert_allclose(
        ops.convert_to_numpy(below[graph.output]), expected, rtol=1e-4, atol=1e-5
    )


def test_cuts_one_after_the_other_equal_the_whole(twin):
    """Each cut's outputs come from the previous cut's, across residual units too."""
    graph = read_graph(twin)
    trunk = Trunk.from_images(graph, images())
    n = len(graph.calls)
    for cut in (n // 5, n // 5, n // 2, n - 3, n):
        trunk = trunk.advance(cut)
        assert all(f.dtype == "float32" for f in trunk.features.values())
    whole = ops.convert_to_numpy(twin(ops.convert_to_tensor(images())))
    np.testing.assert_allclose(trunk.features[graph.output], whole, rtol=1e-4, atol=1e-5)


def test_advance_does_not_depend_on_the_batches():
    graph = read_graph(load_backbone("MobileNet", image_size=SIZE, weights="none", thin=True))
    one, many = (
        Trunk.from_images(graph, images(5)).advance(20, batch_size=size) for size in (2, 64)
    )
    for t, features in one.features.items():
        np.testing.assert_allclose(features, many.features[t], atol=1e-6)


def test_a_trunk_does_not_go_back():
    graph = read_graph(load_backbone("VGG16", image_size=SIZE, weights="none", thin=True))
    with pytest.raises(ValueError, match="lies below"):
        Trunk.from_images(graph, images()).advance(5).advance(4)


def test_residual_cuts_are_crossed_by_several_tensors(twin):
    graph = read_graph(twin)
    branches = twin.name not in ("vgg16", "mobilenet_1.00_32")
    assert (max(len(graph.frontier(cut)) for cut in range(len(graph.calls))) > 1) == branches
    assert graph.frontier(0) == (graph.input,)
    assert graph.frontier(len(graph.calls)) == (graph.output,)


def test_span():
    backbone = load_backbone("VGG16", image_size=SIZE, weights="none", thin=True)
    graph = read_graph(backbone)
    names = [call.operation.name for call in graph.calls]
    assert graph.span(["block1_conv2", "block3_conv1"]) == (
        names.index("block1_conv2"),
        names.index("block3_conv1"),
    )
    assert graph.span([]) == (len(names), len(names))


def test_multiply_adds():
    graph = read_graph(load_backbone("VGG16", image_size=224, weights="none"))
    assert sum(call.macs for call in graph.calls) == pytest.approx(15.3e9, rel=0.01)
    graph = read_graph(load_backbone("MobileNetV2", image_size=224, weights="none"))
    assert sum(call.macs for call in graph.calls) == pytest.approx(0.3e9, rel=0.02)


def test_choose_cut_is_the_deepest_that_fits():
    bytes_at = [9, 5, 7, 3, 4].__getitem__
    assert choose_cut(4, 9, bytes_at) == 4
    assert choose_cut(4, 3, bytes_at) == 3
    assert choose_cut(2, 5, bytes_at) == 1
    assert choose_cut(2, 1, bytes_at) == 0  # the images are held in any case


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: 9 GiB")])
def test_a_device_that_is_exhausted_gets_smaller_batches(monkeypatch, error):
    graph = read_graph(load_backbone("VGG16", image_size=SIZE, weights="none", thin=True))
    tried = []

    def exhausted(function):
        run = compiled(function)

        def small(values):
            tried.append(len(values[graph.input]))
            if tried[-1] > 2:
                raise error
            return run(values)

        return small

    whole = Trunk.from_images(graph, images(7)).advance(9)
    compiled = trunk_module._compiled
    monkeypatch.setattr(trunk_module, "_compiled", exhausted)
    parts = Trunk.from_images(graph, images(7)).advance(9, batch_size=5)
    assert tried == [5, 2, 2, 2, 1]
    for t, features in whole.features.items():
        np.testing.assert_allclose(parts.features[t], features, atol=1e-6)


def test_a_device_too_small_for_one_image_is_said(monkeypatch):
    graph = read_graph(load_backbone("VGG16", image_size=SIZE, weights="none", thin=True))

    def exhausted(_):
        def run(values):
            raise MemoryError(f"{len(values[graph.input])} images")

        return run

    monkeypatch.setattr(trunk_module, "_compiled", exhausted)
    with pytest.raises(MemoryError, match="1 images"):
        Trunk.from_images(graph, images(3)).advance(4)


def test_what_crosses_a_cut_is_held_once(monkeypatch):
    """Not in parts and joined besides."""
    graph = read_graph(load_backbone("VGG16", image_size=SIZE, weights="none", thin=True))
    (crossing,) = graph.frontier(1)
    photos = Trunk.from_images(graph, images(64))

    def same(_):
        shape = (SIZE, SIZE, graph.sizes[crossing] // SIZE**2)
        return lambda values: {crossing: np.zeros((len(values[graph.input]), *shape), "float32")}

    monkeypatch.setattr(trunk_module, "_compiled", same)
    tracemalloc.start()
    trunk = photos.advance(1, batch_size=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert trunk.features[crossing].nbytes < peak < 1.5 * trunk.features[crossing].nbytes


def test_only_functional_models():
    with pytest.raises(InputError, match="functional"):
        read_graph(keras.layers.Dense(1))
    a, b = keras.Input((2,)), keras.Input((2,))
    with pytest.raises(InputError, match="2 inputs"):
        read_graph(keras.Model([a, b], keras.layers.add([a, b])))


def test_private_attributes_of_keras():
    """What `read_graph` needs of Keras, so that an upgrade that removes it is noticed here."""
    model = load_backbone("VGG16", image_size=SIZE, weights="none", thin=True)
    (node,) = next(iter(model._nodes_by_depth.values()))
    for name in ("operation", "input_tensors", "outputs", "is_input", "arguments"):
        assert hasattr(node, name)


def test_private_attributes_of_keras_layers():
    """What `pure` needs: sub-layers, seeds, masks, and weights that are tuned if not frozen."""
    drop = keras.layers.Dropout(0.5)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense"), drop])
    model.trainable = False
    assert {"dense", drop.name} <= {layer.name for layer in model._flatten_layers()}
    assert len(model.get_layer("dense")._trainable_variables) == 2
    assert len(drop._seed_generators) == 1
    assert keras.layers.Masking()(keras.Input((2, 2)))._keras_mask is not None


FOLDS = {  # of norms and of zero padding, by the name that Keras gives the network
    "vgg16": (0, 0),
    "mobilenet_1.00_32": (27, 4),
    "mobilenetv2_1.00_32": (52, 4),
    "MobileNetV3Small": (34, 4),
    "resnet50v2": (32, 13),  # of its 16, three stride where "same" pads elsewhere
}


def test_frozen_norms_and_zero_padding_are_part_of_their_convolution(twin):
    """As many as the architecture has, and the network's output stays what Keras makes it."""
    graph, photos = read_graph(twin), ops.convert_to_tensor(images())
    pairs, pads = FOLDS[twin.name]
    assert sum(call.norm is not None for call in graph.calls) == pairs
    assert sum(call.pad is not None for call in graph.calls) == pads
    named = [name for call in graph.calls for name in call.names]
    assert len(named) == len(set(named))
    assert {layer.name for layer in twin.layers[1:]} <= set(named)  # all but the input
    folded = run_calls(graph, {graph.input: photos}, 0, len(graph.calls))[graph.output]
    np.testing.assert_allclose(
        ops.convert_to_numpy(folded), ops.convert_to_numpy(twin(photos)), rtol=1e-4, atol=1e-5
    )


def test_only_what_is_the_same_is_folded():
    """Not: an activation between, a second reader, a convolution used twice, another axis.

    Nor padding that "same" would put elsewhere.
    """
    layers, image = keras.layers, keras.Input((SIZE, SIZE, 4))
    twice = layers.Conv2D(4, 1, name="twice")
    read_twice = layers.Conv2D(4, 1, name="read_twice")(image)
    kept = [
        layers.BatchNormalization(name="a")(layers.Conv2D(4, 1, activation="relu")(image)),
        layers.BatchNormalization(name="b")(read_twice),
        read_twice,
        layers.BatchNormalization(name="c")(twice(image)),
        layers.BatchNormalization(name="d")(twice(read_twice)),
        layers.BatchNormalization(name="e", axis=1)(layers.Conv2D(4, 1)(image)),
    ]
    bare = layers.BatchNormalization(name="bare", center=False, scale=False)
    biased = bare(layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1)(image))
    wide = layers.DepthwiseConv2D(3, dilation_rate=2, padding="same", depth_multiplier=2)(image)
    wide = layers.Conv2D(4, 1, name="narrow")(layers.BatchNormalization(name="wide")(wide))
    pads = {"around": 1, "above": ((2, 0), (1, 1))}
    padded = [
        layers.BatchNormalization(name=f"{name}_norm")(
            layers.Conv2D(4, 3)(layers.ZeroPadding2D(zeros, name=name)(image))
        )
        for name, zeros in pads.items()
    ]
    pairs = layers.BatchNormalization(name="grouped")(layers.Conv2D(4, 1, groups=2)(image))
    model = keras.Model(image, layers.add([*kept, biased, wide, *padded, pairs]))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 2, w.shape) for w in model.get_weights()])
    graph = read_graph(model)
    folds = {call.norm.name: call.pad for call in graph.calls if call.norm}
    assert set(folds) == {"bare", "wide", "around_norm", "above_norm", "grouped"}
    assert [pad.name for pad in folds.values() if pad] == ["around"]
    x = ops.convert_to_tensor(rng.random((2, SIZE, SIZE, 4)).astype("float32"))
    folded = run_calls(graph, {graph.input: x}, 0, len(graph.calls))[graph.output]
    np.testing.assert_allclose(
        ops.convert_to_numpy(folded), ops.convert_to_numpy(model(x)), rtol=1e-4
    )
