"""What the study does, fixed before it was run: photos, networks, seeds, halvings and strategies.

docs/choice.md says it in words. Nothing here starts Keras.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

HALVINGS = 200  # of the evaluation photos
RANKING = 4  # the first photos, one part in so many, are in every half that strategies see
NEAR = 0.01  # of accuracy: regrets no further apart are as good as equal
SEARCH = "search"


@dataclass(frozen=True)
class Choice:
    """A strategy with one of its settings.

    Attributes:
        strategy: by the names of `lib.tune.strategies`.
        gradient: what it ranks by, where it does.
    """

    strategy: str
    gradient: str = "norm"


CHOICES: Mapping[str, Choice] = {
    SEARCH: Choice(SEARCH),
    "halving": Choice("halving"),
    "shortlist": Choice("shortlist"),
    "gradient": Choice("gradient"),
    "graft": Choice("graft"),
    "shortlist, relative": Choice("shortlist", "relative"),
    "shortlist, fisher": Choice("shortlist", "fisher"),
    "gradient, relative": Choice("gradient", "relative"),
    "gradient, fisher": Choice("gradient", "fisher"),
}
TIMED = ("halving", "shortlist", "gradient", "graft")  # trained for themselves, beside the search
ONCE = ("halving",)  # of these, with the first seed alone: it is dear, and as long with any seed


@dataclass(frozen=True)
class Cell:
    """A data set and a network.

    Attributes:
        source: name of the data set, by `lib.study.data`.
        size: height and width of the photos in pixels.
        alpha: the network's width multiplier.
    """

    source: str
    backbone: str
    size: int
    alpha: float = 1.0

    @property
    def name(self) -> str:
        return f"{self.source}/{self.backbone}"


@dataclass(frozen=True)
class Protocol:
    """One study.

    Attributes:
        sizes: of the photos in pixels, by data set, in the order in which they are run.
        alphas: width multipliers, by network, in the order in which they are run.
        train, evaluation: numbers of photos; half of the evaluation photos are shown at a time.
        values: of `lib.tune.settings` where they are not those of `make photos`.
        choices: that are made, the search first.
        contests: data sets on which `make photos` is compared with what people use, with the first
            network: photos that are given, photos that test, and pixels of what is drawn;
            contest_seeds: of these.
    """

    sizes: Mapping[str, int]
    alphas: Mapping[str, float]
    seeds: tuple[int, ...]
    train: int
    evaluation: int
    values: Mapping[str, Any] = field(default_factory=dict)
    choices: tuple[str, ...] = tuple(CHOICES)
    contests: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    contest_seeds: tuple[int, ...] = (0, 1)

    def timed(self, seed: int) -> tuple[str, ...]:
        """The choices that are trained for themselves with a seed."""
        there = [name for name in TIMED if name in self.choices]
        return tuple(name for name in there if name not in ONCE or seed == self.seeds[0])

    def cells(self) -> Iterator[Cell]:
        """The cells, the most valuable first."""
        for source, size in self.sizes.items():
            for backbone, alpha in self.alphas.items():
                yield Cell(source, backbone, size, alpha)


PROTOCOLS = {
    "full": Protocol(
        sizes={"flowers": 64, "digits": 64, "textures": 64},
        alphas={"MobileNetV3Small": 1.0, "MobileNetV2": 1.0, "MobileNet": 0.25},
        seeds=(0, 1, 2),
        train=200,
        evaluation=320,
        contests={"flowers": (600, 3070, 224), "digits": (600, 1000, 224)},
    ),
    # For tests: every step in seconds; the numbers mean nothing.
    "smoke": Protocol(
        sizes={"drawn": 32},
        alphas={"VGG16": 1.0},
        seeds=(0, 1),
        train=30,
        evaluation=40,
        values={
            "thin": True,
            "candidates": ("layers", "blocks"),
            "epochs": 2,
            "halvings": (1,),
            "batch_size": 10,
            "learning_rate": 2.0e-3,
        },
        choices=(SEARCH, "halving", "graft"),
        contests={"drawn": (50, 30, 40)},
    ),
}


def halvings(photos: int, count: int = HALVINGS) -> np.ndarray:
    """Which evaluation photos each halving shows to the strategies, bool ``(count, photos)``.

    Half of them; the others score. The first quarter is in every half that is shown: the best
    layers of a ranking are trained together, and so they are ranked on photos that are the same in
    all halvings, or each halving would need runs of its own.
    """
    always, half = photos // RANKING, photos // 2
    shown = np.zeros((count, photos), bool)
    shown[:, :always] = True
    rng = np.random.default_rng(photos)
    for row in shown:
        row[always + rng.permutation(photos - always)[: half - always]] = True
    return shown
