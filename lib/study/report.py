"""Table, figure and sentences of docs/choice.md, from what was measured. Starts no Keras."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..audit.intervals import Estimate
from ..methods import colour
from ..report.style import GREY, WIDTH, Drawing, add_legend, new_figure, save, styled
from ..report.tables import BLANK, markdown
from .people import people_table, people_words, read_people
from .protocol import PROTOCOLS, SEARCH, TIMED
from .regret import (
    CEILING,
    RANDOM,
    REFERENCES,
    Measured,
    average,
    better_than_random,
    read_measured,
    recommended,
    regret,
    saved,
    share,
)

FIGURE = "choice"
NOTHING = "Nothing was measured yet.\n"
INKS = ("layer_wise", "block_wise", "top_3")  # methods whose colours the networks take
MARKERS = ("o", "D", "^")


def sections(results: Path) -> dict[str, str]:
    """What stands in each generated section of docs/choice.md, by its name.

    results: folder of the folders of rows.
    """
    cells, people = read_measured(results), read_people(results)
    picture = f"![Regret of each strategy, and its cost](../figures/{FIGURE}.png)\n"
    return {
        "choice": f"{picture}\n{choice_table(cells)}" if cells else NOTHING,
        "choice-words": "".join(f"- {line}\n" for line in words(cells)) if cells else NOTHING,
        "people": people_table(people) + people_words(people) if len(people) else NOTHING,
    }


def save_choice(folder: str | Path, results: Path) -> list[Path]:
    """Write choice.png and .svg where anything was measured; their paths."""
    cells = read_measured(results)
    return save(choice_figure(cells), folder, FIGURE) if cells else []


# -------------------------------------------------------------------------------------- the table


def choice_table(cells: Sequence[Measured]) -> str:
    """Regrets of all strategies and references, cell by cell and in the mean, in points."""
    header = ["", *(f"{c.data}<br>{c.backbone}" for c in cells), "all", "all, trained again"]
    note = (
        "Regret in points of accuracy (hundredths), with half of its 95 % interval; bold: less than"
        " the random block's, beyond the interval of their difference. *Trained again*: scored by"
        " runs of other seeds. *Time*, *CPU*: share of the search's seconds, mean over cells."
        f" {_made(cells)}"
    )
    lines = [_accuracies(cells)]
    lines += [_line(cells, name) for name in (*_names(cells), *REFERENCES, CEILING)]
    return markdown([*header, "time", "CPU"], lines, note)


def _made(cells: Sequence[Measured]) -> str:
    """How many photos and seeds."""
    seeds = sorted({len(c.seeds) for c in cells})
    photos = sorted({c.photos for c in cells})
    sizes = sorted({c.size for c in cells})
    return (
        f"Photos of {_listed(sizes)} px. Seeds: {_listed(seeds)}; evaluation photos:"
        f" {_listed(photos)}; halvings: "
        f"{_listed(sorted({len(c.unseen) for c in cells}))}."
    )


def _listed(values: Sequence[object]) -> str:
    return " and ".join(map(str, values))


def _names(cells: Sequence[Measured]) -> list[str]:
    """The choices that were made in every cell."""
    return [n for n in cells[0].names() if all(n in c.names() for c in cells)]


def _accuracies(cells: Sequence[Measured]) -> list[str]:
    """The first line: how well the search's own pick does on photos that did not choose it."""
    found = [np.mean([_unseen_accuracy(c, seed) for seed in c.seeds]) for c in cells]
    return ["search: accuracy", *(f"{100 * x:.1f}" for x in (*found, np.mean(found))), "", "1", "1"]


def _unseen_accuracy(cell: Measured, seed: int) -> float:
    right = cell.chosen(SEARCH, seed, seed)
    return float((right * cell.unseen).sum() / cell.unseen.sum())


def _line(cells: Sequence[Measured], name: str) -> list[str]:
    texts = [_value(cells, [cell], name) for cell in cells] + [_value(cells, cells, name)]
    again = BLANK
    if name != CEILING and all(len(c.seeds) > 1 for c in cells):
        again = points(average(cells, regret(name, again=True)))
    costs = [BLANK, BLANK]
    if name in TIMED:
        costs = [f"{share(cells, name, clock):.2f}" for clock in (0, 1)]
    return [name, *texts, again, *costs]


def _value(every: Sequence[Measured], cells: Sequence[Measured], name: str) -> str:
    if name == CEILING and any(len(c.seeds) < 2 for c in every):
        return BLANK
    text = points(average(cells, regret(name), every))
    better = name not in (RANDOM, CEILING) and beats_random(every, cells, name)
    return f"**{text}**" if better else text


def beats_random(every: Sequence[Measured], cells: Sequence[Measured], name: str) -> bool:
    """Whether a regret is below the random block's beyond the interval of their difference."""
    return average(cells, saved(name), every).interval().low > 0


def points(found: Estimate) -> str:
    """An estimate in hundredths, with half of its interval; nothing where a run is missing."""
    if np.isnan(found.value):
        return BLANK
    interval = found.interval()
    return f"{100 * found.value:.1f} ± {50 * (interval.high - interval.low):.1f}"


# -------------------------------------------------------------------------------------- the words


def words(cells: Sequence[Measured]) -> Iterator[str]:
    """What follows, sentence by sentence; losses too."""
    wanted = [c.name for c in PROTOCOLS["full"].cells()]
    there = {c.name for c in cells if len(c.seeds) >= len(PROTOCOLS["full"].seeds)}
    lacking = [name for name in wanted if name not in there]
    if lacking:
        yield f"Not whole yet: {', '.join(lacking)}."
    timed = [n for n in TIMED if n in _names(cells)]
    none = [c.name for c in cells if not any(beats_random(cells, [c], n) for n in timed)]
    if none:
        yield f"No cheap strategy beats a random block beyond its interval on {', '.join(none)}."
    good = better_than_random(cells)
    yield (
        f"Over all cells ({len(cells)}), {_named(good)} beat a random block beyond the interval."
        if good
        else f"Over all cells ({len(cells)}) no strategy beats a random block beyond the interval."
    )
    yield from _rule(cells, whole=not lacking)
    alike = [same for c in cells for same in c.alike.values()]
    yield (
        f"Run by itself, a strategy picked the same in {sum(alike)} of {len(alike)} cases; the rest"
        " differ by rounding, which depends on what else is trained in the same model."
    )


def _rule(cells: Sequence[Measured], whole: bool) -> Iterator[str]:
    """What the rule makes the default; whole: whether every cell of the protocol is there."""
    best = recommended(cells)
    if best:
        says = (
            f"The first rule would make `{best}` the default"
            if whole
            else f"So far the first rule would make `{best}` the default"
        )
        yield (
            f"{says}: regret "
            f"{points(average(cells, regret(best)))} points, {share(cells, best):.0%} of the "
            "search's time."
        )


def _named(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


# ------------------------------------------------------------------------------------- the figure


@styled
def choice_figure(cells: Sequence[Measured]) -> Drawing:
    """Regrets by data set and network, and what the strategies cost."""
    data = list(dict.fromkeys(c.data for c in cells))
    networks = list(dict.fromkeys(c.backbone for c in cells))
    text = (
        "Regret: accuracy of the search's pick minus that of the pick, on photos that neither has"
        f" seen, with 95 % intervals. Cost: one mark a data set. {_made(cells)}"
    )
    names = [*_names(cells), *REFERENCES]
    names += [CEILING] * all(len(c.seeds) > 1 for c in cells)
    fig = new_figure("What a cheap choice costs", text, WIDTH, 1.6 + 0.3 * len(names))
    axes = fig.subplots(1, len(data) + 1, sharey=True, squeeze=False)[0]
    for ax, source in zip(axes, data, strict=False):
        _panel(ax, cells, [c for c in cells if c.data == source], names, networks)
        ax.set(title=source, xlabel="regret, points")
        ax.sharex(axes[0])
    _costs(axes[-1], cells, names, networks)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    add_legend(fig, [_handle(i, name) for i, name in enumerate(networks)])
    return fig


def _look(place: int) -> dict:
    return {
        "color": colour(INKS[place % len(INKS)]),
        "marker": MARKERS[place % len(MARKERS)],
        "ms": 4.5,
        "lw": 0,
    }


def _handle(place: int, name: str) -> Line2D:
    return Line2D([], [], label=name, **_look(place))


def _panel(
    ax: Axes,
    every: Sequence[Measured],
    cells: Sequence[Measured],
    names: Sequence[str],
    networks: Sequence[str],
) -> None:
    """The regrets on one data set."""
    ax.axvline(0, color=GREY, lw=0.8)
    for cell in cells:
        place = networks.index(cell.backbone)
        found = [average([cell], regret(name), every) for name in names]
        values = np.array([100 * e.value for e in found])
        half = [50 * (e.interval().high - e.interval().low) for e in found]
        y = np.arange(len(names)) + 0.22 * (place - (len(networks) - 1) / 2)
        ax.errorbar(values, y, xerr=half, elinewidth=0.9, **_look(place))


def _costs(
    ax: Axes, cells: Sequence[Measured], names: Sequence[str], networks: Sequence[str]
) -> None:
    """Each timed strategy's share of the search's seconds, cell by cell."""
    ax.axvline(1, color=GREY, lw=0.8)
    for cell in cells:
        place = networks.index(cell.backbone)
        timed = [(cell.share(n), i) for i, n in enumerate(names) if n in TIMED]
        x, y = np.array(timed, float).reshape(-1, 2).T
        ax.plot(x, y + 0.22 * (place - (len(networks) - 1) / 2), **_look(place))
    ax.set(title="cost", xlabel="share of the search's time", xlim=(0, None))
