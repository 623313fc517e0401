"""Train groups of runs of one backbone: the lanes of a fused model, or runs of plain Keras.

A `Trainer` holds what groups share (photos, trunk, the last fused model) for as long as it lives,
and tells a `Progress` how far it is. It reads no rows and writes none: `lib.sweep` does.
"""

import gc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import keras
import numpy as np

from .backbones.build import scale_inputs
from .backend import out_of_memory
from .errors import first_line
from .groups import Group, Grouping
from .lanes.memory import MemoryEstimate
from .lanes.steps import use_deterministic_operations
from .lanes.trunk import Trunk, choose_cut
from .ledger import pack_hits
from .params import InputError
from .plan import Plan, Run
from .provenance import device, versions
from .train import History, Task, fuse, fused_steps, train_fused, train_plain


class Progress:
    """What a trainer tells while it works; this one tells nobody."""

    def advance(self, epochs: int) -> None:
        """So many epochs of single runs are done; fewer than none where a group starts again."""

    def say(self, text: str) -> None:
        """One line for the reader."""


@dataclass(frozen=True)
class Outcome:
    """What training gave one run.

    Attributes:
        key: the run's.
        values: the columns of its row that no plan knows, by name.
    """

    key: str
    values: dict[str, Any]


@dataclass(frozen=True, eq=False)
class _Fused:
    """The steps of a fused model that another group of the same lanes may start again.

    Attributes:
        lanes: the tuned layers of each.
        train: the trunk that the steps read.
        eval_batch: images of an evaluation step.
    """

    lanes: tuple[tuple[str, ...], ...]
    train: Trunk
    eval_batch: int
    steps: Any

    def fits(self, lanes: tuple[tuple[str, ...], ...], train: Trunk, eval_batch: int) -> bool:
        """Whether a group with these lanes on this trunk would make the same model."""
        return (self.lanes, self.eval_batch) == (lanes, eval_batch) and self.train is train


class Trainer:
    """Trains runs of one plan.

    What it keeps in memory is freed with it.

    Args:
        checkpoints: whether groups of lanes go on from where they were stopped.
    """

    def __init__(self, plan: Plan, checkpoints: bool = True):
        self.plan, self.params, self.graph = plan, plan.params, plan.graph
        self.checkpoints = checkpoints
        self.grouping = Grouping(plan)
        if self.params.deterministic:
            use_deterministic_operations()
        self._task: Task | None = None
        self._split = ""
        self._trunks: tuple[Trunk, Trunk] | None = None
        self._last: _Fused | None = None

    def train(self, groups: Sequence[Group], progress: Progress) -> Iterator[Outcome]:
        """Train groups as `Grouping.cut` makes them; what it gave each run, when its group ends.

        groups: at least one, all of one slice and number of epochs.

        Raises InputError where one lane alone does not fit in memory.
        """
        task = self.task(groups[0][0].split, groups[0][0].epochs)
        engine = self._fused if self.params.engine == "fused" else self._plain
        for run, history, lanes in engine(groups, task, progress):
            yield _outcome(run, task, history, lanes)

    def histories(self, runs: Sequence[Run]) -> dict[str, History]:
        """Train runs of one slice in fused models; their histories by key."""
        task = self.task(runs[0].split, runs[0].epochs)
        trained = self._fused(self.grouping.cut(runs), task, Progress())
        return {run.key: history for run, history, _ in trained}

    def task(self, split: str, epochs: int) -> Task:
        """The images and targets of runs on one training slice."""
        if self._task is None or self._split != split:
            self._task = self._trunks = None  # freed before others take their place
            self._forget()
            self._task, self._split = self._read(split), split
        return replace(self._task, epochs=epochs)

    def _read(self, split: str) -> Task:
        p, data = self.params, self.plan.dataset
        rows = data.split(split), data.split(p.eval_split)
        one_hot = np.eye(len(data.names), dtype="float32")
        images = [scale_inputs(data.images[r], self.plan.source, p.input_scaling) for r in rows]
        targets = [one_hot[data.labels[r]] for r in rows]
        return Task(images[0], targets[0], images[1], targets[1], 0, p)

    def _plain(self, groups: Iterable[Group], task: Task, progress: Progress):
        for run in (run for group in groups for run in group):
            ordered = replace(task, order_seed=run.order_seed)
            yield run, train_plain(self.plan.backbone, run.block, run.seed, ordered), 1
            progress.advance(task.epochs)
            keras.utils.clear_session()

    def _fused(self, groups: Iterable[Group], task: Task, progress: Progress):
        memory, left = self.grouping.memory(self._split), deque(groups)
        if memory.room <= 0:
            progress.say(
                f"{self.plan.name}: a budget of {memory.budget / 2**30:.1f} GiB is taken by the "
                "photos and the process alone: one lane at a time; memory_gib sets it"
            )
        while left:
            group, counted = left.popleft(), _Counted(progress)
            try:
                histories = self._train_group(group, memory, task, counted)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                self._forget()
                self.grouping.checkpoint(group).clear()
                left.extendleft(reversed(self._halves(group, error)))
                counted.take_back()
                half = f"with {len(group)} lanes; now {len(group) // 2}"
                progress.say(f"{self.plan.name}: out of memory {half}")
                continue
            for run, history in zip(group, histories, strict=True):
                yield run, history, len(group)

    def _halves(self, group: Group, error: Exception) -> list[Group]:
        """A group that did not fit as two; by depth, so that no half starts below the trunk."""
        if len(group) == 1:
            raise InputError(
                f"memory: {self.plan.name} with one lane does not fit ({first_line(error)}); "
                "allowed: a smaller image_size or batch_size, or a larger device"
            ) from error
        return self.grouping.halves(group)

    def _train_group(
        self, group: Group, memory: MemoryEstimate, task: Task, progress: Progress
    ) -> list[History]:
        """Train one group in a fused model above the deepest trunk that fits."""
        task = replace(task, order_seed=group[0].order_seed)
        blocks = [run.block.layers for run in group]
        train, evaluation = self._advance(memory.cut(blocks), memory, task, progress)
        batch = memory.eval_batch(blocks, train.cut)
        steps = self._steps(group, train, evaluation, task, batch)
        return self._train_steps(group, steps, task, progress)

    def _steps(
        self, group: Group, train: Trunk, evaluation: Trunk, task: Task, eval_batch: int
    ) -> Any:
        """The steps of the group's fused model.

        The repeats of a method differ in their seeds and orders alone: their model is traced once.
        """
        lanes, seeds = tuple(run.block.layers for run in group), [run.seed for run in group]
        last = self._last
        if last and last.fits(lanes, train, eval_batch) and last.steps.restart(seeds):
            return last.steps
        last = None
        self._forget()
        model = fuse(train, [run.block for run in group], seeds, task)
        steps = fused_steps(model, train, evaluation, task, eval_batch)
        self._last = _Fused(lanes, train, eval_batch, steps)
        return steps

    def _forget(self) -> None:
        """Free the last fused model: its graphs and its steps hold each other."""
        self._last = None
        gc.collect()

    def _train_steps(
        self, group: Group, steps: Any, task: Task, progress: Progress
    ) -> list[History]:
        """Train the runs of one fused model; nothing of it is kept but the histories."""

        def on_epoch(epochs: int) -> None:
            progress.advance(epochs * len(group))

        def say(text: str) -> None:
            progress.say(f"{self.plan.name}: {text}")

        checkpoint = self.grouping.checkpoint(group, say) if self.checkpoints else None
        return train_fused(steps, task, on_epoch, checkpoint)

    def photos(self, task: Task) -> tuple[Trunk, Trunk]:
        """The trunks of the training and the evaluation images below the first call."""
        return tuple(
            Trunk.from_images(self.graph, x) for x in (task.train_images, task.eval_images)
        )

    def _advance(
        self, cut: int, memory: MemoryEstimate, task: Task, progress: Progress
    ) -> tuple[Trunk, Trunk]:
        """Both trunks at `cut`, or below where the memory does not suffice.

        A cut below the trunks' own is computed from the photos.
        """
        trunks = self._trunks or self.photos(task)
        while cut != trunks[0].cut:
            self._forget()  # its steps read the trunk before
            trunks = trunks if trunks[0].cut < cut else self.photos(task)
            # The same batches whichever trunk came before, where bits must repeat.
            start = 0 if self.params.deterministic else trunks[0].cut
            batch = memory.eval_batch([()], start)
            try:
                trunks = tuple(t.advance(cut, batch) for t in trunks)
                break
            except Exception as error:
                if not out_of_memory(error):
                    raise
                progress.say(f"{self.plan.name}: out of memory below call {cut}; a shallower trunk")
            cut = max(trunks[0].cut, choose_cut(cut - 1, memory.trunk(cut) / 2, memory.trunk))
        self._trunks = trunks
        return trunks


class _Counted(Progress):
    """Passes on what a group tells, and takes it back when the group has to start again."""

    def __init__(self, progress: Progress):
        self.progress, self.epochs = progress, 0

    def advance(self, epochs: int) -> None:
        self.epochs += epochs
        self.progress.advance(epochs)

    def take_back(self) -> None:
        self.progress.advance(-self.epochs)

    def say(self, text: str) -> None:
        self.progress.say(text)


def _outcome(run: Run, task: Task, history: History, lanes: int) -> Outcome:
    n_eval = len(task.eval_targets)
    right = history.probabilities.argmax(-1) == task.eval_targets.argmax(-1)
    values = {
        "train_images": len(task.train_targets),
        "eval_images": n_eval,
        "val_accuracy": history.val_accuracy[-1],
        "val_loss": history.val_loss[-1],
        "best_val_accuracy": max(history.val_accuracy),
        "train_accuracy": history.train_accuracy[-1],
        "seconds": history.seconds,
        "lanes": lanes,
        "versions": f"{versions()}; {device()}",
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "failed": history.failed,
        "curve": ";".join(str(round(a * n_eval)) for a in history.val_accuracy),
        "hits": pack_hits(right),
    }
    return Outcome(run.key, values)
