"""A cluster on this machine for as long as one command runs: ``python -m lib pool -- COMMAND``."""

import importlib.util
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import CRITICAL
from typing import Any

from ..params import InputError
from ..room import cores, free_memory, visible_gpus

LOOPBACK = "127.0.0.1"
LEAST = 4 * 2**30  # bytes of free memory for each worker that is started by default
WORKER = "allowed: a whole number from 0 to 99; 0 trains without workers"
CONFIG = {
    # A worker holds a trunk and a model, not Dask's data, and gives no memory back in between: it
    # may use what it has. Only what is beyond its limit ends it.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",  # every 20 ms, it takes 4 % of a core
    "distributed.worker.multiprocessing-method": "spawn",  # never forked once Keras is imported
    "distributed.scheduler.default-task-durations": {"train": "60s"},
    "distributed.deploy.lost-worker-timeout": "20s",  # then another takes its place, see `_kept`
}


def run(command: Sequence[str], workers: str, scheduler: str) -> int:
    """Run a command that finds workers through the variable SCHEDULER; its exit status.

    Args:
        workers: how many to start here for it; empty: as many as there are cores, at most one for
            each 4 GiB of free memory, or one a GPU. 0: none.
        scheduler: a cluster that is there already; empty: none.

    Raises InputError.
    """
    if scheduler and workers:
        raise InputError(
            f"WORKERS: {workers} with SCHEDULER {scheduler!r} is not allowed; allowed: one of the "
            "two"
        )
    count = 0 if scheduler else _count(workers)
    with _noted_interrupts() as seen:
        if not count:
            return _wait_for(command, scheduler, seen)
        with _cluster(count) as (address, about):
            print(about, flush=True)
            return _wait_for(command, address, seen)


def _count(workers: str) -> int:
    if workers:
        if not (workers.isdecimal() and len(workers) <= 2):
            raise InputError(f"WORKERS: {workers!r} is not allowed; {WORKER}")
        return int(workers)
    return len(visible_gpus()) or max(1, min(cores(), free_memory() // LEAST))


@contextmanager
def _cluster(workers: int) -> Iterator[tuple[str, str]]:
    """Workers on this machine: the scheduler's address, and a line about them.

    It listens on the loopback address alone, on ports that are free, so that two do not meet.
    """
    import dask
    from distributed import Nanny, Scheduler, SpecCluster

    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):  # read when it is imported
        os.environ.setdefault(name, str(max(1, cores() // workers)))
    shows = importlib.util.find_spec("bokeh") is not None
    web = f"{LOOPBACK}:0"  # what Dask serves by HTTP, with the dashboard or without
    scheduler = {"host": LOOPBACK, "port": 0, "dashboard": shows, "dashboard_address": web}
    limit, options = free_memory() // workers, {"host": LOOPBACK, "nthreads": 1}
    with tempfile.TemporaryDirectory(prefix="workers-") as folder, dask.config.set(CONFIG):
        options |= {"memory_limit": limit, "local_directory": folder, "silence_logs": CRITICAL}
        options |= {"preload": ["lib.pool.preload"]}
        specs = {i: {"cls": Nanny, "options": options | own} for i, own in _own(workers)}
        spec = {"cls": Scheduler, "options": scheduler}
        with (
            SpecCluster(workers=specs, scheduler=spec, silence_logs=CRITICAL) as cluster,
            _kept(cluster, workers),
        ):
            seen = f"; dashboard at {cluster.dashboard_link}" if shows else ""
            about = f"{workers} workers, each with {limit / 2**30:.1f} GiB of memory{seen}"
            yield cluster.scheduler_address, about


@contextmanager
def _kept(cluster: Any, workers: int) -> Iterator[None]:
    """Have workers that are lost for good replaced.

    Dask's nannies start a worker again that dies, but for one that dies while it starts. Where that
    one had never been there, the cluster takes its closed nanny for a worker for ever.
    """
    from distributed import Status

    over = threading.Event()

    def forget() -> None:
        for name, nanny in [*cluster.workers.items()]:
            if nanny.status in (Status.closed, Status.failed):
                del cluster.workers[name]

    def watch() -> None:
        while not over.wait(5):
            cluster.loop.add_callback(forget)
            cluster.scale(workers)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _own(workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """What only one of the workers has: a GPU, where there are any."""
    gpus = visible_gpus()
    for i in range(workers):
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}
        yield i, {"env": gpu, "resources": {"GPU": 1}} if gpus else {}


@contextmanager
def _noted_interrupts() -> Iterator[list[int]]:
    """Ctrl-C as usual, and a list of all that came: Python may drop one, see `lib.interrupt`."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # as for a shell's background jobs
        signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, before)


def _wait_for(command: Sequence[str], scheduler: str, seen: list[int]) -> int:
    """Run the command to its end. Ctrl-C in the terminal is the command's; this waits for it.

    seen: see `_noted_interrupts`; one that came before the command was there is passed on to it.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    child = subprocess.Popen(command, env=os.environ | {"SCHEDULER": scheduler})
    ended = signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    if seen:
        child.send_signal(signal.SIGINT)
    try:
        return child.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGTERM, ended)
