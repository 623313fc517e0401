"""Lanes that leave a fused model and go on in another: weights, moments, rates and histories.

A run of three epochs that goes on from its first epoch is the run of three epochs: the batches, the
dropout masks and the schedule depend on the epoch alone. So the rows of a halving are rows as any
other, and one that was interrupted goes on from the start of its runs.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from ..lanes.model import FlatArrays, FusedModel
from ..lanes.trunk import Graph
from ..params import Params
from ..partition import Block
from ..photos.dataset import Dataset
from ..plan import Network, Plan, Run
from ..sweep import InProcess, train_runs
from ..train import History, LanePlateau, Task, epochs_left
from ..trainer import Progress, Trainer

POOL = "pool"  # the last layer of a pooled backbone


@dataclass(frozen=True, eq=False)
class LaneState:
    """All that a run needs to go on in another fused model.

    Attributes:
        tuned: by layer, float32 vectors of each of its arrays: values, first and second moments.
        head: the same of the classifier's arrays, shaped as they are.
        statistics: by layer, float32 vectors of what a tuned BatchNorm keeps.
        steps: training steps done.
        epochs: epochs done.
        rate, best, wait: of the learning rate's schedule.
        history: of these epochs.
    """

    tuned: Mapping[str, tuple[list[np.ndarray], ...]]
    head: tuple[list[np.ndarray], ...]
    statistics: Mapping[str, list[np.ndarray]]
    steps: int
    epochs: int
    rate: float
    best: float
    wait: int
    history: History


class PhotoPlan(Plan):
    """A `Plan` of a backbone that is given.

    Args:
        backbone: as `pooled` makes it.
    """

    def __init__(self, params: Params, backbone: keras.Model, dataset: Dataset):
        super().__init__(params, params.backbones[0], dataset)
        self.network = Network(self.source, backbone)

    def check_rows(self, runs: Sequence[Run]) -> None:
        """Nothing: each folder of rows is named by the settings of its rows."""


class PhotoStudy:
    """Runs of a plan whose lanes may go on.

    Attributes:
        states: of lanes, by what identifies a run but for its epochs; None keeps none.
    """

    def __init__(self, plan: PhotoPlan, states: dict[tuple, LaneState] | None = None):
        self.plan, self.states = plan, states

    @property
    def backbone(self) -> keras.Model:
        return self.plan.backbone

    @property
    def graph(self) -> Graph:
        return self.plan.graph

    def at(self, epochs: int, folder: Path) -> "PhotoStudy":
        """The same study with runs of so many epochs, whose rows lie in another folder."""
        plan = copy.copy(self.plan)  # the backbone is shared, once it is built
        plan.params = replace(plan.params, epochs=epochs, results=str(folder))
        return PhotoStudy(plan, self.states)

    def on(self, dataset: Dataset, folder: Path, **values: Any) -> "PhotoStudy":
        """A study of other photos with the same backbone."""
        plan = copy.copy(self.plan)
        plan.dataset = dataset
        plan.params = replace(plan.params, results=str(folder), **values)
        return PhotoStudy(plan)

    def run(self, method: str, block: Block, repeat: int = 0) -> Run:
        """The run of one block on the search slice."""
        p = self.plan.params
        return self.plan.run(method, block, p.search_split, p.epochs, repeat)

    def rows(self) -> pd.DataFrame:
        """All rows in its folder."""
        return self.plan.results().rows

    def train(self, runs: Sequence[Run]) -> None:
        """Train what is missing of these runs and write their rows."""
        train_runs([self.plan], lambda _: runs, InProcess(self.trainer))

    def trainer(self, plan: Plan | None = None) -> "PhotoTrainer":
        """A trainer whose lanes go on from this study's states."""
        return PhotoTrainer(plan or self.plan, self.states)

    def state(self, run: Run) -> LaneState | None:
        """Where a run stands, if it has been trained by this process."""
        return (self.states or {}).get(_identity(run))


class PhotoTrainer(Trainer):
    """Trains lanes from where they stand; where they end is kept.

    Args:
        states: read and added to; None: none are kept.
    """

    def __init__(self, plan: Plan, states: dict[tuple, LaneState] | None):
        super().__init__(plan)
        self.states = states

    def _train_steps(
        self, group: Sequence[Run], steps: Any, task: Task, progress: Progress
    ) -> list[History]:
        found = [(self.states or {}).get(_identity(run)) for run in group]
        known = None not in found and len({(s.epochs, s.steps) for s in found}) == 1
        plateau, histories = go_on(steps, task, found if known else None, progress)
        if self.states is not None:
            states = take_states(steps, plateau, histories)
            self.states.update({_identity(r): s for r, s in zip(group, states, strict=True)})
        return histories


def pooled(backbone: keras.Model) -> keras.Model:
    """A backbone that ends in the mean over the positions of its feature map.

    The mean makes the classifier small enough for a few hundred photos: at 224 px, the first layer
    above a Flatten would have 49 times as many weights.
    """
    pool = keras.layers.GlobalAveragePooling2D(name=POOL)
    return keras.Model(backbone.input, pool(backbone.output), name=backbone.name)


def _identity(run: Run) -> tuple:
    return run.block.layers, run.seed, run.order_seed


def go_on(
    steps: Any, task: Task, states: Sequence[LaneState] | None, progress: Progress
) -> tuple[LanePlateau, list[History]]:
    """Train the lanes of a fused model to the end of a task, as `lib.train.train_fused` does.

    Args:
        states: where each lane stands, all after the same epoch; None: at the start.
    """
    lanes = len(steps.model.lanes)
    plateau, histories = LanePlateau(lanes, task.params), [History() for _ in range(lanes)]
    if states:
        put_states(steps, plateau, states)
        histories = [copy.deepcopy(state.history) for state in states]
    progress.advance(len(histories[0].val_loss) * lanes)
    for _ in epochs_left(steps, task, plateau, histories):
        progress.advance(lanes)
    return plateau, histories


# ----------------------------------------------------------------------- from and into fused models


def take_states(steps: Any, plateau: LanePlateau, histories: Sequence[History]) -> list[LaneState]:
    """Where each lane of a fused model stands."""
    model, (*arrays, statistics, done) = steps.model, steps.state()
    n, tuned, heads = len(arrays) // 3, [], []
    for _ in range(3):  # each array is let go as soon as it is copied
        tuned.append(_pieces(model.tuned, arrays.pop(0)))
        heads.append([[row.copy() for row in arrays.pop(0)] for _ in range(n - 1)])
    kept = _pieces(model.statistics, statistics)
    return [
        LaneState(
            {n: tuple(t[model.slots[j, n][0]] for t in tuned) for n in lane.layers},
            tuple([rows[j] for rows in head] for head in heads),
            {n: kept[model.slots[j, n][1]] for n in lane.layers},
            int(done),
            len(histories[j].val_accuracy),
            *(float(x[j]) for x in (plateau.rates, plateau.best)),
            int(plateau.wait[j]),
            histories[j],
        )
        for j, lane in enumerate(model.lanes)
    ]


def put_states(steps: Any, plateau: LanePlateau, states: Sequence[LaneState]) -> None:
    """Have each lane of a fused model go on from where it stands."""
    arrays = []
    for k in range(3):
        arrays.append(_joined(steps.model, states, lambda s, n, k=k: s.tuned[n][k]))
        arrays += [np.stack(same) for same in zip(*(s.head[k] for s in states), strict=True)]
    statistics = _joined(steps.model, states, lambda s, n: s.statistics[n])
    steps.restore([*arrays, statistics, np.int32(states[0].steps)])
    plateau.rates[:] = [s.rate for s in states]
    plateau.best[:] = [s.best for s in states]
    plateau.wait[:] = [s.wait for s in states]


def _pieces(arrays: FlatArrays, flat: np.ndarray) -> list[np.ndarray]:
    """The arrays of a flat vector, each flat; copies, as a view of one keeps all in memory."""
    ends = np.cumsum(arrays.sizes)[:-1]
    return [piece.copy() for piece in np.split(flat, ends)] if arrays.sizes else []


def _joined(model: FusedModel, states: Sequence[LaneState], read: Any) -> np.ndarray:
    """The flat vector of what `read` finds for each lane and layer, in its own order."""
    lanes = zip(model.lanes, states, strict=True)
    found = [a for lane, state in lanes for name in lane.layers for a in read(state, name)]
    return np.concatenate([*found, np.zeros(0, "float32")])
