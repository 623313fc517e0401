"""Figures 1 to 10 of the paper, each a function of `Results`, and all files at once."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..methods import PAPER, colour, in_figure, label
from ..results import Results
from .captions import caption
from .layers import layer_counts
from .schemes import fig01_schemes, fig02_parameters
from .style import GREY, WIDTH, Drawing, add_legend, new_figure, save, styled
from .tables import save_comparison, save_table1

LINES = {  # the baselines in the panels of Figures 4 to 6
    "baseline_1": {"color": "#262626", "ls": ":", "lw": 1.4},
    "baseline_2": {"color": "#262626", "ls": "--", "lw": 1.2},
}
RING = {"marker": "o", "ls": "", "ms": 9, "mfc": "none", "mec": "black", "mew": 1.3}
ACCURACY = {
    "val_accuracy": "validation accuracy",
    "best_val_accuracy": "validation accuracy (best epoch)",
}

# --------------------------------------------------- Figures 3, 7, 8: bars grouped by backbone

Runs = Mapping[tuple[str, str], Sequence[float]]  # (method, backbone): the accuracies of a bar


@styled
def fig03_baselines(results: Results) -> Drawing:
    """Figure 3: both baselines and a few random layers, in the search."""
    methods = in_figure(3)
    rows = _shown(results.search, methods)
    title = f"Figure 3 · Baselines and randomly chosen layers, {_share(results.search_split)}"
    fig = new_figure(title, caption(rows, "bar"), WIDTH, 4.6)
    best = _best(rows, results.select_on)
    return _grouped_bars(fig, results.backbones, methods, best, ACCURACY[results.select_on])


@styled
def fig07_search_summary(results: Results) -> Drawing:
    """Figure 7: the best block of every method's search beside the baselines."""
    rows, select_on = results.search, results.select_on
    title = f"Figure 7 · The best of each approach, {_share(results.search_split)}"
    text = f"{caption(rows, 'block')}. A bar is the best block of its approach."
    fig = new_figure(title, text, WIDTH, 4.6)
    methods = _methods(rows, in_figure(7))
    best = _best(rows, select_on)
    return _grouped_bars(fig, results.backbones, methods, best, ACCURACY[select_on])


@styled
def fig08_final(results: Results) -> Drawing:
    """Figure 8: the final accuracy of every method; repeats as dots, the best method hatched."""
    rows, accuracy = results.final, ACCURACY["val_accuracy"]
    title = f"Figure 8 · Every approach, {_share(results.final_split)}"
    text = f"{caption(rows, 'bar')}. Bar: mean, best one hatched; dot: run."
    fig = new_figure(title, text, WIDTH, 4.6)
    methods = _methods(rows, in_figure(8))
    runs = rows.groupby(["method", "backbone"])["val_accuracy"].apply(list).to_dict()
    return _grouped_bars(fig, results.backbones, methods, runs, accuracy, hatch_best=True)


def _best(rows: pd.DataFrame, select_on: str) -> Runs:
    """The highest accuracy of each (method, backbone)."""
    highest = rows.groupby(["method", "backbone"])[select_on].max()
    return {place: [value] for place, value in highest.items()}


def _shown(rows: pd.DataFrame, methods: Sequence[str]) -> pd.DataFrame:
    return rows[rows["method"].isin(methods)]


def _methods(rows: pd.DataFrame, always: Sequence[str]) -> list[str]:
    """The methods to show: `always`, and all others that have rows."""
    found = set(rows["method"]) | set(always)
    return [m for m in PAPER if m in found] + sorted(found - set(PAPER))


def _grouped_bars(
    fig: Drawing,
    backbones: Sequence[str],
    methods: Sequence[str],
    runs: Runs,
    ylabel: str,
    hatch_best: bool = False,
) -> Drawing:
    """A group of bars for each backbone, a bar for each method, "not run" where one lacks."""
    ax = fig.subplots()
    width = 0.86 / len(methods)
    for group, backbone in enumerate(backbones):
        bars = {m: runs[m, backbone] for m in methods if (m, backbone) in runs}
        top = max(map(mean, bars.values()), default=0) - 1e-9  # equal means are all the best
        for place, method in enumerate(methods):
            x = group - 0.43 + (place + 0.5) * width
            best = hatch_best and method in bars and mean(bars[method]) > top
            _draw_bar(ax, x, width, bars.get(method), _fill(method, best))
    ax.set(ylabel=ylabel, ylim=(0, 1.12))
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    _name_groups(ax, backbones)
    add_legend(fig, [Patch(color=colour(m), label=label(m)) for m in methods])
    return fig


def _draw_bar(ax: Axes, x: float, width: float, runs: Sequence[float] | None, look: dict) -> None:
    """The mean of some runs as a bar with its value above it; several runs are dots as well."""
    text = {"ha": "center", "va": "bottom", "size": 7.5, "rotation": 90 if width < 0.2 else 0}
    if runs is None:
        ax.text(x, 0.01, "not run", color=GREY, **text | {"rotation": 90})
        return
    ax.bar(x, mean(runs), width * 0.88, **look)
    if len(runs) > 1:
        places = _dots(x, width * 0.6, len(runs))
        ax.plot(places, runs, "o", ms=2.6, mfc="white", mec="black", mew=0.6, zorder=3)
    ax.text(x, max([mean(runs), *runs]) + 0.015, f"{mean(runs):.3f}", **text)


def _fill(method: str, best: bool) -> dict:
    """A bar in its method's colour; the best is white with vertical hatching, as in the paper."""
    ink = colour(method)
    face = {"facecolor": "white", "hatch": "||||"} if best else {"facecolor": ink}
    return {"edgecolor": ink, "linewidth": 1.0, **face}


# ------------------------------------------------- Figures 4, 5, 6: the search, panel by panel


@styled
def fig04_layer_wise(results: Results) -> Drawing:
    """Figure 4: the accuracy of tuning each single layer, one panel for each backbone."""
    title = f"Figure 4 · Layer-wise fine-tuning, {_share(results.search_split)}"
    xlabel = "layer with weights, counted from the input"
    return _panels(results, "layer_wise", title, xlabel, _draw_points)


@styled
def fig05_block_wise(results: Results) -> Drawing:
    """Figure 5: the accuracy of tuning each block, the best one white with vertical hatching."""
    title = f"Figure 5 · Block-wise fine-tuning, {_share(results.search_split)}"
    xlabel = "block, counted from the input"
    return _panels(results, "block_wise", title, xlabel, _draw_bars)


@styled
def fig06_sliding_window(results: Results) -> Drawing:
    """Figure 6: the accuracy of tuning each window of layers."""
    title = f"Figure 6 · Sliding-window fine-tuning, {_share(results.search_split)}"
    xlabel = "window, by the place of its first layer counted from the input"
    return _panels(results, "sliding_window", title, xlabel, _draw_points)


def _panels(
    results: Results,
    method: str,
    title: str,
    xlabel: str,
    draw: Callable[[Axes, pd.DataFrame, pd.Series, str, float], None],
) -> Drawing:
    """One panel for each backbone, one below the other.

    Each panel has an axis of its own, so that one backbone far below the others does not flatten
    theirs. Bars start at Baseline I, or at zero where it was not run.
    """
    rows = _shown(results.search, [method, *LINES])
    backbones, select_on = results.backbones, results.select_on
    bars = draw is _draw_bars
    text = caption(_shown(rows, [method]), "bar" if bars else "point")
    if bars:
        without = not all(_base(results, name) for name in backbones)
        text += f". Bars start at Baseline I{', at 0 where it was not run' * without}"
    text += "."
    text += " Each panel has its own accuracy axis."
    count = max(len(backbones), 1)
    fig = new_figure(title, text, WIDTH, 1.5 + 1.7 * count)
    axes = fig.subplots(count, 1, squeeze=False)[:, 0]
    for ax, backbone in zip(axes, backbones or [""], strict=True):
        shown = rows[rows["backbone"] == backbone]
        ax.set_ylim(*_limits(shown[select_on], bars and _base(results, backbone) == 0))
        _draw_panel(ax, results, method, backbone, draw)
    axes[-1].set_xlabel(xlabel)
    fig.supylabel(ACCURACY[select_on], size=9)
    add_legend(fig, _panel_legend(method, bars))
    return fig


def _draw_panel(
    ax: Axes,
    results: Results,
    method: str,
    backbone: str,
    draw: Callable[[Axes, pd.DataFrame, pd.Series, str, float], None],
) -> None:
    """A backbone's search: its runs in order, its baselines as lines, its best named above."""
    ax.set_title(backbone, loc="left", weight="bold")
    rows, select_on = results.in_order(method, backbone), results.select_on
    if rows.empty:
        _not_run(ax)
        return
    best = results.winner(method, backbone)
    draw(ax, rows, best, select_on, _base(results, backbone))
    for baseline, look in LINES.items():
        for height in results.in_order(baseline, backbone)[select_on]:
            ax.axhline(height, zorder=1.5, **look)
    ax.set_title(_winner(rows, best, select_on), loc="right", size=8.5)
    last = rows["position"].max()
    room = 0.5 + 0.005 * last
    ax.set_xlim(1 - room, last + room)
    ax.set_xticks(_ticks(last))
    ax.grid(False, axis="x")


def _base(results: Results, backbone: str) -> float:
    """Where bars start: Baseline I's accuracy in the search; 0 where it was not run."""
    alone = results.in_order("baseline_1", backbone)[results.select_on]
    return float(alone.iloc[0]) if len(alone) else 0.0


def _winner(rows: pd.DataFrame, best: pd.Series, select_on: str) -> str:
    """Number, layers and accuracy of the best block, and how many others are as good."""
    names = best["layers"].split(";") if best["layers"] else ["no weights"]
    layers = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}, {len(names)} layers"
    equal = int((rows[select_on] == best[select_on]).sum())
    first = f", first of {equal} equal" if equal > 1 else ""
    return f"best: {best['position']} ({layers}) {best[select_on]:.3f}{first}"


def _ticks(last: int) -> list[int]:
    """1 and the multiples of a round step up to the last place: at most about twenty."""
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, last) if last / step <= 20)
    return sorted({1, *range(step, last + 1, step)})


def _draw_points(ax: Axes, rows: pd.DataFrame, best: pd.Series, value: str, _: float) -> None:
    """Points joined by a thin line, the best one ringed."""
    ink = colour(best["method"])
    ax.plot(rows["position"], rows[value], "-", color=ink, lw=0.8, alpha=0.7)
    ax.plot(rows["position"], rows[value], "o", color=ink, ms=3.6)
    ax.plot(best["position"], best[value], **RING)


def _draw_bars(ax: Axes, rows: pd.DataFrame, best: pd.Series, value: str, base: float) -> None:
    """Bars from `base` to the accuracy, the best one hatched."""
    others = rows.drop(index=best.name)
    for some, first in ((others, False), (best, True)):
        look = _fill(best["method"], first)
        ax.bar(some["position"], some[value] - base, 0.78, bottom=base, **look)


def _panel_legend(method: str, bars: bool) -> list:
    lines = [Line2D([], [], label=label(name), **look) for name, look in LINES.items()]
    if bars:
        best = Patch(label="best block", **_fill(method, True))
        return [Patch(label=label(method), **_fill(method, False)), best, *lines]
    run = Line2D([], [], color=colour(method), marker="o", ms=4, lw=0.8, label=label(method))
    return [run, Line2D([], [], label="best", **RING), *lines]


# ----------------------------------------------------------------- Figures 9, 10: the repeats


@styled
def fig09_block_wise_repeats(results: Results) -> Drawing:
    """Figure 9: the repeated final runs of the best block and their mean."""
    title = f"Figure 9 · Block-wise fine-tuning repeated, {_share(results.final_split)}"
    return _repeats(results, "block_wise", title)


@styled
def fig10_sliding_window_repeats(results: Results) -> Drawing:
    """Figure 10: the repeated final runs of the best window and their mean."""
    title = f"Figure 10 · Sliding-window fine-tuning repeated, {_share(results.final_split)}"
    return _repeats(results, "sliding_window", title)


def _repeats(results: Results, method: str, title: str) -> Drawing:
    """The runs of each backbone as dots, their mean as a line with its value."""
    rows, backbones = _shown(results.final, [method]), results.backbones
    fig = new_figure(title, caption(rows, "backbone"), WIDTH, 4.2)
    ax = fig.subplots()
    for group, backbone in enumerate(backbones):
        runs = rows[rows["backbone"] == backbone].sort_values("repeat")
        _draw_repeats(ax, group, runs["val_accuracy"].tolist(), colour(method))
    ax.set(ylabel=ACCURACY["val_accuracy"], ylim=_limits(rows["val_accuracy"], False))
    _name_groups(ax, backbones)
    dot = {"marker": "o", "ls": "", "ms": 6.5, "color": colour(method)}
    line = Line2D([], [], color="black", lw=1.6, label="mean; above: mean ± sd")
    add_legend(fig, [Line2D([], [], label="run, in the order of repeats", **dot), line])
    return fig


def _draw_repeats(ax: Axes, group: int, runs: Sequence[float], ink: str) -> None:
    if not runs:
        ax.text(group, 0.5, "not run", ha="center", color=GREY, transform=ax.get_xaxis_transform())
        return
    ax.plot([group - 0.36, group + 0.36], [mean(runs)] * 2, color="black", lw=1.6)
    ax.plot(_dots(group, 0.6, len(runs)), runs, "o", ms=6.5, color=ink, mec="white", mew=0.6)
    text = f"{mean(runs):.3f}" + (f" ± {stdev(runs):.3f}" if len(runs) > 1 else "")
    above = {"xytext": (0, 9), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    ax.annotate(text, (group, max(runs)), **above)


# ------------------------------------------------------------------------------------- shared


def _share(split: str) -> str:
    """ "train[:10%]" as "10 % of the data"; any other slice as it is."""
    match = re.fullmatch(r"train\[:(\d+)%\]", split)
    return f"trained on {match[1]} % of the data" if match else f"trained on {split}"


def _limits(values: pd.Series, from_zero: bool) -> tuple[float, float]:
    """Limits of the accuracy axis: room around the values, and at least ten points in all."""
    if values.empty:
        return 0.0, 1.0
    low, high = values.min(), values.max()
    room = max(0.1 * (high - low), (0.1 - (high - low)) / 2)
    return (0.0 if from_zero else max(0.0, low - room)), min(1.02, high + room)


def _dots(centre: float, width: float, count: int) -> list[float]:
    """Places of `count` dots, evenly over a width around a centre."""
    return [centre + width * ((i + 0.5) / count - 0.5) for i in range(count)]


def _name_groups(ax: Axes, backbones: Sequence[str]) -> None:
    """One group of marks for each backbone along the horizontal axis."""
    ax.set_xticks(range(len(backbones)), backbones, weight="bold")
    margin = 0.55 + max(0, 2 - len(backbones)) / 2  # one group alone is not made wider
    ax.set_xlim(-margin, len(backbones) - 1 + margin)
    ax.grid(False, axis="x")
    if not backbones:
        _not_run(ax)


def _not_run(ax: Axes) -> None:
    ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color=GREY)
    ax.set_xticks([])


# ----------------------------------------------------------------------------------- all files


def draw_all(results: Results, folder: str | Path) -> list[Path]:
    """Write Figures 1 to 10 (PNG and SVG), Table I (CSV, Markdown, LaTeX) and the comparison.

    results: of any backbones and methods. Returns the paths of all files.

    Raises InputError for final runs of a block that did not win its search.
    """
    results.check_winners()
    profiles = " / ".join(dict.fromkeys(results.rows["profile"]))
    note = f"profile {profiles}" if profiles else ""
    figures = {"fig01_schemes": fig01_schemes()}
    figures["fig02_parameters"] = fig02_parameters(layer_counts("VGG16"), note)
    figures |= {draw.__name__: draw(results) for draw in OF_ROWS}
    paths = [path for name, fig in figures.items() for path in save(fig, folder, name)]
    return paths + save_table1(results, folder) + save_comparison(results, folder)


OF_ROWS = (
    fig03_baselines,
    fig04_layer_wise,
    fig05_block_wise,
    fig06_sliding_window,
    fig07_search_summary,
    fig08_final,
    fig09_block_wise_repeats,
    fig10_sliding_window_repeats,
)
