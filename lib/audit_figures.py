"""The figures of the audit (notebook 8), and all of its files at once."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from . import audit
from .backbones import layer_counts, load_backbone
from .captions import caption
from .controls import Controls, read_controls
from .figures import draw_all
from .paper import label
from .params import Params
from .results import search_rows
from .style import COLOURS, GREY, WIDTH, Drawing, add_legend, colour, new_figure, save, styled
from .tables import backbones_of, markdown

FILL = "#CFE6F5"  # of the band over seeds
KINDS = {  # kinds of layer, in three colours of the Okabe-Ito palette
    "convolution": COLOURS["block_wise"],
    "depthwise convolution": COLOURS["sliding_window"],
    "BatchNorm": COLOURS["top_3"],
    "dense": COLOURS["top_5"],
}


@styled
def audit_epochs(rows: pd.DataFrame, chosen: int) -> Drawing:
    """Accuracy against epochs, and how well each epoch ranks the blocks as the last one does."""
    rows = search_rows(rows)
    title = "Audit · When can the search stop?"
    fig = new_figure(title, caption(rows, "line"), WIDTH, 4.2)
    left, right = fig.subplots(1, 2)
    for _, row in rows.iterrows():
        curve = np.array(row["curve"].split(";"), int) / row["eval_images"]
        style = {"color": colour(row["method"]), "lw": 0.7, "alpha": 0.5}
        if row["method"] != "block_wise":
            style |= {"lw": 2, "alpha": 1}
        left.plot(range(1, len(curve) + 1), curve, **style)
    for name, of in audit.stop_early(rows).groupby("backbone"):
        right.plot(of["epoch"], of["rho"], color=colour("block_wise"), label=name)
    for ax in (left, right):
        ax.axvline(chosen, color=GREY, ls="--", lw=1)
        ax.set_xlabel("epoch")
    left.set_ylabel("validation accuracy")
    right.set_ylabel("rank correlation of the blocks with the last epoch")
    right.set_ylim(-0.2, 1.05)
    shown = {"baseline_1": "Baseline I", "baseline_2": "Baseline II", "random": "Random layers"}
    handles = [Line2D([], [], color=colour(m), lw=2, label=text) for m, text in shown.items()]
    handles.append(Line2D([], [], color=colour("block_wise"), lw=1, label="blocks"))
    handles.append(Line2D([], [], color=GREY, ls="--", lw=1, label="the profile stops here"))
    add_legend(fig, handles)
    return fig


@styled
def audit_seeds(rows: pd.DataFrame) -> Drawing:
    """Figure 4 with the search repeated: each layer's mean and range over seeds."""
    tables = audit.seeds(rows)
    first = rows[(rows["method"] == "layer_wise") & rows["backbone"].isin(list(tables))]
    title = "Audit · How much of Figure 4 is noise?"
    fig = new_figure(
        title, caption(first[first["split"] == audit.SEARCH_SPLIT], "layer"), WIDTH, 3.6
    )
    axes = fig.subplots(max(1, len(tables)), 1, squeeze=False)[:, 0]
    for ax, (name, table) in zip(axes, tables.items(), strict=False):
        order = search_rows(rows).query("method == 'layer_wise' and backbone == @name")["block"]
        table = table.reindex([block for block in order if block in table.index])
        places, mean = np.arange(1, len(table) + 1), table.mean(axis=1)
        ax.fill_between(places, table.min(axis=1), table.max(axis=1), color=FILL, lw=0)
        ax.plot(places, mean, "o-", ms=3, lw=0.8, color=colour("layer_wise"))
        ax.set_title(f"{name}: mean and range of {table.shape[1]} seeds", loc="left")
        ax.set_xlabel("layer with weights, from input to output")
        ax.set_ylabel("validation accuracy")
    return fig


@styled
def audit_depth(gains: pd.DataFrame, rows: pd.DataFrame) -> Drawing:
    """What tuning one layer adds to Baseline I, against its depth and its number of weights."""
    rows = search_rows(rows)
    title = "Audit · Where do the good layers lie?"
    text = caption(rows[rows["method"] == "layer_wise"], "layer")
    text += ". Depth: 0 at the input, 1 at the output. Bars: 95 % intervals."
    fig = new_figure(title, text, WIDTH, 4.2)
    names = backbones_of(gains) or ["not run"]
    axes = fig.subplots(2, len(names), sharey=True, squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        of = gains[gains["backbone"] == name]
        for ax, x in zip(column, ("depth", "weights"), strict=True):
            ax.axhline(0, color=GREY, lw=1)
            for kind, ink in KINDS.items():
                some = of[of["kind"] == kind]
                bars = [some["gain"] - some["low"], some["high"] - some["gain"]]
                ax.errorbar(
                    some[x], some["gain"], bars, fmt="o", ms=3, lw=0.5, color=ink, alpha=0.8
                )
        column[0].set_title(name, loc="left")
        column[0].set_xlabel("depth")
        column[1].set_xlabel("weights tuned")
        column[1].set_xscale("log")
    for ax in axes[:, 0]:
        ax.set_ylabel("gain over Baseline I")
    add_legend(fig, [Line2D([], [], marker="o", ls="", color=c, label=k) for k, c in KINDS.items()])
    return fig


def layer_kinds(name: str) -> dict[tuple[str, str], str]:
    """Kind of each layer with weights of a backbone, one of `KINDS`, by backbone and layer."""
    kinds = {
        "BatchNormalization": "BatchNorm",
        "DepthwiseConv2D": "depthwise convolution",
        "Conv2D": "convolution",
        "Dense": "dense",
    }
    backbone = load_backbone(name, image_size=32, weights="none")
    return {(name, x.name): kinds[type(x).__name__] for x in backbone.layers if x.weights}


def all_gains(rows: pd.DataFrame) -> pd.DataFrame:
    """`lib.audit.gains` of all backbones, with kinds of layer."""
    kinds = {}
    for name in dict.fromkeys(rows["backbone"]):
        kinds |= layer_kinds(name)
    return audit.gains(rows, kinds)


def verdict_table(rows: pd.DataFrame) -> str:
    """The verdicts as a Markdown table, with what the words mean."""
    table = audit.verdicts(rows)
    lines = [
        [f"“{row['claim']}”", row["where"], f"**{row['status']}**"] for _, row in table.iterrows()
    ]
    meanings = "; ".join(f"*{name}*: {text}" for name, text in audit.STATUSES.items())
    note = f"{_setting(rows)} {meanings}."
    return markdown(["claim of the paper", "where", "verdict"], lines, note).replace("---:", "---")


def remarks(rows: pd.DataFrame) -> str:
    """What the rows say beyond the claims, as a Markdown list."""
    lines = []
    by_kind = all_gains(rows).groupby(["backbone", "kind"])["gain"].agg(["mean", "count"])
    for name in dict.fromkeys(name for name, _ in by_kind.index):
        parts = [
            f"one {k} {g['mean']:+.3f} ({g['count']:.0f})" for k, g in by_kind.loc[name].iterrows()
        ]
        lines.append(
            f"- **{name}, kind of layer.** Tuning a single layer adds to Baseline I's accuracy "
            f"in the search by, on average over layers (their number): {', '.join(parts)}."
        )
    for name, of in audit.optimism(rows).groupby("backbone", sort=False):
        best = of.set_index("method")
        parts = [f"{label(m)} {r['optimism']:.3f}" for m, r in best.iterrows()]
        gains = [f"{label(m)} {r['gain']:+.3f}" for m, r in best.iterrows()]
        lines.append(
            f"- **{name}, the winner's luck.** Selected on one half of the evaluation photos, the "
            f"winner scores less on the other half by {', '.join(parts)}; there it differs from "
            f"Baseline I by {', '.join(gains)} (200 random halvings)."
        )
    return "\n".join(lines) + "\n"


def _setting(rows: pd.DataFrame) -> str:
    return f"Rows: {', '.join(dict.fromkeys(rows['backbone']))}; {caption(search_rows(rows))}."


def save_audit(rows: pd.DataFrame, controls: Controls, folder: str | Path) -> list[Path]:
    """Write the verdicts (CSV, Markdown) and the audit's figures; the paths of all files."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"audit_depth": audit_depth(all_gains(rows), rows)}
    if audit.seeds(rows):
        figures["audit_seeds"] = audit_seeds(rows)
    if len(controls.epochs):
        chosen = int(search_rows(rows)["epochs"].iloc[0])
        figures["audit_epochs"] = audit_epochs(controls.epochs, chosen)
    paths = [path for name, fig in figures.items() for path in save(fig, folder, name)]
    texts = {
        "verdicts.md": verdict_table(rows),
        "verdicts.csv": audit.verdicts(rows).to_csv(index=False, lineterminator="\n"),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
        paths.append(folder / name)
    return paths


def write_all(rows: pd.DataFrame, params: Params, folder: str | Path) -> list[Path]:
    """Write every figure and table of the paper and of the audit; the paths of all files."""
    paper = draw_all(
        rows,
        folder,
        layer_counts("VGG16"),
        select_on=params.select_on,
        search_split=params.search_split,
        final_split=params.final_split,
    )
    return paper + save_audit(rows, read_controls(params.results_dir), folder)
