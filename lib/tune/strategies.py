"""Six ways to find the layers to tune. Each is a record: a name, a line, and a function.

A strategy sees the training photos and the selection photos, and returns one candidate. What it
trains goes into ledgers, one folder a number of epochs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..lanes.trunk import Trunk
from ..train import LanePlateau, fuse, fused_steps
from . import gradients
from .candidates import Candidate, candidates, fixed, ranked, unlike
from .lanes import LaneState, PhotoStudy, put_states
from .settings import Settings

RANKED = (3, 5)  # as in the paper
SHORT = 0.1  # share of each kind of candidate that is on the shortlist


@dataclass
class Search:
    """The search for the layers to tune: what is tried, on which photos, and where rows go.

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
        """All candidates that the settings ask for."""
        s = self.settings
        return candidates(self.study.backbone, s.candidates, s.window)

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
        study.train([study.run(c.method, c.block) for c in some])
        rows = study.rows().drop_duplicates("layers").set_index("layers")
        found = rows.loc[[";".join(c.layers) for c in some], ["val_accuracy", "val_loss"]]
        return dict(zip((c.layers for c in some), found.itertuples(index=False), strict=True))

    def top(self, scores: dict[str, float], counts: Sequence[int]) -> list[Candidate]:
        """The best few layers together; scores: of every layer with weights."""
        return ranked(self.study.backbone, scores, counts)

    def trained(self, some: Sequence[Candidate], epochs: int) -> list[LaneState]:
        """Train candidates without writing rows: where each ends."""
        study = self.study.at(epochs, self.folder / "unwritten")
        study.states = {}
        runs = [study.run(c.method, c.block) for c in some]
        study.trainer().histories(runs)
        return [study.state(run) for run in runs]

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
        found = gradients.scores(self.measured(), [c.layers for c in some], self.settings.gradient)
        return sorted(some, key=lambda c: -found[c.layers])

    def layer_gradients(self) -> dict[str, float]:
        """The gradient of each layer with weights, by name."""
        names = list(self.measured()["layer"])
        found = gradients.scores(self.measured(), [(n,) for n in names], self.settings.gradient)
        return {n: found[(n,)] for n in names}

    def grafts(
        self, some: Sequence[Candidate]
    ) -> dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]]:
        """Which selection photos each candidate's graft gets right, and its losses, by layers.

        Everything is tuned once. A candidate's graft is the frozen network with the tuned weights
        of the candidate's layers, under the classifier that was trained on the frozen network.

        Args:
            some: the first two are the baselines.

        Returns:
            bool and float32 ``(photos,)`` each.
        """
        study, epochs = self.study, self.settings.epochs
        alone, whole = self.trained(some[:2], epochs)
        split, trainer = study.plan.params.search_split, study.trainer()
        task, grouping = trainer.task(split, epochs), trainer.grouping
        floats, truth = grouping.memory(split).batch_floats(), task.eval_targets.argmax(axis=1)
        evaluation = Trunk.from_images(study.graph, task.eval_images)
        found = {}
        for group in grouping.cut([study.run(c.method, c.block) for c in some]):
            model = fuse(evaluation, [r.block for r in group], [r.seed for r in group], task)
            steps = fused_steps(model, evaluation, evaluation, task, floats)
            put_states(steps, LanePlateau(len(group), task.params),
                       [_with_graft(alone, whole, r.block.layers) for r in group])  # fmt: skip
            probabilities, losses = steps.evaluate()
            right = probabilities.argmax(axis=2) == truth
            found |= {r.block.layers: (right[j], losses[j]) for j, r in enumerate(group)}
        return found


@dataclass(frozen=True)
class Strategy:
    """One way to choose.

    Attributes:
        says: what it does, in a few words.
        choose: from a search to the candidate that it picks.
    """

    name: str
    says: str
    choose: Callable[[Search], Candidate]


def exhaustive(search: Search) -> Candidate:
    """The paper's: train every candidate, then the best few layers of the ranking together."""
    full, every = search.settings.epochs, search.everything
    order = search.scored(every, full)
    together = best_together(search, order)
    if together:
        order = search.scored(unlike([*every, *together]), full)
    return order[0]


def best_together(search: Search, order: Sequence[Candidate]) -> list[Candidate]:
    """The best 3 and 5 single layers of a ranking, tuned together; none where it has no layers."""
    places = {c.block.name: -i for i, c in enumerate(order) if c.kind == "layers"}
    return search.top(places, RANKED) if places else []


def halving(search: Search) -> Candidate:
    """Successive halving over all candidates."""
    return _halved(search, search.everything)


def shortlist(search: Search) -> Candidate:
    """The top tenth of each kind by gradient, then halving among them."""
    every = search.everything
    kinds = dict.fromkeys(c.kind for c in every if c.kind != "baseline")
    short = [c for c in every if c.kind == "baseline"]
    for kind in kinds:
        order = search.by_gradient([c for c in every if c.kind == kind])
        short += order[: math.ceil(SHORT * len(order))]
    return _halved(search, unlike([*short, *search.top(search.layer_gradients(), RANKED)]))


def gradient(search: Search) -> Candidate:
    """The candidate with the largest gradient, trained beside the classifier alone."""
    every = [c for c in search.everything if c.kind != "baseline"]
    pair = [search.everything[0], search.by_gradient(every)[0]]
    return search.scored(pair, search.settings.epochs)[0]


def graft(search: Search) -> Candidate:
    """Tune everything once; put the tuned weights of each candidate alone into the frozen network.

    The classifier is the one that was trained on the frozen network. The best graft is then tuned
    alone, beside the classifier alone and everything.
    """
    every = search.everything
    order = [c for c in _grafted(search, every) if c.kind != "baseline"]
    return search.scored([*every[:2], order[0]], search.settings.epochs)[0]


def fix(search: Search) -> Candidate:
    """The user's own layers."""
    return fixed(search.study.backbone, search.settings.layers)


STRATEGIES = {
    s.name: s
    for s in (
        Strategy("search", "every candidate is trained, as in the paper", exhaustive),
        Strategy("halving", "every candidate starts; after a few epochs most leave", halving),
        Strategy("shortlist", "the top tenth by gradient start; after a few epochs most leave",
                 shortlist),
        Strategy("gradient", "the largest gradient wins; nothing else is trained", gradient),
        Strategy("graft", "everything is tuned once, then taken apart", graft),
        Strategy("fixed", "the layers are given", fix),
    )
}  # fmt: skip


def halvings(settings: Settings) -> list[int]:
    """The epochs after which lanes leave, and the last one."""
    return sorted({e for e in settings.halvings if e < settings.epochs} | {settings.epochs})


def survivors(count: int, keep: float) -> int:
    """How many of so many candidates halving keeps."""
    return min(count, max(2, math.ceil(keep * count)))


def _halved(search: Search, alive: Sequence[Candidate]) -> Candidate:
    """The best of some candidates; the classifier alone never leaves."""
    search.study.states = {}
    for epochs in halvings(search.settings):
        order = search.scored(alive, epochs)
        first = next(c for c in alive if not c.layers)
        others = [c for c in order if c.layers]
        alive = [first, *others[: survivors(len(others), search.settings.keep)]]
        _forget(search.study, alive)
    search.study.states = None
    return order[0]


def _forget(study: PhotoStudy, alive: Iterable[Candidate]) -> None:
    """Free where the lanes stood that have left."""
    kept = {c.layers for c in alive}
    for identity in [i for i in study.states if i[0] not in kept]:
        del study.states[identity]


def _grafted(search: Search, every: Sequence[Candidate]) -> list[Candidate]:
    """Candidates by the accuracy of their grafts, then by their loss, the best first."""
    found = {layers: (-right.mean(), losses.mean())
             for layers, (right, losses) in search.grafts(every).items()}  # fmt: skip
    return sorted(every, key=lambda c: found[c.layers])


def _with_graft(alone: LaneState, whole: LaneState, layers: Sequence[str]) -> LaneState:
    """The classifier's own run with some layers of the run that tuned everything."""
    tuned = {name: whole.tuned[name] for name in layers}
    statistics = {name: whole.statistics[name] for name in layers}
    return LaneState(tuned, alone.head, statistics, alone.steps, alone.epochs, alone.rate,
                     alone.best, alone.wait, alone.history)  # fmt: skip
