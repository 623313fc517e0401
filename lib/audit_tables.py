"""The tables and remarks of the audit, as Markdown: for README, docs/ and notebook 8."""

from collections.abc import Iterable, Iterator
from functools import cache

import pandas as pd

from . import audit
from .backbones import load_backbone
from .captions import caption
from .controls import Controls
from .methods import APPROACHES, EXTRA, TABLE1, label
from .results import final_rows, search_rows
from .tables import backbones_of, markdown

NORM = "BatchNorm"


@cache
def layer_kinds(name: str) -> dict[tuple[str, str], str]:
    """Kind of each layer with weights of a backbone, such as `NORM`, by backbone and layer."""
    kinds = {
        "BatchNormalization": NORM,
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
            counts = f" ({table['as claimed'][i]}; {table['decided'][i]})"
            counted = "" if table["as claimed"][i] == "–" else counts
            texts.append(f"**{table['status'][i]}**{counted}")
        lines.append(texts)
    meanings = "; ".join(f"*{name}*: {text}" for name, text in audit.STATUSES.items())
    settings = " ".join(_setting(of) for of in sources.values())
    note = (
        f"{settings} {meanings}. {audit.DECIDED}. Winners are scored by what did not choose them."
        " In brackets: how many comparisons are as claimed, whatever their intervals, as under"
        " *Table I*, and how many are decided; the paper prints no numbers for its other figures."
    )
    header = ["claim of the paper", "where", "Table I", *sources]
    return markdown(header, lines, note).replace("---:", "---")


def gain_table(sources: Iterable[pd.DataFrame], norms: pd.DataFrame) -> str:
    """What tuning adds to Baseline I, by network and setting, as a Markdown table.

    With 95 % intervals, bold where they leave zero out.

    Args:
        sources: rows, each frame of one setting.
        norms: rows of BatchNorms alone, shown beside those of the same setting.
    """
    columns, found = {}, [(of, _gains_of(of, norms)) for of in sources]
    for name in backbones_of(pd.concat([of for of, _ in found], ignore_index=True)):
        for of, tables in found:
            rows = of[of["backbone"] == name]
            if len(rows):
                mine = (table[table["backbone"] == name] for table in tables)
                columns[f"{name}<br>{_inputs_and_epochs(rows)}"] = _column(rows, *mine)
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    table = [[line, *(column.get(line, "–") for column in columns.values())] for line in lines]
    note = (
        "Accuracy minus that of Baseline I. *Final*: trained on 70 %, without the luck of the"
        " photos that chose the block, and in brackets, where it differs, with it, as the paper"
        " scores. *Search*: trained on 10 %; of one layer, mean over layers (their number); of the"
        " best one, scored by what did not choose it, and in brackets how much better it seems as"
        " the paper scores."
    )
    return markdown(["", *columns], table, note)


def _inputs_and_epochs(of: pd.DataFrame) -> str:
    """Such as "[0, 1], 64 px, 8 / 3 epochs" of search and final runs."""
    parts = [rows["epochs"].iloc[0] for rows in (search_rows(of), final_rows(of)) if len(rows)]
    epochs = " / ".join(map(str, parts))
    return f"{inputs_of(of)}, {of['image_size'].iloc[0]} px, {epochs} epochs"


def inputs_of(of: pd.DataFrame) -> str:
    """The input scaling of rows that share one: "[0, 1]" or "native"."""
    scaling = of["input_scaling"].iloc[0]
    return "[0, 1]" if scaling == "unit" else scaling


def _gains_of(rows: pd.DataFrame, norms: pd.DataFrame) -> tuple[pd.DataFrame, ...]:
    """Gains of final runs, of single layers, and of winners; norms: as in `gain_table`."""
    same = ["backbone", "image_size", "input_scaling", "epochs"]
    norms = norms.merge(rows[same].drop_duplicates(), on=same)
    final = audit.final_gains(pd.concat([rows, norms], ignore_index=True) if len(norms) else rows)
    return final, all_gains(rows), audit.optimism(rows)


def _column(
    rows: pd.DataFrame, final: pd.DataFrame, layers: pd.DataFrame, winners: pd.DataFrame
) -> dict[str, str]:
    """`gain_table` for one network and setting: text by name of the line."""
    base = final_rows(rows).query("method == 'baseline_1'")["val_accuracy"]
    cells = {"final: Baseline I, accuracy": f"{base.mean():.3f}" if len(base) else "–"}
    shown = [m for m in (*TABLE1[1:], *EXTRA) if m in set(final["method"])]
    for gain in final.set_index("method").loc[shown].itertuples():
        number, paper = f"{gain.gain:+.3f}", f"{gain.paper:+.3f}"
        cells[f"final: {label(gain.Index)}"] = _bold(gain) + (
            f" ({paper})" if paper != number else ""
        )
    for kind, gain in layers.groupby("kind")["gain"].agg(["mean", "count"]).iterrows():
        cells[f"search: one {kind}"] = f"{gain['mean']:+.3f} ({gain['count']:.0f})"
    for best in winners.itertuples():
        cells[f"search: best, {label(best.method)}"] = f"{_bold(best)} ({best.optimism:+.3f})"
    return cells


def _bold(gain: tuple) -> str:
    text = f"{gain.gain:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"**{text}**" if gain.low > 0 or gain.high < 0 else text


def remarks(rows: pd.DataFrame, controls: Controls, *topics: str) -> str:
    """What the rows and the controls say, as a Markdown list; empty where nothing was run.

    topics: some of `REMARKS`; none for all of them.
    """
    parts = [about for topic, about in REMARKS.items() if topic in topics or not topics]
    return "".join(f"{line}\n" for part in parts for line in part(rows, controls))


def _about_winners(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for of in (rows, controls.native):
        found, final = audit.optimism(of), audit.final_gains(of)
        luck = (final["paper"] - final["gain"])[final["method"].isin(APPROACHES)]
        if len(found) and len(luck):
            again = (found["by"] == "another seed").sum()
            yield (
                f"- **Winners, {inputs_of(of)} inputs.** Scored as the paper does, the"
                f" {len(found)} winners of the search seem better by {found['optimism'].min():.3f}"
                f" to {found['optimism'].max():.3f} than by what did not choose them ({again} of"
                f" them by another seed): {(found['optimism'] > found['gain']).sum()} owe more to"
                f" that than to tuning, and {(found['low'] > 0).sum()} beat Baseline I by more than"
                " their interval. The final runs of what they chose seem better by"
                f" {luck.min():+.4f} to {luck.max():+.4f}."
            )


def _about_inputs(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for name, of in audit.compared(rows, controls.native).groupby("backbone", sort=False):
        yield (
            f"- **{name}, inputs.** Native inputs instead of [0, 1] add to the final accuracy: "
            f"{_gains(of)}."
        )


def _gains(table: pd.DataFrame) -> str:
    """The gains of one backbone's methods, with their intervals."""
    cells = table.set_index("method").reindex([m for m in TABLE1 if m in set(table["method"])])
    return ", ".join(
        f"{label(m)} {r['gain']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]"
        for m, r in cells.iterrows()
    )


def _about_ranks(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for _, of in audit.rank_correlation(rows, controls.blocks).iterrows():
        yield (
            f"- **{of['backbone']}, does 10 % predict 70 %?** Rank correlation of the "
            f"{of['blocks']} blocks' accuracies after training on 10 % and on 70 %: "
            f"{of['rho']:.2f} [{of['low']:.2f}, {of['high']:.2f}]; the search's winner is number "
            f"{of['place']} of them on 70 %, {of['lost']:.3f} below the best. The photos that"
            f" choose a block add {of['luck']:.4f} to its accuracy on 70 %, by all blocks' runs."
        )


def _about_seeds(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for of in (rows, controls.native):
        for finding in audit.layers_against_seeds(of):
            name, _, numbers = finding.text.partition(": ")
            kinds = layer_kinds(name)
            norms = of["block"].map(lambda block, k=kinds, n=name: k.get((n, block)) == NORM)
            parts = [
                f"among {what}, {f.text.partition(': ')[2]}: {f.interval}"
                for what, some in (("BatchNorms", norms), ("the other layers", ~norms))
                for f in audit.layers_against_seeds(of[some & (of["backbone"] == name)])
            ]
            yield (
                f"- **{name}, chance against layers, {inputs_of(of)} inputs.** Of Figure 4's"
                f" scatter, {numbers}: {finding.interval}; {'; '.join(parts)}."
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
    chosen, last = search_rows(rows)["epochs"].iloc[0], controls.epochs["epochs"].iloc[0]
    table = audit.stop_early(controls.epochs).set_index(["backbone", "epoch"])
    for name in table.index.unique("backbone"):
        now, end = table.loc[name, chosen], table.loc[name, last]
        yield (
            f"- **{name}, stopping the search early.** After {chosen} epochs, where the profile"
            f" stops, the blocks' ranks correlate {now['again']:.2f} with those of another seed and"
            f" {now['end']:.2f} with those of another seed after {last}; after {last} epochs two"
            f" seeds' ranks correlate {end['again']:.2f}. Sd over blocks, and by chance:"
            f" {now['spread']:.3f} and {now['chance']:.3f} after {chosen}, {end['spread']:.3f} and"
            f" {end['chance']:.3f} after {last}; accuracy, mean over blocks, {now['accuracy']:.3f}"
            f" and {end['accuracy']:.3f}."
        )


def _about_costlier(rows: pd.DataFrame, controls: Controls) -> Iterator[str]:
    for long in controls.costlier:
        native = "native" in set(long["input_scaling"])
        short = controls.native if native else rows
        for name in backbones_of(long):
            one, other = (of[of["backbone"] == name] for of in (short, long))
            if len(one):
                same, tested = audit.same_verdicts(one, other)
                ranks = audit.same_ranks(one, other).items()
                yield (
                    f"- **{name}, {_inputs_and_epochs(other)}** instead of"
                    f" {_inputs_and_epochs(one)}: on this network alone, {same} of {tested} claims"
                    " get the same verdict; the blocks' accuracies in the search correlate in rank"
                    f" by {', '.join(f'{rho:.2f} ({label(method)})' for method, rho in ranks)}."
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


REMARKS = {
    "winners": _about_winners,
    "inputs": _about_inputs,
    "ranks": _about_ranks,
    "seeds": _about_seeds,
    "stopping": _about_stopping,
    "epochs": _about_epochs,
    "costlier": _about_costlier,
    "sizes": _about_sizes,
}
