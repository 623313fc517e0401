"""The worker's side: train a group and send back what came out.

A worker finds photos and weights by the profile's own paths, or is sent them once. It checks both
by their digests, and its software, before it trains.
"""

import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..backbones.build import write_backbone
from ..backbones.records import is_model_file
from ..backend import check_keras
from ..checkpoint import clear_done
from ..lanes.memory import worker_bytes
from ..params import InputError, Params
from ..photos.dataset import Dataset, load_data, pack
from ..plan import Plan, Run
from ..provenance import RUNNING_CODE, device, versions
from ..trainer import Outcome, Progress, Trainer

RECYCLE = 100  # groups after which a new process takes a worker's place, see `is_spent`
PHOTOS = "photos.npz"  # of the inputs that a worker is sent
PLANS = 8  # that a worker keeps, without trunks


@dataclass(frozen=True)
class Made:
    """The software of a process.

    Attributes:
        where: whose it is.
        versions: of Python, Keras and its backend; Python's counts for nothing.
        code: digest of the project's own.
    """

    where: str
    versions: str
    code: str

    def check(self, client: "Made") -> None:
        """Refuse another software than the client's. Raises InputError."""
        for what, own, wanted in (
            ("has", *(made.versions.split("; ", 1)[1] for made in (self, client))),
            ("has code", self.code, client.code),
        ):
            if own != wanted:
                raise InputError(
                    f"SCHEDULER: {self.where} {what} {own}; allowed: {wanted}, as here"
                )


def made() -> Made:
    """The software of this process."""
    from distributed import get_worker

    try:
        where = f"worker {get_worker().address}"
    except ValueError:
        where = "the client"
    return Made(where, versions(), RUNNING_CODE)


@dataclass(frozen=True)
class Order:
    """Groups that a worker trains one after another, as they travel to it.

    Attributes:
        params: the profile; its folders of rows and figures are the client's and left out.
        source: the backbone, of `params.backbones`.
        client: the client's software.
        number: of the order; what a worker tells about it carries this number.
        topic: where the worker tells it.
    """

    params: Params
    source: str
    groups: tuple[tuple[Run, ...], ...]
    client: Made
    number: str
    topic: str

    @property
    def data_sha256(self) -> str:
        return self.groups[0][0].settings["data_sha256"]

    @property
    def weights_sha256(self) -> str:
        return self.groups[0][0].settings["weights_sha256"]


@dataclass(frozen=True)
class Missing:
    """The answer of a worker whose paths do not lead to the data or weights: why."""

    reason: str


@dataclass(frozen=True)
class Inputs:
    """Photos and weights of one plan, as bytes, for workers without a path to them.

    Attributes:
        files: by name.
        source: the backbone as it is named beside these files.
    """

    files: dict[str, bytes]
    source: str

    @classmethod
    def of(cls, plan: Plan) -> "Inputs":
        """What a plan needs. Raises InputError where weights cannot be written as a file."""
        with tempfile.TemporaryDirectory() as folder:
            pack(plan.dataset, Path(folder, PHOTOS))
            source = plan.source
            # Random and embedded weights are part of the code.
            if is_model_file(source) or plan.params.weights not in ("none", "embedded"):
                source = write_backbone(plan.params, source, Path(folder))
            files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return cls(files, source)

    def unpack(self, params: Params, folder: Path) -> tuple[Params, str]:
        """Write the files, and return the profile and the backbone's name that lead to them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        source = str(folder / self.source) if is_model_file(self.source) else self.source
        here = {"data": str(folder / PHOTOS), "data_dir": None, "backbones": (source,)}
        if len(self.files) > 1 and source == self.source:
            here["weights"] = str(folder)
        return replace(params, **here), source


class Token:
    """Says that a worker has built a network; Dask takes it for large and moves work to it."""

    def __sizeof__(self) -> int:
        return 10**8


def prepare_here(order: Order) -> Token:
    """Build the network of an order and read its photos, where paths of this machine lead to them.

    Raises InputError as `train_here` does.
    """
    made().check(order.client)
    _check_threads()
    with suppress(_NotHere):
        _HELD.trainer(order, None, Path())
    return Token()


def train_here(order: Order, near: Token | Inputs | None = None) -> list[Outcome] | Missing:
    """Train the groups of an order in this process, a Dask worker.

    Args:
        near: the inputs, for a worker without a path to them.

    Returns:
        What training gave each run; `Missing` where no path of this machine leads to the inputs.

    Raises InputError where software or inputs are others than the client's.
    """
    from distributed import get_worker

    worker = get_worker()
    events = _Events(worker, order)
    events.advance(0)  # it is begun, so if this worker dies, this may be why
    _HELD.groups += len(order.groups)
    made().check(order.client)
    _check_threads()
    inputs = near if isinstance(near, Inputs) else None
    try:
        trainer = _HELD.trainer(order, inputs, Path(worker.local_directory) / "inputs")
    except _NotHere as error:
        return Missing(str(error))
    return list(trainer.train(order.groups, events))


def _check_threads() -> None:
    """Refuse a worker that may train two groups at once: they would share one model."""
    from distributed import get_worker

    worker = get_worker()
    check_threads(worker.address, worker.state.nthreads)


def check_threads(address: str, threads: int) -> None:
    """The same of a worker at an address. Raises InputError."""
    if threads != 1:
        raise InputError(
            f"SCHEDULER: worker {address} has {threads} threads; allowed: 1, as dask worker "
            "--nthreads 1 starts it"
        )


def clear_here(done: Sequence[str]) -> None:
    """Remove the checkpoints on this machine of groups whose runs have their rows: their keys."""
    clear_done(done, done)


def memory_here() -> float:
    """Bytes that this worker may have."""
    from distributed import get_worker

    return worker_bytes(get_worker().memory_manager.memory_limit)


def device_here() -> str:
    """Where this worker trains, see `lib.provenance.device`."""
    return device()


def is_spent(exact: bool) -> bool:
    """Whether a new process should take this one's place.

    After many groups, because Keras and its backend do not give everything back; and after exact
    runs for others, because a backend that was told to repeat bits goes on doing so.

    Args:
        exact: whether exact runs are to come.
    """
    return _HELD.groups >= RECYCLE or (_HELD.exact and not exact)


class _Events(Progress):
    """Tells the client."""

    def __init__(self, worker: Any, order: Order):
        self.worker, self.order, self.epochs = worker, order, 0

    def advance(self, epochs: int) -> None:
        self.epochs += epochs
        message = {"number": self.order.number, "epochs": self.epochs}
        self.worker.log_event(self.order.topic, message)

    def say(self, text: str) -> None:
        self.worker.log_event(self.order.topic, {"say": text})


class _NotHere(Exception):
    """No path of this machine leads to an order's data or weights."""


class _Held:
    """What a worker holds between groups: some plans, and the trainer of the last one."""

    def __init__(self):
        self.groups, self.exact = 0, False
        self.plans: list[tuple[tuple, Plan]] = []  # by what they were asked for, the latest last
        self.last: Trainer | None = None

    def trainer(self, order: Order, inputs: Inputs | None, folder: Path) -> Trainer:
        """The trainer of an order's plan, with all that it still holds from the group before."""
        wanted = order.params, order.source, order.data_sha256, order.weights_sha256
        found = next((pair for pair in self.plans if pair[0] == wanted), None)
        if found is None:
            found = wanted, self._plan(order, inputs, folder / order.weights_sha256[:16])
        self.plans = [*(pair for pair in self.plans if pair is not found), found][-PLANS:]
        if self.last is None or self.last.plan is not found[1]:
            self.last = None  # freed before the next one reads its photos
            self.last = Trainer(found[1])
        return self.last

    def _plan(self, order: Order, inputs: Inputs | None, folder: Path) -> Plan:
        check_keras()
        memory_here()  # asked before this process takes more: a GPU does not say whose it is
        self.exact |= order.params.deterministic
        params, source = order.params, order.source
        if inputs is not None:
            params, source = inputs.unpack(params, folder)
        try:
            plan = Plan(params, source, self._data(order, params))
            plan.backbone  # noqa: B018 - built here, where a path that leads nowhere is told
        except InputError as error:
            if inputs is not None:
                raise
            raise _NotHere(str(error)) from error
        _check("photos", plan.dataset.digest, order.data_sha256)
        _check(f"weights of {plan.name}", plan.weights_sha256, order.weights_sha256)
        return plan

    def _data(self, order: Order, params: Params) -> Dataset:
        """The photos, read once for all networks."""
        held = (plan.dataset for _, plan in self.plans)
        same = (data for data in held if data.digest == order.data_sha256)
        return next(same, None) or load_data(params)


_HELD = _Held()


def _check(what: str, own: str, wanted: str) -> None:
    if own != wanted:
        raise InputError(
            f"SCHEDULER: {made().where} has other {what}: digest {own[:16]}; allowed: "
            f"{wanted[:16]}, as here"
        )
