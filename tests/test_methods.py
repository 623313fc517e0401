"""One record a method: the lists are those of the paper, and an extra method runs by its name."""

import pytest
from rows import make_rows

from lib import methods
from lib.ledger import read_results
from lib.methods import RECORDS, in_figure, is_method, label, method
from lib.params import InputError, load_params
from lib.report.figures import fig07_search_summary, fig08_final
from lib.results import Results
from lib.sweep import final, plans, search


def test_the_lists_are_the_papers():
    assert (
        *("baseline_1", "baseline_2", "random", "layer_wise", "block_wise"),
        *("top_3", "top_5", "sliding_window"),
    ) == methods.PAPER
    assert tuple(name for name in methods.PAPER if name != "random") == methods.TABLE1
    assert methods.UNPROPOSED == ("baseline_1", "baseline_2", "layer_wise")
    assert methods.PROPOSED == ("block_wise", "top_3", "top_5", "sliding_window")
    assert ("layer_wise", *methods.PROPOSED) == methods.APPROACHES
    assert methods.SEARCHES[:3] == ("layer_wise", "block_wise", "sliding_window")
    assert in_figure(3) == ("baseline_1", "baseline_2", "random")
    assert in_figure(7) == methods.PAPER and in_figure(8) == methods.TABLE1
    for number, name in ((4, "layer_wise"), (5, "block_wise"), (6, "sliding_window")):
        assert in_figure(number) == (name,)


def test_every_method_has_a_name_a_label_and_a_colour_of_its_own():
    for what in ("name", "label", "colour"):
        assert len({getattr(record, what) for record in RECORDS}) == len(RECORDS)
    assert method("top_4").colour not in {record.colour for record in RECORDS}


def test_a_ranked_block_of_any_size_is_a_method():
    assert (label("top_4"), method("top_4").ranked) == ("Top 4", 4)
    assert is_method("top_12") and not is_method("top_0") and not is_method("top_")
    with pytest.raises(InputError, match="method: 'top_0' is unknown; allowed: baseline_1, "):
        method("top_0")


def test_methods_of_a_profile_come_in_the_papers_order_and_extra_ones_last():
    params = load_params("smoke", top_k=[2, 7], extra_methods=["residual_units", "stages"])
    assert methods.methods(params) == (
        *("baseline_1", "baseline_2", "random", "layer_wise", "block_wise"),
        *("top_2", "top_7", "sliding_window", "residual_units", "stages"),
    )
    assert load_params("paper").extra_methods == ()
    with pytest.raises(InputError, match="each one of batch_norm, residual_units, stages$"):
        load_params("smoke", extra_methods=["residual_unit"])


def test_a_users_own_layers_are_known_in_rows_and_proposed_by_nobody():
    assert is_method("own_layers") and "own_layers" not in (*methods.PAPER, *methods.EXTRA)
    with pytest.raises(InputError, match="own_layers: only make photos takes them"):
        method("own_layers").propose(None, load_params("smoke"), {})


def test_an_extra_method_is_trained_and_drawn_like_the_papers(tmp_path):
    changes = {"backbones": ["VGG16"], "extra_methods": ["residual_units"], "n_images": 60}
    changes |= {"repeats": 1, "batch_size": 6}  # whole batches only: one graph a model
    params = load_params("smoke", results=str(tmp_path / "rows"), **changes)
    next(plans(params)).check()
    search(params, "baseline_1", "block_wise", "residual_units")
    final(params, "residual_units")
    rows = read_results(params.results_dir)
    units, blocks = (
        rows[(rows["method"] == name) & (rows["split"] == params.search_split)]
        for name in ("residual_units", "block_wise")
    )
    assert units["block"].tolist() == [f"unit_{i:02}" for i in range(1, 6)]
    assert units["key"].tolist() == blocks["key"].tolist()  # VGG16's units are its blocks
    for draw in (fig07_search_summary, fig08_final):
        shown = draw(Results.of(rows, params)).legends[0].get_texts()
        assert "Residual units" in [t.get_text() for t in shown]


def test_without_rows_of_it_an_extra_method_is_in_no_figure():
    shown = fig07_search_summary(Results(make_rows(["VGG16"]))).legends[0].get_texts()
    assert [t.get_text() for t in shown] == [label(name) for name in methods.PAPER]
