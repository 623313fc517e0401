"""Nothing of a user's own settings reaches the tests; this is read before anything is imported.

KERAS_BACKEND stays, which chooses what is tested, and TFDS_DATA_DIR, which says where photos are.
"""

import atexit
import gc
import os
import re
import shutil
import tempfile
from pathlib import Path

FOREIGN = ("BLOCKWISE_", "MPL", "MATPLOTLIBRC", "TF_NUM_", "TF_DETERMINISTIC", "KERAS_MAX_")
FOREIGN += ("GIT_", "MAKE", "MFLAGS")
MAKEFILE = Path(__file__).resolve().parent.parent / "Makefile"
# Those of make, which the Makefile hands on through the environment; one line of it names them all.
OPTIONS = re.search(r"(?m)^OPTIONS *:= (.+)$", MAKEFILE.read_text(encoding="utf-8"))[1].split()

for name in list(os.environ):
    if name.startswith(FOREIGN) or name in OPTIONS:
        del os.environ[name]
for name in ("KERAS_HOME", "BLOCKWISE_CACHE", "IPYTHONDIR"):
    os.environ[name] = tempfile.mkdtemp(prefix=name.lower())
    atexit.register(shutil.rmtree, os.environ[name], ignore_errors=True)
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: TensorFlow takes one thread
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}

import matplotlib  # noqa: E402

matplotlib.rcdefaults()


def pytest_collection_finish():
    """Imported code stays, so collections of garbage skip it: 24 CPU seconds instead of 26."""
    gc.collect()
    gc.freeze()
