"""What the search's runs made of each evaluation photo on the way, and what training them took.

Halving chooses by accuracies after a few epochs. Its runs are the first epochs of the search's own:
batches, dropout masks and weights depend on the seed and the epoch alone, and the rate is lowered
by no photo, as the patience of its schedule is longer than a run. So it is enough to keep, while
the search trains, which photos are right after those epochs, and their losses, which decide between
equal accuracies. Whatever half of the photos a strategy is shown, what it would have seen is the
mean over that half: no run is trained a second time, and none of the numbers is approximate.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..plan import Plan, Run
from ..train import History, Task
from ..trainer import Progress
from ..tune.lanes import PhotoPlan, PhotoStudy, PhotoTrainer
from ..whole import whole


class Clock:
    """Wall time and processor time of this process, in seconds, from lap to lap."""

    def __init__(self):
        self._last = self._now()

    @staticmethod
    def _now() -> np.ndarray:
        return np.array([time.perf_counter(), time.process_time()])

    def lap(self) -> tuple[float, float]:
        """Since the lap before, or since it was made."""
        last, self._last = self._last, self._now()
        return tuple((self._last - last).tolist())


@dataclass(frozen=True, eq=False)
class Told:
    """What a record holds, run by run.

    Attributes:
        keys: of the runs.
        epochs: after which they were looked at.
        right: which photos were right, bool ``(runs, epochs, photos)``.
        losses: float32, the same shape.
    """

    keys: tuple[str, ...]
    epochs: tuple[int, ...]
    right: np.ndarray
    losses: np.ndarray

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each run by its key."""
        return {key: i for i, key in enumerate(self.keys)}


class Record:
    """A folder with one file a fused model that was trained, written whole or not at all.

    Args:
        epochs: after which runs are looked at; the last one is their end.

    Attributes:
        stage: what is being trained; files are named by it.
    """

    def __init__(self, folder: Path, epochs: Sequence[int]):
        self.folder, self.epochs, self.stage = folder, tuple(epochs), "search"

    def add(
        self,
        keys: Sequence[str],
        evaluations: Sequence[tuple[np.ndarray, np.ndarray]],
        targets: np.ndarray,
        seconds: Sequence[float],
    ) -> None:
        """Keep what the runs of one model were told.

        Args:
            evaluations: of every epoch, probabilities ``(runs, photos, classes)`` and losses
                ``(runs, photos)``.
            targets: one-hot ``(photos, classes)``.
            seconds: wall time and processor time that they took.
        """
        told = [evaluations[epoch - 1] for epoch in self.epochs]
        right = np.stack([p.argmax(axis=-1) == targets.argmax(axis=-1) for p, _ in told], axis=1)
        losses = np.stack([losses for _, losses in told], axis=1).astype("float32")
        name = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12]
        path = self.folder / f"{self.stage}-{name}.npz"
        with whole(path) as draft:
            np.savez_compressed(
                draft, keys=np.array(keys), right=right, losses=losses, seconds=seconds
            )

    def told(self) -> Told:
        """All that was kept; of a run that was kept twice, the first."""
        files = [np.load(path) for path in sorted(self.folder.glob("[a-z]*.npz"))]
        keys = np.concatenate([file["keys"] for file in files])
        _, first = np.unique(keys, return_index=True)
        right, losses = (np.concatenate([f[name] for f in files])[first]
                         for name in ("right", "losses"))  # fmt: skip
        return Told(tuple(keys[first].tolist()), self.epochs, right, losses)

    def seconds(self, stage: str) -> tuple[float, float]:
        """Wall time and processor time of a stage, over all starts; a model cut short is none."""
        laps = [np.load(path)["seconds"] for path in self.folder.glob(f"{stage}-*.npz")]
        return tuple(np.sum(laps, axis=0).tolist())


class RecordedStudy(PhotoStudy):
    """A `PhotoStudy` whose runs are kept in a record before their rows are written."""

    def __init__(self, plan: PhotoPlan, record: Record):
        super().__init__(plan)
        self.record = record

    def trainer(self, plan: Plan | None = None) -> "RecordedTrainer":
        return RecordedTrainer(plan or self.plan, self.record)


class RecordedTrainer(PhotoTrainer):
    """Keeps what its runs were told; its clock runs from its making on."""

    def __init__(self, plan: Plan, record: Record):
        super().__init__(plan, None)
        self.record, self.clock = record, Clock()

    def _train_steps(
        self, group: Sequence[Run], steps: Any, task: Task, progress: Progress
    ) -> list[History]:
        told, evaluate = [], steps.evaluate

        def telling() -> tuple[np.ndarray, np.ndarray]:
            told.append(evaluate())
            return told[-1]

        steps.evaluate = telling  # a history keeps the last epoch's photos alone
        try:
            histories = super()._train_steps(group, steps, task, progress)
        finally:
            del steps.evaluate
        keys = [run.key for run in group]
        self.record.add(keys, told, task.eval_targets, self.clock.lap())
        return histories
