"""The tables in the README and in docs/, written from committed rows and never by hand."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import pandas as pd

from ..audit.tables import agreement, gain_table, remarks, verdict_table
from ..ledger import read_results
from ..methods import ABBREVIATIONS, TABLE1, label
from ..params import BACKBONE_NAMES, ROOT, Params, described, load_params
from ..report.captions import listed
from ..report.paper import accuracies, compare, statistics
from ..report.tables import markdown
from ..results import NOTHING, Results
from ..study import report as choice
from ..tune.settings import Settings
from ..tune.strategies import STRATEGIES
from ..whole import write_whole
from .speed import read_bench, scaling_file, scaling_words, speed_table, speed_words

PROFILE = "cpu"  # the profile whose committed rows the pages show
TABLED = ("results", "paper-size", "speed", "parameters", "photos", "choice", "cluster")
PAPER_SIZE = ("paper_small", "paper_short")  # profiles of the paper's own photo size and inputs
PAPER_SIZE_NATIVE = ("paper_native",)  # of its photo size, and of native inputs
OTHER_BACKEND = "paper_small_tensorflow"  # final runs of paper_small once more, on another backend
NOT_RUN = {"ResNet50V2": "not run: no weights at hand", "VGG16": "not run: for lack of time"}
SETTING = (
    "Accuracy on 1,101 photos of tf_flowers after training on 70 % of it. LW: one layer; BW:"
    " a block; BWT3, BWT5: the best three, five layers; BWSW: a window of three layers, of"
    " which those with weights are tuned. Paper: 224 px, 50 epochs, inputs in [0, 1]; of one"
    " run, as every value is k/1101. Ours: the first 70 %, the last 30 %; mean ± sd of 4"
    " repeats, with their number where some are missing; inputs in [0, 1], or as each network"
    " was pre-trained with (native); alpha: the share of its channels; –: not run yet. Where"
    " BW and BWSW are equal, the best window is the best block: the same runs."
)
# In what the weights of the committed rows are not Keras' release, by the start of their SHA-256.
WEIGHTS = {
    "873111d1a3bf": "weights before they were averaged ([12](deviations.md))",
    "6c661f5f5d6f": "weights whose BatchNorms were unfolded ([12](deviations.md))",
}
PAGES = ("README.md", *(f"docs/{name}.md" for name in TABLED))


def _place(name: str) -> re.Pattern:
    """A section between its marks."""
    return re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)


def replaced(text: str, name: str, content: str) -> str:
    """`text` with what stands between the marks of section `name` made anew."""
    return _place(name).sub(lambda match: match[1] + content + match[2], text)


def contents(root: Path = ROOT) -> dict[str, str]:
    """What stands in each section that is made of rows, by its name."""
    params = load_params(PROFILE, results=str(root / "results" / PROFILE))
    bench = read_bench(root / "results" / "bench.csv")
    own, own_native = paper_sizes(root)
    made = sections(Results.read(params), Results.read_native(params), bench, own, own_native)
    return made | more(own, root)


def more(own: Sequence[Results], root: Path = ROOT) -> dict[str, str]:
    """The other sections; own: as `paper_size` gives them."""
    return _twice(own, root) | scaling(root) | choice.sections(root / "results")


def scaling(root: Path = ROOT) -> dict[str, str]:
    """The section of docs/cluster.md that is made of what `make scaling` measured."""
    measured, simulated = (read_bench(scaling_file(w, root)) for w in ("workers", "simulated"))
    return {"scaling": scaling_words(measured, simulated)}


def paper_size(root: Path = ROOT, names: Sequence[str] = PAPER_SIZE) -> list[Results]:
    """The results of each profile of the paper's own photo size that has any, see `of_paper`."""
    folders = (root / "results" / name for name in names)
    profiles = (load_params(f.name, results=str(f)) for f in folders if f.is_dir())
    found = (Results.read(params).of_paper for params in profiles)
    return [results for results in found if len(results)]


def paper_sizes(root: Path = ROOT) -> tuple[list[Results], list[Results]]:
    """Those with the paper's inputs, and those with native ones."""
    return paper_size(root), paper_size(root, PAPER_SIZE_NATIVE)


def _twice(own: Sequence[Results], root: Path) -> dict[str, str]:
    """The section on final runs that another backend made, too."""
    if not own:
        return {}
    other = own[0].with_rows(read_results(root / "results" / OTHER_BACKEND)).of_paper
    return {"backends": backends(own[0], other)} if len(other) else {}


def together(own: Sequence[Results]) -> Results:
    """Results of several profiles, each of networks of its own, as one."""
    return own[0].with_rows(pd.concat([source.rows for source in own])) if own else NOTHING


def sections(
    results: Results,
    native: Results,
    bench: pd.DataFrame,
    own: Sequence[Results],
    own_native: Sequence[Results],
) -> dict[str, str]:
    """Those of `contents` that show rows of `PROFILE` and, as `paper_sizes` gives them, others.

    Networks that are not the paper's are left out.
    """
    results, native = results.of_paper, native.of_paper
    joined, joined_native = together(own), together(own_native)
    return {
        "rows": comparison([joined, joined_native, results, native]),
        "sizes": sizes([*own, *own_native]),
        "own-rows": comparison([joined, *own_native], joined.backbones),
        "own-gains": gain_table([*own, *own_native]),
        "own-verdicts": verdict_table(joined, joined_native),
        "own-agreement": agreement(results, joined),
        "own-epochs": remarks(joined, NOTHING, "epochs"),
        "verdicts": verdict_table(results, native),
        "gains": gain_table([results, native]),
        "remarks": remarks(results, native),
        "costs": costs({PROFILE: results.rows, f"{PROFILE}_native": native.rows}),
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
        write_whole(path, text)


def outdated(root: Path, made: dict[str, str]) -> Iterator[str]:
    """A line for each page whose tables are not what the rows give, and each section that is lost.

    made: as `contents` gives it.
    """
    text = "".join((root / page).read_text(encoding="utf-8") for page in PAGES)
    for name in made:
        if (times := len(_place(name).findall(text))) != 1:
            yield (
                f"{root}: the section {name} stands {times} times in {', '.join(PAGES)}; allowed: "
                f"once, between <!-- {name}:begin --> and <!-- {name}:end -->"
            )
    for path, _ in _fresh(root, made):
        yield f"{path}: its tables are not what the rows give; make figures mends it"


def parameters(record: type) -> str:
    """Every parameter of a record as a Markdown table."""
    lines = [
        [f"`{name}`", about, allowed, f"`{default}`" if default else "required"]
        for name, about, allowed, default in described(record)
    ]
    return markdown(["parameter", "what it is", "allowed", "default"], lines, left=4)


def strategies() -> str:
    """Every strategy of `make photos` as a Markdown table."""
    (default,) = (f.default for f in fields(Settings) if f.name == "strategy")
    lines = [[f"`{s.name}`{' (default)' * (s.name == default)}", s.says]
             for s in STRATEGIES.values()]  # fmt: skip
    return markdown(["strategy", "what it does"], lines, left=2)


def comparison(sources: Sequence[Results], names: Sequence[str] = BACKBONE_NAMES) -> str:
    """Table I, the paper's beside ours of each setting, as a Markdown table.

    names: backbones of the paper.

    Mean and Variance run over the backbones for which every setting has all rows; a setting that
    lacks some of those that others have is left out of both.
    """
    sources = [source for source in sources if len(source)]
    printed, cells = accuracies(), [compare(s).set_index(["backbone", "method"]) for s in sources]
    lines = []
    for name in names:
        mine = [(s.only(name), c) for s, c in zip(sources, cells, strict=True)]
        title = name if any(len(s) for s, _ in mine) else f"{name} ({NOT_RUN.get(name, 'not run')})"
        lines.append([title, "paper", *map("{:.4f}".format, printed.loc[name])])
        lines += [["", _label(s), *_cells(c, name)] for s, c in mine if len(s.final)]
    most = max((_whole(c) for c in cells), key=len, default=[])
    full = [pair for pair in zip(sources, cells, strict=True) if _whole(pair[1]) == most]
    means = [("paper", printed), *((_label(s), c["mean"].unstack()) for s, c in full)]
    for statistic, digits in (("Mean", 4), ("Variance", 6)) if len(most) > 1 else ():
        for what, table in means:
            values = statistics(table.loc[most, list(TABLE1)]).loc[statistic]
            title = f"{statistic} of these {len(most)}" if what == "paper" else ""
            lines.append([title, what, *(f"{value:.{digits}f}" for value in values)])
    return markdown(["", "", *ABBREVIATIONS.values()], lines, SETTING)


def _whole(cells: pd.DataFrame) -> list[str]:
    """The backbones for which no method's final runs are missing."""
    return [name for name in accuracies().index if cells["n"][name].all()]


def _label(results: Results) -> str:
    """The setting of final runs, such as "ours: [0, 1], 64 px, 3 epochs, alpha 0.25"."""
    rows = results.final
    pixels, epochs = (listed(rows[column]) for column in ("image_size", "epochs"))
    width = set(rows["alpha"]) - {"1.0"} if rows["backbone"].nunique() == 1 else ()
    parts = [results.inputs, f"{pixels} px", f"{epochs} epochs", *(f"alpha {w}" for w in width)]
    return f"ours: {', '.join(parts)}"


def _cells(table: pd.DataFrame, name: str) -> Iterator[str]:
    """Ours for one backbone: mean ± sd over repeats, and their number where some are missing."""
    for method in TABLE1:
        text, n = table.loc[(name, method), ["ours", "n"]]
        yield text.rpartition(" (")[0] if n == Params.repeats else text if n else "–"


def sizes(results: Sequence[Results]) -> str:
    """What there is at the paper's own photo size, and how far each setting is the paper's."""
    header = ["network", "differs from the paper in", "search runs", "final runs", "training"]
    lines = []
    for source in results:
        for name in source.backbones:
            rows = source.only(name)
            once = rows.rows.drop_duplicates("key")
            wanted = len(TABLE1) * Params.repeats
            final = rows.final[rows.final["method"].isin(TABLE1)]
            number = f"{len(rows.search.drop_duplicates('key'))}", f"{len(final)} of {wanted}"
            lines.append([name, _differences(rows), *number, _hours(once)])
    return markdown(header, lines, left=len(header))


def _hours(rows: pd.DataFrame) -> str:
    """How long training took, by what it ran on."""
    took = rows.groupby(_devices(rows), sort=False)["seconds"].sum()
    return ", ".join(f"{seconds / 3600:.1f} h on {device}" for device, seconds in took.items())


def _devices(rows: pd.DataFrame) -> pd.Series:
    """What each row was trained on: the fourth word of `versions`.

    The first rows, all of two cores, lack it.
    """
    return rows["versions"].map(lambda text: "".join(text.split("; ")[3:]) or "CPU")


def _differences(results: Results) -> str:
    """In what the setting of one network is not the paper's, in words."""
    rows = results.rows
    (alpha,), (epochs,), (weights,) = (
        set(rows[column]) for column in ("alpha", "epochs", "weights_sha256")
    )
    found = [f"alpha {alpha}: {float(alpha):.0%} of the channels"] if alpha != "1.0" else []
    found += [f"{epochs} epochs instead of 50"] if epochs != 50 else []
    found += ["native inputs"] if set(rows["input_scaling"]) == {"native"} else []
    found += [words for start, words in WEIGHTS.items() if weights.startswith(start)]
    stages = {"a search": results.search, "final runs": results.final}
    by_jax = [stage for stage, some in stages.items() if "jax" in set(some["backend"])]
    found += [f"{' and '.join(by_jax)} by JAX ([13](deviations.md))"] if by_jax else []
    return "; ".join(found) or "nothing"


BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow"}  # in words


def backends(one: Results, other: Results) -> str:
    """The final runs that both of two backends made, run by run, as a Markdown table.

    Of the backbones that `other` has.
    """
    sides = [one.with_rows(one.rows[one.rows["backbone"].isin(other.backbones)]), other]
    tables = [_run_by_run(side.final) for side in sides]
    lines = [
        [f"{name}: {label(method)}", *(table.get((name, method), "–") for table in tables)]
        for name in other.backbones
        for method in TABLE1
        if (name, method) in tables[1]
    ]
    header = [_trained_by(side.final) for side in sides]
    return markdown(["final runs", *header], lines, left=1 + len(header))


def _run_by_run(final: pd.DataFrame) -> dict[tuple[str, str], str]:
    """The mean of runs, and each of them, repeat by repeat, by backbone and method."""
    groups = final.sort_values("repeat").groupby(["backbone", "method"])["val_accuracy"]
    return {
        pair: f"{runs.mean():.3f} ({', '.join(f'{run:.3f}' for run in runs)})"
        for pair, runs in groups
    }


def _trained_by(rows: pd.DataFrame) -> str:
    """Backends and devices of rows, such as "JAX on NVIDIA H200"."""
    pairs = zip(rows["backend"].map(BACKENDS), _devices(rows), strict=True)
    return " / ".join(f"{backend} on {device}" for backend, device in dict.fromkeys(pairs))


def costs(sources: dict[str, pd.DataFrame]) -> str:
    """How many runs the rows of each profile are, and how long training them took, as a line."""
    parts = []
    for profile, rows in sources.items():
        runs = rows.drop_duplicates("key").groupby("backbone", sort=False)["seconds"]
        hours = [f"{name} {len(each)} runs in {each.sum() / 3600:.1f} h" for name, each in runs]
        if hours:
            parts.append(f"`{profile}`: {', '.join(hours)}")
    return f"The committed rows of {'; '.join(parts)}.\n"
