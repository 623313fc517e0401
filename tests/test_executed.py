"""Where executed notebooks go, what they are told, and that none of an earlier run is left."""

import dataclasses
import re

import pytest
import yaml

from lib import executed
from lib.executed import FILE, folder, prepare, resolved
from lib.params import ROOT, InputError, from_notebook, load_params

PLACES = ["a/b", "a-b", "a=b", "a b", "a'b", "a", "..", ".", "../a", "/", "/a", "a" * 300, "%", "é"]
PLACES += [
    "a" * 301,
    "a:b",
    "$(x)",
    "#",
    "-a",
    ".a",
    "a/.b",
    "~",
    "ä",
    "a.b",
    "{}",
]


def test_each_folder_of_rows_has_its_own_safe_folder():
    folders = [folder(load_params("quick", results=place)) for place in PLACES]
    assert len(set(folders)) == len(PLACES)
    for found in folders:
        assert found.parent == ROOT / "build" / "quick"
        assert re.fullmatch(r"[\w.-]{1,100}", found.name, re.ASCII)
        assert found.name[0] not in ".-"
    assert folder(load_params("quick")) == ROOT / "build" / "quick"
    assert folder(load_params("quick", results="a/b")).name == "a-b"
    same = {folder(load_params("quick", results=f)) for f in ("a b", "a b/", "./a b", ROOT / "a b")}
    assert len(same) == 1


@pytest.mark.parametrize("changes", [{}, {"results": "a b='c'", "figures": "f", "top_k": [2]},
                                     {"results": "./~", "figures": "./~x"},
                                     {"final_epochs": 9, "alpha": {"MobileNet": 0.5}}])  # fmt: skip
@pytest.mark.parametrize("profile", ["quick", "cpu", "paper"])
def test_notebooks_get_what_the_profile_gives(profile, changes):
    params = load_params(profile, **changes)
    given = yaml.safe_load(yaml.safe_dump(resolved(params, profile)))
    found = from_notebook(given)
    assert (found.results_dir, found.figures_dir) == (params.results_dir, params.figures_dir)
    same = {"final_epochs": found.final_epochs}
    same |= {"results": found.results, "figures": found.figures}
    assert dataclasses.replace(params, **same) == found
    assert found.final_epochs == (params.final_epochs or params.epochs)


def test_a_profile_that_changes_later_changes_no_parameter(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 3\n")
    given = resolved(load_params(str(path)), str(path))
    path.write_text("epochs: 4\nrepeats: 7\nfinal_epochs: 5\nresults: other\ntop_k: [2]\n")
    found = from_notebook(given)
    assert (found.epochs, found.repeats, found.final_epochs, found.top_k) == (3, 4, 3, (3, 5))
    assert found.results_dir == ROOT / "results" / "mine"


@pytest.fixture
def build(tmp_path, monkeypatch):
    """The folder of executed notebooks of a project that holds nothing else."""
    monkeypatch.setattr(executed, "ROOT", tmp_path)
    return tmp_path / "build" / "quick"


def test_no_notebook_of_an_earlier_run_passes_for_this_ones(build):
    prepare(load_params("quick"), "quick")
    others = build / "results-other"
    others.mkdir()
    for place in (build, others):
        (place / "07_figures.ipynb").write_text("executed")
    prepare(load_params("quick", repeats=3), "quick")
    assert not list(build.glob("*.ipynb")) and list(others.glob("*.ipynb"))
    assert yaml.safe_load((build / FILE).read_text(encoding="utf-8"))["repeats"] == 3


def test_a_file_in_the_place_of_the_folder_is_one_line(build):
    build.parent.write_text("a file")
    with pytest.raises(InputError, match="build/quick cannot be written"):
        prepare(load_params("quick"), "quick")
