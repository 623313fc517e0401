"""Where `make paper` puts executed notebooks, and the one file of parameters that they share."""

import hashlib
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from .params import ROOT, InputError, Params, shown_path
from .whole import whole

FILE = "parameters.yaml"
_PLAIN = re.compile(r"\w[\w.]*(?:/\w[\w.]*)*", re.ASCII)


def folder(params: Params) -> Path:
    """Return the folder of executed notebooks: each folder of rows has its own.

    Its name is made of letters, digits, '_', '.' and '-', whatever the folder of rows is called,
    so that make and the shell take it for one word.
    """
    profile = ROOT / "build" / params.profile
    return profile / _word(shown_path(params.results_dir)) if params.results else profile


def _word(path: str) -> str:
    """A path as one word; no two paths have the same: what is not plain adds a digest."""
    plain = path.replace("/", "-")
    if _PLAIN.fullmatch(path) and len(plain) <= 100:
        return plain
    digest = hashlib.sha256(path.encode("utf-8")).hexdigest()[:8]
    kept = re.sub(r"[^\w.]+", "-", path, flags=re.ASCII).strip("-.")[-60:].lstrip("-.")
    return f"{kept}-{digest}" if kept else f"rows-{digest}"


def resolved(params: Params, profile: str) -> dict[str, Any]:
    """Return all that a notebook needs to know, whatever becomes of the profile's file.

    Args:
        profile: the name or path of the profile's file.
    """
    values = {field.name: getattr(params, field.name) for field in fields(params)}
    values |= {
        "profile": _text(profile),
        "final_epochs": params.final_epochs or params.epochs,
        "results": _text(shown_path(params.results_dir)),
        "figures": _text(shown_path(params.figures_dir)),
    }
    lists = {name: list(value) for name, value in values.items() if isinstance(value, tuple)}
    return {name: value for name, value in (values | lists).items() if value is not None}


def _text(path: str) -> str:
    """The path as a parameter: what begins with ~ in the project is nobody's home."""
    return f"./{path}" if path.startswith("~") else path


def prepare(params: Params, profile: str) -> None:
    """Write the file of parameters, and remove what would pass for executed with them.

    Raises InputError where the folder cannot be written.
    """
    text = yaml.safe_dump(resolved(params, profile), sort_keys=False, allow_unicode=True)
    try:
        _write(folder(params), text)
    except OSError as error:
        raise InputError(
            f"build: {folder(params)} cannot be written ({error.strerror}); allowed: a folder"
        ) from error


def _write(target: Path, text: str) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.ipynb"):
        old.unlink()
    with whole(target / FILE) as draft:
        draft.write_text(text, encoding="utf-8")
