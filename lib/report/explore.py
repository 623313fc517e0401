"""What a reader plays with in notebook 0: one network and one method, from rows alone.

Where in the network tuning helps, how its runs learn, and which photos it wins.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import TwoSlopeNorm
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from ..errors import InputError
from ..ledger import unpack_curve, unpack_hits
from ..methods import BASELINES, SEARCHES, colour, label
from ..params import Params
from ..photos.dataset import at_hand, load_data
from ..results import Results
from .captions import caption
from .schemes import photo_grid
from .style import GREY, WIDTH, Drawing, add_legend, new_figure, styled

MAP = "RdBu"  # red: tuning costs accuracy; blue: it adds


def gains(results: Results, backbone: str, method: str) -> pd.DataFrame:
    """What tuning each block of a method adds to the classifier alone, in the search.

    Returns:
        The runs from input to output, with `gain` (accuracy, -1 to 1) and `first` and `last` (the
        block's place among the layers with weights, counted from 1).

    Raises InputError where the rows lack the method or Baseline I.
    """
    alone = results.winner("baseline_1", backbone)[results.select_on]
    results.winner(method, backbone)  # says so where there are none
    rows = results.in_order(method, backbone)
    rows = rows[rows["layers"] != ""]  # a window without weights is Baseline I
    place = {name: i for i, name in enumerate(results.layer_order(backbone), start=1)}
    places = [[place[name] for name in text.split(";")] for text in rows["layers"]]
    ends = {"first": [min(p) for p in places], "last": [max(p) for p in places]}
    return rows.assign(gain=rows[results.select_on] - alone, **ends)


@styled
def network_map(results: Results, backbone: str, method: str) -> Drawing:
    """The network from input to output, each block coloured by what tuning it adds."""
    rows = gains(results, backbone, method)
    title = f"{backbone}: what tuning adds, {label(method).lower()}"
    fig = new_figure(title, caption(rows, "block"), WIDTH, 3.2)
    ax, most = fig.subplots(), max(0.01, rows["gain"].abs().max())
    colours = ScalarMappable(TwoSlopeNorm(0, -most, most), MAP)
    for row in rows.to_dict("records"):
        at, width = (row["first"] - 0.5, min(0, row["gain"])), row["last"] - row["first"] + 1
        look = {"facecolor": colours.to_rgba(row["gain"]), "edgecolor": GREY, "linewidth": 0.4}
        ax.add_patch(Rectangle(at, width, abs(row["gain"]), alpha=0.8, **look))
    ax.axhline(0, color="black", lw=0.8)
    layers = len(results.layer_order(backbone))
    low, high = min(0, rows["gain"].min()), max(0.01, rows["gain"].max())
    room = 0.15 * (high - low)
    ax.set(xlim=(0, layers + 1), ylim=(low - room, high + room), ylabel="gain over Baseline I")
    ax.set_xlabel(f"the {layers} layers with weights, input to output")
    _name_best(ax, rows)
    return fig


def _name_best(ax: Axes, rows: pd.DataFrame) -> None:
    best = rows.loc[rows["gain"].idxmax()]
    middle, layers = (best["first"] + best["last"]) / 2, best["layers"].split(";")
    text = layers[0] if len(layers) == 1 else f"{layers[0]} … {layers[-1]}"
    ha = "left" if middle < ax.get_xlim()[1] / 2 else "right"
    ax.annotate(f"{text}: {best['gain']:+.3f}", (middle, max(0, best["gain"])), (0, 4),
                textcoords="offset points", ha=ha, parse_math=False)  # fmt: skip


@styled
def learning_curves(results: Results, backbone: str, method: str) -> Drawing:
    """Evaluation accuracy after each epoch: every block, the best one, and both baselines."""
    rows = results.in_order(method, backbone)
    best = results.winner(method, backbone)
    shown = [(results.winner(name, backbone), colour(name)) for name in BASELINES]
    shown.append((best, colour(method)))
    title = f"{backbone}: how its runs learn, {label(method).lower()}"
    fig = new_figure(title, caption(rows, "line"), WIDTH, 3.2)
    ax = fig.subplots()
    for run in rows.to_dict("records"):
        ax.plot(*_curve(run), color=GREY, alpha=0.2, lw=0.8)
    for run, ink in shown:
        ax.plot(*_curve(run), color=ink, lw=2, marker="o", ms=3, zorder=3)
    ax.set(xlabel="epoch", ylabel="accuracy")
    names = [*map(label, BASELINES), f"best: {best['block']}"]
    lines = [Line2D([], [], color=ink, lw=2) for _, ink in shown]
    handles = [*lines, Line2D([], [], color=GREY, alpha=0.4, lw=0.8)]
    for handle, name in zip(handles, [*names, "every other block"], strict=True):
        handle.set_label(name)
    add_legend(fig, handles)
    return fig


def _curve(run) -> tuple[np.ndarray, np.ndarray]:
    """Epochs from 1 on, and the accuracy after each."""
    accuracies = unpack_curve(run["curve"]) / run["eval_images"]
    return np.arange(1, len(accuracies) + 1), accuracies


def won_and_lost(results: Results, backbone: str, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Evaluation photos that the best block gets right and the classifier alone wrong, and back.

    Returns:
        Two int arrays of indices into the evaluation slice.
    """
    runs = results.winner(method, backbone), results.winner("baseline_1", backbone)
    tuned, alone = (unpack_hits(run["hits"], run["eval_images"]) for run in runs)
    return np.flatnonzero(tuned & ~alone), np.flatnonzero(alone & ~tuned)


def photos_won(params: Params, chosen: np.ndarray, n: int = 6) -> Drawing | str:
    """The first `n` of some evaluation photos a class, or a line that says what is missing.

    chosen: indices into the evaluation slice, as `won_and_lost` returns them.
    """
    if not at_hand(params):
        return f"{params.data} is not on this machine: set data_dir, or TFDS_DATA_DIR, to see them"
    photos = load_data(params)
    shown = photos.split(params.eval_split)[chosen]
    return photo_grid(photos.images[shown], photos.labels[shown], photos.names, n)


def in_words(results: Results, backbone: str, method: str) -> str:
    """The best block of a method, what it adds in the search, and how many photos that is."""
    best, (won, lost) = results.winner(method, backbone), won_and_lost(results, backbone, method)
    gain = (len(won) - len(lost)) / best["eval_images"]
    return (
        f"{backbone}, {label(method).lower()}: the best is {best['block']} "
        f"({best['layers'].replace(';', ', ')}). In the last epoch it gets {len(won)} photos right "
        f"that the classifier alone gets wrong, and {len(lost)} the other way round: {gain:+.3f}. "
        "The best of many seems better than it is: `08_doubts` says how much of this is luck."
    )


def explorer(results: Results, draw: Callable[[str, str], Sequence[Any]]) -> Any:
    """Two menus, of networks and of methods that propose many blocks, and what `draw` gives.

    A choice draws anew in the same places; where there is no front end, the first choice stays.
    The drawings are displays of their own and not in an Output widget: headless execution may wait
    for ever on one (nbclient, issue 312).

    Args:
        draw: what to show of a network and a method; always as many things.

    Returns:
        The menus, an ipywidgets box.
    """
    from ipywidgets import Dropdown, HBox

    found = set(results.search["method"])
    many = [(label(name), name) for name in SEARCHES if name in found]
    if not many:
        raise InputError("results: no rows of a search; allowed: rows of notebooks 1 to 5")
    menus = [Dropdown(options=options) for options in (results.backbones, many)]
    places = [display(thing, display_id=True) for thing in draw(*(m.value for m in menus))]

    def again(change: Any) -> None:
        try:
            things = draw(*(m.value for m in menus))
        except InputError as error:  # such as no rows of this method: else only a log would say so
            things = [Markdown(str(error)), *[Markdown("")] * (len(places) - 1)]
        for place, thing in zip(places, things, strict=True):
            place.update(thing)

    for menu in menus:
        menu.observe(again, "value")
    return HBox(menus)
