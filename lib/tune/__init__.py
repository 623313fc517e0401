"""Your own photos: which layers to tune, and the tuned network to take home.

What a notebook needs: `from_notebook` and `load_settings` (what is asked for), `prepare` (read and
split the photos, told before anything is trained), `answer` (choose, confirm, train again, test),
`write` (model card and report), `tune_photos` (all of it) and `predict`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .answer import Answer
from .card import model_card
from .demo import from_notebook
from .predict import predict
from .report import FILE, report
from .run import MODEL, answer, prepare, write_whole
from .settings import Settings, load_settings

__all__ = [
    "Answer",
    "Settings",
    "answer",
    "from_notebook",
    "load_settings",
    "predict",
    "prepare",
    "tune_photos",
    "write",
]


def write(found: Answer) -> list[Path]:
    """Write the model card and the report beside the network.

    Returns:
        The paths of model.keras, model_card.md and report.html.
    """
    out = found.settings.out_dir
    paths = [out / MODEL, out / "model_card.md", out / FILE]
    write_whole(paths[1], model_card(found))
    write_whole(paths[2], report(found))
    return paths


def tune_photos(say: Callable[[str], None] = print, **values: Any) -> Answer:
    """Find the layers to tune for a folder of photos, tune them, and write all that comes out.

    Called again with the same photos and settings, it goes on where it stopped.

    Args:
        say: takes each line that tells what is going on.
        **values: by the names of `Settings`; ``dir`` is required.

    Raises InputError.
    """
    found = answer(prepare(load_settings(values), say))
    say(f"{found.sentence[0].upper()}{found.sentence[1:]}.")
    for path in write(found):
        say(f"  {path}")
    return found
