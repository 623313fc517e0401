"""Backbones built from their records, thin twins, weights, input scaling and the classifier.

A backbone is a network of `keras.applications` or a ``.keras`` file, see `records`. A *thin twin*
has the same layers under the same names as its backbone and a fraction of the channels, so that
every method of the paper can be run on a small machine.
"""

import hashlib
import json
import re
import shutil
import sys
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from ..errors import first_line
from ..params import ROOT, InputError, resolve_path
from .records import ALPHA_BACKBONES, RECORDS, backbone_name, is_model_file

EMBEDDED = ROOT / "lib" / "weights"

# Keras' MobileNets remember BatchNorm statistics over 1000 steps (momentum 0.999), longer than a
# whole run of the `quick` profile; a thin twin's statistics follow its weights.
THIN_MOMENTUM = 0.9
THIN_MULTIPLE = 8  # a thin layer's channels are a multiple of this, and at least this

# How Keras spells alpha in the names of its MobileNet files.
KERAS_ALPHA = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}


def load_backbone(name, *, image_size, alpha=1.0, weights="imagenet", thin=False):
    """Build a backbone without its top and give it its weights.

    name: of a network in `records.RECORDS`, or the path of a ``.keras`` file, which brings its
    own weights and layer names: alpha, weights and thin are not for it.
    image_size: height and width of the input in pixels, at least 32 (some networks want more).
    alpha: width multiplier (> 0) of the MobileNets; the others take only 1.0.
    weights: "imagenet" (downloaded by Keras for 224 x 224, used at any size), "none" (random,
    the same values in every call), "embedded" (thin twins only: the files of lib/weights),
    or the path of a .weights.h5 or .h5 file, or of a folder that holds it under one of the
    names of `file_names`. A relative path starts at the project's root.
    thin: build the thin twin, which the paper's five have.

    Returns a functional keras.Model: (batch, image_size, image_size, 3) float32 to a feature
    map (batch, h, w, channels), all layers trainable. Layer names are the same in every call.
    MobileNetV3Small keeps Keras' inner rescaling, which expects pixels 0 to 255: fed with the
    paper's [0, 1] inputs it sees nearly blank images.
    Raises InputError.
    """
    if is_model_file(name):
        return _from_file(resolve_path(name), image_size)
    _check(name, image_size, alpha, weights, thin)
    original = _with_imagenet_weights(name, alpha) if weights == "imagenet" else None
    # Only its architecture is used: no values are drawn, which halves the time.
    with keras.StatelessScope(initialize_variables=False):
        bare = _constructor(name, alpha)(weights=None, input_shape=(image_size, image_size, 3))
    fraction = RECORDS[name].thin.fraction if thin else 1
    backbone = _rebuild(original or bare, image_size, fraction, bare)
    if original is not None:
        backbone.set_weights(original.get_weights())
    elif weights != "none":
        folder = EMBEDDED if weights == "embedded" else weights
        path = find_weights(folder, name, alpha, thin)
        _load_file(backbone, name, path, file_names(name, alpha, thin))
    return backbone


def backbone_of(params, source):
    """The backbone that parameters describe, see `load_backbone`.

    source: one of `params.backbones`. Raises InputError.
    """
    alpha = params.alpha_of(backbone_name(source))
    options = {"image_size": params.image_size, "alpha": alpha, "weights": params.weights}
    return load_backbone(source, thin=params.thin, **options)


def write_backbone(params, source, folder):
    """Write the file from which another machine has the same backbone.

    source: one of `params.backbones`. folder: a Path; the file has the name under which
    `load_backbone` looks for it there.
    Returns the backbone as it is named beside the file. Raises InputError where it has no file of
    weights, and what `load_backbone` raises.
    """
    if is_model_file(source):
        backbone_of(params, source)  # refused here, not there
        return Path(shutil.copy(resolve_path(source), folder)).name
    check_takes_files(source)
    name = file_names(source, params.alpha_of(source), params.thin)[0]
    backbone_of(params, source).save_weights(folder / name)
    return source


def scale_inputs(images_uint8, name, scaling):
    """Turn photos into a backbone's inputs.

    images_uint8: (n, h, w, 3) uint8. name: as `load_backbone` takes it.
    scaling: "unit", the paper's [0, 1] (Section IV-A), or "native", what the backbone was
    pre-trained with: what the `preprocess_input` of its `keras.applications` module makes of the
    photos (`Backbone.native` says it in words). Of a ``.keras`` file that is 0 to 255, unless the
    model in it still has the name that Keras gave one of its networks, such as densenet121.
    Returns (n, h, w, 3) float32. Raises InputError for another scaling or backbone.
    """
    _check_name(name)
    pixels = np.array(images_uint8, dtype="float32")
    if scaling == "unit":
        pixels /= np.float32(255)  # in place: the photos may be most of what there is room for
        return pixels
    if scaling == "native":
        network = _keras_network(_saved(resolve_path(name)).name) if is_model_file(name) else name
        return np.asarray(_preprocess(network)(pixels), dtype="float32") if network else pixels
    raise InputError(f"input_scaling: {scaling!r} is not allowed; use unit or native")


def classifier(feature_shape, n_classes, *, dropout, seed):
    """The paper's classifier (Section IV-A): Flatten, Dense 128, Dropout, Dense 64, Dense n.

    feature_shape: (h, w, channels) of the backbone's output. n_classes: outputs, a softmax.
    dropout: share of units dropped, in [0, 1). The two hidden layers are relu.
    seed: int; the Dense layers' GlorotUniform kernels take seed, seed + 1 and seed + 2, the
    dropout masks seed + 3. Returns a keras.Sequential: (batch, h, w, channels) to (batch, n).
    """
    glorot = keras.initializers.GlorotUniform
    dense = keras.layers.Dense
    return keras.Sequential(
        [
            keras.Input(tuple(feature_shape), name="features"),
            keras.layers.Flatten(name="flatten"),
            dense(128, "relu", kernel_initializer=glorot(seed), name="dense_128"),
            keras.layers.Dropout(dropout, seed=seed + 3, name="dropout"),
            dense(64, "relu", kernel_initializer=glorot(seed + 1), name="dense_64"),
            dense(n_classes, "softmax", kernel_initializer=glorot(seed + 2), name="predictions"),
        ],
        name="classifier",
    )


def weights_digest(backbone):
    """SHA-256 (64 hex digits) of the bytes of all weights, in the order of `get_weights`."""
    digest = hashlib.sha256()
    for array in backbone.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def source_digest(name, backbone):
    """What a row's `weights_sha256` says: `weights_digest`, or the SHA-256 of a ``.keras`` file.

    name: as `load_backbone` takes it. The file's layers decide its results as its weights do.
    """
    if is_model_file(name):
        return hashlib.sha256(resolve_path(name).read_bytes()).hexdigest()
    return weights_digest(backbone)


def file_names(name, alpha=1.0, thin=False):
    """The file names under which `load_backbone` looks for weights in a folder, in order."""
    if thin:
        return (f"thin_{name.lower()}.weights.h5",)
    keras_alpha = KERAS_ALPHA.get(float(alpha), float(alpha))
    names = RECORDS[name].weight_files
    return tuple(f.format(alpha=float(alpha), keras_alpha=keras_alpha) for f in names)


def find_weights(path, name, alpha=1.0, thin=False):
    """The weights file that `path`, a file or a folder, stands for. Raises InputError."""
    path = resolve_path(str(path))
    try:
        return _find_weights(path, name, alpha, thin)
    except OSError as error:  # such as a folder that may not be entered
        raise InputError(
            f"weights: {path} cannot be read ({error.strerror}); allowed: what you may read"
        ) from error


def _find_weights(path, name, alpha, thin):
    if path.is_dir():
        names = file_names(name, alpha, thin)
        found = [path / n for n in names if (path / n).is_file()]
        if not found:
            raise InputError(
                f"weights: no file for {name} in {path}; allowed: {' or '.join(names)}"
            )
        return found[0]
    if not path.is_file():
        raise InputError(
            f"weights: {path} does not exist; allowed: an existing file or folder, or imagenet"
        )
    if path.suffix != ".h5":
        raise InputError(f"weights: {path} must end in .weights.h5 or .h5")
    return path


def _check_name(name):
    if name not in RECORDS and not is_model_file(name):
        raise InputError(
            f"backbone: {name!r} is unknown; allowed: {', '.join(RECORDS)}, "
            "or the path of a .keras file"
        )


def _check(name, image_size, alpha, weights, thin):
    _check_name(name)
    record = RECORDS[name]
    if image_size < record.least_size:
        raise InputError(
            f"image_size: {image_size} is too small for {name}; allowed: {record.least_size} "
            "pixels or more"
        )
    if alpha <= 0 or (alpha != 1 and not record.alpha):
        raise InputError(f"alpha: {name} cannot have {alpha}; 1.0, or > 0 for the MobileNets")
    if thin and not record.thin:
        raise InputError(f"thin: {name} has no thin twin; allowed: thin: false")
    if weights == "embedded" and not thin:
        raise InputError(f"weights: embedded exists for thin twins only, and {name} is not thin")
    if weights == "imagenet" and thin:
        raise InputError(f"weights: no imagenet for the thin {name}; use embedded, none or a file")
    if weights not in ("imagenet", "none", "embedded"):
        check_takes_files(name)


def check_takes_files(name):
    """Refuse weights from a file for a network that has none, see `Backbone.files`."""
    if not RECORDS[name].weight_files:
        raise InputError(
            f"weights: a file cannot be given to {name}, which Keras builds with a layer more for "
            "its ImageNet weights; allowed: imagenet, none, or a .keras file in backbones"
        )


def _preprocess(name):
    """The `preprocess_input` of the module that defines a network of `keras.applications`."""
    return sys.modules[getattr(keras.applications, name).__module__].preprocess_input


def _constructor(name, alpha):
    """The keras.applications function of a backbone as a function of weights and input_shape."""
    options = {"include_top": False} | ({"alpha": alpha} if name in ALPHA_BACKBONES else {})
    build = getattr(keras.applications, name)
    return lambda **more: build(**options, **more)


def _with_imagenet_weights(name, alpha):
    """The backbone with Keras' ImageNet weights, at a size for which they are published."""
    size = RECORDS[name].imagenet_size
    try:
        return _constructor(name, alpha)(weights="imagenet", input_shape=(size, size, 3))
    except Exception as error:  # Keras raises a plain Exception when a download fails
        raise InputError(
            f"weights: imagenet for {name} (alpha {alpha}) could not be had: {first_line(error)}; "
            "without a network, give the path of a file or folder"
        ) from error


def _paddings(original, bare):
    """The padding of each `ZeroPadding2D` of a network at the size of `bare`, by its name.

    Some networks pad as their maps have an even or odd size, so not as at the size that their
    ImageNet weights were made for (Keras' `correct_pad`).
    """
    kind = keras.layers.ZeroPadding2D
    one, other = ([x for x in m.layers if isinstance(x, kind)] for m in (original, bare))
    return {x.name: y.padding for x, y in zip(one, other, strict=True)}


def _rebuild(original, image_size, fraction, bare):
    """Copy a model to another input size and width, with names and first weights that repeat.

    Keras numbers unnamed layers through the whole process ("activation_18"), and draws initial
    weights from a global state; here both depend on the model alone.

    bare: the same network as Keras builds it for the size.
    """
    paddings = _paddings(original, bare)
    unnamed = Counter()

    def clone(operation):
        config = operation.get_config()
        if operation.name in paddings:
            config["padding"] = paddings[operation.name]
        base = re.sub(r"_\d+$", "", operation.name)
        if base.replace("_", "") == type(operation).__name__.lower():  # the name is Keras' own
            unnamed[base] += 1
            config["name"] = f"{base}_{unnamed[base]}"
        if "filters" in config:
            config["filters"] = _thinner(config["filters"], fraction)
        if fraction != 1 and "momentum" in config:
            config["momentum"] = THIN_MOMENTUM
        _seed_initializers(config)
        return type(operation).from_config(config)

    return _clone(original, image_size, clone)


def _clone(model: keras.Model, image_size: int, clone: Callable) -> keras.Model:
    images = keras.Input((image_size, image_size, 3), name="images")
    return keras.models.clone_model(model, input_tensors=images, clone_function=clone)


def _thinner(filters, fraction):
    """Equal widths stay equal, so that residual sums still fit."""
    if fraction == 1:
        return filters
    return max(THIN_MULTIPLE, round(filters * fraction / THIN_MULTIPLE) * THIN_MULTIPLE)


def _seed_initializers(config, outer=""):
    """Give every seedable initialiser of a layer's config a seed made from the layer's name.

    Also those of the layers inside it, as in ConvNeXt's stem.
    """
    name = f"{outer}{config.get('name', '')}"
    for key, value in config.items():
        initial = value.get("config") if isinstance(value, dict) else None
        if key.endswith("_initializer") and initial and "seed" in initial:
            initial["seed"] = zlib.crc32(f"{name}/{key}".encode())
    for inner in config.get("layers", ()):
        _seed_initializers(inner["config"], f"{name}/")


# ------------------------------------------------------------------------------ a .keras file


def _from_file(path: Path, image_size: int) -> keras.Model:
    """The functional model of a ``.keras`` file, for images of this size, as `load_backbone`.

    Raises InputError.
    """
    _check_saved(path)
    try:
        # compile=False: a model's own loss and metrics may be unknown here, and are not used.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if model.input_shape[1:] != (image_size, image_size, 3):
            model = _resized(model, image_size)
    except Exception as error:  # Keras raises whatever the layers of the file do
        reason = first_line(error).split(". ")[0].replace("`", "")
        raise InputError(
            f"backbones: {path} cannot be loaded for images of {image_size} px: {reason}; "
            "allowed: a functional model of Keras' own layers, without code"
        ) from error
    return model


def _resized(model: keras.Model, image_size: int) -> keras.Model:
    """A model of the same layers and weights for other images. Raises ValueError."""
    if model.input_shape[-1] != 3:
        raise ValueError(f"its images have the shape {model.input_shape[1:]}")
    copy = _clone(model, image_size, lambda x: type(x).from_config(x.get_config()))
    copy.set_weights(model.get_weights())
    return copy


@dataclass(frozen=True)
class _Saved:
    """What a ``.keras`` file says of its model, as text.

    Attributes:
        kind: Functional, Sequential or the model's own class.
        layers: name, class, module and registered name of each.
    """

    kind: str
    name: str
    layers: tuple[tuple[str, str, str, str], ...]


_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, RecursionError),
    *(zipfile.BadZipFile, zlib.error),
)


def _saved(path: Path) -> _Saved:
    """Raises InputError where the file is none that Keras wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            model = json.loads(archive.read("config.json"))
        layers = [
            (x["config"]["name"], x["class_name"], x["module"], x["registered_name"])
            for x in model["config"].get("layers", ())
        ]
        texts = tuple(tuple(str(text or "") for text in layer) for layer in layers)
        return _Saved(str(model["class_name"]), str(model["config"]["name"]), texts)
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            f"backbones: {path} cannot be read ({reason}); allowed: a model that Keras 3 saved"
        ) from error


def _check_saved(path: Path) -> None:
    """Refuse a model that cannot be a backbone, before anything of it is made."""
    saved = _saved(path)
    if saved.kind != "Functional":
        raise InputError(f"backbones: {path} is a {saved.kind}; allowed: a functional Keras model")
    for name, kind, module, registered in saved.layers:
        if re.search(r"[;\x00-\x1f]", name):  # a row's layers are joined with ";"
            raise InputError(f"backbones: {path}: layer {name!r}; allowed: a name without ';'")
        known = module.partition(".")[0] == "keras"
        if not known and keras.saving.get_registered_object(registered) is None:
            raise InputError(
                f"backbones: {path}: layer {name!r} is of a class {kind} that Keras does not know; "
                "allowed: Keras' own layers"
            )


def _keras_network(model_name: str) -> str | None:
    """The network of Keras whose own name a model has, such as mobilenet_0.25_224."""
    plain = re.sub("[-_]", "", re.sub(r"_\d\.\d+_\w+$", "", model_name)).lower()
    return next((name for name in RECORDS if name.lower() == plain), None)


# ------------------------------------------------------------------------------- weights files


def _load_file(backbone, name, path, names):
    """Load a weights file, or say in one line why it does not belong to this backbone.

    names: those under which the file would be looked for in a folder.
    """
    try:
        mismatch = _misnamed(path, names) or _first_mismatch(backbone, path)
        if mismatch is None:
            backbone.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        mismatch = first_line(error)
    if mismatch:
        raise InputError(f"weights: {path} does not fit {name}: {mismatch}")


def _misnamed(path, names):
    """Say how to rename a file whose name is Keras 3's and its layout Keras 2's, or the reverse.

    Keras goes by the name alone. None where the two agree, or the layout is neither.
    """
    with h5py.File(path, "r") as file:
        keras_2 = "layer_names" in file.attrs or "model_weights" in file
        keras_3 = "layers" in file and not keras_2
    is_3 = path.name.endswith(".weights.h5")
    if not (keras_2 if is_3 else keras_3):
        return None
    known = [n for n in names if path.name in names and n.endswith(".weights.h5") != is_3]
    stem = path.name.removesuffix(".weights.h5").removesuffix(".h5")
    right = known[0] if known else f"{stem}.h5" if is_3 else f"{stem}.weights.h5"
    return f"it is laid out as by Keras {2 if is_3 else 3}: rename it to {right}"


def _first_mismatch(backbone, path):
    """Compare a Keras 3 weights file with a model; None where they agree.

    Such a file holds one group per layer, named by class and rank, so layers are compared
    class by class. Older .h5 files are left to Keras, whose own check names the layer.
    """
    if not path.name.endswith(".weights.h5"):
        return None
    saved = _saved_layers(path)
    for layer in backbone.layers:
        if not layer.weights:
            continue
        kind = type(layer).__name__.lower()
        expected = [tuple(w.shape) for w in layer.weights]
        if not saved[kind]:
            return f"layer {layer.name} {expected} is not in the file"
        found_name, found = saved[kind].pop(0)
        if found != expected:
            return f"layer {layer.name} has shapes {expected}, the file {found} ({found_name})"
    left = [name for layers in saved.values() for name, _ in layers]
    return f"the file's layer {left[0]} is not in the backbone" if left else None


def _saved_layers(path):
    """Weights in a Keras 3 file: class in lower case -> [(layer name, [shape, ...]), ...]."""
    saved = defaultdict(list)
    with h5py.File(path, "r") as file:
        if "layers" not in file:
            raise ValueError("it holds no layers saved by Keras 3")
        for key in sorted(file["layers"], key=_class_and_rank):
            variables = file["layers"][key].get("vars", {})
            shapes = [variables[i].shape for i in sorted(variables, key=int)]
            if shapes:
                kind = _class_and_rank(key)[0]
                saved[kind].append((variables.attrs.get("name", key), shapes))
    return saved


def _class_and_rank(key):
    """'batch_normalization_10' -> ('batchnormalization', 10); no number is rank 0."""
    base, rank = re.fullmatch(r"(.+?)(?:_(\d+))?", key).groups()
    return base.replace("_", ""), int(rank or 0)
