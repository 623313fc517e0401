"""The network to take home: trained again on training and selection photos, plain Keras inside.

Its preprocessing is a part of it: it takes photos of any size, RGB, 0 to 255, and returns the
probability of each class. `keras.models.load_model` loads it without this project.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from ..backbones.build import classifier, load_backbone, scale_inputs
from ..backbones.pure import prepare_backbone
from ..backbones.records import NORMALISED, PIXELS, RECORDS, UNIT_RANGE
from ..lanes.memory import MemoryEstimate, budget
from ..lanes.trunk import Trunk, read_graph
from ..partition import Block
from ..train import batch_order, freeze_except
from .export import RESIZE
from .lanes import pooled
from .settings import Settings

TORCH_MEANS = (0.485, 0.456, 0.406)  # of red, green and blue from 0 to 1, as DenseNet was trained
TORCH_DEVIATIONS = (0.229, 0.224, 0.225)
CAFFE_MEANS = (103.939, 116.779, 123.68)  # of blue, green and red: what VGG16 was trained with


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weight of a photo of each class, float32: classes count alike, and photos count 1 in mean."""
    counts = np.bincount(labels, minlength=classes)
    return (len(labels) / (classes * np.maximum(counts, 1))).astype("float32")


def fit(
    settings: Settings,
    image_size: int,
    block: Block,
    images: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    epochs: int,
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Train one block with the classifier, and put the preprocessing in front.

    Args:
        images: uint8 ``(N, image_size, image_size, 3)``; labels: int ``(N,)``.
        epochs: passes over the photos, known beforehand: none of them is held back to stop by.

    Returns:
        A model from photos ``(batch, any height, any width, 3)`` to probabilities
        ``(batch, classes)``, and Keras' history of loss and accuracy.
    """
    s = settings
    bare = load_backbone(s.backbone, image_size=image_size, alpha=s.alpha, weights=s.weights,
                         thin=s.thin)  # fmt: skip
    backbone = pooled(bare)
    head = classifier(backbone.output.shape[1:], len(names), dropout=s.dropout, seed=s.seed)
    if s.augment:
        inputs, upper = _augmented(s, backbone, head, block, images)
    else:
        inputs, upper = _above_trunk(s, backbone, head, block, images)
    upper.compile(
        keras.optimizers.Adam(s.learning_rate), "categorical_crossentropy", metrics=["accuracy"]
    )
    targets = np.eye(len(names), dtype="float32")[labels]
    weights = class_weights(labels, len(names))[labels]
    log = upper.fit(
        _batches(inputs, targets, weights, s),
        shuffle=False,  # the generator has done it
        steps_per_epoch=-(-len(labels) // s.batch_size),
        epochs=epochs,
        verbose=0,
    ).history
    return whole(s, backbone, head, image_size), {k: list(map(float, v)) for k, v in log.items()}


def _above_trunk(
    settings: Settings, backbone: keras.Model, head: keras.Model, block: Block, images: np.ndarray
) -> tuple[list[np.ndarray], keras.Model]:
    """What crosses a cut below the first tuned layer, and the model above it.

    The deepest cut that has room in memory, as in the search: what is frozen above it is executed
    in every step.
    """
    nodes = prepare_backbone(backbone)
    tensors = [*backbone.inputs, *(t for node in nodes for t in node.outputs)]
    graph = read_graph(backbone)
    freeze_except(backbone, block.layers)
    pixels = scale_inputs(images, settings.backbone, "native")
    memory = MemoryEstimate(graph, settings.batch_size, len(images), 0, head.count_params(),
                            budget(settings.memory_gib))  # fmt: skip
    batch = memory.eval_batch([()], 0)
    trunk = Trunk.from_images(graph, pixels).advance(memory.cut([block.layers]), batch)
    crossing = [tensors[t] for t in trunk.features]
    return list(trunk.features.values()), keras.Model(crossing, head(backbone.output))


def _augmented(
    settings: Settings, backbone: keras.Model, head: keras.Model, block: Block, images: np.ndarray
) -> tuple[list[np.ndarray], keras.Model]:
    """The photos, and the whole model with layers in front that draw anew in each epoch."""
    prepare_backbone(backbone)
    freeze_except(backbone, block.layers)
    photos = keras.Input(images.shape[1:])
    seen = _scaling(settings.backbone)(_changes(settings.seed)(photos))
    return [images.astype("float32")], keras.Model(photos, head(backbone(seen)))


def _changes(seed: int) -> keras.Sequential:
    """Flips, small turns and zooms; inert at prediction."""
    return keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=seed),
            layers.RandomRotation(0.03, seed=seed + 1),
            layers.RandomZoom(0.1, seed=seed + 2),
        ],
        name="changes",
    )


def _batches(
    inputs: Sequence[np.ndarray], targets: np.ndarray, weights: np.ndarray, settings: Settings
) -> Iterator[tuple]:
    """Inputs, targets and weights batch by batch, epoch after epoch without end."""
    epoch = 0
    while True:
        order = batch_order(len(targets), epoch, settings.seed)
        for start in range(0, len(order), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            x: Any = tuple(part[rows] for part in inputs)
            yield (x if len(x) > 1 else x[0]), targets[rows], weights[rows]
        epoch += 1


# --------------------------------------------------------------------------- with its preprocessing


def whole(
    settings: Settings, backbone: keras.Model, head: keras.Model, image_size: int
) -> keras.Model:
    """The trained network behind its preprocessing, all of it layers of Keras.

    Nothing in it depends on whether Keras believes that it is training: ``model(photos)`` does
    believe so, as `Resizing` says it by default to the layers after it. So there is no dropout and
    no augmentation in it, and BatchNorms are frozen.
    """
    photos = keras.Input((None, None, 3), name="photos")
    # Antialiased, as Pillow does it: photos from a camera are many times larger than the result.
    x = layers.Resizing(image_size, image_size, antialias=True, name=RESIZE)(photos)
    features = backbone(_scaling(settings.backbone)(x))
    still = classifier(backbone.output.shape[1:], head.output_shape[-1], dropout=0, seed=0)
    still.set_weights(head.get_weights())
    model = keras.Model(photos, still(features), name="tuned")
    model.trainable = False
    return model


def _scaling(name: str) -> layers.Layer:
    """`lib.backbones.build.scale_inputs` with native scaling, as a layer."""
    native = RECORDS[name].native
    if native == PIXELS:
        return layers.Rescaling(1.0, name="scale")
    if native == UNIT_RANGE:
        return layers.Rescaling(1 / 127.5, offset=-1.0, name="scale")
    if native == NORMALISED:
        mean, deviation = (255 * np.array(x) for x in (TORCH_MEANS, TORCH_DEVIATIONS))
        return layers.Normalization(mean=mean, variance=deviation**2, name="scale")
    layer = layers.Conv2D(3, 1, trainable=False, name="scale")  # RGB to BGR, less the means
    layer.build((None, None, None, 3))
    layer.set_weights([np.eye(3, dtype="float32")[::-1][None, None], -np.array(CAFFE_MEANS)])
    return layer
