"""Pre-train the thin twins and write their weights to `lib/weights`.

    python -m lib.backbones.pretrain [BACKBONE ...]

The source task (`lib.photos.drawn.source_task`) shows no flowers, so what a twin brings to the
flowers is transfer, as ImageNet is for the paper's backbones. The files ship with the project;
run this only to make them again. It is seeded; numbers may differ in the last digits between
machines. Accuracy on the source task, in Table I's order:
0.917, 0.804, 0.720, 0.576, 0.686 (chance 0.084); about a minute and a half each on two cores.
"""

import argparse
import time

import keras
import numpy as np

from ..photos.drawn import source_task
from .build import EMBEDDED, file_names, load_backbone, scale_inputs
from .records import RECORDS, THIN_BACKBONES

IMAGE_SIZE = 32  # pixels, as in the quick profile; the weights fit any size
N_TRAIN, N_TEST = 16000, 1000
EPOCHS = 10
BATCH_SIZE = 64
WARM_UP = 0.1  # share of the steps
SEED = 0
MOMENTUM = 0.95  # of BatchNorm statistics while pre-training, longer than a short run's


def pretrain(name, train, test):
    """Train one thin twin with a linear softmax head and write its weights.

    name: one of THIN_BACKBONES. train, test: (images (n, h, w, 3) uint8, labels (n,) int64).
    Returns the accuracy on `test`, in [0, 1].
    """
    keras.utils.set_random_seed(SEED)
    backbone = load_backbone(name, image_size=IMAGE_SIZE, weights="none", thin=True)
    _prepare(backbone)
    model = _with_head(backbone, n_classes=int(train[1].max()) + 1)
    steps = EPOCHS * -(-len(train[1]) // BATCH_SIZE)
    twin = RECORDS[name].thin
    optimizer = _optimizer(twin.rate, steps)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    images = scale_inputs(train[0], name, twin.scaling)
    model.fit(images, train[1], batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    backbone.save_weights(EMBEDDED / file_names(name, thin=True)[0])
    images = scale_inputs(test[0], name, twin.scaling)
    return model.evaluate(images, test[1], batch_size=BATCH_SIZE, verbose=0)[1]


def _prepare(backbone):
    """BatchNorm's memory, and He's initial kernels: VGG16 has no BatchNorm to rescue it."""
    for seed, layer in enumerate(backbone.layers):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
        elif layer.weights:
            kernel = layer.weights[0]
            kernel.assign(keras.initializers.HeNormal(seed)(kernel.shape))


def _with_head(backbone, n_classes):
    features = keras.layers.GlobalAveragePooling2D()(backbone.output)
    scores = keras.layers.Dense(n_classes, activation="softmax")(features)
    return keras.Model(backbone.input, scores)


def _optimizer(peak, steps):
    warm_up = int(WARM_UP * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=peak, warmup_steps=warm_up
    )
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)


def main(arguments=None):
    """Pre-train the twins named on the command line, all by default."""
    parser = argparse.ArgumentParser(prog="python -m lib.backbones.pretrain", description=__doc__)
    parser.add_argument("backbones", nargs="*", metavar="BACKBONE", help=", ".join(THIN_BACKBONES))
    names = parser.parse_args(arguments).backbones or THIN_BACKBONES
    for name in set(names) - set(THIN_BACKBONES):
        parser.error(f"{name!r} is unknown; allowed: {', '.join(THIN_BACKBONES)}")
    EMBEDDED.mkdir(exist_ok=True)
    images, labels = source_task(N_TRAIN + N_TEST, IMAGE_SIZE, seed=SEED)
    train, test = (images[:N_TRAIN], labels[:N_TRAIN]), (images[N_TRAIN:], labels[N_TRAIN:])
    chance = np.bincount(test[1]).max() / N_TEST
    for name in names:
        start = time.perf_counter()
        accuracy = pretrain(name, train, test)
        seconds = time.perf_counter() - start
        print(
            f"{name}: source accuracy {accuracy:.3f} (chance {chance:.3f}), {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
