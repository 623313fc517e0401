"""What people use, as they type it, and the runs that compare `make photos` with it.

All ways have the same photos, network and weights. A recipe has no part of the photos to choose by:
it trains on all but a fifth, as the final training of `make photos` does.
"""

import gc
import inspect
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import layers

from .. import tune
from ..backbones.build import scale_inputs
from ..ledger import pack_hits
from ..provenance import RUNNING_COMMIT, versions
from ..tune.export import load
from ..tune.folder import Photos, list_folder, read_photos
from ..tune.forecast import sizes
from ..tune.run import MODEL, network
from ..tune.settings import Settings
from ..upkeep.bench import machine
from ..whole import write_whole
from .people import COLUMNS, FILE, GUIDE, PHOTOS, THIRD, WAYS, read_people
from .protocol import Protocol
from .record import Clock
from .run import Places

Recipe = Callable[[keras.Model, np.ndarray, np.ndarray, int], keras.Model]


def keras_guide(base, photos, labels, classes):
    """Keras' guide "Transfer learning & fine-tuning", with its rates and numbers of epochs."""
    base.trainable = False
    inputs = keras.Input(base.input_shape[1:])
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.RandomRotation(0.1)(x)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    model = keras.Model(inputs, layers.Dense(classes)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss)
    model.fit(photos, labels, epochs=20, verbose=0)
    base.trainable = True
    model.compile(keras.optimizers.Adam(1e-5), loss)
    model.fit(photos, labels, epochs=10, verbose=0)
    return model


def top_third(base, photos, labels, classes):
    """The same, but of the network the top third of the layers alone is tuned."""
    base.trainable = False
    inputs = keras.Input(base.input_shape[1:])
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.RandomRotation(0.1)(x)
    x = base(x, training=False)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    model = keras.Model(inputs, layers.Dense(classes)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss)
    model.fit(photos, labels, epochs=20, verbose=0)
    base.trainable = True
    for layer in base.layers[: len(base.layers) * 2 // 3]:
        layer.trainable = False
    model.compile(keras.optimizers.Adam(1e-5), loss)
    model.fit(photos, labels, epochs=10, verbose=0)
    return model


RECIPES: Mapping[str, Recipe] = {GUIDE: keras_guide, THIRD: top_third}


def lines_typed(way: str) -> int:
    """Lines of a recipe's body, its docstring left out; `make photos` is one."""
    if way in PHOTOS:
        return 1
    lines = inspect.getsource(RECIPES[way]).splitlines()
    return len([line for line in lines[1:] if line.strip()]) - 1


@dataclass(frozen=True)
class Contest:
    """One seed on one data set with one network: what all ways have in common.

    Attributes:
        folder: of a data set: the photos that a way is given in ``given``, others in ``others``.
        settings: of `make photos`, but for the strategy and the folder of what comes out.
    """

    folder: Path
    settings: Settings

    @classmethod
    def of(cls, protocol: Protocol, backbone: str, seed: int, folder: Path, places: Places):
        """The defaults of `make photos`, but for what the protocol says of tests."""
        small = {"image_size": 32, "exports": ()} if protocol.values else {}
        settings = Settings(
            dir=str(folder / "given"),
            out=str(places.work / "people" / folder.name / backbone / f"seed_{seed}"),
            backbone=backbone,
            alpha=protocol.alphas[backbone],
            weights=places.weights,
            seed=seed,
            **small,
            **protocol.values,
        )
        return cls(folder, settings)

    @property
    def data(self) -> str:
        return self.folder.name

    def photos(self, way: str) -> tuple[keras.Model, int, str]:
        """A network by `make photos`, its size of photos, and what it tunes."""
        strategy = PHOTOS[way]
        out = f"{self.settings.out}/{strategy}"
        shutil.rmtree(out, ignore_errors=True)  # what a start cut short took is not known
        job = tune.prepare(replace(self.settings, strategy=strategy, out=out), lambda line: None)
        found = tune.answer(job)
        return load(Path(out) / MODEL)[0], found.image_size, found.kept.label

    def recipe(self, way: str) -> tuple[keras.Model, int, str]:
        """The same by a recipe, with photos of the size of the network's own training."""
        s = self.settings
        size = sizes(s.backbone)[0] if s.image_size == "auto" else s.image_size
        job = tune.prepare(replace(s, image_size=size, out=f"{s.out}/recipe"), lambda line: None)
        keras.utils.set_random_seed(s.seed)
        train = np.concatenate([job.split.training, job.split.selection])
        images = scale_inputs(job.photos.images[train], s.backbone, "native")
        labels, classes = job.photos.labels[train], len(job.photos.names)
        model = RECIPES[way](network(s, size), images, labels, classes)
        return model, size, {GUIDE: "everything", THIRD: "the top third"}[way]

    def right(self, way: str, model: keras.Model, size: int) -> np.ndarray:
        """Which of the other photos a network gets right."""
        others = _read(self.folder / "others", size)
        images = others.images
        if way in RECIPES:
            images = scale_inputs(images, self.settings.backbone, "native")
        return model.predict(images, verbose=0).argmax(axis=1) == others.labels


@cache
def _read(folder: Path, size: int) -> Photos:
    return read_photos(list_folder(folder), size)


def compare(contest: Contest, results: Path, say: Callable[[str], None]) -> None:
    """Run what one seed still lacks of the comparison; a row a way in `lib.study.people.FILE`."""
    s, rows = contest.settings, read_people(results)
    there = rows[
        (rows["data"] == contest.data) & (rows["backbone"] == s.backbone) & (rows["seed"] == s.seed)
    ]
    for way in (way for way in WAYS if way not in set(there["way"])):
        clock = Clock()
        model, size, tuned = (contest.photos if way in PHOTOS else contest.recipe)(way)
        minutes, cpu = (seconds / 60 for seconds in clock.lap())
        hits = contest.right(way, model, size)
        _append(results, _row(contest, way, size, hits, tuned, minutes, cpu))
        say(f"{contest.data}, {s.backbone}, seed {s.seed}: {way} {hits.mean():.3f}, "
            f"{size} px, {minutes:.1f} min")  # fmt: skip
        keras.utils.clear_session()
        gc.collect()


def _row(
    contest: Contest,
    way: str,
    size: int,
    hits: np.ndarray,
    tuned: str,
    minutes: float,
    cpu: float,
) -> dict:
    s = contest.settings
    return {
        "data": contest.data,
        "backbone": s.backbone,
        "alpha": s.alpha,
        "seed": s.seed,
        "way": way,
        "image_size": size,
        "photos": len(list_folder(s.folder).paths),
        "test_images": len(hits),
        "hits": pack_hits(hits),
        "minutes": round(minutes, 3),
        "cpu_minutes": round(cpu, 3),
        "lines": lines_typed(way),
        "tuned": tuned,
        "machine": machine(),
        "versions": versions(),
        "git_sha": RUNNING_COMMIT,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _append(results: Path, row: dict) -> None:
    rows = pd.concat([read_people(results), pd.DataFrame([row], columns=list(COLUMNS))])
    write_whole(results / FILE, rows.to_csv(index=False))
