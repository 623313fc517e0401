"""Made-up rows of a ledger, shaped like a real sweep, for the tests of tables and figures."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lib.ledger import COLUMNS, append_row, pack_hits
from lib.params import Params

# Layers with weights, blocks between layers without, and all layers, as in Keras.
SHAPES = {
    "VGG16": (13, 5, 19),
    "MobileNet": (54, 27, 86),
    "MobileNetV2": (104, 35, 154),
    "MobileNetV3Small": (86, 48, 157),
    "ResNet50V2": (102, 51, 190),
}
LEVEL = {
    "VGG16": 0.66,
    "MobileNet": 0.74,
    "MobileNetV2": 0.72,
    "MobileNetV3Small": 0.36,
    "ResNet50V2": 0.70,
}
# What tuning adds to Baseline I: in the search, and in the final runs.
GAINS = {
    "baseline_1": (0.0, 0.04),
    "baseline_2": (0.10, 0.15),
    "random": (0.05, 0.09),
    "layer_wise": (0.06, 0.11),
    "block_wise": (0.09, 0.16),
    "top_3": (0.08, 0.14),
    "top_5": (0.10, 0.15),
    "sliding_window": (0.09, 0.15),
}
BACKBONES = tuple(SHAPES)
METHODS = tuple(GAINS)


def rewrite(path: Path, rows: Iterable[dict]) -> None:
    """Give a ledger other rows."""
    path.unlink()
    for one in rows:
        append_row(path, one)


def row(**changes) -> dict:
    """One valid row; `changes` replace its values."""
    values = {
        "key": "0123456789abcdef",
        "profile": "quick",
        "method": "block_wise",
        "backbone": "VGG16",
        "alpha": "1.0",
        "image_size": 32,
        "weights_sha256": "ab" * 32,
        "data_sha256": "cd" * 8,
        "input_scaling": "unit",
        "block": "block_01",
        "layers": "block1_conv1;block1_conv2",
        "n_trainable": 12345,
        "split": Params.search_split,
        "eval_split": Params.eval_split,
        "train_images": 100,
        "eval_images": 300,
        "seed": 0,
        "order_seed": 0,
        "repeat": 0,
        "batch_size": 4,
        "epochs": 8,
        "learning_rate": 5.0e-5,
        "dropout": 0.5,
        "plateau": "0.1, 10, 0.0001",
        "val_accuracy": 0.5,
        "val_loss": 1.25,
        "best_val_accuracy": 0.5,
        "train_accuracy": 0.75,
        "seconds": 1.5,
        "lanes": 8,
        "backend": "tensorflow",
        "versions": "keras 3.15.1; numpy 2.4",
        "git_sha": "0" * 40,
        "finished_at": "2025-01-01T00:00:00+00:00",
        "failed": "",
        "curve": "90;150;150;150;150;150;150;150",
        "hits": pack_hits(np.arange(300) % 2 == 0),
    }
    assert set(changes) <= set(values) == set(COLUMNS)
    return values | changes


def layer_names(backbone: str) -> list[str]:
    """Names that do not sort into the backbone's order, as in real networks."""
    count = SHAPES[backbone][0]
    return [f"{'conv' if i % 2 else 'bn'}_{(i * 7919) % 997}_{i}" for i in range(1, count + 1)]


def blocks_of(method: str, backbone: str) -> Iterator[tuple[str, list[str]]]:
    """The partition of a method: (block name, layer names)."""
    names = layer_names(backbone)
    _, n_blocks, n_all = SHAPES[backbone]
    if method == "layer_wise":
        yield from ((name, [name]) for name in names)
    elif method == "block_wise":
        for number, part in enumerate(np.array_split(names, n_blocks), start=1):
            yield f"block_{number:02d}", part.tolist()
    elif method == "sliding_window":
        for number in range(1, n_all - 1):
            first = (number - 1) * len(names) // n_all
            yield f"window_{number:03d}", names[first : first + 2]
    else:
        tuned = {"baseline_1": [], "baseline_2": names}.get(method, names[-3:])
        yield ("random_3" if method == "random" else method), tuned


def _hits(accuracy: float, images: int, rng: np.random.Generator) -> str:
    """So many right images, drawn at random."""
    return pack_hits(rng.permutation(images) < round(accuracy * images))


def _accuracy(value: float, images: int) -> float:
    return min(max(round(value * images), 0), images) / images


def _search(method: str, backbone: str, rng: np.random.Generator) -> Iterator[dict]:
    blocks = list(blocks_of(method, backbone))
    for place, (block, layers) in enumerate(blocks):
        gain = GAINS[method][0]
        if len(blocks) > 1:  # layers near the middle help most, and few help much
            bump = np.exp(-(((place / len(blocks) - 0.55) / 0.2) ** 2))
            gain = gain * 1.3 * bump - abs(rng.normal(0, 0.05)) * rng.integers(0, 3)
        accuracy = _accuracy(LEVEL[backbone] + gain, 300)
        yield row(
            key=f"{method}-{backbone}-{block}-search",
            method=method,
            backbone=backbone,
            block=block,
            layers=";".join(layers),
            val_accuracy=accuracy,
            best_val_accuracy=min(1.0, accuracy + 1 / 300),
            hits=_hits(accuracy, 300, rng),
        )


def _final(winner: dict, repeat: int, rng: np.random.Generator) -> dict:
    method, backbone = winner["method"], winner["backbone"]
    accuracy = _accuracy(LEVEL[backbone] + GAINS[method][1] + rng.normal(0, 0.012), 300)
    return row(
        key=f"{method}-{backbone}-{repeat}-final",
        method=method,
        backbone=backbone,
        block=winner["block"],
        layers=winner["layers"],
        split=Params.final_split,
        train_images=700,
        repeat=repeat,
        seed=repeat,
        val_accuracy=accuracy,
        best_val_accuracy=accuracy,
        hits=_hits(accuracy, 300, rng),
    )


def make_rows(
    backbones: Sequence[str] = BACKBONES,
    methods: Sequence[str] = METHODS,
    repeats: int = 4,
    seed: int = 0,
) -> pd.DataFrame:
    """The search and final rows of a whole sweep, the same for the same arguments."""
    rng = np.random.default_rng(seed)
    rows = []
    for backbone in backbones:
        for method in methods:
            searched = list(_search(method, backbone, rng))
            winner = max(searched, key=lambda run: run["val_accuracy"])  # the first of equals
            rows += searched + [_final(winner, repeat, rng) for repeat in range(repeats)]
    return pd.DataFrame(rows, columns=list(COLUMNS))
