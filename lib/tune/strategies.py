"""Six ways to find the layers to tune. Each is a record: a name, a line, and a function.

A strategy sees the training photos and the selection photos through a `lib.tune.search.Search`, and
returns one candidate. Nothing here starts Keras: the settings name strategies without it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .candidates import Candidate, unlike

if TYPE_CHECKING:
    from .search import Search
    from .settings import Settings

RANKED = (3, 5)  # as in the paper
SHORT = 0.1  # share of each kind of candidate that is on the shortlist


@dataclass(frozen=True)
class Strategy:
    """One way to choose.

    Attributes:
        says: what it does, in a few words.
        choose: from a search to the candidate that it picks.
        ranks: whether it ranks candidates by gradients on the training photos.
    """

    name: str
    says: str
    choose: Callable[["Search"], Candidate]
    ranks: bool = False


def exhaustive(search: "Search") -> Candidate:
    """The paper's: train every candidate, then the best few layers of the ranking together."""
    full, every = search.settings.epochs, search.everything
    order = search.scored(every, full)
    together = best_together(search, order)
    if together:
        order = search.scored(unlike([*every, *together]), full)
    return order[0]


def best_together(search: "Search", order: Sequence[Candidate]) -> list[Candidate]:
    """The best 3 and 5 single layers of a ranking, tuned together; none where it has no layers.

    A block of one layer is that layer, where it is named first.
    """
    if "layers" not in search.settings.candidates:
        return []
    places = {c.layers[0]: -i for i, c in enumerate(order) if len(c.layers) == 1}
    return search.top(places, RANKED)


def halving(search: "Search") -> Candidate:
    """Successive halving over all candidates."""
    return _halved(search, search.everything)


def shortlist(search: "Search") -> Candidate:
    """The top tenth of each kind by gradient, then halving among them."""
    every = search.everything
    kinds = dict.fromkeys(c.kind for c in every if c.kind != "baseline")
    short = [c for c in every if c.kind == "baseline"]
    for kind in kinds:
        order = search.by_gradient([c for c in every if c.kind == kind])
        short += order[: math.ceil(SHORT * len(order))]
    return _halved(search, unlike([*short, *search.top(search.layer_gradients(), RANKED)]))


def gradient(search: "Search") -> Candidate:
    """The candidate with the largest gradient, trained beside the classifier alone."""
    every = [c for c in search.everything if c.kind != "baseline"]
    pair = [search.everything[0], search.by_gradient(every)[0]]
    return search.scored(pair, search.settings.epochs)[0]


def graft(search: "Search") -> Candidate:
    """Tune everything once; put the tuned weights of each candidate alone into the frozen network.

    The classifier is the one that was trained on the frozen network. The best graft is then tuned
    alone, beside the classifier alone and everything.
    """
    every = search.everything
    order = [c for c in search.by_graft(every) if c.kind != "baseline"]
    return search.scored([*every[:2], order[0]], search.settings.epochs)[0]


def fix(search: "Search") -> Candidate:
    """The user's own layers."""
    return search.given


STRATEGIES = {
    s.name: s
    for s in (
        Strategy("search", "train every candidate, as in the paper", exhaustive),
        Strategy("halving", "start every candidate, drop most after a few epochs", halving),
        Strategy("shortlist", "start the top tenth of each kind by gradient, drop most after a few "
                 "epochs", shortlist, ranks=True),
        Strategy("gradient", "take the largest gradient, train it and the classifier alone",
                 gradient, ranks=True),
        Strategy("graft", "tune everything once, try the tuned weights of each candidate alone",
                 graft),
        Strategy("fixed", "take the layers that are given", fix),
    )
}  # fmt: skip


def halvings(settings: "Settings") -> list[int]:
    """The epochs after which lanes leave, and the last one."""
    return sorted({e for e in settings.halvings if e < settings.epochs} | {settings.epochs})


def survivors(count: int, keep: float) -> int:
    """How many of so many candidates halving keeps."""
    return min(count, max(2, math.ceil(keep * count)))


def _halved(search: "Search", alive: Sequence[Candidate]) -> Candidate:
    """The best of some candidates; the classifier alone never leaves."""
    search.keep_lanes()
    for epochs in halvings(search.settings):
        order = search.scored(alive, epochs)
        first = next(c for c in alive if not c.layers)
        others = [c for c in order if c.layers]
        alive = [first, *others[: survivors(len(others), search.settings.keep)]]
        search.drop_lanes(alive)
    search.drop_lanes()
    return order[0]
