"""The client's side: connect to a cluster, hand its workers groups, take what training gave."""

import copy
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..groups import WORTH_A_WORKER, Group, Grouping
from ..lanes.memory import FIXED, SHARE
from ..params import InputError
from ..plan import Plan, Run
from ..trainer import Outcome, Progress
from .task import call, packed
from .worker import Inputs, Made, Missing, Order, check_threads, made

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE = float(os.environ.get("BLOCKWISE_PATIENCE", 60))  # seconds for a cluster to answer
DEATHS = 4  # of workers with a group until it goes on in parts; as many as Dask lets happen
BEGUN_SHARE = 0.9  # of a worker's memory, for a group that was begun: at 95 % Dask ends a worker
BEGUN = 1e6  # how much more a group that was begun counts for than its cost: it comes first
KEPT = "what was finished is kept: the same command goes on from there"
NO_WORKER = "has had no worker for {:.0f} s; " + KEPT
GONE = f"is gone; {KEPT} once a scheduler is back"
ALLOWED = "allowed: the address of a Dask scheduler, tcp://<host>:<port>, or its scheduler file"


@contextmanager
def connected() -> Iterator["Workers | None"]:
    """The workers of the cluster that SCHEDULER names; None where it names none.

    Raises InputError where there is no such cluster, or it has no worker in time.
    """
    place = os.environ.get("SCHEDULER", "")
    if not place:
        yield None
        return
    with _client(place) as client:
        workers = Workers(client, place)
        workers.check()
        try:
            yield workers
        finally:
            workers.cancel()


def _client(place: str) -> "Client":
    from distributed import Client

    address = place if "://" in place else _address(place)
    try:
        return Client(address, timeout=min(PATIENCE, 10), set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"SCHEDULER: nothing answers at {address}; {ALLOWED}") from error


def _address(file: str) -> str:
    """The address that a scheduler file holds."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))["address"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"SCHEDULER: {file!r} is no scheduler file; {ALLOWED}") from error


@dataclass(frozen=True, eq=False)
class Lot:
    """Runs of one plan, slice and number of epochs, and how they are cut into groups."""

    plan: Plan
    grouping: Grouping
    groups: Sequence[Group]

    @cached_property
    def cost(self) -> float:
        """Of all groups, in multiply-adds."""
        return sum(map(self.grouping.cost, self.groups))

    @cached_property
    def parcels(self) -> list[list[Group]]:
        """What one worker trains in one go: a group, or small ones of the same lanes.

        Such groups, repeats with seeds of their own, share one model, and to build it takes longer
        than to train it.
        """
        parcels: list[list[Group]] = []
        for group in self.groups:
            small = self.grouping.work(group) < WORTH_A_WORKER
            if parcels and small and _lanes(parcels[-1][0]) == _lanes(group):
                parcels[-1].append(group)
            else:
                parcels.append([group])
        return parcels


def _lanes(group: Group) -> list[tuple[str, ...]]:
    return [run.block.layers for run in group]


class Workers:
    """The workers of a cluster as an engine of `lib.sweep`."""

    def __init__(self, client: "Client", place: str):
        self.client, self.place = client, place
        self.topic = f"epochs-{uuid4().hex}"
        self.asked: list[tuple[Plan, float | None, Sequence[Run], Sequence[Run]]] = []
        self.orders: dict[Future, tuple[Lot, Sequence[Group], Order, int]] = {}
        self.sent: dict[str, Future] = {}
        self.answered: dict[str, list[Any]] = {}

    def check(self) -> None:
        """Refuse a cluster without workers, and workers of other software or of several threads.

        Raises InputError.

        A worker that is busy for long is asked where it trains.
        """
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise InputError(
                f"SCHEDULER: {self.place} has no worker after {PATIENCE:.0f} s; allowed: a "
                "scheduler with workers"
            ) from error
        for address, about in self._info.items():
            check_threads(address, about["nthreads"])
        for own in self._answers("made").values():
            own.check(self.made)

    @cached_property
    def made(self) -> Made:
        """The client's software."""
        return made()

    @property
    def addresses(self) -> list[str]:
        return sorted(self._info)

    @property
    def _trainers(self) -> list[str]:
        """Addresses of the workers that are sent groups: where some have GPUs, these alone."""
        return [w for w, about in self._info.items() if not self._has_gpus or _has_gpu(about)]

    @property
    def _info(self) -> Mapping[str, Mapping]:
        """What the scheduler knows of each worker, by address; nothing where it is gone."""
        if self._closed:
            return {}
        try:
            return self.client.scheduler_info(n_workers=-1)["workers"]
        except (OSError, ValueError, TypeError, KeyError):  # closed, or between two of them
            return {}

    def train(self, plan: Plan, runs: Sequence[Run], others: Sequence[Run]) -> None:
        """Take on runs of one slice and number of epochs; others: see `Grouping.resume`."""
        self.asked.append((*self._within(plan), runs, others))

    def _within(self, plan: Plan) -> tuple[Plan, float | None]:
        """The plan with the memory that each worker may take, where the profile names none.

        And what a group may take that was begun, see `Grouping`: what is free differs from start to
        start.
        """
        if plan.params.memory_gib is not None or plan.params.deterministic:
            return plan, None
        own, memory = copy.copy(plan), self._memory  # the backbone is shared
        own.params = replace(plan.params, memory_gib=max(0.1, SHARE * memory / 2**30))
        return own, BEGUN_SHARE * memory

    @property
    def _memory(self) -> float:
        """Bytes that each worker that trains may have: as many as the one with the least."""
        return min(self._of_trainers("memory_here"), default=FIXED / SHARE)

    @property
    def _device(self) -> str:
        """Where most workers train, for which all groups are cut; empty where none says."""
        most = Counter(self._of_trainers("device_here")).most_common(1)
        return most[0][0] if most else ""

    def _of_trainers(self, name: str) -> list[Any]:
        """Answers of the workers that are sent groups.

        They are asked once a stage: other workers may have joined by the next.
        """
        if not self.answered.get(name):
            trainers, found = self._trainers, self._answers(name)
            self.answered[name] = [own for w, own in found.items() if w in trainers]
        return self.answered[name]

    def outcomes(self, progress: Progress) -> Iterator[Outcome]:
        """Have all groups trained, the costliest first, and yield what each run gave.

        A group is sent again where its worker dies, and as two halves where it dies every time.

        Raises InputError: one lane does not fit, a worker of other software or with other inputs,
        the scheduler is gone.
        """
        self._check_open()
        lots = self._cut()
        self._renew(all(lot.plan.params.deterministic for lot in lots))
        told = _Told(progress)
        self.client.subscribe_topic(self.topic, told.event)
        try:
            for lot in sorted(lots, key=lambda lot: -lot.cost):
                near = self._prepared(lot)
                for groups in lot.parcels:
                    self._submit(lot, groups, near)
            while self.orders:
                for future in self._ended():
                    yield from self._taken(future, told)
            self._clear([run.key for lot in lots for group in lot.groups for run in group])
        finally:
            if self.client.status == "running":
                self.client.unsubscribe_topic(self.topic)
            self.cancel()

    def _clear(self, done: Sequence[str]) -> None:
        """Have workers on other machines remove the checkpoints of runs that have their rows.

        One that goes away meanwhile is not waited for: what it keeps is removed after a week.
        """
        self._wait(self._ask("clear_here", done).values(), PATIENCE / 10)

    def _answers(self, name: str, *arguments: Any) -> dict[str, Any]:
        """What each worker says, by address; nothing of one that is gone, or busy for long."""
        from distributed import CancelledError, KilledWorker

        gone = KilledWorker, CancelledError, TimeoutError  # before it answered, or just after
        asked, found = self._ask(name, *arguments), {}
        self._wait(asked.values(), PATIENCE)
        for worker, future in asked.items():
            if future.done():
                with suppress(*gone):
                    found[worker] = self._result(future, PATIENCE / 10)
        return found

    def _ask(self, name: str, *arguments: Any) -> dict[str, "Future"]:
        """Calls of one function on each worker. Dask leaves them where they are if it is gone."""
        return {w: self._call(name, *arguments, workers=[w]) for w in self.addresses}

    def _wait(self, asked: Iterable["Future"], seconds: float) -> None:
        """Wait until all have ended, but not longer than so many seconds."""
        from distributed import CancelledError, wait

        with suppress(CancelledError, TimeoutError), self.client.as_current():
            wait([*asked], seconds)

    def _taken(self, future: "Future", told: "_Told") -> Sequence[Outcome]:
        """What an order gave; nothing where it has to be sent again."""
        from distributed import CancelledError, KilledWorker

        lot, groups, order, deaths = self.orders.pop(future)
        try:
            found = self._result(future)
        except (KilledWorker, CancelledError) as error:
            # Cancelled: its inputs went with the last worker that had them, and Dask forgets them,
            # what needs them, and how many workers died of it. What was not begun has killed none;
            # but Dask blames all that wait at a worker, and a last word may have been lost.
            killed, began = isinstance(error, KilledWorker), order.number in told.epochs
            deaths = DEATHS if killed and began else deaths + (killed or began)
            told.finish(order.number, 0)
            self._submit_again(lot, groups, deaths, told.progress)
            return ()
        if isinstance(found, Missing):
            self._submit(lot, groups, self._inputs_of(lot.plan), deaths=deaths)
            return ()
        told.finish(order.number, sum(run.epochs for group in groups for run in group))
        return found

    def _submit_again(
        self, lot: Lot, groups: Sequence[Group], deaths: int, progress: Progress
    ) -> None:
        """Have groups trained that a worker took with it; in parts where each does."""
        if deaths < DEATHS:
            self._submit(lot, groups, self._inputs_of(lot.plan), deaths=deaths)
            return
        for part in _parted(lot, groups, progress):
            self._submit(lot, [part])

    def _ended(self) -> Iterable["Future"]:
        """Orders that have ended; waits for one, and raises InputError where no worker is left."""
        from distributed import CancelledError, wait

        lost = None  # since when there has been no worker
        while True:
            try:
                with self.client.as_current():
                    return wait([*self.orders], PATIENCE / 10, "FIRST_COMPLETED").done
            except CancelledError:
                return [future for future in self.orders if future.done()]
            except TimeoutError:
                now = time.monotonic()
                lost = None if self._trainers else lost or now
                if lost and now - lost > PATIENCE:
                    raise self._stopped(NO_WORKER) from None

    def _cut(self) -> list[Lot]:
        asked, self.asked = self.asked, []
        share = max(1, -(-len(self._trainers) // max(1, len(asked))))
        lots = []
        for plan, most, runs, others in asked:
            grouping = Grouping(plan, self._device, most)
            lots.append(Lot(plan, grouping, grouping.resume(runs, others, share)))
        self.answered = {}
        return lots

    def _renew(self, exact: bool) -> None:
        """Have workers that have done enough start again; those without a nanny go on."""
        spent = {worker for worker, yes in self._answers("is_spent", exact).items() if yes}
        again = [w for w, about in self._info.items() if w in spent and about["nanny"]]
        if again:
            with suppress(KeyError):  # Dask's answer where one of them has just gone away
                self.client.restart_workers(again, timeout=PATIENCE, raise_for_error=False)

    def _prepared(self, lot: Lot) -> "Future":
        """A token on the worker that has built a lot's network; its groups prefer to go there.

        Not by the worker's address: Dask leaves tasks where they are whose workers are all gone.
        """
        order = self._order(lot, lot.groups[:1])
        key, needs = f"prepare-{order.number}", self._needs
        return self._call("prepare_here", order, key=key, priority=lot.cost, **needs)

    def _submit(self, lot: Lot, groups: Sequence[Group], *near: "Future", deaths: int = 0) -> None:
        """Have groups trained, one after another by one worker.

        Args:
            near: what a worker needs or had better have for it.
            deaths: of workers that had them before.
        """
        order, first = self._order(lot, groups), sum(map(lot.grouping.cost, groups))
        if any(lot.grouping.checkpoint(group).exists for group in groups):
            first *= BEGUN
        key, needs = f"train-{order.number}", self._needs
        future = self._call("train_here", order, near=near, key=key, priority=first, **needs)
        self.orders[future] = lot, groups, order, deaths

    def _call(
        self, name: str, *arguments: Any, near: Sequence["Future"] = (), **options: Any
    ) -> "Future":
        """Have a worker call a function of `lib.pool.worker`. Raises InputError."""
        self._check_open()
        return self.client.submit(call, name, packed(*arguments), *near, pure=False, **options)

    def _order(self, lot: Lot, groups: Sequence[Group]) -> Order:
        params, source = replace(lot.plan.params, results=None, figures=None), lot.plan.source
        return Order(params, source, tuple(map(tuple, groups)), self.made, uuid4().hex, self.topic)

    @property
    def _needs(self) -> dict[str, Any]:
        """A GPU, where workers have them: one group at a time on each."""
        return {"resources": {"GPU": 1}} if self._has_gpus else {}

    @cached_property
    def _has_gpus(self) -> bool:
        return any(map(_has_gpu, self._info.values()))

    def _inputs_of(self, plan: Plan) -> "Future":
        """Photos and weights for workers that have no path to them.

        Sent to the cluster once, and again where all workers that had them are gone.
        """
        if plan.name not in self.sent or self.sent[plan.name].status != "finished":
            self.sent[plan.name] = self._scatter(Inputs.of(plan))
        return self.sent[plan.name]

    def _scatter(self, inputs: Inputs) -> "Future":
        """Inputs on one worker. Raises InputError where none takes them in time.

        Not on all workers: Dask would wait for ever for one that goes away meanwhile.
        """
        end = time.monotonic() + PATIENCE
        while self.client.status == "running" and time.monotonic() < end:
            with suppress(OSError):  # there is no worker yet, or it has just gone away
                return self.client.scatter(inputs, hash=False, timeout=PATIENCE / 10)
        raise self._stopped(NO_WORKER if self.client.status == "running" else GONE)

    def _result(self, future: "Future", seconds: float | None = None) -> Any:
        """What a call gave. Raises CancelledError where Dask has forgotten it.

        Raises TimeoutError where so many seconds do not suffice.
        """
        from distributed import CancelledError

        try:
            return future.result(seconds)
        except CancelledError as error:
            if self.client.status == "running":
                raise
            raise self._stopped(GONE) from error

    @property
    def _closed(self) -> bool:
        """Whether the client has given the scheduler up."""
        return self.client.status in ("closing", "closed")

    def _check_open(self) -> None:
        """Raises InputError where the scheduler is gone, which Dask answers in many ways."""
        if self._closed:
            raise self._stopped(GONE)

    def _stopped(self, why: str) -> InputError:
        return InputError(f"SCHEDULER: {self.place} {why.format(PATIENCE)}")

    def cancel(self) -> None:
        """Have no worker go on with what is no longer waited for."""
        orders, self.orders = [*self.orders], {}
        if orders and self.client.status == "running":
            self.client.cancel(orders)


def _has_gpu(about: Mapping[str, Any]) -> bool:
    """Whether a worker, as the scheduler knows it, has a GPU."""
    return "GPU" in about.get("resources", {})


class _Told:
    """What workers tell of their groups, added up.

    A group that starts again on another worker begins at none; its bar goes back.
    """

    def __init__(self, progress: Progress):
        self.progress, self.epochs, self.over = progress, {}, set()

    def event(self, event: tuple[float, Any]) -> None:
        """One message of a worker: (when, what)."""
        _, message = event
        if "say" in message:
            self.progress.say(message["say"])
        elif message["number"] not in self.over:
            self._stands_at(message["number"], message["epochs"])

    def finish(self, number: str, epochs: int) -> None:
        """A group has ended; messages that are still on their way count for nothing."""
        self.over.add(number)
        self._stands_at(number, epochs)

    def _stands_at(self, number: str, epochs: int) -> None:
        self.progress.advance(epochs - self.epochs.get(number, 0))
        self.epochs[number] = epochs


def _parted(lot: Lot, groups: Sequence[Group], progress: Progress) -> Sequence[Group]:
    """Groups whose workers died each time in smaller parts. Raises InputError for one lane."""
    if len(groups) > 1:
        return groups
    (group,) = groups
    if len(group) == 1:
        raise InputError(
            f"memory: {lot.plan.name} with one lane ends its worker every time; allowed: a "
            "smaller image_size or batch_size, or workers with more memory"
        )
    lot.grouping.checkpoint(group).clear()  # else the next start would go on with all lanes
    parts = lot.grouping.halves(group)
    died = f"workers died with {len(group)} lanes; now {len(parts[0])}"
    progress.say(f"{lot.plan.name}: {died}")
    return parts
