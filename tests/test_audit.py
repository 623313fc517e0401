"""The audit: intervals that cover what they must, and verdicts that follow from them."""

import numpy as np
import pandas as pd
import pytest
from rows import BACKBONES, make_rows, row

from lib import audit
from lib.paper import CLAIMS
from lib.results import COLUMNS, pack_hits, unpack_hits


@pytest.fixture(scope="module")
def df():
    return make_rows(["VGG16", "MobileNet", "MobileNetV2"])


def finding(value, low, high, **limits):
    return audit.Finding("x", audit.Interval(value, low, high), **limits)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([], "not tested"),
        ([finding(0.1, 0.05, 0.15)], "holds"),
        ([finding(0.1, 0.05, 0.15), finding(0.01, -0.01, 0.03)], "holds within noise"),
        ([finding(-0.01, -0.03, 0.01)], "holds within noise"),
        ([finding(0.1, 0.05, 0.15), finding(-0.1, -0.15, -0.05)], "does not hold"),
        ([finding(0.01, -0.01, 0.019, least=-0.02, most=0.02)], "holds"),
        ([finding(0.03, 0.021, 0.04, least=-0.02, most=0.02)], "does not hold"),
        ([finding(0.0, 0.0, 0.0, least=1e-9, most=0.25)], "does not hold"),
    ],
)
def test_a_verdict_follows_from_its_findings(found, verdict):
    assert audit.status(found) == verdict
    assert verdict in audit.STATUSES


def test_every_claim_gets_a_verdict(df):
    table = audit.verdicts(df)
    assert table["claim"].tolist() == [claim.text for claim in CLAIMS]
    assert set(table["status"]) <= set(audit.STATUSES)
    assert set(audit.findings(df)) == {claim.name for claim in CLAIMS}
    by_name = dict(zip([claim.name for claim in CLAIMS], table["status"], strict=True))
    assert by_name["layers_differ"] == "not tested"  # the search was not repeated
    assert by_name["all_beat_baseline_1"] != "not tested"


def test_table_1_as_printed_contradicts_two_of_its_claims():
    """MobileNetV2's block-wise lies below its Baseline II; the rest was counted by hand."""
    assert audit.printed() == {
        "block_wise_never_below_baseline_2": "4 of 5",
        "block_wise_highest_mean": "6 of 6",
        "block_wise_lowest_variance": "6 of 6",
        "proposed_beat_all": "51 of 60",
    }


def test_without_rows_nothing_is_tested():
    table = audit.verdicts(pd.DataFrame(columns=list(COLUMNS)))
    assert set(table["status"]) == {"not tested"}


def test_an_interval_has_the_width_of_its_binomial():
    rng = np.random.default_rng(0)
    groups = {"a": rng.random((1, 1000)) < 0.7, "b": rng.random((1, 1000)) < 0.5}
    sample = audit.Bootstrap({key: value.astype(float) for key, value in groups.items()})
    gap = sample.interval(lambda a: a["a"] - a["b"])
    expected = groups["a"].mean() - groups["b"].mean()
    assert gap.value == pytest.approx(expected)
    width = 1.96 * np.sqrt(0.7 * 0.3 / 1000 + 0.5 * 0.5 / 1000)
    assert gap.high - gap.low == pytest.approx(2 * width, rel=0.15)
    same = sample.interval(lambda a: a["a"] - a["a"])
    assert (same.low, same.high) == (0, 0)  # paired: the same images for both


def test_runs_that_agree_image_by_image_do_not_differ():
    right = (np.arange(300) % 3 == 0).astype(float)[None]
    sample = audit.Bootstrap({"a": right, "b": np.repeat(right, 4, axis=0)})
    assert np.abs(sample.drawn["a"] - sample.drawn["b"]).max() < 1e-12


def test_an_interval_does_not_depend_on_the_groups_beside_it(df):
    alone = audit.final_gains(df[df["backbone"] == "MobileNet"])
    beside = audit.final_gains(df)
    beside = beside[beside["backbone"] == "MobileNet"].set_index("method").loc[alone["method"]]
    bounds = ["low", "high"]
    np.testing.assert_allclose(alone[bounds].to_numpy(), beside[bounds].to_numpy(), atol=1e-12)


def _layer_rows(accuracies):
    """A repeated layer-wise search: accuracy by layer and seed."""
    return pd.DataFrame(
        [
            row(method="layer_wise", block=f"layer_{i}", repeat=r, seed=r, val_accuracy=a)
            for i, of in enumerate(accuracies)
            for r, a in enumerate(of)
        ]
    )


def test_layers_that_differ_more_than_by_chance_are_told_from_noise():
    rng = np.random.default_rng(0)
    layers, lucky = rng.normal(0.5, 0.08, (30, 1)), np.array([-0.1, 0.0, 0.1])
    real = _layer_rows(layers + lucky + rng.normal(0, 0.01, (30, 3)))
    noise = _layer_rows(0.5 + lucky + rng.normal(0, 0.02, (30, 3)))
    assert audit.status(audit.layers_against_seeds(real)) == "holds"
    assert audit.status(audit.layers_against_seeds(noise)) == "does not hold"


def test_components_are_those_that_were_put_in():
    rng = np.random.default_rng(0)
    layers, seeds = rng.normal(0.5, 0.08, (30, 1)), rng.normal(0, 0.2, 400)
    between, chance = audit._components(layers + seeds + rng.normal(0, 0.01, (30, 400)))
    assert between == pytest.approx(layers.std(ddof=1), rel=0.05)
    assert chance == pytest.approx(0.01, rel=0.05)


def _blocks(rng, n, p, images=1000):
    rows = [
        row(method="baseline_1", block="baseline_1", eval_images=images, hits=_hits(rng, p, images))
    ]
    return pd.DataFrame(
        rows
        + [
            row(block=f"block_{i:02}", eval_images=images, hits=_hits(rng, p, images))
            for i in range(n)
        ]
    )


def _hits(rng, p, images):
    return pack_hits(rng.random(images) < p)


def test_selecting_among_equal_blocks_is_optimistic():
    """Thirty equal blocks: the best of them on 500 images is too good by two standard errors."""
    table = audit.optimism(_blocks(np.random.default_rng(0), 30, 0.6))
    (one,) = table.to_dict("records")
    assert one["blocks"] == 30 and one["optimism"] == pytest.approx(one["reported"] - one["honest"])
    standard_error = np.sqrt(0.6 * 0.4 / 500)
    assert standard_error < one["optimism"] < 4 * standard_error
    assert abs(one["gain"]) < 2 * standard_error


def test_the_rank_correlation_of_a_search_with_itself_is_one():
    rng = np.random.default_rng(0)
    short = pd.concat([_blocks(rng, 1, p).iloc[1:].assign(block=f"b{p}") for p in (0.4, 0.6, 0.8)])
    full = short.assign(split="train[:70%]")
    (one,) = audit.rank_correlation(short, full).to_dict("records")
    assert one["rho"] == pytest.approx(1) and one["place"] == 1 and one["lost"] == 0


def test_two_settings_are_compared_cell_by_cell(df):
    better = df.assign(hits=pack_hits(np.ones(300, bool)))
    table = audit.compared(df, better)
    assert (table["second"] == 1).all() and (table["low"] > 0).all()
    assert np.allclose(table["second"] - table["first"], table["gain"])
    assert len(table) == 3 * 7
    assert audit.compared(df, df.iloc[:0]).empty


def test_the_same_rows_give_the_same_verdicts(df):
    tested = (audit.verdicts(df)["status"] != "not tested").sum()
    assert audit.same_verdicts(df, df) == (tested, tested)
    assert audit.same_verdicts(df, df.iloc[:0]) == (0, 0)
    flipped = df.assign(hits=df["hits"].map(lambda text: pack_hits(~unpack_hits(text, 300))))
    same, of = audit.same_verdicts(df, flipped)
    assert same < of == tested


def test_gains_name_depth_kind_and_weights(df):
    table = audit.gains(df, {})
    vgg = table[table["backbone"] == "VGG16"]
    assert len(vgg) == 13 and vgg["depth"].iloc[0] == 0 and vgg["depth"].iloc[-1] == 1
    assert (table["low"] <= table["gain"]).all() and (table["gain"] <= table["high"]).all()


def test_ranks_of_two_searches_are_compared_block_by_block(df):
    vgg = df[df["backbone"] == "VGG16"]
    upside_down = vgg.assign(val_accuracy=1 - vgg["val_accuracy"]).iloc[::-1]
    assert audit.same_ranks(vgg, vgg) == dict.fromkeys(audit.SEARCHES, pytest.approx(1))
    assert audit.same_ranks(vgg, upside_down) == dict.fromkeys(audit.SEARCHES, pytest.approx(-1))


def test_a_method_gains_what_it_is_above_baseline_1(df):
    table = audit.final_gains(df).set_index(["backbone", "method"])
    assert len(table) == 3 * 7  # the paper's other methods, and random
    means = df[df["split"] == "train[:70%]"].groupby(["backbone", "method"])["val_accuracy"].mean()
    expected = means["VGG16", "top_3"] - means["VGG16", "baseline_1"]
    assert table.loc[("VGG16", "top_3"), "gain"] == pytest.approx(expected)
    assert (table["low"] <= table["gain"]).all() and (table["gain"] <= table["high"]).all()
    assert audit.final_gains(df[df["method"] != "baseline_1"]).empty


def test_variances_leave_each_backbone_out_in_turn(df):
    table = audit.variances(df)
    assert table.index.tolist()[0] == "all" and len(table) == 4
    assert len(audit.variances(make_rows(["VGG16"]))) == 0


def _repeated(counts):
    """A repeated block-wise search; counts: images got right ``(blocks, seeds, epochs)``."""
    return pd.DataFrame(
        [
            row(block=f"b{i}", repeat=r, seed=r, curve=";".join(map(str, curve)), epochs=len(curve))
            for i, seeds in enumerate(counts)
            for r, curve in enumerate(seeds)
        ]
    )


def test_early_epochs_rank_as_the_last_does_when_nothing_crosses():
    table = audit.stop_early(_repeated([[[i, 2 * i, 3 * i]] * 2 for i in (10, 20, 30, 40)]))
    assert table["epoch"].tolist() == [1, 2, 3]
    np.testing.assert_allclose(table[["again", "end"]], 1)
    np.testing.assert_allclose(table["accuracy"], np.array([25, 50, 75]) / 300)
    np.testing.assert_allclose(table["chance"], 0, atol=1e-12)


def test_ranks_are_compared_between_seeds_and_never_within_one():
    """Two seeds that rank the blocks the other way round, each the same way in both epochs."""
    up, down = [10, 20, 30], [30, 20, 10]
    table = audit.stop_early(_repeated([[[a] * 2, [b] * 2] for a, b in zip(up, down, strict=True)]))
    np.testing.assert_allclose(table[["again", "end"]], -1)
    np.testing.assert_allclose(table["spread"], 0)


def test_a_search_with_one_seed_says_nothing_about_stopping(df):
    assert audit.stop_early(df).empty


def test_the_last_epoch_is_compared_with_the_best(df):
    table = audit.last_against_best(df)
    assert (table["mean"] >= 0).all() and set(BACKBONES) >= set(df["backbone"])
