"""The tables in the README and in docs/, written from committed rows and never by hand."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pandas as pd

from ..audit.tables import gain_table, remarks, verdict_table
from ..controls import Controls, read_controls
from ..methods import ABBREVIATIONS, TABLE1
from ..params import ROOT, Params, described, load_params
from ..report.paper import accuracies, compare, statistics
from ..report.tables import markdown
from ..results import Results
from ..study import report as choice
from ..tune.settings import Settings
from ..tune.strategies import STRATEGIES
from .speed import read_bench, scaling_file, scaling_words, speed_table, speed_words

PROFILE = "cpu"  # the profile whose committed rows the pages show
TABLED = ("results", "speed", "parameters", "photos", "choice", "cluster")
PAGES = ("README.md", *(f"docs/{name}.md" for name in TABLED))


def replaced(text: str, name: str, content: str) -> str:
    """`text` with what stands between the marks of section `name` made anew."""
    place = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    return place.sub(lambda match: match[1] + content + match[2], text)


def contents(root: Path = ROOT) -> dict[str, str]:
    """What stands in each section that is made of rows, by its name."""
    params = load_params(PROFILE, results=str(root / "results" / PROFILE))
    bench = read_bench(root / "results" / "bench.csv")
    made = sections(Results.read(params), read_controls(params), bench)
    return made | scaling(root) | choice.sections(root)


def scaling(root: Path = ROOT) -> dict[str, str]:
    """The section of docs/cluster.md that is made of what `make scaling` measured."""
    measured, simulated = (read_bench(scaling_file(w, root)) for w in ("workers", "simulated"))
    return {"scaling": scaling_words(measured, simulated)}


def sections(results: Results, controls: Controls, bench: pd.DataFrame) -> dict[str, str]:
    """What `contents` gives, from results of `PROFILE` that are read already."""
    native, batch_norms = controls["native"], controls["batch_norms"]
    sources = {"": results, "_native": native}
    sources |= {f"_{name}": controls[name] for name in ("native_longer", "larger")}
    return {
        "rows": comparison(results, native),
        "verdicts": verdict_table(results, native),
        "gains": gain_table([results, native], batch_norms),
        "reruns": gain_table(controls.reruns, batch_norms),
        "remarks": remarks(results, controls),
        "costs": costs({PROFILE + kind: source.rows for kind, source in sources.items()}),
        "bench": speed_table(bench),
        "bench-words": speed_words(bench),
        "parameters": parameters(Params),
        "settings": parameters(Settings),
        "strategies": strategies(),
    }


def _fresh(root: Path, made: dict[str, str]) -> Iterator[tuple[Path, str]]:
    """The pages whose tables differ from those made of rows, and their text with tables anew."""
    for path in (root / page for page in PAGES):
        old = new = path.read_text(encoding="utf-8")
        for name, content in made.items():
            new = replaced(new, name, content)
        if new != old:
            yield path, new


def refresh(root: Path, made: dict[str, str]) -> None:
    """Rewrite the pages whose tables differ from the rows; made: as `contents` gives it."""
    for path, text in _fresh(root, made):
        path.write_text(text, encoding="utf-8", newline="\n")


def outdated(root: Path, made: dict[str, str]) -> Iterator[str]:
    """A line for each page whose tables are not what the rows give; made: as `contents` does."""
    for path, _ in _fresh(root, made):
        yield f"{path}: its tables are not what the rows give; make figures mends it"


def parameters(record: type) -> str:
    """Every parameter of a record as a Markdown table."""
    lines = [
        [f"`{name}`", about, allowed, f"`{default}`" if default else "required"]
        for name, about, allowed, default in described(record)
    ]
    table = markdown(["parameter", "what it is", "allowed", "default"], lines, "")
    return table.replace("---:", "---").lstrip()  # words are aligned to the left


def strategies() -> str:
    """Every strategy of `make photos` as a Markdown table."""
    (default,) = (f.default for f in fields(Settings) if f.name == "strategy")
    lines = [[f"`{s.name}`{' (default)' * (s.name == default)}", s.says]
             for s in STRATEGIES.values()]  # fmt: skip
    return markdown(["strategy", "what it does"], lines, "").replace("---:", "---").lstrip()


def comparison(results: Results, native: Results) -> str:
    """Table I, the paper's beside ours with both input scalings, as a Markdown table.

    Mean and Variance run over the backbones for which there are rows with both.
    """
    printed, ours = accuracies(), {"ours": compare(results), "ours, native inputs": compare(native)}
    cells = {what: table.set_index(["backbone", "method"]) for what, table in ours.items()}
    lines = []
    for name in printed.index:
        lines.append(
            [_network(name, results.rows), "paper", *map("{:.4f}".format, printed.loc[name])]
        )
        wanted = cells if name in load_params(PROFILE).backbones else ["ours"]  # one line says it
        lines += [["", what, *_cells(cells[what], name)] for what in wanted]
    whole = [name for name in printed.index if all(c["n"][name].all() for c in cells.values())]
    means = {"paper": printed, **{what: c["mean"].unstack() for what, c in cells.items()}}
    for statistic, digits in (("Mean", 4), ("Variance", 6)) if len(whole) > 1 else ():
        for what, table in means.items():
            values = statistics(table.loc[whole, list(TABLE1)]).loc[statistic]
            title = f"{statistic} of these {len(whole)}" if what == "paper" else ""
            lines.append([title, what, *(f"{value:.{digits}f}" for value in values)])
    return markdown(["", "", *ABBREVIATIONS.values()], lines, _setting(results.final))


def _network(name: str, rows: pd.DataFrame) -> str:
    alphas = set(rows[rows["backbone"] == name]["alpha"]) - {"1.0"}
    return f"{name} (ours: alpha {alphas.pop()})" if alphas else name


def _cells(table: pd.DataFrame, name: str) -> list[str]:
    """Ours for one backbone: mean ± sd over repeats."""
    reason = "not run" if name in load_params(PROFILE).backbones else "not run: no weights here"
    return [
        text.rpartition(" (")[0] if table["n"][name, method] else reason
        for method, text in table["ours"][name][list(TABLE1)].items()
    ]


def _setting(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    (repeats,) = set(rows.groupby(["backbone", "method"]).size())
    return (
        f"Accuracy on the last 30 % of tf_flowers ({first['eval_images']} photos) after training"
        f" on the first 70 %. Paper: 224 px, 50 epochs, one run, inputs in [0, 1]. Ours: mean ± sd"
        f" of {repeats} repeats, {first['image_size']} px, {first['epochs']} epochs, with inputs in"
        f" [0, 1] and as each network was pre-trained with (native)."
    )


def costs(sources: dict[str, pd.DataFrame]) -> str:
    """How many runs the rows of each profile are, and how long training them took, as a line."""
    parts = []
    for profile, rows in sources.items():
        runs = rows.drop_duplicates("key").groupby("backbone", sort=False)["seconds"]
        hours = [f"{name} {len(each)} runs in {each.sum() / 3600:.1f} h" for name, each in runs]
        if hours:
            parts.append(f"`{profile}`: {', '.join(hours)}")
    return f"The committed rows of {'; '.join(parts)}.\n"
