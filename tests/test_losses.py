"""The pool's client and what it loses on the way: inputs, workers, answers.

Scheduler and workers are real, but live in this process: they start and go in no time.
"""

import time
from logging import CRITICAL
from types import SimpleNamespace

import pytest
from distributed import LocalCluster, Worker, get_worker

import lib.pool.client as client
from lib import checkpoint, groups
from lib.groups import Grouping
from lib.lanes import memory
from lib.params import InputError, load_params
from lib.pool import worker
from lib.sweep import plans
from lib.trainer import Outcome, Progress


class Cluster:
    """A cluster in this process; its workers, without nannies, go as those do that die."""

    def __init__(self, started: LocalCluster, folder):
        self.started, self.folder, self.workers = started, folder, []
        self.options = {}  # of each worker, by its address

    def join(self, count: int = 1, **options) -> None:
        for _ in range(count):
            self.started.sync(self._join, **options)

    async def _join(self, **options) -> None:
        own = {"nthreads": 1, "memory_limit": 0, "local_directory": str(self.folder)} | options
        joined = Worker(self.started.scheduler_address, dashboard=False, **own)
        self.workers.append(joined)
        await joined
        self.options[joined.address] = options

    def lose(self, address: str) -> None:
        self.started.sync(self._lose, address)

    async def _lose(self, address: str) -> None:
        await self.started.scheduler.remove_worker(address, stimulus_id="a test")

    async def replace(self, address: str) -> None:
        await self._lose(address)
        await self._join(**self.options[address])

    async def close(self) -> None:
        """End all workers, those that were lost, too: what is left running holds the loop up."""
        for joined in self.workers:
            await joined.close(executor_wait=False)

    @property
    def addresses(self) -> list[str]:
        return sorted(self.started.scheduler.workers)


@pytest.fixture
def cluster(tmp_path):
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "silence_logs": CRITICAL}
    options |= {"local_directory": str(tmp_path)}
    with LocalCluster(n_workers=0, **options) as started:
        own = Cluster(started, tmp_path)
        yield own
        started.sync(own.close)


@pytest.fixture
def workers(cluster):
    place = cluster.started.scheduler_address
    with client._client(place) as own:
        yield client.Workers(own, place)


@pytest.fixture(scope="module")
def plan():
    return next(plans(load_params("smoke", backbones=("VGG16",), n_images=60, epochs=1)))


class Held:
    """As `lib.pool.worker` holds a trainer, but one that trains nothing and finds no path.

    Args:
        dies: whether the worker dies of groups, which it is given.

    Attributes:
        finds: whether it does find a path.
    """

    groups, exact = 0, False

    def __init__(self, cluster: Cluster, dies):
        self.cluster, self.dies, self.died, self.finds = cluster, dies, [], False
        self.number, self.heard = "", set()  # of the order, and of those the client knows begun

    def trainer(self, order, inputs, folder):
        if inputs is None and not self.finds:
            raise worker._NotHere("no such file")
        self.number = order.number
        return self

    def train(self, groups, progress):
        if self.dies(self, groups):
            own = get_worker()
            self.died.append(own.address)
            wait_for(lambda: self.number in self.heard)
            self.cluster.started.loop.add_callback(self.cluster.replace, own.address)
            wait_for(lambda: own.status.name != "running")
        return [Outcome(run.key, {}) for group in groups for run in group]


def wait_for(done) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end
        time.sleep(0.01)


class Said(Progress):
    def __init__(self):
        self.words = []

    def say(self, text: str) -> None:
        self.words.append(text)


def trained(workers, plan, method: str, said: Progress) -> int:
    """How many of the method's runs come out; each once."""
    runs = plan.search_runs(method)
    workers.train(plan, runs, ())
    found = [outcome.key for outcome in workers.outcomes(said)]
    assert sorted(found) == sorted(run.key for run in runs)
    return len(found)


@pytest.fixture(autouse=True)
def own_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FOLDER", tmp_path / "checkpoints")


@pytest.fixture
def held(cluster, monkeypatch):
    own, event = Held(cluster, None), client._Told.event

    def heard(told, message):
        event(told, message)
        own.heard |= {*told.epochs}

    monkeypatch.setattr(client._Told, "event", heard)
    monkeypatch.setattr(worker, "_HELD", own)
    return own


def test_inputs_that_went_with_their_worker_are_sent_again(cluster, workers, plan, held):
    """In the midst of a stage, and between two."""
    held.dies = lambda held, groups: not held.died
    cluster.join()
    said = Said()
    assert trained(workers, plan, "block_wise", said) == 5 and len(held.died) == 1
    (old,) = cluster.addresses
    cluster.join()
    cluster.lose(old)
    assert trained(workers, plan, "baseline_1", said) == 1 and not said.words


def test_lanes_that_end_every_worker_with_its_inputs_are_halved(cluster, workers, plan, held):
    held.dies = lambda held, groups: max(map(len, groups)) > 3
    cluster.join()
    said = Said()
    assert trained(workers, plan, "block_wise", said) == 5
    assert said.words == ["VGG16: workers died with 5 lanes; now 2"]
    assert len(held.died) == client.DEATHS


def test_a_group_that_waits_at_a_worker_is_not_blamed_for_its_death(cluster, workers, plan, held):
    """Dask counts the death for all tasks that wait there; this one would be refused, or cut.

    They wait there, and not at the scheduler, where they need something of it, such as a GPU.
    """
    held.dies, held.finds = (lambda held, groups: max(map(len, groups)) > 3), True
    cluster.join(resources={"GPU": 1})
    said, everything = Said(), 0
    for method in ("block_wise", "baseline_1", "baseline_2"):
        runs = plan.search_runs(method)
        workers.train(plan, runs, ())
        everything += len(runs)
    assert len([*workers.outcomes(said)]) == everything == 7
    assert said.words == ["VGG16: workers died with 5 lanes; now 2"]


def test_workers_of_several_threads_are_refused(cluster, workers, plan, held):
    """Two groups at once in one process would share one model. One that joins later, too."""
    held.dies = lambda held, groups: False
    cluster.join(nthreads=2)
    line = "SCHEDULER: worker .* has 2 threads; allowed: 1, as dask worker --nthreads 1 starts it"
    with pytest.raises(InputError, match=line):
        workers.check()
    with pytest.raises(InputError, match=line):
        trained(workers, plan, "block_wise", Said())


def test_the_last_worker_with_a_gpu_is_not_waited_for_while_others_have_none(
    cluster, workers, plan, held, monkeypatch
):
    monkeypatch.setattr(client, "PATIENCE", 1)
    cluster.join()
    (other,) = cluster.addresses
    cluster.join(resources={"GPU": 1})
    assert workers._has_gpus
    cluster.lose(next(address for address in cluster.addresses if address != other))
    with pytest.raises(InputError, match="has had no worker for 1 s"):
        trained(workers, plan, "block_wise", Said())


def test_a_scheduler_that_goes_at_any_moment_is_one_line(workers, plan):
    workers.train(plan, plan.search_runs("block_wise"), ())
    workers.client.close()
    assert workers._info == {}
    with pytest.raises(InputError, match="is gone; what was finished is kept"):
        [*workers.outcomes(Said())]


@pytest.mark.parametrize(("limit", "kept"), [(1.2, True), (1.05, False)])
def test_a_group_that_was_begun_is_kept_where_a_little_less_memory_is_free(
    cluster, workers, plan, free, monkeypatch, limit, kept
):
    """But not where Dask would end its worker."""
    free(64)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    runs = plan.search_runs("block_wise")
    grouping = Grouping(plan)
    needed = grouping.memory(runs[0].split).needed([run.block.layers for run in runs])
    cluster.join(memory_limit=int(limit * needed))

    def sizes() -> list[int]:
        workers.train(plan, runs, ())
        (lot,) = workers._cut()
        return sorted(map(len, lot.groups))

    assert len(sizes()) > 1
    grouping.checkpoint(runs).offer([])
    assert (sizes() == [5]) == kept


def test_inputs_that_no_worker_takes_are_one_line(workers, plan, monkeypatch):
    monkeypatch.setattr(client, "PATIENCE", 1)
    with pytest.raises(InputError, match="SCHEDULER: inproc://.* has had no worker for 1 s; what"):
        workers._inputs_of(plan)


def test_a_worker_without_a_nanny_goes_on_when_it_has_done_enough(cluster, workers, held):
    """Nobody would start it again."""
    held.groups = worker.RECYCLE
    cluster.join()
    before = cluster.addresses
    workers._renew(exact=False)
    assert cluster.addresses == before


def test_a_worker_that_goes_away_unasked_is_not_waited_for(cluster, workers, monkeypatch):
    """It was still there when the others were asked."""
    cluster.join(2)
    monkeypatch.setattr(client, "PATIENCE", 1)
    monkeypatch.setattr(client.Workers, "addresses", cluster.addresses)
    gone, here = cluster.addresses
    cluster.lose(gone)
    workers.check()
    workers._renew(exact=False)
    assert [*workers._answers("is_spent", False)] == [here]


def test_groups_are_cut_though_all_workers_are_just_gone(workers, plan):
    workers.train(plan, plan.search_runs("block_wise"), ())
    (lot,) = workers._cut()
    assert sum(map(len, lot.groups)) == 5


@pytest.fixture
def free(monkeypatch):
    """What is free on each worker: GiB of its machine, and of its GPU where it has one."""
    process = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=0))
    monkeypatch.setattr(memory, "psutil", SimpleNamespace(Process=lambda: process))

    def set_free(machine: int, *gpu: int) -> None:
        monkeypatch.setattr(memory, "free_memory", lambda: machine * 2**30)
        monkeypatch.setattr(memory, "_gpu_free", lambda: (n * 2**30 for n in gpu))
        memory.free_bytes.cache_clear()

    yield set_free
    memory.free_bytes.cache_clear()


@pytest.mark.parametrize(
    ("limit", "there", "least"),
    [(8, [64], 8), (0, [64], 5), (8, [4], 4), (8, [64, 6], 3), (2, [64, 6], 2)],
)
def test_groups_fit_a_workers_limit_its_machine_and_half_its_gpu(
    cluster, workers, plan, free, limit, there, least
):
    free(*there)
    cluster.join(memory_limit=limit * 2**30)
    workers.train(plan, plan.search_runs("block_wise"), ())
    (lot,) = workers._cut()
    assert lot.plan.params.memory_gib == pytest.approx(0.8 * least)


def test_only_workers_that_are_sent_groups_count(cluster, workers, plan, free):
    """None without a GPU, where others have one."""
    free(64, 64)
    cluster.join(memory_limit=2 * 2**30)
    cluster.join(memory_limit=8 * 2**30, resources={"GPU": 1})
    workers.train(plan, plan.search_runs("block_wise"), ())
    (lot,) = workers._cut()
    assert lot.plan.params.memory_gib == pytest.approx(6.4)


def test_workers_that_join_later_count_in_the_next_stage(cluster, workers, plan, free):
    free(64)
    for limit in (8, 4):
        cluster.join(memory_limit=limit * 2**30)
        workers.train(plan, plan.search_runs("block_wise"), ())
        (lot,) = workers._cut()
        assert lot.plan.params.memory_gib == pytest.approx(0.8 * limit)


def test_groups_are_cut_for_the_workers_device(cluster, workers, plan, monkeypatch):
    """And go on from its checkpoints, on a disk that all share: here is another device."""
    monkeypatch.setattr(worker, "device", lambda: "some GPU")
    monkeypatch.setattr(groups, "GROUP_WORK", 0)  # a CPU would take few lanes
    monkeypatch.setattr(groups, "FEW_LANES", 2)
    monkeypatch.setattr(checkpoint, "EVERY", 0.0)
    cluster.join()
    runs = plan.search_runs("block_wise")

    def sizes() -> list[int]:
        workers.train(plan, runs, ())
        (lot,) = workers._cut()
        return sorted(map(len, lot.groups))

    assert sizes() == [5] and [*map(len, Grouping(plan).cut(runs))] == [2, 2, 1]
    begun = Grouping(plan, "some GPU").checkpoint(runs[:2])
    begun.offer([])
    assert begun.exists and sizes() == [2, 3]
