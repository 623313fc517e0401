"""Strategies on halves of the evaluation photos, answered from a record: nothing is trained.

The strategies are those of `lib.tune.strategies`, unchanged. Gradients are measured on training
photos alone, once a seed: what ranks by them sees no evaluation photo before it trains.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..tune.candidates import Candidate, unlike
from ..tune.grafts import Grafts
from ..tune.search import Search
from ..tune.strategies import STRATEGIES, best_together
from .protocol import SEARCH
from .record import Told

Layers = tuple[str, ...]


@dataclass
class Replayed(Search):
    """A search whose questions are answered from a record, for the photos that are shown.

    Attributes:
        told: of all runs that may be asked for.
        places: of the runs in it, by layers.
        grafted: as `lib.tune.grafts.read` reads them.
        shown: which evaluation photos the strategy sees, bool ``(photos,)``.
    """

    told: Told | None = None
    places: Mapping[Layers, int] = field(default_factory=dict)
    grafted: Grafts = field(default_factory=dict)
    shown: np.ndarray | None = None
    found: dict[Hashable, Any] = field(default_factory=dict)

    @cached_property
    def everything(self) -> list[Candidate]:
        return Search.everything.fget(self)

    @cached_property
    def together(self) -> list[Candidate]:
        """The best few layers together, ranked on the photos that are shown now."""
        return best_together(self, self.scored(self.everything, self.settings.epochs))

    def outcomes(self, some: Sequence[Candidate], epochs: int) -> dict[Layers, tuple[float, float]]:
        runs = [self.places[c.layers] for c in some], self.told.epochs.index(epochs)
        right = self.told.right[runs][:, self.shown].mean(axis=1)
        losses = self.told.losses[runs][:, self.shown].mean(axis=1, dtype="float64")
        pairs = zip(right.tolist(), losses.tolist(), strict=True)
        return dict(zip((c.layers for c in some), pairs, strict=True))

    def grafts(self, some: Sequence[Candidate]) -> Grafts:
        return {c.layers: tuple(x[self.shown] for x in self.grafted[c.layers]) for c in some}

    # What follows is the same in every halving, and is worked out once.

    def by_gradient(self, some: Sequence[Candidate]) -> list[Candidate]:
        return self._once(tuple(c.layers for c in some), lambda: Search.by_gradient(self, some))

    def layer_gradients(self) -> dict[str, float]:
        return self._once("layers", lambda: Search.layer_gradients(self))

    def top(self, scores: dict[str, float], counts: Sequence[int]) -> list[Candidate]:
        return self._once(tuple(scores.items()), lambda: Search.top(self, scores, counts))

    def _once(self, what: Hashable, make: Callable[[], Any]) -> Any:
        if what not in self.found:
            self.found[what] = make()
        return self.found[what]


@dataclass
class Asking(Replayed):
    """Collects the candidates that a strategy wants to have trained."""

    wanted: dict[Layers, Candidate] = field(default_factory=dict)

    def outcomes(self, some: Sequence[Candidate], epochs: int) -> dict[Layers, tuple[float, float]]:
        self.wanted |= {c.layers: c for c in some}
        return dict.fromkeys((c.layers for c in some), (0.0, 0.0))


def choose(search: Replayed, strategy: str) -> Candidate:
    """What a strategy picks on the photos that are shown.

    The search of the paper trains the best layers together after a ranking, see
    `lib.study.protocol.halvings`: `search.together` has been asked for before.
    """
    if strategy != SEARCH:
        return STRATEGIES[strategy].choose(search)
    every = unlike([*search.everything, *search.together])
    return search.scored(every, search.settings.epochs)[0]
