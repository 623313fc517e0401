"""The layers of the paper's backbones, from one committed table: figures need no network for them.

``make layers`` writes ``params/layers.csv`` anew from Keras; a test compares the two.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from ..backbones.records import BACKBONE_NAMES, LAYER_KINDS, OTHER_KIND
from ..params import ROOT
from ..whole import write_whole

FILE = ROOT / "params" / "layers.csv"


@cache
def read_layers(path: str | Path = FILE) -> pd.DataFrame:
    """Every layer of the paper's backbones but their inputs, from input to output.

    Columns: backbone, layer (its name), keras_class, weights (int: how many at full width, the
    statistics of BatchNorms included). Names and classes are those of thin twins too.
    """
    return pd.read_csv(path)


def layer_counts(backbone: str) -> list[tuple[str, int]]:
    """Figure 2: (layer name, number of weights) of every layer of a full-size backbone."""
    table = read_layers()
    table = table[table["backbone"] == backbone]
    return list(zip(table["layer"], table["weights"].tolist(), strict=True))


@cache
def layer_kinds(backbone: str) -> dict[str, str]:
    """Kind of each layer of a backbone, as `lib.backbones.records` names it, by name.

    Empty for a backbone that the table does not have.
    """
    table = read_layers()
    table = table[table["backbone"] == backbone]
    kinds = (LAYER_KINDS.get(name, OTHER_KIND) for name in table["keras_class"])
    return dict(zip(table["layer"], kinds, strict=True))


def made_layers(backbones: Sequence[str] = BACKBONE_NAMES) -> pd.DataFrame:
    """The table of `read_layers` as Keras builds the backbones; takes seconds for each."""
    columns = ["backbone", "layer", "keras_class", "weights"]
    return pd.DataFrame([row for name in backbones for row in _layers(name)], columns=columns)


def _layers(backbone: str) -> Iterator[tuple[str, str, str, int]]:
    from ..backbones.build import load_backbone  # here, so that reading the table starts no Keras

    for layer in load_backbone(backbone, image_size=224, weights="none").layers[1:]:
        yield backbone, layer.name, type(layer).__name__, layer.count_params()


def write_layers(path: Path = FILE) -> None:
    """Write the table as Keras builds the backbones."""
    write_whole(path, made_layers().to_csv(index=False, lineterminator="\n"))
