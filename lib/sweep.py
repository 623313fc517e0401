"""Drop the runs that are done, have the rest trained, append their rows.

`search` trains every block of a partition on the first 10 % (Algorithms 1 to 3, "Training"),
`final` trains each method's best block on the first 70 % (the same, "Evaluation"). Both return
rows, and both may be called again at any time: what the ledgers hold is not trained twice.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol

import keras
import pandas as pd
from tqdm import tqdm  # not tqdm.auto: a widget is lost where a notebook is executed headless

from .backend import check_keras
from .checkpoint import clear_done
from .interrupt import kept_interrupts
from .ledger import append_row, ledger_lock, read_results
from .methods import method
from .params import Params
from .photos.dataset import check_splits, load_data
from .plan import Plan, Run
from .pool.client import connected
from .provenance import RUNNING_COMMIT
from .trainer import Outcome, Progress, Trainer

SEEDS = 3  # of a search that is repeated to see how much of its scatter is chance


class Engine(Protocol):
    """What trains runs: this process, or the workers of `lib.pool`."""

    def train(self, plan: Plan, runs: Sequence[Run], others: Sequence[Run]) -> None:
        """Take on runs of one slice and number of epochs; others: see `Grouping.resume`."""

    def outcomes(self, progress: Progress) -> Iterator[Outcome]:
        """What training gave each of the runs taken on, as their groups end.

        And some of the others, where a group holds them.
        """


class InProcess:
    """Trains in this process, one plan after another.

    Args:
        trainer: makes what trains the runs of a plan.
    """

    def __init__(self, trainer: Callable[[Plan], Trainer] = Trainer):
        self.trainer = trainer
        self.jobs: list[tuple[Plan, Sequence[Run], Sequence[Run]]] = []

    def train(self, plan: Plan, runs: Sequence[Run], others: Sequence[Run]) -> None:
        self.jobs.append((plan, runs, others))

    def outcomes(self, progress: Progress) -> Iterator[Outcome]:
        jobs, self.jobs = self.jobs, []
        for plan, runs, others in jobs:
            trainer = self.trainer(plan)
            yield from trainer.train(trainer.grouping.resume(runs, others), progress)
            del trainer
            keras.utils.clear_session()
            gc.collect()


def search(params: Params, *names: str, repeats: int = 1) -> pd.DataFrame:
    """Train every block of the named methods on the search slice and score it (Algorithms 1-3).

    The ranked methods need the layer-wise search, which is run first where its rows are missing.
    The paper searches once; more `repeats`, each with its own seed, tell seeds from blocks.

    Returns:
        The search rows of these methods for the profile's backbones, see `lib.ledger.COLUMNS`.
    """
    for some, engine in _stages(params):
        _search(some, engine, names, repeats)
    return _select(params, names, params.search_split, repeats)


def final(params: Params, *names: str) -> pd.DataFrame:
    """Train the best block of each named method on the final slice, `params.repeats` times.

    Searches that are missing are run first.

    Returns:
        The final rows of these methods for the profile's backbones.
    """
    for some, engine in _stages(params):
        for plan in some:
            plan.check_two_slices()
        _search(some, engine, names)
        train_runs(some, lambda plan: [r for n in names for r in plan.final_runs(n)], engine)
    return _select(params, names, params.final_split, params.repeats)


def plans(params: Params) -> Iterator[Plan]:
    """One `Plan` a backbone, after Keras' settings and the data have been checked."""
    check_keras()
    dataset = load_data(params)
    check_splits(dataset, params)
    for source in params.backbones:
        yield Plan(params, source, dataset)


def _stages(params: Params) -> Iterator[tuple[list[Plan], Engine]]:
    """Plans that are trained together: one by one in this process, all at once by workers."""
    with connected() as workers:
        if workers is None:
            yield from (([plan], InProcess()) for plan in plans(params))
        else:
            yield list(plans(params)), workers


def _search(some: Sequence[Plan], engine: Engine, names: Iterable[str], repeats: int = 1) -> None:
    """Train what the search of these methods still lacks.

    Ranked methods come second: their blocks are read from the layer-wise rows.
    """
    ranked = [n for n in names if method(n).ranked]
    first = [n for n in names if n not in ranked] + ["layer_wise"] * bool(ranked)
    for group in (dict.fromkeys(first), ranked):

        def runs(plan: Plan, group: Iterable[str] = group) -> list[Run]:
            return [run for n in group for run in plan.search_runs(n, repeats)]

        train_runs(some, runs, engine)


def _select(params: Params, names: Sequence[str], split: str, repeats: int) -> pd.DataFrame:
    rows = read_results(params.results_dir, params.backbone_names)
    wanted = rows["method"].isin(names) & (rows["split"] == split) & (rows["repeat"] < repeats)
    return rows[wanted].reset_index(drop=True)


def train_runs(
    some: Sequence[Plan],
    runs: Callable[[Plan], Sequence[Run]],
    engine: Engine | None = None,
) -> None:
    """Train those of the plans' runs whose rows are missing, and append the rows.

    Runs with one key are trained once; a row of another method with this key is copied. Only one
    process at a time trains a backbone for one folder of rows.

    Args:
        runs: of a plan; asked for again once its rows are this process' alone.
        engine: `InProcess` where none is given.
    """
    if not any(plan.missing(runs(plan)) for plan in some):  # readers need not wait for one another
        return
    engine = engine or InProcess()
    with kept_interrupts(), ExitStack() as locks:
        todo: dict[str, tuple[Plan, list[Run]]] = {}
        for plan in sorted(some, key=lambda plan: plan.name):  # all processes lock in one order
            locks.enter_context(ledger_lock(plan.params.results_dir, plan.name))
        for plan in some:
            planned = runs(plan)
            left = _left(plan, planned)
            todo |= {key: (plan, same) for key, same in left.items()}
            for job in _jobs(same[0] for same in left.values()):
                engine.train(plan, job, planned)
        if todo:
            done = {key for plan in some for key in plan.results().rows["key"]}
            _append(engine, todo, done)


def _append(engine: Engine, todo: Mapping[str, tuple[Plan, list[Run]]], done: set[str]) -> None:
    """Append the rows of runs as their groups end; checkpoints go when all of a group are there.

    Args:
        todo: a plan and its runs by their key; others that come out have their rows.
        done: keys of runs that have their rows; added to.
    """
    with _Bar([same[0] for _, same in todo.values()]) as progress:
        for outcome in engine.outcomes(progress):
            plan, same = todo.get(outcome.key, (None, ()))
            for run in same:
                append_row(plan.ledger(run.method), _row(plan, run, outcome, RUNNING_COMMIT))
            done.add(outcome.key)
            clear_done(done, todo)


def _left(plan: Plan, runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs to be trained, by key; what another method has trained is copied."""
    missing = plan.missing(runs)
    done = {row["key"]: row for _, row in plan.results().rows.iterrows()}
    for run in (r for same in missing.values() for r in same if r.key in done):
        row = dict(done[run.key]) | {"method": run.method, "block": run.block.name}
        append_row(plan.ledger(run.method), row)
    return {key: same for key, same in missing.items() if key not in done}


def _jobs(runs: Iterable[Run]) -> list[list[Run]]:
    """Runs by slice and number of epochs."""
    jobs: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        jobs.setdefault((run.split, run.epochs), []).append(run)
    return [*jobs.values()]


class _Bar(Progress):
    """A progress bar over the epochs of all runs, with the time left."""

    def __init__(self, runs: Sequence[Run]):
        def words(values: Iterable[str]) -> str:
            return " ".join(dict.fromkeys(values))

        backbones = words(run.settings["backbone"] for run in runs)
        what = (
            f"{words(r.split for r in runs)}: {len(runs)} runs of {words(r.method for r in runs)}"
        )
        self.bar = tqdm(
            total=sum(run.epochs for run in runs),
            desc=f"{backbones} {what}",
            unit="epoch",
            mininterval=1,
        )

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def advance(self, epochs: int) -> None:
        self.bar.update(epochs)

    def say(self, text: str) -> None:
        self.bar.write(text)


def _row(plan: Plan, run: Run, outcome: Outcome, commit: str) -> dict:
    return {
        **run.settings,
        "key": run.key,
        "profile": plan.params.profile,
        "method": run.method,
        "block": run.block.name,
        "n_trainable": plan.trainable_weights(run.block),
        "repeat": run.repeat,
        "git_sha": commit,
        **outcome.values,
    }
