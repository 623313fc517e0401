"""Every figure comes out for any subset of rows, shows the right values, and repeats exactly."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from rows import BACKBONES, make_rows, row

from lib.methods import colour
from lib.report import figures
from lib.report.schemes import photo_grid
from lib.report.style import render, save
from lib.results import Results

FIGURES = (
    "fig01_schemes",
    "fig02_parameters",
    "fig03_baselines",
    "fig04_layer_wise",
    "fig05_block_wise",
    "fig06_sliding_window",
    "fig07_search_summary",
    "fig08_final",
    "fig09_block_wise_repeats",
    "fig10_sliding_window_repeats",
)
# The figures of rows, each with a method that it cannot do without.
OF_ROWS = [
    (figures.fig03_baselines, "random"),
    (figures.fig04_layer_wise, "layer_wise"),
    (figures.fig05_block_wise, "block_wise"),
    (figures.fig06_sliding_window, "sliding_window"),
    (figures.fig07_search_summary, "top_3"),
    (figures.fig08_final, "top_5"),
    (figures.fig09_block_wise_repeats, "block_wise"),
    (figures.fig10_sliding_window_repeats, "sliding_window"),
]
FILES = {f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg")} | {
    "table1.csv",
    "table1.md",
    "table1.tex",
    "table1_comparison.csv",
    "table1_comparison.md",
}
COUNTS = [("conv1", 1792), ("conv2", 36928), ("pool1", 0), ("conv3", 2359808), ("pool2", 0)]


@pytest.fixture(scope="module")
def df():
    return make_rows()


@pytest.fixture(scope="module")
def one():
    return make_rows(["VGG16"])


def texts(fig) -> list[str]:
    """All text of a figure."""
    found = fig.findobj(matplotlib.text.Text)
    return [text.get_text().replace("\u00a0", " ") for text in found if text.get_text()]


def bars(ax) -> list:
    return [patch for container in ax.containers for patch in container]


def hatched(ax) -> list:
    return [bar for bar in bars(ax) if bar.get_hatch()]


def test_all_files_come_out_for_five_backbones(df, tmp_path):
    paths = figures.draw_all(Results(df), tmp_path)
    assert {path.name for path in paths} == FILES == {path.name for path in tmp_path.iterdir()}
    assert all(path.stat().st_size > 500 for path in paths)


def test_an_svg_holds_no_date(tmp_path):
    png, svg = save(figures.fig02_parameters(COUNTS), tmp_path, "figure")
    assert (png.name, svg.name) == ("figure.png", "figure.svg")
    assert "dc:date" not in svg.read_text(encoding="utf-8")
    assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("draw", "method"), OF_ROWS, ids=FIGURES[2:])
def test_what_has_no_rows_is_said_to_be_not_run(draw, method, one):
    assert "not run" not in texts(draw(Results(one)))
    assert "not run" in texts(draw(Results(one[one["method"] != method])))
    assert "not run" in texts(draw(Results(one[:0])))


@pytest.mark.parametrize(("draw", "method"), OF_ROWS, ids=FIGURES[2:])
def test_the_caption_gives_profile_data_and_settings(draw, method, one):
    lines = texts(draw(Results(one)))
    assert any("profile quick · train[:" in text and "8 epochs" in text for text in lines)


def test_figures_leave_matplotlib_as_it_was(one):
    before = dict(matplotlib.rcParams)
    figures.fig05_block_wise(Results(one))
    assert dict(matplotlib.rcParams) == before


def test_a_users_own_settings_of_matplotlib_change_no_figure(one):
    plain = render(figures.fig03_baselines(Results(one)), "svg")
    own = {"lines.linewidth": 9, "svg.fonttype": "none", "axes.titleweight": "bold"}
    with matplotlib.rc_context(own):
        assert render(figures.fig03_baselines(Results(one)), "svg") == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_a_figure_shows_itself_in_a_notebook(one):
    assert figures.fig03_baselines(Results(one))._repr_png_().startswith(b"\x89PNG")


# ------------------------------------------------------------------------------ single figures


def test_figure_1_marks_what_each_scheme_trains():
    fig = figures.fig01_schemes()
    trained = [
        sum(to_hex(patch.get_facecolor()) == "#0072b2" for patch in ax.patches) for ax in fig.axes
    ]
    assert trained == [0, 1, 8, 2, 4]  # classifier and none, all seven, one, three layers
    dashed = [sum(patch.get_linestyle() == "--" for patch in ax.patches) for ax in fig.axes]
    assert dashed == [0, 0, 0, 1, 1]


def test_the_photo_grid_shows_at_most_20_classes_and_says_so():
    names = tuple(f"class {i}" for i in range(200))
    images = np.zeros((200, 4, 4, 3), np.uint8)
    fig = photo_grid(images, np.arange(200), names, n=1)
    assert [ax.get_ylabel() for ax in fig.axes] == list(names[:20])
    assert any(text.endswith("; the first 20 of 200 classes") for text in texts(fig))
    few = photo_grid(images[:3], np.arange(3), names[:3], n=1)
    assert len(few.axes) == 3 and not any("the first 3 of" in text for text in texts(few))


def test_a_dollar_in_a_class_is_no_formula():
    names = (r"$\no$", "$5 to $9", "a_b^c", r"\$")
    fig = photo_grid(np.zeros((4, 4, 4, 3), np.uint8), np.arange(4), names, n=1)
    assert render(fig, "svg") != render(photo_grid(np.zeros((4, 4, 4, 3), np.uint8), np.arange(4),
                                                   ("a", *names[1:]), n=1), "svg")  # fmt: skip
    assert all(f"<!-- {name} -->" in render(fig, "svg").decode() for name in names)


def test_figure_2_draws_a_bar_for_each_layer_and_marks_the_valleys():
    (ax,) = figures.fig02_parameters(COUNTS, "profile quick").axes
    assert [bar.get_height() for bar in bars(ax)] == [1792, 36928, 0, 2359808, 0]
    assert list(ax.lines[-1].get_xdata()) == [3, 5]
    assert {"block 1", "block 2", "2.36 M", "36.9 k"} <= set(texts(ax))
    assert "block 3" not in texts(ax)


def test_figure_3_shows_three_bars_a_backbone(df):
    (ax,) = figures.fig03_baselines(Results(df)).axes
    rows = Results(df).search.set_index(["backbone", "method"])["val_accuracy"]
    expected = [
        rows[backbone, method]
        for backbone in BACKBONES
        for method in ("baseline_1", "baseline_2", "random")
    ]
    assert [bar.get_height() for bar in bars(ax)] == expected
    assert [label.get_text() for label in ax.get_xticklabels()] == list(BACKBONES)


@pytest.mark.parametrize(
    ("draw", "method", "counts"),
    [
        (figures.fig04_layer_wise, "layer_wise", [13, 54, 104, 86, 102]),
        (figures.fig06_sliding_window, "sliding_window", [17, 84, 152, 155, 188]),
    ],
)
def test_figures_4_and_6_show_every_run_and_ring_the_best(df, draw, method, counts):
    fig = draw(Results(df))
    assert len({ax.get_ylim() for ax in fig.axes}) > 1  # V3Small's low accuracies flatten no other
    for ax, backbone, count in zip(fig.axes, BACKBONES, counts, strict=True):
        points, ring = ax.lines[1], ax.lines[2]
        assert list(points.get_xdata()) == list(range(1, count + 1))
        best = Results(df).winner(method, backbone)
        assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (
            best["position"],
            best["val_accuracy"],
        )
        assert points.get_ydata().max() == best["val_accuracy"]
        levels = [line.get_ydata()[0] for line in ax.lines[3:]]
        rows = Results(df).search.set_index(["method", "backbone"])["val_accuracy"]
        assert levels == [rows["baseline_1", backbone], rows["baseline_2", backbone]]


@pytest.mark.parametrize("select_on", ["val_accuracy", "best_val_accuracy"])
def test_in_figure_5_the_best_block_is_white_with_vertical_hatching(df, select_on):
    df = df.assign(best_val_accuracy=1 - df["val_accuracy"])  # makes another block the best
    results = Results(df, select_on)
    fig = figures.fig05_block_wise(results)
    for ax, backbone, count in zip(fig.axes, BACKBONES, (5, 27, 35, 48, 51), strict=True):
        assert len(bars(ax)) == count
        (bar,) = hatched(ax)
        best = results.winner("block_wise", backbone)
        assert round(bar.get_x() + bar.get_width() / 2) == int(best["block"][-2:])
        tops = [b.get_y() + b.get_height() for b in bars(ax)]
        rows = results.search.set_index(["backbone", "method"])[select_on]
        np.testing.assert_allclose(max(tops), best[select_on], rtol=1e-12)
        np.testing.assert_allclose(sorted(tops), sorted(rows[backbone, "block_wise"]), rtol=1e-12)
        assert {b.get_y() for b in bars(ax)} == {rows[backbone, "baseline_1"]}
        assert set(bar.get_hatch()) == {"|"} and to_hex(bar.get_facecolor()) == "#ffffff"
        assert to_hex(bar.get_edgecolor()) == colour("block_wise").lower()


def test_figure_5_says_when_other_blocks_are_as_good(one):
    blocks = one["method"].eq("block_wise") & one["split"].eq("train[:10%]")
    one = one.assign(val_accuracy=one["val_accuracy"].mask(blocks, 0.75))
    (ax,) = figures.fig05_block_wise(Results(one)).axes
    assert ax.get_title(loc="right").endswith("0.750, first of 5 equal")
    assert len(hatched(ax)) == 1


def test_figure_7_shows_the_best_of_each_approach(df):
    (ax,) = figures.fig07_search_summary(Results(df)).axes
    assert len(bars(ax)) == 40
    heights = {round(bar.get_height(), 9) for bar in bars(ax)}
    for backbone in BACKBONES:
        for method in ("layer_wise", "block_wise", "sliding_window", "top_3"):
            assert round(Results(df).winner(method, backbone)["val_accuracy"], 9) in heights


def test_figure_8_shows_means_and_runs_and_hatches_the_best(df):
    (ax,) = figures.fig08_final(Results(df)).axes
    means = Results(df).summary()
    assert len(bars(ax)) == 40
    np.testing.assert_allclose(
        sorted(bar.get_height() for bar in bars(ax)), sorted(means["mean"]), rtol=1e-12
    )
    highest = means.groupby("backbone")["mean"].max()
    np.testing.assert_allclose(
        [bar.get_height() for bar in hatched(ax)], highest[list(BACKBONES)], rtol=1e-12
    )
    dots = np.concatenate([line.get_ydata() for line in ax.lines])
    assert sorted(dots) == sorted(Results(df).final["val_accuracy"])


@pytest.mark.parametrize(
    ("draw", "method"),
    [
        (figures.fig09_block_wise_repeats, "block_wise"),
        (figures.fig10_sliding_window_repeats, "sliding_window"),
    ],
)
def test_figures_9_and_10_show_four_repeats_and_their_mean(df, draw, method):
    (ax,) = draw(Results(df)).axes
    rows = Results(df).final
    for group, backbone in enumerate(BACKBONES):
        mine = rows[(rows["method"] == method) & (rows["backbone"] == backbone)]
        line, dots = ax.lines[2 * group : 2 * group + 2]
        assert line.get_ydata()[0] == pytest.approx(mine["val_accuracy"].mean(), rel=1e-12)
        assert list(dots.get_ydata()) == mine["val_accuracy"].tolist() and len(mine) == 4


def test_other_splits_are_drawn_where_asked(one):
    other = one.replace({"split": {"train[:10%]": "train[:20%]"}})
    assert "not run" in texts(figures.fig05_block_wise(Results(other)))
    fig = figures.fig05_block_wise(Results(other, search_split="train[:20%]"))
    assert "trained on 20 % of the data" in " ".join(texts(fig))
    assert len(bars(fig.axes[0])) == 5


# ----------------------------------------------------------------------------------- the style


def test_a_ranked_block_of_another_size_is_shown(one):
    four = row(method="top_4", block="top_4", key="top4", val_accuracy=0.9)
    more = pd.concat([one, pd.DataFrame([four])], ignore_index=True)
    (ax,) = figures.fig07_search_summary(Results(more)).axes
    assert len(bars(ax)) == 9 and "Top 4" in texts(ax.figure)


def test_rendering_twice_gives_the_same_bytes(one):
    fig = figures.fig08_final(Results(one))
    assert render(fig, "svg") == render(fig, "svg")
    assert render(fig, "png") == render(fig, "png")
