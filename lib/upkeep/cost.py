"""What a profile will cost, told before it starts."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from ..lanes.trunk import Graph
from ..methods import method, methods
from ..params import InputError, Params
from ..plan import Plan
from ..provenance import device
from ..room import existing, require_disk, require_memory

ROWS_BYTES = 2**26  # of rows, figures and executed notebooks: 64 MiB


@dataclass(frozen=True)
class Cost:
    """The work of one backbone, nothing of it done yet.

    Attributes:
        runs: of the searches (equal ones merged) and of the final runs.
        macs: multiply-adds of all runs, each trained above its first tuned layer only.
        hours: wall time at the speed of the backbone's forward pass on this machine. A figure
            for planning: small networks take longer, for tracing and starting notebooks.
    """

    backbone: str
    runs: int
    macs: float
    hours: float


def estimate(plan: Plan) -> Cost:
    """The cost of all methods of a profile for one backbone."""
    p, graph = plan.params, plan.graph
    searched = {b.layers for m in methods(p) if not method(m).ranked for b in plan.blocks(m)}
    n_search, n_final, n_eval = (
        len(plan.dataset.split(s)) for s in (p.search_split, p.final_split, p.eval_split)
    )
    finals = p.repeats * len(methods(p))
    search = [*(passes(graph, layers) for layers in searched), *[passes(graph)] * len(p.top_k)]
    macs = p.epochs * sum(epoch_macs(n_search, n_eval, *each) for each in search)
    macs += finals * (p.final_epochs or p.epochs) * epoch_macs(n_final, n_eval, *passes(graph))
    runs = len(searched) + len(p.top_k) + finals
    seconds = macs / graph.macs() * measured_speed(plan.backbone)
    return Cost(plan.name, runs, macs, seconds / 3600)


def passes(graph: Graph, layers: tuple[str, ...] | None = None) -> tuple[int, int]:
    """Multiply-adds of a run for one image: forward, and back in training.

    A run goes forward from its first tuned layer on. Back go the gradients of what these layers
    read, but for the first's, and those of the kernels that are tuned: as much again for each.

    Args:
        layers: that are tuned; None: all.
    """
    if layers is None:
        return graph.macs(), graph.macs(1) + graph.macs()
    first = graph.span(layers)[0]
    tuned = sum(c.macs for c in graph.calls if not set(layers).isdisjoint(c.names))
    return graph.macs(first), graph.macs(first + 1) + tuned


def epoch_macs(train: int, evaluated: int, forward: int, back: int) -> int:
    """Multiply-adds of an epoch of so many images; forward and back: as `passes` gives them."""
    return (train + evaluated) * forward + train * back


def measured_speed(backbone: keras.Model) -> float:
    """Seconds of the backbone's forward pass for one image, the best of three.

    On about a million pixels at once, as the engine stacks its lanes, or one larger image, and
    compiled as these are: small batches take longer an image, and so do layers that are not fused.
    """
    size = backbone.input_shape[1]
    images = keras.ops.zeros((max(1, 2**20 // size**2), size, size, 3))
    backbone.predict_on_batch(images)  # the first call compiles
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        backbone.predict_on_batch(images)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / len(images)


def check_room(params: Params) -> None:
    """Refuse what this machine has no room for, and folders that cannot be written.

    Raises InputError.
    """
    for key in ("results_dir", "figures_dir", "cache_dir"):
        there = existing(getattr(params, key))
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise InputError(
                f"{key}: {getattr(params, key)} cannot be written; allowed: a folder that can"
            )
    if params.data != "procedural_flowers":
        return  # the number of photos is not known yet: see lib.photos.dataset
    pixels = 3 * params.n_images * params.image_size**2
    subject = f"n_images: {params.n_images} of {params.image_size} px"
    require_disk(subject, pixels + ROWS_BYTES, params.cache_dir)
    require_memory(subject, pixels)


def report(params: Params, costs: list[Cost]) -> Iterator[str]:
    """The lines that `make paper` prints before it starts."""
    for cost in costs:
        yield (
            f"  {cost.backbone:<17} {cost.runs:4} runs  {cost.macs / 1e12:10.1f} T multiply-adds"
            f"  about {_duration(cost.hours)} here"
        )
    hours = sum(cost.hours for cost in costs)
    yield f"  together about {_duration(hours)} on this machine, if no row is there yet"
    if device() == "CPU" and hours > 24:
        yield f"warning: no GPU is visible, and profile {params.profile} needs one"


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{max(1, round(hours * 60))} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"
