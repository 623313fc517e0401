"""Plain against fused, on the same runs: ``python -m lib bench``.

Each case is a whole search (or all final runs) of one backbone. The fused engine trains all of
its runs; the plain loop trains a sample of them, spread evenly over the network, half before and
half after the fused engine, so that a machine that gets busier is unfair to neither. Every side
pays for all it needs: building, tracing, training, evaluation after each epoch.
"""

import csv
import resource
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import keras
import numpy as np

from .params import ROOT, InputError, Params
from .sweep import Run, Study, final, studies
from .train import History, Task, train_plain

FILE = ROOT / "results" / "bench.csv"
PLAIN_RUNS = 4  # runs of a case that the plain loop trains
SEARCHES = ("layer_wise", "block_wise", "sliding_window")


@dataclass(frozen=True)
class Result:
    """One case.

    Attributes:
        runs: that the fused engine trained; plain_runs: of these, that the plain loop trained.
        plain_seconds, fused_seconds: wall time of one run.
        speedup: their ratio.
        max_difference: largest difference in an evaluation image's class probability after the
            last epoch, over the runs that both trained.
        differ: number of these runs whose accuracy is not the same.
        peak_gib: memory of the process up to the end of the case.
        bound: share of the arithmetic bound that the fused engine reached: the time its
            multiply-adds take in the fastest convolution measured here, over the time it took.
    """

    case: str
    runs: int
    plain_runs: int
    plain_seconds: float
    fused_seconds: float
    speedup: float
    max_difference: float
    differ: int
    peak_gib: float
    bound: float


def cases(params: Params) -> list[str]:
    """Names of all cases of a profile: ``<backbone>/<search>``, and ``<backbone>/final``."""
    return [f"{b}/{m}" for b in params.backbones for m in (*SEARCHES, "final")]


def bench(params: Params, names: Sequence[str]) -> list[Result]:
    """Measure cases, printing each result as it comes and appending it to results/bench.csv.

    Raises InputError for an unknown case.
    """
    unknown = sorted(set(names) - set(cases(params)))
    if unknown:
        raise InputError(f"case: {unknown[0]!r} is unknown; allowed: {', '.join(cases(params))}")
    peak, results = conv_throughput(), []
    print(
        f"{len(names)} cases; fastest convolution here: {peak / 1e9:.0f} G multiply-adds a second"
    )
    print(_line([f.name for f in fields(Result)]))
    for name in names:
        results.append(measure(params, name, peak))
        print(_line(asdict(results[-1]).values()), flush=True)
        _append(results[-1])
    plain = sum(r.plain_seconds * r.runs for r in results)
    fused = sum(r.fused_seconds * r.runs for r in results)
    print(f"speedup: {plain / fused:.2f}x")
    return results


def measure(params: Params, name: str, peak: float) -> Result:
    """Measure one case; `peak` is the machine's multiply-adds a second."""
    backbone, what = name.split("/")
    study = next(studies(_only(params, backbone)))
    runs = _runs(study, what)
    task = study.task(runs[0].split, runs[0].epochs)
    sample = [
        runs[i] for i in np.linspace(0, len(runs) - 1, min(PLAIN_RUNS, len(runs))).astype(int)
    ]
    half = len(sample) // 2
    plain = _timed(lambda: _plain(study, sample[:half], task))
    fused = _timed(lambda: study.train_fused(runs, task))
    rest = _timed(lambda: _plain(study, sample[half:], task))
    reference = plain[0] | rest[0]
    differences = [_difference(fused[0][key], reference[key]) for key in reference]
    plain_seconds, fused_seconds = (plain[1] + rest[1]) / len(sample), fused[1] / len(runs)
    return Result(
        case=name,
        runs=len(runs),
        plain_runs=len(sample),
        plain_seconds=round(plain_seconds, 3),
        fused_seconds=round(fused_seconds, 3),
        speedup=round(plain_seconds / fused_seconds, 2),
        max_difference=float(f"{max(d for d, _ in differences):.2g}"),
        differ=sum(other for _, other in differences),
        peak_gib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        bound=round(sum(_macs(study, r, task) for r in runs) / peak / fused[1], 4),
    )


def conv_throughput(seconds: float = 2.0) -> float:
    """Multiply-adds a second of a large 3 x 3 convolution on the current backend."""
    layer = keras.layers.Conv2D(128, 3, padding="same")
    images = keras.ops.ones((16, 28, 28, 128))
    model = keras.Sequential([keras.Input(images.shape[1:]), layer])
    model.predict(images, verbose=0)
    best = 0.0
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        before = time.perf_counter()
        keras.ops.convert_to_numpy(layer(images))
        best = max(best, 16 * 28 * 28 * 128 * 128 * 9 / (time.perf_counter() - before))
    return best


def _only(params: Params, backbone: str) -> Params:
    return replace(params, backbones=(backbone,), results=params.results or "build/bench")


def _runs(study: Study, what: str) -> list[Run]:
    """The runs of a case, equal ones once; final runs need their searches' rows."""
    if what != "final":
        runs = study.search_runs(what)
    else:
        names = ("baseline_1", "baseline_2", *SEARCHES)
        final(study.params, *names)
        runs = [run for name in names for run in study.final_runs(name)]
    return list({run.key: run for run in runs}.values())


def _plain(study: Study, runs: Sequence[Run], task: Task) -> dict[str, History]:
    return {run.key: train_plain(study.backbone, run.block, run.seed, task) for run in runs}


def _timed(work) -> tuple[dict[str, History], float]:
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def _difference(a: History, b: History) -> tuple[float, bool]:
    return float(np.abs(a.probabilities - b.probabilities).max()), a.val_accuracy != b.val_accuracy


def _macs(study: Study, run: Run, task: Task) -> float:
    """Multiply-adds that a run cannot do without.

    Above its first tuned layer: forward and gradient of the inputs for each training image, the
    gradient of the tuned kernels, and forward for each evaluation image.
    """
    first = study.graph.span(run.block.layers)[0]
    above = sum(call.macs for call in study.graph.calls[first:])
    tuned = sum(call.macs for call in study.graph.calls if call.name in run.block.layers)
    n_train, n_eval = len(task.train_targets), len(task.eval_targets)
    return run.epochs * (n_train * (2 * above + tuned) + n_eval * above)


def _line(values) -> str:
    texts = [f"{v:.3f}" if isinstance(v, float) and v >= 0.001 else str(v) for v in values]
    return f"{texts[0]:<32}" + "".join(f"{text:>15}" for text in texts[1:])


def _append(result: Result, path: Path = FILE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, asdict(result), lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(asdict(result))
