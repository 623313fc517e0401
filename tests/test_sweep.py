"""Sweeps: planned, resumed, merged, and the same rows from either engine."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rows import rewrite

import lib.groups
import lib.trainer
from lib import sweep
from lib.__main__ import main
from lib.audit import doubts
from lib.audit.claims import layers_against_seeds
from lib.groups import FEW_LANES, Grouping
from lib.lanes.memory import MOST_LANES
from lib.lanes.trunk import Trunk
from lib.ledger import COLUMNS, read_ledger, read_results, run_key, unpack_hits
from lib.methods import BASELINES, methods
from lib.params import InputError, load_params
from lib.plan import Plan
from lib.results import Results, planned
from lib.sweep import final, plans, search, train_runs

TAIL = ("seconds", "lanes", "finished_at", "git_sha")  # these may differ between equal runs


def small_study(folder):
    return load_params(
        "smoke", backbones=("VGG16",), n_images=60, epochs=2, results=str(folder / "rows")
    )


@pytest.fixture
def params(tmp_path):
    return small_study(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study with all of its rows; tests leave them as they are."""
    params = small_study(tmp_path_factory.mktemp("whole"))
    final(params, *methods(params))
    return params, read_results(params.results_dir)


def ledger(params, method):
    return read_ledger(params.results_dir / f"{method}-VGG16.csv")


def test_a_search_writes_one_row_a_block_and_nothing_twice(params):
    rows = search(params, "block_wise")
    assert list(rows.columns) == list(COLUMNS)
    assert list(rows["block"]) == [f"block_{i:02}" for i in range(1, 6)]
    assert rows["key"].is_unique
    assert set(rows["split"]) == {"train[:10%]"}
    assert set(rows["train_images"]) == {6} and set(rows["eval_images"]) == {18}
    for _, row in rows.iterrows():
        assert unpack_hits(row["hits"], 18).mean() == row["val_accuracy"]
        curve = [int(hits) / 18 for hits in row["curve"].split(";")]
        assert len(curve) == 2
        assert (curve[-1], max(curve)) == (row["val_accuracy"], row["best_val_accuracy"])
        assert run_key(row) == row["key"]
    np.testing.assert_array_equal((rows["val_accuracy"] * 18).round(9) % 1, 0)
    before = (params.results_dir / "block_wise-VGG16.csv").read_bytes()
    search(params, "block_wise")
    assert (params.results_dir / "block_wise-VGG16.csv").read_bytes() == before


def test_a_classifier_without_dropout_is_repeated_too(params):
    rows = final(replace(params, dropout=0.0, repeats=3), "baseline_1")
    assert rows["repeat"].tolist() == [0, 1, 2] and rows["seed"].is_unique


def test_an_interrupted_sweep_resumes_to_the_same_rows(params):
    path = params.results_dir / "block_wise-VGG16.csv"
    whole = search(params, "block_wise").sort_values("block", ignore_index=True)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3]) + lines[3][:25])  # the third row torn, the rest lost
    with pytest.warns(UserWarning, match="no end"):
        again = search(params, "block_wise").sort_values("block", ignore_index=True)
    same = [c for c in COLUMNS if c not in (*TAIL, "val_loss")]
    assert again[same].equals(whole[same])
    np.testing.assert_allclose(again["val_loss"], whole["val_loss"], rtol=1e-4)
    assert (again["finished_at"] == whole["finished_at"]).sum() >= 2  # two were not retrained


def test_both_engines_give_the_same_rows(params, tmp_path):
    plain = replace(params, engine="plain", results=str(tmp_path / "plain"))
    for run in (params, plain):
        search(run, "baseline_1", "random")
        final(run, "baseline_1")
    for method in ("baseline_1", "random"):
        ours, reference = ledger(params, method), ledger(plain, method)
        same = [c for c in COLUMNS if c not in (*TAIL, "val_loss")]
        assert ours[same].equals(reference[same])
        np.testing.assert_allclose(ours["val_loss"], reference["val_loss"], rtol=1e-5)


def test_windows_with_the_same_weights_are_one_run(whole):
    rows = Results.of(whole[1], whole[0]).search
    windows = rows[rows["method"] == "sliding_window"]
    assert windows["layers"].is_unique
    single = windows[~windows["layers"].str.contains(";") & (windows["layers"] != "")]
    layers = rows[rows["method"] == "layer_wise"].set_index("layers")
    for _, window in single.iterrows():  # covers one layer with weights: that layer's run
        assert window["key"] == layers.loc[window["layers"], "key"]
        assert window["finished_at"] == layers.loc[window["layers"], "finished_at"]


def test_ranked_methods_run_the_layer_wise_search_first(params):
    rows = search(params, "top_3")
    best = ledger(params, "layer_wise").sort_values("val_accuracy", kind="stable")
    assert len(best) == 13
    scores = best.set_index("block")["val_accuracy"]
    names = rows["layers"].item().split(";")
    assert scores[names].min() >= scores.drop(names).max()


def test_a_search_may_be_repeated_with_other_seeds_and_tables_take_the_first(params):
    twice = search(params, "block_wise", repeats=2)
    assert sorted(twice["repeat"]) == [0] * 5 + [1] * 5
    assert (twice["seed"] == twice["repeat"]).all() and twice["key"].is_unique
    once = search(params, "block_wise")
    assert once.equals(twice[twice["repeat"] == 0].reset_index(drop=True))
    assert len(Results(twice).search) == 5


def test_rows_of_other_settings_are_refused_before_anything_is_trained(params):
    search(params, "baseline_1")
    before = (params.results_dir / "baseline_1-VGG16.csv").read_bytes()
    with pytest.raises(
        InputError, match="baseline_1-VGG16.csv has baseline_1 with epochs 2, not 3"
    ):
        search(replace(params, epochs=3), "baseline_1", "block_wise")
    assert (params.results_dir / "baseline_1-VGG16.csv").read_bytes() == before
    assert not (params.results_dir / "block_wise-VGG16.csv").exists()


def from_jax(params, method, split):
    """Have rows of a method on a slice say that JAX has trained them."""
    of_method = params.results_dir / f"{method}-VGG16.csv"
    rows = read_ledger(of_method).to_dict("records")
    for row in (row for row in rows if row["split"] == split):
        row["backend"] = "jax"
        row["key"] = run_key(row)
    rewrite(of_method, rows)


def test_a_search_of_another_backend_is_gone_on_with_there_and_its_winners_are_trained_here(params):
    search(params, "block_wise")
    from_jax(params, "block_wise", params.search_split)
    before = ledger(params, "block_wise")
    assert set(search(params, "block_wise")["backend"]) == {"jax"}  # whole: nothing is trained
    begun = "lacks baseline_1, and the runs of VGG16 on train.:10%. were begun on jax, not tensorfl"
    with pytest.raises(InputError, match=begun + "ow; allowed: KERAS_BACKEND=jax, or another fold"):
        search(params, "baseline_1")
    with pytest.raises(InputError, match=begun):
        next(plans(params)).check()
    rows = final(params, "block_wise")
    assert set(rows["backend"]) == {"tensorflow"} and len(rows) == params.repeats
    assert ledger(params, "block_wise").head(len(before)).equals(before)
    Results(read_results(params.results_dir)).check_winners()


def test_the_block_of_a_ranked_search_may_be_trained_on_another_backend(params):
    search(params, "layer_wise")
    from_jax(params, "layer_wise", params.search_split)
    assert list(search(params, "top_3")["backend"]) == ["tensorflow"]
    plan = next(plans(params))
    plan.check_rows([*plan.search_runs("layer_wise"), *plan.search_runs("top_3")])


def test_final_runs_of_another_backend_are_refused_before_the_search_is_trained(params):
    final(params, "baseline_1")
    from_jax(params, "baseline_1", params.final_split)
    begun = "lacks final runs, and the runs of VGG16 on train.:70%. were begun"
    with pytest.raises(InputError, match=begun):
        next(plans(params)).check()


def test_rows_of_two_backends_on_one_slice_are_refused(params):
    search(params, "block_wise", "baseline_1")
    from_jax(params, "baseline_1", params.search_split)
    with pytest.raises(InputError, match="has baseline_1 with backend 'jax', not 'tensorflow'"):
        search(params, "block_wise", "baseline_1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"random_layers": 6},
            "random-VGG16.csv has random_3, and the search of this profile would be of random_6;",
        ),
        (
            {"search_split": "train[:20%]"},
            r"has \w+ with split 'train\[:10%\]'; allowed: search_split 'train\[:20%\]'",
        ),
        ({"window": 4}, r"sliding_window-VGG16.csv has window_001 with layers 'block1_conv1;block"),
        ({"final_split": "train[:60%]"}, r"with split 'train\[:70%\]'; allowed: search_split"),
        ({"plateau_factor": 1 / 3}, "with plateau '0.1, 10, 0.0001', not '0.3333333333333333, 10"),
    ],
)
def test_rows_of_another_plan_are_refused_before_anything_is_trained(whole, change, message):
    params, rows = whole
    with pytest.raises(InputError, match=message):
        next(plans(replace(params, **change))).check()
    for again in (search, final):
        with pytest.raises(InputError, match=message):
            again(replace(params, **change), *methods(params))
    assert read_results(params.results_dir).equals(rows)


def test_final_runs_of_a_block_that_another_score_picked_are_refused(whole):
    params, rows = whole
    other = replace(params, select_on="best_val_accuracy")
    ledger_of = params.results_dir / "block_wise-VGG16.csv"
    kept = ledger_of.read_bytes()
    best, second = (
        rows[(rows["method"] == "block_wise") & (rows["split"] == "train[:10%]")]
        .sort_values("val_accuracy", ascending=False)
        .to_dict("records")[:2]
    )
    changed = read_ledger(ledger_of).to_dict("records")
    for row in changed:  # the best epoch of another block was better still
        if row["key"] == second["key"]:
            row["best_val_accuracy"] = 1.0
    rewrite(ledger_of, changed)
    try:
        message = f"has {best['block']}, and the final runs of this profile would be of"
        with pytest.raises(InputError, match=f"{message} {second['block']};"):
            next(plans(other)).check()
        with pytest.raises(InputError, match=f"{message} {second['block']};"):
            final(other, "block_wise")
        seen = read_results(params.results_dir)
        with pytest.raises(InputError, match="of block_wise on VGG16 are of"):
            Results(seen, "best_val_accuracy").check_winners()
        Results(seen).check_winners()
    finally:
        ledger_of.write_bytes(kept)


def test_winners_are_blocks_that_the_search_proposes(whole):
    params, rows = whole
    Results(rows).check_winners()
    plan = next(plans(params))
    plan.check()
    for method in methods(params):
        proposed = {block.name for block in plan.blocks(method)}
        assert {run.block.name for run in plan.final_runs(method)} <= proposed


def test_slices_of_search_and_final_runs_must_differ(params):
    one = replace(params, final_split="train[:10%]")
    for refused in (next(plans(one)).check, lambda: final(one, "baseline_1")):
        with pytest.raises(InputError, match="final_split: 'train.:10%.' is search_split too"):
            refused()
    assert not params.results_dir.exists()


def test_whole_numbers_of_the_plateau_are_written_as_they_always_were(params):
    plan = next(plans(replace(params, plateau_min_delta=0, plateau_patience=0)))
    assert plan.search_runs("baseline_1")[0].settings["plateau"] == "0.1, 0, 0"


def test_rows_of_the_plan_are_those_of_its_methods_and_repeats(whole):
    params, rows = whole
    assert planned(rows, params).equals(rows)
    fewer = planned(rows, replace(params, repeats=1, top_k=(5,)))
    assert set(rows["method"]) - set(fewer["method"]) == {"top_3"}
    assert set(fewer["repeat"]) == {0} and set(rows["repeat"]) == {0, 1}


def test_one_lane_that_does_not_fit_is_one_line(params, monkeypatch):
    def exhausted(*_):
        raise MemoryError("no more")

    monkeypatch.setattr(lib.trainer, "train_fused", exhausted)
    with pytest.raises(InputError, match=r"memory: VGG16 with one lane does not fit \(no more\)"):
        search(params, "baseline_1")


def test_rows_with_the_key_of_another_version_are_refused(params):
    search(params, "baseline_1")
    path = params.results_dir / "baseline_1-VGG16.csv"
    (row,) = read_ledger(path).to_dict("records")
    rewrite(path, [row | {"key": "0123456789abcdef"}])
    with pytest.raises(InputError, match="baseline_1 with a key that its settings do not give"):
        search(params, "baseline_1")
    assert read_ledger(path)["key"].tolist() == ["0123456789abcdef"]


def test_a_search_is_repeated_with_other_seeds(tmp_path, monkeypatch):
    # One order for all seeds: then they are lanes of one model.
    settings = ["backbones=VGG16", "repeat_order=shared", f"results={tmp_path / 'rows'}"]
    monkeypatch.setattr(sweep, "SEEDS", 2)
    assert main(["seeds", "profile=smoke", *settings]) == 0
    results = Results(read_results(tmp_path / "rows"))
    (table,) = doubts.seeds(results).values()
    assert table.shape == (13, 2) and set(results.rows["method"]) == {"layer_wise"}
    assert len(list(layers_against_seeds(results))) == 1


def test_all_batch_norms_can_be_tuned_together(params):
    with pytest.raises(InputError, match="batch_norm: .* has no BatchNorm"):
        search(params, "batch_norm")  # VGG16 has none
    mobile = next(plans(replace(params, backbones=("MobileNet",))))
    (run,) = mobile.search_runs("batch_norm")
    assert len(run.block.layers) == 27


def test_final_runs_repeat_the_winner_with_other_seeds(whole):
    params, rows = whole
    rows = rows[rows["split"] == params.final_split]
    assert rows.groupby("method").size().to_dict() == dict.fromkeys(methods(params), 2)
    assert set(rows["split"]) == {"train[:70%]"} and set(rows["train_images"]) == {42}
    searched = ledger(params, "block_wise")
    searched = searched[searched["split"] == "train[:10%]"]
    winner = searched.loc[searched["val_accuracy"].idxmax(), "block"]
    assert set(rows[rows["method"] == "block_wise"]["block"]) == {winner}
    assert sorted(rows[rows["method"] == "block_wise"]["seed"]) == [0, 1]


def test_each_repeat_has_its_own_order_of_the_photos_and_all_methods_share_it(whole):
    params, _ = whole
    plan = next(plans(params))
    runs = [r for m in ("layer_wise", "baseline_2") for r in plan.final_runs(m)]
    assert [(r.repeat, r.order_seed) for r in runs] == [(0, 0), (1, 1)] * 2
    groups = Grouping(plan).cut(runs)
    assert [{r.order_seed for r in group} for group in groups] == [{0}, {1}]
    shared = next(plans(replace(params, repeat_order="shared")))
    assert {r.order_seed for r in shared.final_runs("layer_wise")} == {0}
    assert shared.search_runs("layer_wise")[0].key == plan.search_runs("layer_wise")[0].key


def test_methods_name_the_ranked_blocks(params):
    assert methods(params)[-3:] == ("top_3", "top_5", "sliding_window")
    assert "top_7" in methods(replace(params, top_k=(7,)))


def test_groups_are_neighbours_in_depth(params):
    plan = next(plans(replace(params, lanes=4)))
    runs = plan.search_runs("layer_wise")[::-1]
    groups = Grouping(plan).cut(runs)
    assert sorted(map(len, groups)) == [3, 3, 3, 4]
    firsts = [[plan.graph.span(r.block.layers)[0] for r in group] for group in groups]
    assert all(max(a) <= min(b) for a, b in zip(firsts, firsts[1:], strict=False))
    assert {r.key for group in groups for r in group} == {r.key for r in runs}


def test_a_fused_model_is_freed_before_the_next_one_is_built(params, monkeypatch):
    """Its graphs and its steps hold each other: without a collection both would stay."""
    plan = next(plans(params))
    trainer, built, there = lib.trainer.Trainer(plan, checkpoints=False), [], []
    build = lib.trainer.fuse

    def fuse(*arguments):
        there.append([model() is not None for model in built])
        model = build(*arguments)
        built.append(weakref.ref(model))
        return model

    monkeypatch.setattr(lib.trainer, "fuse", fuse)
    gc.disable()
    try:
        for some in np.array_split(np.array(plan.search_runs("block_wise"), object), 3):
            trainer.histories(list(some))
    finally:
        gc.enable()
    assert there == [[], [False], [False, False]]


def test_long_runs_come_in_smaller_groups_whose_rows_come_sooner(params, monkeypatch):
    plan = next(plans(params))
    runs = plan.search_runs("layer_wise")
    work = sum(call.macs for call in plan.graph.calls) * (3 * 6 + 18) * params.epochs  # of a run

    def sizes(lanes):
        monkeypatch.setattr(lib.groups, "GROUP_WORK", (lanes + 0.5) * work)
        return [len(group) for group in Grouping(plan).cut(runs)]

    assert sizes(13) == [13] and MOST_LANES > 13
    assert sizes(10) == [7, 6]
    assert sizes(2) == [7, 6] and FEW_LANES == 8  # two would be too few


def test_groups_on_a_gpu_are_as_large_as_compiles_within_a_minute(params, monkeypatch):
    plan = next(plans(params))
    runs = plan.search_runs("layer_wise")
    monkeypatch.setattr(lib.groups, "GROUP_WORK", 0)  # however long they train
    assert max(len(group) for group in Grouping(plan).cut(runs)) <= FEW_LANES
    monkeypatch.setattr(lib.groups, "device", lambda: "NVIDIA H200")
    assert [len(group) for group in Grouping(plan).cut(runs)] == [13]
    monkeypatch.setattr(lib.groups, "GPU_LANES", 5)
    assert sorted(len(group) for group in Grouping(plan).cut(runs)) == [3, 5, 5]


def test_groups_are_as_many_as_workers_where_runs_suffice(params):
    plan = next(plans(params))
    runs = plan.search_runs("layer_wise") + plan.search_runs("block_wise")
    groups = Grouping(plan).cut(runs, workers=2)
    assert [len(group) for group in groups] == [9, 9]
    assert sorted(len(g) for g in Grouping(plan).cut(runs, workers=9)) == [6, 6, 6]


def test_lanes_come_in_the_order_in_which_they_leave_the_trunk(params):
    """Baseline II tunes from the first layer to the last: first group, last lane."""
    plan = next(plans(replace(params, lanes=4)))
    runs = plan.search_runs("baseline_2") + plan.search_runs("layer_wise")
    groups = Grouping(plan).cut(runs)
    lasts = [[plan.graph.span(r.block.layers)[1] for r in group] for group in groups]
    assert all(a == sorted(a) for a in lasts)
    assert groups[0][-1].method == "baseline_2"


def mixed_runs(plan):
    """Shaped as final runs are: both baselines and blocks of any depth."""
    shallow = [run for m in (*BASELINES, "random") for run in plan.search_runs(m)]
    return shallow + plan.search_runs("block_wise")[-3:]


def assert_same_rows(params, others):
    """All rows of two folders."""
    a, b = (
        pd.concat(map(read_ledger, sorted(p.results_dir.glob("*.csv")))).sort_values(
            ["method", "block", "repeat"], ignore_index=True
        )
        for p in (params, others)
    )
    same = [c for c in COLUMNS if c not in (*TAIL, "val_loss")]
    assert len(a) == 6 and b[same].equals(a[same])
    np.testing.assert_allclose(b["val_loss"], a["val_loss"], rtol=1e-4)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    params = small_study(tmp_path_factory.mktemp("undisturbed"))
    plan = next(plans(params))
    train_runs([plan], mixed_runs)
    return params


def test_halving_runs_of_any_depth_ends_with_the_rows_of_an_undisturbed_sweep(
    params, undisturbed, monkeypatch
):
    """The halves' trunks differ: lanes are ordered by last, trunks cut at the first tuned layer."""
    train, tried = lib.trainer.train_fused, []

    def small(steps, *rest):
        tried.append((len(steps.model.lanes), steps.model.cut))
        if tried[-1][0] > 2:
            raise MemoryError
        return train(steps, *rest)

    monkeypatch.setattr(lib.trainer, "train_fused", small)
    plan = next(plans(params))
    train_runs([plan], mixed_runs)
    assert tried[0] == (6, 0) and len({cut for _, cut in tried}) > 2
    assert_same_rows(undisturbed, params)


@pytest.mark.parametrize("deepest", [9, pytest.param(0, marks=pytest.mark.long)])
def test_a_trunk_that_does_not_fit_is_cut_lower(params, undisturbed, monkeypatch, capsys, deepest):
    """And the rows stay; with no trunk at all, too."""
    advance, cuts = Trunk.advance, []

    def small(trunk, cut, *rest):
        if cut > deepest:
            raise MemoryError
        cuts.append(cut)
        return advance(trunk, cut, *rest)

    monkeypatch.setattr(Trunk, "advance", small)
    plan = next(plans(replace(params, lanes=2)))
    train_runs([plan], mixed_runs)
    assert (max(cuts) > 0) if deepest else not cuts
    assert "out of memory below call" in "".join(capsys.readouterr())
    assert_same_rows(undisturbed, params)


@pytest.mark.long
def test_a_budget_may_change_the_groups_and_never_the_rows(params, undisturbed):
    """Too small for anything: one lane at a time, above no trunk."""
    plan = next(plans(replace(params, memory_gib=0.1)))
    train_runs([plan], mixed_runs)
    lanes = pd.concat(map(read_ledger, params.results_dir.glob("*.csv")))["lanes"]
    assert set(lanes) == {1}
    assert_same_rows(undisturbed, params)


def test_lanes_do_not_change_results(params, tmp_path):
    few = replace(params, lanes=2, results=str(tmp_path / "few"))
    together = search(params, "block_wise").set_index("block")
    apart = search(few, "block_wise").set_index("block").loc[together.index]
    assert set(apart["lanes"]) <= {1, 2} and set(together["lanes"]) == {5}
    np.testing.assert_allclose(apart["val_loss"], together["val_loss"], rtol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"epochs": 3},
        {"learning_rate": 0.1},
        {"dropout": 0.1},
        {"batch_size": 3},
        {"input_scaling": "native"},
        {"plateau_patience": 3},
        {"eval_split": "train[80%:]"},
    ],
)
def test_a_key_names_all_that_determines_a_run(params, change):
    def key(p):
        plan: Plan = next(plans(p))
        return plan.search_runs("baseline_1")[0].key

    assert key(replace(params, **change)) != key(params)
    assert key(replace(params, lanes=3, engine="plain", repeats=9)) == key(params)
