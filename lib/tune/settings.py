"""What `make photos` may be told, checked: every key known, every value typed and in range."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ..backbones.records import RECORDS
from ..params import (
    ALPHA_BACKBONES,
    LANES,
    WEIGHTS,
    InputError,
    Params,
    Rule,
    accepted,
    flag,
    is_path,
    list_of,
    name_or_path,
    number,
    one_of,
    or_null,
    param,
    resolve_path,
    whole,
)
from .candidates import KINDS
from .export import FORMATS
from .measures import MEASURES
from .strategies import STRATEGIES

_TEXT = Rule("text", is_path)
_SIZE = whole(32, 1024)
_AUTO_SIZE = Rule(f"auto or {_SIZE.allowed}", lambda v: v == "auto" or _SIZE.accepts(v))
_SHARE = number(0, 1, open_low=True)
_LAYERS = Rule(
    "a layer's name or a pattern of names such as 'expanded_conv_1*', several between spaces, or "
    "a share of the layers from the top, above 0 and up to 1",
    lambda v: is_path(v) or _SHARE.accepts(v),
)
_NETWORK = Rule(
    "a network of keras.applications, such as MobileNetV3Small or EfficientNetB0",
    lambda v: isinstance(v, str) and v in RECORDS,
    tuple(RECORDS),
)
_PART = number(0, 0.4, open_low=True)
NEVER = 10_000  # epochs without a better accuracy: more than there may be


def _each(records: Mapping[str, Any]) -> str:
    """What each of some records says, as one line."""
    return "; ".join(f"{name}: {record.says}" for name, record in records.items())


@dataclass(frozen=True)
class Settings:
    """Everything that `make photos` depends on. Immutable; checked when it is made.

    Raises InputError: an unknown strategy, a value out of range, values that contradict each other.
    """

    dir: str = param(_TEXT, "Folder of the photos: one sub-folder a class. `DIR=` sets it.")
    out: str | None = param(
        or_null(_TEXT),
        "Folder of what comes out; null: `build/photos/<name of the folder>`. `OUT=` sets it.",
        default=None,
    )

    backbone: str = param(
        _NETWORK, "The pre-trained network. `BACKBONE=` sets it.", default="MobileNetV3Small"
    )
    alpha: float = param(
        number(0.05, 4),
        "Its width multiplier; only the MobileNets have others than 1.",
        default=1.0,
    )
    weights: str = param(
        name_or_path(*WEIGHTS),
        "imagenet: downloaded by Keras; or a weights file, or a folder of them. embedded and none "
        "are for thin: true.",
        default="imagenet",
    )
    thin: bool = param(
        flag(), "true: the thin twin, which has seen no photos; for tests.", default=False
    )
    image_size: int | str = param(
        _AUTO_SIZE,
        "Height and width in pixels that the network sees; auto: those of its training, or fewer "
        "where `minutes` would not do on this machine.",
        default="auto",
    )
    minutes: float = param(
        number(1, 10_000), "What image_size: auto may make the whole of it take.", default=10.0
    )

    strategy: str = param(
        one_of(*STRATEGIES),
        f"How the layers to tune are chosen. {_each(STRATEGIES)}.",
        default="shortlist",
    )
    candidates: tuple[str, ...] = param(
        list_of(one_of(*KINDS)),
        f"What is tried besides the classifier alone and everything. {_each(KINDS)}.",
        default=("layers", "blocks", "windows"),
    )
    layers: str | float | None = param(
        or_null(_LAYERS), "Of strategy fixed: the layers to tune.", default=None
    )
    gradient: str = param(
        one_of(*MEASURES),
        f"What the strategies gradient and shortlist rank by. {_each(MEASURES)}.",
        default="norm",
    )
    window: int = param(whole(1, 1000), "Layers that one window covers.", default=3)
    halvings: tuple[int, ...] = param(
        list_of(whole(1, 1000)),
        "Epochs after which halving drops candidates; those beyond `epochs` are left out.",
        default=(2, 5),
    )
    keep: float = param(
        number(0, 1, open_low=True, open_high=True), "The share that it keeps.", default=0.25
    )

    groups: str | None = param(
        or_null(_TEXT),
        "What keeps photos together on one side of the split: a regular expression with one group, "
        "looked for in each path below the folder, or a .csv file with the columns file and group.",
        default=None,
    )
    duplicates: str = param(
        one_of("near", "exact"),
        "What counts as the same photo twice, which stays on one side. near: nearly the same, too, "
        "by a perceptual hash; exact: the same file, for photos that all look alike.",
        default="near",
    )
    selection: float = param(_PART, "Share of the photos that choose the layers.", default=0.2)
    test: float = param(_PART, "Share of the photos that test the network.", default=0.2)
    folds: int = param(
        whole(2, 20), "Parts of the training photos on which the winner is confirmed.", default=3
    )
    repeats: int = param(
        whole(2, 100), "Runs of each confirmation, each with its own seed.", default=2
    )

    epochs: int = param(whole(1, 1000), "Passes over the training photos.", default=12)
    batch_size: int = param(whole(1, 4096), "Photos of a training step.", default=8)
    learning_rate: float = param(_SHARE, "Adam's step size.", default=3.0e-4)
    dropout: float = param(
        number(0, 1, open_high=True),
        "Share of the classifier's units that is dropped.",
        default=0.5,
    )
    augment: bool = param(
        flag(), "true: flips, small turns and zooms in the final training.", default=False
    )
    exports: tuple[str, ...] = param(
        list_of(one_of(*FORMATS), least=0),
        "What is written beside model.keras where the installed packages can; none: [].",
        default=tuple(FORMATS),
    )
    seed: int = param(whole(0, 2**31 - 1), "Root of all random numbers.", default=0)
    lanes: int | str = param(
        LANES, "Runs trained side by side; auto: as many as the memory allows.", default="auto"
    )
    memory_gib: float | None = param(
        or_null(number(0.1, 4096)),
        "Memory in GiB that training may take; null: two fifths of what is free.",
        default=None,
    )

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in accepted(values, "photos", RULES).items():
            object.__setattr__(self, name, _tidied(name, value))
        _check_together(self)

    @property
    def folder(self) -> Path:
        """Folder of the photos."""
        return resolve_path(self.dir)

    @property
    def out_dir(self) -> Path:
        """Folder of what comes out."""
        name = re.sub(r"[^\w.-]+", "_", os.path.basename(os.path.abspath(self.folder))).strip("._")
        return resolve_path(self.out or f"build/photos/{name or 'photos'}")

    def params(self, image_size: int, results: Path, **values: Any) -> Params:
        """The engine's parameters.

        Args:
            results: folder of the rows.
            **values: such as epochs, search_split and eval_split.
        """
        alpha = {self.backbone: self.alpha} if self.backbone in ALPHA_BACKBONES else {}
        return Params(
            profile="photos",
            image_size=image_size,
            input_scaling="native",
            backbones=(self.backbone,),
            thin=self.thin,
            alpha=alpha,
            weights=self.weights,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            dropout=self.dropout,
            window=self.window,
            repeat_order="shared",
            plateau_patience=NEVER,  # as in the final training, which has no photos to see it by
            seed=self.seed,
            lanes=self.lanes,
            memory_gib=self.memory_gib,
            results=str(results),
            **({"epochs": self.epochs} | values),
        )


RULES: dict[str, Rule] = {f.name: f.metadata["rule"] for f in fields(Settings)}
_TYPES_OF_TEXT = (str, str | None, str | float | None)
TEXTS = frozenset(f.name for f in fields(Settings) if f.type in _TYPES_OF_TEXT)  # taken as written
LISTS = frozenset(f.name for f in fields(Settings) if f.type == tuple[str, ...])  # or words
_FLOATS = frozenset(f.name for f in fields(Settings) if f.type is float)


def load_settings(values: Mapping[str, Any]) -> Settings:
    """The settings of these values by name. Raises InputError."""
    given = accepted({k: _as_list(k, v) for k, v in values.items()}, "photos", RULES)
    if "dir" not in given:
        raise InputError("photos: DIR is missing; allowed: DIR=<folder with one folder per class>")
    return Settings(**given)


def _tidied(name: str, value: Any) -> Any:
    """Lists to tuples, and whole numbers to floats: 1 and 1.0 are the same rows."""
    if name in _FLOATS:
        return float(value)
    return tuple(value) if isinstance(value, list) else value


def _as_list(name: str, value: Any) -> Any:
    """What a command line gives as words: names between blanks, and a share of the layers."""
    if name in LISTS and isinstance(value, str):
        return value.split()
    if name == "layers" and isinstance(value, str) and re.fullmatch(r"[01]?\.?\d+", value.strip()):
        return float(value)
    return value


def _check_together(settings: Settings) -> None:
    """Refuse values that are fine one by one and contradict each other."""
    s, record = settings, RECORDS[settings.backbone]
    if s.weights in ("none", "embedded") and not s.thin:
        raise InputError(
            f"photos: weights: {s.weights!r} has seen no photos; allowed: imagenet, or the path of "
            "a file or folder"
        )
    if s.weights not in WEIGHTS and not record.weight_files:
        raise InputError(
            f"photos: weights: {s.backbone} takes no file, as Keras builds it with a layer more "
            "for its ImageNet weights; allowed: imagenet, or another backbone"
        )
    if s.strategy == "fixed" and s.layers is None:
        raise InputError(f"photos: strategy: 'fixed' needs layers; allowed: {_LAYERS.allowed}")
    if s.strategy != "fixed" and s.layers is not None:
        raise InputError(
            f"photos: layers: {s.layers!r} is not for strategy {s.strategy}; allowed: with "
            "strategy=fixed"
        )
    if s.alpha != 1 and s.backbone not in ALPHA_BACKBONES:
        raise InputError(
            f"photos: alpha: {s.alpha} is not for {s.backbone}; allowed: 1.0, or a MobileNet"
        )
    s.params(record.imagenet_size if s.image_size == "auto" else s.image_size, s.out_dir)
