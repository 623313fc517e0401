"""Copies of the notebooks with the parameters of tests: ``python tests/prepare.py`` for nbval."""

import logging
from pathlib import Path

import papermill

FOLDER = Path("build/nbval")
SMOKE = {"profile": "smoke", "results": f"{FOLDER}/rows", "backbones": "VGG16"}
OTHERS = {"00_start": {}, "09_your_photos": {"out": f"{FOLDER}/photos"}}

logging.getLogger("papermill").setLevel("ERROR")  # it takes unknown names for mistakes
FOLDER.mkdir(parents=True)
for path in sorted(Path("notebooks").glob("*.ipynb")):
    given = OTHERS.get(path.stem, SMOKE)
    papermill.execute_notebook(path, FOLDER / path.name, given, prepare_only=True)
