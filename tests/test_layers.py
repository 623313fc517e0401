"""The committed table of layers is what Keras builds."""

import pandas as pd

from lib.backbones.records import BACKBONE_NAMES, LAYER_KINDS, NORM, OTHER_KIND
from lib.report.layers import layer_counts, layer_kinds, made_layers, read_layers


def test_the_table_is_what_keras_builds():
    pd.testing.assert_frame_equal(made_layers(), read_layers())


def test_every_layer_with_weights_is_of_a_known_kind():
    table = read_layers()
    assert set(table[table["weights"] > 0]["keras_class"]) <= set(LAYER_KINDS)
    assert list(table["backbone"].unique()) == list(BACKBONE_NAMES)


def test_kinds_and_counts_are_read_by_name():
    assert layer_kinds("MobileNet")["conv1_bn"] == NORM
    assert layer_kinds("MobileNet")["conv1_relu"] == OTHER_KIND
    assert layer_kinds("NASNetMobile") == {}
    counts = layer_counts("VGG16")
    assert len(counts) == 18 and sum(count for _, count in counts) == 14_714_688
    assert counts[2] == ("block1_pool", 0)
