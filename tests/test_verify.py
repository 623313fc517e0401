"""`make verify` passes on what is committed, and fails when anything of it is altered."""

import shutil
import subprocess

import numpy as np
import pytest
from committed import PROJECT, copied
from committed import RESULTS as COMMITTED
from rows import make_rows, row

from lib.audit.figures import write_all
from lib.ledger import append_row, pack_hits, read_results, run_key
from lib.params import load_params
from lib.results import Results, planned
from lib.upkeep import pages
from lib.upkeep.verify import (
    UNFINISHED,
    files_wrong,
    results_wrong,
    rows_lacking,
    rows_wrong,
    tracked,
    verify,
)


@pytest.fixture
def root(tmp_path):
    """A copy of what is committed of one profile."""
    shutil.copytree(COMMITTED, tmp_path / "results" / "cpu")
    return tmp_path


def sound(**changes):
    """A row without a fault."""
    values = row(val_accuracy=0.5, best_val_accuracy=0.6, train_accuracy=0.75, epochs=3)
    values |= {"curve": "90;180;150", "hits": pack_hits(np.arange(300) < 150)} | changes
    return values | {"key": changes.get("key", run_key(values))}


def frame(tmp_path, *rows):
    for values in rows:
        append_row(tmp_path / "block_wise-VGG16.csv", values)
    return read_results(tmp_path)


@pytest.mark.long
def test_everything_that_is_committed_is_sound():
    assert list(verify(PROJECT)) == []


def test_one_altered_digit_of_a_row_is_found(root):
    path = root / "results" / "cpu" / "baseline_2-MobileNet.csv"
    text = path.read_text()
    place = text.index(",0.", text.index("\n")) + 4
    path.write_text(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])
    problem = next(verify(root))
    assert "baseline_2-MobileNet.csv, line 2" in problem and "altered" in problem


def test_figures_repeat_byte_by_byte_and_one_altered_byte_is_found(tmp_path):
    params, rows = load_params("smoke", results=str(tmp_path / "rows")), make_rows(["MobileNet"])
    rows = rows[rows["repeat"] < params.repeats]
    folder = tmp_path / "figures"
    write_all(Results.of(planned(rows, params), params), Results.read_native(params), folder)
    svg = folder / "fig08_final.svg"
    svg.write_text(svg.read_text().replace("0.8", "0.9", 1))
    (folder / "table1.csv").unlink()
    (folder / "fig99.png").write_bytes(b"")
    found = list(files_wrong(rows, folder, params))
    assert len(found) == 3  # all other files are drawn again as they were
    for name, words in (("fig08", "not what"), ("fig99", "nothing"), ("table1.csv", "missing")):
        assert any(name in problem and words in problem for problem in found)


def test_a_missing_block_and_a_missing_repeat_are_found():
    rows = read_results(COMMITTED, ["MobileNet"])
    rows = rows[rows["backbone"] == "MobileNet"]
    params = load_params("cpu")
    assert list(rows_lacking(rows, params)) == []
    layer = (rows["method"] == "layer_wise") & (rows["block"] == "conv1")
    (problem,) = rows_lacking(rows[~layer], params)
    assert problem == "layer_wise-MobileNet: 1 blocks lack a run, such as 'conv1'"
    repeat = (rows["method"] == "block_wise") & (rows["repeat"] == 3)
    (problem,) = rows_lacking(rows[~repeat], params)
    assert "block_wise-MobileNet: final repeats are [0, 1, 2], wanted 4" in problem
    (problem, *_) = rows_lacking(rows[rows["method"] != "top_3"], params)
    assert "top_3-MobileNet: the search lacks its run" in problem


def test_repeats_have_the_orders_that_the_profile_says():
    rows = read_results(COMMITTED, ["MobileNet"])
    assert list(rows_lacking(rows, load_params("cpu"))) == []
    own = list(rows_lacking(rows, load_params("cpu", repeat_order="own")))
    assert len(own) == 8 and all("orders are [0, 0, 0, 0], wanted own" in line for line in own)


def test_rows_still_being_made_may_lack_some_and_say_when_they_do_not(tmp_path):
    folder = tmp_path / "results" / "cpu"
    shutil.copytree(COMMITTED, folder)
    shutil.copytree(PROJECT / "params", tmp_path / "params")

    def problems():
        return list(results_wrong(tmp_path))

    (folder / "random-MobileNet.csv").unlink()
    assert "results/cpu: random-MobileNet: the search lacks its run" in problems()
    (folder / UNFINISHED).write_text("random\n")
    assert problems() == []
    shutil.copy(COMMITTED / "random-MobileNet.csv", folder)
    (problem,) = problems()
    assert problem == "results/cpu: lacks nothing; remove the file UNFINISHED"


def test_a_sound_row_has_no_fault(tmp_path):
    assert list(rows_wrong(frame(tmp_path, sound()))) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": "0123456789abcdef"}, "key is 0123456789abcdef, its settings give"),
        ({"val_accuracy": 0.501}, "val_accuracy is 0.501, no multiple of 1/300"),
        ({"train_accuracy": 0.333}, "train_accuracy is 0.333, no multiple of 1/100"),
        ({"hits": pack_hits(np.arange(300) < 149)}, "disagree: 150, 180, 149, (150, 180)"),
        ({"hits": "ff"}, "not one bit for each of 300 images"),
        ({"best_val_accuracy": 0.5}, "disagree"),
        ({"failed": "the loss is nan from epoch 1 on"}, "val_loss is 1.25, failed is 'the loss"),
    ],
)
def test_a_row_that_contradicts_itself_is_found(tmp_path, changes, words):
    problems = list(rows_wrong(frame(tmp_path, sound(**changes))))
    assert any(words in problem for problem in problems), problems


def test_one_key_with_two_results_is_found(tmp_path):
    other = {"val_accuracy": 0.51, "curve": "90;180;153", "hits": pack_hits(np.arange(300) < 153)}
    rows = frame(tmp_path, sound(), sound(method="top_3", **other))
    (problem,) = rows_wrong(rows)
    assert problem == f"key {rows['key'][0]} has two results"


def test_methods_that_were_begun_must_be_whole_without_a_profile():
    rows = make_rows(["VGG16"], methods=["baseline_1"])
    assert list(rows_lacking(rows, None)) == []
    rows = make_rows(["VGG16"], methods=["block_wise"])  # its layers are made up
    assert "blocks lack a run" in next(rows_lacking(rows, None))


ADDED = ["params/mine.yaml", "params/cpu_more.yaml", "results/mine/block_wise-VGG16.csv"]
ADDED += ["results/empty/notes.txt", "figures/mine/fig.png", "figures/mine.png"]
BESIDE = "results/cpu_more/block_wise-EfficientNetB0.csv"  # beside ledgers that are tracked


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A small project under git, to which a user has added all kinds of files."""
    rows = "results/cpu/block_wise-MobileNet.csv"
    copies = dict.fromkeys(("params", "results/bench.csv", "figures/bench.png"))
    for name, other in (copies | {rows: "results/cpu_more/block_wise-MobileNet.csv"}).items():
        source, target = PROJECT / name, tmp_path / (other or name)
        target.parent.mkdir(exist_ok=True, parents=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    shutil.copy(PROJECT / "figures" / "bench.svg", tmp_path / "figures")
    monkeypatch.setattr(pages, "contents", lambda root: {})
    monkeypatch.setattr(pages, "outdated", lambda root, made: [])  # there is none
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    for name in ADDED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("epochs: 3\n")
    append_row(tmp_path / BESIDE, row(backbone="EfficientNetB0"))  # its key is not that of a run
    (tmp_path / "results" / "nothing").mkdir()
    return tmp_path


def git(folder, *words):
    subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True)


def test_what_a_user_adds_is_not_looked_at(repository):
    assert "mine" not in " ".join(map(str, tracked(repository)))
    assert (repository / BESIDE).exists() and list(verify(repository)) == []
    shutil.rmtree(repository / ".git")  # nobody knows now what was committed
    problems = " ".join(verify(repository))
    assert f"{repository}/figures/mine.png is made by nothing" in problems
    assert "results/mine/block_wise-VGG16.csv" in problems and "-EfficientNetB0" in problems


def test_what_is_added_to_git_is_looked_at(repository):
    git(repository, "add", "-A")
    problems = " ".join(verify(repository))
    assert "figures/mine.png is made by nothing" in problems
    assert "results/mine/block_wise-VGG16.csv" in problems and "-EfficientNetB0" in problems


def test_the_tests_see_what_git_tracks(repository):
    copy = copied(repository)
    assert {p.relative_to(copy) for p in copy.rglob("*") if p.is_file()} == tracked(repository)
    assert not (copy / "params" / "mine.yaml").exists() and (copy / "params" / "cpu.yaml").exists()
