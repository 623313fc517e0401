"""lib.study: what is kept while the search trains, strategies played on halves, and regrets.

Runs are of drawn photos and the thin VGG16; regrets are checked on made-up rows with known truth.
"""

import io
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest
from committed import PROJECT
from rows import row

from lib.backbones.build import load_backbone
from lib.ledger import append_row, ledger_path, pack_hits, read_results, unpack_curve, unpack_hits
from lib.params import ROOT, InputError
from lib.study import regret
from lib.study.__main__ import main
from lib.study.cost import cost
from lib.study.data import load_photos
from lib.study.people import COLUMNS as PEOPLE
from lib.study.people import PHOTOS, WAYS, best_strategy, people_table, people_words, read_people
from lib.study.picks import COLUMNS, pack_picks, picks_path, read_picks, unpack_picks
from lib.study.protocol import CHOICES, PROTOCOLS, SEARCH, TIMED, halvings
from lib.study.record import Record, Told
from lib.study.regret import (
    ALONE,
    CEILING,
    LAST,
    MOST,
    RANDOM,
    Measured,
    average,
    read_measured,
    recommended,
    saved,
)
from lib.study.replay import Asking, Replayed, choose
from lib.study.report import NOTHING, choice_figure, choice_table, sections, words
from lib.study.run import Part, Places, run_cells, settings_of
from lib.tune.candidates import candidates
from lib.tune.lanes import pooled
from lib.tune.run import network
from lib.tune.settings import Settings
from lib.upkeep.verify import rows_lacking, rows_wrong

SMOKE = PROTOCOLS["smoke"]
SMALL = replace(SMOKE, seeds=(0,), choices=(SEARCH, "halving"),
                values=SMOKE.values | {"candidates": ("blocks",)})  # fmt: skip
(CELL,) = SMOKE.cells()


# --------------------------------------------------------------------------------- the protocol


def test_halves_are_halves_and_the_first_quarter_is_in_each():
    shown = halvings(320)
    assert shown.shape == (200, 320) and (shown.sum(axis=1) == 160).all()
    assert shown[:, :80].all() and len({h.tobytes() for h in shown}) == 200
    scored = (~shown[:, 80:]).mean(axis=0)  # each of the others scores in two thirds of them
    assert scored.min() > 0.5 and scored.max() < 0.8
    assert (halvings(320) == shown).all()


def test_the_real_photos_come_first_and_every_choice_is_a_strategys():
    cells = list(PROTOCOLS["full"].cells())
    assert len(cells) == 9 and [c.source for c in cells[:3]] == ["flowers"] * 3
    assert all(len(p.seeds) >= 1 and p.choices[0] == SEARCH for p in PROTOCOLS.values())
    assert len(PROTOCOLS["full"].seeds) >= 3
    assert set(PROTOCOLS["smoke"].choices) < set(PROTOCOLS["full"].choices) == set(CHOICES)
    dataset = load_photos("digits", 20, 32, None)
    assert dataset.images.shape == (20, 32, 32, 3) and len(dataset.names) == 10


# ------------------------------------------------------------------------------------- the runs


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    base = tmp_path_factory.mktemp("study")
    return Places(base / "results", base / "work", "none", None)


@pytest.fixture(scope="module")
def ran(places):
    """One seed, trained."""
    run_cells(SMALL, [CELL], places, lambda line: None)
    return read_results(places.rows(CELL))


def test_what_is_kept_on_the_way_is_what_the_rows_say(ran, places):
    part = Part(SMALL, CELL, 0, places, None, None)
    told = Record(part.work / "told", (1, 2)).told()
    assert set(told.keys) == set(ran["key"]) and told.right.shape[1:] == (2, 40)
    for run in ran.to_dict("records"):
        right, losses = (x[told.places[run["key"]]] for x in (told.right, told.losses))
        assert right.sum(axis=1).tolist() == unpack_curve(run["curve"]).tolist()
        assert (right[1] == unpack_hits(run["hits"], 40)).all()
        assert losses[1].mean() == pytest.approx(run["val_loss"], rel=1e-5)


def test_strategies_run_by_themselves_pick_what_is_played_from_the_record(ran, places):
    picks = read_picks(places.rows(CELL), "VGG16").set_index("choice")
    assert list(picks.index) == list(SMALL.choices)
    assert picks["alike"].tolist() == ["", "true"]
    assert (picks[["seconds", "cpu_seconds"]] > 0).all(axis=None)
    methods = set(ran["method"])
    assert {"baseline_1", "baseline_2", "block_wise"} == methods
    assert list(rows_wrong(ran)) == []


def test_a_second_start_trains_nothing_and_a_lost_record_is_refused(ran, places, monkeypatch):
    def trained(*_):
        raise AssertionError("trained again")

    monkeypatch.setattr("lib.tune.lanes.go_on", trained)
    path, said = picks_path(places.rows(CELL), "VGG16"), []
    before = path.read_text()
    path.unlink()
    run_cells(SMALL, [CELL], places, said.append)
    again, first = pd.read_csv(path), pd.read_csv(io.StringIO(before))
    same = ["choice", "seconds", "keys", "picks"]
    pd.testing.assert_frame_equal(again[same], first[same])
    assert said[-1] == "drawn/VGG16: done"
    path.unlink()
    with pytest.raises(InputError, match="lacks .* runs whose rows are in"):
        run_cells(SMALL, [CELL], replace(places, work=places.work / "other"), said.append)
    path.write_text(before)


def test_rows_of_other_settings_are_refused_before_anything_is_trained(ran, places):
    for values, name in (({"epochs": 3}, "epochs"), ({"learning_rate": 1.0e-3}, "learning_rate")):
        other = replace(SMALL, values=SMALL.values | values)
        with pytest.raises(InputError, match=f"results: .*{name}"):
            run_cells(other, [CELL], places, print)


def test_regrets_of_runs_are_those_worked_out_by_hand(ran, places):
    (found,) = read_measured(places.results)
    right = {r.key: unpack_hits(r.hits, 40) for r in ran.itertuples()}
    picks = read_picks(places.rows(CELL), "VGG16").set_index("choice")
    each = {n: unpack_picks(*picks.loc[n, ["keys", "picks"]]) for n in ("search", "halving")}
    rest = [
        right[a][~shown].mean() - right[b][~shown].mean()
        for a, b, shown in zip(each["search"], each["halving"], halvings(40), strict=True)
    ]
    assert average([found], regret.regret("halving")).value == pytest.approx(np.mean(rest))
    assert len(found.blocks) == 5 and found.last == "block5_conv1;block5_conv2;block5_conv3"
    page = "".join(words([found])) + choice_table([found])
    assert "drawn<br>VGG16" in page and "nan" not in page and "Not whole yet" in page
    assert len(choice_figure([found]).axes) == 2


# ---------------------------------------------------------------------------------- the replays


@pytest.fixture(scope="module")
def part(places):
    backbone = pooled(network(settings_of(SMOKE, CELL, 0, places), CELL.size))
    return Part(SMOKE, CELL, 0, places, backbone, load_photos(CELL.source, 70, CELL.size, None))


def replayed(part, kind=Replayed, name="halving", late=None, early=None, **more):
    """A search in which the photos that candidates get right after one and two epochs are given."""
    s = part.settings
    found = candidates(part.backbone, s.candidates, s.window)
    places = {c.layers: i for i, c in enumerate(found)}
    right = np.zeros((len(found), 2, 40), bool)
    for epoch, given in enumerate((early or late, late or {})):
        for layers, photos in given.items():
            right[places[layers], epoch, photos] = True
    told = Told(tuple(map(str, places.values())), (1, 2), right, 1 - right.astype("float32"))
    settings = replace(s, strategy=CHOICES[name].strategy, gradient=CHOICES[name].gradient)
    return kind(part.study, settings, part.work, told=told, places=places, **more)


def test_halving_sees_the_half_that_is_shown_and_the_first_epochs(part):
    good, slow = ("block3_conv1",), ("block2_conv2",)
    first, second = slice(0, 20), slice(20, 40)
    search = replayed(part, late={good: first, slow: second}, early={good: first, slow: second})
    for shown, best in ((first, good), (second, slow)):
        search.shown = np.zeros(40, bool)
        search.shown[shown] = True
        assert choose(search, "halving").layers == best
    quick = {(f"block{b}_conv1",): first for b in (1, 2, 4, 5)} | {("block1_conv2",): first}
    search = replayed(part, late={slow: first}, early=quick)  # it is late, and leaves too early
    search.shown = np.arange(40) < 20
    assert choose(search, "halving").layers != slow == replayed_best(search)


def replayed_best(search):
    return search.scored(search.everything, 2)[0].layers


def test_ranked_layers_are_asked_for_and_the_search_ranks_on_its_own_photos(part):
    names = [f"block{b}_conv{c}" for b, n in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
             for c in range(1, n + 1)]  # fmt: skip
    sums = {"layer": names, "weights": 1.0, "w2": 1.0, "both": 1.0, "t2": 1.0, "s2": 1.0}
    table = pd.DataFrame(sums | {"g2": np.arange(13.0)})
    asking = replayed(part, Asking, "shortlist", gradients=table, late={}, shown=np.ones(40, bool))
    choose(asking, "shortlist")
    assert tuple(names[-3:]) in asking.wanted and tuple(names[-5:]) in asking.wanted
    assert () in asking.wanted and len(asking.wanted) < 10
    late = {(name,): slice(0, 10) for name in names[:5]} | {(names[7],): slice(10, 40)}
    ranking = replayed(part, late=late, shown=np.arange(40) < 10)
    assert ranking.together[1].layers == tuple(names[:5])


# ------------------------------------------------------------------------------------ the regrets

BLOCKS = [("layer_wise", "a", "a", 10), ("layer_wise", "b", "b", 30), ("layer_wise", "c", "c", 20),
          ("block_wise", "block_01", "a;b", 40), ("block_wise", "block_02", "c", 20)]  # fmt: skip
BASE = [("baseline_1", "baseline_1", "", 1), ("baseline_2", "baseline_2", "a;b;c", 60)]


def write_cell(results, right, picks, data="made", photos=40):
    """Rows and picks as the study writes them.

    right: photos that each run gets right, by seed and layers, others none.
    picks: layers that each choice picks, one a halving or one for all, by seed and choice.
    """
    folder, lines = results / f"choice_{data}", []
    seeds = sorted({seed for seed, _ in picks})
    for seed in seeds:
        for method, block, layers, weights in (*BASE, *BLOCKS):
            hits = np.zeros(photos, bool)
            hits[right.get((seed, layers), slice(0))] = True
            names = {"key": f"{seed}{layers}", "method": method, "block": block, "layers": layers}
            values = row(**names, seed=seed, n_trainable=weights, eval_images=photos,
                         hits=pack_hits(hits))  # fmt: skip
            append_row(ledger_path(folder, method, "VGG16"), values)
    for (seed, name), layers in picks.items():
        each = [layers] * 200 if isinstance(layers, str) else layers
        packed = pack_picks([f"{seed}{names}" for names in each])
        lines.append({"data": data, "backbone": "VGG16", "seed": seed, "choice": name, "alike": "",
                      "seconds": 10.0 if name == SEARCH else 2.0, "cpu_seconds": 4.0,
                      **packed})  # fmt: skip
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    table.to_csv(picks_path(folder, "VGG16"), index=False)


def test_known_regrets_are_recovered(tmp_path):
    every, none = slice(0, 40), slice(0)
    right = {(0, "a"): every, (0, "b"): slice(0, 25), (0, "c"): none, (0, "a;b"): every}
    write_cell(tmp_path, right, {(0, SEARCH): "a", (0, "halving"): "b", (0, "graft"): "c"})
    (cell,) = read_measured(tmp_path)
    weight = (~halvings(40)).sum(axis=0)  # how often each photo scores
    lost = weight[25:].sum() / weight.sum()

    def value(name):
        return average([cell], regret.regret(name)).value

    assert value("halving") == pytest.approx(lost) and 0.4 < lost < 0.6
    assert value("graft") == pytest.approx(1.0) and value(ALONE) == pytest.approx(1.0)
    assert value(RANDOM) == pytest.approx((0 + lost + 1 + 0) / 4)
    assert value(LAST) == pytest.approx(1.0) and value(MOST) == pytest.approx(0.0)
    assert average([cell], saved("halving")).value == pytest.approx((1 - 3 * lost) / 4)
    assert cell.share("halving") == pytest.approx(0.2) and cell.share("halving", 1) == 1


def test_a_pick_scores_in_the_halvings_that_it_was_made_in(tmp_path):
    shown = halvings(40)
    knows = ["a" if half[39] else "b" for half in shown]  # right where the last photo is shown
    right = {(0, "a"): slice(0, 39), (0, "b"): slice(0, 40), (0, "c"): slice(0, 40)}
    write_cell(tmp_path, right, {(0, SEARCH): "c", (0, "halving"): knows})
    (cell,) = read_measured(tmp_path)
    assert average([cell], regret.regret("halving")).value == 0


def test_the_ceiling_is_another_seeds_pick_in_this_seeds_runs(tmp_path):
    good, fair = slice(0, 40), slice(0, 20)
    right = {(0, "a"): good, (1, "a"): fair, (0, "b"): fair, (1, "b"): good}
    write_cell(tmp_path, right, {(0, SEARCH): "a", (1, SEARCH): "b", (0, "halving"): "b",
                                 (1, "halving"): "b"})  # fmt: skip
    (cell,) = read_measured(tmp_path)
    weight = (~halvings(40)).sum(axis=0)
    lost = weight[20:].sum() / weight.sum()
    assert average([cell], regret.regret(CEILING)).value == pytest.approx(lost)
    assert average([cell], regret.regret("halving")).value == pytest.approx(lost / 2)
    # In other seeds' runs: a is fair in seed 1's and b is in seed 0's; where both chose b, nothing.
    again = average([cell], regret.regret("halving", again=True)).value
    assert again == pytest.approx((-lost + 0) / 2)


def measured(rng, level, name, data, easy, own):
    """A search among blocks of known ability, three seeds, and a strategy that takes block 7."""
    count, photos, right, picks = len(level), len(easy), {}, {}
    for seed in range(3):
        ability = level + rng.normal(0, 0.5, count)  # chance in a run
        table = (ability[:, None] + easy + own + rng.normal(0, 0.7, own.shape) > 0).astype(float)
        right |= {(seed, str(i)): hits for i, hits in enumerate(table)}
        best = (table @ halvings(photos, 60).T).argmax(axis=0)
        picks[seed, SEARCH] = best.astype(str)
        picks[seed, "gradient"] = np.full(60, "7")
    blocks = tuple(map(str, range(count)))
    return Measured(data, name, photos, right, picks, blocks, "0", "0", "0", {}, {}, 64)


def test_intervals_hold_the_regret_about_as_often_as_they_say():
    rng, found = np.random.default_rng(0), []
    level = rng.normal(0.6, 0.25, 20)
    for _ in range(100):
        easy, own = rng.normal(0, 1, 120), rng.normal(0, 0.5, (20, 120))
        cells = [measured(rng, level, f"n{i}", "made", easy, own) for i in range(3)]
        found.append(average(cells[:1], saved("gradient"), cells))
    truth = np.mean([e.value for e in found])
    held = np.mean([e.interval().low <= truth <= e.interval().high for e in found])
    assert 0.87 < held <= 1
    wide = np.mean([e.interval().high - e.interval().low for e in found]) / 2
    assert wide < 3.5 * np.std([e.value for e in found])


@pytest.mark.parametrize("kind", ["same pick", "same runs", "both"])
def test_intervals_of_shared_runs_hold_too(kind):
    """Where seeds are crossed, several picks are scored by one run."""
    rng, found, seeds = np.random.default_rng(1), [], 3
    cells = [Measured("made", f"n{i}", 200, {}, {}, (), "", "", "", {}, {}, 64) for i in range(3)]
    sd = {"same pick": (0, 1), "same runs": (1, 0), "both": (1, 1)}[kind]
    for _ in range(400):
        tables = {}
        for cell in cells:
            picks, runs = (
                rng.normal(0, 0.1 * s, (seeds, 1)) + rng.normal(0, s, (seeds, 200)) for s in sd
            )
            table = picks[:, None] + runs + rng.normal(0, 0.5, 200)
            tables[cell.name] = table * ~np.eye(seeds, dtype=bool)[..., None]
        found.append(average(cells[:1], lambda cell, tables=tables: tables[cell.name], cells))
    held = np.mean([e.interval().low <= 0 <= e.interval().high for e in found])
    assert 0.92 < held < 0.98


def test_what_one_strategy_took_is_a_share_of_the_mean_search(tmp_path):
    picks = {(s, SEARCH): "a" for s in (0, 1)} | {(0, "halving"): "a"}
    write_cell(tmp_path, {}, picks)
    path = picks_path(tmp_path / "choice_made", "VGG16")
    table = pd.read_csv(path)
    table.loc[table["seed"] == 0, "seconds"] *= 2  # the first search of a process
    table.to_csv(path, index=False)
    (cell,) = read_measured(tmp_path)
    assert cell.share("halving") == pytest.approx(4 / 15)


def test_the_search_is_the_default_where_it_alone_beats_a_random_block(tmp_path):
    right = {(s, "a"): slice(0, 40) for s in (0, 1)} | {(s, "b"): slice(0, 9) for s in (0, 1)}
    picks = {(s, n): "a" if n == SEARCH else "c" for s in (0, 1) for n in (SEARCH, "graft")}
    write_cell(tmp_path, right, picks)
    cells = read_measured(tmp_path)
    assert regret.better_than_random(cells) == [SEARCH] and recommended(cells) == SEARCH
    assert "`search` beat a random block" in " ".join(words(cells))


def test_the_default_is_the_cheapest_of_the_good_ones(tmp_path):
    every = slice(0, 40)
    right = {(s, n): every for s in (0, 1) for n in ("a", "a;b")}
    right |= {(s, "b"): slice(0, 12) for s in (0, 1)}
    bad = {(s, n): "a" for s in (0, 1) for n in (SEARCH, "halving")}
    write_cell(tmp_path / "one", right, bad | {(0, "graft"): "c", (1, "graft"): "c"})
    cells = read_measured(tmp_path / "one")
    assert regret.better_than_random(cells) == [SEARCH, "halving"]
    assert recommended(cells) == "halving"
    lines = " ".join(words(cells))
    assert "`search`, `halving` beat a random block" in lines
    assert "would make `halving` the default" in lines  # one cell is not all of them
    poor = {(s, n): "a" if n == SEARCH else "c" for s, n in bad}
    write_cell(tmp_path / "two", right, poor)
    cells = read_measured(tmp_path / "two")
    none = "No cheap strategy beats a random block beyond its interval on made/VGG16."
    assert none in words(cells)
    assert regret.better_than_random(cells) == [SEARCH] and recommended(cells) == SEARCH
    write_cell(tmp_path / "three", right, dict.fromkeys(bad, "c"))
    cells = read_measured(tmp_path / "three")
    assert none in words(cells)
    assert regret.better_than_random(cells) == [] and recommended(cells) == "halving"
    assert recommended([]) is None


def test_picks_of_runs_without_rows_are_refused(tmp_path):
    write_cell(tmp_path, {}, {(0, SEARCH): "a"})
    path = picks_path(tmp_path / "choice_made", "VGG16")
    path.write_text(path.read_text().replace("0a", "lost"))
    with pytest.raises(InputError, match="picks run lost, of which .* has no row"):
        read_measured(tmp_path)
    path.write_text("data,backbone\n")
    with pytest.raises(InputError, match="columns are data, backbone; allowed: data,"):
        read_measured(tmp_path)


# ----------------------------------------------------------------------------- what it will take

# Seconds of a pass for one photo of 64 px, by `measured_speed` on the idle machine of the rows.
SPEEDS = {"MobileNetV3Small": 0.000266, "MobileNet": 0.000209}


@pytest.mark.parametrize("backbone", SPEEDS)
def test_strategies_are_told_within_a_third_of_what_they_took(backbone, places, monkeypatch):
    def untrained(s, size):
        return load_backbone(s.backbone, image_size=size, alpha=s.alpha, weights="none")

    monkeypatch.setattr("lib.study.cost.measured_speed", lambda _: SPEEDS[backbone])
    monkeypatch.setattr("lib.study.cost.network", untrained)
    full = PROTOCOLS["full"]
    (cell,) = (c for c in full.cells() if c.name == f"flowers/{backbone}")
    told = cost(full, cell, replace(places, weights="imagenet"))
    rows = read_picks(PROJECT / "results" / "choice_flowers", backbone).dropna(subset="seconds")
    took = rows.groupby("choice")["seconds"].mean() / 60
    for name in (SEARCH, *TIMED):
        assert 0.75 < told[name] / took[name] < 1.33, name


# ------------------------------------------------------------------------------- what people use


def contest(**ways):
    """Rows of two seeds on two data sets: test photos that each way has right, and minutes."""
    common = {"backbone": "VGG16", "photos": 200, "test_images": 40, "cpu_minutes": 1.0}
    return pd.DataFrame(
        [
            common | {"data": data, "seed": s, "way": way, "minutes": minutes, "image_size": size,
                      "hits": pack_hits(np.arange(40) < hits), "lines": 1, "machine": "a machine",
                      "tuned": f"block {s}"}
            for data in ("flowers", "digits")
            for s in (0, 1)
            for way, (hits, minutes, size) in ways.items()
        ],
        columns=list(PEOPLE),
    )  # fmt: skip


def test_ways_are_compared_on_the_same_photos():
    rows = contest(**{"make photos, search": (30, 4.0, 96), "Keras guide": (20, 2.0, 224)})
    table = people_table(rows)
    first, second = table.splitlines()[-4:-2]
    # As many photos as one seed has: a photo that both seeds test counts as one.
    start = (
        "| flowers, VGG16 | make photos, search | block 0; block 1 | 96 | 2 | 0.750 [0.610, 0.890]"
    )
    assert first.startswith(f"{start} |")
    assert "| +0.250 [+0.110, +0.390] | 4.0 | 1.0 | 1 |" in first
    assert (
        second.startswith("|  | Keras guide | block 0; block 1 | 224 | 2 | 0.500")
        and "| – | 2.0 |" in second
    )
    assert "40 of flowers, 40 of digits" in table
    assert people_table(pd.DataFrame(columns=list(PEOPLE))) == ""


@pytest.mark.parametrize(
    ("right", "best"),
    [((30, 20, 20), "shortlist"), ((20, 20, 30), "search"), ((30, 30, 30), "shortlist"),
     ((20, 30, 30), "halving")],
)  # fmt: skip
def test_the_best_strategy_in_equal_minutes_becomes_the_default(right, best):
    each = zip(PHOTOS, right, (3.0, 6.0, 9.0), strict=True)
    ways = {way: (hits, minutes, 64) for way, hits, minutes in each}
    rows = contest(**ways)
    assert best_strategy(rows) == best
    words, accuracies = people_words(rows), (f"{n / 40:.3f}" for n in right)
    a, b, c = accuracies
    assert f"`shortlist` {a} in 3.0 minutes, `halving` {b} in 6.0 minutes, `search` {c}" in words
    assert words.endswith(f"By the second rule, the default strategy is `{best}`.\n")
    assert best_strategy(rows[:-1]) is None is best_strategy(rows[:0])  # a run is missing
    assert best_strategy(rows[rows["data"] == "flowers"]) is None
    assert best_strategy(rows[rows["seed"] == 0]) is None


def test_the_default_is_what_the_second_rule_says_once_there_are_rows():
    best = best_strategy(read_people(PROJECT / "results"))
    (default,) = (f.default for f in fields(Settings) if f.name == "strategy")
    assert best in (None, default)


# ------------------------------------------------------------------------------------ the commands


def test_without_rows_the_page_says_that_nothing_was_measured(tmp_path):
    assert set(sections(tmp_path).values()) == {NOTHING}


def test_reading_starts_no_keras():
    code = "import sys, lib.study.report; print(*{'keras', 'tensorflow', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "")


def test_bad_words_are_refused_in_one_line(capsys):
    for wrong, line in (
        ("protocol=fool", "protocol: 'fool' is not allowed; allowed: full, smoke"),
        ("only=roses", "only: 'roses' is not allowed; allowed: flowers, "),
        ("epochs=3", "epochs: unknown; allowed: protocol, only"),
    ):
        assert main(["cost", wrong]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and line in error


@pytest.mark.long
def test_the_smoke_setting_with_every_choice_crosses_its_seeds(tmp_path):
    every = replace(SMOKE, choices=tuple(CHOICES))
    places = Places(tmp_path / "results", tmp_path / "work", "none", None)
    run_cells(every, [CELL], places, lambda line: None)
    (found,) = read_measured(places.results)
    assert found.seeds == (0, 1) and found.names() == list(CHOICES)[1:]
    assert not np.isnan(found.crossed(CEILING)).any()
    for name in found.names():
        assert not np.isnan(found.crossed(name)).any()
    assert "nan" not in choice_table([found])
    assert list(rows_lacking(read_results(places.rows(CELL)), None)) == []


@pytest.mark.long
def test_the_comparison_goes_on_where_it_stopped(tmp_path, capsys):
    command = ["people", "protocol=smoke", f"results={tmp_path}", f"work={tmp_path / 'work'}"]
    assert main(command) == 0
    rows = pd.read_csv(tmp_path / "people.csv")
    assert list(rows["way"]) == list(WAYS) * 2 and set(rows["test_images"]) == {30}
    assert (rows["minutes"] > 0).all() and rows["lines"].iloc[0] == 1
    rows.drop(index=8).to_csv(tmp_path / "people.csv", index=False)
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("seed 1: Keras guide") == 1
    assert len(pd.read_csv(tmp_path / "people.csv")) == 10
