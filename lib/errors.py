"""Refusals: one line that says what is wrong and what is allowed."""

import re


class InputError(ValueError):
    """Input that the project refuses. Its message is one line that says what is allowed."""

    def __init__(self, message: str):
        line = " ".join(message.splitlines())  # a name in it may hold line ends
        super().__init__(readable(line))


def readable(text: str) -> str:
    """Return text with undecoded bytes read as UTF-8, or written as ``\\xe9`` where they are not.

    Python keeps such bytes of file names as single surrogates, which cannot be printed or saved; in
    a locale that is not UTF-8 these are all letters beyond ASCII.
    """
    return re.sub("[\udc80-\udcff]+", _decoded, text)


def first_line(error: BaseException) -> str:
    """Return an error's first line, or its kind where it has none; never more than one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _decoded(escaped: re.Match) -> str:
    return escaped[0].encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
