"""The tables in the README and in docs/ are what the committed rows give."""

import csv
import re

import pandas as pd
import pytest
from committed import PROJECT, RESULTS
from rows import row

from lib.audit import doubts
from lib.audit.claims import findings
from lib.ledger import read_results
from lib.params import ROOT
from lib.results import Results
from lib.upkeep import pages

TEXTS = {page: (PROJECT / page).read_text(encoding="utf-8") for page in pages.PAGES}


@pytest.fixture(scope="module")
def made():
    return pages.contents(PROJECT)


def test_each_table_stands_in_one_page(made):
    for name in made:
        there = [t for t in TEXTS.values() if pages.replaced(t, name, "something else\n") != t]
        assert len(there) == 1, name


def test_a_table_that_was_altered_is_found_and_mended(tmp_path, made):
    for page, text in TEXTS.items():
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text(text, encoding="utf-8")
    assert list(pages.outdated(tmp_path, made)) == []
    page = tmp_path / "docs" / "speed.md"
    page.write_text(TEXTS["docs/speed.md"].replace("ratio", "ration"), encoding="utf-8")
    (problem,) = pages.outdated(tmp_path, made)
    assert problem.startswith(f"{page}: its tables are not what the rows give")
    pages.refresh(tmp_path, made)
    assert list(pages.outdated(tmp_path, made)) == []


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = TEXTS["README.md"]
    assert len(text.splitlines()) <= 150
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), (page.name, link)


def test_other_rows_give_another_table():
    folders = RESULTS, RESULTS.with_name("cpu_native")
    results = [Results(read_results(folder)) for folder in folders]
    results = [pages.together(pages.paper_size(PROJECT)), *results]
    assert pages.comparison(results) in TEXTS["README.md"]
    for which, source in enumerate(results):
        better = source.rows.assign(val_accuracy=source.rows["val_accuracy"] + 0.01)
        other = [*results[:which], source.with_rows(better), *results[which + 1 :]]
        if len(source.final):
            assert pages.comparison(other) not in TEXTS["README.md"]


@pytest.fixture(scope="module")
def own_size():
    """The rows at the paper's own size."""
    return pages.together(pages.paper_size(PROJECT))


def sentences(page):
    return " ".join(TEXTS[page].split())


def test_accuracies_in_sentences_are_those_of_the_rows(own_size):
    of = own_size.final[own_size.final["backbone"] == "MobileNetV3Small"]
    mean, runs = (of.groupby("method")["val_accuracy"].agg(how) for how in ("mean", "size"))
    block, alone, layer = (mean[m] for m in ("block_wise", "baseline_1", "layer_wise"))
    everything = f"{mean['baseline_2']:.3f} ({runs['baseline_2']} repeats)"
    assert f"{everything} and {block:.3f}; the classifier alone has {alone:.3f}" in (
        sentences("README.md")
    )
    assert f"with one BatchNorm {layer:.3f}" in sentences("README.md")
    page = sentences("docs/paper-size.md")
    assert f"reaches {layer:.3f} ({runs['layer_wise']} repeats)" in page
    assert f"reaches {everything}" in page


def test_gains_in_sentences_are_those_of_the_rows(own_size):
    gains = doubts.final_gains(own_size).set_index(["backbone", "method"])
    found = {name: gains.loc[(name, "block_wise")] for name in own_size.backbones}
    text = {n: f"{g['gain']:.3f} [{g['low']:+.3f}, {g['high']:+.3f}]" for n, g in found.items()}
    assert f"{text['MobileNetV2']} on MobileNetV2" in sentences("README.md")
    assert f"{text['MobileNet']} on MobileNet," in sentences("README.md")
    alone = f"{found['MobileNetV3Small']['gain']:.3f} to the classifier alone on MobileNetV3Small"
    assert alone in sentences("README.md")
    proposed = {f.text: f.interval for f in findings(own_size)["proposed_beat_all"]}
    for other, word, sign in (("Baseline II", "above the best block", -1), ("Layer-wise", "", 1)):
        gap = proposed[f"MobileNetV3Small: Block-wise − {other}"]
        low, high = sorted((sign * gap.low, sign * gap.high))
        shown = f"{sign * gap.value:.3f} [{low:+.3f}, {high:+.3f}] {word}"
        assert shown in sentences("docs/paper-size.md")


def test_the_readme_says_how_many_winners_of_searches_are_above_the_classifier_alone(own_size):
    folders = RESULTS, RESULTS.with_name("cpu_native")
    sources = [own_size, *(Results(read_results(folder)) for folder in folders)]
    won = pd.concat([doubts.optimism(source) for source in sources])
    assert f"{(won['low'] > 0).sum()} of {len(won)} winners" in sentences("README.md")


def test_a_run_of_two_methods_costs_once():
    rows = pd.DataFrame([row(seconds=1800.0), row(method="top_3", seconds=1800.0)])
    rows = pd.concat([rows, pd.DataFrame([row(seconds=3600.0, key="another key")])])
    assert pages.costs({"cpu": rows}) == "The committed rows of `cpu`: VGG16 2 runs in 1.5 h.\n"


def test_every_claim_names_a_command_and_a_file_that_are_there():
    with (ROOT / "docs" / "claims.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert len(rows) > 5
    for claim in rows:
        make, target, *_ = claim["command"].split()
        assert make == "make" and target in targets, claim
        assert (ROOT / claim["file"]).is_file(), claim
        assert claim["tolerance"] and float(claim["minutes"] or 1) > 0, claim
