"""Cut runs into groups, each the lanes of one fused model: by depth, by memory and by work."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from .checkpoint import Checkpoint, begun
from .lanes.memory import MOST_LANES, MemoryEstimate, budget, free_bytes
from .plan import Plan, Run
from .provenance import device
from .train import classifier_weights

# Multiply-adds of the lanes of one group, tuned from the first layer on: some twenty minutes of
# two cores. Fewer lanes than FEW_LANES share too little, unless one alone has WORTH_A_WORKER: half
# a minute of one core, beside which building the model is little.
GROUP_WORK, FEW_LANES, WORTH_A_WORKER = 1.2e14, 8, 1e12
# On a GPU training is short and compiling is not: so many lanes take XLA a minute.
GPU_LANES = 44
BUILDING = 1e10  # multiply-adds in the time that a call of a model takes to be built and started

Group = Sequence[Run]


class Grouping:
    """How the runs of one plan are cut into groups.

    Args:
        where: the device that trains them; empty: this process'.
        most: bytes that a group may take which was begun; None: the memory that the profile
            names, or, where it names none, all that is free.
    """

    def __init__(self, plan: Plan, where: str = "", most: float | None = None):
        self.plan, self.params, self.graph = plan, plan.params, plan.graph
        self.where, self.most = where, most

    def cut(self, runs: Sequence[Run], workers: int = 1) -> list[Group]:
        """Cut `runs`, all of one slice and number of epochs, into groups.

        Neighbours in depth go together, so that a group's trunk is as deep as can be. There are
        as few groups as the memory allows, none larger than it must be for that; deep groups may
        hold more lanes. In a group, lanes come in the order in which they pass their last tuned
        layer: stacked so, none is moved. A group's runs share the order of the photos, and groups
        of the same lanes come one after another.

        Args:
            workers: that share the groups: each gets one where runs are many enough.
        """
        if self.params.engine != "fused":
            return [[run] for run in runs]
        orders = dict.fromkeys(run.order_seed for run in runs)
        share = max(self._few_lanes(runs), -(-len(runs) // workers))
        groups = [
            group
            for order in orders
            for group in self._cut([r for r in runs if r.order_seed == order], share)
        ]
        return sorted(groups, key=self._place)

    def resume(
        self, runs: Sequence[Run], others: Sequence[Run] = (), workers: int = 1
    ) -> list[Group]:
        """As `cut`, but groups that have a checkpoint stay as they were.

        others: runs that have their rows; a group that was stopped between two rows has some.
        """
        left, known = {run.key: run for run in runs}, {run.key: run for run in (*others, *runs)}
        groups: list[Group] = []
        for keys in self._begun():
            if left.keys() & {*keys} and known.keys() >= {*keys}:
                group = [known[key] for key in keys]
                if self._may_be(group):
                    groups.append(group)
                    for key in keys:
                        left.pop(key, None)
                        del known[key]  # a run is in one group
        return sorted([*groups, *self.cut([*left.values()], workers)], key=self._place)

    def _begun(self) -> list[tuple[str, ...]]:
        fused = self.params.engine == "fused"
        return begun(self.params.deterministic, self.where) if fused else []

    def _may_be(self, group: Group) -> bool:
        """Whether a group is within the lanes and the memory that the profile names, or is free."""
        p = self.params
        if p.lanes != "auto" and len(group) > p.lanes:
            return False
        if len(group) == 1:
            return True
        memory = self.memory(group[0].split)
        # A budget that follows what is free changes from start to start: all that is free counts.
        free = free_bytes() if p.memory_gib is None else memory.budget
        most = free if self.most is None else self.most
        return memory.needed([run.block.layers for run in group]) <= most

    def _place(self, group: Group) -> tuple:
        """By which groups are ordered: by their trunks, and those of the same lanes together."""
        return self.depth(group), [run.block.layers for run in group]

    def _cut(self, runs: Sequence[Run], share: int) -> list[Group]:
        """The groups of runs that share the order of the photos."""
        runs = sorted(runs, key=self.first)
        most = 1 if self.params.deterministic else self.params.lanes
        if most == "auto":
            most = min(self._most_lanes(runs[0]), share)
            memory = self.memory(runs[0].split)
            ends = memory.ends([run.block.layers for run in runs], most)
        else:
            ends = -(-len(runs) // most)
        return [self._in_order(g) for g in np.array_split(np.array(runs, object), ends)]

    def _most_lanes(self, run: Run) -> int:
        """So many lanes that a group, whose rows come when it ends, is not lost after hours."""
        if (self.where or device()) != "CPU":
            return GPU_LANES
        work = max(1, self._lane_work(run))
        return int(np.clip(GROUP_WORK // work, FEW_LANES, MOST_LANES))

    def _few_lanes(self, runs: Sequence[Run]) -> int:
        """So many lanes at least, that building their model is little beside training it."""
        least = min(map(self._lane_work, runs), default=0)
        return int(np.clip(np.ceil(WORTH_A_WORKER / max(1, least)), 1, FEW_LANES))

    def _lane_work(self, run: Run) -> float:
        """Multiply-adds of one lane that is tuned from the first layer on."""
        return self._images(run.split) * run.epochs * self.graph.macs()

    def _images(self, split: str) -> int:
        """Images that pass forward in an epoch; a backward pass counts for two."""
        train, evaluation = self._counts(split)
        return 3 * train + evaluation

    def _counts(self, split: str) -> tuple[int, int]:
        data = self.plan.dataset
        return len(data.split(split)), len(data.split(self.params.eval_split))

    def halves(self, group: Group) -> list[Group]:
        """The lanes of a group as two groups; by depth, so that no half starts below the trunk."""
        by_depth, half = sorted(group, key=self.first), len(group) // 2
        return [self._in_order(by_depth[:half]), self._in_order(by_depth[half:])]

    def depth(self, group: Group) -> int:
        """The graph's call of the first layer that the group tunes: its trunk ends there."""
        return min(map(self.first, group))

    def first(self, run: Run) -> int:
        """The graph's call of the first layer that a run tunes."""
        return self.graph.span(run.block.layers)[0]

    def work(self, group: Group) -> float:
        """Multiply-adds of a group, each lane counted above the group's trunk."""
        above = self.graph.macs(self.depth(group))
        return len(group) * group[0].epochs * self._images(group[0].split) * above

    def cost(self, group: Group) -> float:
        """Work and what building the model takes, in multiply-adds: who takes longest."""
        return self.work(group) + BUILDING * (len(self.graph.calls) - self.depth(group))

    def _in_order(self, group: Iterable[Run]) -> list[Run]:
        return sorted(group, key=lambda run: self.graph.span(run.block.layers)[1])

    def checkpoint(
        self, group: Group, say: Callable[[str], None] = lambda text: None
    ) -> Checkpoint:
        """Where the group's training stands on disk; say: see `Checkpoint`."""
        keys = [run.key for run in group]
        return Checkpoint(keys, self.params.deterministic, say, self.where)

    def memory(self, split: str) -> MemoryEstimate:
        """What fused models of runs on a training slice take, and how much they may."""
        train, evaluation = self._counts(split)
        return MemoryEstimate(
            self.graph,
            self.params.batch_size,
            train,
            evaluation,
            classifier_weights(self.graph.shape, len(self.plan.dataset.names)),
            budget(self.params.memory_gib, self.params.deterministic),
            self.where,
            len(self.plan.dataset),
        )
