"""The Makefile: options arrive as they were typed, and no old notebook passes for a new one."""

import json
import os
import shutil
import subprocess
import sys

import nbformat
import pytest
import yaml
from committed import PROJECT
from conftest import OPTIONS

from lib.params import ROOT

SHOW = """
show:
	@$(PY) -m lib settings $(SETTINGS) backbones="$$BACKBONES"
"""
CELLS = (
    "profile = 'quick'\nbackbones = None",
    "with open('executed', 'a') as _file:\n    print(repeats, file=_file)",
    "from lib.params import from_notebook\nparams = from_notebook(globals())",
)


@pytest.fixture
def project(tmp_path):
    """A copy of the project with one notebook, which writes a line when it is executed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "show.mk").write_text(SHOW)
    hidden = shutil.ignore_patterns("__pycache__", "weights")
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=hidden)
    shutil.copytree(PROJECT / "params", tmp_path / "params")
    (tmp_path / "params" / "mine.yaml").write_text("repeats: 2\n")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    cells[0].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "07_figures.ipynb")
    return tmp_path


def make(project, *words):
    """Run make in a project, with this Python and no option from outside."""
    environment = {k: v for k, v in os.environ.items() if k not in (*OPTIONS, "MAKEFLAGS", "BUILD")}
    takes = f"TAKES_show={' '.join(OPTIONS)}"
    command = ["make", f"PY={sys.executable}", takes, "-f", "Makefile", "-f", "show.mk", *words]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def shown(project, *words):
    """The folder of executed notebooks, and the parameters written for them."""
    made = make(project, "show", *words)
    assert made.returncode == 0, made.stderr
    (build,) = made.stdout.split()
    text = (project / build / "parameters.yaml").read_text(encoding="utf-8")
    return build, yaml.safe_load(text)


STRANGE = [
    "a=b",
    "my rows",
    "it's",
    'a "b"',
    "a;b",
    "$x",
    "$(x)",
    "a#b",
    "{a: b}",
    "*",
    "a\\b",
    "é",
]


@pytest.mark.parametrize("name", [" & ".join(STRANGE), "null"])
def test_paths_arrive_as_they_were_typed(project, name):
    profile = project / f"{name} folder" / "mine.yaml"
    profile.parent.mkdir()
    profile.write_text("epochs: 3\n")
    build, given = shown(project, f"RESULTS={name}", f"PROFILE={profile}", "BACKBONES=VGG16")
    assert given["results"] == name
    assert (given["profile"], given["epochs"]) == (f"{name} folder/mine.yaml", 3)
    assert build.startswith("build/mine/")


def test_values_with_spaces_stand_in_quotes(project):
    words = "SET=epochs=3 data='my photos/a=b' weights=\"it's/$w\" alpha='{MobileNet: 0.5}'"
    _, given = shown(project, words, "BACKBONES=VGG16 MobileNet")
    assert (given["data"], given["weights"], given["epochs"]) == ("my photos/a=b", "it's/$w", 3)
    assert (given["alpha"], given["backbones"]) == ({"MobileNet": 0.5}, ["VGG16", "MobileNet"])


REFUSED = [
    ("SET=data='my photos", "No closing quotation"),
    ("SET=data=my photos", "'photos' is not allowed"),
    ("RESULTS=a\nb", "results: 'a\\nb'"),
    ("PROFILE=$(shell touch made)", "profile: '$(shell touch made)'"),
    ("BACKBONES=VGG16:a", "VGG16:a"),
    ("BACKBONES=$(x) ;", "backbones"),
]


@pytest.mark.parametrize(("option", "words"), REFUSED)
def test_what_cannot_arrive_is_refused_in_one_line(project, option, words):
    made = make(project, "show", option)
    line, *more = made.stderr.splitlines()
    assert made.returncode and line.startswith("error: ") and words in line
    assert all(text.startswith("make: ***") for text in more)
    assert not (project / "build").exists() and not (project / "made").exists()


@pytest.mark.parametrize("workers", ["two", "-1", "1;2", "1.5", "100"])
def test_a_number_of_workers_that_is_none_is_refused(project, workers):
    made = make(project, "paper", f"WORKERS={workers}")
    assert made.returncode
    assert made.stderr.splitlines()[0].startswith(f"error: WORKERS: '{workers}' is not allowed")


def test_workers_of_ones_own_and_a_cluster_are_one_too_many(project):
    made = make(project, "paper", "WORKERS=2", "SCHEDULER=tcp://127.0.0.1:1")
    assert made.returncode and "allowed: one of the two" in made.stderr.splitlines()[0]


def execute(project):
    """Execute the notebook as `make paper PROFILE=mine` does."""
    build, _ = shown(project, "PROFILE=mine")
    path = project / build / "07_figures.ipynb"
    assert not path.exists()
    made = make(project, f"BUILD={build}", "BACKBONES=", f"{build}/07_figures.ipynb")
    return path, made


def test_a_notebook_is_executed_each_time_with_the_parameters_of_the_day(project):
    """And a run that fails leaves no notebook as if done, also where an earlier one was."""
    path, made = execute(project)
    assert made.returncode == 0, made.stdout
    cells = json.loads(path.read_text())["cells"]
    assert "repeats = 2\n" in "".join(cells[1]["source"])

    file = path.with_name("parameters.yaml")
    text = file.read_text().replace("\nrepeats: 2\n", "\nrepeats: 3\n")
    file.write_text(text.replace("\nepochs: 50\n", "\nepochs: 0\n"))
    build = path.parent.relative_to(project)
    made = make(project, f"BUILD={build}", "BACKBONES=", f"{build}/07_figures.ipynb")
    assert made.returncode
    assert "InputError: override: epochs: 0 is not allowed" in made.stdout
    assert "failed: notebooks/07_figures.ipynb, cell [4]; see " in made.stdout
    assert path.with_suffix(".failed.ipynb").exists() and not path.exists()
    assert (project / "executed").read_text().split() == ["2", "3"]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *((c, o) for c in ("photos", "predict") for o in ("PROFILE=cpu", "WORKERS=2", "RESULTS=x")),
        *(("paper", o) for o in ("DIR=x", "BACKBONE=VGG16", "CLAIM=x", "NODE_PYTHON=3.12")),
        ("figures", "WORKERS=2"),
        ("claim", "CASE=x"),
        ("test", "PROFILE=cpu"),
        ("paper claim", "CASE=x"),
    ],
)
def test_an_option_that_would_count_for_nothing_is_refused(project, command, option):
    made = make(project, *command.split(), option)
    assert made.returncode == 2 and not made.stdout
    (line,) = made.stderr.splitlines()
    name = option.split("=")[0]
    assert f"*** {name}: make {command} takes no such option; allowed: " in line
    assert name not in line.partition("allowed: ")[2].split()


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("photos", ["DIR=x", "BACKBONE=VGG16", "OUT=y", "SET=epochs=1"]),
        ("predict", ["MODEL=m", "DIR=x", "OUT=y"]),
        ("seeds", ["PROFILE=cpu", "BACKBONES=VGG16", "RESULTS=x", "WORKERS=2", "SCHEDULER=s"]),
        ("seeds claim", ["WORKERS=2", "CLAIM=x"]),
        ("help", []),
        ("", ["PROFILE=cpu"]),
    ],
)
def test_options_of_a_command_are_taken(project, command, options):
    assert make(project, "-n", *command.split(), *options).returncode == 0
