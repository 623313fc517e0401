"""The tables and remarks of the audit, as Markdown: for README, docs/ and the two notebooks 8."""

from collections.abc import Iterable, Iterator

import pandas as pd

from ..backbones.records import NORM
from ..methods import APPROACHES, BASELINES, EXTRA, TABLE1, label
from ..report.captions import caption
from ..report.layers import layer_kinds
from ..report.tables import markdown
from ..results import NOTHING, Results, backbones_of
from . import doubts
from .claims import DECIDED, STATUSES, layers_against_seeds, verdicts


def verdict_table(results: Results, native: Results = NOTHING) -> str:
    """The verdicts as a Markdown table, with what the words mean.

    native: with the backbones' own input scaling, which get a column of their own.
    """
    sources = {"ours, inputs in [0, 1]": results, "ours, native inputs": native}
    if not len(native):
        sources = {"ours": results}
    tables = [verdicts(source) for source in sources.values()]
    lines = []
    for place, first in tables[0].iterrows():
        texts = [f"“{first['claim']}”", first["where"], first["printed"]]
        texts += [_verdict(table.loc[place]) for table in tables]
        lines.append(texts)
    meanings = "; ".join(f"*{name}*: {text}" for name, text in STATUSES.items())
    settings = " ".join(_setting(source) for source in sources.values())
    note = (
        f"{settings} {meanings}. {DECIDED}. Comparisons that lack rows are left out. Winners are"
        " scored on other photos than chose them, with the luck of the run that chose them taken"
        " off. In brackets: how many comparisons are"
        " as claimed, whatever their intervals, as under *Table I*, how many are decided, and the"
        " networks, where not all could be tested; the paper prints no numbers for its other"
        " figures. Random layers are one draw of three on each network: a verdict on them is on"
        " this draw."
    )
    header = ["claim of the paper", "where", "Table I", *sources]
    return markdown(header, lines, note, len(header))


def _verdict(claim: pd.Series) -> str:
    """A cell of `verdict_table`."""
    only = f"; {claim['networks']} alone" if claim["networks"] else ""
    counts = f" ({claim['as claimed']}; {claim['decided']}{only})"
    return f"**{claim['status']}**" + ("" if claim["as claimed"] == "–" else counts)


def gain_table(sources: Iterable[Results]) -> str:
    """What tuning adds to Baseline I, by network and setting, as a Markdown table.

    With 95 % intervals, bold where they leave zero out.

    sources: results, each of one setting.
    """
    columns, found = {}, [(source, _gains_of(source)) for source in sources]
    for name in backbones_of(pd.concat([source.rows for source, _ in found], ignore_index=True)):
        for source, tables in found:
            mine = source.only(name)
            if len(mine):
                gains = (table[table["backbone"] == name] for table in tables)
                columns[f"{name}<br>{mine.label}"] = _column(mine, *gains)
    lines = list(dict.fromkeys(line for column in columns.values() for line in column))
    table = [[line, *(column.get(line, "–") for column in columns.values())] for line in lines]
    note = (
        "Accuracy minus that of Baseline I; bold: 0 lies outside the interval. *Final*: trained on"
        " 70 %, corrected for the choice on the same photos; in brackets, where it differs,"
        " uncorrected, as the paper scores. *Search*: trained on 10 %; of one layer, mean over"
        " layers (their number); of the best one, scored on other photos than chose it, with the"
        " luck of the run that chose it taken off, and in brackets how much better it seems as the"
        " paper scores."
    )
    return markdown(["", *columns], table, note)


def _gains_of(results: Results) -> tuple[pd.DataFrame, ...]:
    """Gains of final runs, of single layers, and of winners."""
    return doubts.final_gains(results), doubts.layer_gains(results), doubts.optimism(results)


def _column(
    results: Results, final: pd.DataFrame, layers: pd.DataFrame, winners: pd.DataFrame
) -> dict[str, str]:
    """`gain_table` for one network and setting: text by name of the line."""
    base = results.final.query("method == 'baseline_1'")["val_accuracy"]
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
    if gain.low != gain.low:  # one run of each: how much they scatter is not known
        return f"{gain.gain:+.3f}"
    text = f"{gain.gain:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"**{text}**" if gain.low > 0 or gain.high < 0 else text


def remarks(results: Results, native: Results, *topics: str) -> str:
    """What the results say, as a Markdown list; empty where nothing was run.

    Args:
        native: the same runs with the backbones' own input scaling.
        topics: some of `REMARKS`; none for all of them.
    """
    parts = [about for topic, about in REMARKS.items() if topic in topics or not topics]
    return "".join(f"{line}\n" for part in parts for line in part(results, native))


def _about_winners(results: Results, native: Results) -> Iterator[str]:
    for source in (results, native):
        found, final = doubts.optimism(source), doubts.final_gains(source)
        luck = (final["paper"] - final["gain"])[final["method"].isin(APPROACHES)]
        if len(found) and len(luck):
            again = (found["by"] == "another seed").sum()
            yield (
                f"- **Winners, {source.inputs} inputs.** The paper's way of scoring flatters the"
                f" {len(found)} winners of the search by {found['optimism'].min():.3f}"
                f" to {found['optimism'].max():.3f} ({again} of them scored by another seed):"
                f" {(found['optimism'] > found['gain']).sum()} by more than tuning gives them; of"
                f" {(found['low'] > 0).sum()} the whole interval lies above Baseline I. It flatters"
                f" their final runs by {luck.min():+.4f} to {luck.max():+.4f}."
            )


def _about_inputs(results: Results, native: Results) -> Iterator[str]:
    table = doubts.setting_gains(results, native)
    for name, gains in table.groupby("backbone", sort=False):
        yield (
            f"- **{name}, inputs.** Native inputs instead of [0, 1] add to the final accuracy: "
            f"{_gains(gains)}."
        )


def _gains(table: pd.DataFrame) -> str:
    """The gains of one backbone's methods, with their intervals."""
    cells = table.set_index("method").reindex([m for m in TABLE1 if m in set(table["method"])])
    return ", ".join(
        f"{label(m)} {r['gain']:+.3f} [{r['low']:+.3f}, {r['high']:+.3f}]"
        for m, r in cells.iterrows()
    )


def _about_seeds(results: Results, native: Results) -> Iterator[str]:
    for source in (results, native):
        for finding in layers_against_seeds(source):
            name, _, numbers = finding.text.partition(": ")
            mine, kinds = source.only(name), layer_kinds(name)
            norms = mine.rows["block"].map(kinds.get) == NORM
            parts = [
                f"among {what}, {f.text.partition(': ')[2]}: {f.interval}"
                for what, some in (("BatchNorms", norms), ("the other layers", ~norms))
                for f in layers_against_seeds(mine.with_rows(mine.rows[some]))
            ]
            yield (
                f"- **{name}, chance against layers, {source.inputs} inputs.** Of Figure 4's"
                f" scatter, {numbers}: {finding.interval}; {'; '.join(parts)}."
            )


def _about_epochs(results: Results, native: Results) -> Iterator[str]:
    for source in (results, native):
        table = doubts.last_against_best(source)
        final = table[(table["split"] == source.final_split) & table["method"].isin(TABLE1)]
        means = final.set_index(["method", "backbone"])[["last", "best"]]
        if parts := [part for name in source.backbones for part in _by_epoch(means, name)]:
            gaps = means["best"] - means["last"]
            yield (
                f"- **Last epoch or best epoch, {source.inputs} inputs.** The best epoch, which the"
                " scoring photos choose themselves, makes the methods' final accuracies higher by"
                f" {gaps.min():.3f} to {gaps.max():.3f}. {'. '.join(parts)}."
            )


def _by_epoch(means: pd.DataFrame, name: str) -> Iterator[str]:
    """Block-wise against both baselines on one network, by the last epoch and by the best.

    means: final accuracies `last` and `best` by method and backbone.
    """
    others = [m for m in BASELINES if {("block_wise", name), (m, name)} <= set(means.index)]
    gaps = {m: means.loc[("block_wise", name)] - means.loc[(m, name)] for m in others}
    if gaps:
        texts = [
            f"minus {label(m)} {g['last']:+.3f} by the last, {g['best']:+.3f} by the best"
            for m, g in gaps.items()
        ]
        yield f"{name}: Block-wise {'; '.join(texts)}"


def agreement(cheap: Results, dear: Results) -> str:
    """How far the results of a cheap setting say what those of a dear one do, as a Markdown list.

    Verdicts are those of each network alone; empty where no network has both.
    """
    lines = []
    for name in dear.backbones:
        one, other = cheap.only(name), dear.only(name)
        if len(one):
            alike, decided, neither = doubts.same_verdicts(one, other)
            ranks = doubts.same_ranks(one, other).items()
            lines.append(
                f"- **{name}, {other.label}** instead of {one.label}: on this network alone,"
                f" claims that both decide: {decided}, alike: {alike}, that both leave undecided:"
                f" {neither}; the blocks' accuracies in the search correlate in rank"
                f" by {', '.join(f'{rho:.2f} ({label(method)})' for method, rho in ranks)}.\n"
            )
    return "".join(lines)


def _setting(results: Results) -> str:
    """The settings of the rows of both stages, each with its networks."""
    stages = {"search": results.search, "final runs": results.final}
    parts = [
        f"{stage}: {', '.join(backbones_of(rows))}, {caption(rows)}"
        for stage, rows in stages.items()
        if len(rows)
    ]
    return f"Rows: {'; '.join(parts)}."


REMARKS = {
    "winners": _about_winners,
    "inputs": _about_inputs,
    "seeds": _about_seeds,
    "epochs": _about_epochs,
}
