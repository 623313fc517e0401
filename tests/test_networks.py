"""The page on networks outside the paper is what its rows give; what the comparison leaves out."""

import keras
import numpy as np
import pandas as pd
from against_keras import distances, known, moved, train_alone, worst
from networks import NETWORKS, PAGE, ROUNDING, SIZES, blocks_of, flowers, page, randomise

from lib.backbones.build import load_backbone
from lib.backbones.records import BACKBONE_NAMES
from lib.partition import baseline_2


def rows() -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_csv(NETWORKS), pd.read_csv(ROUNDING)


def test_the_page_is_what_its_rows_give():
    networks, rounding = rows()
    assert PAGE.read_text(encoding="utf-8") == page(networks, rounding)
    assert page(networks.assign(fused=0.5), rounding) != page(networks, rounding)
    assert page(networks, rounding.assign(plain_weights=0.5)) != page(networks, rounding)


def test_fused_is_as_near_to_plain_as_plain_is_to_itself():
    """In the committed rows: to a few times rounding, or far below what a fault would make."""
    networks, rounding = rows()
    assert set(networks["network"]) == set(SIZES)
    measured = networks[networks["fused"].notna()]
    plain = measured[["plain", "plain_further"]].max(axis=1)
    assert (measured["fused"] < np.maximum(1e-2, 5 * plain)).all()
    plain = rounding[["plain_weights", "plain_further_weights"]].max(axis=1)
    assert (rounding["fused_weights"] < np.maximum(1e-2, 5 * plain)).all()
    assert set(rounding["network"]) == set(BACKBONE_NAMES)


def test_a_refused_network_is_said_with_its_line():
    networks, rounding = rows()
    row = {"network": "Odd", "pixels": 64, "layers": 3, "refused": "backbone layer 'a' draws"}
    text = page(pd.concat([networks, pd.DataFrame([row])]), rounding)
    assert "| Odd | 64 | 3 | refused: backbone layer 'a' draws |" in text


def test_what_a_norm_takes_away_is_not_compared():
    """The bias below a tuned BatchNorm has no gradient but rounding; all else is compared."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    x = keras.layers.BatchNormalization(name="norm")(
        keras.layers.Conv2D(8, 3, name="conv", bias_initializer="normal")(image)
    )
    backbone = keras.Model(image, keras.ops.tanh(x))
    (block,), task = baseline_2(backbone), flowers(backbone, 16)
    run, again = (train_alone(backbone, block, 0, [1e-3], t) for t in (task, moved(task)))
    mask = known(run, again)
    assert not mask["conv/bias"].any()
    assert "conv/bias" not in distances(run.start, run, mask)
    compared = ("conv/kernel", "norm/gamma", "norm/beta", "norm/moving_mean", "dense_64/bias")
    assert min(mask[name].mean() for name in compared) > 0.6
    off = distances(run.start, run, mask)  # an engine that trains nothing
    assert np.allclose(list(off.values()), 1) and len(off) == len(mask) - 1
    assert worst(distances(again.ends[-1], run, mask))[0] < 1e-3
    assert worst({"a": 0.1, "b": np.nan})[1] == "b"


def test_random_networks_have_no_scale_or_shift_that_is_constant():
    backbone = load_backbone("MobileNetV3Small", image_size=32, weights="none", thin=True)
    task = flowers(backbone, 32)
    randomise(backbone, task.train_images)
    assert all(np.std(v) > 0 for v in backbone.trainable_variables if v.shape != (1,))
    first = keras.Model(backbone.input, backbone.get_layer("conv_bn").output)
    outputs = first.predict(task.train_images, verbose=0)
    beta = keras.ops.convert_to_numpy(backbone.get_layer("conv_bn").beta)
    np.testing.assert_allclose(outputs.mean((0, 1, 2)), beta, atol=0.05)
    assert [*blocks_of(backbone)] == ["a layer", "a norm", "a block", "everything"]
