"""A user's own settings reach neither the tests nor what make runs."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, version

from packaging.requirements import Requirement

from lib.params import ROOT

LOOK = """
import conftest, os
import keras, matplotlib.pyplot as plt
from lib.params import load_params
print(keras.config.floatx(), keras.config.image_data_format(), plt.rcParams["font.size"])
print(plt.get_backend().lower(), load_params("smoke").cache_dir.is_dir(), "SET" in os.environ)
"""


def users(folder):
    """The environment of a user who has set all kinds of things."""
    for name in ("keras", "other/lib"):
        (folder / name).mkdir(parents=True)
    settings = {"floatx": "float16", "image_data_format": "channels_first"}
    (folder / "keras" / "keras.json").write_text(json.dumps(settings))
    (folder / "other" / "lib" / "__init__.py").write_text("raise ImportError('another lib')")
    (folder / "matplotlibrc").write_text("font.size: 40\n")
    return os.environ | {
        "KERAS_BACKEND": "numpy",  # the quickest to import
        "KERAS_HOME": str(folder / "keras"),
        "MATPLOTLIBRC": str(folder / "matplotlibrc"),
        "MPLBACKEND": "nonsense",
        "BLOCKWISE_CACHE": "/dev/null/nowhere",
        "TF_NUM_INTRAOP_THREADS": "many",
        "PYTHONPATH": str(folder / "other"),
        "PYTHONOPTIMIZE": "2",
        "PROFILE": "quik",
        "SET": "epochs=7",
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }


def test_the_tests_see_none_of_a_users_settings(tmp_path):
    environment = users(tmp_path) | {"PYTHONPATH": f"{ROOT}/tests:{ROOT}"}
    run = [sys.executable, "-W", "ignore", "-c", LOOK]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["float32 channels_last 10.0", "agg True False"], done.stderr


SHOW = """
show:
	@cd / && PY -c 'import lib, os, sys; print(lib.__path__, sys.flags.utf8_mode, __debug__)'
	@$(ALONE) PY -c 'import os; print([os.environ.get(n) for n in ("SET", "MPLBACKEND", "HOME")])'
"""


def test_make_puts_the_project_first_and_its_tests_alone(tmp_path):
    environment = {k: v for k, v in users(tmp_path).items() if not k.startswith("MAKE")}
    (tmp_path / "show.mk").write_text(SHOW.replace("PY", sys.executable))
    run = ["make", "-f", "Makefile", "-f", str(tmp_path / "show.mk"), "show"]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, cwd=ROOT)
    home = os.environ.get("HOME")
    wanted = [f"{[str(ROOT / 'lib')]} 1 True", f"{[None, None, home]}"]
    assert done.stdout.splitlines() == wanted, done.stderr


def test_what_is_needed_is_locked_with_hashes_at_the_versions_that_are_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["test"]]
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    locked = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            requirement, *hashes = line.split("--hash=")
            assert hashes, line
            found = Requirement(requirement)
            locked[found.name] = str(found.specifier)
    assert {name: locked[name] for name in wanted} == {n: f"=={version(n)}" for n in wanted}


OPTIONAL = {"jax", "onnxruntime"}  # the other backend; an export that is tried where it can be


def test_everything_that_the_library_imports_is_named_as_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = set(project["project"]["dependencies"])
    imported = set()
    for path in (ROOT / "lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    packages = packages_distributions()
    foreign = imported - set(sys.stdlib_module_names) - {"lib"} - OPTIONAL
    for name in foreign:
        assert named & {re.sub("[-_.]+", "-", d).lower() for d in packages[name]}, name
