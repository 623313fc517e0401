"""Files that are there whole or not at all, whatever stops the process or the machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from .errors import InputError, first_line


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft of a file; it becomes the file, at one stroke, where the block ends without an error.

    The draft has the name of the file, by whose ending Keras and NumPy know the format, and lies in
    a folder of its own beside it: no pattern finds it there, and no other process has it. Where the
    path is a link, the file that it leads to is written. Raises OSError where the disk will not
    have it; the file is then as it was.
    """
    place = path.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        prefix=".draft-", dir=place.parent, ignore_cleanup_errors=True
    ) as folder:
        draft = Path(folder) / path.name
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())  # else a power failure may leave the name without the content
        os.replace(draft, place)


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises InputError where it cannot be written."""
    with writing(path), whole(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Refuse what the system does not let us write: InputError, one line that names it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise InputError(
            f"out: {path} cannot be written: {reason}; allowed: a folder that you may write, on a "
            "disk with room"
        ) from error
