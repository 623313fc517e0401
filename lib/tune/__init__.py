"""Your own photos: which layers to tune, and the tuned network to take home."""

from collections.abc import Callable
from typing import Any

from .answer import Answer
from .card import model_card
from .predict import predict
from .report import FILE, write_report
from .run import MODEL, answer, prepare
from .settings import Settings, load_settings

__all__ = ["Answer", "Settings", "load_settings", "predict", "prepare", "tune_photos"]


def tune_photos(say: Callable[[str], None] = print, **values: Any) -> Answer:
    """Find the layers to tune for a folder of photos, tune them, and write all that comes out.

    In the folder of what comes out: model.keras and other formats, model_card.md, report.html and
    the rows. Called again with the same photos and settings, it goes on where it stopped.

    Args:
        say: takes each line that tells what is going on.
        **values: by the names of `Settings`; ``dir`` is required.

    Raises InputError.
    """
    settings = load_settings(values)
    found = answer(prepare(settings, say))
    out = settings.out_dir
    (out / "model_card.md").write_text(
        model_card(found), encoding="utf-8", errors="backslashreplace"
    )
    write_report(found, out / FILE)
    say(f"{found.sentence[0].upper()}{found.sentence[1:]}.")
    say(f"  {out / MODEL}, model_card.md, {FILE}")
    return found
