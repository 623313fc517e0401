"""The pool simulated: who is free first gets the costliest group; and what is told of it."""

from dataclasses import replace

import pandas as pd
import pytest

from lib.groups import FEW_LANES, Grouping
from lib.params import ROOT, load_params
from lib.sweep import plans
from lib.upkeep.scaling import Item, makespan, simulate
from lib.upkeep.speed import scaling_file, scaling_words


def items(*seconds: float, start: float = 0, backbone: str = "VGG16") -> list[Item]:
    return [Item(backbone, each, start) for each in seconds]


def test_the_costliest_group_goes_first_to_whoever_is_free():
    assert makespan(items(2, 3, 4, 3), 2) == (6, 0)
    assert makespan(items(1, 1, 1, 9), 2) == (9, pytest.approx(1 - 12 / 18))
    assert makespan(items(5), 10) == (5, 0.9)


def test_a_network_is_built_once_on_each_worker():
    assert makespan(items(2, 2, start=10), 1) == (14, 0)
    assert makespan(items(2, 2, start=10), 2) == (12, 0)
    both = items(2, start=10) + items(2, start=10, backbone="MobileNet")
    assert makespan(both, 1) == (24, 0)


@pytest.fixture(scope="module")
def plan():
    return next(plans(load_params("smoke", backbones=("MobileNet",), epochs=2)))


def test_many_workers_get_a_lane_each_where_one_lane_is_work_enough(plan):
    runs = plan.search_runs("layer_wise")
    small = Grouping(plan).cut(runs, workers=1000)
    assert min(map(len, small)) >= FEW_LANES // 2  # a lane of this network is no work
    grouping = Grouping(plan)
    grouping._lane_work = lambda run: 1e13
    assert {len(group) for group in grouping.cut(runs, workers=1000)} == {1}
    assert max(len(group) for group in grouping.cut(runs, workers=1)) >= FEW_LANES


def test_more_workers_take_no_longer_and_no_less_than_their_share(monkeypatch):
    small = load_params("smoke", backbones=("MobileNet",))
    given = {"backbones": ("MobileNet",), "memory_gib": 4.0}
    monkeypatch.setattr("lib.upkeep.scaling.load_params", lambda *_, **__: replace(small, **given))
    costs = pd.DataFrame(
        [{"backbone": "MobileNet", "depth": d, "macs": 1e9, "epoch_seconds": 2000.0,
          "set_up_seconds": 1000.0, "start_seconds": 3000.0} for d in (0, 40)]
    )  # fmt: skip
    found = simulate(costs, (1, 2, 50)).set_index(["stage", "workers"])
    for stage in ("search", "ranked", "final"):
        hours = found.loc[stage, "hours"]
        assert hours.is_monotonic_decreasing and hours.min() > 0.5  # they are rounded to 0.001
        assert (hours >= found.loc[stage, "longest_hours"] - 1e-3).all()
        assert (hours >= found.loc[stage, "shared_hours"] - 1e-3).all()


def test_what_is_told_is_what_the_files_hold():
    measured, simulated = (pd.read_csv(scaling_file(w)) for w in ("workers", "simulated"))
    text = scaling_words(measured, simulated)
    one, two = measured["seconds"]
    assert f"{one / two:.2f} times faster" in text
    assert text in (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert sorted(set(simulated["workers"])) == [1, 10, 100, 1000]
