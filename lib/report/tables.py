"""Table I from our rows, alone and beside the paper's, as CSV, Markdown and LaTeX."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from ..methods import ABBREVIATIONS, TABLE1
from ..results import Results, backbones_of
from ..whole import write_whole
from .captions import caption
from .paper import SETTING, STATISTICS, compare, statistics

REPEATS = "Variance over repeats"
CSV = {"lineterminator": "\n", "float_format": "%.6f"}  # six digits, as the paper prints
BLANK = "–"  # a statistic that does not exist, for want of runs


# ------------------------------------------------------------------------------------ numbers


def table1(results: Results) -> pd.DataFrame:
    """Table I: final validation accuracy of the paper's seven methods.

    Index: the backbones that were run, then three statistics: "Variance" and "Mean" over
    architectures, computed on the means as the paper does, and "Variance over repeats", the
    pooled sample variance of the repeats of one cell, which the paper does not give.
    Columns: (method, "mean" | "sd" | "n"): float64 mean and sd (ddof 1) over n repeats; nan
    where nothing was run. A method that lacks a backbone has no Variance and Mean.
    """
    cells = results.summary()
    cells = cells[cells["method"].isin(TABLE1)]
    wide = cells.pivot(index="backbone", columns="method", values=["mean", "sd", "n"])
    columns = pd.MultiIndex.from_product([TABLE1, ("mean", "sd", "n")])
    wide = wide.swaplevel(axis=1).reindex(index=backbones_of(cells), columns=columns)
    wide = wide.astype(float)
    means = pd.concat([statistics(wide.xs("mean", axis=1, level=1)), _over_repeats(wide)])
    means.columns = pd.MultiIndex.from_product([means.columns, ["mean"]])
    return pd.concat([wide, means.reindex(columns=columns)]).rename_axis("backbone")


def _over_repeats(wide: pd.DataFrame) -> pd.DataFrame:
    """The pooled sample variance: sum of (n - 1) sd^2 over sum of (n - 1); nan without repeats."""
    freedom = wide.xs("n", axis=1, level=1) - 1
    squares = freedom * wide.xs("sd", axis=1, level=1) ** 2
    return (squares.sum() / freedom.sum()).to_frame(REPEATS).T


# --------------------------------------------------------------------------------------- text


def table1_cells(table: pd.DataFrame, plus_minus: str, bold: Callable[[str], str]) -> list[list]:
    """Table I as rows of text, each with its name first; the best of a row is bold, as printed."""
    rows = []
    for name, cells in table.iterrows():
        means = cells.xs("mean", level=1).round(9)  # sums of k / n that are equal become equal
        best = means.min() if "Variance" in name else means.max()
        texts = [_cell(name, cells[method], plus_minus) for method in TABLE1]
        pairs = zip(texts, means, strict=True)
        rows.append([name, *(bold(text) if mean == best else text for text, mean in pairs)])
    return rows


def _cell(name: str, cell: pd.Series, plus_minus: str) -> str:
    """One value of Table I: a mean ± its sd, or a statistic."""
    if pd.isna(cell["mean"]):
        return BLANK if name in (*STATISTICS, REPEATS) else "not run"
    sd = "" if pd.isna(cell["sd"]) else f"{plus_minus}{cell['sd']:.4f}"
    return f"{cell['mean']:.{_digits(name)}f}{sd}"


def _digits(name: str) -> int:
    """Digits printed after the point: variances are small."""
    return 6 if "Variance" in name else 4


def markdown(
    header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", left: int = 0
) -> str:
    """A pipe table, below the note if there is one.

    left: so many first columns are aligned to the left, and those without a name.
    """
    rule = ["---" if i < left or not name else "---:" for i, name in enumerate(header)]
    above = [note, ""] if note else []
    return "\n".join([*above, *map(_pipes, [header, rule, *rows])]) + "\n"


def _pipes(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def latex(header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> str:
    """A table environment (booktabs) with the note as its caption; statistics below a rule."""
    body = [" & ".join(row).replace(BLANK, "--") + r" \\" for row in rows]
    first = next((i for i, row in enumerate(rows) if row[0] == "Variance"), len(body))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_escape(note)}}}",
        r"\label{tab:table1}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        " & ".join(header) + r" \\",
        r"\midrule",
        *body[:first],
        r"\midrule",
        *body[first:],
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    special = {"%": r"\%", "_": r"\_", "&": r"\&", "#": r"\#"}
    special |= {"·": r"$\cdot$", "–": "--", "±": r"$\pm$"}
    return "".join(special.get(letter, letter) for letter in text)


# -------------------------------------------------------------------------------------- files


def save_table1(results: Results, folder: str | Path) -> list[Path]:
    """Write table1.csv , table1.md and table1.tex; returns their paths."""
    table = table1(results)
    flat = table.set_axis([f"{method}_{what}" for method, what in table.columns], axis=1)
    counts = [name for name in flat if name.endswith("_n")]
    header = ["", *ABBREVIATIONS.values()]
    note = (
        "Validation accuracy of the final runs, mean ± sd over repeats. Variance and Mean run over"
        " the architectures, as in the paper; Variance over repeats is pooled."
        f" Runs: {_runs(results)}."
    )
    md = table1_cells(table, " ± ", lambda text: f"**{text}**")
    tex = table1_cells(table, r" $\pm$ ", lambda text: rf"\textbf{{{text}}}")
    texts = {
        "table1.csv": flat.astype(dict.fromkeys(counts, "Int64")).to_csv(**CSV),
        "table1.md": markdown(header, md, f"Table I. {note}"),
        "table1.tex": latex(header, tex, note),
    }
    return _write(folder, texts)


def save_comparison(results: Results, folder: str | Path) -> list[Path]:
    """Write table1_comparison.csv (one row per cell) and .md (three lines per backbone)."""
    table = compare(results)
    note = (
        "Table I, the paper's and ours: mean ± sd over repeats (number of repeats), and ours"
        f" minus the paper's. Paper: {SETTING}. Ours: {_runs(results)}."
    )
    header = ["", "", *ABBREVIATIONS.values()]
    texts = {
        "table1_comparison.csv": table.to_csv(index=False, **CSV),
        "table1_comparison.md": markdown(header, comparison_cells(table), note),
    }
    return _write(folder, texts)


def _runs(results: Results) -> str:
    rows = results.final
    return caption(rows[rows["method"].isin(TABLE1)], "cell")


def comparison_cells(table: pd.DataFrame) -> list[list[str]]:
    """`compare` as three rows of text for each backbone: paper, ours, difference."""
    rows = []
    for name in dict.fromkeys(table["backbone"]):
        part = table[table["backbone"] == name].set_index("method").loc[list(TABLE1)]
        digits = _digits(name)
        gaps = [f"{gap:+.{digits}f}" if gap == gap else BLANK for gap in part["difference"]]
        rows.append([name, "paper", *(f"{value:.{digits}f}" for value in part["paper"])])
        rows.append(["", "ours", *part["ours"]])
        rows.append(["", "difference", *(gap.replace("-", "−") for gap in gaps)])
    return rows


def _write(folder: str | Path, texts: dict[str, str]) -> list[Path]:
    paths = [Path(folder) / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_whole(path, text)
    return paths
