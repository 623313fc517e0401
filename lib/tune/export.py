"""The tuned network as files: model.keras with its class names, and other formats, tried out.

Keras is imported inside functions: the settings name formats without it.
"""

import importlib.util
import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import first_line
from ..params import InputError
from ..photos.folder import Depth
from ..quiet import silence
from ..whole import whole, write_whole, writing

if TYPE_CHECKING:
    import keras

CLOSE = 0.01  # what other arithmetic may change in a probability
RESIZE = "resize"  # name of the layer that resizes photos
CLASSES = "classes.json"  # inside model.keras, which Keras leaves alone, and beside it
DEPTH = "depth.json"  # inside model.keras: what black to white is in files of 16 bits


@dataclass(frozen=True)
class Export:
    """One file or folder of the network.

    Attributes:
        path: its name in the folder of the model.
        missing: why it was not written; empty where it was.
    """

    path: str
    missing: str = ""


def save(
    model: "keras.Model", names: Sequence[str], path: Path, depth: Depth | None = None
) -> None:
    """Write a model and its class names, whole or not at all.

    depth: of the photos that it was trained on; None where none had 16 bits.

    Raises InputError where they cannot be written.
    """
    text = json.dumps(list(names), ensure_ascii=False)
    with writing(path), whole(path) as draft:
        model.save(draft)
        with zipfile.ZipFile(draft, "a") as file:
            file.writestr(CLASSES, text)
            if depth and depth.largest:
                file.writestr(DEPTH, json.dumps(asdict(depth)))
    write_whole(path.with_name(CLASSES), text)


def load(path: Path) -> tuple["keras.Model", list[str]]:
    """What `save` wrote. Raises InputError for a file that is no such model."""
    import keras

    try:
        with zipfile.ZipFile(path) as file:
            names = json.loads(file.read(CLASSES)) if CLASSES in file.namelist() else None
        model = keras.models.load_model(path)
        _check_ours(model, names)
    except Exception as error:  # Keras raises whatever the layers of the file do
        reason = getattr(error, "strerror", None) or first_line(error).split(". ")[0]
        reason = reason.replace("`", "")
        raise InputError(
            f"model: {path} cannot be read ({reason}); allowed: a model.keras of make photos"
        ) from error
    return model, names


def load_depth(path: Path) -> Depth | None:
    """The depth that `save` wrote into a model that `load` takes."""
    with zipfile.ZipFile(path) as file:
        return Depth(**json.loads(file.read(DEPTH))) if DEPTH in file.namelist() else None


def _check_ours(model: "keras.Model", names: Any) -> None:
    """Raise ValueError unless a model and its class names are as `save` writes them."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("it holds no names of classes")
    if RESIZE not in {layer.name for layer in model.layers}:
        raise ValueError("it does not take photos of any size")
    if model.output_shape != (None, len(names)):
        raise ValueError(f"it has {len(names)} names for outputs of shape {model.output_shape}")


def clear(folder: Path) -> None:
    """Remove the exports of an earlier network."""
    for form in FORMATS.values():
        _remove(folder / form.path)


def export(model: "keras.Model", folder: Path, kinds: Sequence[str], images: np.ndarray,
           probabilities: np.ndarray) -> list[Export]:  # fmt: skip
    """Write a model in other formats, load each again, and compare what it gives.

    Args:
        kinds: of `FORMATS`.
        images: uint8 ``(N, size, size, 3)``; probabilities: what the network makes of them, float32
            ``(N, classes)``.

    One that gives other classes or probabilities is removed again.
    """
    clear(folder)
    done = []
    for kind in kinds:
        form = FORMATS[kind]
        missing = [p for p in form.needs if importlib.util.find_spec(p) is None]
        if missing:
            done.append(Export(form.path, missing=f"needs {' and '.join(missing)}"))
            continue
        done.append(_written(form, model, folder, images, probabilities))
    return done


def _written(
    form: "Format",
    model: "keras.Model",
    folder: Path,
    images: np.ndarray,
    probabilities: np.ndarray,
) -> Export:
    path = folder / form.path
    try:
        with silence():
            form.write(model, path, images.shape[1:])
            found = form.read(path, images)
    except Exception as error:  # each converter has errors of its own
        _remove(path)
        return Export(form.path, missing=first_line(error))
    gap = float(np.abs(found - probabilities).max())
    other = int((found.argmax(axis=1) != probabilities.argmax(axis=1)).sum())
    if gap < CLOSE and not other:  # a gap that is no number is not below anything
        return Export(form.path)
    _remove(path)
    return Export(form.path, missing=f"it gave {other} of {len(images)} test photos another class "
                  f"than the network, and probabilities that are off by {gap:.2g}")  # fmt: skip


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        needs: packages that must be installed.
        write: writes a model to a path, for photos of one shape where it cannot take any.
        read: loads the path again and returns the probabilities of photos, ``(N, classes)``.
    """

    path: str
    needs: tuple[str, ...]
    write: Callable[["keras.Model", Path, tuple[int, ...]], None]
    read: Callable[[Path, np.ndarray], np.ndarray]


def _write_saved_model(model: "keras.Model", path: Path, shape: tuple[int, ...]) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def _read_saved_model(path: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))  # its variables live as long as it does
    return np.concatenate([loaded.serve(x[None].astype("float32")).numpy() for x in images])


def _of_one_shape(model: "keras.Model", shape: tuple[int, ...]) -> "keras.Model":
    """The model without its resizing, which not every format knows, for photos of one shape."""
    import keras

    photos = keras.Input(shape, batch_size=1, name="photos")
    x = photos
    for layer in model.layers[model.layers.index(model.get_layer(RESIZE)) + 1 :]:
        x = layer(x)
    return keras.Model(photos, x)


def _write_onnx(model: "keras.Model", path: Path, shape: tuple[int, ...]) -> None:
    _of_one_shape(model, shape).export(path, format="onnx", verbose=False)


def _read_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[None].astype("float32")})[0] for x in images])


def _write_litert(model: "keras.Model", path: Path, shape: tuple[int, ...]) -> None:
    _of_one_shape(model, shape).export(path, format="litert", verbose=False)


def _read_litert(path: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    with warnings.catch_warnings(action="ignore"):  # a package of its own will have it
        reader = tf.lite.Interpreter(str(path))
    reader.allocate_tensors()
    (given,), (made,) = reader.get_input_details(), reader.get_output_details()
    found = []
    for image in images:
        reader.set_tensor(given["index"], image[None].astype("float32"))
        reader.invoke()
        found.append(reader.get_tensor(made["index"])[0])
    return np.array(found)


FORMATS = {
    "saved_model": Format("saved_model", ("tensorflow",), _write_saved_model, _read_saved_model),
    "onnx": Format("model.onnx", ("onnx", "tf2onnx", "onnxruntime"), _write_onnx, _read_onnx),
    "litert": Format("model.tflite", ("tensorflow",), _write_litert, _read_litert),
}
