"""The figures of the audit (the two notebooks 8), and all files of paper and audit at once."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from ..backbones.records import NORM
from ..methods import TABLE1, colour, label
from ..report.captions import caption, listed
from ..report.figures import draw_all
from ..report.paper import accuracies
from ..report.style import GREY, WIDTH, Drawing, add_legend, new_figure, save, styled
from ..results import NOTHING, Results, backbones_of
from ..whole import write_whole
from . import doubts
from .claims import verdicts
from .tables import verdict_table

FILL = "#CFE6F5"  # of the band over seeds
KINDS = {  # kinds of layer, in three colours of the Okabe-Ito palette
    "convolution": colour("block_wise"),
    "depthwise convolution": colour("sliding_window"),
    NORM: colour("top_3"),
    "dense": colour("top_5"),
}


@styled
def audit_gains(results: Results, native: Results = NOTHING) -> Drawing:
    """What each method adds to Baseline I in the final runs: the paper, and ours with intervals."""
    names, shown = backbones_of(results.final), TABLE1[1:]
    title = "What fine-tuning adds to tuning the classifier alone: the paper and ours"
    sources = [source.final for source in (results, native) if len(source)]
    both = pd.concat(sources or [results.final])
    of_an_input = both.assign(block=both["input_scaling"])  # repeats are counted by block
    text = caption(of_an_input, "point")
    fig = new_figure(title, f"{text}. Bars: 95 % intervals; the paper has one run.", WIDTH, 3.8)
    axes = fig.subplots(1, max(1, len(names)), sharey=True, squeeze=False)[0]
    printed, places = accuracies(), np.arange(len(shown))
    handles = [
        Line2D([], [], marker="D", mfc="none", ls="", color=GREY, label="paper, inputs in [0, 1]")
    ]
    ours = [(results, "block_wise", -0.13), (native, "sliding_window", 0.13)]
    for source, ink, _ in ours:
        if len(source):
            text = f"ours, {source.inputs} inputs"
            handles.append(Line2D([], [], marker="o", color=colour(ink), label=text))
    for ax, name in zip(axes, names, strict=False):
        ax.axvline(0, color=GREY, lw=1)
        if name in printed.index:
            paper = printed.loc[name, list(shown)] - printed.loc[name, "baseline_1"]
            ax.plot(paper, places, "D", ms=5, mfc="none", color=GREY)
        for source, ink, shift in ours:
            some = doubts.final_gains(source.only(name)).set_index("method").reindex(shown)
            if len(source.only(name).final) and some["gain"].isna().all():
                where = {"ha": "center", "va": "center", "transform": ax.transAxes}
                ax.text(0.5, 0.5, "ours: Baseline I was not run", color=GREY, **where)
            bars = [some["gain"] - some["low"], some["high"] - some["gain"]]
            y = places + shift
            ax.errorbar(some["gain"], y, xerr=bars, fmt="o", ms=4, capsize=2, color=colour(ink))
        ax.set_title(name, loc="left")
        ax.set_xlabel("gain in accuracy")
    axes[0].set_yticks(places, [label(method) for method in shown])
    axes[0].invert_yaxis()
    add_legend(fig, handles)
    return fig


@styled
def against_paper(results: Results) -> Drawing:
    """Table I, the paper's and ours, run by run; networks side by side."""
    printed, names = accuracies(), backbones_of(results.final)
    text = (
        f"{caption(results.final, 'method')}. Accuracy is that after the last epoch; the paper has"
        " one run, of 50 epochs. Each panel has its own axis."
    )
    fig = new_figure("The paper's accuracy and ours, at the paper's own size", text, WIDTH, 3.8)
    axes = fig.subplots(1, len(names), sharey=True, squeeze=False)[0]
    places = np.arange(len(TABLE1))
    for ax, name in zip(axes, names, strict=True):
        ax.plot(printed.loc[name, list(TABLE1)], places, "D", ms=6, mfc="none", color=GREY)
        final = results.only(name).final
        for place, method in zip(places, TABLE1, strict=True):
            ours, ink = final["val_accuracy"][final["method"] == method], colour(method)
            if len(ours):
                ax.plot(ours, np.full(len(ours), place), "o", ms=4, alpha=0.6, mew=0, color=ink)
                ax.plot(ours.mean(), place, "|", ms=14, mew=2, color=ink)
            else:
                ax.text(printed.loc[name, method], place, "  not run", va="center", color=GREY)
        ax.set_title(f"{name}, {listed(final['epochs'])} epochs", loc="left")
        ax.set_xlabel("final validation accuracy")
    axes[0].set_yticks(places, [label(method) for method in TABLE1])
    axes[0].invert_yaxis()
    handles = [
        Line2D([], [], marker="D", mfc="none", ls="", color=GREY, label="paper"),
        Line2D([], [], marker="o", ms=4, mew=0, ls="", color="black", label="our runs"),
        Line2D([], [], marker="|", ms=12, mew=2, ls="", color="black", label="their mean"),
    ]
    add_legend(fig, handles)
    return fig


def save_paper_size(results: Results, folder: str | Path) -> list[Path]:
    """Write `against_paper`, once there are final runs; the paths of its files."""
    return save(against_paper(results), folder, "paper_size") if len(results.final) else []


@styled
def audit_seeds(*sources: Results) -> Drawing:
    """Figure 4 with the search repeated: each layer's mean, and its range over seeds.

    sources: each of one setting; those of repeated searches are shown. What a seed adds to all
    layers alike is taken off first, as in `lib.audit.claims.layers_against_seeds`.
    """
    tables = [(source, *pair) for source in sources for pair in doubts.seeds(source).items()]
    searches = [source.only(name).searched for source, name, _ in tables]
    shown = pd.concat([runs[runs["method"] == "layer_wise"] for runs in searches])
    shown["block"] += shown["input_scaling"]  # repeats are counted by block
    title = "Audit · How much of Figure 4 is noise?"
    fig = new_figure(title, caption(shown, "layer"), WIDTH, 1.2 + 2.4 * len(tables))
    axes = fig.subplots(len(tables), 1, squeeze=False)[:, 0]
    for ax, (source, name, table) in zip(axes, tables, strict=True):
        order = source.search.query("method == 'layer_wise' and backbone == @name")["block"]
        table = table.reindex([block for block in order if block in table.index])
        table = table - table.mean() + table.to_numpy().mean()
        places, mean = np.arange(1, len(table) + 1), table.mean(axis=1)
        ax.fill_between(places, table.min(axis=1), table.max(axis=1), color=FILL, lw=0)
        ax.plot(places, mean, "o-", ms=3, lw=0.8, color=colour("layer_wise"))
        what = f"mean and range of {table.shape[1]} seeds, each seed's own level taken off"
        ax.set_title(f"{name}, {source.inputs} inputs: {what}", loc="left")
    axes[-1].set_xlabel("layer with weights, from input to output")
    fig.supylabel("validation accuracy", size=9)
    return fig


@styled
def audit_depth(results: Results) -> Drawing:
    """What tuning one layer adds to Baseline I, against its depth and its number of weights."""
    gains, rows = doubts.layer_gains(results), results.search
    title = "Audit · Where do the good layers lie?"
    text = caption(rows[rows["method"] == "layer_wise"], "layer")
    text += ". Depth: 0 at the input, 1 at the output. Bars: 95 % intervals."
    fig = new_figure(title, text, WIDTH, 4.2)
    names = backbones_of(gains) or ["not run"]
    kinds = {kind: ink for kind, ink in KINDS.items() if kind in set(gains["kind"])}
    axes = fig.subplots(2, len(names), sharey=True, squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        mine = gains[gains["backbone"] == name]
        for ax, x in zip(column, ("depth", "weights"), strict=True):
            ax.axhline(0, color=GREY, lw=1)
            for kind, ink in kinds.items():
                some = mine[mine["kind"] == kind]
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
    add_legend(fig, [Line2D([], [], marker="o", ls="", color=c, label=k) for k, c in kinds.items()])
    return fig


def save_audit(results: Results, native: Results, folder: str | Path) -> list[Path]:
    """Write the verdicts (CSV, Markdown) and the audit's figures; the paths of all files."""
    folder = Path(folder)
    figures = {"audit_gains": audit_gains(results, native), "audit_depth": audit_depth(results)}
    if doubts.seeds(results):
        figures["audit_seeds"] = audit_seeds(results, native)
    paths = [path for name, fig in figures.items() for path in save(fig, folder, name)]
    texts = {
        "verdicts.md": verdict_table(results, native),
        "verdicts.csv": verdicts(results).to_csv(index=False, lineterminator="\n"),
    }
    for name, text in texts.items():
        write_whole(folder / name, text)
        paths.append(folder / name)
    return paths


def write_all(results: Results, native: Results, folder: str | Path) -> list[Path]:
    """Write every figure and table of the paper and of the audit; the paths of all files.

    native: the same runs with the backbones' own input scaling, see `Results.read_native`.
    """
    return draw_all(results, folder) + save_audit(results, native, folder)
