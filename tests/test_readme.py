"""The README's tables are what the committed rows give."""

from lib import readme
from lib.params import ROOT
from lib.results import read_results

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tables_are_made_from_the_committed_rows():
    assert list(readme.outdated()) == []
    for name in ("rows", "verdicts", "bench"):
        assert readme.replaced(TEXT, name, "something else\n") != TEXT


def test_other_rows_give_another_table():
    rows = read_results(ROOT / "results" / readme.PROFILE)
    other = rows.assign(val_accuracy=rows["val_accuracy"] + 0.01)
    assert readme.comparison(rows) in TEXT and readme.comparison(other) not in TEXT
