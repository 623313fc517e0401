"""The charts of the report: what tuning adds along the depth, and learning curves."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..methods import colour
from ..report.style import GREY, Drawing, add_legend, new_figure, styled
from .candidates import WORDS
from .outcome import TOGETHER, Answer

_INKS = {word: colour(method) for method, word in WORDS.items()} | {TOGETHER: colour("top_3")}
LOOKS = dict(zip(_INKS, zip(_INKS.values(), "*soDvP^", strict=True), strict=True))


@styled
def gains(answer: Answer) -> Drawing:
    """What tuning each candidate adds to the classifier alone, from the input to the output."""
    tried = answer.tried[answer.tried["layers"].str.len() > 0]
    text = (
        "Accuracy on the selection photos minus that of the classifier alone after as many epochs,"
        f" with 95 % intervals for other {answer.like}. The best of many seems better than it is:"
        " the answer is confirmed on other photos. Pale: left after a few epochs."
    )
    fig = new_figure("What tuning adds, from the input to the output", text, 9.0, 4.0)
    ax = fig.subplots()
    ax.axhline(0, color=GREY, lw=0.8)
    most = tried["epochs"].max() if len(tried) else 0
    for kind, rows in tried.groupby("kind", sort=False):
        _points(ax, kind, rows, most)
    ax.set(xlabel="place of the tuned layers among all with weights", ylabel="gain in accuracy")
    kinds = [kind for kind in LOOKS if kind in set(tried["kind"])]
    add_legend(fig, [_handle(kind) for kind in kinds])
    return fig


def _handle(kind: str) -> Line2D:
    ink, marker = LOOKS[kind]
    return Line2D([], [], color=ink, marker=marker, ms=5, lw=0, label=kind)


def _points(ax: Axes, kind: str, rows: pd.DataFrame, most: int) -> None:
    """The candidates of one kind; those that left early are pale."""
    ink, marker = LOOKS[kind]
    look = {"color": ink, "marker": marker, "ms": 5, "lw": 0, "elinewidth": 0.9}
    for last, some in rows.groupby(rows["epochs"] == most):
        low, high = some["low"].clip(lower=-1), some["high"].clip(upper=1)  # one group: no limits
        spread = np.array([some["gain"] - low, high - some["gain"]])
        ax.errorbar(some["depth"], some["gain"], spread, alpha=1 if last else 0.35, **look)


@styled
def curves(answer: Answer) -> Drawing:
    """Accuracy after each epoch: on held-out photos, and of the final training on its own."""
    held_out = "mean over the folds, on photos that were held out"
    if answer.gain is None:  # nothing to confirm: one run
        held_out = "the run of the choice, on the selection photos"
    text = (
        f"Left: {held_out}; the dots are the epochs that the final training takes."
        " Right: the final training on its own photos, dropout on."
    )
    fig = new_figure("Learning curves", text, 9.0, 3.4)
    held, final = fig.subplots(1, 2, sharey=True)
    _lines(held, answer.curves, dots=True)
    names = {"the classifier alone": answer.alone}
    if answer.kept.layers:
        names[answer.kept.label] = answer.tested
    _lines(final, {n: np.array(t.history["accuracy"]) for n, t in names.items()})
    held.set(xlabel="epoch", ylabel="accuracy", title="held-out photos")
    final.set(xlabel="epoch", title="final training")
    return fig


def _lines(ax: Axes, found: Mapping[str, np.ndarray], dots: bool = False) -> None:
    for (name, values), ink in zip(found.items(), (GREY, colour("block_wise")), strict=False):
        epochs = np.arange(1, len(values) + 1)
        ax.plot(epochs, values, color=ink, marker="." if len(values) == 1 else "",
                label=name)  # fmt: skip
        if dots:
            ax.plot(values.argmax() + 1, values.max(), "o", color=ink)
    ax.legend(loc="lower right", frameon=False)


@styled
def mistakes(answer: Answer, most: int = 8) -> Drawing:
    """The test photos that the network gets wrong with most confidence."""
    found = answer.mistakes(most)
    fig = new_figure("Most confident mistakes", "Is, and what the network says.", 9.0, 2.2)
    for ax, place in zip(
        fig.subplots(1, most, squeeze=False)[0], [*found, *[None] * most], strict=False
    ):
        ax.set_axis_off()
        if place is not None:
            _mistake(ax, answer, place)
    return fig


def _mistake(ax: Axes, answer: Answer, place: int) -> None:
    photo, names = answer.split.test[place], answer.photos.names
    said = answer.tested.probabilities[place]
    ax.imshow(answer.photos.images[photo], interpolation="nearest")
    title = f"{names[answer.photos.labels[photo]]},\n{names[said.argmax()]} {said.max():.0%}"
    ax.set_title(title, size=8, parse_math=False)
