"""Plan the runs of a method, drop those already done, train the rest, append their rows.

`search` trains every block of a partition on the first 10 % (Algorithms 1 to 3, "Training"),
`final` trains each method's best block on the first 70 % (the same, "Evaluation"). Both return
rows, and both may be called again at any time: what the ledgers hold is not trained twice.
"""

import gc
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm  # not tqdm.auto: a widget is lost where a notebook is executed headless

from . import partition
from .backbones.build import backbone_of, scale_inputs, source_digest
from .backbones.records import backbone_name
from .backend import check_keras, out_of_memory
from .lanes.memory import MOST_LANES, Estimate, budget
from .lanes.steps import use_deterministic_operations
from .lanes.trunk import Graph, Trunk, choose_cut, read_graph
from .ledger import (
    append_row,
    ledger_lock,
    ledger_path,
    pack_hits,
    read_ledger,
    read_results,
    run_key,
)
from .methods import method, methods
from .params import InputError, Params
from .partition import Block
from .photos.dataset import Dataset, check_splits, load_data
from .photos.folder import first_line
from .provenance import git_sha, versions
from .results import Results
from .train import (
    History,
    Task,
    classifier_weights,
    eval_batch,
    fuse,
    fused_steps,
    train_fused,
    train_plain,
)

# Multiply-adds of the lanes of one group, tuned from the first layer on: some twenty minutes of
# two cores. Fewer lanes than FEW_LANES share too little.
GROUP_WORK, FEW_LANES = 1.2e14, 8


@dataclass(frozen=True)
class Run:
    """One block trained once with one seed: one row.

    Attributes:
        repeat: 0 to ``repeats - 1``; the search of the paper has one.
        settings: what determines the run's result, by the names of `lib.ledger.SETTINGS`.
        key: hash of the settings.
    """

    method: str
    block: Block
    repeat: int
    settings: Mapping[str, Any]
    key: str

    @property
    def split(self) -> str:
        """The training slice, such as ``train[:10%]``."""
        return self.settings["split"]

    @property
    def epochs(self) -> int:
        return self.settings["epochs"]

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def order_seed(self) -> int:
        return self.settings["order_seed"]


def search(params: Params, *names: str, repeats: int = 1) -> pd.DataFrame:
    """Train every block of the named methods on the search slice and score it (Algorithms 1-3).

    The ranked methods need the layer-wise search, which is run first where its rows are missing.
    The paper searches once; more `repeats`, each with its own seed, tell seeds from blocks.

    Returns:
        The search rows of these methods for the profile's backbones, see `lib.ledger.COLUMNS`.
    """
    for study in studies(params):
        study.search(names, repeats)
    return _select(params, names, params.search_split, repeats)


def final(params: Params, *names: str) -> pd.DataFrame:
    """Train the best block of each named method on the final slice, `params.repeats` times.

    Searches that are missing are run first.

    Returns:
        The final rows of these methods for the profile's backbones.
    """
    for study in studies(params):
        study.final(names)
    return _select(params, names, params.final_split, params.repeats)


def studies(params: Params) -> Iterator["Study"]:
    """One `Study` a backbone, after Keras' settings and the data have been checked."""
    check_keras()
    dataset = load_data(params)
    check_splits(dataset, params)
    if params.deterministic:
        use_deterministic_operations()
    for source in params.backbones:
        yield Study(params, source, dataset)
        keras.utils.clear_session()
        gc.collect()


def _select(params: Params, names: Sequence[str], split: str, repeats: int) -> pd.DataFrame:
    rows = read_results(params.results_dir, params.backbone_names)
    wanted = rows["method"].isin(names) & (rows["split"] == split) & (rows["repeat"] < repeats)
    return rows[wanted].reset_index(drop=True)


class Study:
    """All runs of one backbone under one profile.

    Args:
        source: the backbone, as `lib.backbones.build.load_backbone` takes it.

    Attributes:
        name: the backbone's name in rows and files.
    """

    def __init__(self, params: Params, source: str, dataset: Dataset):
        self.params, self.source, self.dataset = params, source, dataset
        self.name = backbone_name(source)

    @cached_property
    def backbone(self) -> keras.Model:
        return backbone_of(self.params, self.source)

    @cached_property
    def graph(self) -> Graph:
        return read_graph(self.backbone)

    @cached_property
    def weights_sha256(self) -> str:
        return source_digest(self.source, self.backbone)

    def search(self, names: Iterable[str], repeats: int = 1) -> None:
        """Train what the search of these methods still lacks.

        Ranked methods come second: their blocks are read from the layer-wise rows.
        """
        ranked = [n for n in names if method(n).ranked]
        first = [n for n in names if n not in ranked] + ["layer_wise"] * bool(ranked)
        for group in (first, ranked):
            runs = [run for n in dict.fromkeys(group) for run in self.search_runs(n, repeats)]
            self.train(runs)

    def final(self, names: Iterable[str]) -> None:
        """Train what the final runs of these methods still lack. Raises InputError."""
        self._check_two_slices()
        self.search(names)
        self.train([run for n in names for run in self.final_runs(n)])

    def search_runs(self, name: str, repeats: int = 1) -> list[Run]:
        """The runs of a method's search: its partition, block by block, with one seed a repeat."""
        p, blocks = self.params, self.blocks(name)
        return [
            self._run(name, b, p.search_split, p.epochs, r) for r in range(repeats) for b in blocks
        ]

    def final_runs(self, method: str) -> list[Run]:
        """The final runs of a method: its best block of the search, seed by seed."""
        p = self.params
        row = self.results().winner(method, self.name)
        block = Block(row["block"], tuple(row["layers"].split(";")) if row["layers"] else ())
        epochs = p.final_epochs or p.epochs
        return [self._run(method, block, p.final_split, epochs, r) for r in range(p.repeats)]

    def results(self) -> Results:
        """What has been run of this backbone, by this plan or another."""
        return Results.of(read_results(self.params.results_dir, [self.name]), self.params)

    def blocks(self, name: str) -> list[Block]:
        """The partition that a method proposes for this backbone."""
        record = method(name)
        scores = self.results().layer_scores(self.name) if record.ranked else {}
        return record.propose(self.backbone, self.params, scores)

    def _run(self, method: str, block: Block, split: str, epochs: int, repeat: int) -> Run:
        settings = self._settings(block, split, epochs, repeat)
        return Run(method, block, repeat, settings, run_key(settings))

    def _settings(self, block: Block, split: str, epochs: int, repeat: int) -> dict:
        """What determines a run's result, as its row says it."""
        p = self.params
        return {
            "backbone": self.name,
            "alpha": str(p.alpha_of(self.name)),
            "image_size": p.image_size,
            "weights_sha256": self.weights_sha256,
            "data_sha256": self.dataset.digest,
            "input_scaling": p.input_scaling,
            "layers": ";".join(block.layers),
            "split": split,
            "eval_split": p.eval_split,
            "seed": p.seed + repeat,
            "order_seed": p.seed + repeat * (p.repeat_order == "own"),
            "batch_size": p.batch_size,
            "epochs": epochs,
            "learning_rate": p.learning_rate,
            "dropout": p.dropout,
            "plateau": ", ".join(
                str(x).removesuffix(".0")
                for x in (p.plateau_factor, p.plateau_patience, p.plateau_min_delta)
            ),
            "backend": keras.backend.backend(),
        }

    def train(self, runs: Sequence[Run]) -> None:
        """Train those of `runs` whose rows are missing, and append the rows.

        Runs with one key are trained once; a row of another method with this key is copied.
        Only one process at a time trains a backbone for one folder of rows.
        """
        with ledger_lock(self.params.results_dir, self.name):
            self._train(runs)

    def _train(self, runs: Sequence[Run]) -> None:
        self.check_rows(runs)
        wanted = self._missing(runs)
        done = {row["key"]: row for _, row in self.results().rows.iterrows()}
        for run in (r for same in wanted.values() for r in same if r.key in done):
            self._append(dict(done[run.key]) | {"method": run.method, "block": run.block.name})
        todo = {key: same for key, same in wanted.items() if key not in done}
        for split in dict.fromkeys(same[0].split for same in todo.values()):
            self._train_split({k: s for k, s in todo.items() if s[0].split == split})

    def check(self) -> None:
        """Refuse what would end the sweep later, as far as it is known now. Raises InputError."""
        p = self.params
        self._check_two_slices()
        for k in p.top_k:
            partition.check_count("top_k", k, partition.weighted_layers(self.backbone))
        searched = [m for m in methods(p) if not method(m).ranked]
        if self._is_complete("layer_wise"):
            searched += [m for m in methods(p) if method(m).ranked]
        self.check_rows([run for m in searched for run in self.search_runs(m)])
        done = [m for m in searched if self._is_complete(m)]
        self.check_rows([run for m in done for run in self.final_runs(m)])

    def _check_two_slices(self) -> None:
        p = self.params
        if p.search_split == p.final_split:
            raise InputError(
                f"final_split: {p.final_split!r} is search_split too, and rows of both could not "
                "be told apart; allowed: another slice"
            )

    def _is_complete(self, method: str) -> bool:
        """Whether every run of a method's search has its row."""
        there = set(read_ledger(self._ledger(method))["key"])
        return all(run.key in there for run in self.search_runs(method))

    def check_rows(self, runs: Sequence[Run]) -> None:
        """Refuse a folder that holds rows of other runs than this profile's.

        runs: all of a method's search, or all of its final ones; of one or more methods.

        Raises InputError. Figures refuse such a mixture too, but only after all the training.
        """
        rows = self.results().rows
        self._check_splits(rows)
        of_block = {(run.method, run.split, run.block.name, run.repeat): run for run in runs}
        planned = {(run.method, run.split): set() for run in runs}
        for run in runs:
            planned[run.method, run.split].add(run.block.name)
        for row in rows.to_dict("records"):
            of_method = row["method"], row["split"]
            if row["block"] not in planned.get(of_method, {row["block"]}):
                self._refuse_block(row, planned[of_method])
            run = of_block.get((*of_method, row["block"], row["repeat"]))
            if run is not None and row["key"] != run.key:
                self._refuse_settings(row, run)

    def _check_splits(self, rows: pd.DataFrame) -> None:
        """Refuse rows that were trained on a slice which this profile does not have."""
        p = self.params
        for row in rows[~rows["split"].isin([p.search_split, p.final_split])].to_dict("records"):
            raise InputError(
                f"results: {self._ledger(row['method'])} has {row['block']} with split "
                f"{row['split']!r}; allowed: search_split {p.search_split!r} and final_split "
                f"{p.final_split!r}, or another folder of rows"
            )

    def _refuse_block(self, row: Mapping, planned: set[str]) -> None:
        final = row["split"] == self.params.final_split
        stage = "final runs" if final else "search"
        shown = ", ".join(sorted(planned)[:3]) + ", ..." * (len(planned) > 3)
        raise InputError(
            f"results: {self._ledger(row['method'])} has {row['block']}, and the {stage} of this "
            f"profile would be of {shown}; allowed: rows of the same settings, or another folder "
            "of rows"
        )

    def _refuse_settings(self, row: Mapping, run: Run) -> None:
        other = [n for n, value in run.settings.items() if row[n] != value]
        if not other:
            raise InputError(
                f"results: {self._ledger(run.method)} has {run.block.name} with a key of an "
                "earlier version; make migrate with RESULTS as this folder gives it the new one"
            )
        hint = " (repeat_order=shared keeps the order of older rows)" * (other == ["order_seed"])
        raise InputError(
            f"results: {self._ledger(run.method)} has {run.block.name} with "
            + ", ".join(f"{n} {row[n]!r}, not {run.settings[n]!r}" for n in other)
            + f"{hint}; allowed: the same settings, or another folder of rows"
        )

    def _missing(self, runs: Sequence[Run]) -> dict[str, list[Run]]:
        """The runs whose rows are missing by key, one of each method."""
        missing: dict[str, list[Run]] = {}
        ledgers = {m: set(read_ledger(self._ledger(m))["key"]) for m in {r.method for r in runs}}
        for run in runs:
            if run.key not in ledgers[run.method]:
                ledgers[run.method].add(run.key)
                missing.setdefault(run.key, []).append(run)
        return missing

    def _train_split(self, todo: dict[str, list[Run]]) -> None:
        runs = [same[0] for same in todo.values()]
        task = self.task(runs[0].split, runs[0].epochs)
        names = " ".join(dict.fromkeys(run.method for run in runs))
        label = f"{self.name} {runs[0].split}: {len(runs)} runs of {names}"
        with tqdm(total=len(runs) * task.epochs, desc=label, unit="epoch", mininterval=1) as bar:
            engine = self._fused if self.params.engine == "fused" else self._plain
            for run, history, lanes in engine(runs, task, bar):
                for same in todo[run.key]:
                    self._append(self._row(same, task, history, lanes))

    def _plain(self, runs: Sequence[Run], task: Task, bar: tqdm):
        for run in runs:
            ordered = replace(task, order_seed=run.order_seed)
            yield run, train_plain(self.backbone, run.block, run.seed, ordered), 1
            bar.update(task.epochs)
            keras.utils.clear_session()

    def _fused(self, runs: Sequence[Run], task: Task, bar: tqdm):
        trunks, groups = self._photos(task), deque(self.groups(runs, task))
        memory = self.memory(task)
        if memory.room <= 0:
            bar.write(
                f"{self.name}: a budget of {memory.budget / 2**30:.1f} GiB is taken by the photos "
                "and the process alone: one lane at a time; memory_gib sets it"
            )
        while groups:
            group, done = groups.popleft(), bar.n
            cut = memory.cut([run.block.layers for run in group])
            trunks = self._advance(trunks, cut, memory, task, bar)
            try:
                histories = self._train_group(group, *trunks, task, bar)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if len(group) == 1:
                    raise InputError(
                        f"memory: {self.name} with one lane does not fit ({first_line(error)}); "
                        "allowed: a smaller image_size or batch_size, or a larger device"
                    ) from error
                half = len(group) // 2
                by_depth = sorted(group, key=self._first)  # so no half starts below the trunk
                groups.extendleft(map(self._in_order, (by_depth[half:], by_depth[:half])))
                bar.update(done - bar.n)
                bar.write(f"{self.name}: out of memory with {len(group)} lanes; now {half}")
                continue
            for run, history in zip(group, histories, strict=True):
                yield run, history, len(group)

    def _photos(self, task: Task) -> tuple[Trunk, Trunk]:
        """The trunks of the training and the evaluation images below the first call."""
        return tuple(
            Trunk.from_images(self.graph, x) for x in (task.train_images, task.eval_images)
        )

    def _advance(
        self, trunks: tuple[Trunk, Trunk], cut: int, memory: Estimate, task: Task, bar: tqdm
    ) -> tuple[Trunk, Trunk]:
        """Both trunks at `cut`, or below where the memory does not suffice.

        A cut below the trunks' own is computed from the photos.
        """
        while cut != trunks[0].cut:
            trunks = trunks if trunks[0].cut < cut else self._photos(task)
            # The same batches whichever trunk came before, where bits must repeat.
            start = 0 if self.params.deterministic else trunks[0].cut
            batch = eval_batch(self.graph, start, 1, memory.batch_floats())
            try:
                return tuple(t.advance(cut, batch) for t in trunks)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                bar.write(f"{self.name}: out of memory below call {cut}; a shallower trunk")
            half = memory.trunk(cut) / 2
            cut = max(trunks[0].cut, choose_cut(cut - 1, half, memory.trunk))
        return trunks

    def _train_group(
        self, group: Sequence[Run], train: Trunk, evaluation: Trunk, task: Task, bar: tqdm
    ) -> list[History]:
        """Build one fused model and train its runs."""
        gc.collect()
        task = replace(task, order_seed=group[0].order_seed)
        model = fuse(train, [run.block for run in group], [run.seed for run in group], task)
        steps = fused_steps(model, train, evaluation, task, self.memory(task).batch_floats())
        return self._train_steps(group, steps, task, bar)

    def _train_steps(
        self, group: Sequence[Run], steps: Any, task: Task, bar: tqdm
    ) -> list[History]:
        """Train the runs of one fused model; nothing of it is kept but the histories."""
        return train_fused(steps, task, lambda _: bar.update(len(group)))

    def train_fused(self, runs: Sequence[Run], task: Task) -> dict[str, History]:
        """Train `runs` in fused models without writing rows; their histories by key."""
        with tqdm(disable=True) as bar:
            return {run.key: history for run, history, _ in self._fused(runs, task, bar)}

    def groups(self, runs: Sequence[Run], task: Task) -> list[list[Run]]:
        """Cut `runs` into the lanes of fused models.

        Neighbours in depth go together, so that a group's trunk is as deep as can be. There are
        as few groups as the memory allows, none larger than it must be for that; deep groups may
        hold more lanes. In a group, lanes come in the order in which they pass their last tuned
        layer: stacked so, none is moved. A group's runs share the order of the photos.
        """
        orders = dict.fromkeys(run.order_seed for run in runs)
        groups = [
            group
            for order in orders
            for group in self._groups([r for r in runs if r.order_seed == order], task)
        ]
        return sorted(groups, key=lambda group: min(map(self._first, group)))

    def _groups(self, runs: Sequence[Run], task: Task) -> list[list[Run]]:
        """The groups of runs that share the order of the photos."""
        runs = sorted(runs, key=self._first)
        most = 1 if self.params.deterministic else self.params.lanes
        if most == "auto":
            ends = self.memory(task).ends(
                [run.block.layers for run in runs], self._most_lanes(task)
            )
        else:
            ends = -(-len(runs) // most)
        return [self._in_order(g) for g in np.array_split(np.array(runs, object), ends)]

    def _most_lanes(self, task: Task) -> int:
        """So many lanes that a group, whose rows come when it ends, is not lost after hours."""
        images = 3 * len(task.train_targets) + len(task.eval_targets)  # backward counts for two
        work = images * task.epochs * sum(call.macs for call in self.graph.calls)
        return int(np.clip(GROUP_WORK // max(1, work), FEW_LANES, MOST_LANES))

    def _first(self, run: Run) -> int:
        return self.graph.span(run.block.layers)[0]

    def _in_order(self, group: Iterable[Run]) -> list[Run]:
        return sorted(group, key=lambda run: self.graph.span(run.block.layers)[1])

    def memory(self, task: Task) -> Estimate:
        """What fused models of this task take, and how much they may."""
        return Estimate(
            self.graph,
            self.params.batch_size,
            len(task.train_targets),
            len(task.eval_targets),
            classifier_weights(self.graph.shape, task.n_classes),
            partial(eval_batch, self.graph),
            budget(self.params.memory_gib, self.params.deterministic),
        )

    def task(self, split: str, epochs: int) -> Task:
        """The images and targets of runs on one training slice."""
        rows = self.dataset.split(split), self.dataset.split(self.params.eval_split)
        one_hot = np.eye(len(self.dataset.names), dtype="float32")
        scaling = self.params.input_scaling
        images = [scale_inputs(self.dataset.images[r], self.source, scaling) for r in rows]
        targets = [one_hot[self.dataset.labels[r]] for r in rows]
        return Task(images[0], targets[0], images[1], targets[1], epochs, self.params)

    def _ledger(self, method: str) -> Path:
        return ledger_path(self.params.results_dir, method, self.name)

    def _append(self, row: dict) -> None:
        append_row(self._ledger(row["method"]), row)

    def _row(self, run: Run, task: Task, history: History, lanes: int) -> dict:
        p, n_eval = self.params, len(task.eval_targets)
        tuned = [layer for layer in self.backbone.layers if layer.name in run.block.layers]
        head = classifier_weights(self.graph.shape, task.n_classes)
        trainable = sum(int(np.prod(v.shape)) for x in tuned for v in x.trainable_variables)
        return {
            **run.settings,
            "key": run.key,
            "profile": p.profile,
            "method": run.method,
            "block": run.block.name,
            "n_trainable": trainable + head,
            "train_images": len(task.train_targets),
            "eval_images": n_eval,
            "repeat": run.repeat,
            "val_accuracy": history.val_accuracy[-1],
            "val_loss": history.val_loss[-1],
            "best_val_accuracy": max(history.val_accuracy),
            "train_accuracy": history.train_accuracy[-1],
            "seconds": history.seconds,
            "lanes": lanes,
            "versions": versions(),
            "git_sha": git_sha(),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "failed": history.failed,
            "curve": ";".join(str(round(a * n_eval)) for a in history.val_accuracy),
            "hits": pack_hits(history.probabilities.argmax(-1) == task.eval_targets.argmax(-1)),
        }
