"""Rows of an earlier version get new keys and nothing else."""

import pytest
import rows

from lib.__main__ import main
from lib.ledger import COLUMNS, append_row, read_ledger, rewrite_ledger, run_key
from lib.params import InputError
from lib.upkeep.migrate import EARLIER, migrate


def write(path, **changes):
    for seed in range(3):
        row = rows.row(seed=seed, **changes)
        append_row(path, row | {"key": run_key(row, EARLIER)})


def test_only_keys_change_and_once(tmp_path):
    path = tmp_path / "block_wise-VGG16.csv"
    write(path)
    before = read_ledger(path)
    assert migrate(tmp_path) == {path: 3}
    after = read_ledger(path)
    assert [run_key(row) for _, row in after.iterrows()] == list(after["key"])
    assert set(after["key"]).isdisjoint(before["key"])
    others = [name for name in COLUMNS if name != "key"]
    assert after[others].equals(before[others])
    content = path.read_bytes()
    assert migrate(tmp_path) == {path: 0}
    assert path.read_bytes() == content


def test_a_folder_without_rows_is_refused(tmp_path, capsys):
    assert main(["migrate", f"results={tmp_path}"]) == 2
    assert "holds no rows" in capsys.readouterr().err


def test_a_key_that_no_version_gave_is_refused_and_the_ledger_left(tmp_path):
    path = tmp_path / "block_wise-VGG16.csv"
    write(path)
    append_row(path, rows.row(seed=9))
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"block_wise-VGG16.csv: key 0123456789abcdef is not what"):
        migrate(tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("plateau", ["0.333333, 10, 0.0001", "0.1, 10, 1.23457e-05"])
def test_a_plateau_that_may_have_been_rounded_is_refused(tmp_path, plateau):
    write(tmp_path / "block_wise-VGG16.csv", plateau=plateau)
    with pytest.raises(InputError, match="may have been rounded"):
        migrate(tmp_path)


def test_a_ledger_is_rewritten_whole_or_not_at_all(tmp_path):
    path = tmp_path / "block_wise-VGG16.csv"
    write(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match="epochs is '0'"):
        rewrite_ledger(path, [rows.row(), rows.row(epochs=0)])
    assert path.read_bytes() == before
