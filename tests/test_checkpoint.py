"""Checkpoints: a group that was stopped goes on from its last, and ends with the same rows."""

from collections import namedtuple

import pytest

import lib.train
from lib import checkpoint
from lib.checkpoint import Checkpoint
from lib.ledger import COLUMNS
from lib.params import load_params
from lib.sweep import plans, train_runs

CHANGE = ("seconds", "finished_at", "git_sha")  # of a row, from one training to the next
STOPPED = 4  # the epoch that is not reached: rates are lowered before it and after


def study(folder):
    """Of MobileNetV2, whose tuned BatchNorms have statistics besides weights."""
    return load_params(
        "smoke",
        backbones=("MobileNetV2",),
        n_images=60,
        epochs=6,
        plateau_patience=2,
        results=str(folder / "rows"),
    )


def train(params):
    """Its deepest blocks, the classifier alone among them: the rows."""
    plan = next(plans(params))

    def runs(plan):
        return plan.search_runs("baseline_1") + plan.search_runs("block_wise")[-3:]

    train_runs([plan], runs)
    return plan.results().rows


@pytest.fixture(autouse=True)
def every_epoch(tmp_path, monkeypatch):
    """A checkpoint after every epoch, in a folder of its own."""
    monkeypatch.setattr(checkpoint, "FOLDER", tmp_path / "checkpoints")
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    return tmp_path / "checkpoints"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return train(study(tmp_path_factory.mktemp("undisturbed")))


@pytest.fixture
def trained(monkeypatch):
    """The epochs that are trained, as they are begun."""
    begun, epoch_of = [], lib.train.fused_epoch

    def noted(steps, task, epoch, *rest):
        begun.append(epoch)
        epoch_of(steps, task, epoch, *rest)

    monkeypatch.setattr(lib.train, "fused_epoch", noted)
    return begun


def stop(params, monkeypatch):
    """Train until the epoch `STOPPED` begins."""
    epoch_of = lib.train.fused_epoch

    def stopping(steps, task, epoch, *rest):
        if epoch == STOPPED:
            raise KeyboardInterrupt
        epoch_of(steps, task, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(lib.train, "fused_epoch", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(params)


def assert_same(rows, others):
    same = [c for c in COLUMNS if c not in CHANGE]
    assert rows[same].equals(others[same])


def test_a_stopped_group_goes_on_to_the_same_rows(
    tmp_path, monkeypatch, undisturbed, trained, every_epoch, capsys
):
    """To the bit: losses, curves, learning rates, dropout masks, statistics."""
    params = study(tmp_path)
    stop(params, monkeypatch)
    assert not list(params.results_dir.glob("*.csv")) and len(list(every_epoch.iterdir())) == 1
    before = len(trained)
    rows = train(params)
    assert trained[before:] == [4, 5]
    assert_same(rows, undisturbed)
    assert "MobileNetV2: 4 lanes go on from their checkpoint" in capsys.readouterr().out
    assert not list(every_epoch.iterdir())


def test_a_torn_checkpoint_counts_for_none(
    tmp_path, monkeypatch, undisturbed, trained, every_epoch
):
    params = study(tmp_path)
    stop(params, monkeypatch)
    (file,) = every_epoch.iterdir()
    file.write_bytes(file.read_bytes()[:-1000])
    before = len(trained)
    assert_same(train(params), undisturbed)
    assert trained[before:] == [0, 1, 2, 3, 4, 5]


def test_other_code_trains_from_the_start(tmp_path, monkeypatch, undisturbed, trained):
    params = study(tmp_path)
    stop(params, monkeypatch)
    monkeypatch.setattr(checkpoint, "running_code", lambda: "other")
    before = len(trained)
    assert_same(train(params), undisturbed)
    assert trained[before:] == [0, 1, 2, 3, 4, 5]


def test_a_full_disk_is_left_to_the_rows(tmp_path, monkeypatch, undisturbed, every_epoch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(checkpoint.SPARED))
    assert_same(train(study(tmp_path)), undisturbed)
    assert not list(every_epoch.iterdir())


def test_a_folder_that_cannot_be_made_stops_nothing(tmp_path, undisturbed, every_epoch):
    every_epoch.write_text("in the way")
    assert_same(train(study(tmp_path)), undisturbed)


def test_one_is_due_some_minutes_after_the_last(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "EVERY", 300.0)
    kept = Checkpoint(["a"])
    now[0] = 299.0
    assert not kept.is_due
    now[0] = 300.0
    assert kept.is_due
    kept.save([])
    assert not kept.is_due
