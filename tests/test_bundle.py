"""What is packed for a machine without a network trains there, without TensorFlow or git."""

import os
import subprocess
import sys
import tarfile
from dataclasses import replace

import keras
import pytest
import yaml
from rows import row

from lib.backbones.build import write_backbone
from lib.ledger import append_row, read_results, run_key
from lib.methods import methods
from lib.params import InputError, Params, load_params
from lib.photos.dataset import load_data, pack
from lib.plan import Plan
from lib.provenance import git_sha
from lib.upkeep import bundle


def params_of(tmp_path, **changes):
    return load_params("smoke", backbones=("VGG16",), results=str(tmp_path / "rows"), **changes)


def on_jax(run):
    return run_key({**run.settings, "backend": "jax"})


def unpack(parts, folder):
    whole = folder / "whole.tar"
    whole.write_bytes(b"".join(part.read_bytes() for part in sorted(parts)))
    with tarfile.open(whole) as tar:
        tar.extractall(folder, filter="data")
    return folder / "smoke"


def test_a_bundle_is_cut_into_parts_and_knows_its_settings_where_it_is_unpacked(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(bundle, "PART_BYTES", 2**20)
    params = params_of(tmp_path)
    parts = bundle.bundle(params, tmp_path / "parts", lambda tree: (tree / "wheels").mkdir())
    assert len(parts) > 1 and all(p.stat().st_size <= 2**20 for p in parts)
    assert sorted((tmp_path / "parts").iterdir()) == parts  # nothing else is left behind
    there = yaml.safe_load((unpack(parts, tmp_path) / "smoke.yaml").read_text())
    places = ("data", "data_dir", "weights", "results", "figures")
    assert Params("smoke", **there | {name: getattr(params, name) for name in places}) == params


def test_an_earlier_bundle_stays_where_no_new_one_can_be_made(tmp_path, monkeypatch):
    def no_network(tree):
        raise InputError("bundle: pip cannot have the wheels; allowed: a network")

    monkeypatch.setattr(bundle, "_copy_inputs", lambda params, tree: None)  # takes seconds
    params, old = params_of(tmp_path), [tmp_path / f"smoke.tar.{n}" for n in ("0000", "0001")]
    for part in old:
        part.write_bytes(b"old")
    with pytest.raises(InputError, match="cannot have the wheels"):
        bundle.bundle(params, tmp_path, no_network)
    assert [part.read_bytes() for part in old] == [b"old", b"old"]
    (part,) = bundle.bundle(params, tmp_path, lambda tree: None)
    assert part == old[0] and part.read_bytes() != b"old"
    assert [*tmp_path.iterdir()] == [part]


def test_a_shell_joins_more_than_a_hundred_parts_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle, "PART_BYTES", 2)
    archive = tmp_path / "archive"
    archive.write_bytes(bytes(range(250)))
    assert len(bundle._cut(archive, tmp_path / "smoke.tar")) == 125
    joined = subprocess.run("cat smoke.tar.*", shell=True, cwd=tmp_path, stdout=subprocess.PIPE)
    assert joined.stdout == archive.read_bytes()


def test_a_keras_file_goes_along_and_keeps_its_place_in_the_profile(tmp_path):
    image = keras.Input((32, 32, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(tmp_path / "mine.keras")
    sources = ("VGG16", str(tmp_path / "mine.keras"))
    params = replace(params_of(tmp_path), backbones=sources, thin=False, weights="none")
    (tree := tmp_path / "tree").mkdir()
    bundle._copy_inputs(replace(params, backbones=sources[1:]), tree)
    bundle._write_settings(params, tree)
    assert yaml.safe_load((tree / "smoke.yaml").read_text())["backbones"] == [
        "VGG16",
        "weights/mine.keras",
    ]
    assert (tree / "weights" / "mine.keras").read_bytes() == (tmp_path / "mine.keras").read_bytes()
    with pytest.raises(InputError, match="a file cannot be given to EfficientNetB0"):
        write_backbone(params, "EfficientNetB0", tree / "weights")


@pytest.mark.long
@pytest.mark.parametrize("workers", ["", "2"])
def test_a_bundle_trains_what_the_project_would(tmp_path, workers):
    params = params_of(tmp_path)
    parts = bundle.bundle(params, tmp_path / "parts", lambda tree: (tree / "wheels").mkdir())
    tree = unpack(parts, tmp_path)

    absent = tmp_path / "absent"  # a machine without TensorFlow
    for name in ("tensorflow", "tensorflow_datasets"):
        (absent / name).mkdir(parents=True)
        (absent / name / "__init__.py").write_text("raise ImportError('not on this machine')")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("BLOCKWISE", "TFDS"))}
    environment |= {"PYTHON": sys.executable, "KERAS_BACKEND": "jax", "PYTHONPATH": str(absent)}
    environment["WORKERS"] = workers
    subprocess.run(["sh", tree / "run.sh", "top_k=[3]"], env=environment, check=True, cwd="/")

    rows = read_results(tree / "results")
    plan = Plan(params, "VGG16", load_data(params))
    searched = [m for m in methods(params) if not m.startswith("top_")]
    assert {on_jax(r) for m in searched for r in plan.search_runs(m)} <= set(rows["key"])
    assert (rows["split"] == params.final_split).sum() == params.repeats * len(set(rows["method"]))
    assert set(rows["backend"]) == {"jax"} and set(rows["git_sha"]) == {git_sha()}


def test_rows_of_jax_so_far_go_along_and_stay_apart_from_those_of_another_backend(tmp_path):
    params = params_of(tmp_path)

    def packed(name):
        parts = bundle.bundle(params, tmp_path / name, lambda tree: None)
        (tmp_path / name / "there").mkdir()
        return read_results(unpack(parts, tmp_path / name / "there") / "results")["key"].tolist()

    ledger = params.results_dir / "block_wise-VGG16.csv"
    append_row(ledger, row(key="1", backend="jax"))
    assert (bundle.folder_for(params), packed("one")) == (params.results_dir, ["1"])
    append_row(ledger.with_name("top_3-VGG16.csv"), row(method="top_3", key="2"))
    assert (bundle.folder_for(params), packed("ranked")) == (params.results_dir, ["1", "2"])
    append_row(ledger, row(key="2", backend="tensorflow", split=params.final_split))
    back = params.results_dir.with_name("rows_jax")
    assert (bundle.folder_for(params), packed("two")) == (back, [])
    append_row(back / ledger.name, row(key="3", backend="jax"))
    assert packed("three") == ["3"]


def test_wheels_are_what_training_imports():
    names = {line.split("==")[0] for line in bundle.wheels()}
    assert {"keras", "numpy", "pandas", "h5py", "namex", "optree"} <= names
    assert not names & {"tensorflow", "jax", "jupyterlab", "papermill", "seaborn"}


def test_wheels_that_cannot_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "wheels.txt").write_text("keras==3.15.1\n")
    with pytest.raises(InputError, match="NODE_PYTHON '3.12': pip cannot have the wheels: .*keras"):
        bundle.download_wheels(tmp_path, "3.12")


def test_packed_photos_are_the_same_data(tmp_path):
    params = params_of(tmp_path)
    dataset = load_data(params)
    pack(dataset, tmp_path / "photos.npz")
    packed = load_data(params_of(tmp_path, data=str(tmp_path / "photos.npz")))
    assert (packed.digest, packed.source) == (dataset.digest, dataset.source)
