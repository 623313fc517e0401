"""What is refused, is refused with one line, before anything is trained."""

import ast
import os
import subprocess
import sys

import pytest
from bad_inputs import BAD, photo, refusal

from lib.__main__ import main
from lib.data import load_data
from lib.params import ROOT, load_params


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


def test_every_bad_input_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
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
    for path in (ROOT / "lib").glob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and takes_the_locale(call):
                silent.append(f"{path.name}:{call.lineno}")
    assert silent == []
    assert takes_the_locale(ast.parse("open(x)").body[0].value)
    assert takes_the_locale(ast.parse("run(x, text=True)").body[0].value)
    assert not takes_the_locale(ast.parse("path.open('rb')").body[0].value)


def takes_the_locale(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    keys = {key.arg for key in call.keywords}
    binary = any(isinstance(a, ast.Constant) and "b" in str(a.value) for a in call.args)
    by_name = name in ("read_text", "write_text") or (name == "open" and not binary)
    others = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in (
        "os", "Image", "tarfile")  # fmt: skip
    return (by_name and not others or "text" in keys) and "encoding" not in keys


def test_backbones_are_printed_for_make(capsys):
    assert main(["backbones", "profile=quick", "backbones=VGG16 MobileNet"]) == 0
    assert capsys.readouterr().out.split() == ["VGG16", "MobileNet"]


def test_figures_without_rows(tmp_path, capsys):
    assert main(["figures", "profile=smoke", f"results={tmp_path / 'rows'}"]) == 2
    assert "no rows" in capsys.readouterr().err


def test_every_profile_is_valid(capsys):
    for path in sorted((ROOT / "params").glob("*.yaml")):
        assert main(["backbones", f"profile={path.stem}"]) == 0
