"""Reading honours its profile: other slices and another score give the same kinds of verdict.

And it starts no Keras.
"""

import subprocess
import sys

import pandas as pd
import pytest
from committed import PROJECT, RESULTS
from rows import make_rows

from lib.audit.claims import CLAIMS, findings, status, verdicts
from lib.audit.scores import all_searches, scores
from lib.ledger import append_row
from lib.methods import APPROACHES, SEARCHES
from lib.params import ROOT, load_params
from lib.report import figures
from lib.results import Results

SLICES = {"search_split": "train[:20%]", "final_split": "train[:60%]"}
PAPERS = {"train[:10%]": "train[:20%]", "train[:70%]": "train[:60%]"}


@pytest.fixture(scope="module")
def rows():
    return make_rows(["VGG16", "MobileNet"])


def test_other_slices_give_the_same_verdicts(rows):
    params = load_params("smoke", repeats=4, **SLICES)
    there = Results.of(rows.assign(split=rows["split"].replace(PAPERS)), params)
    pd.testing.assert_frame_equal(verdicts(there), verdicts(Results(rows)))
    tested = [claim.name for claim in CLAIMS if findings(there)[claim.name]]
    assert len(tested) == len(CLAIMS) - 1  # the search was not repeated


def test_rows_of_other_slices_are_not_tested_and_that_is_said(rows):
    other = Results(rows, search_split="train[:20%]", final_split="train[:60%]")
    assert {status(found) for found in findings(other).values()} == {"not tested"}


def test_the_score_that_picks_blocks_picks_the_same_for_claims_and_figures(rows):
    """Another block is the best by its best epoch; nothing else differs."""
    searched = rows["split"] == "train[:10%]"
    best = (1 - rows["val_accuracy"]).where(searched, rows["best_val_accuracy"])
    results = Results(rows.assign(best_val_accuracy=best), "best_val_accuracy")
    for (method, name), search in all_searches(results).items():
        key = results.winner(method, name)["key"]
        assert search.keys[search.best_place] == key
        (shown,) = scores(results, honest=False).winners[method, name].runs
        assert shown == key != Results(rows).winner(method, name)["key"]
        weights = scores(results).winners[method, name].runs
        first = max((k for k in weights if isinstance(k, str)), key=weights.get)
        assert first == key  # also where other photos choose
    tested = {name for name, found in findings(results).items() if found}
    assert tested == {name for name, found in findings(Results(rows)).items() if found}
    drawn = figures.fig05_block_wise(results)
    for ax, name in zip(drawn.axes, results.backbones, strict=True):
        place = results.winner("block_wise", name)["position"]
        assert ax.get_title("right").startswith(f"best: {place} ")


def test_the_last_epochs_score_chooses_by_photos_alone(rows):
    for search in all_searches(Results(rows)).values():
        assert (search.ahead == 0).all()
        assert search.right.mean(axis=1).argmax() == search.best_place
    assert {method for method, _ in all_searches(Results(rows))} == set(SEARCHES[:3])


def test_claims_compare_the_methods_that_they_name(rows):
    """Without the rows of one of them, fewer comparisons are left; others matter to none."""
    every = {name: len(found) for name, found in findings(Results(rows)).items()}
    named = {method for claim in CLAIMS for method in claim.methods}
    for method in {*APPROACHES, "random", *named}:
        rest = findings(Results(rows[rows["method"] != method]))
        for claim in CLAIMS:
            left, all_there = len(rest[claim.name]), every[claim.name]
            fewer = method in claim.methods and all_there
            assert left < all_there if fewer else left == all_there, (claim.name, method)


# ------------------------------------------------------------------------------- without Keras

READING = """
import sys
from lib.__main__ import main
from lib import ledger, methods, results
from lib.audit import claims, doubts, figures, intervals, scores, tables
from lib.report import captions, explore, figures, layers, paper, schemes, style, tables
from lib.tune import settings
from lib.upkeep import pages
code = main(sys.argv[1:])
print(*sorted({"keras", "tensorflow", "jax"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


def read(*words, **environment):
    command = [sys.executable, "-c", READING, *words]
    env = {"PATH": "", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, env=env, capture_output=True, encoding="utf-8", timeout=300)


def test_figures_and_the_audit_start_no_keras(tmp_path, rows):
    params = load_params("smoke", results=str(tmp_path / "rows"))
    one = rows[(rows["backbone"] == "VGG16") & (rows["repeat"] < params.repeats)]
    for row in one.to_dict("records"):
        append_row(params.results_dir / f"{row['method']}-VGG16.csv", row)
    done = read("figures", "profile=smoke", f"results={tmp_path / 'rows'}")
    assert (done.returncode, done.stderr.strip()) == (0, "")
    made = {path.name for path in (tmp_path / "rows" / "figures").iterdir()}
    assert {"fig02_parameters.png", "fig10_sliding_window_repeats.svg", "verdicts.csv"} <= made
    names = pd.read_csv(tmp_path / "rows" / "figures" / "verdicts.csv")["name"]
    assert names.tolist() == [claim.name for claim in CLAIMS]


# ---------------------------------------------------------------------------------- one claim


def test_a_claim_is_told_with_its_comparisons_and_the_files_of_its_rows():
    settings = "profile=cpu", f"results={RESULTS}"
    done = read("claim", *settings, "--only=block_wise_never_below_baseline_2")
    assert (done.returncode, done.stderr.strip()) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("“the block-wise approach had been consistent")
    assert lines[0].endswith("(Section VI, Figure 8)")
    assert "verdict    holds: every comparison is decided as the paper says" in lines
    assert "Table I    4 of 5 comparisons as printed are as the claim says" in lines
    (first,) = [line for line in lines if line.startswith("  MobileNet: Block-wise − Baseline II")]
    assert " [+" in first and first.endswith("decided for")
    files = [line.removeprefix("rows       ") for line in lines if line.startswith("rows ")]
    assert len(files) == 2 * 3 and all((PROJECT / path).is_file() for path in files)


def test_an_unknown_claim_is_one_line_that_lists_the_names(tmp_path):
    done = read("claim", "profile=smoke", f"results={tmp_path}", "--only=layer_differ")
    line = done.stderr.splitlines()[0]
    assert done.returncode == 2 and not done.stdout
    assert line.startswith("error: claim: 'layer_differ' is unknown; allowed: ")
    assert all(claim.name in line for claim in CLAIMS)
