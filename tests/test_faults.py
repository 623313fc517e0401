"""Sweeps that are killed, doubled, out of disk, out of memory, or diverge."""

import os
import resource
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torture
from rows import row

import lib.trainer
from lib.interrupt import kept_interrupts
from lib.ledger import append_row, ledger_lock, read_ledger
from lib.params import InputError, load_params
from lib.results import Results
from lib.sweep import search


@pytest.fixture
def params(tmp_path):
    return load_params(
        "smoke", backbones=("VGG16",), n_images=60, epochs=1, results=str(tmp_path / "rows")
    )


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_a_sweep_killed_at_random_moments_ends_with_the_same_rows(tmp_path, kills):
    counts = torture.campaign(kills, tmp_path)
    assert counts.kills == kills and counts.sweeps >= 1
    assert (counts.lost, counts.duplicated, counts.different, counts.retrained) == (0, 0, 0, 0)


def test_two_sweeps_at_once_train_each_run_once(tmp_path):
    both = [torture.start(tmp_path / "rows") for _ in range(2)]
    for process in both:
        process.join(torture.LIMIT)
    assert [process.exitcode for process in both] == [0, 0]
    found = torture.rows(tmp_path / "rows")
    assert len(found) == 6 and not found.duplicated(["method", "key"]).any()


def test_ctrl_c_ends_a_sweep_within_seconds_and_leaves_whole_rows(tmp_path):
    process = torture.start(tmp_path / "rows")
    ledger = tmp_path / "rows" / "block_wise-VGG16.csv"
    deadline = time.monotonic() + 300  # seconds; twenty on an idle machine
    while not (ledger.exists() and ledger.read_bytes().endswith(b"\n")):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)  # seconds; a second on an idle machine
    assert process.exitcode not in (0, None)
    assert ledger.read_bytes().endswith(b"\n") and len(read_ledger(ledger)) >= 1


class Finalised:
    """Ctrl-C arrives in its finaliser."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)


@pytest.fixture
def terminal():
    """Ctrl-C as in a terminal: a shell without one has its background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_a_finaliser_is_not_lost(terminal):
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), kept_interrupts():
        thing = Finalised()
        del thing
        for _ in range(100):
            time.sleep(0.01)
    assert sys.unraisablehook is before


def test_what_else_is_raised_in_a_finaliser_is_reported_as_ever(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError

    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda dropped: seen.append(dropped.exc_type))
    with kept_interrupts():
        Broken()
    assert seen == [ValueError]


def test_the_second_process_says_that_it_waits(tmp_path, capsys):
    order = []

    def second():
        with ledger_lock(tmp_path, "VGG16"):
            order.append("second")

    with ledger_lock(tmp_path, "VGG16"), ledger_lock(tmp_path, "MobileNet"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.5)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "another process trains VGG16; waiting" in capsys.readouterr().err


@pytest.mark.parametrize("room", [0, 1, 200, 400])
def test_a_full_disk_is_one_line_and_loses_no_row(tmp_path, room):
    ledger = tmp_path / "block_wise-VGG16.csv"
    append_row(ledger, row(block="first"))
    before = ledger.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
    try:
        with pytest.raises(InputError, match=r"VGG16.csv: cannot write a row: .* are intact"):
            append_row(ledger, row(block="second"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.read_bytes() == before
    append_row(ledger, row(block="second"))  # space has been freed
    assert read_ledger(ledger)["block"].tolist() == ["first", "second"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write a row: "):
        append_row(tmp_path / "file" / "block_wise-VGG16.csv", row())


def test_a_run_that_diverges_is_recorded_as_failed_and_not_trained_again(params, monkeypatch):
    train = lib.trainer.train_fused

    def diverging(*arguments):
        histories = train(*arguments)
        histories[2].val_loss[-1] = float("nan")
        histories[2].val_accuracy[-1] = 1.0
        return histories

    monkeypatch.setattr(lib.trainer, "train_fused", diverging)
    rows = search(params, "block_wise")
    failed = rows[rows["failed"] != ""]
    assert failed["failed"].tolist() == ["the loss is nan from epoch 1 on"]
    assert len(Results(rows).search) == 4
    assert Results(rows).winner("block_wise", "VGG16")["block"] != failed["block"].item()
    assert len(search(params, "block_wise")) == 5  # nothing was appended


def test_a_layer_that_diverged_ranks_last(params, monkeypatch):
    train = lib.trainer.train_fused

    def diverging(*arguments):
        histories = train(*arguments)
        for history in histories[2:]:
            history.val_loss[-1], history.val_accuracy[-1] = float("nan"), 1.0
        return histories

    monkeypatch.setattr(lib.trainer, "train_fused", diverging)
    failed = search(params, "layer_wise").query("failed != ''")["block"]
    monkeypatch.setattr(lib.trainer, "train_fused", train)
    (layers,) = search(params, "top_3")["layers"]
    assert len(failed) == 11 and len(set(layers.split(";")) - set(failed)) == 2


def test_out_of_memory_halves_the_lanes_and_goes_on(params, monkeypatch, capsys):
    train, tried = lib.trainer.train_fused, []

    def small(steps, *rest):
        tried.append(len(steps.model.lanes))
        if tried[-1] > 4:
            raise RuntimeError("RESOURCE_EXHAUSTED: 9 GiB")
        return train(steps, *rest)

    monkeypatch.setattr(lib.trainer, "train_fused", small)
    rows = search(params, "layer_wise")
    assert tried == [13, 6, 3, 3, 7, 3, 4]
    assert len(rows) == 13 and set(rows["lanes"]) == {3, 4}
    assert "VGG16: out of memory with 13 lanes; now 6" in "".join(capsys.readouterr())


def test_another_error_is_not_taken_for_lack_of_memory(params, monkeypatch):
    def broken(*_):
        raise RuntimeError("something else")

    monkeypatch.setattr(lib.trainer, "train_fused", broken)
    with pytest.raises(RuntimeError, match="something else"):
        search(params, "block_wise")


@pytest.mark.long
def test_the_exact_mode_gives_the_same_bits_however_the_sweep_is_cut_up(tmp_path):
    """Half of the sweep first, and the methods in another order."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    search(torture.parameters(whole), *torture.METHODS)
    for method in torture.METHODS[::-1]:
        search(torture.parameters(parts), method)
    a, b = (torture.rows(folder).drop(columns=list(torture.TAIL)) for folder in (whole, parts))
    assert a.equals(b) and np.isfinite(a["val_loss"].astype(float)).all()
