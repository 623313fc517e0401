"""The paper's methods as pure functions: a backbone in, a list of named blocks out (Figure 1).

A block names the backbone layers that are tuned together with the classifier. Only layers with
weights that training moves can be tuned, so only they are named, always in the order of
`backbone.layers`. "Layers with weights" are these below: the constants of a Normalization, or the
statistics of a BatchNorm that neither scales nor shifts, are no weights in this sense.

Keras is imported inside functions, where there is a backbone already: figures and the audit know
methods by name, and never start it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from math import prod
from operator import itemgetter

import numpy as np

from .errors import InputError


@dataclass(frozen=True)
class Block:
    """Layers tuned together; an empty block tunes the classifier alone (Baseline I)."""

    name: str
    layers: tuple[str, ...]


def weighted_layers(backbone):
    """Names of the layers with weights, in the order of `backbone.layers`."""
    return [layer.name for layer in backbone.layers if has_weights(layer)]


def has_weights(layer):
    """Whether training can move a weight of this layer, be it frozen now or not."""
    from .backbones.pure import tunable_variables

    return bool(tunable_variables(layer))


def baseline_1(backbone):
    """Tune the classifier alone."""
    return [Block("baseline_1", ())]


def baseline_2(backbone):
    """Tune every layer."""
    return [Block("baseline_2", tuple(weighted_layers(backbone)))]


def random_layers(backbone, k, seed):
    """One block of `k` distinct layers with weights, drawn by `np.random.default_rng(seed)`.

    Raises InputError if the backbone has fewer than `k`.
    """
    names = weighted_layers(backbone)
    check_count("random_layers", k, names)
    drawn = np.random.default_rng(seed).choice(len(names), size=k, replace=False)
    return [Block(f"random_{k}", tuple(names[i] for i in sorted(drawn)))]


def layer_wise(backbone):
    """One block per layer with weights, named like the layer (Algorithm 1)."""
    return [Block(name, (name,)) for name in weighted_layers(backbone)]


def batch_norm(backbone):
    """One block of all BatchNorms: not a method of the paper, but a cheap one to compare with.

    Raises InputError if the backbone has none.
    """
    from keras.layers import BatchNormalization as Norm

    norms = [x.name for x in backbone.layers if isinstance(x, Norm) and has_weights(x)]
    if not norms:
        raise InputError(
            f"batch_norm: {backbone.name} has no BatchNorm; allowed: a backbone that has"
        )
    return [Block("batch_norm", tuple(norms))]


def block_wise(backbone):
    """Runs of consecutive layers with weights between layers without (Section III-B, Algorithm 2).

    Each run is as long as possible, so every layer with weights is in exactly one block.
    "Consecutive" follows `backbone.layers`, where the branches of a residual unit lie side by
    side. Operations that are no layers, such as the sum inside MobileNetV3's hard sigmoid, are
    not in that list and delimit nothing. Blocks are named block_01, block_02, ... from the input.
    """
    runs = groupby(backbone.layers, key=has_weights)
    tuned = [tuple(layer.name for layer in run) for with_weights, run in runs if with_weights]
    return [Block(f"block_{i:02}", names) for i, names in enumerate(tuned, start=1)]


def stages(backbone):
    """The layers of one resolution, one stage after the other: not a method of the paper.

    A stage ends where no later layer has a feature map as large. So the convolutions of a
    squeeze-and-excitation, whose outputs have one position, are of the stage around them. Every
    layer with weights is in exactly one stage; these are named stage_01, stage_02, ... from the
    input. VGG16's are the blocks between its pooling layers.
    """
    return _runs("stage", weighted_layers(backbone), _areas(backbone))


def _areas(backbone):
    """Of each layer with weights, positions of the largest feature map from it on."""
    layers = [backbone.get_layer(name) for name in weighted_layers(backbone)]
    areas = [prod(layer.output.shape[1:-1]) for layer in layers]
    return np.maximum.accumulate(areas[::-1])[::-1]


def _runs(kind, names, marks):
    """Blocks of consecutive layers with one mark, numbered from the input."""
    runs = groupby(zip(names, marks, strict=True), key=itemgetter(1))
    blocks = [tuple(name for name, _ in run) for _, run in runs]
    return [Block(f"{kind}_{i:02}", block) for i, block in enumerate(blocks, start=1)]


def residual_units(backbone):
    """The layers between two residual additions: not a method of the paper.

    The list of layers is cut after every `keras.layers.Add`, so the first unit holds the stem too
    and the last one what follows the last addition. Units without weights are left out. Where
    nothing is added, as in VGG16 or MobileNet, the units are the `stages`. Every layer with weights
    is in exactly one unit; these are named unit_01, unit_02, ... from the input.
    """
    from keras.layers import Add

    additions = np.cumsum([isinstance(layer, Add) for layer in backbone.layers])
    before = [n for x, n in zip(backbone.layers, additions, strict=True) if has_weights(x)]
    marks = before if additions[-1] else _areas(backbone)
    return _runs("unit", weighted_layers(backbone), marks)


def sliding_window(backbone, length):
    """Windows of `length` consecutive layers at stride 1 (Section III-B; the paper's length is 3).

    The window slides over all layers but the input layer; of the layers it covers, those with
    weights are tuned. window_001 starts at the first layer after the input. Windows that tune
    the same layers, or none, stay in the list: each is a position of the window, and the sweep
    trains what they share once. Raises InputError if the backbone has fewer than `length` layers.
    """
    from keras.layers import InputLayer

    layers = [x for x in backbone.layers if not isinstance(x, InputLayer)]
    check_count("window", length, layers)
    windows = (layers[i : i + length] for i in range(len(layers) - length + 1))
    return [
        Block(f"window_{i:03}", tuple(layer.name for layer in window if has_weights(layer)))
        for i, window in enumerate(windows, start=1)
    ]


def top_ranked(backbone, scores: Mapping[str, float], k):
    """One block of the `k` layers with the best layer-wise accuracy (Section III-C, Algorithm 3).

    scores: accuracy of the layer-wise search by layer name, one for every layer with weights.
    Of equal scores, the layer nearer the output wins. Raises InputError if a score is missing
    or the backbone has fewer than `k` layers with weights.
    """
    names = weighted_layers(backbone)
    check_count("top_k", k, names)
    missing = [name for name in names if name not in scores]
    if missing:
        raise InputError(f"scores: {len(missing)} of {len(names)} layers missing: {missing[0]} ...")
    best = sorted(range(len(names)), key=lambda i: (scores[names[i]], i), reverse=True)[:k]
    return [Block(f"top_{k}", tuple(names[i] for i in sorted(best)))]


def check_count(key, count, layers):
    """Raise InputError unless `count` of `layers` can be taken; `key` is the parameter's name."""
    if not 1 <= count <= len(layers):
        raise InputError(f"{key}: {count} is not allowed; 1 to {len(layers)} for this backbone")
