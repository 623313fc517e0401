"""The line under a figure or table that says which runs made it; generated from the rows."""

from collections.abc import Iterable

import pandas as pd

from ..results import INPUTS

RUN = ["method", "backbone", "block", "split"]  # runs that agree in these are repeats


def caption(rows: pd.DataFrame, unit: str = "point") -> str:
    """One line: profile, split and image counts, image size, inputs, epochs, repeats.

    rows: the runs shown. unit: what one value is called, as in "4 runs per bar".
    Example: "profile quick · train[:10%]: 100 training / 300 evaluation images · 32 px ·
    [0, 1] inputs · 8 epochs · 1 run per point".
    """
    if rows.empty:
        return "no runs"
    parts = [
        f"profile {_all_of(rows['profile'])}",
        f"{_all_of(rows['split'])}: {listed(rows['train_images'])} training"
        f" / {listed(rows['eval_images'])} evaluation images",
        f"{listed(rows['image_size'])} px",
        f"{_all_of(rows['input_scaling'].map(INPUTS))} inputs",
        _counted(rows["epochs"], "epoch"),
        f"{_counted(rows.groupby(RUN).size(), 'run')} per {unit}",
        *_widths(rows),
    ]
    return " · ".join(parts)


def _all_of(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def listed(values: pd.Series) -> str:
    """Numbers in a few words: one, "10 or 50", or of three and more "1–8"."""
    found = sorted(set(values))
    return " or ".join(f"{n:,}" for n in found) if len(found) < 3 else f"{found[0]:,}–{found[-1]:,}"


def _counted(values: pd.Series, noun: str) -> str:
    return f"{listed(values)} {noun}{'' if values.max() == 1 else 's'}"


def _widths(rows: pd.DataFrame) -> list[str]:
    """Width multipliers other than 1, because they make another network of the same name."""
    pairs = rows[["backbone", "alpha"]].drop_duplicates().itertuples(index=False)
    return [f"{name} alpha {alpha}" for name, alpha in pairs if alpha not in ("", "1", "1.0")]
