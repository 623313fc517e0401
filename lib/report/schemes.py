"""Figures 1 and 2 of the paper, and a look at the photos: drawings made without runs."""

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Patch

from ..methods import colour
from .style import FROZEN, GREY, WIDTH, Drawing, add_legend, new_figure, styled

ROUNDED = "round,pad=0,rounding_size=0.08"

# --------------------------------------------------------------------- Figure 1: the schemes

LAYERS = ("layer 1", "…", "layer i − 1", "layer i", "layer i + 1", "…", "layer N")
# Title, subtitle, and what happens to each of LAYERS and to the classifier:
# s source weights, f frozen, t trained.
SCHEMES = (
    ("(a) Source model", "pre-trained", "sssssss", "s"),
    ("(b) Baseline I", "classifier only", "fffffff", "t"),
    ("(c) Baseline II", "all layers", "ttttttt", "t"),
    ("(d) Layer-wise", "one layer at a time", "ffftfff", "t"),
    ("(e) Block-wise", "one block at a time", "fftttff", "t"),
)
FACES = {"s": "white", "f": FROZEN, "t": "#0072B2"}  # the paper marks trained layers blue
HEAD = 7.75  # height of the classifier's centre; a layer is one unit high


@styled
def fig01_schemes() -> Drawing:
    """Figure 1: the source model and the four ways to fine-tune it. A drawing, without runs."""
    text = (
        "The classifier of (b) to (e) is new: Flatten, Dense 128, Dropout, Dense 64, Dense n. In"
        " (d) and (e) the dashed box is the candidate: the search puts it on each layer or block"
        " in turn, trains it alone with the classifier, and keeps the most accurate place."
    )
    fig = new_figure("Figure 1 · The source model and four target models", text, WIDTH, 5.4)
    for ax, scheme in zip(fig.subplots(1, len(SCHEMES)), SCHEMES, strict=True):
        _draw_scheme(ax, *scheme)
    names = {"s": "source weights", "f": "frozen", "t": "trained on the new task"}
    handles = [Patch(facecolor=FACES[s], edgecolor=GREY, label=name) for s, name in names.items()]
    box = Patch(facecolor="none", edgecolor="black", ls="--", lw=1.2, label="candidate")
    add_legend(fig, [*handles, box])
    return fig


def _draw_scheme(ax: Axes, title: str, subtitle: str, layers: str, head: str) -> None:
    """One column of Figure 1: the input at the bottom, the classifier at the top."""
    ax.set(xlim=(-0.75, 0.75), ylim=(-1.25, 9.1))
    ax.set_axis_off()
    ax.set_title(f"{title}\n{subtitle}", size=9.5)
    ax.text(0, -1.0, "input image", ha="center", va="center")
    for place, (name, state) in enumerate(zip(LAYERS, layers, strict=True)):
        _draw_arrow(ax, place - 0.7, place - 0.33)
        _draw_box(ax, place, name, state)
    _draw_arrow(ax, 6.33, HEAD - 0.5)
    _draw_box(ax, HEAD, "source\nclassifier" if head == "s" else "new\nclassifier", head, 1.0)
    _draw_arrow(ax, HEAD + 0.5, HEAD + 0.87)
    ax.text(0, 8.85, "source classes" if head == "s" else "n classes", ha="center", va="center")
    trained = [place for place, state in enumerate(layers) if state == "t"]
    if 0 < len(trained) < len(layers):
        _draw_candidate(ax, trained[0] - 0.5, trained[-1] + 0.5)


def _draw_box(ax: Axes, y: float, name: str, state: str, height: float = 0.66) -> None:
    corner = (-0.5, y - height / 2)
    look = {"facecolor": FACES[state], "edgecolor": GREY}
    ax.add_patch(FancyBboxPatch(corner, 1.0, height, boxstyle=ROUNDED, **look))
    ink = "white" if state == "t" else "black"
    ax.text(0, y, name, ha="center", va="center", color=ink, size=8.5)


def _draw_arrow(ax: Axes, start: float, end: float, x: float = 0, **look) -> None:
    look = {"arrowstyle": "-|>", "color": GREY, "lw": 0.9, "shrinkA": 0, "shrinkB": 0} | look
    ax.annotate("", (x, end), (x, start), arrowprops=look)


def _draw_candidate(ax: Axes, low: float, high: float) -> None:
    """The dashed box around the candidate, and arrows for its way through the network."""
    look = {"facecolor": "none", "edgecolor": "black", "ls": "--", "lw": 1.3}
    ax.add_patch(FancyBboxPatch((-0.62, low), 1.24, high - low, boxstyle=ROUNDED, **look))
    _draw_arrow(ax, high + 0.05, high + 0.95, x=0.66, color="black", lw=1.2)
    _draw_arrow(ax, low - 0.05, low - 0.95, x=0.66, color="black", lw=1.2)


# ----------------------------------------------------------------- Figure 2: sizes of layers


@styled
def fig02_parameters(counts: Sequence[tuple[str, int]], note: str = "") -> Drawing:
    """Figure 2: the number of weights of each layer of VGG16, from input to output.

    counts: (layer name, number of weights) of every layer, those without weights included.
    note: which network this is, for the caption.
    """
    heights = [count for _, count in counts]
    text = " · ".join([*filter(None, [note]), f"{len(counts)} layers", f"{sum(heights):,} weights"])
    text += ". Layers without weights (▽) are the valleys that divide the network into blocks."
    fig = new_figure("Figure 2 · Number of weights of each layer of VGG16", text, WIDTH, 4.6)
    ax = fig.subplots()
    for number, (first, last) in enumerate(_blocks(heights), start=1):
        ax.axvspan(first + 0.5, last + 1.5, color="#F3F3F3", zorder=0)
        middle, top = (first + last) / 2 + 1, ax.get_xaxis_transform()
        ax.text(middle, 0.97, f"block {number}", ha="center", va="top", transform=top)
    places = range(1, len(counts) + 1)
    bars = ax.bar(places, heights, width=0.75, color=colour("baseline_2"))
    ax.bar_label(bars, [_engineering(height) for height in heights], size=8, padding=2)
    empty = [place for place, height in zip(places, heights, strict=True) if not height]
    ax.plot(empty, [0] * len(empty), "v", mfc="white", mec=GREY, ms=7, clip_on=False, zorder=3)
    ax.set_xticks(places, [name for name, _ in counts], rotation=40, ha="right")
    ax.set(ylabel="number of weights", xlim=(0.3, len(counts) + 0.7))
    ax.yaxis.set_major_formatter(lambda value, _: _engineering(value) or "0")
    ax.margins(y=0.17)
    ax.grid(False, axis="x")
    return fig


# ------------------------------------------------------------------------------- the photos

GRID_CLASSES = 20  # more would take minutes to draw


@styled
def photo_grid(images: np.ndarray, labels: np.ndarray, names: Sequence[str], n: int = 8) -> Drawing:
    """The first `n` photos of each class, one row a class, at most GRID_CLASSES of them.

    images: uint8 (N, H, W, 3). labels: int (N,), indices into names.
    """
    size, shown = WIDTH / (n + 1), names[:GRID_CLASSES]
    text = f"the first {n} of each class in these {len(images):,} photos, {images.shape[1]} px"
    if len(shown) < len(names):
        text += f"; the first {len(shown)} of {len(names)} classes"
    fig = new_figure("The photos", text, WIDTH, size * len(shown) + 0.6)
    for label, row in enumerate(fig.subplots(len(shown), n, squeeze=False)):
        found = images[labels == label][:n]
        for ax, image in itertools.zip_longest(row, found):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if image is not None:
                ax.imshow(image, interpolation="nearest")
        look = {"rotation": 0, "ha": "right", "va": "center", "parse_math": False}  # "$" is a "$"
        row[0].set_ylabel(shown[label], **look)
    return fig


def _blocks(heights: Sequence[int]) -> list[tuple[int, int]]:
    """First and last index of every maximal run of layers with weights (Section III-B)."""
    runs = itertools.groupby(range(len(heights)), key=lambda index: heights[index] > 0)
    members = [list(indices) for weighted, indices in runs if weighted]
    return [(indices[0], indices[-1]) for indices in members]


def _engineering(value: float) -> str:
    """2359808 as "2.36 M"; nothing for zero."""
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:g}" if value else ""
