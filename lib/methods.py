"""The methods, one record each: names, labels, colours and lists are taken from here.

A new method is one function that proposes blocks (`lib.partition`) and one record in `RECORDS`.
Nothing here starts Keras: figures and the audit know methods without it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import partition
from .errors import InputError
from .partition import Block

# What blocks a method proposes: of a backbone (keras.Model), the parameters (`lib.params.Params`),
# and, for ranked methods, the accuracy of each layer in the layer-wise search.
Propose = Callable[[Any, Any, Mapping[str, float]], list[Block]]
BLACK = "#000000"  # of ranked blocks of another size than the paper's


@dataclass(frozen=True)
class Method:
    """One way to choose what is tuned.

    Attributes:
        name: in rows, in names of ledgers and in parameters.
        label: in figures.
        says: what it tunes, in a few words.
        propose: the blocks for a backbone, see `Propose`.
        colour: in every figure; baselines are greys, others from the Okabe-Ito palette.
        role: "baseline"; "start" (random layers, where the paper starts from); "approach" (what
            it tests besides); "proposed" (an approach that is its own); "extra" (not the paper's:
            trained only where `extra_methods`, a control or `make photos` names it); "own" (not a
            method at all: the layers that a user names, in `make photos` alone).
        many: it proposes several blocks, of which the search picks one; others propose one.
        ranked: it tunes so many of the best layers of the layer-wise search together; 0: none.
        abbreviation: the paper's, in Table I; empty: it has no column there.
        figures: numbers of the paper's figures in which it stands.
    """

    name: str
    label: str
    says: str
    propose: Propose
    colour: str
    role: str
    many: bool = False
    ranked: int = 0
    abbreviation: str = ""
    figures: tuple[int, ...] = ()


def _ranked(k: int, colour: str = BLACK, **more: Any) -> Method:
    """The best `k` layers together (Section III-C, Algorithm 3)."""

    def propose(backbone: Any, params: Any, scores: Mapping[str, float]) -> list[Block]:
        return partition.top_ranked(backbone, scores, k)

    says = f"the best {k} layers together"
    return Method(f"top_{k}", f"Top {k}", says, propose, colour, "proposed", ranked=k, **more)


def _refused(backbone: Any, params: Any, scores: Mapping[str, float]) -> list[Block]:
    """Nothing can be proposed where the user names the layers. Raises InputError."""
    raise InputError('own_layers: only make photos takes them; allowed: SET="strategy=fixed ..."')


def _plain(function: Callable[[Any], list[Block]]) -> Propose:
    """Of a function that needs the backbone alone."""
    return lambda backbone, params, scores: function(backbone)


# In the order of the paper's story.
RECORDS = (
    Method(
        "baseline_1",
        "Baseline I",
        "the classifier alone",
        _plain(partition.baseline_1),
        "#A6A6A6",
        "baseline",
        abbreviation="Baseline I",
        figures=(3, 7, 8),
    ),
    Method(
        "baseline_2",
        "Baseline II",
        "everything",
        _plain(partition.baseline_2),
        "#4D4D4D",
        "baseline",
        abbreviation="Baseline II",
        figures=(3, 7, 8),
    ),
    Method(
        "random",
        "Random layers",
        "a few layers drawn at random",
        lambda backbone, params, scores: partition.random_layers(
            backbone, params.random_layers, params.seed
        ),
        "#E69F00",
        "start",
        figures=(3, 7),
    ),
    Method(
        "layer_wise",
        "Layer-wise",
        "single layers",
        _plain(partition.layer_wise),
        "#56B4E9",
        "approach",
        many=True,
        abbreviation="LW",
        figures=(4, 7, 8),
    ),
    Method(
        "block_wise",
        "Block-wise",
        "what lies between two layers without weights",
        _plain(partition.block_wise),
        "#D55E00",
        "proposed",
        many=True,
        abbreviation="BW",
        figures=(5, 7, 8, 9),
    ),
    _ranked(3, "#009E73", abbreviation="BWT3", figures=(7, 8)),
    _ranked(5, "#CC79A7", abbreviation="BWT5", figures=(7, 8)),
    Method(
        "sliding_window",
        "Sliding window",
        "`window` layers in a row",
        lambda backbone, params, scores: partition.sliding_window(backbone, params.window),
        "#0072B2",
        "proposed",
        many=True,
        abbreviation="BWSW",
        figures=(6, 7, 8, 10),
    ),
    Method(
        "batch_norm",
        "BatchNorms alone",
        "all BatchNorms together",
        _plain(partition.batch_norm),
        "#8C564B",
        "extra",
    ),
    Method(
        "residual_units",
        "Residual units",
        "the layers between two residual additions",
        _plain(partition.residual_units),
        "#F0E442",
        "extra",
        many=True,
    ),
    Method(
        "stages",
        "Stages",
        "all layers of one resolution",
        _plain(partition.stages),
        "#882255",
        "extra",
        many=True,
    ),
    Method(
        "own_layers",
        "Own layers",
        "the layers that are named",
        _refused,
        "#332288",
        "own",
    ),
)


def _names(*roles: str) -> tuple[str, ...]:
    return tuple(m.name for m in RECORDS if m.role in roles)


BASELINES = _names("baseline")
PAPER = _names("baseline", "start", "approach", "proposed")
EXTRA = _names("extra")
PROPOSED = _names("proposed")  # what the paper proposes ...
UNPROPOSED = _names("baseline", "approach")  # ... against what it had before
APPROACHES = _names("approach", "proposed")  # the paper's "all tested approaches"
SEARCHES = tuple(m.name for m in RECORDS if m.many)
ABBREVIATIONS = {m.name: m.abbreviation for m in RECORDS if m.abbreviation}
TABLE1 = tuple(ABBREVIATIONS)  # the columns of Table I


def method(name: str) -> Method:
    """The record of a method; `top_<k>` is one for every k.

    Raises InputError for a name that is none.
    """
    for record in RECORDS:
        if record.name == name:
            return record
    if re.fullmatch(r"top_[1-9]\d*", name):
        return _ranked(int(name.removeprefix("top_")))
    raise InputError(f"method: {name!r} is unknown; allowed: {allowed()}")


def is_method(name: str) -> bool:
    """Whether a name is a method's."""
    return name in {m.name for m in RECORDS} or re.fullmatch(r"top_[1-9]\d*", name) is not None


def allowed() -> str:
    """The names of all methods, for refusals."""
    return f"{', '.join(m.name for m in RECORDS)}, top_<k>"


def label(name: str) -> str:
    """A method's name in figures."""
    return method(name).label


def colour(name: str) -> str:
    """A method's colour in figures."""
    return method(name).colour


def in_figure(number: int) -> tuple[str, ...]:
    """The methods that stand in a figure of the paper."""
    return tuple(m.name for m in RECORDS if number in m.figures)


def methods(params: Any) -> tuple[str, ...]:
    """All methods of a profile (`lib.params.Params`), in the order in which they can be run."""
    first = PAPER.index(next(m.name for m in RECORDS if m.ranked))
    rest = [name for name in PAPER[first:] if not method(name).ranked]
    ranked = (f"top_{k}" for k in params.top_k)
    return (*PAPER[:first], *ranked, *rest, *params.extra_methods)
