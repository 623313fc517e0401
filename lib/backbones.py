"""The five backbones of the paper, their thin twins, weights, input scaling and classifier.

A *thin twin* has the same layers under the same names as its backbone and a fraction of the
channels, so that every method of the paper can be run on a small machine.
"""

import hashlib
import re
import zlib
from collections import Counter, defaultdict

import h5py
import keras
import numpy as np

from .params import ALPHA_BACKBONES, BACKBONE_NAMES, ROOT, InputError, resolve_path

BACKBONES = BACKBONE_NAMES  # the order of the paper's Table I
EMBEDDED = ROOT / "lib" / "weights"

# Share of the channels that a thin twin keeps: 0.05 to 0.4 million weights each.
THIN_FRACTION = {
    "VGG16": 3 / 32,
    "MobileNet": 7 / 32,
    "MobileNetV2": 1 / 4,
    "MobileNetV3Small": 3 / 8,
    "ResNet50V2": 1 / 12,
}
# Keras' MobileNets remember BatchNorm statistics over 1000 steps (momentum 0.999), longer than a
# whole run of the `quick` profile; a thin twin's statistics follow its weights.
THIN_MOMENTUM = 0.9
THIN_MULTIPLE = 8  # a thin layer's channels are a multiple of this, and at least this

# Files looked for in a folder of weights, in this order: the plain name, then the name under
# which Keras caches its own download (in ~/.keras/models). {alpha} is 1.0, 0.25, ...
FILE_NAMES = {
    "VGG16": (
        "vgg16_notop.weights.h5",
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "MobileNet": (
        "mobilenet_{alpha}_224_notop.weights.h5",
        "mobilenet_{keras_alpha}_224_tf_no_top.h5",
    ),
    "MobileNetV2": (
        "mobilenet_v2_{alpha}_224_notop.weights.h5",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224_no_top.h5",
    ),
    "MobileNetV3Small": (
        "mobilenet_v3_small_{alpha}_224_notop.weights.h5",
        "weights_mobilenet_v3_small_224_{alpha}_float_no_top_v2.h5",
    ),
    "ResNet50V2": (
        "resnet50v2_notop.weights.h5",
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
}
# How Keras spells alpha in the names of its MobileNet files.
KERAS_ALPHA = {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}


def load_backbone(name, *, image_size, alpha=1.0, weights="imagenet", thin=False):
    """Build a backbone without its top and give it its weights.

    name: one of BACKBONES. image_size: height and width of the input in pixels, at least 32.
    alpha: width multiplier (> 0) of the MobileNets; the other two take only 1.0.
    weights: "imagenet" (downloaded by Keras for 224 x 224, used at any size), "none" (random,
    the same values in every call), "embedded" (thin twins only: the files of lib/weights),
    or the path of a .weights.h5 or .h5 file, or of a folder that holds it under one of the
    names of `file_names`. A relative path starts at the project's root.
    thin: build the thin twin.

    Returns a functional keras.Model: (batch, image_size, image_size, 3) float32 to a feature
    map (batch, h, w, channels), all layers trainable. Layer names are the same in every call.
    MobileNetV3Small keeps Keras' inner rescaling, which expects pixels 0 to 255: fed with the
    paper's [0, 1] inputs it sees nearly blank images.
    Raises InputError.
    """
    _check(name, image_size, alpha, weights, thin)
    if weights == "imagenet":
        original = _with_imagenet_weights(name, alpha)
    else:
        original = _constructor(name, alpha)(weights=None, input_shape=(image_size, image_size, 3))
    backbone = _rebuild(original, image_size, THIN_FRACTION[name] if thin else 1)
    if weights == "imagenet":
        backbone.set_weights(original.get_weights())
    elif weights != "none":
        folder = EMBEDDED if weights == "embedded" else weights
        path = find_weights(folder, name, alpha, thin)
        _load_file(backbone, name, path, file_names(name, alpha, thin))
    return backbone


def scale_inputs(images_uint8, name, scaling):
    """Turn photos into a backbone's inputs.

    images_uint8: (n, h, w, 3) uint8. name: one of BACKBONES.
    scaling: "unit", the paper's [0, 1] (Section IV-A), or "native", what the backbone was
    pre-trained with: centred BGR for VGG16, 0 to 255 for MobileNetV3Small, [-1, 1] for the rest.
    Returns (n, h, w, 3) float32. Raises InputError for another scaling or backbone.
    """
    _check_name(name)
    pixels = np.array(images_uint8, dtype="float32")
    if scaling == "unit":
        return pixels / np.float32(255)
    if scaling == "native":
        return np.asarray(_PREPROCESS[name](pixels), dtype="float32")
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


def file_names(name, alpha=1.0, thin=False):
    """The file names under which `load_backbone` looks for weights in a folder, in order."""
    if thin:
        return (f"thin_{name.lower()}.weights.h5",)
    keras_alpha = KERAS_ALPHA.get(float(alpha), float(alpha))
    return tuple(f.format(alpha=float(alpha), keras_alpha=keras_alpha) for f in FILE_NAMES[name])


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
        raise InputError(f"weights: {path} does not exist; give imagenet, none, a file or a folder")
    if path.suffix != ".h5":
        raise InputError(f"weights: {path} must end in .weights.h5 or .h5")
    return path


_PREPROCESS = {
    "VGG16": keras.applications.vgg16.preprocess_input,
    "MobileNet": keras.applications.mobilenet.preprocess_input,
    "MobileNetV2": keras.applications.mobilenet_v2.preprocess_input,
    "MobileNetV3Small": keras.applications.mobilenet_v3.preprocess_input,
    "ResNet50V2": keras.applications.resnet_v2.preprocess_input,
}


def _check_name(name):
    if name not in BACKBONES:
        raise InputError(f"backbone: {name!r} is unknown; allowed: {', '.join(BACKBONES)}")


def _check(name, image_size, alpha, weights, thin):
    _check_name(name)
    if image_size < 32:
        raise InputError(f"image_size: {image_size} is too small; 32 pixels or more are needed")
    if alpha <= 0 or (alpha != 1 and name not in ALPHA_BACKBONES):
        raise InputError(f"alpha: {name} cannot have {alpha}; 1.0, or > 0 for the MobileNets")
    if weights == "embedded" and not thin:
        raise InputError(f"weights: embedded exists for thin twins only, and {name} is not thin")
    if weights == "imagenet" and thin:
        raise InputError(f"weights: no imagenet for the thin {name}; use embedded, none or a file")


def _constructor(name, alpha):
    """The keras.applications function of a backbone as a function of weights and input_shape."""
    options = {"include_top": False}
    if name in ALPHA_BACKBONES:
        options["alpha"] = alpha
    if name == "MobileNetV3Small":
        options["include_preprocessing"] = True
    build = getattr(keras.applications, name)
    return lambda **more: build(**options, **more)


def _with_imagenet_weights(name, alpha):
    """The backbone with Keras' ImageNet weights, at 224, the size they are published for."""
    try:
        return _constructor(name, alpha)(weights="imagenet", input_shape=(224, 224, 3))
    except Exception as error:  # Keras raises a plain Exception when a download fails
        raise InputError(
            f"weights: imagenet for {name} (alpha {alpha}) could not be had: {_one_line(error)}; "
            "without a network, give the path of a file or folder"
        ) from error


def _rebuild(original, image_size, fraction):
    """Copy a model to another input size and width, with names and first weights that repeat.

    Keras numbers unnamed layers through the whole process ("activation_18"), and draws initial
    weights from a global state; here both depend on the model alone.
    """
    unnamed = Counter()

    def clone(operation):
        config = operation.get_config()
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

    images = keras.Input((image_size, image_size, 3), name="images")
    return keras.models.clone_model(original, input_tensors=images, clone_function=clone)


def _thinner(filters, fraction):
    """Equal widths stay equal, so that residual sums still fit."""
    if fraction == 1:
        return filters
    return max(THIN_MULTIPLE, round(filters * fraction / THIN_MULTIPLE) * THIN_MULTIPLE)


def _seed_initializers(config):
    """Give every seedable initialiser of a layer's config a seed made from the layer's name."""
    for key, value in config.items():
        if key.endswith("_initializer") and "seed" in value["config"]:
            value["config"]["seed"] = zlib.crc32(f"{config['name']}/{key}".encode())


def _load_file(backbone, name, path, names):
    """Load a weights file, or say in one line why it does not belong to this backbone.

    names: those under which the file would be looked for in a folder.
    """
    try:
        mismatch = _misnamed(path, names) or _first_mismatch(backbone, path)
        if mismatch is None:
            backbone.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        mismatch = _one_line(error)
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


def _one_line(error):
    """The first line of an error's text, shortened to fit on one line."""
    text = (str(error) or type(error).__name__).strip().splitlines()[0]
    return text if len(text) <= 200 else text[:197] + "..."
