"""What may be tuned: layers, blocks, windows and stages of a backbone, each set of layers once.

Nothing here starts Keras: the settings name kinds of candidates without it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from .. import partition
from ..methods import BASELINES, method
from ..params import InputError
from ..partition import Block

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Candidate:
    """A block that may be tuned.

    Attributes:
        kind: what it is one of: baseline, a name of `KINDS`, ranked or fixed.
        method: that proposes it, of `lib.methods`; it stands in the rows.
    """

    kind: str
    method: str
    block: Block

    @property
    def layers(self) -> tuple[str, ...]:
        return self.block.layers

    @property
    def label(self) -> str:
        """What it is called in a sentence."""
        return WORDS[self.method] if self.kind == "baseline" else self.block.name


@dataclass(frozen=True)
class Kind:
    """A kind of candidate.

    Attributes:
        method: that proposes them, of `lib.methods`.
        word: what one of them is called.
        blocks: what it makes of a backbone, and of the number of layers of a window.
    """

    method: str
    word: str
    blocks: Callable[["keras.Model", int], Sequence[Block]]

    @property
    def says(self) -> str:
        """What they are, in a few words."""
        return method(self.method).says


KINDS: Mapping[str, Kind] = {
    "layers": Kind("layer_wise", "a layer", lambda backbone, _: partition.layer_wise(backbone)),
    "blocks": Kind("block_wise", "a block", lambda backbone, _: partition.block_wise(backbone)),
    "windows": Kind("sliding_window", "a window", partition.sliding_window),
    "stages": Kind("stages", "a stage", lambda backbone, _: partition.stages(backbone)),
}
# What the rows of a method are of; those of any other are of several layers together.
WORDS: Mapping[str, str] = {
    **{name: method(name).says for name in BASELINES},
    **{kind.method: kind.word for kind in KINDS.values()},
}


def baselines(backbone: "keras.Model") -> list[Candidate]:
    """The classifier alone, and everything."""
    return [Candidate("baseline", n, *getattr(partition, n)(backbone)) for n in BASELINES]


def candidates(backbone: "keras.Model", kinds: Sequence[str], window: int) -> list[Candidate]:
    """The baselines and all candidates of some kinds; of equal sets of layers, the first named."""
    found = baselines(backbone)
    for name in kinds:
        kind = KINDS[name]
        found += [Candidate(name, kind.method, b) for b in kind.blocks(backbone, window)]
    return unlike(found)


def unlike(found: Sequence[Candidate]) -> list[Candidate]:
    """The first candidate of each set of layers."""
    return list({c.layers: c for c in reversed(found)}.values())[::-1]


def ranked(
    backbone: "keras.Model", scores: Mapping[str, float], counts: Sequence[int]
) -> list[Candidate]:
    """The best few layers of a ranking together, as in Algorithm 3.

    scores: of every layer with weights, by name.
    """
    few = [k for k in counts if k <= len(scores)]
    blocks = [partition.top_ranked(backbone, scores, k)[0] for k in few]
    return [Candidate("ranked", block.name, block) for block in blocks]


def fixed(backbone: "keras.Model", layers: str | float) -> Candidate:
    """The user's own layers.

    layers: names or patterns of names between blanks, or a share of the layers with weights from
    the top.

    Raises InputError where a pattern fits no layer with weights.
    """
    names = partition.weighted_layers(backbone)
    if isinstance(layers, str):
        chosen = {name for pattern in layers.split() for name in _matching(pattern, names)}
    else:
        chosen = set(names[-max(1, round(layers * len(names))) :])
    block = Block("fixed", tuple(name for name in names if name in chosen))
    return Candidate("fixed", "own_layers", block)


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise InputError(
            f"photos: layers: {pattern!r} fits no layer with weights; allowed: "
            f"{', '.join(names[:3])}, ..., {', '.join(names[-3:])}, or a pattern such as "
            f"{names[-1][:6]}*"
        )
    return found
