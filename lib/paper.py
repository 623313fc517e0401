"""What the paper reports and claims: Table I as published, checked, and beside our numbers."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from .methods import TABLE1
from .params import ROOT, InputError
from .results import FINAL_SPLIT, summary

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
    definition that gives the printed row. It says nothing about the spread over repeats.
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


def our_accuracies(df: pd.DataFrame, split: str = FINAL_SPLIT) -> pd.DataFrame:
    """The mean final accuracy over repeats in the shape of Table I; nan where nothing was run."""
    means = summary(df, split=split).pivot(index="backbone", columns="method", values="mean")
    return means.reindex(index=list(accuracies().index), columns=list(TABLE1))


def compare(df: pd.DataFrame, split: str = FINAL_SPLIT) -> pd.DataFrame:
    """Table I of the paper beside ours: one row for each backbone and method, then statistics.

    Columns: backbone, method, paper (printed), ours (text: mean ± sd (n), or "not run"), mean,
    sd (over repeats, ddof 1), n (repeats) and difference (mean - paper). Statistics compare like
    with like: they are "not run" for a method unless all five backbones were run.
    """
    table = published().stack().rename("paper").rename_axis(["backbone", "method"]).reset_index()
    ours = summary(df, split=split)
    extra = statistics(our_accuracies(df, split)).stack().rename("mean")
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
    spread = f" ± {sd:.4f}" if sd == sd else ""
    number = f"{mean:.6f}" if name == "Variance" else f"{mean:.4f}"
    return f"{number}{spread}" + (f" ({n})" if n else "")


# ------------------------------------------------------------------------------------ claims


@dataclass(frozen=True)
class Claim:
    """One thing that the paper says its experiments show."""

    name: str  # short, for tables
    text: str  # the paper's words
    where: str  # place in the paper
    statement: str  # the same as a statement about rows, with "accuracy" the validation accuracy


CLAIMS = (
    Claim(
        "random_beats_baseline_1",
        "the model with randomly chosen layers outperforms the Baseline I method in all tested"
        " models",
        "Section VI, Figure 3",
        "search: accuracy of random > baseline_1 for every backbone",
    ),
    Claim(
        "random_near_baseline_2",
        "and achieves a comparable performance with Baseline II",
        "Section VI, Figure 3",
        "search: accuracy of random is about that of baseline_2 for every backbone",
    ),
    Claim(
        "layers_differ",
        "the classifier accuracy varies significantly between different layers",
        "Section VI, Figure 4",
        "search: the spread of layer_wise over layers exceeds what chance, other seeds, gives it",
    ),
    Claim(
        "few_layers_beat_both",
        "A very few layer are able to identify the classes with a high accuracy, even exciting"
        " both Baseline approaches, while the vast majority would not achieve high accuracy",
        "Section VI, Figure 4",
        "search: some but few layers of layer_wise exceed both baselines",
    ),
    Claim(
        "block_wise_improves",
        "the classification accuracy has been significantly improved with the use of block wise"
        " FT, and the accuracy has a certain observable pattern",
        "Section VI, Figure 5",
        "search: the best block of block_wise > the best layer of layer_wise and baseline_1",
    ),
    Claim(
        "window_near_block_and_baseline_2",
        "the achieved accuracy was comparable with the block-wise and the Baseline II approaches",
        "Section VI, Figure 6",
        "search: the best window of sliding_window is about the best block and baseline_2",
    ),
    Claim(
        "all_beat_baseline_1",
        "all the tested approaches outperform Baseline I approach",
        "Section VI, Figure 7",
        "search: the best of every method > baseline_1 for every backbone",
    ),
    Claim(
        "few_beat_baseline_2",
        "and few outperform Baseline II approach",
        "Section VI, Figure 7",
        "search: the best of some methods > baseline_2",
    ),
    Claim(
        "block_wise_never_below_baseline_2",
        "the block-wise approach had been consistent in achieving high accuracy. As it has always"
        " either score higher or equal to the Baseline II approach",
        "Section VI, Figure 8",
        "final: accuracy of block_wise >= baseline_2 for every backbone",
    ),
    Claim(
        "block_wise_highest_mean",
        "the Block-wise approach has the highest average validation accuracy outperforming the"
        " Baseline II approach",
        "Section VI, Table I",
        "final: the mean of block_wise over backbones is the highest of all methods",
    ),
    Claim(
        "block_wise_lowest_variance",
        "Moreover it has a lower accuracy variance, thus yield a consistent reliable performance",
        "Section VI, Table I",
        "final: the variance of block_wise over backbones is the lowest of all methods",
    ),
    Claim(
        "repeats_agree",
        "both approaches yield consistent performance",
        "Appendix A, Figures 9 and 10",
        "final: the spread over repeats of block_wise and sliding_window is small",
    ),
    Claim(
        "proposed_beat_all",
        "the use of our proposed block-wise approaches can achieve better performances than the"
        " two baseline methods and the layer-wise method",
        "Abstract",
        "final: block_wise, top_3, top_5 and sliding_window > both baselines and layer_wise",
    ),
)
