"""Plain against fused, on the same runs: ``python -m lib bench``.

A case is the search of one backbone (or its final runs), or a part of it. The fused engine trains
all of its runs; the plain loop trains a sample of them, spread evenly over the network, half before
and half after the fused engine (an odd one both times), so that a machine that gets busier is
unfair to neither. Both pay for all they need: building, tracing, training, evaluation after each
epoch. Each case has a process of its own, so that its memory is its own.
"""

import hashlib
import json
import os
import platform
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from ..backbones.records import backbone_name
from ..methods import PAPER, method
from ..params import InputError, Params
from ..plan import Plan, Run
from ..provenance import RUNNING_COMMIT, versions
from ..quiet import in_own_process
from ..sweep import final, plans
from ..train import History, Task, train_plain
from ..trainer import Trainer
from ..whole import write_whole
from .cost import epoch_macs, passes
from .speed import FILE, PEAKS, read_bench

PLAIN_RUNS = 4  # runs of a case that the plain loop trains
SEARCHES = tuple(name for name in PAPER if method(name).many)
LARGE_RUNS = 16  # of the search of a full-size network
SCALED = "MobileNetV2"  # the backbone whose number of runs and image size are varied
RUNS = (1, 4, 16, 64)
SIZES = (64, 128, 224)  # pixels
# What changes where rows go and how fast they come, and no row of one backbone.
FREE = ("profile", "backbones", "lanes", "memory_gib", "results", "figures")


@dataclass(frozen=True)
class Case:
    """Runs to be trained both ways.

    Attributes:
        what: a method's search, or ``final``.
        most: number of runs taken, evenly spread over the network; None takes all.
    """

    name: str
    params: Params
    what: str
    most: int | None = None


@dataclass(frozen=True)
class Result:
    """One case, measured.

    Attributes:
        alpha: width multiplier of the network.
        runs: that the fused engine trained; plain_runs: of these, that the plain loop trained.
        plain_seconds, fused_seconds: wall time of one run.
        speedup: their ratio.
        epoch_speedup: the same of one epoch after the first, that is without building and tracing:
            what long runs tend to.
        max_difference: largest difference in an evaluation image's class probability after the
            last epoch, over the runs that both trained.
        differ: number of these runs whose accuracy is not the same.
        peak_gib: largest memory of the process.
        bound: share of the arithmetic bound that the fused engine reached: the time its
            multiply-adds take in the fastest convolution measured here, over the time it took.
    """

    case: str
    alpha: float
    image_size: int
    epochs: int
    runs: int
    plain_runs: int
    plain_seconds: float
    fused_seconds: float
    speedup: float
    epoch_speedup: float
    max_difference: float
    differ: int
    peak_gib: float
    bound: float
    machine: str
    versions: str
    git_sha: str


def cases(params: Params) -> list[Case]:
    """All cases of a profile.

    Thin twins: whole searches, the final runs, and how the advantage depends on the number of runs
    and on the image size. Full-size networks: a part of each search; their final runs would need
    all of the searches first.
    """
    size = params.image_size
    if not params.thin:
        return [
            Case(f"{backbone_name(b)}/{what} {size} px", _only(params, b), what, LARGE_RUNS)
            for b in params.backbones
            for what in SEARCHES
        ]
    found = [
        Case(f"{backbone_name(b)}/{what}", _only(params, b), what)
        for b in params.backbones
        for what in (*SEARCHES, "final")
    ]
    if SCALED in params.backbones:
        one = _only(params, SCALED)
        found += [Case(f"{SCALED}/{n} runs", one, "layer_wise", n) for n in RUNS]
        sizes = [_only(replace(params, image_size=size), SCALED) for size in SIZES]
        found += [Case(f"{SCALED}/{p.image_size} px", p, "layer_wise", LARGE_RUNS) for p in sizes]
    return found


def bench(params: Params, names: Sequence[str] = ()) -> list[Result]:
    """Measure cases (all where none is named), print and keep each result as it comes.

    Rows go to results/bench.csv, in the place of earlier ones of the same case.

    Raises InputError for an unknown case.
    """
    known = {case.name.replace(" ", "_"): case for case in cases(params)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"case: {unknown[0]!r} is unknown; allowed: {', '.join(known)}")
    chosen, results, start = [known[n] for n in names or known], [], time.perf_counter()
    print(_line([f.name for f in fields(Result)][:-3]))
    for i, case in enumerate(chosen, 1):
        results.append(in_own_process(measure, case))
        _keep(results[-1])
        left = (time.perf_counter() - start) / i * (len(chosen) - i) / 60
        print(_line(list(asdict(results[-1]).values())[:-3], left), flush=True)
    print(f"on {results[0].machine}, {results[0].versions}")
    plain = sum(r.plain_seconds * r.runs for r in results)
    fused = sum(r.fused_seconds * r.runs for r in results)
    print(f"speedup: {plain / fused:.2f}x")
    return results


def measure(case: Case) -> Result:
    """Measure one case."""
    plan = next(plans(case.params))
    trainer, runs = Trainer(plan, checkpoints=False), _spread(_runs(plan, case.what), case.most)
    task = trainer.task(runs[0].split, runs[0].epochs)
    peak = conv_throughput()  # also the first work of a new process: neither side pays for it
    sample = _spread(runs, PLAIN_RUNS)
    half = len(sample) // 2
    first, last = sample[: len(sample) - half], sample[half:]  # an odd one is trained twice
    before = _timed(lambda: _plain(plan, first, task))
    fused = _timed(lambda: trainer.histories(runs))
    after = _timed(lambda: _plain(plan, last, task))
    plain = before[0] | after[0]
    differences = [_difference(fused[0][key], plain[key]) for key in plain]
    plain_seconds = (before[1] + after[1]) / (len(first) + len(last))
    fused_seconds = fused[1] / len(runs)
    return Result(
        case=case.name,
        alpha=case.params.alpha_of(plan.name),
        image_size=case.params.image_size,
        epochs=task.epochs,
        runs=len(runs),
        plain_runs=len(sample),
        plain_seconds=round(plain_seconds, 3),
        fused_seconds=round(fused_seconds, 3),
        speedup=round(plain_seconds / fused_seconds, 2),
        epoch_speedup=round(_epoch(plain.values()) / _epoch(fused[0].values()), 2),
        max_difference=float(f"{max(d for d, _ in differences):.2g}"),
        differ=sum(other for _, other in differences),
        peak_gib=_peak_gib(),
        bound=round(sum(_macs(plan, r, task) for r in runs) / peak / fused[1], 4),
        **made_with(),
    )


@dataclass(frozen=True)
class Peak:
    """The memory of one group of lanes, estimated and measured.

    Attributes:
        images: of both slices, photos of `image_size` pixels.
        budget_gib: what the process may take; lanes: how many of the search's runs this made.
        cut: calls of the backbone that lie below.
        estimated_gib, peak_gib: largest memory of the process.
    """

    backbone: str
    image_size: int
    images: int
    budget_gib: float
    lanes: int
    cut: int
    estimated_gib: float
    peak_gib: float
    machine: str
    versions: str
    git_sha: str


def bench_memory(params: Params) -> list[Peak]:
    """Measure, network by network, the group of the layer-wise search that takes most memory.

    Each in a process of its own, for one epoch. Rows go to results/memory.csv.
    """
    peaks = []
    print(_line([f.name for f in fields(Peak)][:-3]))
    for backbone in params.backbones:
        peaks.append(in_own_process(measure_peak, _only(params, backbone)))
        _keep(peaks[-1], PEAKS, ["backbone", "image_size", "images", "budget_gib"])
        print(_line(list(asdict(peaks[-1]).values())[:-3]), flush=True)
    return peaks


def measure_peak(params: Params) -> Peak:
    """Train the largest group of a network's layer-wise search once over the images."""
    plan = next(plans(replace(params, epochs=1)))
    split = params.search_split
    trainer = Trainer(plan, checkpoints=False)
    task, memory = trainer.task(split, 1), trainer.grouping.memory(split)
    groups = trainer.grouping.cut(plan.search_runs("layer_wise"))
    blocks = [[run.block.layers for run in group] for group in groups]
    needed = [memory.needed(b) for b in blocks]
    largest = int(np.argmax(needed))
    trainer.histories(groups[largest])
    return Peak(
        backbone=plan.name,
        image_size=params.image_size,
        images=len(task.train_targets) + len(task.eval_targets),
        budget_gib=round(memory.budget / 2**30, 2),
        lanes=len(groups[largest]),
        cut=memory.cut(blocks[largest]),
        estimated_gib=round(needed[largest] / 2**30, 2),
        peak_gib=_peak_gib(),
        **made_with(),
    )


def _peak_gib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def conv_throughput(seconds: float = 2.0) -> float:
    """Multiply-adds a second of a large 3 x 3 convolution on the current backend."""
    layer = keras.layers.Conv2D(128, 3, padding="same")
    images = keras.ops.ones((16, 28, 28, 128))
    layer(images)
    best = 0.0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        keras.ops.convert_to_numpy(layer(images))
        best = max(best, 16 * 28 * 28 * 128 * 128 * 9 / (time.perf_counter() - before))
    return best


def made_with() -> dict[str, str]:
    """The columns of a measured row that say where it was made: machine, versions, git_sha."""
    return {"machine": machine(), "versions": versions(), "git_sha": RUNNING_COMMIT}


def machine() -> str:
    """The processor's name and the number of its cores that are here."""
    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"


def _only(params: Params, backbone: str) -> Params:
    return replace(params, backbones=(backbone,), results=params.results or _rows_folder(params))


def _rows_folder(params: Params) -> str:
    """Where the runs that final cases rest on are kept: apart for other settings or backends."""
    values = {name: value for name, value in asdict(params).items() if name not in FREE}
    text = json.dumps([values, keras.backend.backend()])
    return f"build/bench/{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _runs(plan: Plan, what: str) -> list[Run]:
    """The runs of a case, equal ones once; final runs need their searches' rows."""
    if what != "final":
        runs = plan.search_runs(what)
    else:
        names = ("baseline_1", "baseline_2", *SEARCHES)
        final(plan.params, *names)
        runs = [run for name in names for run in plan.final_runs(name)]
    return list({run.key: run for run in runs}.values())


def _spread(runs: Sequence[Run], most: int | None) -> list[Run]:
    """At most so many of `runs`, evenly spread, the first and the last among them."""
    if most is None or most >= len(runs):
        return list(runs)
    places = np.linspace(0, len(runs) - 1, most) if most > 1 else [len(runs) // 2]
    return [runs[int(i)] for i in places]


def _plain(plan: Plan, runs: Sequence[Run], task: Task) -> dict[str, History]:
    return {
        run.key: train_plain(
            plan.backbone, run.block, run.seed, replace(task, order_seed=run.order_seed)
        )
        for run in runs
    }


def _timed(work) -> tuple[dict[str, History], float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _epoch(histories) -> float:
    """Mean over runs of the median epoch after the first, in seconds."""
    return float(np.mean([np.median(h.epoch_seconds[1:] or h.epoch_seconds) for h in histories]))


def _difference(a: History, b: History) -> tuple[float, bool]:
    return float(np.abs(a.probabilities - b.probabilities).max()), a.val_accuracy != b.val_accuracy


def _macs(plan: Plan, run: Run, task: Task) -> float:
    """Multiply-adds that a run cannot do without."""
    counts = len(task.train_targets), len(task.eval_targets)
    return run.epochs * epoch_macs(*counts, *passes(plan.graph, run.block.layers))


def _line(values: Sequence[object], minutes_left: float | None = None) -> str:
    texts = [f"{v:.3f}" if isinstance(v, float) and v >= 0.001 else str(v) for v in values]
    left = "" if not minutes_left else f"  {minutes_left:.0f} min left"
    return f"{texts[0]:<38}" + "".join(f"{text:>15}" for text in texts[1:]) + left


def _keep(result: Result | Peak, path: Path = FILE, same: Sequence[str] = ("case",)) -> None:
    """Write a result in the place of an earlier one with the same values in columns `same`."""
    new = pd.DataFrame([asdict(result)])
    old = read_bench(path) if path.exists() else new[:0]
    rows = pd.concat([old, new], ignore_index=True)
    latest = rows.groupby(list(same), sort=False, as_index=False).last(skipna=False)
    rows = latest[[*rows.columns]]
    write_whole(path, rows.to_csv(index=False, lineterminator="\n"))
