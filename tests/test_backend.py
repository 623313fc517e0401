"""Global settings of Keras that would change results are refused before anything is trained."""

import os
import subprocess
import sys

import keras
import pytest

from lib.backend import check_keras, out_of_memory
from lib.params import ROOT, InputError, load_params
from lib.sweep import search


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("max_epochs", 1, r"max_epochs \(KERAS_MAX_EPOCHS\) is 1; allowed: None"),
        ("max_steps_per_epoch", 1, r"max_steps_per_epoch \(KERAS_MAX_STEPS_PER_EPOCH\) is 1"),
        ("floatx", "float16", "floatx is 'float16'; allowed: float32"),
        ("dtype_policy", "mixed_bfloat16", "dtype_policy is 'mixed_bfloat16'; allowed: float32"),
        ("image_data_format", "channels_first", "image_data_format is 'channels_first'"),
        ("epsilon", 1e-3, "epsilon is 0.001"),
    ],
)
def test_a_setting_that_changes_results_is_refused(setting, value, message, tmp_path):
    change = getattr(keras.config, f"set_{setting}")
    read = getattr(keras.config, setting)
    before = read()
    change(value)
    try:
        with pytest.raises(InputError, match=f"Keras' {message}"):
            check_keras()
        with pytest.raises(InputError, match=f"Keras' {message}"):  # as a notebook would
            search(load_params("smoke", results=str(tmp_path / "rows")), "baseline_1")
    finally:
        change(before)
    assert not (tmp_path / "rows").exists()
    check_keras()


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.config, "backend", lambda: "torch")
    with pytest.raises(InputError, match="Keras' backend is 'torch'; allowed: tensorflow or jax"):
        check_keras()


@pytest.mark.parametrize("backend", ["torch", "tensorflw"])
def test_a_backend_that_cannot_start_is_one_line(backend):
    done = subprocess.run(
        [sys.executable, "-m", "lib", "check", "profile=smoke"],
        env={**os.environ, "KERAS_BACKEND": backend},
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: Keras cannot start: ")
    assert "KERAS_BACKEND" in done.stderr and done.stderr.count("\n") == 1


def test_a_command_says_so_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "lib", "check", "profile=smoke"],
        env={**os.environ, "KERAS_MAX_EPOCHS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: Keras' max_epochs (KERAS_MAX_EPOCHS) is 1; allowed: None\n"


@pytest.mark.parametrize(
    ("error", "is_lack_of_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GiB"), True),
        (RuntimeError("something else"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error, is_lack_of_memory):
    assert out_of_memory(error) == is_lack_of_memory
