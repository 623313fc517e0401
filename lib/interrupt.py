"""Ctrl-C that is not lost."""

import sys
from _thread import interrupt_main
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

STOPPED = "stopped: finished runs are kept; the same command goes on from there"
CODE = 130  # exit status of a command that Ctrl-C ended, as shells have it


@contextmanager
def kept_interrupts() -> Iterator[None]:
    """Have a Ctrl-C come again that arrives where Python can only drop it.

    It drops what is raised in finalisers and in callbacks of the garbage collector. TensorFlow
    imports JAX, which has such a callback, so that some would do nothing.
    """
    before = sys.unraisablehook

    def again(dropped: "sys.UnraisableHookArgs") -> None:
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            Timer(0.1, interrupt_main).start()  # at once, it would be dropped again
        else:
            before(dropped)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
