"""What gradients are ranked by: each measure a record, a function of sums over a group of layers.

`lib.tune.gradients` measures the sums. Nothing here starts Keras.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

Sums = Mapping[str, float]  # by the columns of `lib.tune.gradients.measure`


@dataclass(frozen=True)
class Measure:
    """One way to rank.

    Attributes:
        says: what it is, in a few words.
        of: from the sums over a group of layers to a number; the largest is the best.
    """

    name: str
    says: str
    of: Callable[[Sums], float]


def _norm(sums: Sums) -> float:
    return float(np.sqrt(sums["g2"]))


def _relative(sums: Sums) -> float:
    return float(np.sqrt(sums["g2"] / max(sums["w2"], 1e-12)))


def _fisher(sums: Sums) -> float:
    return float(sums["g2"] / sums["weights"])


def _agreement(sums: Sums) -> float:
    return float(sums["both"] / max(np.sqrt(sums["t2"] * sums["s2"]), 1e-12))


MEASURES = {
    m.name: m
    for m in (
        Measure("norm", "the gradient's norm", _norm),
        Measure("relative", "its norm, divided by the weights' norm", _relative),
        Measure("fisher", "its mean square per weight, the diagonal of the Fisher information",
                _fisher),
        Measure("agreement", "the cosine between the mean gradients on training and on selection "
                "photos", _agreement),
    )
}  # fmt: skip


def scores(
    table: pd.DataFrame, blocks: Sequence[tuple[str, ...]], name: str
) -> dict[tuple[str, ...], float]:
    """A measure of each group of layers; an empty group scores 0.

    Args:
        table: as `lib.tune.gradients.measure` returns it.
        name: one of `MEASURES`.
    """
    by_layer, measure = table.set_index("layer"), MEASURES[name]
    return {b: measure.of(by_layer.loc[list(b)].sum()) if b else 0.0 for b in blocks}
