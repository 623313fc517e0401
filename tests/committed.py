"""What git tracks of params, results, figures, docs and the README, copied to a folder of its own.

Tests of what is committed look there: whatever a user has added to these folders is no concern of
theirs.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

from lib.params import ROOT
from lib.upkeep.verify import copy_tracked


def copied(source: Path) -> Path:
    """Copy what is tracked of a project into a new folder, which lasts as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="committed-"))
    atexit.register(shutil.rmtree, folder)
    copy_tracked(source, folder)
    return folder


PROJECT = copied(ROOT)
RESULTS = PROJECT / "results" / "cpu"
SHIPPED = sorted(path.stem for path in (PROJECT / "params").glob("*.yaml"))
