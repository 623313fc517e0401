"""The paper's methods as lists of blocks, with the known answers of the five backbones."""

import hashlib

import keras
import pytest

from lib import partition
from lib.backbones.build import load_backbone
from lib.backbones.records import BACKBONE_NAMES
from lib.params import InputError
from lib.partition import Block

WITH_WEIGHTS = dict(zip(BACKBONE_NAMES, (13, 54, 104, 86, 102), strict=True))


@pytest.fixture(scope="module", params=BACKBONE_NAMES)
def named_twin(request):
    twin = load_backbone(request.param, image_size=32, weights="none", thin=True)
    return request.param, twin


@pytest.fixture(scope="module")
def small():
    """Layers: images, a, relu, b, c, pool, d; a to d have weights."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3), name="images"),
            layers.Conv2D(2, 1, name="a"),
            layers.ReLU(name="relu"),
            layers.Conv2D(2, 1, name="b"),
            layers.BatchNormalization(name="c"),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(2, 1, name="d"),
        ]
    )


def test_every_layer_with_weights_is_in_exactly_one_block(named_twin):
    name, twin = named_twin
    layers = partition.weighted_layers(twin)
    assert len(layers) == WITH_WEIGHTS[name]
    blocks = partition.block_wise(twin)
    assert [layer for block in blocks for layer in block.layers] == layers
    assert [block.layers for block in partition.layer_wise(twin)] == [(x,) for x in layers]
    assert partition.baseline_2(twin) == [Block("baseline_2", tuple(layers))]


def test_blocks_are_delimited_by_layers_without_weights(named_twin):
    _, twin = named_twin
    order = [layer.name for layer in twin.layers]
    with_weights = set(partition.weighted_layers(twin))
    for block in partition.block_wise(twin):
        first, last = order.index(block.layers[0]), order.index(block.layers[-1])
        assert tuple(order[first : last + 1]) == block.layers
        assert order[first - 1] not in with_weights
        assert order[last + 1 : last + 2] == [] or order[last + 1] not in with_weights


def test_windows_cover_every_layer_with_weights(named_twin):
    _, twin = named_twin
    windows = partition.sliding_window(twin, 3)
    assert len(windows) == len(twin.layers) - 3
    assert {x for w in windows for x in w.layers} == set(partition.weighted_layers(twin))


# Of the names and layers of every block: the keys of committed rows depend on them.
BLOCKS = {
    "VGG16": "85032f605cd10fd9",
    "MobileNet": "29dcc69178b22834",
    "MobileNetV2": "490d2c3f0e5aecbb",
    "MobileNetV3Small": "d9181685320769c0",
    "ResNet50V2": "0aea6218386891ff",
}


def test_the_papers_backbones_are_cut_as_they_always_were(named_twin):
    name, twin = named_twin
    methods = (partition.baseline_2, partition.layer_wise, partition.block_wise)
    blocks = [block for method in methods for block in method(twin)]
    blocks += partition.sliding_window(twin, 3) + partition.random_layers(twin, 6, seed=0)
    blocks += [] if name == "VGG16" else partition.batch_norm(twin)
    text = repr([(block.name, block.layers) for block in blocks])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == BLOCKS[name]


def test_vgg16_has_the_five_blocks_of_figure_2():
    twin = load_backbone("VGG16", image_size=32, weights="none", thin=True)
    blocks = partition.block_wise(twin)
    assert [len(block.layers) for block in blocks] == [2, 2, 3, 3, 3]
    assert blocks[4].name == "block_05"
    assert blocks[4].layers == ("block5_conv1", "block5_conv2", "block5_conv3")


def test_blocks_of_a_small_network(small):
    assert partition.baseline_1(small) == [Block("baseline_1", ())]
    assert partition.layer_wise(small)[1] == Block("b", ("b",))
    assert partition.block_wise(small) == [
        Block("block_01", ("a",)),
        Block("block_02", ("b", "c")),
        Block("block_03", ("d",)),
    ]


STAGES = {
    "VGG16": [2, 2, 3, 3, 3],
    "MobileNet": [6, 8, 8, 24, 8],
    "MobileNetV2": [8, 12, 18, 42, 24],
    "MobileNetV3Small": [2, 8, 12, 40, 24],
    "ResNet50V2": [1, 16, 25, 37, 23],
}


def test_stages_are_of_one_resolution_and_hold_every_layer_with_weights(named_twin):
    name, twin = named_twin
    found = partition.stages(twin)
    assert [len(stage.layers) for stage in found] == STAGES[name]
    assert [stage.name for stage in found] == [f"stage_{i:02}" for i in range(1, 6)]
    assert [layer for stage in found for layer in stage.layers] == partition.weighted_layers(twin)
    sizes = [{twin.get_layer(x).output.shape[1] for x in stage.layers} for stage in found]
    first = 32 if name == "VGG16" else 16
    assert [max(of_stage) for of_stage in sizes] == [first // 2**i for i in range(5)]
    inside = 1 if "V3" in name else 0  # squeeze-and-excitation
    assert all(of_stage <= {max(of_stage), inside} for of_stage in sizes)


# Units between residual additions, or stages of one size where nothing is added.
UNITS = {
    "VGG16": [2, 2, 3, 3, 3],
    "MobileNet": [6, 8, 8, 24, 8],
    "MobileNetV2": [18, 12, 6, 12, 6, 6, 12, 6, 12, 6, 8],
    "MobileNetV3Small": [20, 16, 8, 16, 16, 8, 2],
    "ResNet50V2": [8, 6, 6, 7, 6, 6, 6, 7, 6, 6, 6, 6, 6, 7, 6, 6, 1],
}


def test_units_end_with_an_addition_and_hold_every_layer_with_weights(named_twin):
    name, twin = named_twin
    units = partition.residual_units(twin)
    assert [len(unit.layers) for unit in units] == UNITS[name]
    assert [layer for unit in units for layer in unit.layers] == partition.weighted_layers(twin)
    order = [layer.name for layer in twin.layers]
    additions = [x.name for x in twin.layers if isinstance(x, keras.layers.Add)]
    for one, other in zip(units, units[1:], strict=False) if additions else ():
        last, first = order.index(one.layers[-1]), order.index(other.layers[0])
        assert sum(last < order.index(name) < first for name in additions) == 1


def test_units_of_a_network_without_additions_are_its_stages(small):
    assert partition.residual_units(small) == [
        Block("unit_01", ("a", "b", "c")),
        Block("unit_02", ("d",)),
    ]
    twin = load_backbone("VGG16", image_size=32, weights="none", thin=True)
    blocks = partition.block_wise(twin)
    assert [u.layers for u in partition.residual_units(twin)] == [b.layers for b in blocks]


def test_windows_keep_positions_that_tune_the_same(small):
    assert partition.sliding_window(small, 3) == [
        Block("window_001", ("a", "b")),
        Block("window_002", ("b", "c")),
        Block("window_003", ("b", "c")),
        Block("window_004", ("c", "d")),
    ]
    assert partition.sliding_window(small, 1)[1] == Block("window_002", ())


def test_top_ranked_is_in_backbone_order_and_ties_go_to_the_output(small):
    scores = {"a": 0.5, "b": 0.9, "c": 0.5, "d": 0.5}
    assert partition.top_ranked(small, scores, 1) == [Block("top_1", ("b",))]
    assert partition.top_ranked(small, scores, 3) == [Block("top_3", ("b", "c", "d"))]


def test_random_layers_are_distinct_in_order_and_seeded(small):
    (block,) = partition.random_layers(small, 3, seed=0)
    assert block.name == "random_3" and len(set(block.layers)) == 3
    assert list(block.layers) == sorted(block.layers)
    assert partition.random_layers(small, 3, seed=0) == [block]
    assert len({partition.random_layers(small, 2, seed=s)[0].layers for s in range(20)}) > 1


def test_impossible_counts_and_missing_scores_are_refused(small):
    with pytest.raises(InputError, match="random_layers: 5 is not allowed; 1 to 4"):
        partition.random_layers(small, 5, seed=0)
    with pytest.raises(InputError, match="window: 7 is not allowed; 1 to 6"):
        partition.sliding_window(small, 7)
    with pytest.raises(InputError, match="scores: 1 of 4 layers missing: c"):
        partition.top_ranked(small, {"a": 0, "b": 0, "d": 0}, 3)
