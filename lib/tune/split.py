"""An honest split: the same photos for the same seed on any machine, and no photo on two sides.

What must stay together (one plant, patient or product; the same photo twice) is a *unit*. Units are
dealt to training, selection and test in the order of a hash of their content and of the seed, those
first that fill half of a part of a class; each to the part that lacks most photos of its classes.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import first_line
from ..params import InputError, resolve_path
from .folder import Photos, together

PARTS = ("training", "selection", "test")
LEAST_UNITS = 5  # of a class: three to train on, one to select on, one to test


@dataclass(frozen=True)
class Split:
    """Indices of the photos of each part, int, in the order of a hash of content and seed.

    Attributes:
        folds: number of the fold of each training photo, ``(len(training),)``.
        units: number of the unit of each photo of all parts, ``(photos,)``.
    """

    training: np.ndarray
    selection: np.ndarray
    test: np.ndarray
    folds: np.ndarray
    units: np.ndarray

    def parts(self) -> dict[str, np.ndarray]:
        return {name: getattr(self, name) for name in PARTS}


def split_photos(
    photos: Photos,
    twins: Sequence[Sequence[int]],
    groups: Sequence[str],
    *,
    selection: float,
    test: float,
    folds: int,
    seed: int,
) -> Split:
    """Deal the photos to training, selection and test, stratified by class.

    Args:
        twins: indices of photos that stay together, see `find_twins`.
        groups: one name a photo; photos of one name stay together. Empty for no groups.
        selection, test: shares of the photos, each in (0, 1).
        folds: parts of the training photos, for cross-validation; dealt in the same way.

    Raises InputError where a class has too few units for that; the line says how many are needed.
    """
    units = _units(photos, twins, groups)
    _check_enough(photos, units)
    large = _counts(photos, range(len(photos))) * min(selection, test) / 2

    def place(unit: Sequence[int]) -> tuple[bool, str]:  # the small ones even out the rest
        return not (_counts(photos, unit) > large).any(), _rank(photos, unit, seed)

    ordered = sorted(units, key=place)
    shares = {"training": 1 - selection - test, "selection": selection, "test": test}
    parts = _deal(photos, ordered, list(shares.values()))
    _check_dealt(photos, parts, shares, bool(groups))
    dealt = {name: _in_order(photos, part, seed) for name, part in zip(PARTS, parts, strict=True)}
    unit_of = np.empty(len(photos), int)
    for number, unit in enumerate(units):
        unit_of[unit] = number
    found = _folds(photos, parts[0], dealt["training"], folds)
    if not found.any():
        raise InputError(
            f"folds: selection {selection:g} and test {test:g} leave too few photos to train on for"
            " two folds, on which the choice is confirmed; allowed: smaller shares, or more photos"
        )
    return Split(**dealt, folds=found, units=unit_of)


def _units(
    photos: Photos, twins: Sequence[Sequence[int]], groups: Sequence[str]
) -> list[list[int]]:
    """Photos that stay together, by the name of a group or as twins."""
    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, i), i) for i, name in enumerate(groups)]
    pairs += [(one, other) for one, *others in twins for other in others]
    return together(len(photos), pairs)


def _counts(photos: Photos, unit: Sequence[int]) -> np.ndarray:
    """Number of photos of each class, int ``(classes,)``."""
    return np.bincount(photos.labels[list(unit)], minlength=len(photos.names))


def _rank(photos: Photos, unit: Sequence[int], seed: int) -> str:
    """A number that depends on the unit's content and the seed only."""
    content = min(photos.digests[i] for i in unit)
    return hashlib.sha256(f"{seed} {content}".encode()).hexdigest()


def _in_order(photos: Photos, units: Sequence[Sequence[int]], seed: int) -> np.ndarray:
    places = [i for unit in units for i in unit]
    return np.array(sorted(places, key=lambda i: (_rank(photos, [i], seed), photos.paths[i])), int)


def _deal(
    photos: Photos, units: Sequence[Sequence[int]], shares: Sequence[float]
) -> list[list[Sequence[int]]]:
    """Give each unit to the part that lacks most of its classes' photos.

    shares: of the photos, for each part. Classes count alike, however many photos they have.
    """
    counts = [_counts(photos, unit) for unit in units]
    total = np.maximum(np.sum(counts, axis=0), 1)
    wanted = np.outer(shares, total)
    have = np.zeros_like(wanted)
    parts: list[list[Sequence[int]]] = [[] for _ in shares]
    for unit, count in zip(units, counts, strict=True):
        lacking = ((wanted - have) / total)[:, count > 0].mean(axis=1)
        part = int(np.argmax(lacking.round(9)))
        have[part] += count
        parts[part].append(unit)
    return parts


def _folds(
    photos: Photos, units: Sequence[Sequence[int]], training: np.ndarray, folds: int
) -> np.ndarray:
    """The fold of each training photo."""
    known = {i: f for f, part in enumerate(_deal(photos, units, [1 / folds] * folds))
          for unit in part for i in unit}  # fmt: skip
    return np.array([known[i] for i in training], int)


def _check_enough(photos: Photos, units: Sequence[Sequence[int]]) -> None:
    found = np.zeros(len(photos.names), int)
    for unit in units:
        found[np.unique(photos.labels[list(unit)])] += 1
    check_counts(photos.names, found, [_one_unit(photos, c, units) for c in range(len(found))])


def _one_unit(photos: Photos, label: int, units: Sequence[Sequence[int]]) -> str:
    """Which photos of a class count once, for its largest unit; empty where none do."""
    mine = [[i for i in unit if photos.labels[i] == label] for unit in units]
    most, number = max(mine, key=len), sum(map(len, mine))
    if len(most) < 2:
        return ""
    some = " and ".join(photos.paths[i] for i in most[:2])
    return f" of {number}, as {len(most)} of them, such as {some}, count once"


def check_counts(names: Sequence[str], found: Sequence[int], notes: Sequence[str] = ()) -> None:
    """Refuse classes with fewer units than a split needs. Raises InputError.

    found: number of units of each class; notes: what to say after it.
    """
    notes = notes or [""] * len(names)
    few = [(n, f"{c}{note}") for n, c, note in zip(names, found, notes, strict=True)
           if c < LEAST_UNITS]  # fmt: skip
    if few:
        some = ", ".join(f"{name} has {count}" for name, count in few[:5])
        some += f" and {len(few) - 5} more classes have too few" * (len(few) > 5)
        raise InputError(
            f"dir: too few photos: {some}; allowed: at least {LEAST_UNITS} photos of each class, "
            "where the same photo twice and all photos of a group count once "
            "(duplicates=exact where different photos look alike, as of a fixed camera); 50 or "
            "more show differences between layers"
        )


def _check_dealt(
    photos: Photos,
    parts: Sequence[Sequence[Sequence[int]]],
    shares: Mapping[str, float],
    grouped: bool,
) -> None:
    """Refuse a split in which a part lacks a class, as large groups or small shares may force."""
    for name, units in zip(PARTS, parts, strict=True):
        there = {int(photos.labels[i]) for unit in units for i in unit}
        missing = [n for c, n in enumerate(photos.names) if c not in there]
        if not missing:
            continue
        if grouped:
            raise InputError(
                f"groups: no photo of {missing[0]} is left for the {name} part, as its photos are "
                "of too few groups; allowed: more groups of each class, or other shares"
            )
        own = int((photos.labels == photos.names.index(missing[0])).sum())
        raise InputError(
            f"dir: no photo of {missing[0]} is left for the {name} part, a share of "
            f"{shares[name]:g} of {own} photos, of which near-copies count once; allowed: more "
            "photos, or other shares (selection, test)"
        )


# --------------------------------------------------------------------------------------- the groups


def read_groups(photos: Photos, groups: str | None) -> list[str]:
    """The group of each photo, by a pattern of file names or from a CSV; empty for None.

    Args:
        groups: a regular expression with one group, looked for in each path below the folder; or
            the path of a file that ends in .csv, with the columns ``file`` and ``group``.

    Raises InputError where a photo has no group.
    """
    if groups is None:
        return []
    if groups.lower().endswith(".csv"):
        return list(_from_table(photos, groups))
    return list(_from_pattern(photos, groups))


_PATTERN = r"one with one group, such as plant(\d+)_"


def _from_pattern(photos: Photos, pattern: str) -> Iterator[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"groups: {pattern!r} is no regular expression: {error}; allowed: {_PATTERN}, or the "
            "path of a .csv file"
        ) from error
    if compiled.groups != 1:
        raise InputError(f"groups: {pattern!r} has {compiled.groups} groups; allowed: {_PATTERN}")
    for path in photos.paths:
        found = compiled.search(path)
        if found is None or not found[1]:
            raise InputError(f"groups: {pattern!r} does not match {path}; allowed: every photo")
        yield found[1]


def _from_table(photos: Photos, name: str) -> Iterator[str]:
    path = resolve_path(name)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            rows, titles = list(table), table.fieldnames or ["none"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            f"groups: {path} cannot be read ({reason}); allowed: a .csv file with the columns file "
            "and group"
        ) from error
    if not {"file", "group"} <= set(titles):
        raise InputError(
            f"groups: {path} has the columns {', '.join(titles)}; allowed: file and group"
        )
    known: dict[str, str] = {}
    for row in rows:
        file, group = ((row[title] or "").strip() for title in ("file", "group"))
        if known.setdefault(file, group) != group:
            raise InputError(
                f"groups: {path} has two groups of {file}: {known[file]} and {group}; allowed: one"
            )
    for photo in photos.paths:
        if not known.get(photo):
            raise InputError(
                f"groups: {path} has no group of {photo}; allowed: one for every photo"
            )
        yield known[photo]
