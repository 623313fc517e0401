"""A profile, validated: every key known, every value typed and in range.

A profile is a YAML file in ``params/`` that names only what differs from the defaults of
:class:`Params`. Notebooks override single values through papermill; both ways pass the same check,
and whatever is refused is refused with one line: where, which key, which value, what is allowed.
"""

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .cells import parameters_set

ROOT = Path(__file__).resolve().parent.parent  # the one place that knows where the project lies

# The paper's five architectures, in the order of its Table I.
BACKBONE_NAMES = ("VGG16", "MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50V2")
ALPHA_BACKBONES = ("MobileNet", "MobileNetV2", "MobileNetV3Small")  # those with a width multiplier
DATA_SETS = ("procedural_flowers", "tf_flowers")
WEIGHTS = ("imagenet", "none", "embedded")

# A slice in the notation of TFDS: train, train[:10%], train[70%:], train[10:-200].
_BOUND = r"-?\d+(?:(?:\.\d+)?%)?"
SPLIT_PATTERN = re.compile(rf"train(?:\[(?!:\])(?P<low>{_BOUND})?:(?P<high>{_BOUND})?\])?")

_UNFIT = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")  # control characters, no text
_NUMBER_TEXT = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")


class InputError(ValueError):
    """Input that the project refuses. Its message is one line that says what is allowed."""

    def __init__(self, message: str):
        line = " ".join(message.splitlines())  # a name in it may hold line ends
        super().__init__(readable(line))


def readable(text: str) -> str:
    """Return text with undecoded bytes read as UTF-8, or written as ``\\xe9`` where they are not.

    Python keeps such bytes of file names as single surrogates, which cannot be printed or saved; in
    a locale that is not UTF-8 these are all letters beyond ASCII.
    """
    return re.sub("[\udc80-\udcff]+", _decoded, text)


def _decoded(escaped: re.Match) -> str:
    return escaped[0].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Rule:
    """What a value may be: a sentence for the reader and a predicate for the check."""

    allowed: str
    accepts: Callable[[Any], bool]


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def whole(low: int, high: int) -> Rule:
    return Rule(f"a whole number from {low} to {high}", lambda v: is_int(v) and low <= v <= high)


def number(low: float, high: float, open_low: bool = False, open_high: bool = False) -> Rule:
    """Return a rule for a number in an interval whose ends belong to it unless they are open."""

    def accepts(value: Any) -> bool:
        return (
            is_number(value)
            and (low < value if open_low else low <= value)
            and (value < high if open_high else value <= high)
        )

    lower = f"{'above' if open_low else 'from'} {low:g}"
    upper = f"{'below' if open_high else 'up to'} {high:g}"
    return Rule(f"a number {lower} and {upper}", accepts)


def one_of(*names: str) -> Rule:
    return Rule("one of " + ", ".join(names), lambda v: isinstance(v, str) and v in names)


def flag() -> Rule:
    return Rule("true or false", lambda v: isinstance(v, bool))


def or_null(rule: Rule) -> Rule:
    return Rule(f"{rule.allowed}, or null", lambda v: v is None or rule.accepts(v))


def list_of(rule: Rule) -> Rule:
    def accepts(value: Any) -> bool:
        is_list = isinstance(value, (list, tuple)) and len(value) > 0
        return is_list and all(map(rule.accepts, value)) and len(set(value)) == len(value)

    return Rule(f"a list without repeats, each {rule.allowed}", accepts)


def is_path(value: Any) -> bool:
    """Whether a value may name a file: text without line ends and bytes that are no text."""
    return isinstance(value, str) and bool(value.strip()) and not _UNFIT.search(value)


def name_or_path(*names: str) -> Rule:
    """Return a rule for a known name or a path; a bare word must exist, so that typing errors show.

    Whether a path with a separator exists is checked where it is read: rows can be redrawn on a
    machine that has neither photos nor weights.
    """

    def accepts(value: Any) -> bool:
        if not is_path(value):
            return False
        return (
            value in names or "/" in value or os.sep in value or os.path.exists(resolve_path(value))
        )

    return Rule("one of " + ", ".join(names) + ", or a path", accepts)


_PATH = Rule("the path of a folder", is_path)
_SPLIT = Rule(
    "a slice such as train[:10%], train[70%:] or train[100:200]",
    lambda v: isinstance(v, str) and SPLIT_PATTERN.fullmatch(v) is not None,
)
_PROFILE = Rule(
    "a name of letters, digits, '-', '_' and '.'",
    lambda v: isinstance(v, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", v) is not None,
)
_ALPHA = Rule(
    "a number from 0.05 to 4 for each of " + ", ".join(ALPHA_BACKBONES),
    lambda v: (
        isinstance(v, Mapping)
        and all(name in ALPHA_BACKBONES for name in v)
        and all(is_number(width) and 0.05 <= width <= 4 for width in v.values())
    ),
)
_LANE = whole(1, 512)
_LANES = Rule(f"auto or {_LANE.allowed}", lambda v: v == "auto" or _LANE.accepts(v))


def _param(rule: Rule, **default: Any) -> Any:
    """Return a dataclass field that carries its rule; a dict stays out of the hash."""
    return field(metadata={"rule": rule}, hash="default_factory" not in default, **default)


@dataclass(frozen=True)
class Params:
    """Everything that a run of the project depends on. Immutable; checked when it is made.

    The defaults are the paper's set-up wherever the paper fixes a value (Section IV).
    Relative paths are taken from the project's root folder.

    Raises:
        InputError: a value of the wrong type or out of range, or values that contradict each other.
    """

    # Name of the YAML file in params/, without its ending; also names the folder in build/.
    profile: str = _param(_PROFILE)

    # procedural_flowers (embedded, drawn from the seed), tf_flowers, or the path of a folder that
    # holds one sub-folder of photos per class.
    data: str = _param(name_or_path(*DATA_SETS), default="procedural_flowers")
    # Folder where TFDS keeps tf_flowers; null: $TFDS_DATA_DIR, or TFDS' own default and a download.
    data_dir: str | None = _param(or_null(_PATH), default=None)
    # Images drawn for procedural_flowers; 50 to 100000. Other data are used whole.
    n_images: int = _param(whole(50, 100_000), default=1000)
    # Height and width of the images in pixels; 32 to 1024.
    image_size: int = _param(whole(32, 1024), default=224)
    # unit: RGB in [0, 1], as in the paper; native: what the backbone was pre-trained with.
    input_scaling: str = _param(one_of("unit", "native"), default="unit")

    # The backbones to run, at least one of the paper's five.
    backbones: tuple[str, ...] = _param(list_of(one_of(*BACKBONE_NAMES)), default=BACKBONE_NAMES)
    # true: the thin twins, same layers and names with a fraction of the channels.
    thin: bool = _param(flag(), default=False)
    # Width multiplier by backbone, 0.05 to 4, where there is one; a backbone not named has 1.0.
    alpha: dict[str, float] = _param(_ALPHA, default_factory=dict)
    # imagenet; none (random); embedded (shipped with the project, thin twins only); or the path of
    # a weights file or of a folder of them.
    weights: str = _param(name_or_path(*WEIGHTS), default="imagenet")

    # Slices of the data in the notation of TFDS: the search trains on the first, final runs on the
    # second, both are scored on the third.
    search_split: str = _param(_SPLIT, default="train[:10%]")
    final_split: str = _param(_SPLIT, default="train[:70%]")
    eval_split: str = _param(_SPLIT, default="train[70%:]")

    # Images per training step; 1 to 4096.
    batch_size: int = _param(whole(1, 4096), default=4)
    # Passes over the training slice in the search; 1 to 100000.
    epochs: int = _param(whole(1, 100_000), default=50)
    # The same for final runs; null: as epochs.
    final_epochs: int | None = _param(or_null(whole(1, 100_000)), default=None)
    # Adam's step size; above 0, up to 1.
    learning_rate: float = _param(number(0, 1, open_low=True), default=5.0e-5)
    # ReduceLROnPlateau on validation accuracy (the paper names no values; these are Keras' own):
    # the rate is multiplied by the factor (above 0, below 1) ...
    plateau_factor: float = _param(number(0, 1, open_low=True, open_high=True), default=0.1)
    # ... after so many epochs (0 to 100000) ...
    plateau_patience: int = _param(whole(0, 100_000), default=10)
    # ... without a gain of more than this in accuracy (0 to 1).
    plateau_min_delta: float = _param(number(0, 1), default=1.0e-4)
    # Fraction of the 128 units dropped between the classifier's dense layers; 0 up to below 1.
    dropout: float = _param(number(0, 1, open_high=True), default=0.5)

    # Layers covered by one sliding window; 1 to 1000. The paper's is 3.
    window: int = _param(whole(1, 1000), default=3)
    # Numbers of best single layers that are tuned jointly; each 1 to 1000.
    top_k: tuple[int, ...] = _param(list_of(whole(1, 1000)), default=(3, 5))
    # Layers drawn for the random scheme; 1 to 1000.
    random_layers: int = _param(whole(1, 1000), default=3)

    # Final runs of each method, each with its own seed; 1 to 1000.
    repeats: int = _param(whole(1, 1000), default=4)
    # own: the photos come in another order in each repeat, the same for all methods, so that
    # differences between methods are paired; shared: all repeats have the first one's.
    repeat_order: str = _param(one_of("own", "shared"), default="own")
    # Root of all random numbers; 0 to 2147483647.
    seed: int = _param(whole(0, 2**31 - 1), default=0)
    # The score that picks a method's block: of the last epoch, or of the best one.
    select_on: str = _param(one_of("val_accuracy", "best_val_accuracy"), default="val_accuracy")

    # plain: one Keras model per run, the reference; fused: many runs in one model, the same rows.
    engine: str = _param(one_of("plain", "fused"), default="fused")
    # Runs trained side by side in one fused model; 1 to 512, or auto: as many as the memory allows.
    lanes: int | str = _param(_LANES, default="auto")
    # true: the same bits in every row on one machine with the same versions, however the sweep is
    # cut up or interrupted. Slow: each run is a fused model of one lane.
    deterministic: bool = _param(flag(), default=False)
    # Memory in GiB that one process may take in all; 0.1 to 4096, or null: two fifths of what is
    # free, of the machine, its container and its GPU the least; 4 where rows are deterministic.
    memory_gib: float | None = _param(or_null(number(0.1, 4096)), default=None)

    # Folder of the rows; null: results/<profile>.
    results: str | None = _param(or_null(_PATH), default=None)
    # Folder of figures and tables; null: figures/<profile>, or beside the rows if these are named.
    figures: str | None = _param(or_null(_PATH), default=None)

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in _checked(values, "parameters").items():
            object.__setattr__(self, name, value)  # frozen: the only way to store a tidied value
        _check_together(self)

    @property
    def results_dir(self) -> Path:
        """Folder of the rows, one CSV per method and backbone."""
        return resolve_path(self.results or f"results/{self.profile}")

    @property
    def figures_dir(self) -> Path:
        """Folder of the figures and tables."""
        beside = f"{self.results}/figures" if self.results else f"figures/{self.profile}"
        return resolve_path(self.figures or beside)

    @property
    def cache_dir(self) -> Path:
        """Folder of decoded images, shared by all profiles; $BLOCKWISE_CACHE moves it."""
        return resolve_path(os.environ.get("BLOCKWISE_CACHE") or "build/cache")

    def alpha_of(self, backbone: str) -> float:
        """Return the width multiplier of a backbone; 1.0 where none is set or there is none."""
        return self.alpha.get(backbone, 1.0)


_RULES: dict[str, Rule] = {f.name: f.metadata["rule"] for f in fields(Params)}
TEXTS = frozenset(f.name for f in fields(Params) if f.type in (str, str | None))
_FLOATS = frozenset(f.name for f in fields(Params) if f.type in (float, "float"))


def resolve_path(text: str) -> Path:
    """Return the path that a parameter names: ``~`` expanded, relative to the project's root.

    Raises InputError for the home of a user that is not there, and for what is no name of a file.
    """
    try:
        text = os.fsdecode(text.encode("utf-8", "surrogateescape"))  # whatever the locale
    except UnicodeEncodeError as error:
        raise InputError(f"path: {text!a} is no text; allowed: letters that UTF-8 has") from error
    expanded = os.path.expanduser(text)  # Path would take ./~ for a home, too
    if expanded.startswith("~"):
        raise InputError(
            f"path: {text!r}: no user has the home {text.split('/')[0]}; "
            "allowed: ~ for your own, or a full path"
        )
    return ROOT / expanded


def profiles() -> list[str]:
    """Return the names of the profiles in ``params/``, sorted."""
    return sorted(path.stem for path in (ROOT / "params").glob("*.yaml") if path.is_file())


def load_params(profile: str, **overrides: Any) -> Params:
    """Return the checked parameters of a profile.

    Args:
        profile: a name in ``params/`` or the path of a YAML file.
        **overrides: values that replace the profile's, by field name.

    Raises:
        InputError: unknown profile or key, wrong type, value out of range, contradicting values.
    """
    path = profile_path(profile)
    from_file = _checked(_read_yaml(path), shown_path(path))
    return Params(path.stem, **(from_file | _checked(overrides, "override")))


def from_notebook(namespace: dict[str, Any]) -> Params:
    """Return the parameters that a notebook's ``globals()`` holds.

    Every public variable that the parameters cell sets is a parameter, each time that it runs, so
    that a misspelt ``papermill -p`` is refused rather than ignored; see `lib.cells` for which cell
    that is. Paths and NumPy's scalars are taken as text and numbers. ``profile`` is required;
    ``backbone`` runs that one only; None leaves a value as the profile has it.

    Raises:
        InputError: as `load_params`, and where ``profile`` is missing.
    """
    known = (*_RULES, "backbone")
    try:
        values = parameters_set(namespace, known)
    except ValueError as error:
        raise InputError(f"notebook: {error}") from error
    values = {name: v for name, v in values.items() if not isinstance(v, Params)}  # made before
    _check_keys(values, "notebook", (*_RULES, "backbone"))
    overrides = {name: _plain(value) for name, value in values.items() if value is not None}
    if "profile" not in overrides:
        raise InputError(f"notebook: profile is missing; allowed: {', '.join(profiles())}")
    profile = overrides.pop("profile")
    return load_params(profile, **_one_backbone(overrides))


def _one_backbone(values: dict[str, Any]) -> dict[str, Any]:
    """Turn ``backbone`` into ``backbones``."""
    if "backbone" not in values:
        return values
    if "backbones" in values:
        raise InputError("notebook: backbone and backbones are both set; allowed: one of the two")
    rest = {name: value for name, value in values.items() if name != "backbone"}
    if not one_of(*BACKBONE_NAMES).accepts(values["backbone"]):
        raise _refusal("notebook", "backbone", values["backbone"], one_of(*BACKBONE_NAMES))
    return rest | {"backbones": (values["backbone"],)}


def profile_path(profile: Any) -> Path:
    """Return the YAML file of a profile name, or the path itself where it ends in .yaml."""
    known = f"allowed: {', '.join(profiles())}, or the path of an existing .yaml file"
    if isinstance(profile, str) and profile.endswith(".yaml"):
        candidates = [Path(profile), resolve_path(profile)]
    elif _PROFILE.accepts(profile):
        candidates = [ROOT / "params" / f"{profile}.yaml"]
    else:
        candidates = []
    found = [path for path in candidates if os.path.isfile(path)]
    if not found:
        hint = _suggestion(profile, profiles())
        raise InputError(f"profile: {profile!r} is not a profile{hint}; {known}")
    return found[0]


class _Loader(yaml.SafeLoader):
    """The safe loader, without keys given twice, which win silently, and without aliases.

    A file with aliases may hold itself, or a few lines of it more than the memory does.
    """

    def compose_node(self, parent: yaml.Node, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(
                problem="an alias is not allowed", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            raise yaml.constructor.ConstructorError(
                problem=f"{twice[0]} is set twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep=deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML file's mapping; an empty file is an empty mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown_path(path)}: cannot be read as YAML: {error}") from error
    except OSError as error:
        raise InputError(f"{shown_path(path)}: cannot be read: {error.strerror}") from error
    values = parse_yaml(text, shown_path(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(
            f"{shown_path(path)}: holds {values!r:.60}; allowed: lines of 'key: value'"
        )
    if "profile" in values:
        raise InputError(
            f"{shown_path(path)}: profile: the file's name is the profile; remove the key"
        )
    return values


def parse_yaml(text: str, source: str) -> Any:
    """Return what YAML says, without making objects. Raises InputError, which names the source."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{source}: cannot be read as YAML: {reason}") from error


def _checked(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the values tidied (lists to tuples, whole numbers to floats), or refuse them."""
    return {name: _tidied(name, value) for name, value in accepted(values, source, _RULES).items()}


def accepted(values: Mapping[str, Any], source: str, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Return the values as plain Python ones, or refuse an unknown key or what breaks its rule.

    Raises InputError.
    """
    _check_keys(values, source, rules)
    values = {name: _plain(value) for name, value in values.items()}
    for name, value in values.items():
        if not _is_literal(value) or not rules[name].accepts(value):
            raise _refusal(source, name, value, rules[name])
    return values


def _plain(value: Any) -> Any:
    """Return paths as text and NumPy's scalars as Python's, also inside lists and mappings."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return {_plain(k): _plain(v) for k, v in value.items()} if type(value) is dict else value


def _is_literal(value: Any) -> bool:
    """Whether a value is of a type that the rules can compare; an array, say, is not."""
    return value is None or isinstance(value, (bool, int, float, str, list, tuple, Mapping))


def _check_keys(values: Mapping[str, Any], source: str, known: Collection[str]) -> None:
    for name in values:
        if name not in known:
            hint = _suggestion(name, known) or f"; allowed: {', '.join(known)}"
            raise InputError(f"{source}: {name}: unknown parameter{hint}")


def _tidied(name: str, value: Any) -> Any:
    if name in _FLOATS:
        return float(value)
    if name == "alpha":
        return {backbone: float(width) for backbone, width in value.items()}
    return tuple(value) if isinstance(value, list) else value


def _check_together(params: Params) -> None:
    """Refuse values that are fine one by one and contradict each other."""
    if params.weights == "embedded" and not params.thin:
        raise InputError(
            f"profile {params.profile}: weights: 'embedded' is for the thin twins; "
            "allowed: embedded with thin: true, or imagenet, none or a path"
        )
    if params.weights == "imagenet" and params.thin:
        raise InputError(
            f"profile {params.profile}: weights: 'imagenet' does not fit the thin twins; "
            "allowed: embedded, none or a path where thin is true"
        )


def _refusal(source: str, name: str, value: Any, rule: Rule) -> InputError:
    """Return the one line that says what is wrong and what would be right."""
    hint = _number_hint(value, rule) or _value_hint(value, rule)
    return InputError(f"{source}: {name}: {value!r} is not allowed{hint}; allowed: {rule.allowed}")


def _number_hint(value: Any, rule: Rule) -> str:
    """Say how YAML wants a number that arrived as text: ``5e-5`` has to be ``5.0e-5``."""
    if "number" not in rule.allowed or not isinstance(value, str):
        return ""
    match = _NUMBER_TEXT.fullmatch(value.strip())
    if match is None:
        return ""
    mantissa, _, exponent = value.strip().lower().partition("e")
    if exponent:
        mantissa += "" if "." in mantissa else ".0"
        exponent = "e" + (exponent if exponent[0] in "+-" else f"+{exponent}")
    return f" (it is text: write {mantissa}{exponent}, without quotes)"


def _value_hint(value: Any, rule: Rule) -> str:
    """Suggest the nearest allowed name for each misspelt one."""
    words = re.findall(r"\w+", rule.allowed)
    given = value if isinstance(value, (list, tuple, Mapping)) else [value]
    wrong = [name for name in given if isinstance(name, str) and name not in words]
    return _suggestion(wrong[0], words) if wrong else ""


def _suggestion(name: Any, known: Any) -> str:
    """Return ", did you mean ...?" for the nearest known name, whatever its case, or nothing."""
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""


def shown_path(path: Path) -> str:
    """Return a path as the reader knows it: relative to the project where it lies inside.

    `resolve_path` of it is the same place.
    """
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
