"""The README's tables are what the committed rows give."""

import pandas as pd
from committed import PROJECT, RESULTS
from rows import row

from lib import readme
from lib.results import read_results

PLACES = ("rows", "gains", "verdicts", "costlier", "remarks", "costs", "bench", "bench-words")
TEXT = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_the_tables_are_made_from_the_committed_rows():
    assert list(readme.outdated(PROJECT)) == []
    for name in PLACES:
        assert readme.replaced(TEXT, name, "something else\n") != TEXT


def test_other_rows_give_another_table():
    rows = read_results(RESULTS)
    native = read_results(RESULTS.with_name("cpu_native"))
    assert readme.comparison(rows, native) in TEXT
    for which in (0, 1):
        other = [rows, native]
        other[which] = other[which].assign(val_accuracy=other[which]["val_accuracy"] + 0.01)
        assert readme.comparison(*other) not in TEXT


def test_a_run_of_two_methods_costs_once():
    rows = pd.DataFrame([row(seconds=1800.0), row(method="top_3", seconds=1800.0)])
    rows = pd.concat([rows, pd.DataFrame([row(seconds=3600.0, key="another key")])])
    assert readme.costs({"cpu": rows}) == "The committed rows of `cpu`: VGG16 2 runs in 1.5 h.\n"
