"""The tables in the README and in docs/ are what the committed rows give."""

import csv
import re
import shutil
import tomllib
from collections import Counter

import pandas as pd
import pytest
import yaml
from committed import PROJECT, RESULTS
from rows import row

from lib.audit import doubts
from lib.audit.claims import findings, verdicts
from lib.audit.figures import against_paper
from lib.audit.scores import noises
from lib.ledger import append_row, read_results, unpack_curve
from lib.methods import TABLE1
from lib.params import BACKBONE_NAMES, ROOT, Params
from lib.results import Results
from lib.study import regret
from lib.study.people import GUIDE, PHOTOS, THIRD, hits_by_photo, read_people
from lib.tune.settings import Settings
from lib.upkeep import pages
from lib.upkeep.speed import read_bench

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


SECTION = "<!-- rows:begin -->\ntable\n<!-- rows:end -->\n"


@pytest.mark.parametrize(
    ("text", "times"),
    [("cut short <!-- rows:begin -->\n| ta", 0), ("no marks\n", 0), (SECTION * 2, 2)],
)
def test_a_section_that_is_lost_or_twice_there_is_found(tmp_path, text, times):
    for page in pages.PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        (tmp_path / page).write_text("")
    (tmp_path / "README.md").write_text(SECTION)
    assert list(pages.outdated(tmp_path, {"rows": "table\n"})) == []
    (tmp_path / "README.md").write_text(text)
    (problem,) = pages.outdated(tmp_path, {"rows": "table\n"})
    assert f"the section rows stands {times} times in README.md, " in problem


def test_networks_that_a_user_adds_leave_the_pages_as_they_are(tmp_path):
    added = row(backbone="EfficientNetB0", split=Params.final_split)
    for name in (pages.PAPER_SIZE[0], *pages.PAPER_SIZE_NATIVE, pages.OTHER_BACKEND):
        append_row(tmp_path / "results" / name / "block_wise-EfficientNetB0.csv", added)
    assert pages.paper_sizes(tmp_path) == ([], [])
    ledger = "results/paper_small/baseline_1-MobileNet.csv"
    shutil.copy(PROJECT / ledger, tmp_path / ledger)
    own = pages.paper_size(tmp_path)
    assert own[0].backbones == ["MobileNet"] and pages._twice(own, tmp_path) == {}
    assert "| MobileNet | paper |" in pages.comparison(own, own[0].backbones)
    assert len(against_paper(pages.together(own)).axes) == 1
    bench, mine = read_bench(PROJECT / "results" / "bench.csv"), own[0]
    more = mine.with_rows(pd.concat([mine.rows, pd.DataFrame([added])]))
    assert pages.sections(more, more, bench, own, []) == pages.sections(mine, mine, bench, own, [])


def test_the_readme_is_short_and_its_links_lead_somewhere():
    text = TEXTS["README.md"]
    assert len(text.splitlines()) <= 150
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), (page.name, link)


def test_other_rows_give_another_table():
    folders = RESULTS, RESULTS.with_name("cpu_native")
    results = [Results(read_results(folder)) for folder in folders]
    results = [*map(pages.together, pages.paper_sizes(PROJECT)), *results]
    assert pages.comparison(results) in TEXTS["README.md"]
    for which, source in enumerate(results):
        better = source.rows.assign(val_accuracy=source.rows["val_accuracy"] + 0.01)
        other = [*results[:which], source.with_rows(better), *results[which + 1 :]]
        if len(source.final):
            assert pages.comparison(other) not in TEXTS["README.md"]


@pytest.fixture(scope="module")
def own_size():
    """The rows at the paper's own size and with its inputs."""
    return pages.together(pages.paper_size(PROJECT))


@pytest.fixture(scope="module")
def own_native():
    """The rows at the paper's own size with native inputs."""
    return pages.together(pages.paper_size(PROJECT, pages.PAPER_SIZE_NATIVE))


def sentences(page):
    return " ".join((PROJECT / page).read_text(encoding="utf-8").split())


def test_accuracies_in_sentences_are_those_of_the_rows(own_size):
    of = own_size.final[own_size.final["backbone"] == "MobileNetV3Small"].sort_values("repeat")
    runs = {method: rows["val_accuracy"] for method, rows in of.groupby("method")}
    everything, block = runs["baseline_2"], runs["block_wise"]
    *better, worst = (f"{run:.3f}" for run in everything)
    text = sentences("README.md")
    assert f"{', '.join(better)} and {worst}, mean {everything.mean():.3f}" in text
    assert f"at {block.min():.3f} to {block.max():.3f}, mean {block.mean():.3f}" in text
    page = sentences("docs/paper-size.md")
    assert f"at {better[0]}, {better[1]} and {better[2]}, one at {worst}" in page
    assert f"the mean, {everything.mean():.3f}," in page
    assert f"block reaches {block.mean():.3f} ± {block.std():.3f}" in page
    for method, words in (
        ("layer_wise", "32 numbers, reaches {}"),
        ("top_3", "best three layers reach {}"),
        ("top_5", "the best five {}."),
        ("baseline_1", "{} is the share of one class"),
    ):
        assert words.format(f"{runs[method].mean():.3f}") in page, method


def test_runs_of_the_other_backend_in_sentences_are_those_of_its_rows(own_size):
    other = read_results(PROJECT / "results" / pages.OTHER_BACKEND)
    page = sentences("docs/paper-size.md")
    runs = other[other["method"] == "baseline_2"].sort_values("repeat")["val_accuracy"]
    assert f"at {' and '.join(f'{run:.3f}' for run in runs)}." in page
    mine = own_size.final[own_size.final["backbone"] == "MobileNetV3Small"]
    both = pd.concat([mine, other])
    block = both[both["method"] == "block_wise"]["val_accuracy"]
    assert len(block) == 8
    assert f"block end at {block.min():.3f} to {block.max():.3f}" in page
    assert block.nsmallest(2).map("{:.3f}".format).tolist() == ["0.776", "0.777"]
    assert "0.777 and 0.776, the lowest of eight" in page


def test_gains_in_sentences_are_those_of_the_rows(own_size, own_native):
    gains = doubts.final_gains(own_size).set_index(["backbone", "method"])
    found = {name: gains.loc[(name, "block_wise")] for name in own_size.backbones}
    text = {n: _gain(g) for n, g in found.items()}
    readme, page = sentences("README.md"), sentences("docs/paper-size.md")
    assert f"{text['MobileNetV2']} on MobileNetV2" in readme
    assert f"{text['MobileNet']} on MobileNet (" in readme
    assert f"{found['MobileNetV3Small']['gain']:.3f} to the classifier alone on" in readme
    norm = gains.loc[("MobileNetV3Small", "layer_wise")]["gain"]
    assert f"(one BatchNorm adds {norm:.3f})" in readme
    proposed = {f.text: f.interval for f in findings(own_size)["proposed_beat_all"]}
    for other in ("Baseline II", "Layer-wise"):
        gap = proposed[f"MobileNetV3Small: Block-wise − {other}"]
        assert f"{gap.value:.3f} [{gap.low:+.3f}, {gap.high:+.3f}] above" in page
    gains = doubts.final_gains(own_native).set_index("method")
    assert f"the best five {_gain(gains.loc['top_5'])}" in page
    assert f"The best block adds {_gain(gains.loc['block_wise'])}" in page
    assert f"everything {_gain(gains.loc['baseline_2'])}" in page
    alone = own_native.final[own_native.final["method"] == "baseline_1"]["val_accuracy"]
    assert f"classifier alone has {alone.mean():.3f}" in page


def _gain(row):
    return f"{row['gain']:.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"


def test_what_the_readme_says_of_epochs_and_of_the_best_five_layers_is_what_the_rows_say(own_size):
    final = own_size.final[own_size.final["method"].isin(TABLE1)]
    means = final.pivot_table(
        index="backbone", columns="method", values=["val_accuracy", "best_val_accuracy"]
    )
    last, best = means["val_accuracy"], means["best_val_accuracy"]
    assert (last.idxmax(axis=1) == "top_5").all() and len(last) == 3
    of = final[final["backbone"] == "MobileNetV3Small"]
    right = (of["val_accuracy"] * of["eval_images"]).round().groupby(of["method"]).sum()
    photos = of.groupby("method")["eval_images"].sum()["top_5"]
    first, second, *_ = right.sort_values(ascending=False)
    assert (first - second, photos) == (1, 4404)
    words = (
        "have the highest mean of all methods on each, on MobileNetV3Small by one photo of 4,404"
    )
    assert words in sentences("README.md")
    ahead = (best["baseline_2"] - best["block_wise"]).loc[list(BACKBONE_NAMES[1:4])]
    assert (ahead > 0).all()
    one, two, three = (f"{gain:.3f}" for gain in ahead)
    assert f"everything is ahead: by {one}, {two} and {three}." in sentences("README.md")


def test_what_the_readme_says_of_native_inputs_is_what_the_rows_say(own_native):
    means = own_native.final.groupby("method")["val_accuracy"].mean()
    names = {"top_5": "best five layers {}", "layer_wise": "best layer {}",
             "baseline_2": "everything {}", "block_wise": "best block {}",
             "baseline_1": "classifier alone {}"}  # fmt: skip
    words = ", ".join(text.format(f"{means[name]:.3f}") for name, text in names.items())
    text = sentences("README.md")
    assert f"after 10 epochs: {words}. The layer is above the block beyond chance." in text
    assert own_native.backbones == ["MobileNetV3Small"] and set(own_native.final["epochs"]) == {10}
    (gap,) = (f for f in findings(own_native)["proposed_beat_all"]
              if f.text == "MobileNetV3Small: Block-wise − Layer-wise")  # fmt: skip
    assert gap.interval.high < 0
    assert dict(verdicts(own_native)["status"].value_counts())["does not hold"] == 2


def test_the_readme_counts_the_verdicts_of_both_sizes(own_size):
    found = Counter(verdicts(own_size)["status"])
    assert found == {"undecided": 11, "holds": 1, "not tested": 1}
    text = sentences("README.md")
    assert "one of 13 holds, one could not be tested, the others are undecided" in text
    assert "With native ones, on one network, two do not hold." in text
    for folder in (RESULTS, RESULTS.with_name("cpu_native")):
        assert Counter(verdicts(Results(read_results(folder)))["status"])["does not hold"] == 6
    assert "[At 64 pixels](docs/results.md#the-claims) six do not, some" in text


def test_the_readme_says_how_many_winners_of_searches_are_above_the_classifier_alone(
    own_size, own_native
):
    won = pd.concat([doubts.optimism(source) for source in (own_size, own_native)])
    above = won["low"] > 0
    text = sentences("README.md")
    assert f"{above.sum()} of {len(won)} winners, both inputs together, are above" in text
    blind = doubts.optimism(own_size).query("backbone == 'MobileNetV3Small' and low > 0")
    assert len(blind) == 3 and "three of them where its inputs are blank" in text


def test_ties_and_layers_of_windows_in_sentences_are_those_of_the_rows():
    folders = ("cpu", "cpu_native", "paper_small", "paper_short", "paper_native")
    rows = pd.concat([read_results(PROJECT / "results" / name) for name in folders])
    final = rows["split"] == Params.final_split
    windows = rows[final & (rows["method"] == "sliding_window") & (rows["repeat"] == 0)]
    two = windows["layers"].str.count(";") == 1
    assert len(windows) == 10 and (two.sum(), (~two).sum()) == (9, 1)
    page = sentences("docs/deviations.md")
    assert "of the ten winners nine tune two, one tunes one" in page
    cut = 0
    for _, layers in rows[
        ~final & (rows["method"] == "layer_wise") & (rows["repeat"] == 0)
    ].groupby(["profile", "backbone"]):
        best = layers["val_accuracy"].sort_values(ascending=False).to_numpy()
        cut += sum(best[k - 1] == best[k] for k in (3, 5))
    assert cut == 4 and "decided one layer of four committed sets" in page


def test_scatter_and_the_worst_layer_in_sentences_are_those_of_the_rows():
    found = []
    for folder in (RESULTS, RESULTS.with_name("cpu_native")):
        final = read_results(folder).query("split == @Params.final_split")
        for _, runs in final.groupby("backbone"):
            table = runs.pivot_table(index="method", columns="repeat", values="val_accuracy")
            rest = table - table.mean()  # of what a repeat adds to all
            found.append(rest.sub(rest.mean(axis=1), axis=0).pow(2).mean(axis=1))
    scatter = pd.concat(found, axis=1).mean(axis=1)
    ratio = {name: f"{value:.1f}" for name, value in (scatter / scatter.mean()).items()}
    text = sentences("docs/verdicts.md")
    assert f"layers' final runs is {ratio['random']} times the methods' mean" in text
    assert f"Baseline II's {ratio['baseline_2']} times, Block-wise's {ratio['block_wise']}" in text
    pair = [Results(read_results(f)) for f in (RESULTS, RESULTS.with_name("cpu_native"))]
    gains = doubts.setting_gains(*pair).set_index(["backbone", "method"])
    wide = (gains["high"] - gains["low"]).unstack()
    apart = wide.index[wide["baseline_2"] > 2 * wide["block_wise"]]
    assert f"it finds Baseline II of {' and '.join(apart)} at 64 px" in text
    rows = read_results(RESULTS, ["MobileNet"])
    layers = rows[(rows["method"] == "layer_wise") & (rows["split"] == Params.search_split)]
    means = layers.groupby("block")["val_accuracy"].mean().sort_values()
    assert list(means.index).index("conv_dw_7_bn") == 2 and len(means) == 54
    assert "which in `cpu` is the third worst of its 54 layers" in sentences("docs/deviations.md")


def test_what_is_said_of_strategies_follows_from_the_rows_of_the_study():
    cells = regret.read_measured(PROJECT / "results")
    text = sentences("docs/photos.md")
    assert Counter(c.data for c in cells) == {"flowers": 3, "digits": 3, "textures": 3}

    def lost(name, *some):
        return regret.average(some or cells, regret.regret(name), cells)

    points, halving, ceiling = (
        f"{100 * lost(name).value:.1f}" for name in ("shortlist", "halving", regret.CEILING)
    )
    assert f"`shortlist`, the default, loses {points} points" in text
    assert f"`halving` loses {halving}." in text and lost("halving").interval().low > 0
    assert f"a search with another seed loses {ceiling}." in text
    assert 0.17 < regret.share(cells, "shortlist") < 0.22 and "for a fifth of its time" in text
    of = {c.name: c for c in cells}
    flowers = [c for c in cells if c.data == "flowers"]
    assert lost("shortlist", *flowers).interval().low < 0
    digits = [f"{100 * lost('shortlist', of[f'digits/{n}']).value:.0f}"
              for n in ("MobileNetV3Small", "MobileNetV2")]  # fmt: skip
    assert f"{' and '.join(digits)} on drawn digits with MobileNetV3Small and Mob" in text
    alone = lost(regret.ALONE).interval()
    for name in ("gradient", "graft"):
        assert lost(name).interval().high > alone.value > lost(name).interval().low
    assert "`gradient` and `graft` are not shown to do better than the classifier alone" in text
    assert regret.recommended(cells) == "search"
    assert "The first rule would make `search` the default" in sentences("docs/choice.md")


def test_falls_of_the_learning_rate_in_sentences_are_those_of_the_curves(own_size):
    rows = own_size.rows.drop_duplicates("key")
    falls = [_falls(row) for row in rows.itertuples()]
    rows = rows.assign(falls=falls, final=rows["split"] == Params.final_split)
    found = {
        key: ((some["falls"] > 0).sum(), len(some), (some["falls"] >= 4).sum())
        for key, some in rows.groupby(["backbone", "final"])
    }
    search, final = found["MobileNet", False], found["MobileNet", True]
    text = sentences("docs/paper-size.md")
    assert f"in {search[0]} of {search[1]} search runs and {final[0]} of {final[1]} final" in text
    fallen, count, often = found["MobileNetV3Small", False]
    assert (
        f"in {fallen} of {count} search runs of MobileNetV3Small, in {often} of them four" in text
    )


def _falls(row):
    """How often Keras' rule lowers the rate before the last epoch."""
    _, patience, delta = (float(text) for text in row.plateau.split(", "))
    best, wait, falls, curve = -1.0, 0, 0, unpack_curve(row.curve)
    for right in curve[:-1]:
        accuracy = right / row.eval_images
        wait = 0 if accuracy > best + delta else wait + 1
        best = accuracy if not wait else best
        if wait == patience:
            wait, falls = 0, falls + 1
    return falls


def test_a_run_of_two_methods_costs_once():
    rows = pd.DataFrame([row(seconds=1800.0), row(method="top_3", seconds=1800.0)])
    rows = pd.concat([rows, pd.DataFrame([row(seconds=3600.0, key="another key")])])
    assert pages.costs({"cpu": rows}) == "The committed rows of `cpu`: VGG16 2 runs in 1.5 h.\n"


def test_runs_of_two_backends_stand_side_by_side():
    def runs(versions, backend, method, *accuracies):
        return [
            row(method=method, split=Params.final_split, repeat=r, val_accuracy=accuracy,
                key=f"{backend} {method} {r}", backend=backend, versions=versions)
            for r, accuracy in enumerate(accuracies)
        ]  # fmt: skip

    gpu, cpu = ("python 3.12.3; keras 3; jax 0.1; GPU X", "jax"), ("python 3.12.3", "tensorflow")
    mine = runs(*gpu, "block_wise", 0.5, 0.7) + runs(*gpu, "top_3", 0.6)
    other = runs(*cpu, "block_wise", 0.8) + runs(*cpu, "baseline_2", 0.9)
    table = pages.backends(*(Results(pd.DataFrame(rows)) for rows in (mine, other)))
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()]
    assert lines[0] == ["final runs", "JAX on GPU X", "TensorFlow on CPU"]
    assert lines[2:] == [
        ["VGG16: Baseline II", "–", "0.900 (0.900)"],
        ["VGG16: Block-wise", "0.600 (0.500, 0.700)", "0.800 (0.800)"],
    ]
    searched = [row(backend="jax", versions="python; keras; jax; GPU X")]
    for rows, words in (
        (searched, "; a search by JAX"),
        (mine, "; final runs by JAX"),
        (searched + mine, "; a search and final runs by JAX"),
    ):
        assert words in pages.sizes([Results(pd.DataFrame(rows))])


def test_the_citation_has_what_its_format_requires():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    found = yaml.safe_load(text)
    assert {"cff-version", "title", "message", "authors"} <= set(found)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert found["version"] == project["version"] and found["license"] == project["license"]
    (paper,) = found["preferred-citation"]["identifiers"]
    assert paper["value"] in TEXTS["README.md"]


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


def test_the_scatter_that_searches_borrow_is_that_of_the_rows():
    found = []
    for folder, name in (("cpu", "MobileNet"), ("cpu_native", "MobileNetV3Small")):
        of = noises(Results(read_results(RESULTS.with_name(folder))))
        found.append([of[stage, name, "block_wise"].sd for stage in ("final", "search")])
    (a, b), (c, d) = found
    text = sentences("docs/verdicts.md")
    assert f"more than the search in one case ({a:.3f} against {b:.3f})" in text and a > b
    assert f"less in another ({c:.3f} against {d:.3f})" in text and c < d
    searched = pages.together(pages.paper_size(PROJECT)).searched
    assert set(searched["repeat"]) == {0} and "No search at 224 px was repeated" in text


def test_what_is_said_of_equal_minutes_is_what_the_rows_say():
    rows = read_people(PROJECT / "results")
    means = rows.assign(accuracy=[hits_by_photo(rows.iloc[[i]]).mean() for i in range(len(rows))])
    means = means.pivot_table(index="data", columns="way", values="accuracy")
    photos, recipes = means[list(PHOTOS)], means[[GUIDE, THIRD]]
    assert (photos.idxmin(axis=1) == "make photos, search").all()
    searches = rows[rows["way"] == "make photos, search"]
    assert set(searches["image_size"]) == {64, 96}
    assert recipes.loc["flowers"].min() > photos.loc["flowers"].max() + 0.02
    apart = photos.loc["digits"].drop("make photos, search").min() - recipes.loc["digits"].max()
    assert apart > 0.1
    cheap = rows[rows["way"].isin(PHOTOS) & (rows["way"] != "make photos, search")]
    alone = cheap["tuned"] == "the classifier alone"
    assert (alone == (cheap["data"] == "flowers")).all()
    page = sentences("docs/choice.md")
    assert "**In ten minutes a search is worst.** It has time for photos of 64 or 96 pixels" in page
    assert "With `shortlist` and `halving`, nothing that was tuned beat" in page
    assert "both strategies are far ahead of the recipes" in page
    assert Settings.__dataclass_fields__["learning_rate"].default == pytest.approx(30e-5)
