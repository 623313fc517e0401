"""What `make bench` and `make scaling` measured: tables and words for docs/, and figures."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from ..methods import colour
from ..params import ROOT
from ..report.style import GREY, WIDTH, Drawing, new_figure, save, styled
from ..report.tables import markdown

FILE = ROOT / "results" / "bench.csv"
PEAKS = ROOT / "results" / "memory.csv"
REAL = r"\w+/layer_wise 224 px"  # cases of networks that are no thin twins
PLAIN, FUSED = colour("baseline_2"), colour("block_wise")


def read_bench(path: str | Path = FILE) -> pd.DataFrame:
    """The rows of `make bench`, see `lib.upkeep.bench.Result`."""
    return pd.read_csv(path)


def scaling_file(what: str, root: Path = ROOT) -> Path:
    """Where `make scaling` keeps the cost of groups, of workers, or what it simulated.

    what: groups, workers or simulated.
    """
    return root / "results" / f"scaling_{what}.csv"


def speed_table(df: pd.DataFrame) -> str:
    """All cases as a Markdown table."""
    header = [
        "case", "size", "runs", "plain, s a run", "fused, s a run", "ratio", "ratio an epoch",
        "largest difference", "accuracies that differ", "memory, GiB", "of the bound", "commit",
    ]  # fmt: skip
    lines = [
        [
            row["case"],
            f"{row['image_size']} px",
            f"{row['runs']}",
            f"{row['plain_seconds']:.1f}",
            f"{row['fused_seconds']:.2f}",
            f"{row['speedup']:.1f}",
            f"{row['epoch_speedup']:.1f}",
            f"{row['max_difference']:.2g}",
            f"{row['differ']} of {row['plain_runs']}",
            f"{row['peak_gib']:.1f}",
            f"{row['bound']:.0%}",
            f"{row['git_sha']}",
        ]
        for _, row in df.iterrows()
    ]
    return markdown(header, lines, _note(df), left=1)


def _note(df: pd.DataFrame) -> str:
    large = df["case"].str.fullmatch(REAL)
    real, thin = df[large], df[~large]
    plain, fused = ((thin[s] * thin["runs"]).sum() for s in ("plain_seconds", "fused_seconds"))
    machines = " and ".join(dict.fromkeys(df["machine"] + ", " + df["versions"]))
    parts = [f"Measured on {machines}."]
    if len(thin):
        parts.insert(
            0, f"The {len(thin)} cases of thin networks together: {plain / fused:.1f} times."
        )
    if len(real):
        parts.insert(0, _of_real_size(real))
    return " ".join(parts)


def _of_real_size(df: pd.DataFrame) -> str:
    """How many times faster networks are that are no thin twins."""
    texts = [
        f"{_network(row)} {row['speedup']:.1f} and {row['epoch_speedup']:.1f}"
        for _, row in df.iterrows()
    ]
    return (
        f"Times faster at 224 px in whole runs of {_listed(df['epochs'].drop_duplicates())} epochs,"
        f" and an epoch, which long runs tend to: {', '.join(texts)}."
    )


def _network(row: pd.Series) -> str:
    """The network of a case, with its alpha where that is not 1."""
    alpha = "" if row["alpha"] == 1 else f" of alpha {row['alpha']:g}"
    return f"{row['case'].split('/')[0]}{alpha}"


def speed_words(df: pd.DataFrame) -> str:
    """Where the advantage grows and where it ends, in words; only of cases that were measured."""
    by_runs, by_size = (
        df[df["case"].str.fullmatch(rf"\w+/\d+ {unit}")].sort_values(column)
        for unit, column in (("runs", "runs"), ("px", "image_size"))
    )
    final = df[df["case"].str.endswith("/final")]["speedup"]
    sentences = []
    if len(by_runs):
        sentences.append(
            f"With {_listed(by_runs['runs'])} runs it is {_listed(by_runs['speedup'], '.1f')} times"
            " faster, because the graph is traced once; one run alone has nothing to share."
        )
    if len(by_size):
        sentences.append(
            f"At {_listed(by_size['image_size'])} px it is {_listed(by_size['speedup'], '.1f')}"
            " times, because the arithmetic, which both must do, takes over."
        )
    if len(final):
        sentences.append(
            "Final runs are few and have little in common:"
            f" {final.min():.1f} to {final.max():.1f} times."
        )
    return " ".join(sentences) + "\n"


def _listed(values: pd.Series, form: str = "") -> str:
    """'1, 4 and 16'"""
    texts = [format(value, form) for value in values]
    return " and ".join(part for part in (", ".join(texts[:-1]), texts[-1]) if part)


@styled
def bench_figure(df: pd.DataFrame) -> Drawing:
    """How many times faster each case is; time against the number of runs and the image size."""
    scaling = df["case"].str.fullmatch(r"\w+/\d+ (runs|px)")
    cases = df[~scaling].iloc[::-1]
    fig = new_figure("The plain loop against the engine, on the same runs", _note(df), WIDTH, 6.2)
    left, right = fig.subfigures(1, 2, width_ratios=[1.25, 1])
    bars = left.subplots()
    bars.barh(cases["case"], cases["speedup"], color=FUSED, label="whole runs")
    bars.plot(
        cases["epoch_speedup"], cases["case"], "|", ms=9, mew=2, color=PLAIN, label="an epoch"
    )
    bars.axvline(1, color=GREY, lw=1, label="as fast as plain")
    bars.set_xlabel("times faster")
    bars.legend(frameon=False, loc="upper right")
    bars.grid(False, axis="y")
    above, below = right.subplots(2, 1)
    runs = df[scaling & df["case"].str.endswith("runs")].sort_values("runs")
    sizes = df[scaling & df["case"].str.endswith("px")].sort_values("image_size")
    _both_ways(above, runs["runs"], runs, runs["runs"], "runs trained (thin MobileNetV2, 32 px)")
    _both_ways(
        below, sizes["image_size"], sizes, 1, "image size, pixels (thin MobileNetV2, 16 runs)"
    )
    above.set_ylabel("seconds in all")
    below.set_ylabel("seconds a run")
    return fig


def _both_ways(ax: Axes, x: pd.Series, df: pd.DataFrame, times: pd.Series | int, name: str) -> None:
    ax.set_xlabel(name)
    if df.empty:
        ax.text(0.5, 0.5, "not run", ha="center", color=GREY, transform=ax.transAxes)
        return
    ax.plot(x, df["plain_seconds"] * times, "o-", color=PLAIN, label="plain")
    ax.plot(x, df["fused_seconds"] * times, "o-", color=FUSED, label="fused")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks(list(x), [str(value) for value in x])
    ax.minorticks_off()
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.legend(frameon=False)


def save_bench(folder: str | Path, df: pd.DataFrame) -> list[Path]:
    """Write figures/bench.png and .svg; their paths."""
    return save(bench_figure(df), folder, "bench")


def save_scaling(folder: str | Path, root: Path = ROOT) -> list[Path]:
    """Write scaling.png and .svg from a project's rows; their paths, none where it has no rows."""
    path = scaling_file("simulated", root)
    return save(scaling_figure(pd.read_csv(path)), folder, "scaling") if path.exists() else []


def scaling_words(measured: pd.DataFrame, simulated: pd.DataFrame) -> str:
    """How far workers carry: measured for two, simulated for more."""
    one, two = (measured.set_index("workers").loc[n] for n in (1, 2))
    first = (
        f"Measured: {one['runs']} runs of {_listed(one['backbones'].split())}, {one['epochs']} "
        f"epochs with {one['images']} drawn photos of {one['image_size']} px, take "
        f"{one['seconds']:.0f} s with one worker and {two['seconds']:.0f} s with two, of one "
        "thread each, from the command to the last row: "
        f"{one['seconds'] / two['seconds']:.2f} times faster, an efficiency of "
        f"{one['seconds'] / two['seconds'] / 2:.0%} ({one['cpu_seconds']:.0f} and "
        f"{two['cpu_seconds']:.0f} CPU seconds). On {two['machine']}.\n\n"
        "Simulated from measured costs of groups, the whole paper at its own size, search and "
        "final runs of five networks, by workers of one thread:\n\n"
    )
    lines = [
        [f"{count:,}", f"{rows['groups'].sum():,}", f"{rows['hours'].sum():,.1f}",
         f"{rows['shared_hours'].sum():,.1f}", f"{rows['longest_hours'].sum():,.1f}",
         f"{1 - rows['shared_hours'].sum() / rows['hours'].sum():.0%}"]
        for count, rows in simulated.groupby("workers")
    ]  # fmt: skip
    header = [
        "workers",
        "groups",
        "hours",
        "hours, shared out perfectly",
        "longest groups, hours",
        "idle",
    ]
    return first + markdown(header, lines)


@styled
def scaling_figure(simulated: pd.DataFrame) -> Drawing:
    """Hours against workers: simulated, shared out perfectly, and the longest groups."""
    total = simulated.groupby("workers")[["hours", "shared_hours", "longest_hours"]].sum()
    caption = (
        "Simulated from groups measured at 224 px by one thread: search, ranked and final runs of "
        "the paper's five networks, 50 epochs."
    )
    fig = new_figure("The whole paper by 1 to 1,000 workers", caption, 6, 3.6)
    ax = fig.subplots()
    ax.plot(total["hours"], "o-", color=FUSED, label="simulated")
    ax.plot(total["shared_hours"], "--", color=GREY, label="shared out perfectly")
    ax.plot(total["longest_hours"], ":", color=PLAIN, label="the longest groups")
    ax.set(xscale="log", yscale="log", xlabel="workers of one thread", ylabel="hours")
    ax.set_xticks(list(total.index), [f"{n:,}" for n in total.index])
    ax.minorticks_off()
    ax.legend(frameon=False)
    return fig
