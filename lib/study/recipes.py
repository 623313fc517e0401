"""What people use, as they type it, and the runs that compare `make photos` with it.

All three ways have the same photos, split, network and weights. A recipe has no part of the photos
to choose by: it trains on all that are no test photos, as the final training of `make photos` does.
"""

import gc
import inspect
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import layers

from .. import tune
from ..backbones.build import scale_inputs
from ..ledger import pack_hits
from ..provenance import RUNNING_COMMIT, versions
from ..tune.run import Job, network
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
    if way == PHOTOS:
        return 1
    lines = inspect.getsource(RECIPES[way]).splitlines()
    return len([line for line in lines[1:] if line.strip()]) - 1


def settings_for(
    protocol: Protocol, backbone: str, seed: int, folder: Path, places: Places
) -> Settings:
    """The defaults of `make photos`, but for what the protocol says of tests."""
    small = {"image_size": 32, "exports": ()} if protocol.values else {}
    return Settings(
        dir=str(folder),
        out=str(places.work / "people" / backbone / f"seed_{seed}"),
        backbone=backbone,
        alpha=protocol.alphas[backbone],
        weights=places.weights,
        seed=seed,
        **small,
        **protocol.values,
    )


def compare(settings: Settings, source: str, results: Path, say: Callable[[str], None]) -> None:
    """Run what one seed still lacks of the comparison; a row a way in `lib.study.people.FILE`.

    Args:
        settings: of `make photos`; its folder of what comes out holds nothing else.
        source: the photos' name.
    """
    rows = read_people(results)
    there = rows[(rows["backbone"] == settings.backbone) & (rows["seed"] == settings.seed)]
    missing = [way for way in WAYS if way not in set(there["way"])]
    if not missing:
        return
    if PHOTOS in missing:
        shutil.rmtree(settings.out_dir, ignore_errors=True)  # what a start cut short took is lost
    clock = Clock()
    job = tune.prepare(settings, say)
    for way in missing:
        if way != PHOTOS:
            clock = Clock()
        hits, tuned = _photos(job) if way == PHOTOS else _recipe(job, way)
        minutes, cpu = (seconds / 60 for seconds in clock.lap())
        _append(results, _row(job, source, way, hits, tuned, minutes, cpu))
        say(
            f"{settings.backbone}, seed {settings.seed}: {way} {hits.mean():.3f}, {minutes:.1f} min"
        )
        keras.utils.clear_session()
        gc.collect()


def _photos(job: Job) -> tuple[np.ndarray, str]:
    """Which test photos `make photos` gets right, and what it tuned."""
    found = tune.answer(job)
    return found.tested.right(found.labels), found.kept.label


def _recipe(job: Job, way: str) -> tuple[np.ndarray, str]:
    """Which test photos a recipe gets right, and what it tuned."""
    s, split = job.settings, job.split
    keras.utils.set_random_seed(s.seed)
    train = np.concatenate([split.training, split.selection])
    photos = scale_inputs(job.photos.images, s.backbone, "native")
    base, labels = network(s, job.forecast.image_size), job.photos.labels
    model = RECIPES[way](base, photos[train], labels[train], len(job.photos.names))
    found = model.predict(photos[split.test], verbose=0).argmax(axis=1)
    return found == labels[split.test], {GUIDE: "everything", THIRD: "the top third"}[way]


def _row(
    job: Job, source: str, way: str, hits: np.ndarray, tuned: str, minutes: float, cpu: float
) -> dict:
    s = job.settings
    return {
        "data": source,
        "backbone": s.backbone,
        "alpha": s.alpha,
        "image_size": job.forecast.image_size,
        "seed": s.seed,
        "way": way,
        "train_images": len(job.photos) - len(hits),
        "test_images": len(hits),
        "tested": ";".join(map(str, job.split.test)),
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
