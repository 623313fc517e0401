"""What command lines share: words such as ``epochs=3``, and one line for what is refused."""

import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .interrupt import CODE, STOPPED
from .params import InputError, parse_yaml


def answered(command: Callable[[], int | None]) -> int:
    """Run a command and return the status to exit with.

    That is the command's own, none for 0; 2 and one line on standard error where input is
    refused; 130 after Ctrl-C.
    """
    try:
        return command() or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(STOPPED, file=sys.stderr)
        return CODE
    except BrokenPipeError:  # such as of `make params | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def read_values(words: Sequence[str], texts: Collection[str]) -> dict[str, Any]:
    """Values by name from words such as ``epochs=3``; an empty value is none.

    Args:
        texts: names whose values are taken as they are written.

    Raises InputError: a word that is no KEY=VALUE or no YAML, a name that is set twice.
    """
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"settings: {word!r} is not allowed; allowed: KEY=VALUE")
        value = _value(name, text, texts)
        if value is not None and name in values:
            raise InputError(f"settings: {name} is set twice; allowed: once")
        if value is not None:
            values[name] = value
    return values


def read_texts(command: str, words: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """Values by name, as they are written, of a command that knows these names alone.

    Raises InputError as `read_values`, and for another name.
    """
    values = read_values(words, known)
    unknown = set(values) - set(known)
    if unknown:
        raise InputError(f"{command}: {min(unknown)}: unknown; allowed: {', '.join(known)}")
    return values


def _value(name: str, text: str, texts: Collection[str]) -> Any:
    if name in texts:
        return text or None
    value = parse_yaml(text, f"settings: {name}: {text!r}")
    return value.split() if name == "backbones" and isinstance(value, str) else value


def split_words(text: str) -> list[str]:
    """Cut a text into words as a shell does: a value with spaces stands in quotes.

    Raises InputError.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(
            f"SET: {text!r}: {error}; allowed: KEY=VALUE between spaces, "
            "a value that holds spaces or quotes in quotes"
        ) from error
