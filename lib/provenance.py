"""What made a row: the versions of the software and the commit of the project."""

import hashlib
import os
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from platform import python_version

from .params import ROOT

COMMIT = "COMMIT"  # file beside lib/ of a bundle: the commit, then `code_digest`


def versions() -> str:
    """Python, Keras and backend with their versions, such as ``python 3.11.7; keras 3.15.1``."""
    import keras  # here: what reads git of this module starts no Keras

    backend = keras.backend.backend()
    return f"python {python_version()}; keras {keras.__version__}; {backend} {version(backend)}"


@cache
def device() -> str:
    """Where the backend trains: ``CPU``, or the first GPU's name."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return "CPU" if jax.default_backend() == "cpu" else jax.devices()[0].device_kind
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    details = [tf.config.experimental.get_device_details(gpu) for gpu in found]
    return details[0].get("device_name", "GPU") if details else "CPU"


def git_sha(root: Path = ROOT) -> str:
    """The commit of the project, with ``-dirty`` where its code differs; empty where none is known.

    Only a repository whose top is the project itself is asked: one that the project was unpacked
    into knows nothing of its code. A bundle has no repository; its file `COMMIT` tells.
    Rows that a sweep writes into a folder under version control are no difference in code.
    """
    commit = own_git(root, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return _packed_commit(root)
    changed = own_git(root, "status", "--porcelain", "--", "lib", "params")
    return commit.strip() + ("-dirty" if changed else "")


def own_git(root: Path, *arguments: str) -> str | None:
    """What git says of the project at `root`; None where it has no repository of its own."""
    try:
        top = _git(root, "rev-parse", "--show-toplevel").strip()
        return _git(root, *arguments) if Path(top).resolve() == root.resolve() else None
    except (OSError, subprocess.CalledProcessError):
        return None  # no git here, or no repository


def _git(root: Path, *arguments: str) -> str:
    # Inside a hook of another repository, GIT_DIR and its like would point there.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", *arguments], cwd=root, env=own, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape")


def pack_commit(source: Path, target: Path) -> None:
    """Write the commit of the project at `source` into its copy at `target`."""
    (target / COMMIT).write_text(f"{git_sha(source)}\n{code_digest(target)}\n", encoding="utf-8")


def _packed_commit(root: Path) -> str:
    path = root / COMMIT
    if not path.is_file():
        return ""
    commit, digest = (path.read_text(encoding="utf-8").splitlines() + ["", ""])[:2]
    changed = commit and not commit.endswith("-dirty") and digest != code_digest(root)
    return commit + ("-dirty" if changed else "")


def code_digest(root: Path) -> str:
    """SHA-256, 16 hex digits, of the names and contents of all Python files in ``lib/``."""
    digest = hashlib.sha256()
    for path in sorted((root / "lib").rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


# Of this process, whatever becomes of the files later.
RUNNING_CODE, RUNNING_COMMIT = code_digest(ROOT), git_sha(ROOT)
