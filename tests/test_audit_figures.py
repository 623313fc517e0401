"""The audit's figures and texts, from the committed rows where there are some."""

import numpy as np
import pandas as pd
import pytest
from committed import RESULTS as COMMITTED
from rows import row

from lib.audit import doubts, figures, tables
from lib.audit.claims import CLAIMS, STATUSES
from lib.controls import Controls, read_controls
from lib.ledger import read_results
from lib.methods import TABLE1, colour
from lib.params import load_params
from lib.results import NOTHING, Results


@pytest.fixture(scope="module")
def results():
    return Results(read_results(COMMITTED, ["MobileNet"]))


@pytest.fixture(scope="module")
def controls():
    return read_controls(load_params("cpu", results=str(COMMITTED)))


def test_every_layer_is_a_point_of_its_kind(results):
    gains = tables.layer_gains(results)
    assert gains["kind"].value_counts().to_dict() == {
        "BatchNorm": 27,
        "convolution": 14,
        "depthwise convolution": 13,
    }
    depth, weights = figures.audit_depth(results).axes
    for ax, column in ((depth, "depth"), (weights, "weights")):
        shown = np.concatenate([bars.lines[0].get_xdata() for bars in ax.containers])
        assert sorted(shown) == sorted(gains[column])


def test_every_block_of_the_long_search_is_a_line(controls):
    left, middle, right = figures.audit_epochs(controls["epochs"], 8).axes
    long = controls["epochs"].rows
    assert len(left.lines) == long["block"].nunique() + 1  # and where the profile stops
    assert left.lines[-1].get_xdata()[0] == 8
    (block,) = [x for x in left.lines if x.get_color() == colour("baseline_1")]
    mean = long[long["method"] == "baseline_1"]["val_accuracy"].mean()
    assert block.get_ydata()[-1] == pytest.approx(mean)
    again, end = (line.get_ydata() for line in middle.lines[:2])
    assert again[-1] == end[-1] and len(again) == long["epochs"].iloc[0]
    assert [x.get_text() for x in right.get_legend().texts] == ["blocks", "chance"]


def test_gains_are_drawn_beside_the_papers(results, controls):
    native = controls["native"].only("MobileNet")
    (ax,) = figures.audit_gains(results, native).axes
    shown = [line.get_xdata() for line in ax.lines if line.get_marker() in ("D", "o")]
    paper, *ours = (np.asarray(x, float) for x in shown)
    assert paper[0] == pytest.approx(0.875568 - 0.828338)  # Table I, MobileNet, Baseline II
    for x, source in zip(ours, (results, native), strict=True):
        gains = doubts.final_gains(source).set_index("method")["gain"]
        np.testing.assert_allclose(x, gains[list(TABLE1[1:])])


def test_networks_that_lack_an_input_scaling_are_drawn(results):
    assert len(figures.audit_gains(results).axes) == 1


def test_the_table_of_gains_has_a_column_a_network_and_scaling(results, controls):
    native = controls["native"].only("MobileNet")
    text = tables.gain_table([results, native], controls["batch_norms"])
    lines = [line.split(" | ") for line in text.splitlines()]
    header = next(line for line in lines if line[0] == "| ")
    epochs = "64 px, 8 / 3 epochs"
    assert header[1:] == [f"MobileNet<br>[0, 1], {epochs}", f"MobileNet<br>native, {epochs} |"]
    (best,) = [line for line in lines if line[0] == "| final: Top 3"]
    gain = doubts.final_gains(results).set_index("method").loc["top_3"]
    ours = f"**{gain['gain']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]**"
    assert best[1] == f"{ours} ({gain['paper']:+.3f})" and gain["paper"] != gain["gain"]
    (norm,) = [line for line in lines if line[0] == "| search: one BatchNorm"]
    assert norm[1].startswith("-0.0") and norm[1].endswith("(27)")
    (alone,) = [line for line in lines if line[0] == "| final: BatchNorms alone"]
    assert alone[1].startswith("**-") and alone[2] == "– |"  # the control has the paper's inputs


def test_a_search_without_final_runs_has_gains_of_its_own(results):
    search = results.with_rows(results.searched)
    text = tables.gain_table([search], NOTHING)
    assert "64 px, 8 epochs" in text and "| final: Baseline I, accuracy | – |" in text
    assert "final: Top 3" not in text and "search: one BatchNorm" in text
    assert figures.audit_gains(search).axes


def test_a_long_search_with_one_seed_says_nothing_about_stopping(results, controls):
    long = controls["epochs"]
    once = Controls({"epochs": [long.with_rows(long.search)]})
    assert "stopping" in tables.remarks(results, controls, "stopping")
    assert tables.remarks(results, once, "stopping") == ""


def test_a_point_for_each_size_and_baseline(results, controls):
    sizes = controls.each("sizes")
    table = doubts.by_size(results, sizes)
    expected = [64, *(source.rows["image_size"].iloc[0] for source in sizes)]
    assert table["image_size"].tolist() == sorted(expected) and len(expected) > 1
    assert dict(zip(table["image_size"], table["values"], strict=True))[96] == 4 * 3 * 3
    (ax,) = figures.audit_sizes(results, sizes).axes
    # Error bars keep their numbers as objects.
    one, two = (np.asarray(bars.lines[0].get_ydata(), float) for bars in ax.containers)
    np.testing.assert_allclose(two - one, table["gap"])


def test_the_band_of_seeds_is_their_range_without_what_all_layers_share():
    values = {"a": (0.52, 0.58), "b": (0.28, 0.42)}  # the second seed is better by 0.1
    df = pd.DataFrame(
        [
            row(method="layer_wise", block=name, repeat=r, seed=r, val_accuracy=value)
            for name, of in values.items()
            for r, value in enumerate(of)
        ]
    )
    (ax,) = figures.audit_seeds(Results(df), NOTHING).axes
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0.55, 0.35])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose((band.min(), band.max()), (0.33, 0.57))
    one, other = figures.audit_seeds(Results(df), Results(df.assign(input_scaling="native"))).axes
    assert "[0, 1]" in one.get_title("left") and "native" in other.get_title("left")


def test_verdicts_name_every_claim_and_define_every_word(results):
    text = tables.verdict_table(results)
    assert all(claim.text in text for claim in CLAIMS)
    assert all(f"*{name}*: {meaning}" in text for name, meaning in STATUSES.items())
    both = tables.verdict_table(results, results.with_rows(results.rows.assign(profile="other")))
    assert "native inputs" in both and "native inputs" not in text and "profile other" in both


def test_remarks_come_from_the_rows(results, controls):
    text = tables.remarks(results, controls)
    flipped = results.rows.assign(hits=results.rows["hits"].to_numpy()[::-1])
    assert tables.remarks(Results(flipped), controls) != text
    for part in (
        "inputs.",
        "does 10 % predict 70 %?",
        "chance against layers",
        "stopping the search early",
        "[0, 1], 96 px, 25 / 8 epochs** instead of [0, 1], 64 px, 8 / 3 epochs",
        "Baseline II and the size",
    ):
        assert f"**MobileNet, {part}" in text
    nothing = tables.remarks(results, Controls({}))
    for word in ("MobileNet, inputs", "predict", "instead", "stopping", "size"):
        assert word not in nothing
