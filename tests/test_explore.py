"""Notebook 0's view of one network and method, from rows that were made up."""

import re

import numpy as np
import pytest
from rows import make_rows

from lib.audit.claims import findings, in_a_sentence, status
from lib.ledger import unpack_hits
from lib.params import ROOT, InputError, load_params
from lib.report import explore
from lib.results import Results


@pytest.fixture(scope="module")
def results():
    return Results(make_rows(["VGG16", "MobileNet"]))


@pytest.mark.parametrize("method", ["layer_wise", "block_wise", "sliding_window"])
def test_a_gain_is_above_the_classifier_alone_and_a_block_lies_where_its_layers_are(
    results, method
):
    rows = explore.gains(results, "MobileNet", method)
    alone = results.winner("baseline_1", "MobileNet")["val_accuracy"]
    np.testing.assert_allclose(rows["gain"] + alone, rows["val_accuracy"])
    order = results.layer_order("MobileNet")
    for row in rows.to_dict("records"):
        inside = row["layers"].split(";")
        assert {order[row["first"] - 1], order[row["last"] - 1]} <= set(inside)
        assert row["last"] - row["first"] + 1 >= len(inside)


def test_a_window_without_weights_is_no_bar(results):
    rows = results.rows.copy()
    windows = (rows["method"] == "sliding_window") & (rows["backbone"] == "MobileNet")
    first = rows.index[windows & (rows["split"] == results.search_split)][0]
    rows.loc[first, "layers"] = ""
    bare = results.with_rows(rows)
    every = explore.gains(results, "MobileNet", "sliding_window")
    assert len(explore.gains(bare, "MobileNet", "sliding_window")) == len(every) - 1


def test_the_map_has_a_bar_a_block_and_names_the_best(results):
    drawing = explore.network_map(results, "MobileNet", "block_wise")
    (ax,) = drawing.axes
    rows = explore.gains(results, "MobileNet", "block_wise")
    found = sorted(bar.get_height() for bar in ax.patches)
    np.testing.assert_allclose(found, sorted(rows["gain"].abs()))
    assert f"{rows['gain'].max():+.3f}" in ax.texts[0].get_text()


def test_every_run_is_a_curve_and_the_best_and_the_baselines_are_in_front(results):
    (ax,) = explore.learning_curves(results, "MobileNet", "layer_wise").axes
    runs = results.in_order("layer_wise", "MobileNet")
    assert len(ax.lines) == len(runs) + 3
    best = results.winner("layer_wise", "MobileNet")
    accuracies = np.array(best["curve"].split(";"), int) / best["eval_images"]
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), accuracies)


def test_photos_won_less_photos_lost_are_the_gain(results):
    won, lost = explore.won_and_lost(results, "MobileNet", "block_wise")
    best = results.winner("block_wise", "MobileNet")
    tuned = unpack_hits(best["hits"], best["eval_images"])
    assert tuned[won].all() and not tuned[lost].any()
    gain = explore.gains(results, "MobileNet", "block_wise")["gain"].max()
    assert (len(won) - len(lost)) / best["eval_images"] == pytest.approx(gain)
    told = explore.in_words(results, "MobileNet", "block_wise")
    assert f"gets {len(won)} photos right" in told and f"{gain:+.3f}" in told


def test_photos_are_shown_or_it_is_said_what_is_missing(tmp_path, monkeypatch):
    assert len(explore.photos_won(load_params("smoke"), np.arange(3)).axes) > 3
    monkeypatch.setenv("BLOCKWISE_CACHE", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    text = "tf_flowers is not on this machine: set data_dir, or TFDS_DATA_DIR, to see them"
    assert explore.photos_won(load_params("cpu"), np.arange(3)) == text


def test_the_menus_offer_what_has_rows_and_draw_in_the_same_places(results, monkeypatch):
    shown = []

    class Place:
        def __init__(self, thing):
            shown.append(thing)

        def update(self, thing):
            shown.append(f"again {thing}")

    monkeypatch.setattr(explore, "display", lambda thing, display_id: Place(thing))

    def draw(backbone, method):
        if method != "layer_wise":
            raise InputError(f"no rows of {method}")
        return f"{backbone} {method}", "more"

    menus = explore.explorer(results, draw)
    assert list(menus.children[0].options) == ["VGG16", "MobileNet"]
    assert [name for _, name in menus.children[1].options][0] == "layer_wise"
    menus.children[0].value = "MobileNet"
    assert shown == ["VGG16 layer_wise", "more", "again MobileNet layer_wise", "again more"]
    monkeypatch.setattr(explore, "Markdown", lambda text: f"words {text}")
    menus.children[1].value = "block_wise"
    assert shown[4:] == ["again words no rows of block_wise", "again words "]
    with pytest.raises(InputError, match="no rows of a search"):
        explore.explorer(results.with_rows(results.rows[:0]), lambda *_: ())


def test_no_widget_of_the_project_holds_output():
    """Headless execution of one may wait for ever (nbclient, issue 312)."""
    found = [*ROOT.glob("lib/**/*.py"), *ROOT.glob("notebooks/*.ipynb")]
    texts = [path.read_text(encoding="utf-8") for path in found]
    assert len(texts) > 80
    assert not [t for t in texts if re.search(r"\b(interact|interactive\w*|Output)\(", t)]


def test_a_claim_in_a_sentence_has_words_verdict_and_intervals(results):
    name = "block_wise_never_below_baseline_2"
    found = findings(results)[name]
    text = in_a_sentence(name, results)
    assert text.startswith("The paper: “the block-wise approach had been consistent")
    assert f"Here: {status(found)} (" in text
    assert all(f"{each.text} {each.interval}" in text for each in found)
