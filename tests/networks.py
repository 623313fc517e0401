"""Both engines on networks outside the paper, and over whole runs: docs/other-networks.md.

``python tests/networks.py`` measures everything, one network at a time, ``python tests/networks.py
EfficientNetB0 ...`` some of it; either writes results/networks.csv or results/rounding.csv and the
page anew. ``page`` alone rewrites the page from these files.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from against_keras import (
    Alone,
    Arrays,
    distances,
    fused,
    known,
    lane_arrays,
    moved,
    read_arrays,
    train_alone,
    train_fused_epochs,
    worst,
)

from lib.backbones.build import classifier, load_backbone, scale_inputs
from lib.backbones.pure import prepare_backbone
from lib.backbones.records import BACKBONE_NAMES
from lib.params import ROOT, InputError, Params, load_params
from lib.partition import Block, baseline_2, block_wise, weighted_layers
from lib.photos.drawn import procedural_flowers
from lib.report.tables import markdown
from lib.train import Task, fit_plain, train_fused

PAGE = ROOT / "docs" / "other-networks.md"
NETWORKS, ROUNDING = ROOT / "results" / "networks.csv", ROOT / "results" / "rounding.csv"
SIZES = {  # pixels: 64, or the least that the network takes
    "MobileNetV3Large": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "ConvNeXtTiny": 64,
    "ResNet50": 64,
    "Xception": 71,
    "DenseNet121": 64,
    "InceptionV3": 75,
    "NASNetMobile": 64,
}
ENGINES = ("fused", "plain", "plain_further")  # what is compared with plain, see `moves`
KINDS = ("a layer", "a norm", "a block", "everything")
TRAIN, EVAL, CLASSES = 12, 4, 3


def measure(name: str) -> pd.DataFrame:
    """One row for each kind of block of a network; a single one if the engine refuses it."""
    keras.utils.set_random_seed(0)
    size = SIZES[name]
    build = getattr(keras.applications, name)
    backbone = build(include_top=False, weights=None, input_shape=(size, size, 3))
    row = {"network": name, "pixels": size, "layers": len(backbone.layers)}
    try:
        prepare_backbone(backbone)
    except InputError as error:
        return pd.DataFrame([row | {"refused": str(error)}])
    task = flowers(backbone, size)
    randomise(backbone, task.train_images)
    blocks = blocks_of(backbone)
    rates, seeds = np.full((len(blocks), 1), task.params.learning_rate), [*range(len(blocks))]
    alone = [
        [train_alone(backbone, block, seed, [*rates[0]], t) for t in moves(task)]
        for block, seed in zip(blocks.values(), seeds, strict=True)
    ]
    (ends,) = train_fused_epochs(fused(backbone, [*blocks.values()], seeds, task), rates, task)
    return pd.DataFrame(
        row | {"what": what, "tuned": len(block.layers)} | compared(end, *runs)
        for (what, block), end, runs in zip(blocks.items(), ends, alone, strict=True)
    )


def moves(task: Task) -> tuple[Task, Task, Task]:
    """The task as it is, and with inputs moved by a float's rounding, and by ten times that.

    The second is what the rounding of many layers one after the other comes to.
    """
    return task, moved(task), moved(task, 1e-6)


def compared(end: Arrays, run: Alone, again: Alone, further: Alone) -> dict[str, float]:
    """The largest distance of an array, fused from plain and plain from plain, see `moves`."""
    mask = known(run, again)
    share = sum(m.sum() for m in mask.values()) / sum(m.size for m in mask.values())
    ends = {"fused": end, "plain": again.ends[-1], "plain_further": further.ends[-1]}
    off = {name: worst(distances(x, run, mask))[0] for name, x in ends.items()}
    return {"known": round(float(share), 3)} | off


def flowers(backbone: keras.Model, size: int) -> Task:
    """Three batches of four; pixels as they are where the network rescales them, else -1 to 1."""
    images, labels = procedural_flowers(TRAIN + EVAL, size)
    rescales = any(isinstance(x, keras.layers.Rescaling) for x in backbone.layers)
    images = images.astype("float32") if rescales else scale_inputs(images, "MobileNet", "native")
    targets = np.eye(CLASSES, dtype="float32")[labels % CLASSES]
    params = Params("test", learning_rate=2e-4, dropout=0.5)
    return Task(images[:TRAIN], targets[:TRAIN], images[TRAIN:], targets[TRAIN:], 1, params)


def randomise(backbone: keras.Model, images: np.ndarray) -> None:
    """Random scales and shifts too, and the statistics that BatchNorms have on these images.

    As Keras builds it, a ConvNeXt scales its blocks by 1e-6, and every shift is zero: gradients
    would be zero or lost in rounding.
    """
    rng = np.random.default_rng(0)
    for v in backbone.trainable_variables:
        x = keras.ops.convert_to_numpy(v)
        if x.size > 1 and (x == x.flat[0]).all():
            v.assign(rng.uniform(0.5, 1.5, x.shape) if x.flat[0] else rng.normal(0, 0.1, x.shape))
    norms = [x for x in backbone.layers if isinstance(x, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    backbone(images, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def blocks_of(backbone: keras.Model) -> dict[str, Block]:
    """The convolution and the norm in the middle of the network, the block there, everything."""
    layers = [backbone.get_layer(name) for name in weighted_layers(backbone)]
    convolutions = [x.name for x in layers if "Conv" in type(x).__name__]
    norms = [x.name for x in layers if "Normalization" in type(x).__name__]
    blocks = block_wise(backbone)
    middle = [Block("middle", (names[len(names) // 2],)) for names in (convolutions, norms)]
    chosen = (*middle, blocks[len(blocks) // 2], *baseline_2(backbone))
    return dict(zip(KINDS, chosen, strict=True))


def measure_rounding(name: str) -> pd.DataFrame:
    """A search's whole run of a thin twin, `quick`'s settings: a block, and everything.

    Rows: largest difference of a probability, and distance of all tuned weights together, fused
    from plain, and plain from plain with moved inputs, see `moves`.
    """
    backbone, params = (
        load_backbone(name, image_size=32, weights="embedded", thin=True),
        load_params("quick"),
    )
    images, labels = procedural_flowers(160, 32)
    images, targets = scale_inputs(images, name, "unit"), np.eye(5, dtype="float32")[labels]
    parts = images[:100], targets[:100], images[100:], targets[100:]
    task = Task(*parts, params.epochs, params)
    blocks = block_wise(backbone)
    blocks = {"a block": blocks[len(blocks) // 2], "everything": baseline_2(backbone)[0]}
    steps = fused(backbone, [*blocks.values()], [0, 0], task)
    histories, ends = train_fused(steps, task), lane_arrays(steps)
    rows = []
    for (what, block), history, end in zip(blocks.items(), histories, ends, strict=True):
        start, there, run = whole_run(backbone, block, task)
        row = {"network": name, "what": what, "steps": params.epochs * 10}
        runs = {"fused": (end, history)}
        for engine, share in (("plain", 1e-7), ("plain_further", 1e-6)):
            runs[engine] = whole_run(backbone, block, moved(task, share))[1:]
        for engine, (arrays, h) in runs.items():
            row[f"{engine}_prediction"] = float(np.abs(h.probabilities - run.probabilities).max())
            row[f"{engine}_weights"] = together(arrays, start, there)
            row[f"{engine}_classes"] = int(
                (h.probabilities.argmax(1) != run.probabilities.argmax(1)).sum()
            )
        rows.append(row)
    return pd.DataFrame(rows)


def whole_run(backbone: keras.Model, block: Block, task: Task):
    """Tuned arrays before and after `fit_plain`, and its history; the backbone as it was."""
    initial = backbone.get_weights()
    prepare_backbone(backbone)
    head = classifier(backbone.output.shape[1:], task.n_classes, dropout=0, seed=0)
    start = read_arrays(backbone, block, head)
    model, history = fit_plain(backbone, block, 0, task)
    end = read_arrays(backbone, block, model.layers[-1])
    prepare_backbone(backbone)
    backbone.set_weights(initial)
    return start, end, history


def together(end: Arrays, start: Arrays, there: Arrays) -> float:
    """Distance of all arrays as one vector, relative to how far it moved."""
    off = sum(np.square(end[name] - there[name]).sum() for name in there)
    far = sum(np.square(there[name] - start[name]).sum() for name in there)
    return float(np.sqrt(off / far))


def keep(rows: pd.DataFrame, path: Path) -> None:
    """Write rows in the place of earlier ones of the same network."""
    if path.exists():
        old = pd.read_csv(path)
        rows = pd.concat([old[~old["network"].isin(rows["network"])], rows], ignore_index=True)
    order = [*SIZES, *BACKBONE_NAMES]
    rows = rows.sort_values("network", key=lambda x: x.map(order.index), kind="stable")
    rows.to_csv(path, index=False, lineterminator="\n", float_format="%.2g")


def page(networks: pd.DataFrame, rounding: pd.DataFrame) -> str:
    """The text of docs/other-networks.md."""
    return "\n".join(
        [
            "# Is the engine right, also on other networks?",
            "",
            "Not edited by hand: measured and made by",
            "",
            "```",
            "PYTHONPATH=tests .venv/bin/python tests/networks.py       # minutes a network",
            "PYTHONPATH=tests .venv/bin/python tests/networks.py page  # from these rows",
            "```",
            "",
            "which keeps its rows in `results/networks.csv` and `results/rounding.csv`. For the"
            " paper's five networks `tests/test_fusion.py` compares the same way: three of them at"
            " every `make test`, all of them at `make test-all`.",
            "",
            "## Networks outside the paper",
            "",
            network_table(networks),
            "## Over a whole run",
            "",
            "Training amplifies rounding, in plain Keras as in the engine: a weight that differs"
            " in its last digit changes the next gradient, and Adam turns a gradient near zero"
            " into a whole step in one direction or the other. So after a few steps both engines"
            " agree to a small part of how far the weights moved, and after a whole run only as"
            " far as plain training agrees with itself.",
            "",
            rounding_table(rounding),
        ]
    )


def network_table(rows: pd.DataFrame) -> str:
    """One line a network: for each kind of block, fused from plain / plain from plain twice."""
    header = ["", "pixels", "layers", *KINDS]
    note = (
        "Random weights, three steps of Adam at 2e-4 on batches of four drawn flowers, dropout in"
        " the classifier. Each cell: the largest distance of an array, weights or statistics,"
        " relative to how far it moved, *fused from plain Keras* / *plain Keras from itself with"
        " inputs moved by one part in 10^7* / *in 10^6*. An array that an engine does not train is"
        " off by 1."
        " Compared are elements whose first gradient is a hundred times what moving the inputs"
        f" changes in it: {_least(rows)} A layer: the convolution in the middle; a norm: the"
        " BatchNorm (ConvNeXt: LayerNorm) in the middle; a block: the one in the middle;"
        " everything: Baseline II."
    )
    return markdown(header, [_network_line(*x) for x in rows.groupby("network", sort=False)], note)


def _least(rows: pd.DataFrame) -> str:
    least = rows.groupby("what")["known"].min()
    some = min(value for what, value in least.items() if what != "everything")
    return f"at least {some:.0%} of them, with everything tuned {least['everything']:.0%}."


def _network_line(name: str, rows: pd.DataFrame) -> list[str]:
    first = rows.iloc[0]
    start = [name, str(first["pixels"]), str(first["layers"])]
    if "refused" in rows and isinstance(first["refused"], str):
        return [*start, f"refused: {first['refused']}", "", "", ""]
    cells = {
        row["what"]: " / ".join(f"{x:.0e}" for x in row[[*ENGINES]]) for _, row in rows.iterrows()
    }
    return [*start, *(cells.get(kind, "") for kind in KINDS)]


def rounding_table(rows: pd.DataFrame) -> str:
    """One line a network and block."""
    header = ["", " ", "weights", "a probability", "other class"]
    note = (
        f"Thin networks, {rows['steps'].iloc[0]} steps at the settings of `quick` (forty times the"
        " paper's rate); *fused from plain* / *plain from plain with inputs moved by one part in"
        " 10^7* / *in 10^6*: all tuned weights together, relative to how far they moved; the"
        " largest difference of a probability; how many of 60 photos get another class."
    )
    lines = [
        [row["network"], row["what"], *(_pair(row, of) for of in ("weights", "prediction")),
         " / ".join(str(row[f"{engine}_classes"]) for engine in ENGINES)]
        for _, row in rows.iterrows()
    ]  # fmt: skip
    return markdown(header, lines, note)


def _pair(row: pd.Series, of: str) -> str:
    return " / ".join(f"{row[f'{engine}_{of}']:.2g}" for engine in ENGINES)


def write_page() -> None:
    text = page(pd.read_csv(NETWORKS), pd.read_csv(ROUNDING))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or [*SIZES, *BACKBONE_NAMES]:
        if name in SIZES:
            keep(measure(name), NETWORKS)
        elif name in BACKBONE_NAMES:
            keep(measure_rounding(name), ROUNDING)
        elif name != "page":
            sys.exit(f"{name} is unknown; allowed: page, {', '.join([*SIZES, *BACKBONE_NAMES])}")
        keras.utils.clear_session()
        print(name, flush=True)
    if NETWORKS.exists() and ROUNDING.exists():
        write_page()
