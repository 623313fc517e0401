"""What there is to train: the runs of each method's search and final runs, and which are missing.

A plan knows the backbone, the partition that each method proposes (`lib.methods`), what determines
the result of each run, and the rows that are there. It trains nothing; `lib.trainer` does.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from . import partition
from .backbones.build import backbone_of, find_weights, source_digest
from .backbones.records import backbone_name, is_model_file
from .lanes.trunk import Graph, read_graph
from .ledger import ledger_path, read_ledger, read_results, run_key
from .methods import method, methods
from .params import WEIGHTS, InputError, Params, resolve_path
from .partition import Block
from .photos.dataset import Dataset
from .results import Results
from .train import classifier_weights


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


class Network:
    """A backbone, and what is read from it once.

    Args:
        source: as `lib.backbones.build.load_backbone` takes it.
    """

    def __init__(self, source: str, backbone: keras.Model):
        self.source, self.backbone = source, backbone

    @cached_property
    def graph(self) -> Graph:
        return read_graph(self.backbone)

    @cached_property
    def weights_sha256(self) -> str:
        return source_digest(self.source, self.backbone)


def of_stage(rows: pd.DataFrame, params: Params, split: str, ranked: bool = False) -> pd.DataFrame:
    """The rows of a slice, of a search those of the `ranked` methods or those of all others."""
    rows = rows[rows["split"] == split]
    if split != params.search_split:
        return rows
    later = [m for m in methods(params) if method(m).ranked]
    return rows[rows["method"].isin(later) == ranked]


KEPT = 5  # networks, the last ones used: building one takes seconds
_networks: dict[tuple, Network] = {}


def network(params: Params, source: str) -> Network:
    """The network that parameters describe, built once a process; training leaves it as it is.

    Raises InputError as `lib.backbones.build.load_backbone`.
    """
    key = (source, params.image_size, params.alpha_of(backbone_name(source)), params.weights)
    key += (params.thin, _file_state(params, source))
    found = _networks.pop(key, None) or Network(source, backbone_of(params, source))
    _networks[key] = found  # the last one
    for oldest in [*_networks][:-KEPT]:
        del _networks[oldest]
    return found


def _file_state(params: Params, source: str) -> tuple[int, ...]:
    """What changes where the file of the weights is another one."""
    if not is_model_file(source) and params.weights in WEIGHTS:
        return ()
    with suppress(InputError, OSError):  # loading it says what is wrong
        state = _weights_file(params, source).stat()
        return state.st_mtime_ns, state.st_size, state.st_ino
    return ()


def _weights_file(params: Params, source: str) -> Path:
    if is_model_file(source):
        return resolve_path(source)
    return find_weights(params.weights, source, params.alpha_of(source), params.thin)


class Plan:
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
    def network(self) -> Network:
        return network(self.params, self.source)

    @property
    def backbone(self) -> keras.Model:
        return self.network.backbone

    @property
    def graph(self) -> Graph:
        return self.network.graph

    @property
    def weights_sha256(self) -> str:
        return self.network.weights_sha256

    def search_runs(self, name: str, repeats: int = 1) -> list[Run]:
        """The runs of a method's search: its partition, block by block, with one seed a repeat."""
        p, blocks = self.params, self.blocks(name)
        backend = self.backend(p.search_split, ranked=method(name).ranked)
        return [
            self.run(name, b, p.search_split, p.epochs, r, backend)
            for r in range(repeats)
            for b in blocks
        ]

    def final_runs(self, method: str) -> list[Run]:
        """The final runs of a method: its best block of the search, seed by seed."""
        p = self.params
        row = self.results().winner(method, self.name)
        block = Block(row["block"], tuple(row["layers"].split(";")) if row["layers"] else ())
        epochs, backend = p.final_epochs or p.epochs, self.backend(p.final_split)
        return [
            self.run(method, block, p.final_split, epochs, r, backend) for r in range(p.repeats)
        ]

    def backend(self, split: str, ranked: bool = False) -> str:
        """The backend that trains on a slice: of the rows that are there, else Keras' current one.

        What was begun on one backend is finished on it. Final runs may be on another than the
        search: of a search on a cluster's GPUs, say, the winners on a laptop. So may the search of
        the `ranked` methods, which has one block only, known from the search before.
        """
        rows = of_stage(self.results().rows, self.params, split, ranked)
        there = rows["backend"].unique()
        return there[0] if len(there) == 1 else keras.backend.backend()

    def results(self) -> Results:
        """What has been run of this backbone, by this plan or another."""
        return Results.of(read_results(self.params.results_dir, [self.name]), self.params)

    def blocks(self, name: str) -> list[Block]:
        """The partition that a method proposes for this backbone."""
        record = method(name)
        scores = self.results().layer_scores(self.name) if record.ranked else {}
        return record.propose(self.backbone, self.params, scores)

    def run(
        self,
        method: str,
        block: Block,
        split: str,
        epochs: int,
        repeat: int,
        backend: str | None = None,
    ) -> Run:
        """One run of this plan.

        backend: that trains it; None: Keras' current one.
        """
        settings = self._settings(block, split, epochs, repeat)
        settings["backend"] = backend or keras.backend.backend()
        return Run(method, block, repeat, settings, run_key(settings))

    def _settings(self, block: Block, split: str, epochs: int, repeat: int) -> dict:
        """What determines a run's result, as its row says it, but for the backend."""
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
        }

    def check(self) -> None:
        """Refuse what would end the sweep later, as far as it is known now. Raises InputError."""
        p = self.params
        self.check_two_slices()
        for k in p.top_k:
            partition.check_count("top_k", k, partition.weighted_layers(self.backbone))
        searched = [m for m in methods(p) if not method(m).ranked]
        if self._is_complete("layer_wise"):
            searched += [m for m in methods(p) if method(m).ranked]
        self.missing([run for m in searched for run in self.search_runs(m)])
        done = [m for m in searched if self._is_complete(m)]
        self.missing([run for m in done for run in self.final_runs(m)])
        for m in (m for m in methods(p) if m not in done):
            self._check_backend(m, "final runs", p.final_split, self.backend(p.final_split))

    def check_two_slices(self) -> None:
        """Refuse one slice for search and final runs. Raises InputError."""
        p = self.params
        if p.search_split == p.final_split:
            raise InputError(
                f"final_split: {p.final_split!r} is search_split too, and rows of both could not "
                "be told apart; allowed: another slice"
            )

    def _is_complete(self, method: str) -> bool:
        """Whether every run of a method's search has its row."""
        there = set(read_ledger(self.ledger(method))["key"])
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
            if run is not None:
                self.check_row(row, run)

    def check_row(self, row: Mapping, run: Run) -> None:
        """Refuse a row that other settings made than a run of the same name has. InputError."""
        if row["key"] != run.key:
            self._refuse_settings(row, run)

    def _check_splits(self, rows: pd.DataFrame) -> None:
        """Refuse rows that were trained on a slice which this profile does not have."""
        p = self.params
        for row in rows[~rows["split"].isin([p.search_split, p.final_split])].to_dict("records"):
            raise InputError(
                f"results: {self.ledger(row['method'])} has {row['block']} with split "
                f"{row['split']!r}; allowed: search_split {p.search_split!r} and final_split "
                f"{p.final_split!r}, or another folder of rows"
            )

    def _refuse_block(self, row: Mapping, planned: set[str]) -> None:
        final = row["split"] == self.params.final_split
        stage = "final runs" if final else "search"
        shown = ", ".join(sorted(planned)[:3]) + ", ..." * (len(planned) > 3)
        raise InputError(
            f"results: {self.ledger(row['method'])} has {row['block']}, and the {stage} of this "
            f"profile would be of {shown}; allowed: rows of the same settings, or another folder "
            "of rows"
        )

    def _refuse_settings(self, row: Mapping, run: Run) -> None:
        other = [n for n, value in run.settings.items() if row[n] != value]
        if not other:
            raise InputError(
                f"results: {self.ledger(run.method)} has {run.block.name} with a key that "
                "its settings do not give; allowed: rows of this version, or another folder of rows"
            )
        hint = " (repeat_order=shared keeps the order of older rows)" * (other == ["order_seed"])
        raise InputError(
            f"results: {self.ledger(run.method)} has {run.block.name} with "
            + ", ".join(f"{n} {row[n]!r}, not {run.settings[n]!r}" for n in other)
            + f"{hint}; allowed: the same settings, or another folder of rows"
        )

    def missing(self, runs: Sequence[Run]) -> dict[str, list[Run]]:
        """The runs whose rows are missing by key, one of each method.

        runs: as `check_rows` takes them.

        Raises InputError as `check_rows` does, and where another backend would have to train them.
        """
        self.check_rows(runs)
        missing: dict[str, list[Run]] = {}
        ledgers = {m: set(read_ledger(self.ledger(m))["key"]) for m in {r.method for r in runs}}
        for run in runs:
            if run.key not in ledgers[run.method]:
                ledgers[run.method].add(run.key)
                missing.setdefault(run.key, []).append(run)
                begun = run.settings["backend"]
                self._check_backend(run.method, run.block.name, run.split, begun)
        return missing

    def _check_backend(self, method: str, lacking: str, split: str, begun: str) -> None:
        backend = keras.backend.backend()
        if begun != backend:
            raise InputError(
                f"results: {self.ledger(method)} lacks {lacking}, and the runs of "
                f"{self.name} on {split} were begun on {begun}, not {backend}; allowed: "
                f"KERAS_BACKEND={begun}, or another folder of rows"
            )

    def ledger(self, method: str) -> Path:
        """The file of a method's rows of this backbone."""
        return ledger_path(self.params.results_dir, method, self.name)

    def trainable_weights(self, block: Block) -> int:
        """How many weights a run of this block trains: the block's and the classifier's."""
        layers = [layer for layer in self.backbone.layers if layer.name in block.layers]
        tuned = sum(int(np.prod(v.shape)) for x in layers for v in x.trainable_variables)
        return tuned + classifier_weights(self.graph.shape, len(self.dataset.names))
