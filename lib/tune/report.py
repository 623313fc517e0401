"""The report: one HTML file that needs no other, written from an `Answer`."""

import base64
import io

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from PIL import Image

from ..audit.intervals import Interval
from ..errors import readable
from ..report.style import render
from .charts import curves, gains
from .outcome import Answer, named, shares, signed
from .strategies import STRATEGIES

FILE = "report.html"
DPI = 110
MOST_CLASSES = 25  # of which a whole table of confusions can be read
MOST_PAIRS = 20


def report(a: Answer) -> str:
    """The report as HTML; every name in it is text."""
    pages = Environment(
        loader=PackageLoader("lib.tune", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return pages.get_template("report.html.jinja").render(
        a=a,
        settings=a.settings,
        folder=readable(a.photos.folder.name),
        strategy=STRATEGIES[a.settings.strategy].says,
        ranks=STRATEGIES[a.settings.strategy].ranks,
        kept=named(a.kept),
        accuracy=shares(a.accuracy),
        test_gain=signed(a.test_gain),
        gain=lambda row: signed(Interval(row.gain, row.low, row.high)),
        counts=a.photos.counts(),
        gains=figure(gains(a)),
        curves=figure(curves(a)),
        classes=a.by_class().itertuples(index=False),
        confusion=_confusion(a),
        pairs=_pairs(a),
        mistakes=[_mistake(a, i) for i in a.mistakes()],
        twins=[([a.photos.paths[i] for i in t], a.photos.classes(t)) for t in a.twins],
        tried=a.tried[a.tried["layers"].str.len() > 0].sort_values(
            ["epochs", "gain"], ascending=False
        ),
    )


def figure(drawing: Figure) -> str:
    """A figure as a data URI."""
    return _uri("png", render(drawing, "png", DPI))


def picture(pixels: np.ndarray) -> str:
    """Pixels, uint8 (h, w, 3), as a data URI."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=85)
    return _uri("jpeg", file.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _confusion(a: Answer) -> list[tuple[str, list[tuple[int, float]]]]:
    """A line a class: its name, and count and share by what the network says."""
    table = a.confusion()
    if len(table) > MOST_CLASSES:
        return []
    rows = table / table.sum(axis=1, keepdims=True)
    return [
        (name, list(zip(table[c].tolist(), rows[c].tolist(), strict=True)))
        for c, name in enumerate(a.photos.names)
    ]


def _pairs(a: Answer) -> list[tuple[str, str, int]]:
    """Where there are many classes, those that are mistaken most: class, said, photos."""
    table = a.confusion()
    if len(table) <= MOST_CLASSES:
        return []
    np.fill_diagonal(table, 0)
    order = np.argsort(-table, axis=None)[:MOST_PAIRS]
    places = [np.unravel_index(i, table.shape) for i in order]
    names = a.photos.names
    return [(names[i], names[j], int(table[i, j])) for i, j in places if table[i, j]]


def _mistake(a: Answer, place: int) -> dict[str, str]:
    photo = a.split.test[place]
    probabilities = a.tested.probabilities[place]
    return {
        "picture": picture(a.photos.images[photo]),
        "path": a.photos.paths[photo],
        "is": a.photos.names[a.photos.labels[photo]],
        "said": a.photos.names[probabilities.argmax()],
        "sure": f"{probabilities.max():.0%}",
    }
