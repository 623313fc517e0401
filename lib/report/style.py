"""How figures look and how they are saved: colours, sizes, and files that repeat byte by byte."""

import functools
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from ..whole import whole, writing

WIDTH = 10.0  # inches, of a figure of five backbones
DPI = 150  # of PNG files
NOTEBOOK_DPI = 100
GREY = "#595959"
FROZEN = "#D9D9D9"

STYLE = {
    **sns.axes_style("whitegrid"),
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same text on every machine
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "figure.titlesize": 11.5,
    "axes.edgecolor": "#B0B0B0",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "hatch.linewidth": 1.0,
    "svg.hashsalt": "figures",  # the ids inside an SVG are random without it
}


class Drawing(Figure):
    """A matplotlib Figure that a notebook shows as a cell's last value, without pyplot."""

    def _repr_png_(self) -> bytes:
        return render(self, "png", NOTEBOOK_DPI)


def new_figure(title: str, caption: str, width: float, height: float) -> Drawing:
    """An empty figure (inches), its title above on the left, its caption below on the left."""
    fig = Drawing(figsize=(width, height), layout="constrained")
    fig.suptitle(title, x=0.01, ha="left", weight="bold")
    letters = int(width * 17)  # that many letters of the caption's size fit in a line
    lines = textwrap.fill(caption.replace(" · ", "\u00a0· "), letters)  # no line starts with a dot
    fig.supxlabel(lines, x=0.01, ha="left", size=8, color=GREY)
    fig.get_layout_engine().set(h_pad=0.06, w_pad=0.06, hspace=0.02)
    return fig


def add_legend(fig: Drawing, handles: Sequence) -> None:
    """A legend in one line below the title.

    The layout keeps "outside" legends clear of the panels but not of the title, so the title
    gets a second, empty line that holds the legend.
    """
    title = fig.get_suptitle()
    fig.suptitle(f"{title}\n ", x=0.01, ha="left", weight="bold", linespacing=1.5)
    below_title = fig.transFigure + ScaledTranslation(0, -0.27, fig.dpi_scale_trans)
    fig.legend(
        handles=handles,
        ncols=len(handles),
        loc="upper left",
        bbox_to_anchor=(0.006, 1.0),
        bbox_transform=below_title,
        borderaxespad=0,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.2,
    )


@contextmanager
def _own_style() -> Iterator[None]:
    """Matplotlib's defaults and STYLE, whatever the user's own settings; these come back after."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def styled(draw: Callable[..., Drawing]) -> Callable[..., Drawing]:
    """Draw a figure in STYLE and lay it out at once; matplotlib's settings stay as they were."""

    @functools.wraps(draw)
    def wrapped(*args, **kwargs):
        with _own_style():
            fig = draw(*args, **kwargs)
            fig.draw_without_rendering()  # ticks are made when drawn: make them in this style
            fig.set_layout_engine("none")  # keep this layout: saving need not work it out again
        return fig

    return wrapped


def render(fig: Figure, kind: str, dpi: int = DPI) -> bytes:
    """The figure as the bytes of a PNG or SVG file; the same figure gives the same bytes.

    Not by `savefig`, which draws all of it once more to lay it out: `styled` has done so.
    """
    buffer, usual = io.BytesIO(), fig.dpi
    with _own_style():
        try:
            fig.set_dpi(dpi)
            if kind == "png":
                FigureCanvasAgg(fig).print_png(buffer)
            else:
                FigureCanvasSVG(fig).print_svg(buffer, metadata={"Date": None})
        finally:
            fig.set_dpi(usual)
    return buffer.getvalue()


def save(fig: Figure, folder: str | Path, name: str) -> list[Path]:
    """Write <name>.png (150 dpi) and <name>.svg, the same bytes every time; returns the paths.

    Raises InputError where they cannot be written.
    """
    paths = [Path(folder) / f"{name}.{kind}" for kind in ("png", "svg")]
    for path in paths:
        with writing(path), whole(path) as draft:
            draft.write_bytes(render(fig, path.suffix[1:]))
    return paths
