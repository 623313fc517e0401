"""The project as one static site: README, docs, executed notebooks, figures (`make site`).

A page is HTML from Markdown or from a notebook, with the same list of pages on top of each. Nothing
is loaded from elsewhere: styles lie beside the pages, pictures are copied or are part of the page.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import nbformat
from bs4 import BeautifulSoup
from jinja2 import Environment
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from ..params import ROOT, InputError

WIDGET = "application/vnd.jupyter.widget-view+json"
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{{ up }}style.css">
</head>
<body>
<nav>
{% for group, links in menu.items() %}<p><b>{{ group }}</b>
{% for name, target in links %}{% if target == here %}<i>{{ name }}</i>
{% else %}<a href="{{ up }}{{ target }}">{{ name }}</a>
{% endif %}{% endfor %}</p>
{% endfor %}</nav>
<main>
{{ body | safe }}
</main>
</body>
</html>
"""
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 0 auto;
       padding: 1rem; }
nav { font-size: 0.85rem; border-bottom: 1px solid #ccc; margin-bottom: 1rem; }
nav p { margin: 0.2rem 0; }
nav a, nav i { margin-right: 0.6rem; white-space: nowrap; }
main img, main svg { max-width: 100%; height: auto; }
main table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 0.85rem; }
th, td { border: 1px solid #ddd; padding: 0.2rem 0.5rem; text-align: left; vertical-align: top; }
pre { background: #f6f8fa; padding: 0.6rem; overflow-x: auto; font-size: 0.85rem; }
code { font-size: 0.9em; }
blockquote { border-left: 3px solid #ccc; margin-left: 0; padding-left: 1rem; color: #555; }
.prompt, .anchor-link, .jp-InputPrompt, .jp-OutputPrompt { display: none; }
.output_area pre, .jp-OutputArea-output pre { background: none; border-left: 3px solid #ddd; }
"""


def build(executed: Path, folder: Path, root: Path = ROOT) -> list[Path]:
    """Write the site anew.

    Args:
        executed: folder of executed notebooks, as `make paper` leaves it.
        folder: where the site goes; what is there is removed.

    Returns:
        Every page, the first of them ``index.html``.

    Raises InputError where there are no executed notebooks.
    """
    pages = _pages(executed, root)
    shutil.rmtree(folder, ignore_errors=True)
    for source, target in pages.items():
        page = folder / target
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(_page(source, target, pages, folder, root), encoding="utf-8")
    style = STYLE + HtmlFormatter().get_style_defs(".highlight")
    (folder / "style.css").write_text(style, encoding="utf-8")
    return [folder / target for target in pages.values()]


def _pages(executed: Path, root: Path) -> dict[Path, str]:
    """Where each source goes, as a path in the site."""
    notebooks = [p for p in sorted(executed.glob("*.ipynb")) if ".failed" not in p.name]
    if not notebooks:
        raise InputError(f"site: {executed} holds no executed notebooks; allowed: after make paper")
    pages = {root / "README.md": "index.html"}
    pages |= {path: f"docs/{path.stem}.html" for path in sorted((root / "docs").glob("*.md"))}
    there = {path.name: path for path in notebooks}
    for path in sorted((root / "notebooks").glob("*.ipynb")):  # or as it is, where not executed
        pages[there.get(path.name, path)] = f"notebooks/{path.stem}.html"
    return pages


def _menu(pages: Mapping[Path, str]) -> dict[str, list[tuple[str, str]]]:
    """The names and targets of all pages, by the folder in which they lie."""
    menu: dict[str, list[tuple[str, str]]] = {}
    for target in pages.values():
        path = PurePosixPath(target)
        group = path.parent.name or "start"
        menu.setdefault(group, []).append(("README" if group == "start" else path.stem, target))
    return menu


def _page(source: Path, target: str, pages: Mapping[Path, str], folder: Path, root: Path) -> str:
    body = BeautifulSoup(_html(source), "html.parser")
    up = "../" * target.count("/")
    for tag, attribute, path in _local_links(body):
        found = _executed(_find(path, source, root), pages)
        if found in pages:
            tag[attribute] = up + pages[found]
        elif found and found.is_file():
            tag[attribute] = up + _copy(found, folder, root)
        else:
            tag.unwrap()  # a folder, which a page cannot show
    title = f"{source.stem} · Block-wise fine-tuning"
    template = Environment(autoescape=True).from_string(PAGE)
    return template.render(title=title, up=up, menu=_menu(pages), here=target, body=str(body))


def _html(source: Path) -> str:
    """The content of a page, before its links are those of the site."""
    if source.suffix == ".md":
        return markdown2html(source.read_text(encoding="utf-8"))
    exporter = HTMLExporter(template_name="basic")
    notebook = nbformat.read(source, as_version=4)
    _results_only(notebook)
    return exporter.from_notebook_node(notebook)[0]


def _results_only(notebook: nbformat.NotebookNode) -> None:
    """Take out what needs a kernel, which a page has not, and progress bars and libraries' logs."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            shown = [o for o in cell.outputs if WIDGET not in o.get("data", {})]
            cell.outputs = [o for o in shown if o.get("name") != "stderr"]


def _local_links(body: BeautifulSoup) -> Iterator[tuple]:
    """Tags that name a file of the project, the attribute that does, and the file's path."""
    for tag, attribute in [("a", "href"), ("img", "src")]:
        for found in body.find_all(tag, **{attribute: True}):
            link = urlsplit(found[attribute])
            if link.path and not link.scheme:
                yield found, attribute, unquote(link.path)


def _find(path: str, source: Path, root: Path) -> Path | None:
    """The file that a link means: beside its page or, of an executed notebook, its source's."""
    for beside in (source.parent, root / "notebooks"):
        found = (beside / path).resolve()
        if found.exists():
            return found
    return None


def _executed(file: Path | None, pages: Mapping[Path, str]) -> Path | None:
    """Of a notebook's source the first executed copy; other files as they are."""
    same = [page for page in pages if file and page.name == file.name]
    return same[0] if same and file.suffix == ".ipynb" and file not in pages else file


def _copy(file: Path, folder: Path, root: Path) -> str:
    """Copy a file of the project into the site; its path there."""
    inside = file.relative_to(root)
    (folder / inside).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / inside)
    return inside.as_posix()
