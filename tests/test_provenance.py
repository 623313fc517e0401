"""The commit that a row names is that of the code which made it, or none."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lib.params import ROOT
from lib.provenance import COMMIT, git_sha, pack_commit
from lib.upkeep.verify import tracked


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def repository(folder):
    """A repository with one commit of a project's shape."""
    for name in ("lib", "params", "results"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.py").write_text("1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "one")
    return folder


def copied(project, target):
    """The project's files without its repository."""
    shutil.copytree(project, target, ignore=shutil.ignore_patterns(".git"))
    return target


@pytest.fixture
def project(tmp_path):
    return repository(tmp_path / "project")


def test_the_commit_and_whether_code_differs(project):
    commit = git(project, "rev-parse", "--short=12", "HEAD")
    assert git_sha(project) == commit
    (project / "results" / "row.csv").write_text("a row\n")
    assert git_sha(project) == commit
    (project / "params" / "mine.yaml").write_text("epochs: 1\n")
    assert git_sha(project) == f"{commit}-dirty"


def test_the_repository_around_an_unpacked_project_is_not_asked(project, tmp_path):
    around = repository(tmp_path / "around")
    inside = copied(project, around / "inside")
    assert git_sha(inside) == ""
    git(around, "add", ".")
    git(around, "commit", "-qm", "two")
    assert git_sha(inside) == ""


def test_files_that_a_foreign_repository_tracks_are_not_all_of_ours(project, tmp_path):
    around = repository(tmp_path / "around")
    inside = copied(project, around / "inside")
    git(around, "add", "inside/params")
    assert tracked(inside) == {Path("params/a.py"), Path("results/a.py")}


def test_a_bundle_inside_a_repository_tells_its_own_commit(project, tmp_path):
    inside = copied(project, repository(tmp_path / "around") / "bundle")
    pack_commit(project, inside)
    assert git_sha(inside) == git_sha(project) != ""
    (inside / "lib" / "a.py").write_text("2\n")
    assert git_sha(inside) == f"{git_sha(project)}-dirty"


def test_a_bundle_of_unknown_commit_stays_unknown(project, tmp_path):
    unknown = copied(project, tmp_path / "unknown")
    inside = copied(project, tmp_path / "bundle")
    pack_commit(unknown, inside)
    (inside / "lib" / "a.py").write_text("2\n")
    assert git_sha(inside) == ""


def test_variables_of_another_repository_do_not_mislead(project, tmp_path, monkeypatch):
    around = repository(tmp_path / "around")
    (around / "lib" / "b.py").write_text("2\n")
    git(around, "add", ".")
    git(around, "commit", "-qm", "two")
    own = git_sha(project)
    monkeypatch.setenv("GIT_DIR", str(around / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(around))
    assert git_sha(project) == own


def test_a_repository_that_git_refuses_to_read_is_no_commit(project, monkeypatch):
    shutil.rmtree(project / ".git" / "objects")
    assert git_sha(project) == ""
    assert not (project / COMMIT).exists() and project != ROOT
