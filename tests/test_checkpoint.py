"""Checkpoints: a group that was stopped goes on from its last, and ends with the same rows."""

import copy
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

import lib.sweep
import lib.train
from lib import checkpoint
from lib.checkpoint import Checkpoint, begun, clear_done
from lib.groups import Grouping
from lib.ledger import COLUMNS
from lib.params import InputError, load_params
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
        memory_gib=3,  # the same whatever is free
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


def loaded(kept):
    with kept.load() as arrays:
        return [array.tolist() for array in arrays or ()]


def raised(error):
    raise error


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
    rows, others = (
        df[[c for c in COLUMNS if c not in CHANGE]].sort_values("key", ignore_index=True)
        for df in (rows, others)
    )
    assert rows.to_dict("records") == others.to_dict("records")


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


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(("RUNNING_CODE", "other"), id="code"),
        pytest.param(("versions", lambda: "python 3; keras 99"), id="versions"),
        pytest.param(("device", lambda: "another GPU"), id="device"),
    ],
)
def test_other_software_does_not_go_on(monkeypatch, every_epoch, other):
    Checkpoint(["a"]).offer([np.zeros(3)])
    assert begun(deterministic=False) == [("a",)] and loaded(Checkpoint(["a"])) == [[0, 0, 0]]
    assert begun(deterministic=True) == [] == loaded(Checkpoint(["a"], deterministic=True))
    monkeypatch.setattr(checkpoint, *other)
    assert begun(deterministic=False) == [] == loaded(Checkpoint(["a"]))


def test_a_checkpoint_that_cannot_be_read_just_now_stays(monkeypatch, every_epoch):
    kept = Checkpoint(["a"])
    kept.offer([np.zeros(3)])
    for reason in (MemoryError(), OSError(24, "Too many open files")):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "_check_whole", lambda _, reason=reason: raised(reason))
            assert loaded(kept) == []
    assert loaded(kept) == [[0, 0, 0]]


def test_a_checkpoint_that_another_sweep_clears_meanwhile_is_read_to_its_end(monkeypatch):
    kept, check = Checkpoint(["a"]), checkpoint._check_whole
    kept.offer([np.zeros(3)])

    def cleared(members):
        check(members)
        clear_done(["a"], ["a"])

    monkeypatch.setattr(checkpoint, "_check_whole", cleared)
    assert loaded(kept) == [[0, 0, 0]] and not kept.exists


def test_a_damaged_checkpoint_counts_for_none_and_goes(every_epoch):
    """Whatever part of it is damaged, and however."""
    kept = Checkpoint(["a", "b"])
    kept.offer(map(np.arange, range(1, 6)))
    whole, rng = kept.path.read_bytes(), np.random.default_rng(0)
    for i in range(300):
        damaged = bytearray(whole[: rng.integers(len(whole))] if i % 2 else whole)
        if not i % 2:
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        kept.path.write_bytes(damaged)
        found = loaded(kept)  # a flipped bit may be one that says nothing, such as a date
        assert found in ([], [[*range(n)] for n in range(1, 6)])
        assert bool(found) == kept.path.exists()


def test_drafts_and_what_nobody_went_on_with_do_not_stay(every_epoch, monkeypatch):
    def stopped():
        yield np.zeros(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Checkpoint(["a"]).offer(stopped())
    assert not list(every_epoch.iterdir())
    Checkpoint(["a"]).offer([])
    (every_epoch / "b.123").write_text("a draft of a process that was killed")
    now = checkpoint.time.time
    monkeypatch.setattr(checkpoint.time, "time", lambda: now() + checkpoint.FORGOTTEN + 60)
    Checkpoint(["c"]).offer([])
    assert [*every_epoch.iterdir()] == [Checkpoint(["c"]).path]


def test_groups_that_were_begun_stay_as_they_were(tmp_path, monkeypatch):
    """However the rest is cut: the number of workers and the free memory change."""
    grouping = Grouping(next(plans(study(tmp_path))))
    runs = grouping.plan.search_runs("block_wise")
    (first, *_) = groups = grouping.cut(runs, workers=5)
    assert len(groups) > 1 and len(first) > 1
    Checkpoint([run.key for run in first]).offer([])
    Checkpoint([runs[0].key, "of another study"]).offer([])
    resumed = grouping.resume(runs)
    assert first in resumed and {len(group) for group in resumed} == {len(first), 45 - len(first)}
    kept = Checkpoint([run.key for run in first])
    left, done = [run for run in runs if run is not first[0]], [first[0].key]
    assert first in grouping.resume(left, runs) and first not in grouping.resume(left)
    for values in ({"lanes": len(first) - 1}, {"memory_gib": 0.1}):
        fewer = Grouping(copy.copy(grouping.plan))
        fewer.params = replace(fewer.params, **values)
        assert first not in fewer.resume(runs)
    with monkeypatch.context() as patch:  # less is free than when it was begun
        patch.setattr("lib.groups.free_bytes", lambda: 0.1 * 2**30)
        fewer.params = replace(fewer.params, memory_gib=None)
        assert first not in fewer.resume(runs)
    keys = [run.key for run in first]
    for cleared in ((done, keys), (keys, ["of another folder's rows"])):
        clear_done(*cleared)
        assert kept.path.exists()
    clear_done(keys, keys[:1])
    assert not kept.path.exists() and grouping.resume(runs) == grouping.cut(runs)


def test_a_checkpoint_stays_until_the_rows_are_written(tmp_path, monkeypatch, undisturbed, trained):
    """A full disk does not cost the training of the rows that it did not take."""
    params, append, there = study(tmp_path), lib.sweep.append_row, []

    def full(*row):
        if len(there) == 2:
            raise InputError("no space left")
        there.append(append(*row))

    with monkeypatch.context() as patch:
        patch.setattr(lib.sweep, "append_row", full)
        with pytest.raises(InputError, match="no space"):
            train(params)
    before = len(trained)
    assert_same(train(params), undisturbed)
    assert len(trained) == before and len(there) == 2


def test_a_full_disk_is_left_to_the_rows(monkeypatch, every_epoch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(checkpoint.SPARED))
    Checkpoint(["a"]).offer([np.zeros(3)])
    assert not list(every_epoch.iterdir())


def test_a_folder_that_cannot_be_made_stops_nothing(every_epoch):
    every_epoch.write_text("in the way")
    kept = Checkpoint(["a"])
    kept.offer([np.zeros(3)])
    assert loaded(kept) == [] == begun(deterministic=False)
    kept.clear()
    clear_done(["a"], ["a"])


def test_one_is_saved_some_minutes_after_the_last(monkeypatch, every_epoch):
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "EVERY", 300.0)
    kept = Checkpoint(["a"])
    for now[0], there in ((299.0, False), (300.0, True), (599.0, False), (601.0, True)):
        kept.offer([])
        assert kept.path.exists() == there
        kept.clear()


@pytest.mark.long
def test_exact_rows_are_the_same_to_the_bit(tmp_path, monkeypatch, trained):
    """Lane by lane, as `deterministic` has it; a lane's checkpoint is its own.

    The last test: TensorFlow's operations, once told to repeat bits, are others to the end.
    """
    whole, params = (
        replace(study(tmp_path / name), deterministic=True) for name in ("whole", "stopped")
    )
    expected, before = train(whole), len(trained)
    stop(params, monkeypatch)
    assert_same(train(params), expected)
    assert trained[before:].count(0) == 4 and trained[before:].count(5) == 4
