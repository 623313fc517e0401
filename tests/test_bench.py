"""The measurement: its cases, its rows, and what it says about them."""

import re
import shlex

import numpy as np
import pandas as pd
import pytest
from committed import PROJECT

from lib.params import BACKBONE_NAMES, InputError, load_params
from lib.sweep import plans
from lib.trainer import Trainer
from lib.upkeep import bench
from lib.upkeep.cost import check_room, estimate
from lib.upkeep.speed import REAL, _note, bench_figure, read_bench, speed_table, speed_words


@pytest.fixture
def params(tmp_path):
    return load_params(
        "smoke",
        backbones=("VGG16",),
        n_images=60,
        batch_size=6,  # the search has one batch
        epochs=2,
        results=str(tmp_path / "rows"),
    )


def test_the_cases_of_quick_are_every_search_the_final_runs_and_the_scaling():
    names = [case.name for case in bench.cases(load_params("quick"))]
    assert len(names) == len(set(names)) == 5 * 4 + 4 + 3
    assert {"VGG16/final", "MobileNetV2/64 runs", "MobileNetV2/224 px"} <= set(names)


def test_the_commands_of_the_page_name_the_cases_of_real_size_that_were_measured():
    page = (PROJECT / "docs" / "speed.md").read_text(encoding="utf-8").replace("\\\n", "")
    commands = [
        shlex.split(line, comments=True) for line in re.findall(r"^make bench.*", page, re.M)
    ]
    named = []
    for _, _, *words in commands:
        given = {"PROFILE": "quick", "CASE": "", "SET": ""} | dict(w.split("=", 1) for w in words)
        params = load_params(given["PROFILE"])
        known = {case.name.replace(" ", "_"): case for case in bench.cases(params)}
        named += [known[name] for name in given["CASE"].split()]
        assert not named or "epochs=3" in given["SET"].split()
    rows = read_bench(PROJECT / "results" / "bench.csv")
    rows = rows[rows["case"].str.fullmatch(REAL)]
    assert [case.name for case in named] == rows["case"].tolist()
    assert [case.params.alpha_of(*case.params.backbones) for case in named] == rows[
        "alpha"
    ].tolist()
    assert set(rows["epochs"]) == {3}


def test_cases_of_other_settings_keep_their_rows_apart():
    def folder(profile="quick", **changes):
        (found,) = {case.params.results for case in bench.cases(load_params(profile, **changes))}
        return found

    usual = folder(backbones=("VGG16",))
    assert usual == folder(backbones=("MobileNet",), lanes=4, figures="elsewhere")
    changes = ({"image_size": 64}, {"seed": 1}, {"alpha": {"MobileNet": 0.5}})
    others = [folder(backbones=("VGG16",), **change) for change in changes]
    others.append(folder("smoke", backbones=("VGG16",)))
    assert len({usual, *others}) == 5 and all(f.startswith("build/bench/") for f in others)
    assert folder(results="mine") == "mine"


def test_full_size_networks_are_measured_on_a_part_of_each_search():
    cases = bench.cases(load_params("paper", backbones=("MobileNetV2",)))
    assert [case.name for case in cases] == [
        f"MobileNetV2/{what} 224 px" for what in ("layer_wise", "block_wise", "sliding_window")
    ]
    assert {case.most for case in cases} == {16}


def test_an_unknown_case_is_refused(params):
    with pytest.raises(InputError, match="case: 'VGG16/all' is unknown; allowed: VGG16/layer_wise"):
        bench.bench(params, ["VGG16/all"])


def test_runs_are_spread_with_both_ends():
    assert bench._spread(list(range(13)), 4) == [0, 4, 8, 12]
    assert bench._spread([1, 2], 4) == [1, 2] and bench._spread([1, 2], None) == [1, 2]
    assert bench._spread(list(range(13)), 1) == [6]


def test_a_case_is_measured_both_ways_on_the_same_runs(params):
    case = bench.Case("VGG16/block_wise", params, "block_wise", 2)
    result = bench.measure(case)
    assert (result.runs, result.plain_runs, result.epochs, result.alpha) == (2, 2, 2, 1.0)
    assert result.plain_seconds > 0 and result.fused_seconds > 0 and result.epoch_speedup > 0
    assert result.speedup == pytest.approx(
        result.plain_seconds / result.fused_seconds, rel=0.02, abs=0.01
    )
    assert result.max_difference < 1e-4 and result.differ == 0
    assert 0 < result.bound < 1 and result.peak_gib > 0.1
    assert not list(params.results_dir.glob("*.csv"))  # measuring writes no rows


def test_one_run_alone_is_trained_plainly_before_and_after_the_engine(params, monkeypatch):
    trained = []
    plain, fused = bench._plain, bench.Trainer.histories
    monkeypatch.setattr(bench, "_plain", lambda *given: trained.append("plain") or plain(*given))
    monkeypatch.setattr(
        bench.Trainer, "histories", lambda *given: trained.append("fused") or fused(*given)
    )
    case = bench.Case("one", params, "layer_wise", 1)
    assert bench.measure(case).plain_runs == 1
    assert trained == ["plain", "fused", "plain"]


def test_the_arithmetic_of_a_run_against_hand_computed_numbers(params):
    plan = next(plans(params))
    task = Trainer(plan).task(params.search_split, params.epochs)
    runs = {run.block.name: run for run in plan.search_runs("layer_wise")}
    last = plan.graph.calls[plan.graph.span(("block5_conv3",))[0]].macs
    n_train, n_eval = 6, 18
    expected = 2 * (n_train * 2 * last + n_eval * last)  # of its inputs no gradient is needed
    assert bench._macs(plan, runs["block5_conv3"], task) == expected
    cost = estimate(plan)
    assert cost.runs > 13 + 5 and cost.macs > expected and cost.hours > 0


def test_a_result_takes_the_place_of_an_earlier_one_of_its_case(tmp_path):
    path = tmp_path / "bench.csv"
    fields = dict.fromkeys(bench.Result.__dataclass_fields__, 1) | {"machine": "m", "versions": "v"}
    for case, seconds in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        lost = np.nan if seconds == 3.0 else 0.5  # of a run that has diverged
        more = {"case": case, "plain_seconds": seconds, "max_difference": lost}
        bench._keep(bench.Result(**fields | more), path)
    rows = read_bench(path)
    assert np.isnan(rows["max_difference"][0])  # not the earlier row's
    assert list(zip(rows["case"], rows["plain_seconds"], strict=True)) == [("a", 3.0), ("b", 2.0)]


def test_table_and_figure_say_what_the_rows_say():
    values = dict.fromkeys(bench.Result.__dataclass_fields__, 1) | {"machine": "two cores"}
    values |= {"versions": "keras 3", "plain_seconds": 6.0, "fused_seconds": 1.5, "speedup": 4.0}
    names = ("x/y", "x/4 runs", "x/16 runs", "x/64 px", "x/128 px")
    df = pd.DataFrame([values | {"case": name, "runs": 10} for name in names])
    table = speed_table(df)
    assert "together: 4.0 times." in table and "two cores" in table
    assert "| x/y | 1 px | 10 | 6.0 | 1.50 |" in table
    bars, above, below = bench_figure(df).axes
    assert [bar.get_width() for bar in bars.patches] == [4.0]
    assert list(above.lines[0].get_ydata()) == [60, 60]
    assert list(below.lines[1].get_ydata()) == [1.5, 1.5]


def test_the_note_names_networks_of_real_size_first():
    names = ("MobileNet/layer_wise 224 px", "MobileNetV2/layer_wise 224 px", "MobileNet/layer_wise")
    rows = pd.DataFrame({"case": names, "speedup": [4.0, 5.0, 9.0]})
    for column in ("plain_seconds", "fused_seconds", "runs"):
        rows[column] = 1
    rows = rows.assign(machine="two cores", versions="keras 3", alpha=[0.5, 1.0, 1.0], epochs=3,
                       epoch_speedup=[2.0, 3.0, 9.0])  # fmt: skip
    note = _note(rows)
    assert note.startswith("Times faster at 224 px in whole runs of 3 epochs, and an epoch, ")
    assert "MobileNet of alpha 0.5 4.0 and 2.0, MobileNetV2 5.0 and 3.0." in note
    assert "The 1 cases of thin networks together: 1.0 times. Measured on two cores" in note
    assert _note(rows[:2]).endswith("5.0 and 3.0. Measured on two cores, keras 3.")


def test_there_is_room_for_what_fits(params):
    check_room(params)


def test_the_words_name_the_cases_that_were_measured():
    df = pd.DataFrame(
        {
            "case": ["X/4 runs", "X/1 runs", "X/64 px", "X/final", "Y/final"],
            "runs": [4, 1, 16, 8, 8],
            "image_size": [32, 32, 64, 32, 32],
            "speedup": [6.0, 2.0, 11.0, 3.5, 6.5],
        }
    )
    text = speed_words(df)
    assert "With 1 and 4 runs it is 2.0 and 6.0 times" in text
    assert "At 64 px it is 11.0 times" in text and "3.5 to 6.5 times" in text
    assert speed_words(df[df["case"] == "X/final"]).startswith("Final runs")


def test_the_page_says_how_much_of_the_budget_groups_take():
    peaks = read_bench(PROJECT / "results" / "memory.csv")
    assert set(peaks["backbone"]) == set(BACKBONE_NAMES)
    share = peaks["peak_gib"] / peaks["budget_gib"]
    assert share.min() >= 0.7 and share.max() <= 1
    page = (PROJECT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert "on all five networks within the budget, and\nat least seven tenths of it used" in page
