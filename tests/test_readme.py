"""The README's table is what the committed rows give."""

from lib.params import ROOT
from lib.readme import PROFILE, README, refreshed
from lib.results import read_results


def test_the_table_is_made_from_the_committed_rows():
    rows = read_results(ROOT / "results" / PROFILE)
    text = README.read_text(encoding="utf-8")
    assert "ours" in text and refreshed(text, rows) == text
    other = rows.assign(val_accuracy=rows["val_accuracy"] + 0.01)
    assert refreshed(text, other) != text
