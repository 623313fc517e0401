"""The search for the layers to tune: what a strategy may ask of it.

What it trains goes into ledgers, one folder a number of epochs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..lanes.trunk import Trunk
from ..train import LanePlateau, fuse, fused_steps
from . import gradients, grafts
from .candidates import Candidate, candidates, fixed, ranked
from .grafts import Grafts
from .lanes import LaneState, PhotoStudy, put_states
from .measures import scores
from .settings import Settings


@dataclass
class Search:
    """What is tried, on which photos, and where rows go.

    Attributes:
        study: of the training and selection photos.
        folder: of the rows.
        gradients: as `lib.tune.gradients.measure` returns them, where they were measured.
    """

    study: PhotoStudy
    settings: Settings
    folder: Path
    gradients: pd.DataFrame | None = None

    @property
    def everything(self) -> list[Candidate]:
        """All candidates that the settings ask for; the baselines come first."""
        s = self.settings
        return candidates(self.study.backbone, s.candidates, s.window)

    @property
    def given(self) -> Candidate:
        """The user's own layers. Raises InputError where a pattern fits none."""
        return fixed(self.study.backbone, self.settings.layers)

    def scored(self, some: Sequence[Candidate], epochs: int) -> list[Candidate]:
        """Train candidates for so many epochs, and return them from the best to the worst.

        By accuracy on the selection photos, then by loss, then nearer to the output.
        """
        found, places = self.outcomes(some, epochs), self.study.graph

        def rank(c: Candidate) -> tuple:
            accuracy, loss = found[c.layers]
            return not np.isfinite(loss), -accuracy, loss, -places.span(c.layers)[0]

        return sorted(some, key=rank)

    def outcomes(
        self, some: Sequence[Candidate], epochs: int
    ) -> dict[tuple[str, ...], tuple[float, float]]:
        """Accuracy and loss on the selection photos after so many epochs, by layers."""
        study = self.study.at(epochs, self.folder / f"epochs_{epochs:03}")
        runs = [study.run(c.method, c.block) for c in some]
        study.train(runs)
        rows = study.rows().drop_duplicates("key").set_index("key")
        found = rows.loc[[run.key for run in runs], ["val_accuracy", "val_loss"]]
        return dict(zip((c.layers for c in some), found.itertuples(index=False), strict=True))

    def top(self, scores: dict[str, float], counts: Sequence[int]) -> list[Candidate]:
        """The best few layers together; scores: of every layer with weights."""
        return ranked(self.study.backbone, scores, counts)

    # ------------------------------------------------------------------------------ lanes that stay

    def keep_lanes(self) -> None:
        """From here on, lanes that are trained again go on from where they stand."""
        self.study.states = {}

    def drop_lanes(self, alive: Iterable[Candidate] | None = None) -> None:
        """Free where the lanes stood that have left; all of them, and keep no more, for None."""
        if alive is None:
            self.study.states = None
            return
        kept = {c.layers for c in alive}
        for identity in [i for i in self.study.states if i[0] not in kept]:
            del self.study.states[identity]

    def trained(self, some: Sequence[Candidate], epochs: int) -> list[LaneState]:
        """Train candidates without writing rows: where each ends."""
        study = self.study.at(epochs, self.folder / "unwritten")
        study.states = {}
        runs = [study.run(c.method, c.block) for c in some]
        study.trainer().histories(runs)
        return [study.state(run) for run in runs]

    # ------------------------------------------------------------------------ gradients and grafts

    def measured(self) -> pd.DataFrame:
        """The gradients, measured after the classifier was trained alone; once a folder."""
        if self.gradients is None:
            self.gradients = gradients.kept(self.folder / "gradients.csv", self._measure)
        return self.gradients

    def _measure(self) -> pd.DataFrame:
        study, s = self.study, self.settings
        (state,) = self.trained(self.everything[:1], s.epochs)
        task = study.trainer().task(study.plan.params.search_split, s.epochs)
        return gradients.measure(study.backbone, state.head[0], task, s.seed)

    def by_gradient(self, some: Sequence[Candidate]) -> list[Candidate]:
        """Candidates from the largest to the smallest gradient."""
        found = scores(self.measured(), [c.layers for c in some], self.settings.gradient)
        return sorted(some, key=lambda c: -found[c.layers])

    def layer_gradients(self) -> dict[str, float]:
        """The gradient of each layer with weights, by name."""
        names = list(self.measured()["layer"])
        found = scores(self.measured(), [(n,) for n in names], self.settings.gradient)
        return {n: found[(n,)] for n in names}

    def by_graft(self, some: Sequence[Candidate]) -> list[Candidate]:
        """Candidates by the accuracy of their grafts, then by their loss, the best first."""
        found = {layers: (-right.mean(), losses.mean())
                 for layers, (right, losses) in self.grafts(some).items()}  # fmt: skip
        return sorted(some, key=lambda c: found[c.layers])

    def grafts(self, some: Sequence[Candidate]) -> Grafts:
        """Which selection photos each candidate's graft gets right, and its losses, by layers.

        Made once a folder.

        Args:
            some: all candidates; the first two are the baselines.
        """
        return grafts.kept(self.folder / grafts.FILE, lambda: self._graft(some))

    def _graft(self, some: Sequence[Candidate]) -> Grafts:
        """Make them.

        Everything is tuned once. A candidate's graft is the frozen network with the tuned weights
        of the candidate's layers, under the classifier that was trained on the frozen network.
        """
        study, epochs = self.study, self.settings.epochs
        alone, whole = self.trained(some[:2], epochs)
        split, trainer = study.plan.params.search_split, study.trainer()
        task, grouping = trainer.task(split, epochs), trainer.grouping
        memory, truth = grouping.memory(split), task.eval_targets.argmax(axis=1)
        evaluation = Trunk.from_images(study.graph, task.eval_images)
        found = {}
        for group in grouping.cut([study.run(c.method, c.block) for c in some]):
            model = fuse(evaluation, [r.block for r in group], [r.seed for r in group], task)
            batch = memory.eval_batch([run.block.layers for run in group], evaluation.cut)
            steps = fused_steps(model, evaluation, evaluation, task, batch)
            put_states(steps, LanePlateau(len(group), task.params),
                       [_with_graft(alone, whole, r.block.layers) for r in group])  # fmt: skip
            probabilities, losses = steps.evaluate()
            right = probabilities.argmax(axis=2) == truth
            found |= {r.block.layers: (right[j], losses[j]) for j, r in enumerate(group)}
        return found


def _with_graft(alone: LaneState, whole: LaneState, layers: Sequence[str]) -> LaneState:
    """The classifier's own run with some layers of the run that tuned everything."""
    tuned = {name: whole.tuned[name] for name in layers}
    statistics = {name: whole.statistics[name] for name in layers}
    return LaneState(tuned, alone.head, statistics, alone.steps, alone.epochs, alone.rate,
                     alone.best, alone.wait, alone.history)  # fmt: skip
