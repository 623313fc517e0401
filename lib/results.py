"""The rows of one setting with the choices of their profile, resolved once.

Every figure, table, claim and control takes a `Results` and asks it for search rows, final rows,
winners and the order of layers; nobody else needs to know the slices of a profile, or the score
that picks its blocks. Nothing here starts Keras.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from .errors import InputError
from .ledger import COLUMNS, SETTINGS, empty_rows, read_results
from .methods import PAPER, SEARCHES, methods
from .params import ACCURACIES, BACKBONE_NAMES, Params

INPUTS = {"unit": "[0, 1]", "native": "native"}  # `Params.input_scaling` in words


@dataclass(frozen=True, eq=False)  # two are the same only if they are one object
class Results:
    """Rows of one setting.

    Where a choice is not named it is the default of `lib.params.Params`, the paper's.

    Attributes:
        rows: as `lib.ledger.read_results` gives them, failed runs and all repeats included.
        select_on: the accuracy of the search that picks a method's block, one of `ACCURACIES`.
        search_split: the training slice of the search.
        final_split: the training slice of the final runs.

    Raises InputError for another `select_on`.
    """

    rows: pd.DataFrame
    select_on: str = Params.select_on
    search_split: str = Params.search_split
    final_split: str = Params.final_split

    def __post_init__(self) -> None:
        if self.select_on not in ACCURACIES:
            raise InputError(
                f"select_on is {self.select_on!r}, must be one of {', '.join(ACCURACIES)}"
            )

    @classmethod
    def of(cls, rows: pd.DataFrame, params: Params) -> "Results":
        """Some rows with the choices of their profile."""
        return cls(rows, params.select_on, params.search_split, params.final_split)

    @classmethod
    def read(cls, params: Params) -> "Results":
        """The rows of a profile's folder that are its own plan's, see `planned`."""
        return cls.of(planned(read_results(params.results_dir), params), params)

    @classmethod
    def read_native(cls, params: Params) -> "Results":
        """The same runs with the backbones' own input scaling; none where they were not run.

        Their rows are in the folder beside the profile's whose name ends in _native.
        """
        return cls.of(planned(read_results(f"{params.results_dir}_native"), params), params)

    def __len__(self) -> int:
        return len(self.rows)

    def with_rows(self, rows: pd.DataFrame) -> "Results":
        """Other rows with the same choices."""
        return replace(self, rows=rows.reset_index(drop=True))

    def only(self, backbone: str) -> "Results":
        """The rows of one backbone; the same object each time, so that scores are kept."""
        return self._parts[backbone] if backbone in self._parts else self.with_rows(self.rows[:0])

    @cached_property
    def of_paper(self) -> "Results":
        """The rows of the paper's backbones: only these have the paper's numbers beside them."""
        ours = self.rows["backbone"].isin(BACKBONE_NAMES)
        return self if ours.all() else self.with_rows(self.rows[ours])

    @cached_property
    def _parts(self) -> dict[str, "Results"]:
        groups = self.rows.groupby("backbone", sort=False)
        return {name: self.with_rows(rows) for name, rows in groups}

    # ------------------------------------------------------------------------------------ rows

    @cached_property
    def valid(self) -> pd.DataFrame:
        """The runs that did not fail."""
        return self.rows[self.rows["failed"] == ""]

    @cached_property
    def searched(self) -> pd.DataFrame:
        """The runs of the search that did not fail, with all seeds."""
        return self.valid[self.valid["split"] == self.search_split]

    @cached_property
    def search(self) -> pd.DataFrame:
        """The runs of the search that did not fail, one for each method, backbone and block.

        Of a search that was repeated with other seeds, the first.

        Raises InputError where a block has two, or a method that proposes one block has two of
        them: rows of different settings in one folder.
        """
        rows = self.searched[self.searched["repeat"] == 0]
        of_many = rows["method"].isin(SEARCHES)
        _one_setting(rows[~of_many], ["method", "backbone"])
        return _one_setting(rows, ["method", "backbone", "block"])

    @cached_property
    def final(self) -> pd.DataFrame:
        """The final runs that did not fail, one for each method, backbone and repeat.

        Raises InputError where a repeat has two: rows of different settings in one folder.
        """
        rows = self.valid[self.valid["split"] == self.final_split]
        return _one_setting(rows, ["method", "backbone", "repeat"])

    @cached_property
    def backbones(self) -> list[str]:
        """The backbones that have rows, see `backbones_of`."""
        return backbones_of(self.rows)

    # ---------------------------------------------------------------------------------- search

    def layer_order(self, backbone: str) -> list[str]:
        """The layers with weights of a backbone from input to output, as far as rows tell.

        Baseline II tunes all layers, so its `layers` column is the order; without it the blocks of
        `block_wise`, which cover all layers once, are joined; else an empty list.
        """
        rows = self.rows[self.rows["backbone"] == backbone]
        for method in ("baseline_2", "block_wise"):
            mine = rows[rows["method"] == method]
            place = mine["block"].str.extract(r"(\d+)$", expand=False).fillna("0").astype(int)
            blocks = mine.iloc[place.argsort(kind="stable")]["layers"].unique()
            if len(blocks):
                return ";".join(blocks[:1] if method == "baseline_2" else blocks).split(";")
        return []

    @cached_property
    def _in_order(self) -> dict[tuple[str, str], pd.DataFrame]:
        groups = self.search.groupby(["method", "backbone"], sort=False)
        return {pair: self._ordered(rows.copy(), *pair) for pair, rows in groups}

    def _ordered(self, rows: pd.DataFrame, method: str, backbone: str) -> pd.DataFrame:
        if method == "layer_wise":
            order = self.layer_order(backbone)
            unknown = [name for name in rows["block"] if name not in set(order)]
            places = {name: place for place, name in enumerate([*order, *unknown], start=1)}
            rows["position"] = rows["block"].map(places).astype(int)
        else:
            numbers = rows["block"].str.extract(r"(\d+)$", expand=False)
            rows["position"] = numbers.fillna("0").astype(int)
        return rows.sort_values("position", kind="stable").reset_index(drop=True)

    def in_order(self, method: str, backbone: str) -> pd.DataFrame:
        """The search runs of a method from the input to the output of a backbone.

        Adds `position`, int: the layer's index among the layers with weights (`layer_wise`), or the
        number in the block's name (`block_07`, `window_007`), counted from 1.
        """
        nothing = self.search.iloc[:0].assign(position=0)
        return self._in_order.get((method, backbone), nothing)

    def winner(self, method: str, backbone: str) -> pd.Series:
        """The winning run of a method's search (Algorithms 1 and 2): the highest accuracy.

        Of equal accuracies the one nearest the input wins, as in the paper's loop over Acc[1..N].
        Raises InputError if there is no such run.
        """
        rows = self.in_order(method, backbone)
        if rows.empty:
            raise InputError(
                f"no search runs of {method} on {backbone} with split {self.search_split}"
            )
        return rows.loc[rows[self.select_on].idxmax()]

    def layer_scores(self, backbone: str) -> dict[str, float]:
        """The accuracy of each layer in the layer-wise search; what failed ranks last."""
        rows = self.rows.query("method == 'layer_wise' and repeat == 0 and backbone == @backbone")
        rows = rows[rows["split"] == self.search_split]
        scores = rows[self.select_on].where(rows["failed"] == "", 0.0)
        return dict(zip(rows["layers"], scores, strict=True))

    def check_winners(self) -> None:
        """Refuse final runs of a block that did not win its method's search.

        Such rows are of two plans, such as of another `select_on`. Raises InputError.
        """
        finals = self.final.drop_duplicates(["method", "backbone", "layers"])
        for row in finals.to_dict("records"):
            method, backbone = row["method"], row["backbone"]
            if (method, backbone) in self._in_order:
                best = self.winner(method, backbone)
                if best["layers"] != row["layers"]:
                    raise InputError(
                        f"results: final runs of {method} on {backbone} are of {row['block']}, and "
                        f"by {self.select_on} the search's best is {best['block']}; allowed: rows "
                        "of one plan in a folder"
                    )

    # ------------------------------------------------------------------------------ final, words

    def summary(self, value: str = "val_accuracy") -> pd.DataFrame:
        """Final accuracies over repeats: method, backbone, mean, sd (ddof 1; nan for one run), n.

        In the paper's order of methods, then of backbones as they come; without what was not run.
        """
        grouped = self.final.groupby(["method", "backbone"], sort=False)[value]
        table = grouped.agg(mean="mean", sd="std", n="count").reset_index()
        place = table["method"].map(lambda name: PAPER.index(name) if name in PAPER else 99)
        return table.iloc[place.argsort(kind="stable")].reset_index(drop=True)

    @property
    def inputs(self) -> str:
        """The input scaling, in words: "[0, 1]" or "native"; there must be rows."""
        return INPUTS[self.rows["input_scaling"].iloc[0]]

    @property
    def label(self) -> str:
        """The setting, such as "[0, 1], 64 px, 8 / 3 epochs" of search and final runs."""
        parts = [rows["epochs"].iloc[0] for rows in (self.search, self.final) if len(rows)]
        epochs = " / ".join(map(str, parts))
        return f"{self.inputs}, {self.rows['image_size'].iloc[0]} px, {epochs} epochs"


NOTHING = Results(empty_rows())  # what was not run


def planned(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The rows of the profile's own methods, and of no more repeats than its final runs have."""
    more = (rows["split"] == params.final_split) & (rows["repeat"] >= params.repeats)
    return rows[rows["method"].isin(methods(params)) & ~more].reset_index(drop=True)


def backbones_of(rows: Mapping) -> list[str]:
    """The backbones that have rows: the paper's in the order of Table I, then any others."""
    found = dict.fromkeys(rows["backbone"])
    known = [name for name in BACKBONE_NAMES if name in found]
    return known + [name for name in found if name not in known]


def _one_setting(rows: pd.DataFrame, identity: list[str]) -> pd.DataFrame:
    """Refuse to mix runs that differ in a parameter (epochs, image size, data, ...)."""
    twice = rows[rows.duplicated(identity, keep=False)]
    if len(twice):
        group = twice[(twice[identity] == twice[identity].iloc[0]).all(axis=1)]
        varied = [c for c in COLUMNS if c in ("key", *SETTINGS) and group[c].nunique() > 1]
        what = ", ".join(f"{name} {value}" for name, value in group[identity].iloc[0].items())
        raise InputError(
            f"results hold {len(group)} runs of {what} that differ in {', '.join(varied)};"
            " keep the rows of one setting in a folder"
        )
    return rows.reset_index(drop=True)
