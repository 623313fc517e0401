"""The audit's figures and texts, from the committed rows where there are some."""

import numpy as np
import pandas as pd
import pytest
from committed import RESULTS as COMMITTED
from rows import row

from lib.audit import doubts, figures, tables
from lib.audit.claims import CLAIMS, STATUSES
from lib.ledger import read_results
from lib.methods import TABLE1
from lib.params import load_params
from lib.results import NOTHING, Results


@pytest.fixture(scope="module")
def results():
    return Results(read_results(COMMITTED, ["MobileNet"]))


@pytest.fixture(scope="module")
def native():
    params = load_params("cpu", results=str(COMMITTED))
    return Results.read_native(params).only("MobileNet")


def test_every_layer_is_a_point_of_its_kind(results):
    gains = doubts.layer_gains(results)
    assert gains["kind"].value_counts().to_dict() == {
        "BatchNorm": 27,
        "convolution": 14,
        "depthwise convolution": 13,
    }
    depth, weights = figures.audit_depth(results).axes
    for ax, column in ((depth, "depth"), (weights, "weights")):
        shown = np.concatenate([bars.lines[0].get_xdata() for bars in ax.containers])
        assert sorted(shown) == sorted(gains[column])


def test_gains_are_drawn_beside_the_papers(results, native):
    (ax,) = figures.audit_gains(results, native).axes
    shown = [line.get_xdata() for line in ax.lines if line.get_marker() in ("D", "o")]
    paper, *ours = (np.asarray(x, float) for x in shown)
    assert paper[0] == pytest.approx(0.875568 - 0.828338)  # Table I, MobileNet, Baseline II
    for x, source in zip(ours, (results, native), strict=True):
        gains = doubts.final_gains(source).set_index("method")["gain"]
        np.testing.assert_allclose(x, gains[list(TABLE1[1:])])


def test_networks_that_lack_an_input_scaling_are_drawn(results):
    assert len(figures.audit_gains(results).axes) == 1


def test_the_table_of_gains_has_a_column_a_network_and_scaling(results, native):
    text = tables.gain_table([results, native])
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


def test_a_search_without_final_runs_has_gains_of_its_own(results):
    search = results.with_rows(results.searched)
    text = tables.gain_table([search])
    assert "64 px, 8 epochs" in text and "| final: Baseline I, accuracy | – |" in text
    assert "final: Top 3" not in text and "search: one BatchNorm" in text
    assert figures.audit_gains(search).axes


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


def test_remarks_come_from_the_rows(results, native):
    text = tables.remarks(results, native)
    flipped = results.rows.assign(hits=results.rows["hits"].to_numpy()[::-1])
    assert tables.remarks(Results(flipped), native) != text
    for part in ("inputs.", "chance against layers"):
        assert f"**MobileNet, {part}" in text
    assert "**Winners, native inputs.**" in text and "Last epoch or best epoch" in text
    alone = tables.remarks(results, NOTHING)
    assert "MobileNet, inputs" not in alone and "Winners, native" not in alone
    assert tables.remarks(results, native, "inputs").count("\n") == 1


def test_a_cheap_setting_is_held_against_a_dear_one(results, native):
    text = tables.agreement(results, native)
    assert text.startswith("- **MobileNet, native, 64 px, 8 / 3 epochs** instead of [0, 1], 64 px")
    alike, decided, neither = doubts.same_verdicts(results, native)
    told = f"claims that both decide: {decided}, alike: {alike}, that both leave undecided: "
    assert f"{told}{neither};" in text
    assert tables.agreement(results, results).count("1.00 (") == 3
    assert tables.agreement(results, NOTHING) == ""


def test_each_cell_of_table_1_is_drawn_beside_the_papers(results, tmp_path):
    (ax,) = figures.against_paper(results).axes
    drawn = {mark: [x.get_xdata() for x in ax.lines if x.get_marker() == mark] for mark in "Do|"}
    (paper,) = drawn["D"]
    assert paper[0] == pytest.approx(0.828338) and len(paper) == len(TABLE1)
    summary = results.summary().set_index("method").loc[list(TABLE1)]
    np.testing.assert_allclose(np.ravel(drawn["|"]), summary["mean"])
    assert [len(runs) for runs in drawn["o"]] == summary["n"].tolist()
    np.testing.assert_allclose([np.mean(runs) for runs in drawn["o"]], summary["mean"])
    assert len(figures.save_paper_size(results, tmp_path)) == 2
    assert figures.save_paper_size(NOTHING, tmp_path) == []
