"""The tables in the README, written from committed rows and never by hand."""

import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from .audit_figures import remarks, verdict_table
from .paper import ABBREVIATIONS, METHODS, compare, label
from .params import ROOT
from .results import final_rows, read_results
from .speed import read_bench, speed_table
from .tables import markdown

PROFILE = "cpu"  # the profile whose committed rows the README shows


def replaced(text: str, name: str, content: str) -> str:
    """`text` with what stands between the marks of section `name` made anew."""
    place = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    return place.sub(lambda match: match[1] + content + match[2], text)


def refreshed(text: str, root: Path = ROOT) -> str:
    """The README's text with all of its tables made anew."""
    rows = read_results(root / "results" / PROFILE)
    text = replaced(text, "rows", comparison(rows))
    text = replaced(text, "verdicts", verdict_table(rows))
    text = replaced(text, "remarks", remarks(rows))
    return replaced(text, "bench", speed_table(read_bench(root / "results" / "bench.csv")))


def refresh(root: Path = ROOT) -> None:
    """Rewrite the README where its tables differ from the rows."""
    path = root / "README.md"
    text = path.read_text(encoding="utf-8")
    if refreshed(text, root) != text:
        path.write_text(refreshed(text, root), encoding="utf-8", newline="\n")


def outdated(root: Path = ROOT) -> Iterator[str]:
    """A line if the README's tables are not what the rows give."""
    text = (root / "README.md").read_text(encoding="utf-8")
    if refreshed(text, root) != text:
        yield f"{root / 'README.md'}: its tables are not what the rows give; make figures mends it"


def comparison(rows: pd.DataFrame) -> str:
    """Paper beside ours for the backbones that were run, as a Markdown table."""
    table = compare(rows)
    table = table[table["n"] > 0].set_index(["backbone", "method"])
    backbones = list(dict.fromkeys(name for name, _ in table.index))
    header = ["", *(f"{name} {what}" for name in backbones for what in ("paper", "ours"))]
    lines = []
    for method in METHODS:
        cells = [table.loc[(name, method)] for name in backbones]
        texts = [text for cell in cells for text in (f"{cell['paper']:.4f}", cell["ours"])]
        lines.append([_name(method), *texts])
    return markdown(header, lines, _setting(final_rows(rows)))


def _name(method: str) -> str:
    short = ABBREVIATIONS[method]
    return short if short == label(method) else f"{label(method)} ({short})"


def _setting(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    widths = rows[["backbone", "alpha"]].drop_duplicates().itertuples(index=False)
    networks = ", ".join(f"{name} (alpha {alpha})" for name, alpha in widths)
    return (
        f"Accuracy on the last 30 % of tf_flowers ({first['eval_images']} photos) after training"
        f" on the first 70 %. Paper: 224 px, 50 epochs, one run. Ours: mean ± sd over repeats"
        f" (number of repeats); {networks}, {first['image_size']} px, {first['epochs']} epochs."
    )
