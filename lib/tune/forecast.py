"""What `make photos` will cost, and the size of photos that the stated minutes allow.

A stage of a search costs its multiply-adds at the speed that this machine has, and the tracing of
its fused model. Both are counted from the same graph that the engine executes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import keras

from ..backbones.records import RECORDS
from ..lanes.memory import footprint
from ..lanes.trunk import Graph, read_graph
from ..upkeep.cost import epoch_macs, measured_speed, passes
from .candidates import Candidate, candidates, fixed
from .settings import Settings
from .strategies import SHORT, halvings, survivors

# What image_size: auto may become, below the size that a network was pre-trained with.
SIZES = (480, 380, 300, 224, 192, 160, 128, 96, 64)
# Seconds to build, trace and compile a fused model, and each call of a layer in it. Fitted to what
# ten searches of MobileNetV3Small and MobileNet took on two cores, 1 to 161 lanes, 64 px.
MODEL, TRACE = 4.4, 0.028
REST = 0.6  # of that again where the last batch of an epoch is smaller: its step is another graph
FIXED = 20.0  # seconds: starting, saving, and loading what was saved again


@dataclass(frozen=True)
class Forecast:
    """What is going to be done, in minutes, and with photos of which size in pixels."""

    image_size: int
    minutes: float


@dataclass(frozen=True)
class Work:
    """Lanes of one fused model: what they tune, their epochs, and photos to train on and score.

    Attributes:
        batch: photos of a training step; 1 where all batches are whole.
        changing: the photos are others in each epoch, so that no trunk is kept.
    """

    blocks: Sequence[tuple[str, ...]]
    epochs: int
    train: int
    evaluated: int
    batch: int = 1
    changing: bool = False


def forecast(settings: Settings, backbone: keras.Model, photos: int, reading: float) -> Forecast:
    """The largest size that the minutes allow, or the one that is asked for.

    Args:
        backbone: of any size of photos; its graph tells the others' work by area.
        photos: how many there are.
        reading: seconds to read them all.

    Raises InputError where the user's own layers fit none of the network's.
    """
    graph, speed = read_graph(backbone), measured_speed(backbone)
    found = candidates(backbone, settings.candidates, settings.window)
    if settings.layers is None:
        winner = _middle([c.layers for c in found])
    else:
        winner = fixed(backbone, settings.layers).layers
    work = works(settings, found, winner, photos)
    area = backbone.input_shape[1] ** 2
    asked = sizes(settings.backbone)
    if settings.image_size != "auto":
        asked = (settings.image_size,)
    for size in asked:
        seconds = FIXED + reading + seconds_of(graph, work, speed * size**2 / area)
        minutes = round(seconds, 1) / 60
        if minutes <= settings.minutes or size == asked[-1]:
            break
    return Forecast(size, minutes)


def sizes(name: str) -> tuple[int, ...]:
    """What image_size: auto may become: the size that a network was pre-trained with, or less."""
    record = RECORDS[name]
    own = record.imagenet_size
    return own, *(size for size in SIZES if record.least_size <= size < own)


def works(
    settings: Settings, found: Sequence[Candidate], winner: tuple[str, ...], photos: int
) -> list[Work]:
    """What the strategy, the confirmation and the final training will train, as far as is known.

    Which candidates survive is not known: those in the middle of the list stand for them.

    Args:
        winner: the layers that are confirmed, or what stands for them.
    """
    s = settings
    train, chosen = round(photos * (1 - s.selection - s.test)), round(photos * s.selection)
    fold = round(train / s.folds)
    pair = [(), winner]
    confirm = Work(pair * s.repeats, s.epochs, train - fold + chosen, fold, s.batch_size)
    final = [Work([b], s.epochs, train + chosen, 0, s.batch_size, s.augment) for b in pair]
    return [*strategy_works(s, found, train, chosen), *[confirm] * s.folds, *final]


def strategy_works(s: Settings, found: Sequence[Candidate], train: int, chosen: int) -> list[Work]:
    """What the strategy trains on so many photos, and scores on so many others."""
    blocks, size = [c.layers for c in found], s.batch_size
    alone = [Work([()], s.epochs, train, chosen, size)]
    gradients = Work([blocks[1]], 1, min(train, 320) + chosen, 0)
    if s.strategy == "search":
        return [Work(blocks, s.epochs, train, chosen, size)]
    if s.strategy == "halving":
        return _halving(s, blocks, train, chosen)
    if s.strategy == "shortlist":
        short = [*blocks[:2], *blocks[2 :: round(1 / SHORT)], *blocks[2:4]]
        return [*alone, gradients, *_halving(s, short, train, chosen)]
    if s.strategy == "gradient":
        return [*alone, gradients, Work([(), _middle(blocks)], s.epochs, train, chosen, size)]
    if s.strategy == "graft":
        whole = [Work(blocks[:2], s.epochs, train, chosen, size)] * 2
        return [*whole, Work(blocks, 1, 0, chosen)]
    return []


def _halving(s: Settings, blocks: Sequence[tuple[str, ...]], train: int, chosen: int) -> list[Work]:
    work, done = [], 0
    for epochs in halvings(s):
        work.append(Work(blocks, epochs - done, train, chosen, s.batch_size))
        others = blocks[1:]
        step = max(1, math.floor(len(others) / survivors(len(others), s.keep)))
        blocks, done = [blocks[0], *others[step // 2 :: step]], epochs
    return work


def _middle(blocks: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The block in the middle of the first kind after the baselines."""
    return blocks[2 + (len(blocks) - 2) // 4] if len(blocks) > 2 else ()


def seconds_of(graph: Graph, works: Sequence[Work], speed: float) -> float:
    """Seconds of some work.

    speed: seconds of a forward pass of the whole backbone for one photo.
    """
    total = graph.macs()
    frontiers = [graph.frontier(cut) for cut in range(len(graph.calls) + 1)]
    seconds = 0.0
    for work in works:
        first = min(graph.span(block)[0] for block in work.blocks)
        executed = footprint(graph, work.blocks, first, frontiers).executed
        building = (MODEL + TRACE * executed) * (1 + REST * bool(work.train % work.batch))
        seconds += speed * _macs(graph, work) / total + building
    return seconds


def _macs(graph: Graph, work: Work) -> float:
    """Multiply-adds of some work."""
    counts, first = (work.train, work.evaluated), min(graph.span(b)[0] for b in work.blocks)
    epoch = sum(epoch_macs(*counts, *passes(graph, block)) for block in work.blocks)
    trunks = work.epochs if work.changing else 1
    return trunks * sum(counts) * graph.macs(end=first) + work.epochs * epoch
