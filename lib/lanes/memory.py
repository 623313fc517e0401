"""How much memory there is, and how much a fused model will take, told before it is built.

Everything is counted from the graph as it is executed: folded convolutions are one call, a lane
has tensors of its own only above its first tuned layer, and only what its gradient needs is kept
until the backward pass. The factors below were measured, see `lib.upkeep.bench.measure_peak`; an
estimate is meant to lie above the peak, and not far.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import keras
import numpy as np
import psutil

from ..provenance import device
from ..room import ask_gpus, free_memory, visible_gpus
from .trunk import Call, Graph, choose_cut

SHARE = 0.8  # of what a worker may take; of the half of the free memory, where there are no workers
FIXED = 4 * 2**30  # the budget of deterministic rows: what is free now must not change them
PROCESS = 1.0 * 2**30  # Python, Keras, its backend and what this compiles, before any photo
TRUNK = 0.4  # share of the room that a trunk may take: the one before is freed only after it

# Floats held for each weight of a lane's own. In training: itself, two moments, the gradient, and
# what the compiled update makes before it takes their place; tuned ones are cut from a pool and
# joined to one besides. In evaluation: itself and two moments.
TRAIN_HEAD, TRAIN_TUNED, EVAL_OWN = 5.6, 9.0, 3.2
# Of what is alive at the widest call: work space and the gradients in flight.
TRAIN_WIDTH, EVAL_WIDTH = 1.5, 2.8
CALL_BYTES = 2 * 2**20  # of each call traced, and of each tuned layer besides

# Calls whose gradient needs neither input nor output: linear in what is not a frozen weight.
LINEAR = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
    keras.layers.Dense,
    keras.layers.BatchNormalization,
    keras.layers.ZeroPadding2D,
    keras.layers.AveragePooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Add,
    keras.layers.Concatenate,
    keras.layers.Rescaling,
    keras.layers.Dropout,
)
MOST_LANES = 256  # of one fused model
EVAL_BATCH = 64  # images of an evaluation step at most; it changes speed, not results
# Floats alive at the widest call of an evaluation step, all lanes together (512 MiB). 16 lanes of
# MobileNetV2 at 224 px on two cores take 17.5 s for 216 photos one at a time, 11.9 s with 8, 11.6 s
# with 18. A GPU wants more.
EVAL_FLOATS, GPU_EVAL_FLOATS = 2**27, 2**31

Block = tuple[str, ...]


def budget(memory_gib: float | None, deterministic: bool = False) -> float:
    """Bytes that this process may take in all.

    Args:
        memory_gib: what the user allows; None for a share of what is free at this moment.
        deterministic: the same number whatever is free.
    """
    if memory_gib is not None:
        return memory_gib * 2**30
    return FIXED if deterministic else SHARE / 2 * free_bytes()


@cache
def free_bytes(gpu: float = 1.0) -> float:
    """Bytes that this process may have: of the machine, its container and its GPU the least.

    Asked once: what the process has taken by then counts as free, what it takes later too.

    Args:
        gpu: the share of its GPU that counts.
    """
    own = psutil.Process().memory_info().rss
    return min((free_memory() + own, *(gpu * free for free in _gpu_free())))


def worker_bytes(limit: int | None) -> float:
    """Bytes that this process, a worker, may have: of what is free and its own limit the least.

    Half of a GPU: as without workers, others may use it too.

    Args:
        limit: in bytes; None for a worker without one, which counts for a small one.
    """
    return min(limit or FIXED / SHARE, free_bytes(0.5))


def _gpu_free() -> Iterator[int]:
    """Bytes free on each GPU that this process sees; nothing where there is none."""
    if gpus := visible_gpus():
        free = ask_gpus("memory.free", f"--id={','.join(gpus)}")
        yield from (int(mib) * 2**20 for mib in free)


@dataclass(frozen=True)
class MemoryEstimate:
    """The memory of fused models of one backbone on one task, in bytes.

    Attributes:
        batch_size: images of a training step.
        train_images, eval_images: their numbers.
        head: weights of one lane's classifier.
        budget: what the process may take in all.
        where: the device that trains them; empty: this process'.
        images: all that there are, of which those above are slices.

    Blocks are tuples of the names of tuned layers, one a lane.
    """

    graph: Graph
    batch_size: int
    train_images: int
    eval_images: int
    head: int
    budget: float
    where: str = ""
    images: int = 0

    @cached_property
    def held(self) -> float:
        """What is there before any trunk: the process, the photos and the backbone's weights."""
        pixels = self.graph.sizes[self.graph.input]
        used = self.train_images + self.eval_images
        photos = (4 * used + max(used, self.images)) * pixels  # float32, and all as uint8
        return PROCESS + photos + 2 * 4 * sum(self._weights.values())

    @cached_property
    def _weights(self) -> dict[str, int]:
        """Number of weights by layer."""
        layers = {x.name: x for call in self.graph.calls for x in call.operations}
        return {name: _count(getattr(x, "weights", ())) for name, x in layers.items()}

    @cached_property
    def _frontiers(self) -> list[tuple[int, ...]]:
        return [self.graph.frontier(cut) for cut in range(len(self.graph.calls) + 1)]

    def trunk(self, cut: int) -> float:
        """The tensors that cross a cut, of all images; the training images' twice.

        As arrays, and as the tensors that the steps read; JAX's steps have the evaluation images
        as such, too. Below the first call they are the photos, which are held in any case.
        """
        copies = self.train_images + (self.train_images + self.eval_images) * (cut > 0)
        copies += self.eval_images * (keras.backend.backend() == "jax")
        return 4 * sum(self.graph.sizes[t] for t in self._frontiers[cut]) * copies

    @property
    def room(self) -> float:
        """What is left of the budget for trunks and lanes."""
        return self.budget - self.held

    def cut(self, blocks: Sequence[Block]) -> int:
        """The deepest cut below all lanes whose trunk has room."""
        first = min(self.graph.span(block)[0] for block in blocks)
        return choose_cut(first, TRUNK * self.room, self.trunk)

    def eval_batch(self, blocks: Sequence[Block], cut: int) -> int:
        """Images of an evaluation step of these lanes above `cut`, 1 to 64.

        Such a step takes at most a fifth of the room. With an empty block alone: the images of a
        step that makes a trunk.
        """
        return self._eval_images(footprint(self.graph, blocks, cut, self._frontiers).widest)

    def _eval_images(self, widest: float) -> int:
        """The same, from the floats of one image that are alive at the widest call."""
        most = GPU_EVAL_FLOATS if (self.where or device()) != "CPU" else EVAL_FLOATS
        floats = min(most, self.room / (5 * 4 * EVAL_WIDTH))
        return int(np.clip(floats // max(widest, 1), 1, EVAL_BATCH))

    def needed(self, blocks: Sequence[Block]) -> float:
        """What the process takes in all while it trains these lanes in one model."""
        cut = self.cut(blocks)
        return self.held + self.trunk(cut) + self.model(blocks, cut)

    def ends(self, blocks: Sequence[Block], most: int = MOST_LANES) -> list[int]:
        """Where to cut a list of lanes, sorted by their first tuned layers, into groups.

        As few groups as there can be, and of these ways the one with the smallest largest group.

        Args:
            most: lanes of a group.

        Returns:
            The ends of all groups but the last.
        """
        fewest = len(self._greedy(blocks, most))
        if fewest == 0:
            return []
        caps = range(-(-len(blocks) // (fewest + 1)), most)
        as_few = bisect_left(caps, True, key=lambda c: len(self._greedy(blocks, c)) <= fewest)
        return self._greedy(blocks, caps.start + as_few)

    def _greedy(self, blocks: Sequence[Block], most: int) -> list[int]:
        """The ends when each group takes as many lanes as fit, and at most so many."""
        ends = [0]
        while ends[-1] < len(blocks):
            left = blocks[ends[-1] : ends[-1] + most]
            ends.append(ends[-1] + self._fitting(left))
        return ends[1:-1]

    def _fitting(self, blocks: Sequence[Block]) -> int:
        """How many of `blocks`, from the first on, fit in the budget together; at least 1."""
        sizes = range(2, len(blocks) + 1)
        return 1 + bisect_left(sizes, True, key=lambda n: self.needed(blocks[:n]) > self.budget)

    def model(self, blocks: Sequence[Block], cut: int) -> float:
        """A fused model above `cut` with one lane a block.

        The larger of a training and an evaluation step.
        """
        held = footprint(self.graph, blocks, cut, self._frontiers)
        heads = self.head * len(blocks)
        tuned = sum(self._weights[name] for block in blocks for name in block)
        train = TRAIN_HEAD * heads + TRAIN_TUNED * tuned
        train += self.batch_size * (held.kept + TRAIN_WIDTH * held.widest)
        images = self._eval_images(held.widest)
        evaluation = EVAL_OWN * (heads + tuned) + images * EVAL_WIDTH * held.widest
        traced = CALL_BYTES * (held.executed + sum(map(len, blocks)))
        return 4 * (held.folded + max(train, evaluation)) + traced


@dataclass(frozen=True)
class Footprint:
    """What the lanes of a fused model execute and hold, in floats for one image.

    Attributes:
        kept: what a training step holds until its backward pass.
        widest: the most that is alive at one call of a forward pass.
        folded: weights of convolutions with a BatchNorm made part of them, once for each use;
            these do not grow with the images.
        executed: number of calls, a call for the stack of lanes counted once.
    """

    kept: float
    widest: float
    folded: float
    executed: int


def footprint(
    graph: Graph, blocks: Sequence[Block], cut: int, frontiers: Sequence[Iterable[int]]
) -> Footprint:
    """The footprint of lanes that tune `blocks` above `cut`, walked as `lib.lanes.model` does.

    frontiers: the tensors that cross each cut of the graph.
    """
    every, spans = (1 << len(blocks)) - 1, [graph.span(block) for block in blocks]
    diverged = dict.fromkeys(frontiers[cut], 0)  # tensor -> its lanes, a bit each
    needed: Counter[int] = Counter()  # tensor -> the lanes whose gradient reads it
    inside, widest, folded, executed = 0, 0, 0, 0

    def floats(tensors: Iterable[int]) -> int:
        """Of the shared value, where a lane still sees it, and of each lane that has its own."""
        return sum(
            graph.sizes[t] * (diverged[t].bit_count() + (diverged[t] != every)) for t in tensors
        )

    for i, call in enumerate(graph.calls[cut:], cut):
        tuners = _bits(j for j, b in enumerate(blocks) if not set(b).isdisjoint(call.names))
        lanes = tuners
        for t in call.inputs:
            lanes |= diverged[t]
        diverged.update(dict.fromkeys(call.outputs, lanes))
        widest = max(widest, floats({*frontiers[i], *call.outputs}))
        own = lanes & _bits(j for j, (_, last) in enumerate(spans) if i <= last)
        shared_or_stacked = (lanes != every) + (lanes != own)
        executed += own.bit_count() + shared_or_stacked
        if call.norm is not None:
            uses = (own & ~tuners).bit_count() + shared_or_stacked
            folded += uses * _count([call.operation.kernel])
        reads, extra = _kept(call)
        for t in reads:
            needed[t] |= lanes
        for t in call.inputs:
            needed[t] |= tuners
        inside += extra * lanes.bit_count() * sum(graph.sizes[t] for t in call.outputs)
    kept = sum(
        graph.sizes[t] * ((lanes & diverged[t]).bit_count() + bool(lanes & ~diverged[t]))
        for t, lanes in needed.items()
    )
    return Footprint(kept + inside, widest, folded, executed)


def _kept(call: Call) -> tuple[tuple[int, ...], int]:
    """Tensors that the gradient through a frozen call reads, and how many more like its output."""
    last = call.operations[-1]
    bent = getattr(last, "activation", None) not in (None, keras.activations.linear)
    if isinstance(last, LINEAR):
        return (call.outputs if bent else ()), 0
    if isinstance(last, keras.layers.ReLU) or last.name.endswith("relu"):
        return call.outputs, 0
    if isinstance(last, keras.layers.Multiply):
        return call.inputs, 0
    return call.inputs + call.outputs, 1


def _bits(lanes: Iterable[int]) -> int:
    return sum(1 << j for j in lanes)


def _count(weights: Iterable[Any]) -> int:
    return sum(int(np.prod(w.shape)) for w in weights)
