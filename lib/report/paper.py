"""What the paper reports: Table I as published, checked, and beside our numbers."""

from pathlib import Path

import pandas as pd

from ..methods import TABLE1
from ..params import ROOT, InputError
from ..results import Results

FILE = ROOT / "params" / "paper_table1.csv"
EVAL_IMAGES = 1101  # 30 % of tf_flowers' 3,670: every accuracy of Table I is k / 1101
STATISTICS = ("Variance", "Mean")  # the last two rows of Table I
SETTING = (
    "tf_flowers · 224 px · 367 / 2,569 training and 1,101 evaluation images"
    " · 50 epochs · ImageNet weights"
)

# ---------------------------------------------------------------------------------- Table I


def published(path: str | Path = FILE) -> pd.DataFrame:
    """Table I as printed: five backbones, then Variance and Mean; float64, accuracies in [0, 1].

    Index: backbone; columns: the paper's seven methods under this project's names.
    Raises InputError where the file is not such a table.
    """
    table = pd.read_csv(path, index_col="backbone")
    shape = tuple(table.columns) == TABLE1 and tuple(table.index[-2:]) == STATISTICS
    if not shape or any(kind != "float64" for kind in table.dtypes):
        raise InputError(
            f"{path}: must have the columns {', '.join(TABLE1)} and two last rows"
            f" {', '.join(STATISTICS)}, all numbers"
        )
    return table


def accuracies() -> pd.DataFrame:
    """The printed accuracies of Table I, without its two rows of statistics."""
    return published().drop(index=list(STATISTICS))


def statistics(table: pd.DataFrame) -> pd.DataFrame:
    """The rows Variance and Mean of Table I for a table of accuracies (backbone x method).

    Both run over the architectures. The variance is the sample variance (divisor n - 1): the
    definition that gives the printed row. It says nothing about repeats.
    A column with a missing accuracy gets no statistics (nan), one backbone no variance.
    """
    mean = table.mean(skipna=False)
    variance = table.var(ddof=1, skipna=False) if len(table) > 1 else mean * float("nan")
    return pd.DataFrame({"Variance": variance, "Mean": mean}).T


def correct_images() -> pd.DataFrame:
    """Table I as counts, int64: of 1,101 evaluation images, how many were classified rightly."""
    return (accuracies() * EVAL_IMAGES).round().astype("int64")


def misprints(tolerance: float = 0.5e-6) -> pd.DataFrame:
    """The entries of Table I that do not agree with what they must be, at six printed digits.

    An accuracy must be k / 1101, a statistic must follow from the five k / 1101 above it.
    Returns backbone, method, printed, expected; one row for each entry off by more than
    `tolerance`.
    """
    exact = correct_images() / EVAL_IMAGES
    expected = pd.concat([exact, statistics(exact)])
    wrong = (published() - expected).abs() > tolerance * (1 + 1e-9)
    places = [(row, method) for row in wrong.index for method in TABLE1 if wrong.at[row, method]]
    table = published()
    records = [(*place, table.at[place], expected.at[place]) for place in places]
    return pd.DataFrame(records, columns=["backbone", "method", "printed", "expected"])


# ---------------------------------------------------------------------------- paper and ours


def our_accuracies(results: Results) -> pd.DataFrame:
    """The mean final accuracy over repeats in the shape of Table I; nan where nothing was run."""
    means = results.summary().pivot(index="backbone", columns="method", values="mean")
    return means.reindex(index=list(accuracies().index), columns=list(TABLE1))


def compare(results: Results) -> pd.DataFrame:
    """Table I of the paper beside ours: one row for each backbone and method, then statistics.

    Columns: backbone, method, paper (printed), ours (text: mean ± sd (n), or "not run"), mean,
    sd (over repeats, ddof 1), n (repeats) and difference (mean - paper). Statistics compare like
    with like: they are "not run" for a method unless all five backbones were run.
    """
    table = published().stack().rename("paper").rename_axis(["backbone", "method"]).reset_index()
    ours = results.summary()
    extra = statistics(our_accuracies(results)).stack().rename("mean")
    extra = extra.rename_axis(["backbone", "method"]).reset_index()
    table = table.merge(pd.concat([ours, extra]), how="left", on=["backbone", "method"])
    table["n"] = table["n"].fillna(0).astype(int)
    table["difference"] = table["mean"] - table["paper"]
    cells = table[["backbone", "mean", "sd", "n"]].itertuples(index=False)
    table["ours"] = [_ours(*cell) for cell in cells]
    return table[["backbone", "method", "paper", "ours", "mean", "sd", "n", "difference"]]


def _ours(name: str, mean: float, sd: float, n: int) -> str:
    """A cell: "0.8751 ± 0.0032 (4)"; without repeats "0.8751 (1)"; without runs "not run".

    A statistic over backbones has no n of its own: Mean "0.8518", Variance "0.001318".
    """
    if mean != mean:
        return "not run"
    scatter = f" ± {sd:.4f}" if sd == sd else ""
    number = f"{mean:.6f}" if name == "Variance" else f"{mean:.4f}"
    return f"{number}{scatter}" + (f" ({n})" if n else "")
