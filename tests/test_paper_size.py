"""What docs/paper-size.md says in sentences, network by network, is what the rows give."""

import pytest
from committed import PROJECT

from lib.audit import doubts
from lib.audit.claims import findings
from lib.backbones.records import NORM
from lib.ledger import unpack_curve
from lib.report.layers import layer_kinds
from lib.report.paper import accuracies
from lib.upkeep import pages

PAGE = " ".join((PROJECT / "docs" / "paper-size.md").read_text(encoding="utf-8").split())


@pytest.fixture(scope="module")
def own():
    return pages.together(pages.paper_size(PROJECT))


@pytest.fixture(scope="module")
def gains(own):
    """What each method adds to the classifier alone, by network and method."""
    return doubts.final_gains(own).set_index(["backbone", "method"])


@pytest.fixture(scope="module")
def gaps(own):
    """What the proposed methods add to the others."""
    return {found.text: found.interval for found in findings(own)["proposed_beat_all"]}


def said(value, low, high):
    return f"{value:.3f} [{low:+.3f}, {high:+.3f}]"


def best_searched(own, backbone, method):
    rows = own.only(backbone).search
    return rows["val_accuracy"][rows["method"] == method].max()


def test_what_is_said_of_mobilenetv2(own, gains, gaps):
    mine, paper = gains.loc["MobileNetV2"], accuracies().loc["MobileNetV2"]
    three, five, everything = (mine.loc[m] for m in ("top_3", "top_5", "baseline_2"))
    text = said(five["gain"], five["low"], five["high"])
    assert f"the best three layers {three['gain']:.3f}, the best five {text}" in PAGE
    added = paper - paper["baseline_1"]
    assert (
        f"the paper has {added['block_wise']:.3f}, {added['top_3']:.3f} and {added['top_5']:.3f}."
        in PAGE
    )
    assert "Tuning everything adds " + said(*everything[["gain", "low", "high"]]) in PAGE
    over = {m: gaps[f"MobileNetV2: {m} − Baseline II"] for m in ("Top 5", "Block-wise")}
    five, block = (said(i.value, i.low, i.high) for i in over.values())
    assert f"The best five layers are {five} above it, the best block {block}." in PAGE
    final = own.only("MobileNetV2").final
    scatter = final.groupby("method")["val_accuracy"].std().drop("random", errors="ignore")
    assert scatter.idxmax() == "layer_wise" and f"(sd {scatter.max():.3f})" in PAGE
    base, layer, block = (
        f"{best_searched(own, 'MobileNetV2', m):.3f}"
        for m in ("baseline_1", "layer_wise", "block_wise")
    )
    assert f"alone reaches {base} from 367 photos, the best of 104 layers {layer}, the" in PAGE
    assert f"the best block {block}, differences" in PAGE
    means = final.groupby("method")["val_accuracy"].mean()
    above = (means - paper).dropna()
    assert len(above) == 7 and (above > 0).all()
    assert f"the classifier alone by {above['baseline_1']:.2f}." in PAGE


def test_what_is_said_of_mobilenet(own, gains):
    mine, paper = gains.loc["MobileNet"], accuracies().loc["MobileNet"]
    added = paper - paper["baseline_1"]
    for words, method in (("the best block adds", "block_wise"), ("the best five layers", "top_5")):
        theirs = f"{added[method]:.3f}"
        there = f"{theirs} there" if method == "block_wise" else theirs
        here = f"{mine.loc[method]['gain']:.3f}" + " here" * (method == "block_wise")
        assert f"{words} {here} and {there}" in PAGE, method
    means = own.only("MobileNet").final.groupby("method")["val_accuracy"].mean()
    shown = means[added.index]
    assert f"{shown.min():.2f} to {shown.max():.2f} here" in PAGE
    assert f"{paper.min():.2f} to {paper.max():.2f} there" in PAGE
    assert f"is {means['baseline_1'] - paper['baseline_1']:.2f} better here" in PAGE
    assert (mine["low"] < 0).all()  # no step is larger than its interval


def test_what_is_said_of_the_search_of_mobilenetv3small(own):
    everything, three, block = (
        f"{best_searched(own, 'MobileNetV3Small', m):.2f}"
        for m in ("baseline_2", "top_3", "block_wise")
    )
    assert f"everything has {everything}, the best three layers {three}, the best" in PAGE
    assert f"the best block {block}." in PAGE
    kinds = layer_kinds("MobileNetV3Small")
    layers = doubts.layer_gains(own.only("MobileNetV3Small"))
    norms = layers["block"].map(kinds.get) == NORM
    none = layers["gain"].abs() < 1.5 / 1101
    assert f"alone {layers['gain'][norms].mean():.2f} on average" in PAGE
    assert f"{(none & norms).sum()} of {norms.sum()} add one photo at most" in PAGE
    others = sorted(layers["gain"][~norms & ~none], reverse=True)
    assert f"Of the {(~norms).sum()} other layers" in PAGE and len(others) == 2
    assert f"two add {others[0]:.2f} and {others[1]:.2f}, the rest nothing" in PAGE
    rows = own.only("MobileNetV3Small").search
    curve = unpack_curve(rows[rows["method"] == "baseline_1"]["curve"].iloc[0])
    assert (curve[1], *set(curve[2:])) == (265, 259)


def test_what_is_said_of_native_inputs():
    (native,) = pages.paper_sizes(PROJECT)[1]
    mine = doubts.final_gains(native).set_index("method")["gain"]
    assert f"the best three {mine['top_3']:.3f}, the best single" in PAGE
    assert f"a convolution, {mine['layer_wise']:.3f}." in PAGE
    best = native.winner("layer_wise", "MobileNetV3Small")["layers"]
    assert layer_kinds("MobileNetV3Small")[best] == "convolution"
    runs = native.final[native.final["method"] == "baseline_2"]["val_accuracy"]
    assert f"the sd of everything is {runs.std():.3f}" in PAGE
