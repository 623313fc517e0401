"""Table I from rows: numbers equal those computed by hand, in all three formats."""

import math

import pandas as pd
import pytest
from rows import COLUMNS, make_rows, row

from lib.report.captions import caption
from lib.report.tables import save_comparison, save_table1, table1
from lib.results import Results, backbones_of

# Final accuracies: two backbones, three methods, two repeats; top_3 lacks a backbone.
FINALS = {
    ("VGG16", "baseline_1"): [0.50, 0.60],
    ("VGG16", "block_wise"): [0.80, 0.90],
    ("VGG16", "top_3"): [0.90, 0.90],
    ("MobileNet", "baseline_1"): [0.75, 0.75],
    ("MobileNet", "block_wise"): [0.65, 0.65],
}


def finals(cells) -> pd.DataFrame:
    rows = [
        row(key=f"{backbone}{method}{i}", backbone=backbone, method=method, split="train[:70%]",
            train_images=700, repeat=i, val_accuracy=value)
        for (backbone, method), values in cells.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_cells_and_statistics_against_hand_computed_numbers():
    table = table1(Results(finals(FINALS)))
    assert list(table.index) == ["VGG16", "MobileNet", "Variance", "Mean", "Variance over repeats"]
    cell = table.loc["VGG16", "block_wise"]
    assert cell["mean"] == pytest.approx(0.85)
    assert cell["sd"] == pytest.approx(math.sqrt(0.005))  # ((0.05)^2 + (0.05)^2) / (2 - 1)
    assert cell["n"] == 2
    means = table.xs("mean", axis=1, level=1)
    assert means.at["Mean", "block_wise"] == pytest.approx(0.75)  # (0.85 + 0.65) / 2
    assert means.at["Variance", "block_wise"] == pytest.approx(0.02)  # 0.1^2 + 0.1^2
    assert means.at["Variance over repeats", "block_wise"] == pytest.approx(0.0025)
    assert means.at["Mean", "baseline_1"] == pytest.approx(0.65)


def test_a_method_that_lacks_a_backbone_has_no_mean_over_backbones():
    means = table1(Results(finals(FINALS))).xs("mean", axis=1, level=1)
    assert math.isnan(means.at["Mean", "top_3"]) and math.isnan(means.at["Variance", "top_3"])
    assert math.isnan(means.at["MobileNet", "top_3"])
    assert math.isnan(means.at["VGG16", "top_5"])


def test_one_backbone_and_one_repeat_have_no_spread():
    table = table1(Results(finals({("VGG16", "baseline_1"): [0.5]})))["baseline_1"]
    assert table.at["Mean", "mean"] == 0.5
    assert math.isnan(table.at["Variance", "mean"])
    assert math.isnan(table.at["VGG16", "sd"])
    assert math.isnan(table.at["Variance over repeats", "mean"])


def test_random_layers_and_the_search_have_no_part_in_table_1():
    df = make_rows(["VGG16"], repeats=2)
    rest = df[(df["method"] != "random") & (df["split"] == "train[:70%]")]
    pd.testing.assert_frame_equal(table1(Results(df)), table1(Results(rest)))


def test_the_files_show_the_same_numbers(tmp_path):
    paths = save_table1(Results(finals(FINALS)), tmp_path)
    assert [path.name for path in paths] == ["table1.csv", "table1.md", "table1.tex"]
    csv, md, tex = (path.read_text(encoding="utf-8") for path in paths)
    assert "VGG16,0.550000,0.070711,2,," in csv
    not_run = " | ".join(["not run"] * 2)
    assert f"| VGG16 | 0.5500 ± 0.0707 | {not_run} | 0.8500 ± 0.0707 | **0.9000 ± 0.0000** |" in md
    assert "| Mean | 0.6500 | – | – | **0.7500** | – | – | – |" in md
    assert "| Variance | **0.020000** | – | – | **0.020000** | – | – | – |" in md
    assert r"VGG16 & 0.5500 $\pm$ 0.0707 & not run & not run & 0.8500 $\pm$ 0.0707 &" in tex
    assert r"Mean & 0.6500 & -- & -- & \textbf{0.7500} & -- & -- & -- \\" in tex
    assert r"train[:70\%]" in tex
    assert all("train[:70%]: 700 training / 300 evaluation" in text for text in (md,))


def test_every_line_of_a_table_has_as_many_cells(tmp_path):
    md, tex = (
        path.read_text(encoding="utf-8") for path in save_table1(Results(make_rows()), tmp_path)[1:]
    )
    assert {line.count("|") for line in md.splitlines() if line.startswith("|")} == {9}
    assert {line.count("&") for line in tex.splitlines() if line.endswith(r"\\")} == {7}


def test_the_comparison_sets_paper_ours_and_difference_below_each_other(tmp_path):
    csv, md = save_comparison(Results(finals(FINALS)), tmp_path)
    lines = md.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| VGG16 | paper"))
    assert lines[first].startswith("| VGG16 | paper | 0.7139 |")
    assert lines[first + 1].startswith("|  | ours | 0.5500 ± 0.0707 (2) | not run |")
    assert lines[first + 2].startswith("|  | difference | −0.1639 | – |")  # 0.55 - 0.713896
    assert "Paper: tf_flowers · 224 px" in lines[0] and "Ours: profile quick" in lines[0]
    table = pd.read_csv(csv)
    assert len(table) == 49 and (table["ours"] == "not run").sum() == 44


def test_files_repeat_byte_by_byte(tmp_path):
    df = make_rows(["VGG16", "ResNet50V2"], repeats=2)
    for folder in ("a", "b"):
        shuffled = df.sample(frac=1, random_state=len(folder))
        save_table1(Results(shuffled), tmp_path / folder)
        save_comparison(Results(df), tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_no_rows_give_empty_tables(tmp_path):
    empty = Results(make_rows(["VGG16"])[:0])
    assert list(table1(empty).index) == ["Variance", "Mean", "Variance over repeats"]
    assert "no runs" in save_table1(empty, tmp_path)[1].read_text(encoding="utf-8")


def test_backbones_come_in_the_papers_order_and_others_after():
    df = pd.DataFrame({"backbone": ["Other", "ResNet50V2", "VGG16", "Other"]})
    assert backbones_of(df) == ["VGG16", "ResNet50V2", "Other"]


def test_the_caption_says_what_was_run():
    df = make_rows(["VGG16"])
    search = df[(df["split"] == "train[:10%]")]
    assert caption(search) == (
        "profile quick · train[:10%]: 100 training / 300 evaluation images · 32 px"
        " · [0, 1] inputs · 8 epochs · 1 run per point"
    )
    final = df[df["split"] == "train[:70%]"]
    assert caption(final, "bar").endswith("8 epochs · 4 runs per bar")
    assert caption(df[:0]) == "no runs"


def test_the_caption_does_not_hide_mixed_settings():
    rows = [
        row(epochs=1, train_images=367, eval_images=1101),
        row(block="block_02", profile="cpu", alpha="0.25", train_images=2569, eval_images=1101),
        row(block="block_02", repeat=1, profile="cpu", alpha="0.25", eval_images=1101),
    ]
    assert caption(pd.DataFrame(rows)) == (
        "profile quick / cpu · train[:10%]: 100–2,569 training / 1,101 evaluation images · 32 px"
        " · [0, 1] inputs · 1 or 8 epochs · 1 or 2 runs per point · VGG16 alpha 0.25"
    )
