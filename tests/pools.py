"""Clusters for tests: schedulers and workers that are started by hand, and killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from lib.params import ROOT

LIMIT = 120  # seconds that a process may take to start
# As docs/cluster.md has them set for clusters that are started by hand.
SETTINGS = {
    "DASK_DISTRIBUTED__WORKER__MEMORY__TARGET": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__SPILL": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE": "False",
}


def dask(*words: str, log: Path, project: Path = ROOT, **variables: str) -> subprocess.Popen:
    """Start ``dask WORDS`` in a folder with the project's code; output goes to a file."""
    own = SETTINGS | {"PYTHONPATH": str(project), "TF_NUM_INTRAOP_THREADS": "1"} | variables
    command = [sys.executable, "-m", "dask", *words]
    with open(log, "ab") as sink:
        return subprocess.Popen(
            command, cwd=project, env=os.environ | own, stdout=sink, stderr=sink
        )


@dataclass(frozen=True)
class Local:
    """A cluster of `lib.pool.local` in a process of its own.

    Attributes:
        address: of the scheduler.
        process: which ends with all of it.
    """

    address: str
    process: psutil.Process

    def workers(self) -> list[psutil.Process]:
        """The worker processes that are there now."""
        return [child for child in self.process.children() if _is_worker(child)]


@contextmanager
def local(workers: int) -> Iterator[Local]:
    """A cluster on this machine, as `make paper` starts one."""
    command = [sys.executable, "-m", "lib", "pool", f"--workers={workers}", "--"]
    command += ["sh", "-c", "echo $SCHEDULER; sleep 100000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            about, address = (process.stdout.readline().strip() for _ in range(2))
            assert about.startswith(f"{workers} worker")
            yield Local(address, psutil.Process(process.pid))
        finally:
            end(process)


@contextmanager
def scheduler(folder: Path, *words: str, **variables: str) -> Iterator[str]:
    """A scheduler that is started by hand; its file."""
    file = folder / "scheduler.json"
    words = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", *words)
    process = dask(*words, "--scheduler-file", str(file), log=folder / "scheduler.log", **variables)
    try:
        deadline = time.monotonic() + LIMIT
        while not file.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        yield str(file)
    finally:
        end(process)
        file.unlink(missing_ok=True)


@contextmanager
def workers(file: str, count: int = 1, *words: str, project: Path = ROOT, **variables: str):
    """Workers that are started by hand."""
    words = ("worker", "--scheduler-file", file, "--nthreads", "1", "--host", "127.0.0.1", *words)
    words += ("--nworkers", str(count), "--preload", "lib.pool.preload", "--no-dashboard")
    process = dask(
        *words,
        "--local-directory",
        str(Path(file).parent),
        log=Path(file).with_name("workers.log"),
        project=project,
        **variables,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    """Kill a process and all that it has started."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), process]
    except psutil.NoSuchProcess:
        family = [process]
    for member in family:
        try:
            member.kill()
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    process.wait()


class Killer(threading.Thread):
    """Kills workers of a local cluster at random moments.

    Attributes:
        killed: how many so far.
    """

    def __init__(self, cluster: Local, most: int, longest: float, seed: int = 0):
        super().__init__(daemon=True)
        self.cluster, self.most, self.longest = cluster, most, longest
        self.random, self.killed, self.over = random.Random(seed), 0, threading.Event()

    def run(self) -> None:
        while self.killed < self.most and not self.over.wait(self.random.uniform(0, self.longest)):
            found = self.cluster.workers()
            if found:
                os.kill(self.random.choice(found).pid, signal.SIGKILL)
                self.killed += 1

    def __enter__(self) -> "Killer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
