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
    """Kills workers of this process' own cluster at random moments.

    Attributes:
        killed: how many so far.
    """

    def __init__(self, most: int, longest: float, seed: int = 0):
        super().__init__(daemon=True)
        self.most, self.longest, self.random = most, longest, random.Random(seed)
        self.killed, self.over = 0, threading.Event()

    def run(self) -> None:
        while self.killed < self.most and not self.over.wait(self.random.uniform(0, self.longest)):
            found = worker_processes()
            if found:
                os.kill(self.random.choice(found).pid, signal.SIGKILL)
                self.killed += 1

    def __enter__(self) -> "Killer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def worker_processes() -> list[psutil.Process]:
    """The worker processes that this process has started."""
    return [child for child in psutil.Process().children() if _is_worker(child)]


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
