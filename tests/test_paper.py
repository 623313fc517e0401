"""Table I as published is sound where it is, wrong where it is, and compared rightly."""

import re

import numpy as np
import pandas as pd
import pytest
from rows import COLUMNS, make_rows, row

from lib.audit.claims import CLAIMS
from lib.methods import PAPER
from lib.params import ROOT, InputError
from lib.report import paper
from lib.results import Results


def test_the_printed_table_has_five_backbones_and_seven_methods():
    table = paper.accuracies()
    assert table.shape == (5, 7)
    assert list(table.index) == [
        "VGG16",
        "MobileNet",
        "MobileNetV2",
        "MobileNetV3Small",
        "ResNet50V2",
    ]
    assert table.at["MobileNetV3Small", "baseline_1"] == 0.30881


def test_every_accuracy_is_a_count_of_1101_images():
    counts = paper.correct_images()
    assert counts.loc["VGG16"].tolist() == [786, 962, 952, 964, 957, 971, 966]
    assert counts.loc["MobileNet"].tolist() == [912, 964, 933, 966, 964, 973, 968]
    assert counts.loc["MobileNetV2"].tolist() == [893, 957, 907, 955, 918, 957, 924]
    assert counts.loc["MobileNetV3Small"].tolist() == [340, 839, 483, 870, 569, 714, 735]
    assert counts.loc["ResNet50V2"].tolist() == [857, 912, 944, 934, 957, 956, 935]
    assert ((counts / 1101 - paper.accuracies()).abs() < 5e-6).all(axis=None)


def test_one_entry_is_misprinted_and_no_statistic_is():
    wrong = paper.misprints()
    assert wrong[["backbone", "method"]].values.tolist() == [["MobileNet", "block_wise"]]
    assert wrong["printed"][0] == 0.877389
    assert wrong["expected"][0] == 966 / 1101  # 0.877384


def test_the_variance_row_is_the_sample_variance_over_architectures():
    table, printed = paper.accuracies(), paper.published()
    sample = paper.statistics(table)
    np.testing.assert_allclose(sample.loc["Variance"], printed.loc["Variance"], atol=0.6e-6)
    population = table.var(ddof=0)
    assert ((population - printed.loc["Variance"]).abs() > 2e-4).all()


def test_the_mean_row_follows_from_the_counts():
    exact = paper.statistics(paper.correct_images() / 1101)
    np.testing.assert_allclose(exact, paper.published().loc[["Variance", "Mean"]], atol=0.5e-6)


def test_statistics_against_hand_computed_numbers():
    table = pd.DataFrame({"full": [0.5, 0.7, 0.6], "part": [0.5, np.nan, 0.6]})
    result = paper.statistics(table)
    np.testing.assert_allclose(result["full"], [0.01, 0.6], rtol=1e-12)
    assert result["part"].isna().all()
    alone = paper.statistics(table[:1])["full"]
    assert np.isnan(alone["Variance"]) and alone["Mean"] == 0.5


def test_a_damaged_table_is_refused(tmp_path):
    text = paper.FILE.read_text()
    for damaged in (text.replace("top_3", "top_4"), text.replace("0.30881", "n/r")):
        (tmp_path / "table.csv").write_text(damaged)
        with pytest.raises(InputError, match="table.csv: must have the columns baseline_1,"):
            paper.published(tmp_path / "table.csv")


def cell(table, backbone, method):
    return table[(table["backbone"] == backbone) & (table["method"] == method)].iloc[0]


def finals(**accuracies):
    return [
        row(key=str(i), method=method, split="train[:70%]", repeat=i, val_accuracy=value)
        for method, values in accuracies.items()
        for i, value in enumerate(values)
    ]


def test_compare_sets_ours_beside_the_printed_values():
    rows = finals(block_wise=[0.8, 0.9], baseline_1=[0.75])
    table = paper.compare(Results(pd.DataFrame(rows, columns=list(COLUMNS))))
    assert len(table) == 7 * 7
    ours = cell(table, "VGG16", "block_wise")
    assert ours["ours"] == "0.8500 ± 0.0707 (2)"
    assert ours["difference"] == pytest.approx(0.85 - 0.875568)
    assert cell(table, "VGG16", "baseline_1")["ours"] == "0.7500 (1)"
    missing = cell(table, "MobileNet", "block_wise")
    assert missing["ours"] == "not run" and missing["n"] == 0
    assert np.isnan(missing["difference"]) and missing["paper"] == 0.877389


def test_compare_gives_statistics_only_where_all_five_backbones_ran():
    part = paper.compare(Results(make_rows(["VGG16", "MobileNet"])))
    assert (part[part["backbone"] == "Mean"]["ours"] == "not run").all()
    full = paper.compare(Results(make_rows()))
    means = full[(full["method"] == "top_3") & ~full["backbone"].isin(paper.STATISTICS)]["mean"]
    assert cell(full, "Mean", "top_3")["mean"] == pytest.approx(means.mean())
    assert cell(full, "Variance", "top_3")["mean"] == pytest.approx(means.var(ddof=1))
    assert cell(full, "Mean", "top_3")["ours"] == f"{means.mean():.4f}"


def test_compare_of_no_rows_is_all_not_run():
    table = paper.compare(Results(make_rows(["VGG16"])[:0]))
    assert (table["ours"] == "not run").all() and len(table) == 49


def test_claims_are_distinct_and_name_only_known_methods():
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS) == 13
    for claim in CLAIMS:
        used = set(re.findall(r"\b(?:\w+_\w+|random)\b", claim.statement))
        assert used <= set(PAPER), claim.name
        assert claim.text and claim.where


def test_two_claims_against_the_papers_own_table():
    counts = paper.correct_images()
    below = counts.index[counts["block_wise"] < counts["baseline_2"]]
    assert list(below) == ["MobileNetV2"]  # "always either score higher or equal": 955 < 957
    rest = paper.statistics(paper.accuracies().drop(index="MobileNetV3Small"))
    assert rest.loc["Mean"].idxmax() == "top_5"  # without one backbone, block-wise leads in
    assert rest.loc["Variance"].idxmin() == "top_5"  # neither row of Table I


def test_the_table_names_the_projects_backbones():
    from lib.backbones.records import BACKBONE_NAMES

    assert tuple(paper.accuracies().index) == BACKBONE_NAMES
    assert ROOT in paper.FILE.parents
