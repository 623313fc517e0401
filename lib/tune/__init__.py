"""Your own photos: which layers to tune, and the tuned network to take home.

What a notebook needs: `from_notebook` and `load_settings` (what is asked for), `prepare` (read and
split the photos, told before anything is trained), `answer` (choose, confirm, train again, test),
`write` (model card and report), `tune_photos` (all of it) and `predict`.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Settings": "settings",
    "load_settings": "settings",
    "from_notebook": "demo",
    "Answer": "outcome",
    "prepare": "run",
    "answer": "run",
    "write": "run",
    "tune_photos": "run",
    "predict": "classify",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: who reads the settings alone starts no Keras."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
