"""The settings of notebook 9: your own photos, or a few drawn ones on a thin network."""

from pathlib import Path
from typing import Any

from PIL import Image

from ..cells import parameters_set
from ..params import ROOT, InputError
from ..photos.drawn import CLASS_NAMES, procedural_flowers
from .settings import RULES, Settings, load_settings

# Seconds instead of minutes: the network with the fewest layers, pre-trained on drawn pictures.
DEMO = {
    "backbone": "VGG16",
    "thin": True,
    "weights": "embedded",
    "image_size": 32,
    "candidates": ["layers", "blocks"],
    "epochs": 6,
    "halvings": [2],
    "folds": 2,
    "learning_rate": 2.0e-3,
}
KEPT = ("out", "strategy", "seed", "layers")  # what a notebook may choose for drawn photos, too
DRAWN, SIZE = 150, 48  # photos and their size in pixels


def from_notebook(namespace: dict[str, Any]) -> Settings:
    """The settings that a notebook's ``globals()`` hold.

    Without a ``dir``, drawn flowers and a thin network, whatever network is named.

    Raises InputError as `load_settings`.
    """
    try:
        values = parameters_set(namespace, RULES)
    except ValueError as error:
        raise InputError(f"notebook: {error}") from error
    given = {n: v for n, v in values.items() if v is not None and not isinstance(v, Settings)}
    if "dir" in given:
        return load_settings(given)
    chosen = {name: given[name] for name in KEPT if name in given}
    return load_settings({"dir": str(drawn_photos()), **DEMO, **chosen})


def drawn_photos(
    folder: Path = ROOT / "build" / "drawn_photos", number: int = DRAWN, size: int = SIZE
) -> Path:
    """A folder of drawn flowers, one sub-folder a class; made where it is not there."""
    images, labels = procedural_flowers(number, size, seed=1)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / CLASS_NAMES[label] / f"{i:04}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return folder
