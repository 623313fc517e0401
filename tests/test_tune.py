"""lib.tune on drawn photos and the thin VGG16: strategies, answer, network, report, predict."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import browser
import keras
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from scipy.stats import binomtest

from lib import tune
from lib.__main__ import main
from lib.audit.intervals import Interval
from lib.backbones.build import classifier, scale_inputs
from lib.backbones.records import RECORDS
from lib.lanes.trunk import read_graph
from lib.params import ROOT, InputError
from lib.partition import Block, block_wise, weighted_layers
from lib.photos.drawn import procedural_flowers
from lib.photos.folder import Depth
from lib.tune import fit, gradients, strategies
from lib.tune.candidates import BASELINES, KINDS, Candidate, candidates, fixed
from lib.tune.card import model_card
from lib.tune.charts import LOOKS
from lib.tune.classify import _rows
from lib.tune.confirm import Confirmed
from lib.tune.export import RESIZE, Export, Format, export, load, load_depth, save
from lib.tune.fit import class_weights
from lib.tune.folder import list_folder, seconds_to_read
from lib.tune.forecast import Forecast, Work, forecast, measured_speed, seconds_of, sizes, works
from lib.tune.lanes import pooled
from lib.tune.measures import MEASURES
from lib.tune.outcome import TOGETHER, by_epochs, proportion, signed, tried
from lib.tune.report import FILE, report
from lib.tune.run import (
    CARD,
    MODEL,
    _forecast,
    _place,
    _seconds,
    _tested,
    _timed,
    network,
    read_kept,
)
from lib.tune.search import Search
from lib.whole import write_whole

NAMES = ("<script>x", 'it\'s "1"=$2', "花 und Gras")
THIN = {
    "backbone": "VGG16",
    "thin": True,
    "weights": "none",
    "image_size": 32,
    "epochs": 2,
    "halvings": [1],
    "folds": 2,
    "batch_size": 12,  # of 24 photos to train on: whole batches, which are one graph
    "learning_rate": 2.0e-3,
    "candidates": ["blocks"],
    "exports": ["saved_model", "litert"],
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of drawn photos with names that are trouble."""
    folder = tmp_path_factory.mktemp("photos") / "my $photos"
    images, labels = procedural_flowers(70, 40, 5)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        if label < len(NAMES):
            path = folder / NAMES[label] / f"<img src=x> & {i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    (folder / NAMES[0] / "<b>broken.jpg").write_bytes(b"no photo")
    return folder


@pytest.fixture(scope="module")
def job(photos, tmp_path_factory):
    """Photos that were read and split, nothing trained."""
    values = THIN | {"strategy": "halving", "out": str(tmp_path_factory.mktemp("out"))}
    return tune.prepare(tune.load_settings({"dir": str(photos), **values}), lambda line: None)


@pytest.fixture(scope="module")
def found(job):
    """The answer, with all that comes out written."""
    return tune.answer(job)


@pytest.fixture(scope="module")
def tuned(found):
    """The same as if a block had been worth tuning."""
    winner = fixed(network(found.settings, 32), "block5*")
    return replace(found, winner=winner, kept=winner, gain=Interval(0.031, 0.012, 0.05))


# --------------------------------------------------------------------------------------- candidates


def test_each_set_of_layers_is_one_candidate():
    backbone = network(tune.load_settings({"dir": "x", **THIN}), 32)
    found = candidates(backbone, list(KINDS), 3)
    assert tuple(c.block.name for c in found[:2]) == BASELINES
    assert len({c.layers for c in found}) == len(found)
    assert {c.method for c in found} == {*BASELINES, "layer_wise", "block_wise", "sliding_window"}
    some = candidates(backbone, ["layers", "stages"], 3)[-5:]  # with blocks, VGG16's are those
    assert [(c.method, c.label) for c in some] == [("stages", f"stage_{i:02}") for i in range(1, 6)]
    assert some[0].layers == ("block1_conv1", "block1_conv2")


def test_layers_of_ones_own():
    backbone = network(tune.load_settings({"dir": "x", **THIN}), 32)
    assert fixed(backbone, "block5* block1_conv2").layers == (
        *("block1_conv2", "block5_conv1", "block5_conv2", "block5_conv3"),
    )
    assert fixed(backbone, 0.3).layers[0] == "block4_conv3"  # 4 of 13
    with pytest.raises(InputError, match="'conv9' fits no layer .* block5_conv3, or a pattern"):
        fixed(backbone, "conv9")


# --------------------------------------------------------------------------------------- strategies


def test_halving_trains_fewer_for_longer_and_never_leaves_the_classifier(found, job):
    stages = [job.study.at(e, job.folder / f"epochs_{e:03}").rows() for e in (1, 2)]
    assert [len(rows) for rows in stages] == [7, 3]  # five blocks and the baselines; then a quarter
    assert all((rows["layers"] == "").sum() == 1 for rows in stages)
    first = stages[0][stages[0]["layers"] != ""]
    order = first.sort_values(["val_accuracy", "val_loss"], ascending=[False, True])["layers"]
    assert set(stages[1]["layers"]) == {"", *order[:2]}


def test_what_goes_on_is_what_was_trained_from_the_start(found, job, tmp_path):
    went_on = job.study.at(2, job.folder / "epochs_002").rows().set_index("key")
    again = job.study.at(2, tmp_path)
    of = [c for c in job.search.everything if ";".join(c.layers) in set(went_on["layers"])]
    again.train([again.run(c.method, c.block) for c in of])
    rows = again.rows().set_index("key").loc[went_on.index]
    assert rows["curve"].tolist() == went_on["curve"].tolist()
    np.testing.assert_allclose(rows["val_loss"], went_on["val_loss"], rtol=1e-4)


@pytest.mark.parametrize("kinds", [["blocks", "layers"], ["layers", "blocks"], ["blocks"]])
def test_the_best_layers_together_are_of_all_layers_whatever_is_named_first(tmp_path, kinds):
    """The thin network's blocks of one layer are the same candidates as these layers."""
    settings = tune.load_settings({"dir": "x", **THIN, "backbone": "MobileNetV3Small"})
    backbone = network(settings, 32)
    of = Search(SimpleNamespace(backbone=backbone), replace(settings, candidates=kinds), tmp_path)
    names = weighted_layers(backbone)
    order = sorted(of.everything, key=lambda c: -names.index((c.layers or names)[-1]))
    kinds_of_one = {c.kind for c in order if len(c.layers) == 1}
    assert "blocks" in kinds_of_one or kinds[0] == "layers"
    best = [tuple(names[-3:]), tuple(names[-5:])] if "layers" in kinds else []
    assert [c.layers for c in strategies.best_together(of, order)] == best


def test_rows_say_of_stages_and_own_layers_what_they_are(job, tmp_path, monkeypatch):
    backbone, study = job.study.backbone, job.study.at(1, tmp_path / "epochs_001")
    alone, _, *stages = candidates(backbone, ["stages"], 3)
    some = [alone, stages[4], fixed(backbone, "block5_conv3")]
    study.train([study.run(c.method, c.block) for c in some])
    assert sorted(study.rows()["method"]) == ["baseline_1", "own_layers", "stages"]
    monkeypatch.setattr("lib.tune.lanes.go_on", trained_again)
    study.train([study.run(c.method, c.block) for c in some])
    kinds = tried(tmp_path, weighted_layers(backbone), job.split.selection).set_index("block")[
        "kind"
    ]
    assert kinds.to_dict() == {"baseline_1": "the classifier alone", "stage_05": "a stage",
                               "fixed": TOGETHER}  # fmt: skip
    assert set(kinds[1:]) <= set(LOOKS)


def trained_again(*_):
    raise AssertionError("trained again")


def searching(job, folder, **values):
    """A search of its own on the same photos."""
    settings = replace(job.settings, **values)
    return Search(job.study, settings, folder)


def test_gradients_choose_and_are_kept(job, tmp_path):
    of = searching(job, tmp_path, strategy="shortlist")
    table = of.measured()
    assert len(table) == 13 and (table[["g2", "w2", "t2", "s2"]] > 0).all(axis=None)
    assert (table["both"] ** 2 <= table["t2"] * table["s2"]).all()
    np.testing.assert_allclose(searching(job, tmp_path).measured()["g2"], table["g2"])
    order = of.by_gradient(of.everything[2:])
    by_layer = table.set_index("layer")["g2"]
    norms = [by_layer.loc[list(c.layers)].sum() for c in order]
    assert norms == sorted(norms, reverse=True)


def test_measures_are_what_they_say():
    sums = {"weights": 4, "g2": 9.0, "w2": 36.0, "both": 3.0, "t2": 4.0, "s2": 9.0}
    found = {name: measure.of(sums) for name, measure in MEASURES.items()}
    assert found == {"norm": 3.0, "relative": 0.5, "fisher": 2.25, "agreement": 0.5}


def test_gradients_are_summed_batch_by_batch():
    numbers = np.random.default_rng(0).normal(size=(3, 2, 4))
    means, squares = gradients._means([list(batch.copy()) for batch in numbers])
    np.testing.assert_allclose(means, numbers.mean(axis=0))
    np.testing.assert_allclose(squares, (numbers**2).sum(axis=2).mean(axis=0))


def test_a_lane_that_goes_on_does_not_hold_the_others_in_memory(job, tmp_path):
    of = searching(job, tmp_path)
    for state in of.trained(of.everything[:3], 1):
        arrays = [*(a for head in state.head for a in head)]
        arrays += [a for each in state.tuned.values() for part in each for a in part]
        assert len(arrays) >= 18 and all(a.base is None for a in arrays)


def test_a_graft_of_everything_scores_as_everything_with_the_other_classifier(job, tmp_path):
    of = searching(job, tmp_path, strategy="graft")
    picked = strategies.graft(of)
    rows = of.study.at(2, tmp_path / "epochs_002").rows()
    assert len(rows) == 3 and ";".join(picked.layers) in set(rows["layers"])
    again, made = searching(job, tmp_path, strategy="graft"), of._graft(of.everything)
    again.trained = None  # what is kept is not made again
    kept = again.grafts(again.everything)
    assert set(kept) == set(made) == {c.layers for c in of.everything}
    for layers, (right, losses) in made.items():
        assert right.shape == kept[layers][0].shape and right.dtype == kept[layers][0].dtype
        np.testing.assert_allclose(losses, kept[layers][1], rtol=1e-3)
    (tmp_path / "grafts.npz").write_bytes(b"PK damaged")
    with pytest.raises(TypeError):  # it would be made again
        again.grafts(again.everything)


# --------------------------------------------------------------------------------------- the answer


def confirmed(first, second, units=None, folds=None):
    """Two candidates on the same photos, two folds of them; hits of their runs."""
    hits = np.array([first, second], bool)
    photos = np.arange(hits.shape[2])
    units = photos if units is None else units
    folds = photos % 2 if folds is None else folds
    return Confirmed((), hits, folds, units, np.zeros((2, 3)))


def test_the_gain_is_paired_and_over_all_folds():
    few, more = [1] * 20 + [0] * 20, [1] * 30 + [0] * 10
    gain = confirmed([few, few], [more, more]).gain()
    error = np.sqrt(0.25 * 0.75 / 39)  # of 40 differences of which a quarter is 1
    assert gain.value == pytest.approx(0.25)
    assert (gain.high - gain.low) / 2 == pytest.approx(2.02 * error, rel=0.01)
    same = confirmed([few, few], [few, few]).gain()
    assert (same.value, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(("large", "small"), [(90, 60), (60, 60), (40, 10)])
def test_a_unit_that_holds_most_photos_proves_nothing(large, small):
    """A burst of near-copies is one unit: what it says of a gain, one photo would say."""
    rng, missed = np.random.default_rng(6), 0
    units = np.concatenate([np.zeros(large, int), np.arange(1, small + 1)])
    wrong, right = np.zeros(len(units), bool), units == 0  # the burst turns right, nothing else
    gain = confirmed([wrong] * 2, [right] * 2, units).gain()
    assert gain.low < 0 < gain.value
    for _ in range(400):
        by_unit = rng.normal(0, 1, (2, 1, small + 1)).repeat(2, axis=1)[..., units]
        gain = confirmed(*(by_unit + rng.normal(0, 0.4, (2, 2, len(units))) > 0), units).gain()
        missed += not gain.low <= 0 <= gain.high
    assert missed / 400 < 0.07


def test_runs_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    good, bad = rng.random((2, 300)) < [[0.9], [0.6]]
    steady = confirmed([bad, bad], [good, good]).gain()
    shaky = confirmed([bad, bad], [good, bad]).gain()
    assert steady.low > 0 and shaky.low < 0 < shaky.value < shaky.high < 1


def test_intervals_of_no_gain_hold_it_about_as_often_as_they_say():
    rng, missed = np.random.default_rng(1), 0
    for _ in range(400):  # folds of 45 photos; no gain; runs scatter by 0.02, photos by theirs
        ease = rng.normal(0, 1, 90)
        runs = rng.normal(0.8, 0.1, (2, 2, 2))[..., np.arange(90) % 2]
        gain = confirmed(*(ease + runs + rng.normal(0, 0.7, (2, 2, 90)) > 0)).gain()
        missed += not gain.low <= 0 <= gain.high
    assert 0.01 < missed / 400 < 0.08


def test_intervals_are_for_other_units_where_photos_of_one_are_alike():
    """Twelve plants of 30 photos: a candidate does well on all of a plant's photos or on none."""
    rng, units, missed = np.random.default_rng(2), np.repeat(np.arange(12), 30), 0
    for _ in range(400):
        by_plant = rng.normal(0, 1, (2, 1, 12)).repeat(2, axis=1)[..., units]
        gain = confirmed(*(by_plant + rng.normal(0, 0.7, (2, 2, 360)) > 0), units).gain()
        missed += not gain.low <= 0 <= gain.high
    assert 0.01 < missed / 400 < 0.09


@pytest.mark.parametrize(("plants", "repeats"), [(4, 2), (4, 10), (12, 3)])
def test_chance_of_a_run_on_a_whole_plant_counts_once(plants, repeats):
    """Few plants and many repeats: the freedom is that of the fewer."""
    rng, units, missed = np.random.default_rng(3), np.repeat(np.arange(plants), 20), 0
    for _ in range(400):
        by_plant = rng.normal(0, 1, (2, 1, plants)) + rng.normal(0, 0.5, (2, repeats, plants))
        right = by_plant[..., units] + rng.normal(0, 0.7, (2, repeats, len(units))) > 0
        gain = confirmed(*right, units).gain()
        missed += not gain.low <= 0 <= gain.high
    assert 0.01 < missed / 400 < 0.08


@pytest.mark.parametrize("patients", [3, 4])
def test_folds_of_one_patient_each_show_the_chance_of_runs_by_how_they_differ(patients):
    """Three folds: with four patients one of them holds two, and shows it in another way."""
    rng, units, missed = np.random.default_rng(5), np.repeat(np.arange(patients), 20), 0
    for _ in range(400):
        by_patient = rng.normal(0, 0.3, (2, 1, patients)) + rng.normal(0, 0.5, (2, 2, patients))
        right = by_patient[..., units] + rng.normal(0, 0.7, (2, 2, len(units))) > 0
        gain = confirmed(*right, units, units % 3).gain()
        missed += not gain.low <= 0 <= gain.high
    assert 0.01 < missed / 400 < 0.08


def test_the_share_of_photos_of_few_units_holds_the_truth():
    rng, units, missed = np.random.default_rng(4), np.repeat(np.arange(6), 15), 0
    for _ in range(400):
        share = proportion(rng.random(90) < rng.beta(9, 1, 6)[units], units)
        missed += not share.low <= 0.9 <= share.high
    assert missed / 400 < 0.06
    one = proportion(np.arange(9) < 7, np.zeros(9, int))
    assert (one.low, one.high) == (0, 1)  # one plant says nothing of others


def test_the_share_of_photos_of_few_units_is_less_sure():
    right, alone = np.arange(60) < 45, np.arange(60)
    usual = binomtest(45, 60).proportion_ci(method="wilson")
    assert proportion(right, alone).low == pytest.approx(usual.low)
    assert proportion(right, alone).high == pytest.approx(usual.high)
    few = proportion(right, alone // 15)  # four plants: three all right, one all wrong
    of_few = binomtest(3, 4).proportion_ci(method="wilson")
    assert few.low < of_few.low and few.high > of_few.high
    nearly, all_right = (proportion(np.arange(60) < n, alone // 15) for n in (59, 60))
    assert all_right.low < binomtest(4, 4).proportion_ci(method="wilson").low
    assert nearly.low < 0.9


def test_the_numbers_of_the_answer_agree(found, job):
    test = job.split.test
    assert not np.isin(test, np.concatenate([job.split.training, job.split.selection])).any()
    assert found.tested.probabilities.shape == (len(test), 3)
    assert found.confusion().sum() == len(test) == found.by_class()["photos"].sum()
    assert found.confusion().trace() == round(found.accuracy.value * len(test))
    assert all(job.photos.labels[test[i]] != found.tested.probabilities[i].argmax()
               for i in found.mistakes())  # fmt: skip
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high


def test_a_sentence_says_what_is_kept(found, tuned):
    assert tuned.sentence == (
        "tune fixed (3 layers: block5_conv1, block5_conv2, block5_conv3): "
        "+0.031 [+0.012, +0.050] over the classifier alone, both after 2 epochs"
    )
    alone = Candidate("baseline", "baseline_1", Block("baseline_1", ()))
    doubtful = replace(tuned, kept=alone, gain=Interval(0.01, -0.02, 0.04))
    assert doubtful.sentence.endswith(
        "block5_conv3): +0.010 [-0.020, +0.040], both after 2 epochs): keep it"
    )
    assert replace(tuned, kept=alone, winner=alone, gain=None).sentence == (
        "nothing that was tried is better than the classifier alone: keep it"
    )


def test_one_group_gives_no_interval_in_words(found, tuned):
    alone = replace(found.split, units=np.zeros(len(found.photos), int))
    answer = replace(tuned, split=alone)
    for text in (model_card(answer), report(answer)):
        assert " (no interval) compared with the classifier" in text and "[-inf" not in text
    assert signed(Interval(0.1, -np.inf, np.inf)) == "+0.100 (no interval)"
    assert signed(Interval(0.1, -1.2, 0.9)) == "+0.100 [-1.200, +0.900]"


def test_a_second_start_trains_nothing_and_says_the_same(found, job, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", trained_again)
    monkeypatch.setattr("lib.tune.lanes.go_on", trained_again)
    second = tune.prepare(job.settings, lambda line: None)
    assert second.seconds > 0
    again = tune.answer(second)
    assert again.sentence == found.sentence
    assert (again.tested.probabilities == found.tested.probabilities).all()


def test_the_final_training_holds_less_where_memory_is_short():
    """The photos themselves then, and the same network above them."""
    images, found = procedural_flowers(12, 32, 0)[0], []
    for gib in (64, 0.1):
        settings = tune.load_settings({"dir": "x", **THIN, "memory_gib": gib})
        backbone = pooled(network(settings, 32))
        head = classifier(backbone.output.shape[1:], 3, dropout=0, seed=0)
        block = Block("b", ("block5_conv3",))
        inputs, upper = fit._above_trunk(settings, backbone, head, block, images)
        assert len(upper.trainable_weights) == 2 + len(head.weights)
        found.append((inputs[0].shape[1:], upper.predict(inputs, verbose=0)))
    assert found[0][0] != (32, 32, 3) == found[1][0]
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-3, atol=1e-5)


def test_the_classes_weigh_alike():
    weights = class_weights(np.array([0] * 9 + [1]), 2)
    assert weights == pytest.approx([10 / 18, 5.0])


# ----------------------------------------------------------------------------------- what comes out


def test_the_network_is_plain_keras_and_takes_photos_of_any_size(found, job):
    path = job.settings.out_dir / "model.keras"
    model = keras.models.load_model(path)
    photos = job.photos.images[job.split.test]
    np.testing.assert_allclose(
        model.predict(photos, verbose=0), found.tested.probabilities, atol=1e-5
    )
    np.testing.assert_allclose(model(photos), found.tested.probabilities, atol=1e-5)  # as in use
    large = np.repeat(np.repeat(photos[:1], 3, axis=1), 5, axis=2)
    assert np.abs(model.predict(large, verbose=0) - found.tested.probabilities[:1]).max() < 0.05
    assert json.loads((path.parent / "classes.json").read_text("utf-8")) == list(NAMES)


def test_what_is_saved_is_what_was_trained(monkeypatch):
    """The tuned layers, with what their BatchNorms keep, and no others."""
    values = THIN | {"backbone": "MobileNetV2", "epochs": 2}
    settings, trained, above = tune.load_settings({"dir": "x", **values}), [], fit._above_trunk

    def watched(*arguments):
        trained.append(above(*arguments))
        return trained[-1]

    monkeypatch.setattr(fit, "_above_trunk", watched)
    images, labels = procedural_flowers(24, 32, 5)
    labels, names = labels % 2, ("a", "b")
    before = network(settings, 32)
    block = block_wise(before)[20]
    model, _ = fit.fit(settings, 32, block, images, labels, names, 2)
    ((inputs, upper),) = trained
    np.testing.assert_allclose(
        model.predict(images, verbose=0), upper.predict(inputs, verbose=0), atol=1e-5
    )
    (after,) = (x for x in model.layers if isinstance(x, keras.Model) and len(x.layers) > 50)
    changed = {
        layer.name
        for layer in before.layers
        for old, new in zip(layer.get_weights(), after.get_layer(layer.name).get_weights(),
                            strict=True)
        if not np.array_equal(old, new)
    }  # fmt: skip
    assert changed == set(block.layers) and any(name.endswith("BN") for name in changed)
    norm = next(after.get_layer(name) for name in block.layers if name.endswith("BN"))
    assert not np.array_equal(norm.moving_mean, before.get_layer(norm.name).moving_mean)


def test_augmentation_changes_photos_in_training_alone():
    settings = tune.load_settings({"dir": "x", **THIN, "augment": True})
    images, labels = procedural_flowers(24, 32, 5)
    block = fixed(network(settings, 32), "block5*").block
    (still, _), (changed, _) = (
        fit.fit(s, 32, block, images, labels % 2, ("a", "b"), 2)
        for s in (replace(settings, augment=False), settings)
    )
    first, second = (changed(images).numpy() for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, still(images), atol=1e-3)


def test_weights_that_keras_has_not_are_no_matter_of_a_connection(monkeypatch):
    def settings(**values):
        return tune.load_settings({"dir": "x", **values})

    with pytest.raises(InputError, match=r"^weights: those of MobileNet cannot be had with alpha"):
        network(settings(backbone="MobileNet", alpha=0.3), 224)
    for cause, words in (
        (OSError(28, "No space left on device", "x.h5"), "could not be kept .*No space left"),
        (OSError("Unable to open file (truncated file: eof = 96)"), "are damaged in ~/.keras"),
        (ValueError("Incomplete or corrupted file detected."), "are damaged in ~/.keras"),
        (ConnectionResetError(104, "Connection reset by peer"), "could not be downloaded"),
        (Exception("URL fetch failure"), r'could not be downloaded; .*"weights=<file>" with the '
                                         r"\.h5 file that any machine"),
    ):  # fmt: skip

        def failing(cause=cause, **_):
            raise cause

        monkeypatch.setattr(keras.applications, "DenseNet121", failing)
        with pytest.raises(InputError, match=f"^weights: those of DenseNet121 {words}") as error:
            network(settings(backbone="DenseNet121"), 224)
        assert "densenet121_notop" not in str(error.value)


def test_exports_give_the_same_classes_or_say_why_not(found, job):
    for written in found.exports:
        assert not written.missing
    assert (job.settings.out_dir / "saved_model" / "saved_model.pb").exists()
    weights = keras.models.load_model(job.settings.out_dir / MODEL).count_params()
    assert (job.settings.out_dir / "model.tflite").stat().st_size > 4 * weights


@pytest.mark.parametrize("wrong", [np.nan, 0.1], ids=["no numbers", "other probabilities"])
def test_an_export_that_says_something_else_is_not_kept(tmp_path, monkeypatch, wrong):
    given = np.array([[0.7, 0.3], [0.6, 0.4]])
    form = Format("it", (), lambda model, path, shape: path.touch(), lambda *_: given + wrong)
    monkeypatch.setattr("lib.tune.export.FORMATS", {"it": form})
    images = np.zeros((2, 8, 8, 3), np.uint8)
    (found,) = export(None, tmp_path, ["it"], images, given)
    assert "0 of 2 test photos another class" in found.missing and not list(tmp_path.iterdir())
    form = replace(form, read=lambda *_: given)
    monkeypatch.setattr("lib.tune.export.FORMATS", {"it": form})
    assert export(None, tmp_path, ["it"], images, given) == [Export("it")]


def test_test_photos_that_other_settings_looked_at_are_said(found):
    assert found.settings_tested == 1 and found.looked in model_card(found)
    again = replace(found, settings_tested=3)
    assert "so were those of 2 other settings in this folder" in model_card(again)
    assert "so were those of 2 other settings" in report(again)


def test_a_network_that_is_another_once_it_is_loaded_is_refused(found, job, monkeypatch):
    other = SimpleNamespace(predict=lambda photos, **_: np.full((len(photos), 3), 1 / 3))
    monkeypatch.setattr("lib.tune.run._model", lambda job, kept: other)
    with pytest.raises(InputError, match=r"model.keras, loaded again, gives probabilities that"):
        tune.answer(job)


def test_the_command_tunes_the_layers_that_are_given(photos, tmp_path, capsys):
    values = THIN | {"strategy": "fixed", "layers": "block5*", "epochs": 1, "exports": ""}
    values |= {"candidates": "blocks", "thin": "true", "out": str(tmp_path)}
    del values["halvings"]
    assert main(["photos", f"dir={photos}", *(f"{k}={v}" for k, v in values.items())]) == 0
    said = capsys.readouterr().out
    assert re.search(r"VGG16, 32 px, strategy fixed: .*; about \d+ min on this machine", said)
    assert re.search(r"^(Tune block5|Nothing is better than the classifier alone)", said, re.M)
    model = keras.models.load_model(tmp_path / MODEL)
    assert model(np.zeros((1, 50, 60, 3))).shape == (1, 3)
    assert "Nothing was searched" in (tmp_path / FILE).read_text(encoding="utf-8")


def test_a_network_that_is_lost_is_trained_again(found, job):
    kept = _place(job, found.kept) / MODEL
    kept.unlink()
    _tested(job, found.kept, 1)
    assert load(kept)[1] == list(NAMES)


def test_a_stop_leaves_nothing_that_was_said_of_another_network(found, job, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    out, spent = job.settings.out_dir, _seconds(job.folder)
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {out / MODEL, out / CARD, out / FILE} <= before.keys()
    monkeypatch.setattr("lib.tune.run.export", stopped)
    with pytest.raises(KeyboardInterrupt):
        tune.answer(job)
    assert {path.name for path in out.iterdir() if path.is_file()} >= {MODEL, "classes.json"}
    assert not (out / CARD).exists() and not (out / FILE).exists()
    assert not (out / "saved_model").exists()
    assert _seconds(job.folder) > spent  # its time was spent all the same
    for path, content in before.items():  # for the tests that follow
        path.write_bytes(content)


def test_what_is_not_ours_is_not_written_over(found, job, photos, tmp_path):
    settings = replace(job.settings, out=str(tmp_path))
    for name, text in (("plan.json", '["of", "somebody"]'), ("plan.json", '{"plans": 1}'),
                       ("report.html", "of somebody")):  # fmt: skip
        (tmp_path / "plan.json").unlink(missing_ok=True)
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"holds {name}, which make photos did not write"):
            _forecast(settings, list_folder(photos))
        assert (tmp_path / name).read_text() == text
    model, photo = job.settings.out_dir / MODEL, tmp_path / "x.png"
    shutil.copy(photos / job.photos.paths[0], photo)
    for target in (model, photo):
        content = target.read_bytes()
        with pytest.raises(InputError, match="is there, and make predict did not write it"):
            tune.predict(str(model), str(photo), str(target))
        assert target.read_bytes() == content
    with pytest.raises(InputError, match="make predict did not write it"):
        tune.predict(str(model), str(photo), "/dev/null")  # a device, and no file
    (tmp_path / "classes.csv").touch()  # nothing to lose
    for _ in range(2):  # a table may be written again
        tune.predict(str(model), str(photo), str(tmp_path / "classes.csv"))


class Reader(HTMLParser):
    """Collects tags, addresses and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset")]

    def handle_data(self, data):
        self.text += data


def test_the_report_is_one_file_and_names_are_text(found, tuned, job):
    for answer in (found, tuned):
        page = Reader(report(answer))
        assert not {"script", "b-", "link", "iframe"} & set(page.tags)
        assert page.addresses and all(a.startswith("data:image/") for a in page.addresses)
        assert "http" not in re.sub(r'"data:[^"]*"', "", report(answer))
        for name in (*NAMES, "<b>broken.jpg", answer.sentence[1:], "Most confident mistakes"):
            assert name in page.text
        assert f"{len(job.photos)} photos of 40 x 40 to 40 x 40 pixels" in page.text
    labels = job.photos.labels
    pair = tuple(np.unique(labels, return_index=True)[1][:2].tolist())
    page = Reader(report(replace(found, twins=[pair])))
    assert f": in {NAMES[labels[pair[0]]]} and {NAMES[labels[pair[1]]]}, so one label" in page.text
    assert page.tags.count("img") == 2 + len(found.mistakes())


@pytest.mark.long
def test_a_browser_shows_the_report_and_runs_nothing_of_a_name(found, tuned, tmp_path):
    def look(tab, page):
        answer = {"found": found, "tuned": tuned}[page.stem]
        text = tab.locator("body").inner_text()
        assert answer.sentence[1:] in text and all(name in text for name in NAMES)
        assert tab.locator("script").count() == 0
        assert tab.locator("figure img").count() == len(answer.mistakes())
        wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        for width in (1200, 400):
            tab.set_viewport_size({"width": width, "height": 800})
            assert tab.evaluate(wide), width

    pages = [tmp_path / "found.html", tmp_path / "tuned.html"]
    for page, answer in zip(pages, (found, tuned), strict=True):
        page.write_text(report(answer), encoding="utf-8")
    assert browser.visit(pages, look) == []


def test_the_model_card_says_what_was_measured(found, tuned):
    card = model_card(tuned)
    assert "+0.031 \\[+0.012, +0.050\\]" in card
    assert f"**{found.accuracy.value:.3f} [" in card
    assert "the layers were confirmed after 2 epochs" in card
    assert "The gain in the answer is after 2 epochs, from" in report(tuned)
    assert "\\<script\\>x" in card and "<script>" not in card
    assert f"{len(found.photos)} photos used, 40 x 40 to 40 x 40 pixels, 1 files left out" in card


def test_predict_writes_a_row_a_photo_and_names_what_it_cannot_read(found, job, photos, tmp_path):
    model = str(job.settings.out_dir / "model.keras")
    classified = tune.predict(model, str(photos), str(tmp_path / "found.csv"))
    target, unread = classified.path, classified.unread
    rows = list(csv.DictReader(io.StringIO(target.read_text("utf-8"))))
    assert len(rows) == len(job.photos) and len(unread) == 1 and "<b>broken.jpg" in unread[0]
    of = {row["file"]: row for row in rows}
    for i, place in enumerate(job.split.test):
        row, p = of[str(photos / job.photos.paths[place])], found.tested.probabilities[i]
        assert row["class"] == NAMES[p.argmax()]
        assert float(row["probability"]) == pytest.approx(p.max(), abs=1e-4)
    one = tune.predict(model, rows[0]["file"], str(tmp_path / "one.csv")).path
    assert one.read_text("utf-8").splitlines()[1:] == [target.read_text("utf-8").splitlines()[1]]
    words = [f"model={model}", f"dir={photos}", f"out={tmp_path / 'again.csv'}"]
    assert main(["predict", *words]) == 1  # one could not be read


def test_predict_sees_photos_as_training_did(tmp_path):
    """Dark photos of 16 bits stay dark, be they one or many; what is brighter is refused."""
    seen, path = [], tmp_path / "model.keras"
    photos = keras.Input((None, None, 3))
    bright = keras.layers.GlobalAveragePooling2D()(keras.layers.Resizing(8, 8, name=RESIZE)(photos))
    network_ = keras.Model(photos, keras.layers.Dense(2)(bright))
    save(network_, ["a", "b"], path, Depth(12, 16, 4000))
    for name, value in (("dark", 250), ("light", 4000), ("lighter", 5000)):
        pixels = np.full((9, 9), value, np.uint16)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    network_.predict_on_batch = seen.append
    files = [tmp_path / "dark.png", tmp_path / "light.png", tmp_path / "lighter.png"]
    failed = {}
    with pytest.raises(TypeError):  # as nothing is predicted here
        list(_rows(network_, ["a", "b"], files, load_depth(path), failed))
    assert [int(x.mean()) for x in seen[0]] == [round(250 / 4095 * 255), round(4000 / 4095 * 255)]
    assert "values up to 5,000, above the 12 bits of its like" in str(failed[files[2]])
    save(network_, ["a", "b"], path, Depth())
    assert load_depth(path) is None and load(path)[1] == ["a", "b"]


def test_predict_follows_links_and_names_other_files(found, job, photos, tmp_path):
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    first, second = (photos / p for p in job.photos.paths[:2])
    shutil.copy(first, folder / "deep" / first.name)
    (folder / "linked").symlink_to(second.parent, target_is_directory=True)
    (folder / "phone.heic").write_text("of a kind that is not read")
    classified = tune.predict(str(job.settings.out_dir / "model.keras"), str(folder))
    text = classified.path.read_text("utf-8")
    assert f"deep/{first.name}" in text and f"linked/{second.name}" in text
    assert classified.other == [f"{folder / 'phone.heic'}: no photo: ends in '.heic'"]
    assert not [line for line in classified.unread if "broken" not in line]


def test_other_pixels_and_another_backend_have_rows_of_their_own(job, monkeypatch):
    """Their runs are others, and files of one photo may be decoded otherwise elsewhere."""
    images = job.photos.images.copy()
    images[0, 0, 0, 0] ^= 1
    folders = {job.folder, replace(job, photos=replace(job.photos, images=images)).folder}
    assert replace(job).folder == job.folder
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    other = replace(job)
    other.backbone = job.backbone
    assert len(folders | {other.folder}) == 3


def test_stages_come_in_the_order_of_their_epochs(tmp_path):
    for epochs in (1000, 200, 12):
        (tmp_path / f"epochs_{epochs:03}").mkdir()
    assert [path.name for path in by_epochs(tmp_path)] == [
        "epochs_012",
        "epochs_200",
        "epochs_1000",
    ]
    assert signed(Interval(0.0, 0.0, 0.0)) == "+0.000 (no photo differs)"


def test_what_was_kept_and_is_damaged_counts_for_nothing(tmp_path):
    path = tmp_path / "seconds.json"
    assert read_kept(path) is None
    write_whole(path, "[1")
    assert read_kept(path) is None and _seconds(tmp_path) == 0.0
    write_whole(path, "2.5")
    assert read_kept(path) == 2.5 == _seconds(tmp_path)


def test_what_reading_took_counts_once_and_a_stopped_start_does(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.tune.run.time.perf_counter", iter([10.0, 12.0, 20.0, 21.0]).__next__)
    job = SimpleNamespace(folder=tmp_path, seconds=30.0)
    with pytest.raises(KeyboardInterrupt), _timed(job):
        raise KeyboardInterrupt
    assert _seconds(tmp_path) == 32.0
    with _timed(job):
        pass
    assert _seconds(tmp_path) == 33.0


def test_another_folder_of_the_same_name_does_not_take_a_networks_place(tmp_path, monkeypatch):
    monkeypatch.setattr("lib.tune.run.forecast", lambda *_: Forecast(32, 1.0))
    monkeypatch.setattr("lib.tune.run.pooled", lambda _: None)
    monkeypatch.setattr("lib.tune.run.seconds_to_read", lambda _: 0.0)
    monkeypatch.setattr(tune.Settings, "out_dir", tmp_path / "out")
    listing = SimpleNamespace(digests=("a",), labels=(0,), paths=("x.png",))
    cats, dogs = (tune.load_settings({"dir": str(tmp_path / n / "photos"), **THIN})
                  for n in ("cats", "dogs"))  # fmt: skip
    for settings in (cats, replace(cats, seed=1), replace(dogs, out=str(tmp_path / "out"))):
        assert _forecast(settings, listing) == Forecast(32, 1.0)
    with pytest.raises(InputError, match=r"^out: .*out holds what was made of .*dogs.photos.*OUT="):
        _forecast(cats, listing)


def test_two_at_once_in_one_folder_take_turns(job, monkeypatch, capfd):
    monkeypatch.setattr("lib.tune.run._answer", lambda job: "done")
    monkeypatch.setattr("lib.tune.run.write", lambda found: [])
    lock = FileLock(job.settings.out_dir / ".photos.lock")
    with ThreadPoolExecutor(1) as threads:
        with lock:
            second = threads.submit(tune.answer, job)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
        assert second.result(timeout=60) == "done"
    assert ".photos.lock: another process works there; waiting for it" in capfd.readouterr().err


def test_exports_of_an_earlier_network_do_not_stay(tmp_path):
    (tmp_path / "saved_model").mkdir()
    for name in ("model.onnx", "model.tflite", "saved_model/weights"):
        (tmp_path / name).write_text("of another network")
    assert export(None, tmp_path, (), np.empty((0, 8, 8, 3)), np.empty(0)) == []
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------- before training


def test_sizes_are_those_that_a_network_takes():
    assert sizes("MobileNetV3Small") == (224, 192, 160, 128, 96, 64)
    assert sizes("NASNetLarge")[:3] == (331, 300, 224) and sizes("Xception")[:2] == (299, 224)
    for name, record in RECORDS.items():
        assert min(sizes(name)) >= record.least_size, name


def test_words_of_a_command_become_lists_and_shares():
    def settings(**values):
        return tune.load_settings({"dir": "x", **values})

    assert settings(candidates="layers stages", exports="").candidates == ("layers", "stages")
    assert settings(exports="").exports == ()
    for text, layers in (("*project*", "*project*"), ("0.3", 0.3), ("1", 1.0)):
        assert settings(strategy="fixed", layers=text).layers == layers


def test_the_size_is_the_largest_that_the_minutes_allow(monkeypatch):
    settings = tune.load_settings({"dir": "x", **THIN, "image_size": "auto"})
    backbone = network(settings, 224)
    monkeypatch.setattr("lib.tune.forecast.measured_speed", lambda _: 0.05)
    found = []
    for minutes in (1, 3, 10, 1000):
        plan = forecast(replace(settings, minutes=minutes), backbone, 300, 0.0)
        assert plan.minutes <= minutes or plan.image_size == 64
        found.append(plan.image_size)
    assert found == sorted(found) and found[-1] == 224 and found[0] < 224
    asked = replace(settings, image_size=100, strategy="fixed", layers="block5*")
    searched = replace(settings, image_size=100)
    cheap, dear = (forecast(s, backbone, 300, 0.0) for s in (asked, searched))
    assert cheap.image_size == dear.image_size == 100 and cheap.minutes < dear.minutes
    slow = forecast(asked, backbone, 300, 120.0)
    assert slow.minutes == pytest.approx(cheap.minutes + 2)
    changing = forecast(replace(asked, augment=True), backbone, 300, 0.0)
    assert changing.minutes > cheap.minutes


def test_only_tuned_layers_cost_a_second_pass_back(monkeypatch):
    monkeypatch.setattr("lib.tune.forecast.MODEL", 0.0)
    monkeypatch.setattr("lib.tune.forecast.TRACE", 0.0)
    backbone = network(tune.load_settings({"dir": "x", **THIN}), 32)
    graph, names = read_graph(backbone), weighted_layers(backbone)
    of = {names: graph.macs(graph.span(names)[0]) for names in ((n,) for n in names)}
    costs = np.diff([*of.values(), 0]) * -1  # multiply-adds of each layer
    for k in (0, 5, 12):
        # Forward and back, but for the first, two epochs of ten photos; the trunk once.
        passes = 28 * costs[k:].sum() + 20 * costs[k + 1 :].sum() + 14 * costs[:k].sum()
        for block in (names[k : k + 1], names[k:]):
            own = 20 * costs[k : k + len(block)].sum()
            work = Work([tuple(block)], 2, 10, 4)
            seconds = seconds_of(graph, [work], graph.macs() * 1.0)
            assert seconds == pytest.approx(passes + own)
    trunk = Work([()], 9, 10, 4)
    assert seconds_of(graph, [trunk], 2.0) == pytest.approx(28.0)
    changing = replace(trunk, changing=True)  # as augmentation has it: passed anew in each epoch
    assert seconds_of(graph, [changing], 2.0) == pytest.approx(9 * 28.0)


def test_a_smaller_last_batch_is_another_graph():
    graph = read_graph(network(tune.load_settings({"dir": "x", **THIN}), 32))
    whole, rest = (seconds_of(graph, [Work([()], 1, n, 4, 8)], 0.0) for n in (24, 25))
    assert rest > 1.2 * whole > 0
    settings = tune.load_settings({"dir": "x", **THIN, "strategy": "halving"})
    found = candidates(network(settings, 32), settings.candidates, 3)
    assert {w.batch for w in works(settings, found, (), 60)} == {settings.batch_size}


def test_a_few_photos_tell_how_long_all_take_to_read(photos, monkeypatch):
    read = []

    def slowly(path, depth, size):
        read.append(path)
        time.sleep(0.01 if len(read) > 1 else 1)  # the first one loads what reads
        raise InputError("a broken one takes time, too")

    monkeypatch.setattr("lib.tune.folder._read", slowly)
    listing = list_folder(photos)
    many = replace(listing, paths=listing.paths * 40)
    for some in (listing, many):
        read.clear()
        assert 0.01 <= seconds_to_read(some) / len(some.paths) < 0.1 and len(read) == 9
        places = [some.paths.index(path.relative_to(some.folder)) for path in read]
        assert max(places) > 0.7 * len(listing.paths) or some is many  # spread over the folder


def test_speed_is_measured_on_a_million_pixels():
    for size, images in ((64, 256), (224, 20), (600, 2), (1200, 1)):
        seen = []
        measured_speed(
            SimpleNamespace(input_shape=(None, size, size, 3), predict_on_batch=seen.append)
        )
        assert {x.shape for x in seen} == {(images, size, size, 3)}


def test_an_earlier_plan_is_kept_for_the_same_photos(job, monkeypatch):
    monkeypatch.setattr("lib.tune.run.forecast", lambda *_: Forecast(64, 99.0))
    listing = list_folder(job.settings.folder)
    assert _forecast(job.settings, listing) == job.forecast
    assert _forecast(replace(job.settings, seed=1), listing) == Forecast(64, 99.0)
    # A start with others does not change it.
    assert _forecast(job.settings, listing) == job.forecast
    assert _forecast(replace(job.settings, dir=f"{job.settings.dir}/."), listing) == job.forecast


def test_two_photos_a_class_are_refused_before_anything_is_built(tmp_path, capsys):
    images = iter(procedural_flowers(4, 32, 1)[0])
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(next(images)).save(tmp_path / name)
    assert main(["photos", f"dir={tmp_path}", "backbone=", "out="]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "a has 2, b has 2; allowed: at least 5 photos" in error


MAKE = """
photos-options:
	@$(PY) -c 'import os; print([os.environ[n] for n in ("DIR", "BACKBONE", "OUT", "MODEL")])'
"""


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def stopped(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tune, "tune_photos", stopped)
    assert main(["photos", "dir=x"]) == 130
    assert capsys.readouterr().err.startswith("stopped: finished runs are kept")


def test_options_arrive_as_they_were_typed(tmp_path):
    (tmp_path / "show.mk").write_text(MAKE)
    given = {"DIR": "my $photos/a=b 'c'", "BACKBONE": "VGG16", "OUT": "$(shell x)", "MODEL": "é #1"}
    words = ["make", f"PY={sys.executable}", "-f", "Makefile", "-f", str(tmp_path / "show.mk")]
    words += ["photos-options", f"TAKES_photos-options={' '.join(given)}"]
    words += [f"{k}={v}" for k, v in given.items()]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == str(list(given.values()))


@pytest.mark.parametrize("name", {r.native: name for name, r in RECORDS.items()}.values())
def test_preprocessing_inside_the_network_is_what_it_was_pre_trained_with(name):
    photos = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    inside = keras.ops.convert_to_numpy(fit._scaling(name)(photos.astype("float32")))
    np.testing.assert_allclose(inside, scale_inputs(photos, name, "native"), rtol=1e-5, atol=1e-4)
