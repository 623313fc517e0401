"""The figures of the audit (notebook 8), and all of its files at once."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from . import audit
from .backbones import layer_counts, load_backbone
from .captions import caption
from .controls import Controls, read_controls
from .figures import draw_all
from .paper import METHODS, label
from .params import Params
from .results import FINAL_SPLIT, final_rows, search_rows, summary
from .style import COLOURS, GREY, WIDTH, Drawing, add_legend, colour, new_figure, save, styled
from .sweep import BASELINES
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
def audit_sizes(rows: pd.DataFrame, sizes: pd.DataFrame) -> Drawing:
    """Both baselines' final accuracy against the size of the photos."""
    both = audit.of_sizes(rows, sizes)
    shown = both[both["method"].isin(BASELINES) & (both["split"] == FINAL_SPLIT)]
    title = "Audit · Do small photos fail Baseline II?"
    of_a_size = shown.assign(block=shown["image_size"].astype(str))  # repeats are counted by block
    text = caption(of_a_size, "point")
    fig = new_figure(title, f"{text}. Bars: sd.", WIDTH / 2, 3.6)
    ax = fig.subplots()
    for method, of in shown.groupby("method"):
        points = of.groupby("image_size")["val_accuracy"].agg(["mean", "std"])
        ax.errorbar(
            points.index, points["mean"], points["std"], fmt="o-", ms=4, capsize=3,
            color=colour(method), label=label(method),
        )  # fmt: skip
    table = audit.by_size(rows, sizes)
    ticks = [f"{n}\n({v})" for n, v in zip(table["image_size"], table["values"], strict=True)]
    ax.set_xticks(table["image_size"], ticks)
    ax.set_xlabel("pixels (values of a channel that the last BatchNorms see in a step)")
    ax.set_ylabel("validation accuracy")
    ax.legend()
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
    kinds = {kind: ink for kind, ink in KINDS.items() if kind in set(gains["kind"])}
    axes = fig.subplots(2, len(names), sharey=True, squeeze=False)
    for column, name in zip(axes.T, names, strict=True):
        of = gains[gains["backbone"] == name]
        for ax, x in zip(column, ("depth", "weights"), strict=True):
            ax.axhline(0, color=GREY, lw=1)
            for kind, ink in kinds.items():
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
    add_legend(fig, [Line2D([], [], marker="o", ls="", color=c, label=k) for k, c in kinds.items()])
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


def verdict_table(rows: pd.DataFrame, native: pd.DataFrame | None = None) -> str:
    """The verdicts as a Markdown table, with what the words mean.

    native: rows with the backbones' own input scaling, which get a column of their own.
    """
    sources = {"ours": rows} if native is None or native.empty else {
        "ours, inputs in [0, 1]": rows,
        "ours, native inputs": native,
    }  # fmt: skip
    tables = [audit.verdicts(of) for of in sources.values()]
    lines = []
    for i, first in tables[0].iterrows():
        texts = [f"“{first['claim']}”", first["where"], first["printed"]]
        for table in tables:
            counted = "" if table["as claimed"][i] == "–" else f" ({table['as claimed'][i]})"
            texts.append(f"**{table['status'][i]}**{counted}")
        lines.append(texts)
    meanings = "; ".join(f"*{name}*: {text}" for name, text in audit.STATUSES.items())
    settings = " ".join(_setting(of) for of in sources.values())
    note = (
        f"{settings} {meanings}. In brackets and under *Table I*: how many comparisons are as"
        " claimed, whatever their intervals; the paper prints no numbers for its other figures."
    )
    header = ["claim of the paper", "where", "Table I", *sources]
    return markdown(header, lines, note).replace("---:", "---")


def remarks(rows: pd.DataFrame, controls: Controls) -> str:
    """What the rows say beyond the claims, as a Markdown list."""
    lines = [*_about_kinds(rows), *_about_luck(rows)]
    parts = (
        _about_inputs,
        _about_norms,
        _about_ranks,
        _about_seeds,
        _about_epochs,
        _about_stopping,
        _about_larger,
        _about_sizes,
    )
    return "\n".join([*lines, *(line for part in parts for line in part(rows, controls))]) + "\n"


def _about_kinds(rows: pd.DataFrame) -> Iterator[str]:
    by_kind = all_gains(rows).groupby(["backbone", "kind"])["gain"].agg(["mean", "count"])
    for name in dict.fromkeys(name for name, _ in by_kind.index):
        parts = [
            f"one {k} {g['mean']:+.3f} ({g['count']:.0f})" for k, g in by_kind.loc[name].iterrows()
        ]
        yield (
            f"- **{name}, kind of layer.** Tuning a single layer adds to Baseline I's accuracy "
            f"in the search by, on average over layers (their number): {', '.join(parts)}."
        )


def _about_luck(rows: pd.DataFrame) -> Iterator[str]:
    for name, of in audit.optimism(rows).groupby("backbone", sort=False):
        best = of.set_index("method")
        parts = [f"{label(m)} {r['optimism']:.3f}" for m, r in best.iterrows()]
        gains = [f"{label(m)} {r['gain']:+.3f}" for m, r in best.iterrows()]
        yield (
            f"- **{name}, the winner's luck.** Selected on one half of the evaluation photos, the "
            f"winner scores less on the other half by {', '.join(parts)}; there it differs from "
            f"Baseline I by {', '.join(gains)} (200 random halvings)."
        )


def _about_inputs(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for name, of in audit.compared(rows, controls.native).groupby("backbone", sort=False):
        yield (
            f"- **{name}, inputs.** Native inputs instead of [0, 1] add to the final accuracy: "
            f"{_gains(of)}."
        )


def _gains(table: pd.DataFrame) -> str:
    """The gains of one backbone's methods, with their intervals."""
    cells = table.set_index("method").reindex([m for m in METHODS if m in set(table["method"])])
    return ", ".join(
        f"{label(m)} {r['gain']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]"
        for m, r in cells.iterrows()
    )


def _about_norms(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    means = summary(pd.concat([rows, controls.norms], ignore_index=True))
    table = means.pivot(index="backbone", columns="method", values="mean")
    for name, of in table.iterrows():
        if of.get("batch_norm", np.nan) == of.get("batch_norm", np.nan):
            yield (
                f"- **{name}, BatchNorms alone.** All BatchNorms tuned and nothing else of the "
                f"backbone: {of['batch_norm']:.4f} in the final runs, beside Baseline I's "
                f"{of['baseline_1']:.4f} and Baseline II's {of['baseline_2']:.4f}."
            )


def _about_ranks(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for _, of in audit.rank_correlation(rows, controls.blocks).iterrows():
        yield (
            f"- **{of['backbone']}, does 10 % predict 70 %?** Rank correlation of the "
            f"{of['blocks']} blocks' accuracies after training on 10 % and on 70 %: "
            f"{of['rho']:.2f} [{of['low']:.2f}, {of['high']:.2f}]; the search's winner is number "
            f"{of['place']} of them on 70 %, {of['lost']:.3f} below the best."
        )


def _about_seeds(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for finding in audit.layers_against_seeds(rows):
        name, _, numbers = finding.text.partition(": ")
        yield (
            f"- **{name}, seeds against layers.** Of Figure 4's scatter: {numbers}; the difference"
            f" is {finding.interval}."
        )


def _about_epochs(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    gap = audit.last_against_best(rows)
    parts = [f"{of['mean'].mean():.3f} after {split}" for split, of in gap.groupby("split")]
    if parts:
        yield (
            "- **Last epoch or best epoch.** The best epoch's accuracy is higher than the last's by"
            f" {', '.join(parts)}, on average over methods."
        )


def _about_stopping(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    if rows.empty or controls.epochs.empty:
        return
    chosen, long = search_rows(rows)["epochs"].iloc[0], search_rows(controls.epochs)
    table = audit.stop_early(long)
    for _, of in table[table["epoch"] == chosen].iterrows():
        yield (
            f"- **{of['backbone']}, stopping the search early.** At {long['image_size'].iloc[0]} px"
            f" the blocks' ranks after {chosen} epochs, where the profile stops, correlate"
            f" {of['rho']:.2f} with those after {long['epochs'].iloc[0]}."
        )


def _about_larger(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for name, of in audit.compared(rows, controls.larger).groupby("backbone", sort=False):
        small, large = (df[df["backbone"] == name] for df in (rows, controls.larger))
        px, search = (search_rows(large)[column].iloc[0] for column in ("image_size", "epochs"))
        same, tested = audit.same_verdicts(small, large)
        yield (
            f"- **{name}, larger photos and longer training.** {px} px, {search} epochs of search "
            f"and {final_rows(large)['epochs'].iloc[0]} of final runs add to the final accuracy: "
            f"{_gains(of)}. On this network alone, {same} of {tested} claims get the same verdict."
        )


def _about_sizes(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for name, of in audit.by_size(rows, controls.sizes).groupby("backbone", sort=False):
        parts = [
            f"{r['gap']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}] at {r['image_size']} px"
            f" ({r['values']} values)"
            for _, r in of.iterrows()
        ]
        yield (
            f"- **{name}, Baseline II and the size of the photos.** Baseline II minus Baseline I in"
            f" the final runs: {', '.join(parts)}; in brackets, what a BatchNorm of the last layers"
            " sees of a channel in one step."
        )


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
    if len(controls.sizes):
        figures["audit_sizes"] = audit_sizes(rows, controls.sizes)
    paths = [path for name, fig in figures.items() for path in save(fig, folder, name)]
    texts = {
        "verdicts.md": verdict_table(rows, controls.native),
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
