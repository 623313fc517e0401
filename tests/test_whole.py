"""Files that are there whole or not at all (`lib.whole`)."""

import os
import resource
import signal
import subprocess
import sys

import pandas as pd
import pytest

from lib import executed
from lib.audit import figures
from lib.report import layers, style, tables
from lib.results import NOTHING
from lib.tune import gradients
from lib.upkeep import bench, pages, scaling
from lib.whole import whole

HALF = """
import os, signal, sys
from pathlib import Path
from lib.whole import whole
with whole(Path(sys.argv[1])) as draft:
    draft.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "rows" / "block_wise-MobileNet.csv"
    with whole(path) as draft:
        draft.write_text("old")
    return path


def test_a_file_is_replaced_at_the_end(path):
    with whole(path) as draft:
        assert draft.name == path.name  # Keras and NumPy go by its ending
        draft.write_text("new")
        assert path.read_text() == "old"
        assert [*path.parent.glob("*.csv")] == [path]  # readers of rows do not find the draft
    assert path.read_text() == "new" and [*path.parent.iterdir()] == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_leaves_the_file_as_it_was(path, error):
    with pytest.raises(error), whole(path) as draft:
        draft.write_text("half")
        raise error
    with pytest.raises(OSError), whole(path):
        pass  # nothing was written
    assert path.read_text() == "old" and [*path.parent.iterdir()] == [path]


def test_a_kill_leaves_the_file_as_it_was(path):
    code = subprocess.run([sys.executable, "-c", HALF, str(path)], check=False).returncode
    assert code == -signal.SIGKILL and path.read_text() == "old"
    assert [*path.parent.glob("*.csv")] == [path]
    with whole(path) as draft:  # what the other left is not in the way
        draft.write_text("new")
    assert path.read_text() == "new"


def test_two_that_write_one_file_do_not_meet(path):
    with whole(path) as one, whole(path) as other:
        one.write_text("one")
        other.write_text("other")
        assert one.read_text() == "one"
    assert path.read_text() == "one"  # the outer block ends last


def test_a_link_stays_a_link(path, tmp_path):
    link = tmp_path / "link.csv"
    link.symlink_to(path)
    with whole(link) as draft:
        draft.write_text("new")
    assert link.is_symlink() and path.read_text() == "new"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(path):
    path.parent.chmod(0o500)
    with pytest.raises(PermissionError), whole(path) as draft:
        draft.write_text("new")
    path.parent.chmod(0o700)
    assert path.read_text() == "old"


def keep_bench(folder):
    fields = dict.fromkeys(bench.Result.__dataclass_fields__, 1)
    bench._keep(bench.Result(**fields | {"case": "b", "machine": "m"}), folder / "bench.csv")


def draw(folder):
    style.save(style.styled(style.new_figure)("title", "caption", 2, 2), folder, "figure")


def refresh(folder):
    pages.refresh(folder, {"rows": "| 0.5 |\n" * 9})


WRITERS = {
    "bench.csv": keep_bench,
    "scaling_groups.csv": lambda folder: scaling._write([{"lanes": 16}] * 9, "groups"),
    "parameters.yaml": lambda folder: executed._write(folder, "epochs: 3\n" * 9),
    "table1.md": lambda folder: tables._write(folder, {"table1.md": "| 0.5 |\n" * 9}),
    "figure.png": draw,
    "layers.csv": lambda folder: layers.write_layers(folder / "layers.csv"),
    "README.md": refresh,
    "verdicts.md": lambda folder: figures.save_audit(NOTHING, NOTHING, folder),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_every_file_as_it_was(tmp_path, monkeypatch, name):
    monkeypatch.setattr(scaling, "scaling_file", lambda what: tmp_path / f"scaling_{what}.csv")
    monkeypatch.setattr(layers, "made_layers", lambda: pd.DataFrame({"layer": ["conv1"] * 9}))
    for figure in ("audit_gains", "audit_depth"):
        monkeypatch.setattr(figures, figure, lambda *sources: None)
    monkeypatch.setattr(figures, "save", lambda *figure: [])
    monkeypatch.setattr(figures, "verdict_table", lambda *sources: "| supported |\n" * 9)
    monkeypatch.setattr(pages, "PAGES", ["README.md"])
    old = "<!-- rows:begin -->\n<!-- rows:end -->\n" if name == "README.md" else "case,runs\na,1\n"
    (tmp_path / name).write_text(old)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # bytes that a file may have
    try:
        with pytest.raises((OSError, ValueError)):
            WRITERS[name](tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / name).read_text() == old
    WRITERS[name](tmp_path)  # there is room now
    assert (tmp_path / name).read_bytes() != old.encode()


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe\xff", b'layer,"norm\n1'])
def test_a_damaged_table_of_gradients_is_made_again(tmp_path, damaged):
    path, table = tmp_path / "gradients.csv", pd.DataFrame({"layer": ["conv1"], "norm": [0.5]})
    made = []

    def make():
        made.append(1)
        return table

    for content in (None, damaged):
        if content is not None:
            path.write_bytes(content)
        for _ in range(2):
            pd.testing.assert_frame_equal(gradients.kept(path, make), table)
    assert len(made) == 2
