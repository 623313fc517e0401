"""What is refused, is refused with one line, before anything is trained."""

import pytest
from bad_inputs import BAD, refusal

from lib.__main__ import main
from lib.params import ROOT


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


def test_backbones_are_printed_for_make(capsys):
    assert main(["backbones", "profile=quick", "backbones=VGG16 MobileNet"]) == 0
    assert capsys.readouterr().out.split() == ["VGG16", "MobileNet"]


def test_figures_without_rows(tmp_path, capsys):
    assert main(["figures", "profile=smoke", f"results={tmp_path / 'rows'}"]) == 2
    assert "no rows" in capsys.readouterr().err


def test_every_profile_is_valid(capsys):
    for path in sorted((ROOT / "params").glob("*.yaml")):
        assert main(["backbones", f"profile={path.stem}"]) == 0
