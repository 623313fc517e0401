"""The runs that the audit needs and the paper did not make: ``make audit``.

Each kind has a folder of rows of its own beside those of the profile, so that no figure of the
paper mixes them in. The native input scaling is a profile of its own, ``cpu_native``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pandas as pd

from .methods import BASELINES, methods
from .params import InputError, Params
from .results import read_results
from .sweep import final, search

SEEDS = 3  # of the layer-wise search and of the long one
LONG = 50  # epochs of the search that tells when to stop: the paper's
LONGER = {"epochs": 25, "final_epochs": 8}  # what a shorter profile is held to
LARGER = {"image_size": 96, **LONGER}  # and one with smaller photos
SIZES = (96, 128, 224)  # pixels; the last is the paper's, and trains all methods


@dataclass(frozen=True)
class Controls:
    """Rows beside those of a profile; empty frames where nothing was run.

    Attributes:
        native: all of the paper's runs with the backbones' own input scaling.
        longer, native_longer: all of the paper's runs, trained longer, see `LONGER`.
        norms: BatchNorms alone tuned, search and final.
        blocks: every block of one backbone trained on the final slice.
        epochs: baselines and blocks of one backbone, searched for the paper's 50 epochs with
            `SEEDS` seeds.
        larger: all of the paper's runs of one backbone with `LARGER` photos and longer training.
        sizes: both baselines of one backbone with larger photos, all else as in the profile; at
            the paper's size all methods.
    """

    native: pd.DataFrame
    longer: pd.DataFrame
    native_longer: pd.DataFrame
    norms: pd.DataFrame
    blocks: pd.DataFrame
    epochs: pd.DataFrame
    larger: pd.DataFrame
    sizes: pd.DataFrame

    @property
    def costlier(self) -> list[pd.DataFrame]:
        """All of the paper's runs under settings that cost more than the profile's, if run."""
        settings = (self.longer, self.native_longer, self.larger)
        full = self.sizes[self.sizes["image_size"] == SIZES[-1]]
        return [of for of in (*settings, full) if "layer_wise" in set(of["method"])]


def read_controls(results: str | Path) -> Controls:
    """The rows beside a folder of rows, such as results/cpu."""
    kinds = [f.name for f in fields(Controls) if f.name != "sizes"]
    sizes = [read_results(f"{results}_{n}px") for n in SIZES]  # a folder holds one setting
    return Controls(
        **{kind: read_results(f"{results}_{kind}") for kind in kinds},
        # Without those not run: an empty frame would turn numbers into objects.
        sizes=pd.concat([df for df in sizes if len(df)] or sizes[:1], ignore_index=True),
    )


def train_controls(params: Params, names: Sequence[str] = ()) -> None:
    """Train what is missing of the rows that `read_controls` reads, but for the native ones.

    names: some of `CONTROLS`; none for all of them, cheap ones first.

    Raises InputError for another name.
    """
    for name in names:
        if name not in CONTROLS:
            raise InputError(f"control: {name!r} is unknown; allowed: {', '.join(CONTROLS)}")
    for name, train in CONTROLS.items():
        if name in names or not names:
            train(params)


def _beside(params: Params, kind: str, **changes) -> Params:
    """The profile with a folder of rows of its own, and other changes."""
    return replace(params, results=f"{params.results_dir}_{kind}", **changes)


def _first(params: Params) -> Params:
    """The profile with its first backbone only."""
    return replace(params, backbones=params.backbones[:1])


def _seeds(params: Params) -> None:
    search(params, "layer_wise", repeats=SEEDS)


def _norms(params: Params) -> None:
    final(_beside(params, "norms"), "batch_norm")


def _blocks(params: Params) -> None:
    epochs = params.final_epochs or params.epochs
    split = params.final_split
    search(_beside(_first(params), "blocks", search_split=split, epochs=epochs), "block_wise")


def _epochs(params: Params) -> None:
    long = _beside(_first(params), "epochs", epochs=max(LONG, params.epochs))
    search(long, *BASELINES, "random", "block_wise", repeats=SEEDS)


def _longer(params: Params) -> None:
    if params.epochs < LONGER["epochs"] and not params.thin:  # thin: a rate of its own
        final(_beside(params, "longer", **LONGER), *methods(params))


def _larger(params: Params) -> None:
    if not params.thin and params.image_size < LARGER["image_size"]:  # thin: drawn at 32 px
        final(_beside(_first(params), "larger", **LARGER), *methods(params))


def _sizes(params: Params) -> None:
    for n in () if params.thin else SIZES:
        if n > params.image_size:
            of = _beside(_first(params), f"{n}px", image_size=n)
            for method in BASELINES:  # one by one: Baseline I alone has all of its trunk
                final(of, method)
            if n == SIZES[-1]:
                final(of, *methods(of))


# What each trains. `seeds`, `norms` and `longer`: all backbones of the profile; others: the first.
CONTROLS = {
    "seeds": _seeds,
    "norms": _norms,
    "blocks": _blocks,
    "epochs": _epochs,
    "larger": _larger,
    "sizes": _sizes,
    "longer": _longer,
}
