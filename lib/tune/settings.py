"""What `make photos` may be told, checked: every key known, every value typed and in range."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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
    resolve_path,
    whole,
)

STRATEGIES = ("search", "halving", "shortlist", "gradient", "graft", "fixed")
CANDIDATES = ("layers", "blocks", "windows", "stages")
GRADIENTS = ("norm", "relative", "fisher", "agreement")
EXPORTS = ("saved_model", "onnx", "litert")

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
_EPOCHS = list_of(whole(1, 1000))


def _setting(rule: Rule, **default: Any) -> Any:
    return field(metadata={"rule": rule}, **default)


@dataclass(frozen=True)
class Settings:
    """Everything that `make photos` depends on. Immutable; checked when it is made.

    Raises InputError: an unknown strategy, a value out of range, values that contradict each other.
    """

    # Folder of photos: one sub-folder per class.
    dir: str = _setting(_TEXT)
    # Folder of what comes out; null: build/photos/<name of the folder>.
    out: str | None = _setting(or_null(_TEXT), default=None)

    # The pre-trained network.
    backbone: str = _setting(_NETWORK, default="MobileNetV3Small")
    # Its width multiplier, 0.05 to 4; other than 1 for the MobileNets only.
    alpha: float = _setting(number(0.05, 4), default=1.0)
    # imagenet (downloaded by Keras); the path of a weights file or of a folder of them; embedded or
    # none (with thin only, for tests: they have seen no photos).
    weights: str = _setting(name_or_path(*WEIGHTS), default="imagenet")
    # true: the thin twin, which has seen no photos. For tests.
    thin: bool = _setting(flag(), default=False)
    # Height and width in pixels that the network sees; auto: that of its training, or as much as
    # `minutes` allow on this machine.
    image_size: int | str = _setting(_AUTO_SIZE, default="auto")
    # What image_size: auto may make of it, all in all; 1 to 10000.
    minutes: float = _setting(number(1, 10_000), default=10.0)

    # How the layers to tune are chosen.
    strategy: str = _setting(one_of(*STRATEGIES), default="shortlist")
    # What is tried besides the classifier alone and everything; each of layers, blocks, windows,
    # stages.
    candidates: tuple[str, ...] = _setting(
        list_of(one_of(*CANDIDATES)), default=("layers", "blocks", "windows")
    )
    # Of strategy fixed: the layers to tune.
    layers: str | float | None = _setting(or_null(_LAYERS), default=None)
    # What gradient and shortlist rank by.
    gradient: str = _setting(one_of(*GRADIENTS), default="norm")
    # Layers of one window; 1 to 1000.
    window: int = _setting(whole(1, 1000), default=3)
    # Epochs after which halving drops lanes; those beyond `epochs` are left out.
    halvings: tuple[int, ...] = _setting(_EPOCHS, default=(2, 5))
    # What halving keeps, above 0 and below 1.
    keep: float = _setting(number(0, 1, open_low=True, open_high=True), default=0.25)

    # What keeps photos together on one side of the split: a regular expression with one group,
    # looked for in each path, or a .csv file with the columns file and group.
    groups: str | None = _setting(or_null(_TEXT), default=None)
    # Shares of the photos that choose the layers, and that test; each above 0, up to 0.4.
    selection: float = _setting(number(0, 0.4, open_low=True), default=0.2)
    test: float = _setting(number(0, 0.4, open_low=True), default=0.2)
    # Parts of the training photos on which the winner is confirmed; 2 to 20.
    folds: int = _setting(whole(2, 20), default=3)
    # Runs of each confirmation, each with its own seed; 2 to 100.
    repeats: int = _setting(whole(2, 100), default=2)

    # Passes over the training photos; 1 to 1000.
    epochs: int = _setting(whole(1, 1000), default=12)
    # Photos per step; 1 to 4096.
    batch_size: int = _setting(whole(1, 4096), default=8)
    # Adam's step size; above 0, up to 1.
    learning_rate: float = _setting(number(0, 1, open_low=True), default=3.0e-4)
    # Fraction of the classifier's units dropped; 0 up to below 1.
    dropout: float = _setting(number(0, 1, open_high=True), default=0.5)
    # true: flips, small turns and zooms in the final training.
    augment: bool = _setting(flag(), default=False)
    # What is written beside model.keras where the installed packages can.
    exports: tuple[str, ...] = _setting(list_of(one_of(*EXPORTS), least=0), default=EXPORTS)
    # Root of all random numbers; 0 to 2147483647.
    seed: int = _setting(whole(0, 2**31 - 1), default=0)
    # Runs trained side by side, and memory in GiB: as in lib.params.
    lanes: int | str = _setting(LANES, default="auto")
    memory_gib: float | None = _setting(or_null(number(0.1, 4096)), default=None)

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in accepted(values, "photos", RULES).items():
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
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
            seed=self.seed,
            lanes=self.lanes,
            memory_gib=self.memory_gib,
            results=str(results),
            **({"epochs": self.epochs} | values),
        )


RULES: dict[str, Rule] = {f.name: f.metadata["rule"] for f in fields(Settings)}
TEXTS = frozenset(("dir", "out", "backbone", "weights", "strategy", "groups", "gradient", "layers"))
LISTS = frozenset(("candidates", "exports"))  # words between blanks will do


def load_settings(values: Mapping[str, Any]) -> Settings:
    """The settings of these values by name. Raises InputError."""
    given = accepted({k: _as_list(k, v) for k, v in values.items()}, "photos", RULES)
    if "dir" not in given:
        raise InputError("photos: DIR is missing; allowed: DIR=<folder with one folder per class>")
    return Settings(**given)


def _as_list(name: str, value: Any) -> Any:
    """What a command line gives as words: names between blanks, and a share of the layers."""
    if name in LISTS and isinstance(value, str):
        return value.split()
    if name == "layers" and isinstance(value, str) and re.fullmatch(r"[01]?\.?\d+", value.strip()):
        return float(value)
    return value


def _check_together(settings: Settings) -> None:
    """Refuse values that are fine one by one and contradict each other."""
    s = settings
    if s.weights in ("none", "embedded") and not s.thin:
        raise InputError(
            f"photos: weights: {s.weights!r} has seen no photos; allowed: imagenet, or the path of "
            "a file or folder"
        )
    if (s.strategy == "fixed") != (s.layers is not None):
        raise InputError(
            "photos: layers and strategy=fixed belong together; allowed: "
            f"layers, {_LAYERS.allowed}, with strategy=fixed"
        )
    if s.alpha != 1 and s.backbone not in ALPHA_BACKBONES:
        raise InputError(f"photos: alpha: {s.backbone} has none; allowed: 1.0")
