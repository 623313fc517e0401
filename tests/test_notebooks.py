"""What holds for the source of every notebook; that they run is tested by nbval."""

import ast

import nbformat
import pytest

from lib.params import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_checks_and_says_what_is_wrong(path):
    nodes = [node for cell in code_cells(path) for node in ast.walk(ast.parse(cell.source))]
    asserts = [node for node in nodes if isinstance(node, ast.Assert)]
    assert asserts
    silent = [ast.unparse(node) for node in asserts if node.msg is None]
    assert not silent


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path):
    cells = code_cells(path)
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    tagged = [c for c in cells if "parameters" in c.metadata.get("tags", ())]
    assert len(tagged) == 1
