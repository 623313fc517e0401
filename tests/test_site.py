"""The static site: every link leads somewhere, nothing comes from elsewhere, a browser agrees."""

import base64
import io
import shutil
from pathlib import Path

import browser
import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from lib.params import ROOT, InputError
from lib.upkeep import site

NAMES = ("01_baselines", "02_layer_wise")
ALL = sorted((ROOT / "notebooks").glob("*.ipynb"))


def dot() -> str:
    """A picture of one pixel."""
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> list[Path]:
    """The project's own README and docs, and some executed notebooks."""
    folder = tmp_path_factory.mktemp("site")
    picture = new_output("display_data", {"image/png": dot()})
    cells = [
        new_markdown_cell("# One\n[next](02_layer_wise.ipynb), [rules](../docs/verdicts.md)"),
        new_markdown_cell("[all](07_figures.ipynb)"),
        new_code_cell("print('<b>')", outputs=[new_output("stream", text="<script>"), picture]),
        new_code_cell("bar", outputs=[new_output("stream", name="stderr", text="17%|progress")]),
        new_code_cell("menu", outputs=[new_output("display_data", {site.WIDGET: {}})]),
    ]
    for name in (*NAMES, "07_figures"):
        path = folder / f"executed/{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(new_notebook(cells=cells), path)
    (folder / "executed/07_figures.failed.ipynb").write_text("{}")
    another = folder / "executed/build-mine"
    another.mkdir()
    shutil.copy(folder / "executed/07_figures.ipynb", another)
    return site.build(folder / "executed", folder / "site")


def test_every_source_has_a_page(pages):
    names = {path.relative_to(pages[0].parent).as_posix() for path in pages}
    docs = {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")}
    ours = {f"notebooks/{path.stem}.html" for path in ALL}
    assert names == {"index.html"} | docs | ours


def test_links_stay_inside_and_nothing_is_loaded_from_elsewhere(pages):
    for page in pages:
        body = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
        for tag in body.find_all(src=True) + body.find_all("link"):
            loaded = tag.get("src") or tag["href"]
            assert loaded.startswith("data:") or (page.parent / loaded).is_file(), (page, loaded)
        for tag in body.find_all("a", href=True):
            link = tag["href"].partition("#")[0]
            if link and not link.startswith(("http://", "https://")):
                assert (page.parent / link).is_file(), (page, link)
                assert not link.endswith(".ipynb"), (page, link)
        assert not body.find("script") and "17%|progress" not in body.text


def test_links_of_executed_notebooks_lead_to_pages(pages):
    page = next(path for path in pages if path.stem == "01_baselines")
    links = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").main.find_all("a")
    found = {tag.text: (page.parent / tag["href"]).resolve() for tag in links}
    assert found["next"] == page.parent / "02_layer_wise.html"
    assert found["rules"] == page.parents[1] / "docs" / "verdicts.html"
    assert found["all"] == page.parent / "07_figures.html"


def test_without_executed_notebooks_there_is_no_site(tmp_path):
    with pytest.raises(InputError, match="holds no executed notebooks; allowed: after make paper"):
        site.build(tmp_path, tmp_path / "site")


@pytest.mark.long
def test_a_browser_shows_every_page_without_complaint(pages):
    def look(tab, page):
        assert tab.locator("nav a").count() == len(pages) - 1

    assert browser.visit(pages, look) == []
