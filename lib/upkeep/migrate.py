"""New keys for rows that an earlier version wrote: ``make migrate``.

That version left the backend out of the key and rounded the plateau's factor and delta to six
digits. Everything else of a row stays as it is, byte for byte.
"""

import re
from pathlib import Path

from ..ledger import SETTINGS, ledger_lock, read_ledger, rewrite_ledger, run_key
from ..params import InputError

EARLIER = tuple(name for name in SETTINGS if name != "backend")


def migrate(folder: Path) -> dict[Path, int]:
    """Give the rows of a folder their new keys; run again, it finds nothing to do.

    Returns the number of rows that changed, by ledger. Raises InputError, and leaves the ledger as
    it was, where a row's key is neither the new nor the earlier one, or where its plateau may have
    been rounded.
    """
    changed = {}
    for path in sorted(folder.glob("*-*.csv")):
        with ledger_lock(folder, path.stem.partition("-")[2]):
            changed[path] = _migrate_ledger(path)
    return changed


def _migrate_ledger(path: Path) -> int:
    rows = read_ledger(path).to_dict("records")
    old = [row for row in rows if row["key"] != run_key(row)]
    for row in old:
        _check(row, path)
        row["key"] = run_key(row)
    if old:
        rewrite_ledger(path, rows)
    return len(old)


def _check(row: dict, path: Path) -> None:
    if row["key"] != run_key(row, EARLIER):
        raise InputError(
            f"{path}: key {row['key']} is not what the row's settings give; allowed: "
            f"{run_key(row)}, or {run_key(row, EARLIER)} of an earlier version"
        )
    for number in row["plateau"].split(", "):
        if len(re.sub(r"e.*|\.|^[0.]+", "", number)) >= 6:
            raise InputError(
                f"{path}: plateau is {row['plateau']!r}, and {number} may have been rounded; "
                "allowed: fewer than six digits. Train these rows again in another folder"
            )
