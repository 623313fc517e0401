"""The embedded data, drawn from a seed: flowers to classify and a source task to pre-train on.

Flowers and source task make the default profile run on a fresh machine without a network.
`procedural_flowers` stands in for tf_flowers: five kinds of flower that differ in shape while pose,
colour, background, clutter, light, blur and occlusion vary. `source_task` stands in for ImageNet:
textures and simple shapes, none of them a flower. `digits` are a third set, for `lib.study`.

Everything is drawn at twice the size in float32 and averaged down, which smooths the edges.
Coordinates run from -1 to 1 over the image, x to the right and y downwards, so that one seed shows
the same picture at every size. Image i depends on the seed, i and the size only.
"""

from collections.abc import Callable

import numpy as np

# The classes of the flowers, in the order of tf_flowers.
CLASS_NAMES = ("dandelion", "daisy", "tulips", "sunflowers", "roses")

# Petal colours, RGB in [0, 1]. All are shared: colour hints at the class and never tells it.
PETAL_COLOURS = np.array(
    [
        [0.95, 0.95, 0.92],  # white
        [0.98, 0.85, 0.15],  # yellow
        [0.95, 0.55, 0.12],  # orange
        [0.85, 0.12, 0.15],  # red
        [0.95, 0.55, 0.70],  # pink
        [0.60, 0.30, 0.75],  # purple
    ],
    dtype=np.float32,
)
# How often a class (row) has a colour (column); each row sums to 1.
COLOUR_ODDS = np.array(
    [
        [0.25, 0.55, 0.05, 0.05, 0.05, 0.05],  # dandelion
        [0.55, 0.10, 0.05, 0.05, 0.15, 0.10],  # daisy
        [0.05, 0.10, 0.20, 0.20, 0.15, 0.30],  # tulips
        [0.05, 0.50, 0.30, 0.05, 0.05, 0.05],  # sunflowers
        [0.10, 0.05, 0.05, 0.45, 0.30, 0.05],  # roses
    ]
)
LEAF_COLOURS = np.array(
    [[0.20, 0.45, 0.15], [0.35, 0.55, 0.20], [0.12, 0.30, 0.12], [0.45, 0.42, 0.20]], np.float32
)
GROUND_COLOURS = np.array(
    [
        [0.25, 0.45, 0.20],  # grass
        [0.10, 0.20, 0.10],  # shade
        [0.40, 0.32, 0.22],  # soil
        [0.55, 0.70, 0.85],  # sky
        [0.60, 0.60, 0.58],  # stone
        [0.80, 0.75, 0.65],  # wall
    ],
    np.float32,
)

_FLOWERS, _SOURCE, _ORDER, _DIGITS = 1, 2, 3, 4  # keep the streams of random numbers apart

Field = np.ndarray  # float32 (S, S), one value per pixel
Canvas = np.ndarray  # float32 (S, S, 3), RGB in [0, 1]


def procedural_flowers(
    n_images: int, image_size: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the flowers.

    Args:
        n_images: how many, at least 0.
        image_size: height and width in pixels.
        seed: a non-negative integer.

    Returns:
        images uint8 (n_images, image_size, image_size, 3) and labels int64 (n_images,), indices
        into `CLASS_NAMES`. Each run of five images from a multiple of five holds every class once,
        in a drawn order, so that even the smallest slices hold all classes.
    """
    labels = _balanced_labels(n_images, len(CLASS_NAMES), [seed, _FLOWERS])
    return _draw_all(_draw_flower, labels, image_size, [seed, _FLOWERS]), labels


def source_task(n_images: int, image_size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw the textures and shapes that the thin twins are pre-trained on.

    Args and returns as for `procedural_flowers`, labels being indices into `SOURCE_NAMES`.
    """
    labels = _balanced_labels(n_images, len(SOURCE_NAMES), [seed, _SOURCE])
    return _draw_all(_draw_source, labels, image_size, [seed, _SOURCE]), labels


def digits(n_images: int, image_size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw digits as a hand would: strokes of any colour, slanted, on a blotched ground with marks.

    Args and returns as for `procedural_flowers`, labels being the digits' values.
    """
    labels = _balanced_labels(n_images, len(STROKES), [seed, _DIGITS])
    return _draw_all(_draw_digit, labels, image_size, [seed, _DIGITS]), labels


def _balanced_labels(n_images: int, n_classes: int, seeds: list[int]) -> np.ndarray:
    """Return labels int64 (n_images,): one drawn order of all classes after the other."""
    rng = np.random.default_rng([*seeds, _ORDER])
    n_rounds = -(-n_images // n_classes)
    rounds = [rng.permutation(n_classes) for _ in range(n_rounds)]
    return np.concatenate([np.empty(0, np.int64), *rounds]).astype(np.int64)[:n_images]


def _draw_all(
    draw: Callable[[np.random.Generator, Field, Field, int], Canvas],
    labels: np.ndarray,
    image_size: int,
    seeds: list[int],
) -> np.ndarray:
    """Return uint8 (N, image_size, image_size, 3), one image per label."""
    images = np.empty((len(labels), image_size, image_size, 3), np.uint8)
    x, y = _grid(2 * image_size)
    for i, label in enumerate(labels):
        rng = np.random.default_rng([*seeds, i])
        images[i] = _photograph(rng, draw(rng, x, y, int(label)))
    return images


def _grid(size: int) -> tuple[Field, Field]:
    """Return x and y of the pixel centres, each from -1 to 1."""
    axis = ((np.arange(size, dtype=np.float32) + 0.5) / size) * 2 - 1
    return np.broadcast_to(axis, (size, size)), np.broadcast_to(axis[:, None], (size, size))


# ------------------------------------------------------------------ what flowers and source share


def _photograph(rng: np.random.Generator, canvas: Canvas) -> np.ndarray:
    """Return the scene as a photo: light, blur, half the size, sensor noise; uint8."""
    canvas = _blurred(_lit(rng, canvas), rng.integers(0, 4))
    half = canvas.shape[0] // 2
    small = canvas.reshape(half, 2, half, 2, 3).mean(axis=(1, 3))
    noise = rng.uniform(0.0, 0.03) * rng.standard_normal(small.shape, np.float32)
    return (np.clip(small + noise, 0, 1) * 255 + 0.5).astype(np.uint8)


def _lit(rng: np.random.Generator, canvas: Canvas) -> Canvas:
    """Return the canvas under light from one side, with a colour cast, a gain and an offset."""
    size = canvas.shape[0]
    x, y = _grid(size)
    along, _ = _turned(x, y, rng.uniform(0, 2 * np.pi))
    light = 1 + rng.uniform(0.0, 0.35) * along
    cast = (rng.uniform(0.8, 1.15) * rng.uniform(0.85, 1.15, 3)).astype(np.float32)
    return canvas * light[..., None] * cast + rng.uniform(-0.05, 0.1)


def _blurred(canvas: Canvas, times: int) -> Canvas:
    """Return the canvas after `times` passes of the binomial filter 1-2-1 in both directions."""
    for _ in range(times):
        edge = np.pad(canvas, ((1, 1), (0, 0), (0, 0)), mode="edge")
        canvas = 0.25 * (edge[:-2] + 2 * canvas + edge[2:])
        edge = np.pad(canvas, ((0, 0), (1, 1), (0, 0)), mode="edge")
        canvas = 0.25 * (edge[:, :-2] + 2 * canvas + edge[:, 2:])
    return canvas


def _paint(canvas: Canvas, depth: Field, colour: np.ndarray) -> None:
    """Paint where `depth`, the distance inside a shape's edge, is positive; the edge is soft.

    Args:
        canvas: changed in place.
        depth: in the units of the grid; negative outside.
        colour: RGB (3,) or one RGB per pixel (S, S, 3).
    """
    cover = np.clip(depth * (canvas.shape[0] / 4) + 0.5, 0, 1)[..., None]
    canvas += cover * (colour - canvas)


def _waves(rng: np.random.Generator, x: Field, y: Field, low: float, high: float) -> Field:
    """Return a smooth random field in about [-1, 1]: three waves of `low` to `high` radians."""
    total = np.zeros(x.shape, np.float32)
    for _ in range(3):
        along, _ = _turned(x, y, rng.uniform(0, 2 * np.pi))
        total += np.sin(rng.uniform(low, high) * along + rng.uniform(0, 2 * np.pi))
    return total / 3


def _turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """Return the coordinates in a frame turned by `angle` radians."""
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _point(rng: np.random.Generator, reach: float) -> np.ndarray:
    """Return a point (2,) with coordinates of up to `reach`, float32 as all that is drawn."""
    return rng.uniform(-reach, reach, 2).astype(np.float32)


def _jittered(rng: np.random.Generator, colour: np.ndarray, amount: float = 0.08) -> np.ndarray:
    """Return a colour moved by up to `amount` in each channel."""
    return np.clip(colour + rng.uniform(-amount, amount, 3), 0, 1).astype(np.float32)


# ------------------------------------------------------------------------------------- flowers


def _draw_flower(rng: np.random.Generator, x: Field, y: Field, label: int) -> Canvas:
    """Return a scene with one flower of class `label`."""
    canvas = _background(rng, x, y)
    for _ in range(rng.integers(0, 3)):
        _leaf(rng, canvas, x, y)
    for _ in range(rng.integers(0, 2)):
        _blossom_blob(rng, canvas, x, y)
    scale = rng.uniform(0.62, 0.95)
    u, v = _posed(rng, x, y, scale, upright=CLASS_NAMES[label] == "tulips")
    colour = _jittered(rng, PETAL_COLOURS[rng.choice(len(PETAL_COLOURS), p=COLOUR_ODDS[label])])
    FLOWERS[label](rng, canvas, u, v, colour)
    if rng.random() < 0.4:
        _leaf(rng, canvas, x, y)  # partly in front of the flower
    return canvas


def _background(rng: np.random.Generator, x: Field, y: Field) -> Canvas:
    """Return a canvas that mixes two ground colours in soft patches."""
    first, second = (_jittered(rng, GROUND_COLOURS[k]) for k in rng.integers(0, 6, 2))
    mix = 0.5 + 0.5 * _waves(rng, x, y, 1.0, 9.0)[..., None]
    return first + mix * (second - first)


def _leaf(rng: np.random.Generator, canvas: Canvas, x: Field, y: Field) -> None:
    """Paint a leaf, a narrow pointed oval, anywhere."""
    centre = _point(rng, 0.9)
    u, v = _turned(x - centre[0], y - centre[1], rng.uniform(0, 2 * np.pi))
    length, width = rng.uniform(0.3, 0.9), rng.uniform(0.06, 0.18)
    depth = width * (1 - (u / length) ** 2) - np.abs(v)
    _paint(canvas, depth, _jittered(rng, LEAF_COLOURS[rng.integers(len(LEAF_COLOURS))]))


def _blossom_blob(rng: np.random.Generator, canvas: Canvas, x: Field, y: Field) -> None:
    """Paint a blob in a petal colour: a blossom out of focus, the same for all classes."""
    centre = _point(rng, 0.95)
    u, v = _turned(x - centre[0], y - centre[1], rng.uniform(0, 2 * np.pi))
    depth = rng.uniform(0.08, 0.25) - np.hypot(u, v * rng.uniform(1, 2))
    _paint(canvas, depth, _jittered(rng, PETAL_COLOURS[rng.integers(len(PETAL_COLOURS))]))


def _posed(
    rng: np.random.Generator, x: Field, y: Field, scale: float, upright: bool
) -> tuple[Field, Field]:
    """Return the flower's own coordinates: shifted, turned, seen at a slant; radius 1 = its edge.

    An upright flower, drawn from the side, leans by at most 50 degrees.
    """
    shift = _point(rng, 0.18)
    u, v = _turned(x - shift[0], y - shift[1], rng.uniform(0, 2 * np.pi))
    slant = rng.uniform(1.0, 1.25)
    if upright:
        u, v = _turned(x - shift[0], y - shift[1], rng.uniform(-0.87, 0.87))
        slant = rng.uniform(0.85, 1.2)
    return u * (slant / scale), v / scale


def _shaded(colour: np.ndarray, light: Field) -> Canvas:
    """Return one colour under a light per pixel."""
    return colour * light[..., None]


def _dandelion(
    rng: np.random.Generator, canvas: Canvas, u: Field, v: Field, colour: np.ndarray
) -> None:
    """Paint a ragged ball of many thin rays, without a disc."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    n_rays = rng.integers(15, 23)
    rays = np.cos(n_rays * angle + 3 * np.sin(rng.uniform(4, 8) * radius))
    edge = 0.85 + 0.15 * rays
    light = 0.78 + 0.2 * rays * np.minimum(1, 2 * radius) + 0.1 * (0.5 - radius)
    _paint(canvas, 0.5 * (edge - radius), _shaded(colour, light))


def _daisy(
    rng: np.random.Generator, canvas: Canvas, u: Field, v: Field, colour: np.ndarray
) -> None:
    """Paint a few separate round petals about a small disc."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    n_petals = rng.integers(7, 12)
    petals = np.abs(np.cos(0.5 * n_petals * angle)) ** rng.uniform(0.6, 1.0)
    light = 0.75 + 0.25 * petals * np.minimum(1, radius)
    _paint(canvas, 0.4 * (0.25 + 0.75 * petals - radius), _shaded(colour, light))
    _disc(rng, canvas, radius, rng.uniform(0.22, 0.36))


def _tulip(
    rng: np.random.Generator, canvas: Canvas, u: Field, v: Field, colour: np.ndarray
) -> None:
    """Paint a cup from the side on a stem: round below, three points above."""
    _paint(canvas, np.minimum(0.09 - np.abs(u), v), _jittered(rng, LEAF_COLOURS[0]))
    width = rng.uniform(0.5, 0.7)
    bulge = width * np.sqrt(np.clip(1 - (v / 0.8) ** 2, 0, 1)) - np.abs(u)
    points = np.abs(np.cos(np.pi * u / width))  # 1 at the middle and at both sides
    top = v + rng.uniform(0.1, 0.25) + rng.uniform(0.35, 0.5) * points
    light = 0.8 + 0.2 * np.cos(5 * u) - 0.15 * v
    _paint(canvas, 0.5 * np.minimum(top, bulge), _shaded(colour, light))


def _sunflower(
    rng: np.random.Generator, canvas: Canvas, u: Field, v: Field, colour: np.ndarray
) -> None:
    """Paint two rings of pointed petals about a large disc."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    n_petals = rng.integers(11, 16)
    for turn, light in ((0.5, 0.7), (0.0, 1.0)):
        place = np.mod(n_petals * angle / (2 * np.pi) + turn, 1)
        point = 1 - np.abs(2 * place - 1)  # 0 between petals, 1 at the tip
        _paint(canvas, 0.4 * (0.55 + 0.45 * point - radius), colour * light)
    _disc(rng, canvas, radius, rng.uniform(0.42, 0.58))


def _rose(rng: np.random.Generator, canvas: Canvas, u: Field, v: Field, colour: np.ndarray) -> None:
    """Paint a lobed round blossom whose petals wind inwards in a spiral."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    turns, arms = rng.uniform(9, 13), rng.choice([-2, -1, 1, 2])
    spiral = np.sin(turns * radius + arms * angle + rng.uniform(0, 2 * np.pi))
    edge = 0.9 + 0.07 * np.cos(5 * angle)
    light = 0.72 + 0.25 * spiral * np.minimum(1, 3 * radius)
    _paint(canvas, 0.6 * (edge - radius), _shaded(colour, light))


def _disc(rng: np.random.Generator, canvas: Canvas, radius: Field, size: float) -> None:
    """Paint the middle of a flower: yellow, brown, dark or green, whatever the class."""
    colours = np.array(
        [[0.9, 0.7, 0.15], [0.35, 0.2, 0.1], [0.15, 0.1, 0.08], [0.5, 0.55, 0.2]], np.float32
    )
    colour = _jittered(rng, colours[rng.integers(len(colours))])
    _paint(canvas, 0.5 * (size - radius), _shaded(colour, 1.1 - 0.4 * radius / size))


FLOWERS = (_dandelion, _daisy, _tulip, _sunflower, _rose)  # in the order of CLASS_NAMES


# --------------------------------------------------------------------------------- source task


def _draw_source(rng: np.random.Generator, x: Field, y: Field, label: int) -> Canvas:
    """Return a two-coloured texture or shape of class `label`."""
    back, front, other = rng.uniform(0, 1, (3, 3)).astype(np.float32)
    shift = _point(rng, 0.35)
    u, v = _turned(x - shift[0], y - shift[1], rng.uniform(0, 2 * np.pi))
    canvas = back + (0.5 + 0.5 * _waves(rng, x, y, 1, 8)[..., None]) * 0.5 * (other - back)
    _paint(canvas, SOURCE[label](rng, u, v), front)
    return canvas


def _pace(rng: np.random.Generator) -> float:
    """Return the pace of a pattern: radians from the middle of the image to its edge."""
    return rng.uniform(7, 16)


def _stripes(rng: np.random.Generator, u: Field, v: Field) -> Field:
    pace = _pace(rng)
    return np.sin(pace * u) / pace


def _waved(rng: np.random.Generator, u: Field, v: Field) -> Field:
    pace = _pace(rng)
    return np.sin(pace * u + 2.2 * np.sin(rng.uniform(5, 8) * v)) / pace


def _checks(rng: np.random.Generator, u: Field, v: Field) -> Field:
    pace = rng.uniform(5, 11)
    return np.sin(pace * u) * np.sin(pace * v) / pace


def _dots(rng: np.random.Generator, u: Field, v: Field) -> Field:
    pace = _pace(rng)
    return (np.cos(pace * u) + np.cos(pace * v) - rng.uniform(0.6, 1.1)) / pace


def _grid_lines(rng: np.random.Generator, u: Field, v: Field) -> Field:
    pace = _pace(rng)
    return (np.maximum(np.cos(pace * u), np.cos(pace * v)) - 0.75) / pace


def _rings(rng: np.random.Generator, u: Field, v: Field) -> Field:
    pace = _pace(rng)
    return np.sin(pace * np.hypot(u, v)) / pace


def _triangle(rng: np.random.Generator, u: Field, v: Field) -> Field:
    return rng.uniform(0.2, 0.4) - np.maximum(v, np.abs(u) * 0.866 - 0.5 * v)


def _square(rng: np.random.Generator, u: Field, v: Field) -> Field:
    return rng.uniform(0.3, 0.6) - np.maximum(np.abs(u), np.abs(v))


def _cross(rng: np.random.Generator, u: Field, v: Field) -> Field:
    small, large = np.minimum(np.abs(u), np.abs(v)), np.maximum(np.abs(u), np.abs(v))
    size = rng.uniform(0.45, 0.8)
    return np.minimum(0.3 * size - small, size - large)


def _frame(rng: np.random.Generator, u: Field, v: Field) -> Field:
    return 0.1 - np.abs(rng.uniform(0.35, 0.65) - np.maximum(np.abs(u), np.abs(v)))


def _grains(rng: np.random.Generator, u: Field, v: Field) -> Field:
    return _waves(rng, u, v, 25, 40) / 30


def _blotches(rng: np.random.Generator, u: Field, v: Field) -> Field:
    return _waves(rng, u, v, 4, 9) / 6


SOURCE = (
    _stripes,
    _waved,
    _checks,
    _dots,
    _grid_lines,
    _rings,
    _triangle,
    _square,
    _cross,
    _frame,
    _grains,
    _blotches,
)
SOURCE_NAMES = tuple(draw.__name__.strip("_") for draw in SOURCE)


# -------------------------------------------------------------------------------------- digits


def _arc(x: float, y: float, width: float, height: float, start: float, end: float) -> np.ndarray:
    """Return points (13, 2) of an ellipse between two angles in degrees, clockwise as seen."""
    angles = np.radians(np.linspace(start, end, 13))
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


# Of each digit its strokes, points (n, 2) from -1 to 1 as in the grid: y points downwards.
STROKES = tuple(
    tuple(np.array(stroke, np.float32) for stroke in strokes)
    for strokes in (
        [_arc(0, 0, 0.5, 0.8, 0, 360)],
        [[(-0.3, -0.5), (0.05, -0.8), (0.05, 0.8)]],
        [[*_arc(0, -0.35, 0.45, 0.45, 180, 380), (-0.5, 0.8), (0.5, 0.8)]],
        [_arc(0, -0.4, 0.4, 0.4, 200, 450), _arc(0, 0.4, 0.45, 0.4, 270, 520)],
        [[(0.2, 0.8), (0.2, -0.8), (-0.5, 0.3), (0.5, 0.3)]],
        [[(0.45, -0.8), (-0.4, -0.8), (-0.4, -0.1), *_arc(0, 0.3, 0.5, 0.5, 230, 510)]],
        [[(0.3, -0.8), (-0.2, -0.3), *_arc(0, 0.35, 0.42, 0.45, 210, 570)]],
        [[(-0.5, -0.8), (0.5, -0.8), (-0.1, 0.8)]],
        [_arc(0, -0.4, 0.38, 0.4, 0, 360), _arc(0, 0.4, 0.45, 0.4, 0, 360)],
        [_arc(0, -0.35, 0.42, 0.45, 0, 360), [(0.42, -0.35), (0.2, 0.8)]],
    )
)
DIGIT_NAMES = tuple(map(str, range(len(STROKES))))


def _draw_digit(rng: np.random.Generator, x: Field, y: Field, label: int) -> Canvas:
    """Return one digit on a ground of two colours, between a few marks that are none."""
    back, other, front = rng.uniform(0, 1, (3, 3)).astype(np.float32)
    front += np.where(np.abs(front - back).max() < 0.35, np.sign(0.5 - back) * 0.5, 0)
    canvas = back + (0.5 + 0.5 * _waves(rng, x, y, 2, 12)[..., None]) * 0.4 * (other - back)
    shift, scale = _point(rng, 0.25), rng.uniform(0.5, 0.85)
    u, v = _turned((x - shift[0]) / scale, (y - shift[1]) / scale, rng.uniform(-0.3, 0.3))
    u = u + rng.uniform(-0.35, 0.35) * v
    width = rng.uniform(0.06, 0.16)
    for stroke in STROKES[label]:
        _paint(canvas, scale * (width - _distance(u, v, stroke)), front)
    for _ in range(rng.integers(0, 4)):
        mark = np.stack([_point(rng, 1.0), _point(rng, 1.0)])
        mark[1] = mark[0] + 0.4 * (mark[1] - mark[0])
        _paint(canvas, 0.04 - _distance(x, y, mark), _jittered(rng, front, 0.3))
    return canvas


def _distance(x: Field, y: Field, points: np.ndarray) -> Field:
    """Return the distance of each pixel to a line through points (n, 2), n at least 2."""
    nearest = np.full(x.shape, np.inf, np.float32)
    for (ax, ay), (bx, by) in zip(points, points[1:], strict=False):
        dx, dy = bx - ax, by - ay
        along = np.clip(((x - ax) * dx + (y - ay) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        nearest = np.minimum(nearest, np.hypot(x - ax - along * dx, y - ay - along * dy))
    return nearest
