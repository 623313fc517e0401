"""Room: what images need of memory and disk, and what this machine or its container has left."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import psutil

from .params import InputError

COPIES = 1 + 4  # bytes a value: as it is cached, and as the float that the network reads

# Files of a control group: the limit, what is used, and the part of it that is only a cache.
V2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))
V1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


def require_memory(subject: str, values: int) -> None:
    """Refuse images, uint8 `values` in all, that do not fit in memory. Raises InputError."""
    _refuse(subject, "memory", values * COPIES, free_memory())


def require_disk(subject: str, needed: int, folder: Path) -> None:
    """Refuse what needs more bytes than are free where a folder is or will be.

    Raises InputError.
    """
    _refuse(subject, "disk", needed, shutil.disk_usage(existing(folder)).free)


def existing(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    return next(p for p in (path, *path.parents) if os.path.exists(p))


def free_memory(root: Path = Path("/")) -> int:
    """Bytes of memory that a process may still take, under its container's limits too.

    root: where /proc and /sys are looked for.
    """
    return min([psutil.virtual_memory().available, *_left_in_groups(root)])


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """NVIDIA's GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return list(takewhile(lambda name: name not in ("", "-1"), visible.split(",")))
    return ask_gpus("index")


def ask_gpus(what: str, *more: str) -> list[str]:
    """A whole number of each GPU of NVIDIA's, as text; none where there is no such GPU.

    what: as the vendor's tool calls it; more: of the tool's arguments.
    """
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits", *more]
    try:
        found = subprocess.run(
            command, capture_output=True, encoding="utf-8", check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in found.stdout.split() if line.isdigit()]


def _left_in_groups(root: Path) -> Iterator[int]:
    """Bytes left in each control group with a limit that this process is in."""
    for base, group, names in _groups(root):
        folder = base / group.strip("/")
        while folder.is_relative_to(base):
            yield from _left(folder, *names)
            folder = folder.parent


def _groups(root: Path) -> Iterator[tuple[Path, str, tuple]]:
    """Where groups of memory are, the path of ours below it, and the names of its files."""
    table = root / "proc" / "self" / "cgroup"
    mount = root / "sys" / "fs" / "cgroup"
    for line in table.read_text(encoding="utf-8").splitlines() if table.is_file() else ():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            yield mount, group, V2
        elif "memory" in controllers.split(","):
            yield mount / "memory", group, V1


def _left(folder: Path, limit: str, used: str, cached: tuple[str, ...]) -> Iterator[int]:
    """Bytes left in one group; nothing where it has no limit. The cache gives way when asked."""
    if not all((folder / name).is_file() for name in (limit, used, "memory.stat")):
        return  # another kind of group, or one that lies outside this container
    text = {n: (folder / n).read_text(encoding="utf-8") for n in (limit, used, "memory.stat")}
    if text[limit].strip() == "max":
        return
    stat = dict(line.split() for line in text["memory.stat"].splitlines())
    in_use = int(text[used]) - sum(int(stat.get(name, 0)) for name in cached)
    yield max(0, int(text[limit]) - in_use)


def _refuse(subject: str, what: str, needed: float, there: float) -> None:
    if needed > there:
        raise InputError(
            f"{subject} need {needed / 2**30:.3g} GiB of {what}; "
            f"allowed: the {there / 2**30:.3g} GiB that are free"
        )
