"""lib.photos.drawn: the drawn sets are reproducible, balanced, and hard enough."""

import numpy as np
import pytest

from lib.photos import drawn as procedural
from lib.photos.drawn import (
    CLASS_NAMES,
    DIGIT_NAMES,
    SOURCE_NAMES,
    digits,
    procedural_flowers,
    source_task,
)

DRAW = [procedural_flowers, source_task, digits]
NAMES = [CLASS_NAMES, SOURCE_NAMES, DIGIT_NAMES]


@pytest.fixture(scope="module")
def flowers():
    return procedural_flowers(1000, 32, seed=0)


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("size", [32, 47])
def test_shapes_and_types(draw, size):
    images, labels = draw(7, size, seed=3)
    assert (images.shape, images.dtype) == ((7, size, size, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((7,), np.int64)


@pytest.mark.parametrize("draw", DRAW)
def test_the_same_seed_draws_the_same_bits_and_another_seed_others(draw):
    first, again, other = draw(15, 32, seed=1), draw(15, 32, seed=1), draw(15, 32, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any((a == b).all() for a, b in zip(first[0], other[0], strict=True))


@pytest.mark.parametrize("draw", DRAW)
def test_an_image_does_not_depend_on_how_many_are_drawn(draw):
    few, many = draw(8, 32, seed=5), draw(23, 32, seed=5)
    assert np.array_equal(few[0], many[0][:8])
    assert np.array_equal(few[1], many[1][:8])


@pytest.mark.parametrize(("draw", "names"), list(zip(DRAW, NAMES, strict=True)))
def test_every_round_holds_each_class_once_in_a_drawn_order(draw, names):
    n_classes = len(names)
    labels = draw(6 * n_classes, 32, seed=0)[1].reshape(6, n_classes)
    assert np.array_equal(np.sort(labels, axis=1), np.tile(np.arange(n_classes), (6, 1)))
    assert len({tuple(order) for order in labels.tolist()}) > 3


def test_no_images_are_no_error():
    images, labels = procedural_flowers(0, 32)
    assert (images.shape, labels.shape, labels.dtype) == ((0, 32, 32, 3), (0,), np.int64)


def test_the_names_are_those_of_tf_flowers_and_there_is_a_painter_for_each():
    assert CLASS_NAMES == ("dandelion", "daisy", "tulips", "sunflowers", "roses")
    assert len(procedural.FLOWERS) == len(CLASS_NAMES)
    assert np.allclose(procedural.COLOUR_ODDS.sum(axis=1), 1)
    assert (procedural.COLOUR_ODDS > 0).all()  # every colour occurs in every class


def test_the_two_tasks_share_no_class():
    assert not set(CLASS_NAMES) & set(SOURCE_NAMES)
    assert 10 <= len(SOURCE_NAMES) <= 16


def test_a_seed_shows_the_same_picture_at_every_size():
    small = procedural_flowers(10, 32, seed=0)[0].astype(float)
    large = procedural_flowers(10, 64, seed=0)[0].astype(float)
    halved = large.reshape(10, 32, 2, 32, 2, 3).mean(axis=(2, 4))
    same = np.abs(halved - small).mean()
    other = np.abs(np.roll(halved, 5, axis=0) - small).mean()
    assert same < other / 3


def test_images_are_neither_flat_nor_burnt_out(flowers):
    images = flowers[0]
    assert images.std(axis=(1, 2, 3)).min() > 4
    assert np.isin(images, (0, 255)).mean() < 0.1
    assert len({image.tobytes() for image in images}) == len(images)


def nearest_mean_accuracy(features, labels):
    """Fit class means on the first 70 %, return the accuracy on the rest."""
    cut = int(0.7 * len(labels))
    means = np.array([features[:cut][labels[:cut] == k].mean(axis=0) for k in range(5)])
    distance = ((features[cut:, None] - means) ** 2).sum(axis=-1)
    return (distance.argmin(axis=1) == labels[cut:]).mean()


def test_neither_colour_nor_raw_pixels_give_the_class_away(flowers):
    images, labels = flowers
    pixels = images.reshape(len(images), -1) / 255.0
    colours = np.array([np.histogramdd(i.reshape(-1, 3), (4, 4, 4))[0].ravel() for i in images])
    assert nearest_mean_accuracy(np.sqrt(colours), labels) < 0.5
    assert nearest_mean_accuracy(pixels, labels) < 0.5


def test_shape_does_tell_the_classes_apart(flowers):
    """Noise-free flowers in one pose and colour differ between classes by far more than within."""
    x, y = procedural._grid(64)
    colour = procedural.PETAL_COLOURS[1]
    drawn = np.zeros((5, 8, 64, 64, 3), np.float32)
    for label, paint in enumerate(procedural.FLOWERS):
        for k in range(8):
            paint(np.random.default_rng(k), drawn[label, k], x / 0.8, y / 0.8, colour)
    brightness = drawn.mean(axis=-1).reshape(5, 8, -1)
    means = brightness.mean(axis=1)
    distance = ((brightness[:, :, None] - means) ** 2).sum(axis=-1)
    assert (distance.argmin(axis=2) == np.arange(5)[:, None]).mean() > 0.9
