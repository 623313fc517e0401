"""The project for a machine without a network, such as a cluster's compute node: ``make bundle``.

One tar archive, in parts that are easy to carry: the code, the parameters, the photos decoded and
packed into one file, the weights, JAX's rows so far, and the wheels of what the engine needs beside
JAX. Unpacked, `RUN` trains what ``make paper`` would. It needs no TensorFlow and no notebook.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import requires, version
from pathlib import Path

import pandas as pd
import yaml
from packaging.requirements import Requirement

from ..backbones.build import write_backbone
from ..backbones.records import is_model_file
from ..backend import check_keras
from ..ledger import read_results
from ..params import ROOT, InputError, Params
from ..photos.dataset import load_data, pack
from ..plan import of_stage
from ..provenance import pack_commit

PART_BYTES = 50 * 2**20
# What training imports; pip knows what these need in turn.
IMPORTED = (
    *("keras", "h5py", "pandas", "pyyaml", "tqdm", "filelock", "pillow", "psutil"),
    "distributed",  # of workers
)
# pip takes each tag by itself; these are the ones that Linux wheels of today carry.
PLATFORMS = tuple(f"manylinux_2_{n}_x86_64" for n in (17, 24, 27, 28, 34)) + (
    "manylinux2014_x86_64",
)
RUN = """\
#!/bin/sh
# Trains what is not in results/ yet:  sh run.sh [KEY=VALUE ...]
# such as                              sh run.sh backbones=MobileNet memory_gib=60
# with worker processes                WORKERS=4 sh run.sh lanes=44
# Needs Python with JAX (or TensorFlow and KERAS_BACKEND=tensorflow), no network. What Python lacks
# beside these it takes from wheels/ into site/. Stop it whenever you like and start it again.
set -eu
cd "$(dirname "$0")"
python=${{PYTHON:-python3}}
export KERAS_BACKEND="${{KERAS_BACKEND:-jax}}" PYTHONPATH="$PWD/site${{PYTHONPATH:+:$PYTHONPATH}}"
lacking=$("$python" - wheels.txt <<'END'
import sys
from importlib.metadata import PackageNotFoundError, version
for line in open(sys.argv[1], encoding="utf-8"):
    try:
        version(line.split("==")[0])
    except PackageNotFoundError:
        print(line.strip())
END
)
if [ -n "$lacking" ]; then
  "$python" -m pip install -q --no-index --no-deps --find-links wheels --target site $lacking
fi
set -- "$python" -m lib train "profile=$PWD/{profile}.yaml" "$@"
[ "${{WORKERS:-0}}" = 0 ] || set -- "$python" -m lib pool "--workers=$WORKERS" -- "$@"
exec "$@"
"""


def bundle(params: Params, folder: Path, fetch: Callable[[Path], None]) -> list[Path]:
    """Write the archive's parts, ``<profile>.tar.0000`` and so on, in the place of earlier ones.

    These stay until all of the new ones are there.

    Args:
        folder: where the parts go; made if it is not there.
        fetch: downloads the wheels that the file ``wheels.txt`` of a folder lists into its
            ``wheels/``, see `download_wheels`.

    Raises InputError where data, weights or wheels cannot be had.
    """
    check_keras()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tree = Path(scratch) / params.profile
        _copy_code(tree)
        _copy_inputs(params, tree)
        _write_settings(params, tree)
        fetch(tree)
        archive = Path(scratch) / "archive.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(tree, params.profile)
        parts = _cut(archive, Path(scratch) / f"{params.profile}.tar")
        for old in folder.glob(f"{params.profile}.tar.*"):
            old.unlink()
        return [part.rename(folder / part.name) for part in parts]


def _copy_code(tree: Path) -> None:
    shutil.copytree(ROOT / "lib", tree / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    pack_commit(ROOT, tree)


def _copy_inputs(params: Params, tree: Path) -> None:
    """Photos, backbones and rows."""
    pack(load_data(params), tree / "photos.npz")
    (tree / "weights").mkdir()
    for source in params.backbones:
        write_backbone(params, source, tree / "weights")
    (tree / "results").mkdir()
    for ledger in folder_for(params).glob("*-*.csv"):
        shutil.copy(ledger, tree / "results")


def _there(source: str) -> str:
    """A backbone of the profile as the bundle's own profile names it."""
    return f"weights/{Path(source).name}" if is_model_file(source) else source


def _write_settings(params: Params, tree: Path) -> None:
    """The profile with the bundle's own paths, the list of wheels, and the command."""
    settings = asdict(params) | {
        "data": "photos.npz",
        "data_dir": None,
        "backbones": [*map(_there, params.backbones)],
        "weights": "weights/",
        "results": "results",
        "figures": None,
    }
    del settings["profile"]
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
    text = yaml.safe_dump({k: v for k, v in plain.items() if v is not None}, sort_keys=False)
    (tree / f"{params.profile}.yaml").write_text(text, encoding="utf-8")
    (tree / "wheels.txt").write_text("".join(f"{w}\n" for w in wheels()), encoding="utf-8")
    (tree / "run.sh").write_text(RUN.format(profile=params.profile), encoding="utf-8")


def wheels(names: Sequence[str] = IMPORTED) -> list[str]:
    """``name==version`` of packages and of all that they require, as installed here, sorted."""
    found: set[str] = set()
    queue = [name.lower() for name in names]
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            needs = map(Requirement, requires(name) or ())
            queue += [
                need.name.lower().replace("_", "-")
                for need in needs
                if need.marker is None or need.marker.evaluate({"extra": ""})
            ]
    return [f"{name}=={version(name)}" for name in sorted(found)]


def download_wheels(tree: Path, python: str = "") -> None:
    """Have pip download what ``wheels.txt`` lists into ``wheels/``; no wheel is built.

    python: of the other machine, a Linux on x86-64, such as 3.12; none: wheels as of this machine.

    Raises InputError.
    """
    other = ["--python-version", python] if python else []
    other += [word for tag in PLATFORMS * bool(python) for word in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", *other]
    command += ["-r", str(tree / "wheels.txt"), "-d", str(tree / "wheels")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise InputError(
            f"bundle: NODE_PYTHON {python!r}: pip cannot have the wheels: {reason}; "
            "allowed: a network, and a version such as 3.12 that has wheels of all"
        )


def folder_for(params: Params) -> Path:
    """Where JAX's rows of a profile are: with rows of another backend only if it can go on there.

    It can where search and final runs, as far as they are begun, are its own (`Plan.backend`). A
    ranked search has one block a method, so there is nothing of it to go on with.
    """
    rows = read_results(params.results_dir, params.backbone_names)
    begun = [of_stage(rows, params, split) for split in (params.search_split, params.final_split)]
    beside = set(pd.concat(begun)["backend"]) - {"jax"}
    return params.results_dir.with_name(params.results_dir.name + "_jax" * bool(beside))


def _cut(archive: Path, stem: Path) -> list[Path]:
    """Cut a file into parts whose names a shell sorts in order; the file itself is left."""
    parts = []
    with archive.open("rb") as file:
        while piece := file.read(PART_BYTES):
            parts.append(stem.with_name(f"{stem.name}.{len(parts):04d}"))
            parts[-1].write_bytes(piece)
    return parts
