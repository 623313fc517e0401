"""The ledger: what is written is read again, damage is found, and tables are right."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rows import layer_names, make_rows, row

from lib.ledger import (
    COLUMNS,
    TornRowWarning,
    append_row,
    ledger_lock,
    pack_hits,
    read_ledger,
    read_results,
    unpack_hits,
)
from lib.params import InputError
from lib.results import Results


@pytest.fixture
def ledger(tmp_path):
    return tmp_path / "results" / "block_wise-VGG16.csv"


def write(ledger, *rows):
    for values in rows:
        append_row(ledger, values)


def test_a_row_is_read_as_it_was_written(ledger):
    values = row(block='a, "b"; é', learning_rate=1 / 3, val_accuracy=964 / 1101, layers="")
    write(ledger, values)
    assert read_ledger(ledger).iloc[0].to_dict() == values


def test_a_row_of_many_epochs_can_be_read_again(ledger):
    values = row(epochs=60_000, curve=";".join(["150"] * 60_000))
    write(ledger, row(repeat=1), values)
    assert read_ledger(ledger).iloc[1].to_dict() == values


@pytest.mark.parametrize("images", [1, 8, 1101])
def test_hits_are_one_bit_an_image(images):
    hits = np.random.default_rng(images).random(images) < 0.5
    assert len(pack_hits(hits)) == 2 * -(-images // 8)
    np.testing.assert_array_equal(unpack_hits(pack_hits(hits), images), hits)
    with pytest.raises(ValueError, match="is not one bit for each"):
        unpack_hits(pack_hits(hits), images + 8)


def test_the_columns_are_the_designs(ledger):
    write(ledger, row())
    assert ledger.read_text().splitlines()[0] == (
        "key,profile,method,backbone,alpha,image_size,weights_sha256,data_sha256,input_scaling,"
        "block,layers,n_trainable,split,eval_split,train_images,eval_images,seed,order_seed,"
        "repeat,batch_size,epochs,learning_rate,dropout,plateau,val_accuracy,val_loss,"
        "best_val_accuracy,train_accuracy,seconds,lanes,backend,versions,git_sha,finished_at,"
        "failed,curve,hits,check"
    )


def test_rows_are_appended_under_one_header(ledger):
    write(ledger, *(row(repeat=repeat) for repeat in range(3)))
    assert len(ledger.read_text().splitlines()) == 4
    assert read_ledger(ledger)["repeat"].tolist() == [0, 1, 2]


def test_types_are_the_same_for_full_and_missing_ledgers(ledger):
    write(ledger, row(git_sha="0123456", alpha="0.25"))
    full, empty = read_ledger(ledger), read_ledger(ledger.with_name("no-such.csv"))
    assert list(empty.columns) == list(COLUMNS) and len(empty) == 0
    assert full.dtypes.to_dict() == empty.dtypes.to_dict()
    assert full["git_sha"][0] == "0123456" and full["alpha"][0] == "0.25"
    assert full["epochs"].dtype == np.int64 and full["val_accuracy"].dtype == np.float64


def test_numpy_numbers_are_written_as_plain_numbers(ledger):
    write(ledger, row(epochs=np.int64(8), val_accuracy=np.float64(0.25)))
    assert "np." not in ledger.read_text()
    assert read_ledger(ledger)["epochs"][0] == 8


def test_a_diverged_run_keeps_its_nan_loss(ledger):
    write(ledger, row(val_loss=float("nan")))
    assert np.isnan(read_ledger(ledger)["val_loss"][0])


@pytest.mark.parametrize("cut", [1, 2, 40, 150])
def test_a_torn_last_line_is_dropped_with_a_warning(ledger, cut):
    write(ledger, row(repeat=0), row(repeat=1, block="blöck"))
    ledger.write_bytes(ledger.read_bytes()[:-cut])
    with pytest.warns(TornRowWarning, match="block_wise-VGG16.csv"):
        assert read_ledger(ledger)["repeat"].tolist() == [0]


@pytest.mark.parametrize("cut", [1, 2, 40, 150])
def test_a_new_row_is_not_glued_to_a_torn_line(ledger, cut):
    write(ledger, row(repeat=0), row(repeat=1, block="blöck"))
    ledger.write_bytes(ledger.read_bytes()[:-cut])
    with pytest.warns(TornRowWarning):
        write(ledger, row(repeat=2))
    assert read_ledger(ledger)["repeat"].tolist() == [0, 2]


def test_a_torn_header_is_written_anew(ledger):
    write(ledger, row())
    ledger.write_bytes(ledger.read_bytes()[:30])
    with pytest.warns(TornRowWarning):
        assert len(read_ledger(ledger)) == 0
    with pytest.warns(TornRowWarning):
        write(ledger, row())
    assert len(read_ledger(ledger)) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0.5,1.25,", ",1.5,1.25,", "val_accuracy is '1.5'"),
        (",0.5,1.25,", ",nan,1.25,", "val_accuracy is 'nan'"),
        (",0.5,1.25,", ",0.5,", "37 values, must be 38"),
        (",8,5e-05,", ",many,5e-05,", "epochs is 'many'"),
        (",8,5e-05,", ",0,5e-05,", r"epochs is '0', must be a whole number in \[1, inf\]"),
        (";150,aa", ",aa", "curve is '90;150;150;150;150;150;150', must be 8 whole numbers"),
        (";150,aa", ";1.5,aa", "curve is '90;150;150;150;150;150;150;1.5', must be 8 whole"),
        ("block_wise", "blockwise", "method is 'blockwise', must be one of baseline_1,"),
        ("VGG16", "", "backbone is ''"),
        ("VGG16", '"VGG16', "not a CSV row"),
        (
            ",1.25,",
            ",1.35,",
            "check is '[0-9a-f]{12}', must be '[0-9a-f]{12}': a value was altered",
        ),
    ],
)
def test_a_damaged_row_is_refused_with_file_and_line(ledger, old, new, message):
    write(ledger, row(), row(), row())
    lines = ledger.read_text().splitlines(keepends=True)
    assert old in lines[2]
    lines[2] = lines[2].replace(old, new, 1)
    ledger.write_text("".join(lines))
    with pytest.raises(InputError, match=f"block_wise-VGG16.csv, line 3: {message}"):
        read_ledger(ledger)


def test_bytes_that_are_no_text_are_refused(ledger):
    write(ledger, row(), row())
    ledger.write_bytes(ledger.read_bytes().replace(b"VGG16", b"\xff\xfe", 1))
    with pytest.raises(InputError, match="line 2: not a CSV row"):
        read_ledger(ledger)


def test_windows_line_ends_are_read(ledger):
    write(ledger, row())
    ledger.write_bytes(ledger.read_bytes().replace(b"\n", b"\r\n"))
    assert read_ledger(ledger).iloc[0].to_dict() == row()


def test_another_table_is_neither_read_nor_appended_to(ledger):
    ledger.parent.mkdir()
    ledger.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="line 1: header is 'a,b'"):
        read_ledger(ledger)
    with pytest.raises(InputError, match="line 1: header is 'a,b'"):
        append_row(ledger, row())
    assert ledger.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_accuracy": 1.01}, "val_accuracy is '1.01'"),
        ({"curve": "90"}, "curve is '90', must be 8 whole numbers, one for each of its epochs"),
        ({"epochs": 2.5}, "epochs is '2.5'"),
        ({"alpha": 0.25}, "alpha is 0.25, must be text"),
        ({"block": "two\nlines"}, "must be text on one line"),
        ({"seconds": None}, "seconds is None"),
    ],
)
def test_a_bad_row_is_refused_and_nothing_written(ledger, change, message):
    with pytest.raises(InputError, match=message):
        append_row(ledger, row(**change))
    assert not ledger.exists()


def test_missing_and_unknown_columns_are_named(ledger):
    values = row() | {"accuracy": 1}
    del values["seed"]
    with pytest.raises(InputError, match=r"\['seed'\] and unknown columns \['accuracy'\]"):
        append_row(ledger, values)


def test_read_results_joins_ledgers_and_filters_backbones(tmp_path):
    for backbone in ("VGG16", "MobileNet"):
        append_row(tmp_path / f"block_wise-{backbone}.csv", row(backbone=backbone, key=backbone))
    (tmp_path / "notes.txt").write_text("not a ledger")
    assert set(read_results(tmp_path)["backbone"]) == {"VGG16", "MobileNet"}
    assert read_results(tmp_path, ["MobileNet"])["key"].tolist() == ["MobileNet"]
    assert len(read_results(tmp_path / "none")) == 0


def test_a_run_written_twice_counts_once(ledger):
    write(ledger, row(), row(), row(block="block_02"))
    assert read_results(ledger.parent)["block"].tolist() == ["block_01", "block_02"]


def test_search_and_final_rows():
    df = make_rows(["VGG16"])
    search, final = Results(df).search, Results(df).final
    assert set(search["split"]) == {"train[:10%]"} and set(final["split"]) == {"train[:70%]"}
    assert len(search) == 13 + 5 + 17 + 5 and len(final) == 8 * 4
    assert len(search) + len(final) == len(df)


@pytest.mark.parametrize(("stage", "split"), [("search", "train[:10%]"), ("final", "train[:70%]")])
def test_rows_of_two_settings_are_not_mixed(tmp_path, stage, split):
    append_row(tmp_path / "a-b.csv", row(key="1", split=split))
    append_row(tmp_path / "a-b.csv", row(key="2", split=split, batch_size=9))
    with pytest.raises(InputError, match="2 runs of method block_wise.* in key, batch_size;"):
        getattr(Results(read_results(tmp_path)), stage)


def test_a_method_that_proposes_one_block_has_one(tmp_path):
    for k in (2, 6):
        of = row(key=str(k), method="random", block=f"random_{k}", layers="a;b")
        append_row(tmp_path / "random-VGG16.csv", of)
    with pytest.raises(InputError, match="2 runs of method random, backbone VGG16 that differ in"):
        Results(read_results(tmp_path)).search  # noqa: B018


def test_ledgers_that_may_not_be_touched_are_one_line(tmp_path, monkeypatch):
    def shut(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    path = tmp_path / "block_wise-VGG16.csv"
    append_row(path, row())
    for name, act in (
        ("read_bytes", lambda: read_ledger(path)),
        ("mkdir", lambda: ledger_lock(tmp_path, "VGG16").__enter__()),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, shut)
            with pytest.raises(InputError, match="VGG16.* cannot be .*: Permission denied"):
                act()
    assert read_ledger(path).iloc[0].to_dict() == row()


@pytest.mark.parametrize("lost", [[], ["baseline_2"]])
def test_the_order_of_layers_comes_from_rows(lost):
    df = make_rows(["MobileNet"])
    df = df[~df["method"].isin(lost)].sample(frac=1, random_state=0)
    assert Results(df).layer_order("MobileNet") == layer_names("MobileNet")
    rows = Results(df).in_order("layer_wise", "MobileNet")
    assert rows["block"].tolist() == layer_names("MobileNet")
    assert rows["position"].tolist() == list(range(1, 55))


def test_the_order_of_more_than_99_blocks_goes_by_their_numbers():
    """NASNetMobile has as many; written in any order, and `block_100` is not before `block_11`."""
    numbers = np.random.default_rng(0).permutation(np.arange(1, 121))
    rows = [row(block=f"block_{i:02}", layers=f"layer_{i}", backbone="Many") for i in numbers]
    assert Results(pd.DataFrame(rows)).layer_order("Many") == [f"layer_{i}" for i in range(1, 121)]


def test_layers_without_a_known_order_come_as_written():
    df = make_rows(["VGG16"], methods=["layer_wise"])
    rows = Results(df).in_order("layer_wise", "VGG16")
    assert rows["block"].tolist() == layer_names("VGG16")
    assert rows["position"].tolist() == list(range(1, 14))


def test_windows_are_placed_by_the_number_in_their_name():
    df = make_rows(["ResNet50V2"]).sample(frac=1, random_state=0)
    rows = Results(df).in_order("sliding_window", "ResNet50V2")
    assert rows["position"].tolist() == list(range(1, 189))


def tied(tmp_path, accuracies):
    for number, accuracy in enumerate(accuracies, start=1):
        block = f"block_{number:02d}"
        values = row(key=block, block=block, val_accuracy=accuracy, best_val_accuracy=1 - accuracy)
        append_row(tmp_path / "block_wise-VGG16.csv", values)
    return read_results(tmp_path)


def test_the_best_block_has_the_highest_accuracy(tmp_path):
    df = tied(tmp_path, [0.25, 0.5, 0.75, 0.5])
    assert Results(df).winner("block_wise", "VGG16")["block"] == "block_03"
    assert Results(df, "best_val_accuracy").winner("block_wise", "VGG16")["block"] == "block_01"


def test_of_equal_blocks_the_one_nearest_the_input_is_best(tmp_path):
    df = tied(tmp_path, [0.25, 0.75, 0.75])[::-1]
    assert Results(df).winner("block_wise", "VGG16")["block"] == "block_02"


def test_no_search_and_a_wrong_criterion_are_refused():
    df = make_rows(["VGG16"])
    with pytest.raises(InputError, match="no search runs of block_wise on MobileNet"):
        Results(df).winner("block_wise", "MobileNet")
    with pytest.raises(InputError, match="select_on is 'loss', must be one of val_accuracy, best"):
        Results(df, "loss")


def test_summary_against_hand_computed_numbers(tmp_path):
    for repeat, accuracy in enumerate([0.5, 0.6, 0.7]):
        final = row(key=f"{repeat}", split="train[:70%]", repeat=repeat, val_accuracy=accuracy)
        append_row(tmp_path / "a-b.csv", final)
    alone = row(key="x", split="train[:70%]", method="baseline_1", val_accuracy=0.25)
    append_row(tmp_path / "a-b.csv", alone)
    append_row(tmp_path / "a-b.csv", row(val_accuracy=1.0))  # a search row: no part in it
    table = Results(read_results(tmp_path)).summary()
    assert table["method"].tolist() == ["baseline_1", "block_wise"]
    assert table["n"].tolist() == [1, 3]
    np.testing.assert_allclose(table["mean"], [0.25, 0.6], rtol=1e-12)
    np.testing.assert_allclose(table["sd"], [np.nan, 0.1], rtol=1e-12)


def test_reading_a_sound_ledger_warns_of_nothing(ledger):
    write(ledger, row(), row(repeat=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_ledger(ledger)
