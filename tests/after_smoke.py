"""What `make smoke` must have left behind; run by it, not collected with the other tests."""

from test_figures import FIGURES

from lib.ledger import read_results
from lib.methods import methods
from lib.params import ROOT, load_params

PARAMS = load_params("smoke", results="build/smoke/rows")


def test_every_figure_and_table_came_out():
    for name in FIGURES:
        for kind in ("png", "svg"):
            assert (PARAMS.figures_dir / f"{name}.{kind}").stat().st_size > 10_000
    for kind in ("csv", "md", "tex"):
        assert (PARAMS.figures_dir / f"table1.{kind}").stat().st_size > 100
    for kind in ("csv", "md"):
        assert (PARAMS.figures_dir / f"table1_comparison.{kind}").stat().st_size > 100


def test_every_method_ran_for_every_backbone():
    rows = read_results(PARAMS.results_dir)
    for backbone in PARAMS.backbones:
        of = rows[rows["backbone"] == backbone]
        for method in methods(PARAMS):
            splits = of[of["method"] == method].groupby("split").size()
            assert splits["train[:10%]"] >= 1
            assert splits["train[:70%]"] == PARAMS.repeats


def test_executed_notebooks_are_whole():
    executed = sorted(p.relative_to(ROOT) for p in (ROOT / "build/smoke").rglob("*.ipynb"))
    assert len(executed) == len(list((ROOT / "notebooks").glob("0[0-8]*.ipynb")))
    assert not [p for p in executed if "failed" in p.name]
