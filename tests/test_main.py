"""What is refused, is refused with one line, before anything is trained."""

import ast
import os
import re
import subprocess
import sys

import pytest
from bad_inputs import BAD, photo, refusal
from committed import SHIPPED

from lib import quiet
from lib.__main__ import main, read_settings
from lib.command import split_words
from lib.params import ROOT, InputError, Params, described, load_params, parse_yaml
from lib.photos.dataset import load_data
from lib.tune.settings import Settings


@pytest.mark.parametrize(("prepare", "settings", "words"), [b[1:] for b in BAD],
                         ids=[b[0] for b in BAD])  # fmt: skip
def test_bad_input_is_one_line(tmp_path, prepare, settings, words):
    folder = tmp_path / "here"
    folder.mkdir()
    code, error, left = refusal(prepare, settings, folder)
    assert code == 2
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    for word in words.split():
        assert word in error, error
    assert not left


def test_every_bad_input_is_in_the_docs():
    text = (ROOT / "docs" / "bad-input.md").read_text(encoding="utf-8")
    assert len({name for name, *_ in BAD}) == len(BAD) >= 40
    for name, *_ in BAD:
        assert f"| {name} | `" in text, name


def test_check_tells_the_cost_and_trains_nothing(tmp_path, capsys):
    rows = tmp_path / "rows"
    assert main(["check", "profile=smoke", "backbones=VGG16", f"results={rows}"]) == 0
    out = capsys.readouterr().out
    assert "100 images" in out and "VGG16" in out and "runs" in out
    assert not rows.exists()


def test_check_names_the_classes_and_those_that_look_alike(tmp_path, capsys):
    for name in ("Rose", "rose ", "tulip"):
        for i in range(20):
            photo(tmp_path / "photos" / name / f"{i}.png", (i, 0, 0))
    settings = (
        f"profile=smoke data={tmp_path}/photos results={tmp_path}/rows search_split=train[:1]"
    )
    assert main(["check", *settings.split()]) == 2  # said before the slice is refused
    out = capsys.readouterr().out
    assert "3 classes: 20 Rose, 20 rose , 20 tulip\n" in out
    assert "warning: classes 'Rose' and 'rose ' look alike" in out


def test_letters_of_any_script_work_in_a_locale_without_them(tmp_path, monkeypatch):
    """A command in the plainest locale prints, caches and reads what this process does."""
    names = r"caf\xe9", "é", "цветы", "花"
    for name in (os.fsdecode(b"caf\xe9"), *names[1:]):
        for i in range(9):
            photo(tmp_path / "été" / name / f"{i}ß.png", (9 * i, len(name), 0))
    monkeypatch.setenv("BLOCKWISE_CACHE", str(tmp_path / "ça"))
    settings = {"data": f"{tmp_path}/été", "results": f"{tmp_path}/où", "search_split": "train[:1]"}
    words = [f"{key}={value}" for key, value in settings.items()]
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lib", "check", "profile=smoke", *words]
    done = subprocess.run(command, capture_output=True, env=plain, cwd=tmp_path)
    out, line = done.stdout.decode("ascii"), done.stderr.decode("ascii").strip()
    assert done.returncode == 2 and line.startswith("error: ") and "\n" not in line
    for name in names:
        assert f"9 {name}".encode("ascii", "backslashreplace").decode() in out
    (cached,) = (tmp_path / "ça").iterdir()
    assert load_data(load_params("smoke", **settings)).names == names
    assert list((tmp_path / "ça").iterdir()) == [cached]


def test_every_text_is_read_and_written_in_a_named_encoding():
    """Each call in `lib` that would take the locale's encoding names one."""
    silent = []
    for path in (ROOT / "lib").rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and takes_the_locale(call):
                silent.append(f"{path.name}:{call.lineno}")
    assert silent == []
    assert takes_the_locale(ast.parse("open(x)").body[0].value)
    assert takes_the_locale(ast.parse("run(x, text=True)").body[0].value)
    assert not takes_the_locale(ast.parse("path.open('rb')").body[0].value)


OF_BYTES = ("os", "Image", "tarfile", "members")  # whose `open` knows no text; members: of a zip


def takes_the_locale(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    keys = {key.arg for key in call.keywords}
    binary = any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in call.args)
    by_name = name in ("read_text", "write_text") or (name == "open" and not binary)
    others = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in OF_BYTES
    return (by_name and not others or "text" in keys) and "encoding" not in keys


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A folder to write to: no test removes the user's executed notebooks."""
    monkeypatch.setattr("lib.executed.ROOT", tmp_path)
    monkeypatch.setattr("lib.__main__.ROOT", tmp_path)


def test_the_folder_of_executed_notebooks_is_printed_for_make(capsys):
    assert main(["settings", "profile=quick", "backbones=VGG16 MobileNet"]) == 0
    assert capsys.readouterr().out.split() == ["build/quick"]


@pytest.mark.parametrize(
    "text", ["a b", "a=b", "a'b\"c", "a#b: {c", "null", "~", "2024", "a\\b", "$x"]
)
def test_names_and_paths_are_taken_as_they_are_written(text):
    given = read_settings(
        [f"results={text}", f"data={text}/", "epochs=3", "alpha={MobileNet: 0.5}"]
    )
    assert (given["results"], given["data"]) == (text, f"{text}/")
    assert (given["epochs"], given["alpha"]) == (3, {"MobileNet": 0.5})


def test_a_set_of_settings_is_quoted_as_in_a_shell():
    words = split_words("epochs=3 data='my photos/a=b' weights=\"it's\" results=a\\ b")
    assert words == ["epochs=3", "data=my photos/a=b", "weights=it's", "results=a b"]


def refused(words, capsys):
    """The one line with which the command line is refused."""
    assert main(["settings", *words]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and "\n" not in line
    return line


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--set=data='my photos"], "SET No closing quotation"),
        (["results=a", "--set=results=b"], "results is set twice"),
        (["profile=cpu", "--set=profile=smoke"], "profile is set twice"),
        (["--set=epochs=3 epochs=4"], "epochs is set twice"),
        (["--set=my photos"], "'my' KEY=VALUE"),
        (["results=a\nb"], "results: 'a\\nb'"),
        (["results=a\0b"], "results:"),
        (["results=\udce9"], "results:"),
        (["results= "], "results: ' ' path"),
        (["data=a\rb/"], "data:"),
        (["epochs=[3"], "epochs: '[3' YAML"),
        (["alpha={MobileNet: 1, MobileNet: 2}"], "alpha: MobileNet is set twice"),
        (["=3"], "unknown parameter"),
        (["results=~nobody-of-this-name/rows"], "~nobody-of-this-name/rows"),
    ],
)
def test_settings_that_are_refused(words, wanted, capsys):
    line = refused(words, capsys)
    for word in wanted.split():
        assert word in line, line


@pytest.mark.parametrize(
    ("given", "pages_written"),
    [([], 1), (["results=results/cpu"], 0), (["--set=repeats=2 figures=build/f"], 0)],
)
def test_pages_are_written_by_their_profile_as_it_is(monkeypatch, given, pages_written):
    written = []
    for name in ("audit.figures.write_all", "audit.figures.save_paper_size"):
        monkeypatch.setattr(f"lib.{name}", lambda *rows: [])
    for name in ("save_bench", "save_scaling"):
        monkeypatch.setattr(f"lib.upkeep.speed.{name}", lambda *rows: [])
    for name in ("sections", "more"):
        monkeypatch.setattr(f"lib.upkeep.pages.{name}", lambda *rows: {})
    monkeypatch.setattr("lib.upkeep.pages.refresh", lambda *made: written.append(made))
    assert main(["figures", "profile=cpu", *given]) == 0
    assert len(written) == pages_written


def test_figures_without_rows(tmp_path, capsys):
    assert main(["figures", "profile=smoke", f"results={tmp_path / 'rows'}"]) == 2
    assert "no rows" in capsys.readouterr().err


def test_every_profile_is_valid():
    for name in SHIPPED:
        assert main(["settings", f"profile={name}"]) == 0


def test_every_parameter_is_printed_with_a_default_that_a_profile_may_hold(capsys):
    assert main(["params"]) == 0
    *_, profile, photos = re.split(r"(?m)^Parameters of a profile\n-+\n|^Settings of .*\n-+\n",
                                   capsys.readouterr().out)  # fmt: skip
    for record, printed in ((Params, profile), (Settings, photos)):
        of = described(record)
        for name, about, allowed, default in of:
            head = f"{name} ({f'default {default}' if default else 'required'})"
            assert f"{head}\n    {about}\n    allowed: {allowed}\n" in printed
        values = {name: parse_yaml(text, name) for name, *_, text in of if text}
        assert record("test", **values) == record("test")


def test_some_cases_may_be_named(capsys):
    assert main(["bench", "profile=smoke", "--only=nothing"]) == 2
    assert "error: case: 'nothing' is unknown; allowed: " in capsys.readouterr().err


def test_a_process_that_is_killed_is_one_line():
    """Not waited for; what measures trains groups that may take all memory."""
    pids = [quiet.in_own_process(os.getpid) for _ in range(2)]
    assert len({*pids, os.getpid()}) == 3  # each has its own
    with pytest.raises(InputError, match="^memory: the process of _exit was killed; allowed:"):
        quiet.in_own_process(os._exit, 9)
