"""The model card: what a user of the network must know, from the rows and the test."""

from collections.abc import Iterator

from ..errors import readable
from .folder import LOST
from .outcome import Answer, named, shares, signed
from .strategies import STRATEGIES


def model_card(a: Answer) -> str:
    """The card as Markdown."""
    return "\n".join(_lines(a)) + "\n"


def text(name: str) -> str:
    """A name as text in Markdown: nothing in it is markup."""
    marked = "".join(f"\\{c}" if c in "\\`*_[]<>#|&~$" else c for c in name)
    return " ".join(marked.split())


def _lines(a: Answer) -> Iterator[str]:
    s, photos = a.settings, a.photos
    yield f"# Classifier of {len(photos.names)} classes on {s.backbone}"
    yield ""
    yield text(f"{a.sentence[0].upper()}{a.sentence[1:]}.")
    yield ""
    yield f"Accuracy on {len(a.labels)} test photos: **{shares(a.accuracy)}** (95 % interval)."
    if a.kept.layers:
        yield f"That is {signed(a.test_gain)} compared with the classifier alone, photo by photo."
    yield ""
    yield from _data(a)
    yield from _network(a)
    yield from _classes(a)
    yield from _files(a)
    yield from _limits(a)


def _data(a: Answer) -> Iterator[str]:
    photos, s = a.photos, a.settings
    yield "## Data"
    yield ""
    yield f"- folder: {text(readable(photos.folder.name))}, {len(photos)} photos used, " \
        f"{photos.extent}, {len(photos.left_out)} files left out"  # fmt: skip
    lost = [x.path for x in photos.left_out if x.reason == LOST]
    if lost:
        yield f"- no class, as no photo in it could be used: {text(', '.join(lost))}"
    counts = ", ".join(f"{len(x)} {name}" for name, x in a.split.parts().items())
    yield f"- split: {counts}; stratified by class, by content, seed {s.seed}"
    yield f"- kept on one side: {len(a.twins)} groups of the same or nearly the same photo" + (
        f"; groups by {text(s.groups)}" if s.groups else ""
    )
    yield f"- {a.looked}"
    yield ""


def _network(a: Answer) -> Iterator[str]:
    s = a.settings
    yield "## Network"
    yield ""
    yield f"- {s.backbone}, alpha {s.alpha:g}, weights {text(s.weights)}, {a.image_size} px"
    yield f"- tuned: {text(named(a.kept))}, with a new classifier (128, 64, {len(a.photos.names)})"
    says, number = STRATEGIES[s.strategy].says, len(a.tried)
    yield f"- strategy {s.strategy}: {says}; {number} candidates trained"
    yield (
        f"- final training: {a.tested.epochs} epochs of training and selection photos, batches of "
        f"{s.batch_size}, Adam {s.learning_rate:g}, classes weighted alike"
        + ", with augmentation"
        * s.augment
    )
    yield "- epochs: as many as were best on photos held out before"
    if a.gain is not None:
        yield f"- the layers were confirmed {a.after}, by training without weights of classes"
    yield f"- {a.versions}"
    yield ""


def _classes(a: Answer) -> Iterator[str]:
    yield "## Classes, on the test photos"
    yield ""
    yield "| class | photos | precision | recall |"
    yield "|---|---|---|---|"
    for row in a.by_class().itertuples(index=False):
        precision = "never said" if row[2] != row[2] else f"{row[2]:.2f}"
        yield f"| {text(row[0])} | {row[1]} | {precision} | {row[3]:.2f} |"
    yield ""


def _files(a: Answer) -> Iterator[str]:
    yield "## Files"
    yield ""
    yield "- `model.keras`: photos of any size, RGB, 0 to 255, upright, in batches; " \
        "`keras.models.load_model` needs keras and tensorflow only"  # fmt: skip
    yield "- `classes.json`: the classes in the order of the outputs"
    for export in a.exports:
        if export.missing:
            yield f"- `{export.path}`: not written, {text(export.missing)}"
        else:
            yield f"- `{export.path}`: the same classes on {len(a.labels)} test photos" + (
                f"; takes one photo of {a.image_size} px at a time"
                if export.path != "saved_model"
                else ""
            )
    yield ""


def _limits(a: Answer) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- the intervals are for photos like these; photos from elsewhere may do worse"
    yield "- it always names one of its classes, also for photos of none of them"
    yield "- near-duplicates are found by a perceptual hash; mirrored or cropped ones may be missed"
    yield "- a photo is squeezed to a square"
    few = a.by_class()["photos"].min()
    if few < 20:
        yield f"- a class has only {few} test photos: its precision and recall are rough"
