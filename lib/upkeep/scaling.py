"""How far the pool carries: one worker against two, measured; 10 to 1,000 workers, simulated.

``python -m lib.upkeep.scaling`` (`make scaling`) measures, by one thread each, what groups of the
paper's five networks cost at 224 px, and a sweep with one and with two workers. What 1,000 workers
would take follows from these costs, scaled up to the paper's photos and epochs: the groups are cut
as the pool cuts them and given, the costliest first, to whoever is free.
"""

import heapq
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..command import answered
from ..params import ROOT, Params, load_params
from ..whole import write_whole
from .pages import refresh, scaling
from .speed import save_scaling, scaling_file

if TYPE_CHECKING:
    from ..plan import Plan, Run

DRAWN = {"data": "procedural_flowers", "weights": "none"}  # costs depend on no photo and no weight
PHOTOS = 3670  # of the paper's data set
COUNTS = (1, 10, 100, 1000)  # workers that are simulated
STAGES = ("search", "ranked", "final")  # each begins when the one before has ended
IMAGES = 100  # drawn photos on which groups and sweeps are measured
MEMORY = 4.0  # GiB that a worker may take
MOST_WORK = 4e12  # multiply-adds of an epoch that is measured, a minute or two by one thread
SWEEP = "MobileNetV3Small"  # the network that one and two workers train


@dataclass(frozen=True)
class GroupCost:
    """One group of the layer-wise search, trained by one thread for two epochs.

    Attributes:
        depth: call of the backbone at which its trunk ends.
        macs: multiply-adds of an epoch as `lib.groups.Grouping.work` counts them.
        start_seconds: building the network and reading the photos, once a worker and network.
        set_up_seconds: what comes before the second epoch and is no epoch: trunk and tracing.
        epoch_seconds: of the second epoch.
    """

    backbone: str
    image_size: int
    images: int
    lanes: int
    depth: int
    macs: float
    start_seconds: float
    set_up_seconds: float
    epoch_seconds: float
    machine: str
    versions: str
    git_sha: str


@dataclass(frozen=True)
class Timed:
    """One sweep by a number of workers of one thread each, from the command to its last row."""

    workers: int
    backbones: str
    image_size: int
    images: int
    epochs: int
    runs: int
    seconds: float
    cpu_seconds: float
    machine: str
    versions: str
    git_sha: str


# ----------------------------------------------------------------------------------------- measured


def measure_costs(backbones: Sequence[str]) -> Iterator[GroupCost]:
    """Measure three groups of each network, the deepest, one in the middle and the shallowest."""
    from ..quiet import in_own_process

    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    for name in backbones:
        for share in (1.0, 0.5, 0.0):
            params = load_params("paper", backbones=(name,), n_images=IMAGES, epochs=2, **DRAWN)
            yield in_own_process(measure_group, replace(params, memory_gib=MEMORY), share)


def measure_group(params: Params, share: float) -> GroupCost:
    """Train one group for two epochs.

    Args:
        share: where it stands among the groups by depth: 0 the shallowest, 1 the deepest.
    """
    from ..sweep import plans
    from ..trainer import Trainer
    from .bench import made_with

    began = time.perf_counter()
    plan = next(plans(params))
    trainer = Trainer(plan, checkpoints=False)
    plan.graph  # noqa: B018 - built here, where it is measured
    trainer.task(params.search_split, 2)
    started = time.perf_counter()
    groups = trainer.grouping.cut(plan.search_runs("layer_wise"))
    group = groups[round(share * (len(groups) - 1))]
    lane = trainer.grouping.work(group) / len(group) / 2
    group = group[: int(np.clip(MOST_WORK // lane, 1, len(group)))]
    before = time.perf_counter()
    (history, *_) = trainer.histories(group).values()
    whole, epoch = time.perf_counter() - before, history.epoch_seconds[1] * len(group)
    return GroupCost(
        backbone=plan.name,
        image_size=params.image_size,
        images=params.n_images,
        lanes=len(group),
        depth=trainer.grouping.depth(group),
        macs=trainer.grouping.work(group) / 2,
        start_seconds=round(started - began, 2),
        set_up_seconds=round(whole - 2 * epoch, 2),
        epoch_seconds=round(epoch, 2),
        **made_with(),
    )


def measure_workers() -> Iterator[Timed]:
    """Time search and final runs of one network by one and by two workers of one thread each."""
    from ..ledger import read_results
    from .bench import made_with

    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            given = [f"results={folder}/rows", "image_size=224", f"n_images={IMAGES}"]
            given += ["epochs=2", "thin=false", f"memory_gib={MEMORY}", "repeats=2"]
            command = [sys.executable, "-m", "lib", "pool", f"--workers={count}", "--"]
            command += [sys.executable, "-m", "lib", "train", "profile=smoke", *given]
            command += [f"backbones={SWEEP}"]
            own = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
            before, began = os.times(), time.perf_counter()
            subprocess.run(command, env=own, cwd=ROOT, check=True)
            after = os.times()
            yield Timed(
                workers=count,
                backbones=SWEEP,
                image_size=224,
                images=IMAGES,
                epochs=2,
                runs=len(read_results(Path(folder, "rows"), [SWEEP])),
                seconds=round(time.perf_counter() - began, 1),
                cpu_seconds=round(sum(after[2:4]) - sum(before[2:4]), 1),
                **made_with(),
            )


# ---------------------------------------------------------------------------------------- simulated


@dataclass(frozen=True)
class Item:
    """A group that is waiting.

    Attributes:
        seconds: it takes on a worker that holds its network.
        start: seconds that building the network takes a worker which does not.
    """

    backbone: str
    seconds: float
    start: float


def makespan(items: Sequence[Item], workers: int) -> tuple[float, float]:
    """Seconds until all groups have ended, and the share of the workers' time that was idle.

    The costliest goes first, to the worker that is free first.
    """
    free = [(0.0, worker) for worker in range(workers)]
    holds: list[set[str]] = [set() for _ in range(workers)]
    busy = 0.0
    for item in sorted(items, key=lambda item: -item.seconds):
        when, worker = heapq.heappop(free)
        took = item.seconds + item.start * (item.backbone not in holds[worker])
        holds[worker].add(item.backbone)
        busy += took
        heapq.heappush(free, (when + took, worker))
    last = max(when for when, _ in free)
    return last, 1 - busy / (workers * last)


def simulate(costs: pd.DataFrame, counts: Sequence[int] = COUNTS) -> pd.DataFrame:
    """The paper's search and final runs of all measured networks by so many workers.

    Returns:
        One row a stage and number of workers: groups, makespan, the longest group, the work of all
        shared out without a rest (hours), and the idle share.
    """
    from ..photos.dataset import load_data
    from ..plan import Plan

    params = replace(
        load_params("paper", backbones=(*costs["backbone"].unique(),), n_images=PHOTOS, **DRAWN),
        memory_gib=MEMORY,
    )
    photos = load_data(replace(params, image_size=32))  # only counted
    found, all_plans = [], [Plan(params, name, photos) for name in params.backbones]
    for count in counts:
        for stage in STAGES:
            items = [item for plan in all_plans for item in _items(plan, stage, count, costs)]
            whole, idle = makespan(items, count)
            found.append(
                {
                    "workers": count,
                    "stage": stage,
                    "groups": len(items),
                    "hours": round(whole / 3600, 3),
                    "longest_hours": round(max(i.seconds + i.start for i in items) / 3600, 3),
                    "shared_hours": round(sum(i.seconds for i in items) / count / 3600, 3),
                    "idle": round(idle, 3),
                }
            )
    return pd.DataFrame(found)


def _items(plan: "Plan", stage: str, workers: int, costs: pd.DataFrame) -> Iterator[Item]:
    """The groups of one network in a stage, as the pool cuts them for so many workers."""
    from ..groups import Grouping

    own = costs[costs["backbone"] == plan.name]
    grouping, p = Grouping(plan), plan.params
    share = -(-workers // len(p.backbones))
    for group in grouping.cut(_runs(plan, stage), share):
        speed = _speed(own, grouping.depth(group))
        below = plan.graph.macs(end=grouping.depth(group))
        images = sum(len(plan.dataset.split(s)) for s in (group[0].split, p.eval_split))
        trunk = images * below / speed
        seconds = own["set_up_seconds"].mean() + trunk + grouping.work(group) / speed
        yield Item(plan.name, seconds, own["start_seconds"].mean())


def _speed(own: pd.DataFrame, depth: int) -> float:
    """Multiply-adds a second, of the measured group whose depth is nearest."""
    nearest = own.iloc[(own["depth"] - depth).abs().argmin()]
    return nearest["macs"] / nearest["epoch_seconds"]


def _runs(plan: "Plan", stage: str) -> list["Run"]:
    """The runs of a stage.

    Nothing was trained, so no block has won: of each method, the middle one of its blocks stands
    for the winner, and ranked blocks are made of the first layers.
    """
    from ..methods import method, methods
    from ..partition import weighted_layers

    p, scores = plan.params, dict.fromkeys(weighted_layers(plan.backbone), 0.0)
    blocks = {n: method(n).propose(plan.backbone, p, scores) for n in methods(p)}
    if stage == "final":
        epochs = p.final_epochs or p.epochs
        found = [
            plan.run(n, b[len(b) // 2], p.final_split, epochs, r)
            for n, b in blocks.items()
            for r in range(p.repeats)
        ]
    else:
        names = [n for n in blocks if bool(method(n).ranked) == (stage == "ranked")]
        found = [plan.run(n, b, p.search_split, p.epochs, 0) for n in names for b in blocks[n]]
    return list({run.key: run for run in found}.values())


def main() -> None:
    """Measure, simulate and draw; each file is written as soon as it is whole."""
    from ..quiet import import_quietly

    import_quietly()
    costs = []
    for cost in measure_costs(load_params("paper").backbones):
        costs.append(asdict(cost))
        print(*costs[-1].values(), flush=True)
    _write(costs, "groups")
    _write([asdict(timed) for timed in measure_workers()], "workers")
    _write(simulate(pd.DataFrame(costs)).to_dict("records"), "simulated")
    print(*save_scaling(ROOT / "figures"), sep="\n")
    refresh(ROOT, scaling())


def _write(rows: list[dict], what: str) -> None:
    path = scaling_file(what)
    write_whole(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    print(path)


if __name__ == "__main__":
    sys.exit(answered(main))
