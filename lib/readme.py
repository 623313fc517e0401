"""The table in the README, written from the committed rows and never by hand."""

import re
from pathlib import Path

import pandas as pd

from .paper import ABBREVIATIONS, METHODS, compare, label
from .params import ROOT
from .results import final_rows
from .tables import markdown

README = ROOT / "README.md"
PROFILE = "cpu"  # the profile whose committed rows the README shows
PLACE = re.compile(r"(<!-- rows:begin -->\n).*?(<!-- rows:end -->)", re.DOTALL)


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
        lines.append([f"{label(method)} ({ABBREVIATIONS[method]})", *texts])
    return markdown(header, lines, _setting(final_rows(rows)))


def _setting(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    widths = rows[["backbone", "alpha"]].drop_duplicates().itertuples(index=False)
    networks = ", ".join(f"{name} (alpha {alpha})" for name, alpha in widths)
    return (
        f"Accuracy on the last 30 % of tf_flowers ({first['eval_images']} photos) after training"
        f" on the first 70 %. Paper: 224 px, 50 epochs, one run. Ours: mean ± sd over repeats"
        f" (number of repeats); {networks}, {first['image_size']} px, {first['epochs']} epochs."
    )


def refreshed(text: str, rows: pd.DataFrame) -> str:
    """The README's text with its table made anew."""
    return PLACE.sub(lambda match: match[1] + comparison(rows) + match[2], text)


def refresh(rows: pd.DataFrame, path: Path = README) -> None:
    """Rewrite the README where its table differs from the rows."""
    text = path.read_text(encoding="utf-8")
    if refreshed(text, rows) != text:
        path.write_text(refreshed(text, rows), encoding="utf-8", newline="\n")
