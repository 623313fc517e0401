"""From a folder of photos to an answer and a network: every step once, each kept as it is done."""

import errno
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ..audit.intervals import Interval
from ..backbones.build import file_names, load_backbone, weights_digest
from ..backbones.records import RECORDS
from ..backend import check_keras
from ..errors import first_line, readable
from ..ledger import held, read_results
from ..params import InputError
from ..partition import weighted_layers
from ..photos.dataset import Dataset, describe_classes
from ..provenance import versions
from ..whole import write_whole, writing
from .candidates import Candidate
from .card import model_card
from .confirm import arranged, best_epoch, confirm, curve, slices
from .export import CLASSES, CLOSE, FORMATS, clear, export, load, save
from .fit import fit
from .folder import Listing, Photos, find_twins, list_folder, read_photos, seconds_to_read
from .forecast import Forecast, forecast, sizes
from .lanes import PhotoPlan, PhotoStudy, pooled
from .outcome import Answer, Tested, tried
from .report import FILE, report
from .search import Search
from .settings import Settings, load_settings
from .split import Split, check_counts, read_groups, split_photos
from .strategies import STRATEGIES

MODEL, CARD = "model.keras", "model_card.md"
# What the system says where a file cannot be written, whatever the connection does.
UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
SECONDS = "seconds.json"  # that all starts took
WRITTEN = (MODEL, CARD, FILE, CLASSES, *(form.path for form in FORMATS.values()))
SHOWN = 4  # photos of one group that are named there
LISTED = 10  # files that are named one by one on the screen; the report names all
# What changes where things go and how fast, and no result.
FREE = ("dir", "out", "minutes", "exports", "lanes", "memory_gib")


@dataclass(eq=False)
class Job:
    """One folder of photos under one set of settings.

    Attributes:
        forecast: the size of the photos, and the minutes that it will take.
        seconds: that reading and the forecast took, until they are counted.
        dataset: the photos as the engine takes them.
    """

    settings: Settings
    forecast: Forecast
    photos: Photos
    twins: Sequence[tuple[int, ...]]
    split: Split
    seconds: float = 0.0

    @cached_property
    def dataset(self) -> Dataset:
        p = self.photos
        return Dataset(p.images, p.labels, p.names, f"photos in {readable(p.folder.name)}")

    @cached_property
    def study(self) -> PhotoStudy:
        """The runs on the training photos, scored on the selection photos."""
        s, split = self.settings, self.split
        photos = arranged(self.dataset, split.training, split.selection)
        params = s.params(self.forecast.image_size, self.folder, **slices(len(split.training)))
        return PhotoStudy(PhotoPlan(params, self.backbone, photos))

    @cached_property
    def backbone(self) -> keras.Model:
        """The pre-trained network, ending in the mean over its positions."""
        return pooled(network(self.settings, self.forecast.image_size))

    @cached_property
    def folder(self) -> Path:
        """Folder of the rows: another one for other pixels, weights, settings or backend."""
        s = self.settings
        values = {k: v for k, v in asdict(s).items() if k not in FREE}
        parts = {n: [self.photos.digests[i] for i in x] for n, x in self.split.parts().items()}
        ways = self.split.folds.tolist(), self.split.units.tolist()
        labels = self.photos.labels.tolist()
        text = json.dumps([values, self.forecast.image_size, parts, ways, labels, self.photos.names,
                           weights_digest(self.backbone), self.dataset.digest,
                           keras.backend.backend()])  # fmt: skip
        return s.out_dir / "rows" / hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def search(self) -> Search:
        return Search(self.study, self.settings, self.folder)


def network(settings: Settings, size: int) -> keras.Model:
    """The pre-trained network. Raises InputError, which says how its weights can be had."""
    s = settings
    try:
        return load_backbone(s.backbone, image_size=size, alpha=s.alpha, weights=s.weights,
                             thin=s.thin)  # fmt: skip
    except InputError as error:
        if s.weights != "imagenet" or "could not be had" not in str(error):
            raise
        raise InputError(f"weights: those of {s.backbone} {_lack(s, error.__cause__)}") from error


def _lack(settings: Settings, cause: BaseException | None) -> str:
    """Why Keras has not given its ImageNet weights, and how they can be had."""
    s, record = settings, RECORDS[settings.backbone]
    if record.alpha and s.alpha != 1 and isinstance(cause, ValueError):
        return (f"cannot be had with alpha {s.alpha} ({first_line(cause)}); allowed: an alpha "
                "that Keras has weights for, or a file in weights")  # fmt: skip
    if isinstance(cause, OSError) and cause.errno in UNWRITTEN:
        return f"could not be kept ({cause}); allowed: room in ~/.keras, and the right to write"
    if "corrupt" in str(cause) or "truncated" in str(cause):
        return ("are damaged in ~/.keras/models, such as after a download that was cut short; "
                "allowed: that file removed, and a connection to the internet")  # fmt: skip
    kept = "any machine that has loaded them with Keras keeps in ~/.keras/models"
    there = f', or SET="weights=<file>" with the .h5 file that {kept}'
    if record.files is not None:
        files = " or ".join(file_names(s.backbone, s.alpha))
        there = f', or SET="weights=<folder>" with a folder that holds {files}, which {kept}'
    there *= bool(record.weight_files)
    return f"could not be downloaded; allowed: a connection to the internet{there}"


# ---------------------------------------------------------------------------------- before training


def prepare(settings: Settings, say: Callable[[str], None] = print) -> Job:
    """Read and split the photos, and say what was found and what the rest will cost.

    Raises InputError for what cannot be trained on; nothing has been trained then.
    """
    start = time.perf_counter()
    check_keras()
    listing = list_folder(settings.folder)
    check_counts(listing.names, np.bincount(listing.labels, minlength=len(listing.names)))
    told = _forecast(settings, listing)
    photos = read_photos(listing, told.image_size)
    twins = find_twins(photos, settings.duplicates)
    split = split_photos(
        photos,
        twins,
        read_groups(photos, settings.groups),
        selection=settings.selection,
        test=settings.test,
        folds=settings.folds,
        seed=settings.seed,
    )
    job = Job(settings, told, photos, twins, split, time.perf_counter() - start)
    for line in _found(job):
        say(line)
    return job


def _forecast(settings: Settings, listing: Listing) -> Forecast:
    """The forecast of an earlier start with the same photos and settings, or a new one.

    The size depends on how fast this machine is just now, and rows of another size are of no use.
    """
    path = settings.out_dir / "plan.json"
    values = {k: v for k, v in asdict(settings).items() if k not in FREE or k == "minutes"}
    text = json.dumps([values, listing.digests, listing.labels])
    key = hashlib.sha256(text.encode()).hexdigest()
    _check_out(settings, path)
    plans = (read_kept(path) or {"plans": {}})["plans"]
    if key not in plans:
        auto = settings.image_size == "auto"
        size = sizes(settings.backbone)[0] if auto else settings.image_size
        backbone = pooled(network(settings, size))
        made = forecast(settings, backbone, len(listing.paths), seconds_to_read(listing))
        plans[key] = asdict(made)
    write_whole(path, json.dumps({"dir": _real(settings.folder), "plans": plans}))
    return Forecast(**plans[key])


def _check_out(settings: Settings, path: Path) -> None:
    """Refuse to write over what is not of this command, or of another folder of photos.

    The network of one folder may take the place of another's where OUT was given.

    path: of the forecasts.
    """
    out, kept = settings.out_dir, read_kept(path)
    ours = isinstance(kept, dict) and {"dir", "plans"} <= set(kept)
    if kept is not None and not ours:
        taken = [path.name]
    else:  # a damaged one is made again
        taken = [name for name in WRITTEN if (out / name).exists() and not path.exists()]
    if taken:
        raise InputError(
            f"out: {out} holds {taken[0]}, which make photos did not write; allowed: OUT=<a folder "
            "that is new or empty>"
        )
    before = kept["dir"] if ours else _real(settings.folder)
    if settings.out is None and before != _real(settings.folder):
        raise InputError(
            f"out: {out} holds what was made of {before}, a folder of the same name; allowed: "
            "OUT=<another folder>"
        )


def _real(folder: Path) -> str:
    return readable(str(folder.resolve()))


def read_kept(path: Path) -> Any:
    """What `write_whole` wrote as JSON; None where it is not there, or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _found(job: Job) -> Iterator[str]:
    """What the folder holds, how it was split, and what comes next."""
    photos, s, told = job.photos, job.settings, job.forecast
    yield f"{len(photos)} photos in {readable(str(photos.folder))}, {photos.extent}"
    yield from describe_classes(job.dataset)
    if str(photos.depth):
        yield f"  {photos.depth}"
    if photos.left_out:
        yield f"  left out: {len(photos.left_out)}"
        yield from (f"    {x.path}: {x.reason}" for x in photos.left_out[:LISTED])
        yield from ["    ..."] * (len(photos.left_out) > LISTED)
    if job.twins:
        yield f"  the same or nearly the same photo, kept on one side: {len(job.twins)} times"
        yield from (f"    {_some(t, photos)}{_at_odds(t, photos)}" for t in job.twins[:LISTED])
        yield from ["    ..."] * (len(job.twins) > LISTED)
    counts = ", ".join(f"{len(x)} {name}" for name, x in job.split.parts().items())
    yield f"  split: {counts}"
    bent = list(_bent(job))
    yield from [*bent[:LISTED], *["    ..."] * (len(bent) > LISTED)]
    yield (
        f"{s.backbone}, {told.image_size} px, strategy {s.strategy}: "
        f"{STRATEGIES[s.strategy].says}; about {max(1, round(told.minutes))} min on this machine"
    )


def _some(places: Sequence[int], photos: Photos) -> str:
    """The first few of some photos by name, and how many more there are."""
    more = f" and {len(places) - SHOWN} more" * (len(places) > SHOWN)
    return ", ".join(photos.paths[i] for i in places[:SHOWN]) + more


def _at_odds(twins: Sequence[int], photos: Photos) -> str:
    """That photos which are nearly the same are in different classes."""
    names = photos.classes(twins)
    return f": in {' and '.join(names)}, so one label may be wrong" * (len(names) > 1)


def _bent(job: Job) -> Iterator[str]:
    """Where photos that stay together are most of a part's photos of a class."""
    labels, units = job.photos.labels, job.split.units
    for part, places in job.split.parts().items():
        for c, name in enumerate(job.photos.names):
            mine = places[labels[places] == c]
            most = np.unique(units[mine], return_counts=True)[1].max()
            if most > max(1, len(mine) / 2):
                yield (
                    f"    {part}: {most} of the {len(mine)} photos of {name} stay together, and "
                    "show no more than few"
                )


# --------------------------------------------------------------------------------------- the answer


def answer(job: Job) -> Answer:
    """Choose, confirm, train again, test and write all; what is done is read from its rows.

    Another process that does so in the same folder is waited for.
    """
    with held(job.settings.out_dir / ".photos.lock", "works there"):
        found = _answer(job)
        write(found)
        return found


def _answer(job: Job) -> Answer:
    with _timed(job):
        winner = STRATEGIES[job.settings.strategy].choose(job.search)
        alone = job.search.everything[0]
        gain, epochs, curves = _confirmed(job, alone, winner)
        kept = winner if gain is not None and gain.low > 0 else alone
        final = {c.layers: _tested(job, c, epochs[c.layers]) for c in (alone, kept)}
        model = _model(job, kept)
        test = job.photos.images[job.split.test]
        probabilities = final[kept.layers].probabilities
        _check_loaded(job.settings.out_dir / MODEL, model.predict(test, verbose=0), probabilities)
        exports = export(model, job.settings.out_dir, job.settings.exports, test, probabilities)
    return Answer(
        job.settings,
        job.forecast.image_size,
        job.photos,
        job.split,
        job.twins,
        winner,
        kept,
        gain,
        tried(
            job.folder, weighted_layers(job.study.backbone), job.split.units[job.split.selection]
        ),
        curves,
        final[kept.layers],
        final[alone.layers],
        exports,
        (job.forecast.minutes, _seconds(job.folder) / 60),
        versions(),
        _tested_settings(job.settings.out_dir),
    )


def _confirmed(
    job: Job, alone: Candidate, winner: Candidate
) -> tuple[Interval | None, dict[tuple, int], dict[str, np.ndarray]]:
    """The winner's gain, and for each candidate its epochs and its curve on held-out photos.

    The rule for the epochs: the first at which the mean accuracy on held-out photos is highest.
    """
    if winner.layers:
        pair = [alone, winner]
        found = confirm(job.study, job.settings, job.dataset, job.split, pair, job.folder / "folds")
        gain, curves = found.gain(), found.curves
    else:
        rows = read_results(job.folder / f"epochs_{job.settings.epochs:03}")
        row = rows[rows["layers"] == ""].iloc[0]
        pair, gain, curves = [alone], None, [curve(row)]
    epochs = {c.layers: best_epoch(x) for c, x in zip(pair, curves, strict=True)}
    return gain, epochs, {c.label: x for c, x in zip(pair, curves, strict=True)}


def _place(job: Job, candidate: Candidate) -> Path:
    """Folder of one network's final training."""
    digest = hashlib.sha256(";".join(candidate.layers).encode()).hexdigest()[:8]
    return job.folder / f"final_{digest}"


def _tested(job: Job, candidate: Candidate, epochs: int) -> Tested:
    """Train a network again on training and selection photos; look at the test photos, once.

    What it made of them is kept: the same network is not tested twice.
    """
    place = _place(job, candidate)
    if read_kept(place / "test.json") is None or not (place / MODEL).is_file():
        split, photos = job.split, job.photos
        rows = np.concatenate([split.training, split.selection])
        model, history = fit(job.settings, job.forecast.image_size, candidate.block,
                             photos.images[rows], photos.labels[rows], photos.names,
                             epochs)  # fmt: skip
        save(model, photos.names, place / MODEL, photos.depth)
        probabilities = model.predict(photos.images[split.test], verbose=0)
        write_whole(place / "test.json", json.dumps(
            {"probabilities": probabilities.tolist(), "epochs": epochs, "history": history}
        ))  # fmt: skip
    kept = read_kept(place / "test.json")
    return Tested(np.array(kept.pop("probabilities"), "float32"), **kept)


def _model(job: Job, candidate: Candidate) -> keras.Model:
    """The network to take home, put where it is looked for, and loaded from there.

    What was said of another one is removed first: a stop must not leave both.
    """
    out = job.settings.out_dir
    model, names = load(_place(job, candidate) / MODEL)
    with writing(out):
        clear(out)
        for name in (CARD, FILE):
            (out / name).unlink(missing_ok=True)
    save(model, names, out / MODEL, job.photos.depth)
    return load(out / MODEL)[0]


def _check_loaded(path: Path, found: np.ndarray, probabilities: np.ndarray) -> None:
    """Refuse a network that, loaded from its file, is not the one that was tested.

    Args:
        found, probabilities: of the test photos, now and then.
    """
    gap = float(np.abs(found - probabilities).max())
    if not gap < CLOSE:
        raise InputError(
            f"model: {path}, loaded again, gives probabilities that are off by {gap:.2g}; allowed: "
            "the versions of Keras and its backend that it was trained with"
        )


def _tested_settings(out: Path) -> int:
    """Under how many settings networks in this folder were tested."""
    return len({path.parent.parent for path in (out / "rows").glob("*/final_*/test.json")})


@contextmanager
def _timed(job: Job) -> Iterator[None]:
    """Count the seconds of this start, one that is stopped, too, and those of its `prepare`."""
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds = _seconds(job.folder) + job.seconds + time.perf_counter() - start
        job.seconds = 0.0  # counted
        with suppress(InputError):  # no room: what stopped it says more, and what follows needs it
            write_whole(job.folder / SECONDS, json.dumps(seconds))


def _seconds(folder: Path) -> float:
    """What all starts took together."""
    return read_kept(folder / SECONDS) or 0.0


# ------------------------------------------------------------------------------------- all of it


def write(found: Answer) -> list[Path]:
    """Write the model card and the report beside the network.

    Returns:
        The paths of model.keras, model_card.md and report.html.
    """
    paths = [found.settings.out_dir / name for name in (MODEL, CARD, FILE)]
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
    for name in (MODEL, CARD, FILE):
        say(f"  {found.settings.out_dir / name}")
    return found
