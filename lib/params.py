"""A profile, validated: every key known, every value typed and in range.

A profile is a YAML file in ``params/`` that names only what differs from the defaults of
:class:`Params`. Notebooks override single values through papermill; both ways pass the same check,
and whatever is refused is refused with one line: where, which key, which value, what is allowed.
"""

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .backbones.records import (
    ALPHA_BACKBONES,
    BACKBONE_NAMES,
    RECORDS,
    THIN_BACKBONES,
    backbone_name,
    is_model_file,
    is_own_name,
)
from .cells import parameters_set
from .errors import InputError
from .methods import EXTRA, method

ROOT = Path(__file__).resolve().parent.parent  # the one place that knows where the project lies

DATA_SETS = ("procedural_flowers", "tf_flowers")
WEIGHTS = ("imagenet", "none", "embedded")
ACCURACIES = ("val_accuracy", "best_val_accuracy")  # columns of a row that may pick a block

# A slice in the notation of TFDS: train, train[:10%], train[70%:], train[10:-200].
_BOUND = r"-?\d+(?:(?:\.\d+)?%)?"
SPLIT_PATTERN = re.compile(rf"train(?:\[(?!:\])(?P<low>{_BOUND})?:(?P<high>{_BOUND})?\])?")

_UNFIT = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")  # control characters, no text
_NUMBER_TEXT = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Rule:
    """What a value may be: a sentence for the reader and a predicate for the check.

    names: all that may stand for the value, where the sentence does not name them one by one.
    """

    allowed: str
    accepts: Callable[[Any], bool]
    names: tuple[str, ...] = ()


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


def list_of(rule: Rule, least: int = 1) -> Rule:
    def accepts(value: Any) -> bool:
        is_list = isinstance(value, (list, tuple)) and len(value) >= least
        return is_list and all(map(rule.accepts, value)) and len(set(value)) == len(value)

    return Rule(f"a list without repeats, each {rule.allowed}", accepts, rule.names)


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
_BACKBONE = Rule(
    f"one of the paper's {', '.join(BACKBONE_NAMES)}, another network of keras.applications such "
    "as EfficientNetB0, or the path of a .keras file",
    lambda v: is_path(v) and (v in RECORDS or is_model_file(v)),
    tuple(RECORDS),
)
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
LANES = Rule(f"auto or {_LANE.allowed}", lambda v: v == "auto" or _LANE.accepts(v))


def param(rule: Rule, about: str, **default: Any) -> Any:
    """Return a dataclass field that carries its rule and what it is; a dict is not hashed."""
    metadata = {"rule": rule, "about": about}
    return field(metadata=metadata, hash="default_factory" not in default, **default)


@dataclass(frozen=True)
class Params:
    """Everything that a run of the project depends on. Immutable; checked when it is made.

    The defaults are the paper's set-up wherever the paper fixes a value (Section IV).
    Relative paths are taken from the project's root folder.

    Raises:
        InputError: a value of the wrong type or out of range, or values that contradict each other.
    """

    profile: str = param(
        _PROFILE,
        "Name of the YAML file in `params/`, without its ending; also of the folder in `build/`.",
    )

    data: str = param(
        name_or_path(*DATA_SETS),
        "Photos: drawn from the seed, tf_flowers, or a folder with one sub-folder a class.",
        default="procedural_flowers",
    )
    data_dir: str | None = param(
        or_null(_PATH),
        "Where TFDS keeps tf_flowers; null: $TFDS_DATA_DIR, else TFDS' own folder and a download.",
        default=None,
    )
    n_images: int = param(
        whole(50, 100_000),
        "Images drawn for procedural_flowers; other data are used whole.",
        default=1000,
    )
    image_size: int = param(
        whole(32, 1024), "Height and width of the images in pixels.", default=224
    )
    input_scaling: str = param(
        one_of("unit", "native"),
        "unit: RGB in [0, 1], as in the paper; native: as the network was pre-trained with (a "
        ".keras file: 0 to 255, unless it is a network of Keras under Keras' own name).",
        default="unit",
    )

    backbones: tuple[str, ...] = param(
        list_of(_BACKBONE),
        "The networks to run; a .keras file of a functional model brings its own weights, and its "
        "rows are named after it.",
        default=BACKBONE_NAMES,
    )
    thin: bool = param(
        flag(),
        "true: the thin twins, same layers and names with a fraction of the channels; not every "
        "network has one.",
        default=False,
    )
    alpha: dict[str, float] = param(
        _ALPHA,
        "Width multiplier by network, where there is one; one that is not named has 1.0.",
        default_factory=dict,
    )
    weights: str = param(
        name_or_path(*WEIGHTS),
        "imagenet; none: random; embedded: shipped with the project, thin twins only; or a "
        "weights file, or a folder of them.",
        default="imagenet",
    )

    search_split: str = param(
        _SPLIT,
        "The slice on which the search trains, in the notation of TFDS.",
        default="train[:10%]",
    )
    final_split: str = param(_SPLIT, "The slice on which final runs train.", default="train[:70%]")
    eval_split: str = param(_SPLIT, "The slice on which both are scored.", default="train[70%:]")

    batch_size: int = param(whole(1, 4096), "Images of a training step.", default=4)
    epochs: int = param(
        whole(1, 100_000), "Passes over the training slice in the search.", default=50
    )
    final_epochs: int | None = param(
        or_null(whole(1, 100_000)), "The same in final runs; null: as epochs.", default=None
    )
    learning_rate: float = param(number(0, 1, open_low=True), "Adam's step size.", default=5.0e-5)
    plateau_factor: float = param(
        number(0, 1, open_low=True, open_high=True),
        "ReduceLROnPlateau on validation accuracy multiplies the rate by this; the paper names "
        "no values, these three are Keras' own.",
        default=0.1,
    )
    plateau_patience: int = param(
        whole(0, 100_000), "After how many epochs without a gain it does so.", default=10
    )
    plateau_min_delta: float = param(
        number(0, 1), "What counts as a gain in accuracy: more than this.", default=1.0e-4
    )
    dropout: float = param(
        number(0, 1, open_high=True),
        "Share of the 128 units that is dropped between the classifier's dense layers.",
        default=0.5,
    )

    window: int = param(
        whole(1, 1000), "Layers that one sliding window covers; the paper's is 3.", default=3
    )
    top_k: tuple[int, ...] = param(
        list_of(whole(1, 1000)),
        "How many of the best single layers are tuned jointly.",
        default=(3, 5),
    )
    random_layers: int = param(whole(1, 1000), "Layers drawn for the random scheme.", default=3)
    extra_methods: tuple[str, ...] = param(
        list_of(one_of(*EXTRA), least=0),
        "Methods that are not the paper's, trained beside its own and shown in Figures 7 and 8; "
        f"none: []. {'; '.join(f'{name}: {method(name).says}' for name in EXTRA)}.",
        default=(),
    )

    repeats: int = param(
        whole(1, 1000), "Final runs of each method, each with its own seed.", default=4
    )
    repeat_order: str = param(
        one_of("own", "shared"),
        "own: photos come in another order in each repeat, the same for all methods, so that "
        "differences between methods are paired; shared: all repeats have the first one's.",
        default="own",
    )
    seed: int = param(whole(0, 2**31 - 1), "Root of all random numbers.", default=0)
    select_on: str = param(
        one_of(*ACCURACIES),
        "The score that picks a method's block: of the last epoch, or of the best one.",
        default="val_accuracy",
    )

    engine: str = param(
        one_of("plain", "fused"),
        "plain: one Keras model a run, the reference; fused: many runs in one model, the same "
        "rows.",
        default="fused",
    )
    lanes: int | str = param(
        LANES,
        "Runs trained side by side in one fused model; auto: as many as the memory allows.",
        default="auto",
    )
    deterministic: bool = param(
        flag(),
        "true: the same bits in every row on one machine with the same versions and as many "
        "threads (so with as many WORKERS), however the sweep is cut up or interrupted. Slow: each "
        "run is a fused model of one lane.",
        default=False,
    )
    memory_gib: float | None = param(
        or_null(number(0.1, 4096)),
        "Memory in GiB that one process may take in all; null: two fifths of what is free, of "
        "the machine, its container and its GPU the least, for a worker up to four fifths of its "
        "own limit; 4 where rows are deterministic.",
        default=None,
    )

    results: str | None = param(
        or_null(_PATH), "Folder of the rows; null: `results/<profile>`.", default=None
    )
    figures: str | None = param(
        or_null(_PATH),
        "Folder of figures and tables; null: `figures/<profile>`, or beside the rows if these "
        "are named.",
        default=None,
    )

    def __post_init__(self) -> None:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in _checked(values, "parameters").items():
            object.__setattr__(self, name, value)  # frozen: the only way to store a tidied value
        _check_together(self)

    @property
    def backbone_names(self) -> tuple[str, ...]:
        """The names of the backbones in rows and files, see `backbone_name`."""
        return tuple(map(backbone_name, self.backbones))

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
        """Return the width multiplier of a backbone; 1.0 where none is set or there is none.

        backbone: its name, of `backbone_names`.
        """
        return self.alpha.get(backbone, 1.0)


_RULES: dict[str, Rule] = {f.name: f.metadata["rule"] for f in fields(Params)}
TEXTS = frozenset(f.name for f in fields(Params) if f.type in (str, str | None))
_FLOATS = frozenset(f.name for f in fields(Params) if f.type in (float, "float"))


def described(record: type = Params) -> list[tuple[str, str, str, str]]:
    """Name, what it is, what is allowed and the default of each parameter of a record, in order.

    The default is written as in a profile, and empty where a value is required.
    """
    return [
        (f.name, f.metadata["about"], f.metadata["rule"].allowed, _default(f))
        for f in fields(record)
    ]


def _default(parameter: Field) -> str:
    if parameter.default_factory is not MISSING:
        return _as_yaml(parameter.default_factory())
    return "" if parameter.default is MISSING else _as_yaml(parameter.default)


def _as_yaml(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


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
    that is. Paths and NumPy's scalars are taken as text and numbers, ``backbones`` may be names
    between spaces. ``profile`` is required; None leaves a value as the profile has it.

    Raises:
        InputError: as `load_params`, and where ``profile`` is missing.
    """
    try:
        values = parameters_set(namespace, (*_RULES,))
    except ValueError as error:
        raise InputError(f"notebook: {error}") from error
    values = {name: v for name, v in values.items() if not isinstance(v, Params)}  # made before
    _check_keys(values, "notebook", _RULES)
    overrides = {name: _plain(value) for name, value in values.items() if value is not None}
    if "profile" not in overrides:
        raise InputError(f"notebook: profile is missing; allowed: {', '.join(profiles())}")
    if isinstance(overrides.get("backbones"), str):  # as papermill -p gives it
        overrides["backbones"] = overrides["backbones"].split()
    return load_params(overrides.pop("profile"), **overrides)


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
    for source in params.backbones:
        _check_backbone(params, source)


def _check_backbone(params: Params, source: str) -> None:
    """Refuse what the other values make impossible for one of the backbones."""
    where, name = f"profile {params.profile}:", backbone_name(source)
    unfit = is_model_file(source) and not is_own_name(name)
    if unfit or params.backbone_names.count(name) > 1:
        raise InputError(
            f"{where} backbones: the rows of {source!r} would be named {name!r}; allowed: a file "
            "name of at most 60 letters, digits, '_', '.' and '-' that is no other backbone's name"
        )
    if params.thin and name not in THIN_BACKBONES:
        raise InputError(
            f"{where} thin: true is not allowed for {source}, which has no thin twin; "
            f"allowed: false, or backbones of {', '.join(THIN_BACKBONES)}"
        )
    least = RECORDS[name].least_size if name in RECORDS else 0
    if params.image_size < least:
        raise InputError(
            f"{where} image_size: {params.image_size} is too small for {name}; "
            f"allowed: {least} or more"
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
    words = rule.names or re.findall(r"\w+", rule.allowed)
    given = value if isinstance(value, (list, tuple, Mapping)) else [value]
    wrong = [name for name in given if isinstance(name, str) and name not in words]
    return _suggestion(wrong[0], words, 3 if rule.names else 1) if wrong else ""


def _suggestion(name: Any, known: Any, most: int = 1) -> str:
    """Return " (did you mean ...?)" for the nearest known names, whatever their case, or nothing.

    One that differs in case alone is named alone.
    """
    by_lower, given = {word.lower(): word for word in known}, str(name).lower()
    near = difflib.get_close_matches(given, list(by_lower), n=most)
    close = [by_lower[n] for n in ([given] if given in by_lower else near)]
    if not close:
        return ""
    return f" (did you mean {' or '.join(filter(None, (', '.join(close[:-1]), close[-1])))}?)"


def shown_path(path: Path) -> str:
    """Return a path as the reader knows it: relative to the project where it lies inside.

    `resolve_path` of it is the same place.
    """
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
