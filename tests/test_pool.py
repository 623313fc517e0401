"""The pool: the same rows from any number of workers, whatever dies, and one line for a mistake."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pools
import psutil
import pytest
import torture

import lib.pool.client as client
from lib import checkpoint
from lib.backbones.build import load_backbone
from lib.params import ROOT, InputError, load_params
from lib.photos.dataset import load_data, pack
from lib.pool import local
from lib.pool.client import _Told
from lib.pool.worker import Made, made
from lib.sweep import plans, search
from lib.trainer import Progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The rows of an exact sweep in one process."""
    folder = tmp_path_factory.mktemp("whole")
    process = torture.start(folder)
    process.join(torture.LIMIT)
    assert process.exitcode == 0
    return torture.rows(folder)


@pytest.fixture(scope="module")
def cluster():
    with pools.local(2) as started:
        yield started


def sweep(folder: Path, scheduler: str, monkeypatch) -> pd.DataFrame:
    """The rows of the same sweep by the workers of a cluster."""
    monkeypatch.setenv("SCHEDULER", scheduler)
    search(torture.parameters(folder), *torture.METHODS)
    return torture.rows(folder)


def assert_the_same(found: pd.DataFrame, whole: pd.DataFrame) -> None:
    assert not found.duplicated(["method", "key"]).any()
    pd.testing.assert_frame_equal(torture.content(found), torture.content(whole))


def test_workers_give_the_rows_of_one_process_and_survive_kills(
    cluster, whole, tmp_path, monkeypatch
):
    assert_the_same(sweep(tmp_path / "calm", cluster.address, monkeypatch), whole)
    with pools.Killer(cluster, 3, longest=5) as killer:
        places = (tmp_path / f"rows_{i}" for i in range(20))
        while killer.killed < 3:
            assert_the_same(sweep(next(places), cluster.address, monkeypatch), whole)


# Four kills have hit one lane; or, on a busy machine, workers are killed faster than they start.
BAD_LUCK = "with one lane ends its worker every time", r"has (had )?no worker (for|after) 60 s"


@pytest.mark.long
def test_fifty_kills_lose_no_row_and_double_none(cluster, whole, tmp_path, monkeypatch, capsys):
    with pools.Killer(cluster, 50, longest=20, seed=1) as killer:
        sweeps = refused = 0
        while killer.killed < 50:
            try:
                found = sweep(tmp_path / f"rows_{sweeps}", cluster.address, monkeypatch)
            except InputError as error:  # the same command goes on
                assert re.search("|".join(BAD_LUCK), str(error)), error
                refused += 1
                continue
            assert_the_same(found, whole)
            sweeps += 1
    assert sweeps >= 1
    with capsys.disabled():
        print(f"{killer.killed} kills, {sweeps} sweeps, {refused} refused on the way")


@pytest.mark.long
def test_workers_that_die_while_they_start_are_replaced():
    """Dask gives up on one that was lost, and on another that dies before it was ever there."""
    with pools.local(1) as cluster, client._client(cluster.address) as own:
        own.wait_for_workers(1, timeout=torture.LIMIT)
        end = time.monotonic() + 45
        while time.monotonic() < end:
            for worker in cluster.workers():
                worker.kill()
            time.sleep(0.2)
        own.wait_for_workers(1, timeout=torture.LIMIT)
        assert own.submit(os.getpid, pure=False).result(timeout=60)


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 3])
def test_a_scheduler_and_workers_started_by_hand_give_the_same_rows(
    whole, tmp_path, monkeypatch, count
):
    with pools.scheduler(tmp_path) as file, pools.workers(file, count):
        assert_the_same(sweep(tmp_path / "rows", file, monkeypatch), whole)


def grouped(folder: Path, **changes):
    """A sweep in the normal mode: lanes, and several networks."""
    changes = {"backbones": ("VGG16", "MobileNet"), "memory_gib": 2.5} | changes
    params = load_params("smoke", n_images=60, epochs=1, results=str(folder), **changes)
    return search(params, "baseline_1", "block_wise")


@pytest.mark.long
def test_groups_give_the_same_rows_in_this_process_and_in_workers(cluster, tmp_path, monkeypatch):
    here = grouped(tmp_path / "here")
    monkeypatch.setenv("SCHEDULER", cluster.address)
    there = grouped(tmp_path / "there")
    same = [c for c in here.columns if c not in torture.TAIL]
    pd.testing.assert_frame_equal(there[same], here[same])
    assert set(here["lanes"]) == set(there["lanes"]) and here["lanes"].max() > 1


@pytest.fixture
def own_files():
    """Settings with relative paths: files in this project's folder and in no copy of it."""
    (ROOT / "build").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=ROOT / "build"))
    pack(load_data(load_params("smoke", n_images=60)), folder / "mine.npz")
    network = load_backbone("VGG16", image_size=32, weights="none", thin=True)
    network.save_weights(folder / "thin_vgg16.weights.h5")
    place = folder.relative_to(ROOT).as_posix()
    yield {"data": f"{place}/mine.npz", "weights": f"{place}/", "backbones": ("VGG16",)}
    shutil.rmtree(folder)


def test_a_worker_without_a_path_to_photos_and_weights_is_sent_them(
    own_files, tmp_path, monkeypatch
):
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "lib", copy / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    here = grouped(tmp_path / "here", **own_files)
    with pools.scheduler(tmp_path) as file, pools.workers(file, project=copy):
        monkeypatch.setenv("SCHEDULER", file)
        there = grouped(tmp_path / "there", **own_files)
    same = [c for c in here.columns if c not in torture.TAIL]
    pd.testing.assert_frame_equal(there[same], here[same])


# ----------------------------------------------------------------------------- what goes wrong


def refusal(work) -> str:
    with pytest.raises(InputError) as found:
        work()
    assert "\n" not in str(found.value)
    return str(found.value)


def test_an_address_where_nothing_listens_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 1)
    for place in ("tcp://127.0.0.1:9", "nonsense://x"):
        line = refusal(lambda: sweep(tmp_path / "rows", place, monkeypatch))  # noqa: B023
        assert line.startswith(f"SCHEDULER: nothing answers at {place}; allowed: ")
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", "no json", None])
def test_a_file_that_is_no_scheduler_file_is_one_line(tmp_path, monkeypatch, text):
    file = tmp_path / "scheduler.json"
    if text is not None:
        file.write_text(text)
    line = refusal(lambda: sweep(tmp_path / "rows", str(file), monkeypatch))
    assert line.startswith(f"SCHEDULER: {str(file)!r} is no scheduler file; allowed: ")


def test_the_file_of_a_dead_cluster_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 1)
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps({"address": "tcp://127.0.0.1:9"}))
    line = refusal(lambda: sweep(tmp_path / "rows", str(file), monkeypatch))
    assert "nothing answers at tcp://127.0.0.1:9" in line


def test_a_cluster_without_workers_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 1)
    with pools.scheduler(tmp_path) as file:
        line = refusal(lambda: sweep(tmp_path / "rows", file, monkeypatch))
    assert f"{file} has no worker after 1 s" in line and not (tmp_path / "rows").exists()


def test_a_worker_of_other_software_is_one_line(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(client.Workers, "made", replace(made(), code="0" * 16))
    line = refusal(lambda: sweep(tmp_path / "rows", cluster.address, monkeypatch))
    assert "SCHEDULER: worker tcp://127.0.0.1:" in line and "allowed: 0000000000000000" in line
    assert not (tmp_path / "rows").exists()


def test_software_is_that_of_keras_and_its_backend():
    here = Made("worker", "python 3.11.7; keras 3.15.1; tensorflow 2.21.0", "a")
    replace(here, versions="python 3.12.1; keras 3.15.1; tensorflow 2.21.0").check(here)
    other = replace(here, versions="python 3.11.7; keras 3.15.1; tensorflow 2.20.0")
    assert "has keras 3.15.1; tensorflow 2.20.0; allowed: keras" in refusal(
        lambda: other.check(here)
    )


def test_other_weights_and_photos_than_the_clients_are_one_line(cluster, tmp_path, monkeypatch):
    """The client's own network differs from the one that its profile names."""
    from lib.plan import Plan

    monkeypatch.setattr(Plan, "weights_sha256", "0" * 64)
    line = refusal(lambda: sweep(tmp_path / "rows", cluster.address, monkeypatch))
    assert "has other weights of VGG16: digest " in line
    assert line.endswith("allowed: 0000000000000000, as here")
    assert not list((tmp_path / "rows").glob("*.csv"))


DIES = """
import os
import lib.trainer

def dying(train):
    def patched(steps, *rest):
        if len(steps.model.lanes) > 3:
            os._exit(1)
        return train(steps, *rest)
    return patched

if lib.trainer.train_fused.__name__ != "patched":  # Dask may load this twice
    lib.trainer.train_fused = dying(lib.trainer.train_fused)
"""


@pytest.mark.long
def test_a_worker_that_dies_of_its_lanes_gets_half(tmp_path, monkeypatch):
    """As one that runs out of memory does; nothing else is disturbed."""
    preload = tmp_path / "dies.py"
    preload.write_text(DIES)
    here = grouped(tmp_path / "here", backbones=("VGG16",))
    failures = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
    with (
        pools.scheduler(tmp_path, **failures) as file,
        pools.workers(file, 1, "--preload", str(preload)),
    ):
        monkeypatch.setenv("SCHEDULER", file)
        there = grouped(tmp_path / "there", backbones=("VGG16",))
    same = [c for c in here.columns if c not in (*torture.TAIL, "val_loss")]
    pd.testing.assert_frame_equal(there[same], here[same])
    np.testing.assert_allclose(there["val_loss"], here["val_loss"], rtol=1e-4)
    assert set(here["lanes"]) == {6} and set(there["lanes"]) == {3}


@pytest.mark.long
def test_a_worker_that_has_trained_enough_gives_way_to_a_new_process(whole, tmp_path, monkeypatch):
    """Between two stages; here after one group."""
    preload = tmp_path / "often.py"
    preload.write_text("import lib.pool.worker as worker\nworker.RECYCLE = 1\n")
    with (
        pools.scheduler(tmp_path) as file,
        pools.workers(file, 1, "--preload", str(preload)),
        client._client(file) as own,
    ):
        pids = []
        for method in torture.METHODS:
            monkeypatch.setenv("SCHEDULER", file)
            search(torture.parameters(tmp_path / "rows"), method)
            pids += own.run(os.getpid).values()
        assert len(set(pids)) == 2
    assert_the_same(torture.rows(tmp_path / "rows"), whole)


CLIENT = """
import pathlib, sys, torture
from lib.params import InputError
folder = pathlib.Path(sys.argv[1])
try:
    torture.sweep(folder)
except InputError as error:
    folder.with_suffix(".refused").write_text(str(error))
    sys.exit(1)
"""


def start_client(folder: Path, file: str) -> subprocess.Popen:
    """A sweep by a cluster's workers in a process of its own."""
    paths = f"{ROOT / 'tests'}{os.pathsep}{ROOT}"
    own = os.environ | {"SCHEDULER": file, "PYTHONPATH": paths}
    return subprocess.Popen([sys.executable, "-c", CLIENT, str(folder)], env=own)


def wait_for_rows(folder: Path, process: subprocess.Popen, least: int = 1) -> None:
    deadline = time.monotonic() + torture.LIMIT
    while len(torture.rows(folder)) < least:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.long
def test_a_killed_client_goes_on_where_it_was_and_a_late_worker_helps(whole, tmp_path, monkeypatch):
    rows = tmp_path / "rows"
    with pools.scheduler(tmp_path) as file, pools.workers(file, 1):
        process = start_client(rows, file)
        wait_for_rows(rows, process)
        pools.end(process)
        before = torture.rows(rows)
        with pools.workers(file, 1):
            assert_the_same(sweep(rows, file, monkeypatch), whole)
    kept = torture.rows(rows).merge(before, on=["method", "key", "finished_at"])
    assert len(kept) == len(before) >= 1  # none was trained again


@pytest.mark.long
def test_a_scheduler_that_is_gone_is_one_line_and_its_successor_goes_on(
    whole, tmp_path, monkeypatch
):
    rows = tmp_path / "rows"
    with pools.scheduler(tmp_path) as file, pools.workers(file, 1):
        process = start_client(rows, file)
        wait_for_rows(rows, process)
    process.wait(torture.LIMIT)
    assert process.returncode == 1 and 1 <= len(torture.rows(rows)) < len(whole)
    line = rows.with_suffix(".refused").read_text(encoding="utf-8")
    assert re.fullmatch("SCHEDULER: .* is gone; what was finished is kept.*", line)
    with pools.scheduler(tmp_path) as file, pools.workers(file, 1):
        assert_the_same(sweep(rows, file, monkeypatch), whole)


# As in a terminal: a shell without one has its background jobs ignore Ctrl-C.
AS_IN_A_TERMINAL = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def test_ctrl_c_leaves_no_process_behind():
    command = [sys.executable, "-c", AS_IN_A_TERMINAL]
    command += ["-m", "lib", "pool", "--workers=1", "--", "sleep", "600"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert b"1 worker" in process.stdout.readline()
            family = psutil.Process(process.pid).children(recursive=True)
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)
            _, alive = psutil.wait_procs(family, timeout=30)
        finally:
            pools.end(process)
    assert not alive and len(family) >= 2


def test_a_ctrl_c_that_python_dropped_reaches_the_command():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with local._noted_interrupts() as seen:
        with contextlib.suppress(KeyboardInterrupt):  # as a callback of the garbage collector does
            signal.raise_signal(signal.SIGINT)  # before the command is there
        assert local._wait_for(["sleep", "60"], "", seen) == -signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_local_cluster_listens_on_the_loopback_address_alone(cluster):
    assert cluster.address.startswith("tcp://127.0.0.1:")
    family = [cluster.process, *cluster.workers()]
    listening = [c.laddr.ip for p in family for c in p.net_connections() if c.status == "LISTEN"]
    assert len(listening) >= 3 and set(listening) == {"127.0.0.1"}


def test_two_clusters_at_once_do_not_meet(cluster):
    with pools.local(1) as other, client._client(other.address) as own:
        own.wait_for_workers(1, timeout=torture.LIMIT)
        assert other.address != cluster.address
        assert len(own.scheduler_info(n_workers=-1)["workers"]) == 1
    with client._client(cluster.address) as own:
        assert len(own.scheduler_info(n_workers=-1)["workers"]) == 2


def test_a_scheduler_starts_no_keras(tmp_path, monkeypatch):
    """It unpacks the tasks that it hands on."""
    monkeypatch.setattr(client, "PATIENCE", 1)
    with pools.scheduler(tmp_path) as file, client._client(file) as own:
        workers = client.Workers(own, file)
        future = workers._call("made")
        loaded, deadline = set(), time.monotonic() + 60
        while "lib.pool.task" not in loaded and time.monotonic() < deadline:
            loaded = set(own.run_on_scheduler(lambda: sorted(sys.modules)))
        assert "lib.pool.task" in loaded and not {"keras", "tensorflow"} & loaded
        future.cancel()


def test_the_slurm_script_of_the_docs_is_a_script(tmp_path):
    """It was not run: no Slurm here."""
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    script = text[text.index("#!/bin/bash") :].partition("```")[0]
    (tmp_path / "paper.sh").write_text(script)
    subprocess.run(["bash", "-n", tmp_path / "paper.sh"], check=True)
    assert "dask worker" in script and "SCHEDULER=" in script


# ------------------------------------------------------------------------------- small parts


def test_groups_that_were_begun_come_first_then_the_costliest(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FOLDER", tmp_path)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    params = load_params("smoke", backbones=("VGG16",), n_images=60, epochs=1)
    plan, submitted = next(plans(params)), []
    grouping = client.Grouping(plan)
    groups = [[run] for run in plan.search_runs("block_wise")]  # from the input on
    grouping.checkpoint(groups[2]).offer([])

    def submit(*arguments, priority, **_):
        submitted.append(priority)
        return len(submitted)

    known = {"scheduler_info": lambda **_: {"workers": {}}, "status": "running"}
    cluster = SimpleNamespace(submit=submit, **known)
    workers = client.Workers(cluster, "nowhere")
    for group in groups:
        workers._submit(client.Lot(plan, grouping, groups), [group])
    assert np.argsort(submitted)[::-1].tolist() == [2, 0, 1, 3, 4]


def test_a_group_that_starts_again_takes_its_epochs_back():
    class Bar(Progress):
        n = 0

        def advance(self, epochs: int) -> None:
            self.n += epochs

    bar = Bar()
    told = _Told(bar)
    for epochs in (3, 6, 3):  # the second worker begins anew
        told.event((0.0, {"number": "x", "epochs": epochs}))
    assert bar.n == 3
    told.finish("x", 9)
    told.event((0.0, {"number": "x", "epochs": 6}))  # late
    assert bar.n == 9


@pytest.mark.parametrize(
    ("cores", "gib", "gpus", "count"), [(8, 64, 0, 8), (8, 9, 0, 2), (8, 1, 0, 1), (8, 64, 3, 3)]
)
def test_there_are_as_many_workers_as_cores_memory_and_gpus_allow(
    monkeypatch, cores, gib, gpus, count
):
    monkeypatch.setattr(local, "cores", lambda: cores)
    monkeypatch.setattr(local, "free_memory", lambda: gib * 2**30)
    monkeypatch.setattr(local, "visible_gpus", lambda: [str(i) for i in range(gpus)])
    assert local._count("") == count and local._count("7") == 7 and local._count("0") == 0
    own = [options for _, options in local._own(count)]
    seen = [o["env"]["CUDA_VISIBLE_DEVICES"] for o in own if o]
    assert seen == [str(i) for i in range(gpus)] and len(own) == count
