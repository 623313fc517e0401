"""Keras and its backend without their log lines."""

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from .params import InputError


@contextmanager
def silence() -> Iterator[None]:
    """Send standard error nowhere, also that of C++ libraries, which no setting can silence."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def import_quietly() -> None:
    """Import Keras and start its backend, for a command that promises one line for a mistake.

    Raises InputError.
    """
    try:
        with silence():
            import keras

            keras.ops.zeros(1)
    except (ImportError, ValueError) as error:  # no such backend, or one that is not installed
        raise InputError(
            f"Keras cannot start: {str(error).splitlines()[0]}; allowed: a backend that is "
            "installed, tensorflow or jax, in KERAS_BACKEND and keras.json"
        ) from error
    # Many models in one process are what this project is about, not a mistake to be warned of.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)


def in_own_process(function: Callable, *arguments: Any) -> Any:
    """What a function returns, called in a process of its own with Keras imported.

    So no graphs, memory or caches of other calls are there.

    Raises InputError where the process is killed, such as for want of memory.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        try:
            return pool.submit(_call, function, *arguments).result()
        except BrokenProcessPool as error:
            raise InputError(
                f"memory: the process of {function.__name__} was killed; allowed: a smaller case, "
                "or more free memory"
            ) from error


def _call(function: Callable, *arguments: Any) -> Any:
    import_quietly()
    return function(*arguments)
