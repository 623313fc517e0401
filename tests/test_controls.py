"""The controls: each trains its own runs, into rows that the audit reads."""

import pytest

from lib import controls
from lib.audit import doubts
from lib.audit.claims import layers_against_seeds
from lib.audit.figures import audit_epochs
from lib.ledger import read_results
from lib.params import InputError, load_params
from lib.results import Results

SEEDS = 2


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    results = tmp_path_factory.mktemp("controls") / "rows"
    # One order for all seeds: then they are lanes of one model.
    shared = {"backbones": ["VGG16"], "repeat_order": "shared"}
    params = load_params("smoke", results=str(results), **shared)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "LONG", 2)
        patch.setattr(controls, "SEEDS", SEEDS)
        controls.train_controls(params, ["epochs", "seeds", "blocks"])
    return params


def test_the_search_is_repeated_layer_by_layer(params):
    rows = read_results(params.results_dir)
    (table,) = doubts.seeds(Results(rows)).values()
    assert table.shape == (13, SEEDS)
    assert len(list(layers_against_seeds(Results(rows)))) == 1


def test_the_long_search_has_every_seed_and_epoch(params):
    long = controls.read_controls(params)["epochs"]
    assert long.rows.groupby("method").size().to_dict() == {
        method: n * SEEDS
        for method, n in {"baseline_1": 1, "baseline_2": 1, "random": 1, "block_wise": 5}.items()
    }
    assert doubts.stop_early(long)["epoch"].tolist() == [1, 2]
    assert len(audit_epochs(long, 1).axes) == 3


def test_every_block_is_trained_on_the_final_slice(params):
    rows = controls.read_controls(params)["blocks"].search
    assert set(rows["split"]) == {params.final_split} and len(rows) == 5


def test_what_was_not_asked_for_is_not_trained(params):
    made = controls.read_controls(params)
    assert {name for name, found in made.found.items() if found} == {"blocks", "epochs"}
    assert not len(made["batch_norms"]) and not made.each("sizes") and not made.reruns
    assert set(read_results(params.results_dir)["method"]) == {"layer_wise"}


def test_an_unknown_control_is_refused(params):
    with pytest.raises(InputError, match=r"control: 'sed' is unknown; allowed: seeds, batch_norms"):
        controls.train_controls(params, ["sed"])


def test_a_control_is_read_with_the_slices_that_made_it():
    params = load_params("cpu", search_split="train[:20%]", select_on="best_val_accuracy")
    for control in controls.CONTROLS:
        for job in control.jobs(params):
            assert job.params.select_on == "best_val_accuracy"
            expected = params.final_split if control.name == "blocks" else "train[:20%]"
            assert job.params.search_split == expected, control.name
