"""Files that are there whole or not at all (`lib.whole`)."""

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

from lib.tune import gradients
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
