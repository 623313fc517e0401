"""Does the winner beat the classifier alone? Cross-validation on photos that did not score it.

The winner is the best of many on the selection photos, so these flatter it. The training photos
have scored nothing; two strategies have ranked candidates by the gradients on them. Each fold of
them is scored by runs that were trained on the other folds and on the selection photos. Both
candidates are scored on the same photos, so their difference is paired.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..audit.intervals import Estimate, Interval, clustered, pooled, scatter
from ..ledger import unpack_curve, unpack_hits
from ..photos.dataset import Dataset
from .candidates import Candidate
from .lanes import PhotoStudy
from .settings import Settings
from .split import Split


@dataclass(frozen=True, eq=False)
class Confirmed:
    """Cross-validated runs of some candidates.

    Attributes:
        hits: which photos each run got right, bool ``(candidates, repeats, photos)``.
        folds: the fold of each photo, int ``(photos,)``; the runs of a fold scored its photos.
        units: the unit of each photo, int ``(photos,)``, see `lib.tune.split`.
        curves: accuracy after each epoch, mean over the runs, ``(candidates, epochs)``.
    """

    candidates: tuple[Candidate, ...]
    hits: np.ndarray
    folds: np.ndarray
    units: np.ndarray
    curves: np.ndarray

    def gain(self) -> Interval:
        """What the last candidate adds to the first, with its paired 95 % interval.

        For other units of photos, and for other runs: what chance adds from run to run beyond what
        the photos show, see `lib.audit.intervals`. Degrees of freedom are Satterthwaite's.
        """
        hits = self.hits[[0, -1]].astype(float)
        each, folds = hits.mean(axis=1), np.unique(self.folds)
        gains = each[1] - each[0]
        mean = clustered(gains, self.units)
        photos = mean.error**2
        noise = pooled(
            scatter(hits[:, :, self.folds == f], False, self.units[self.folds == f]) for f in folds
        )
        if not noise.freedom:  # one unit a fold: how units differ shows the chance of runs, too
            return mean.interval()
        share = 2 / (hits.shape[1] * len(folds))  # two candidates, each a mean of so many runs
        variance = photos + share * noise.variance
        doubt = photos**2 / mean.freedom + (share * noise.mean_square) ** 2 / noise.freedom
        freedom = variance**2 / doubt if doubt else np.inf
        # It is lower than both where noise was found to be none.
        freedom = max(freedom, min(noise.freedom, mean.freedom))
        error = float(np.sqrt(variance))
        return Estimate(mean.value, error, freedom if error else np.inf).interval()


def confirm(
    study: PhotoStudy,
    settings: Settings,
    dataset: Dataset,
    split: Split,
    pair: Sequence[Candidate],
    folder: Path,
) -> Confirmed:
    """Cross-validate candidates over the folds of the training photos.

    Args:
        dataset: all photos, which the split's indices are of.
        folder: of the rows; each fold has a folder in it.
    """
    tables = [
        _fold(study, settings, dataset, split, pair, fold, folder / f"fold_{fold + 1}")
        for fold in range(split.folds.max() + 1)
    ]
    hits = np.concatenate([h for h, _ in tables], axis=2)
    weights = [h.shape[2] for h, _ in tables]
    curves = np.average([c for _, c in tables], axis=0, weights=weights)
    order = np.argsort(split.folds, kind="stable")  # as the folds' photos were put together
    units = split.units[split.training[order]]
    return Confirmed(tuple(pair), hits, split.folds[order], units, curves)


def _fold(
    study: PhotoStudy,
    settings: Settings,
    dataset: Dataset,
    split: Split,
    pair: Sequence[Candidate],
    fold: int,
    folder: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Hits ``(candidates, repeats, photos)`` and curves ``(candidates, epochs)`` of one fold."""
    scored = split.training[split.folds == fold]
    others = np.concatenate([split.training[split.folds != fold], split.selection])
    part = study.on(arranged(dataset, others, scored), folder, **slices(len(others)))
    runs = {
        (c.layers, r): part.run(c.method, c.block, r) for c in pair for r in range(settings.repeats)
    }
    part.train(list(runs.values()))
    rows = part.rows().drop_duplicates("key").set_index("key")
    found = [[rows.loc[runs[c.layers, r].key] for r in range(settings.repeats)] for c in pair]
    hits = [[unpack_hits(row["hits"], len(scored)) for row in one] for one in found]
    curves = [np.mean([curve(row) for row in one], axis=0) for one in found]
    return np.array(hits), np.array(curves)


def best_epoch(curve: np.ndarray) -> int:
    """The first epoch at which an accuracy is highest, counted from 1."""
    return int(curve.argmax()) + 1


def curve(row: pd.Series) -> np.ndarray:
    """Accuracy after each epoch of a run."""
    return unpack_curve(row["curve"]) / row["eval_images"]


def arranged(dataset: Dataset, train: np.ndarray, evaluation: np.ndarray) -> Dataset:
    """The photos of two parts, those to train on first: slices then name the parts."""
    order = np.concatenate([train, evaluation])
    return Dataset(dataset.images[order], dataset.labels[order], dataset.names, dataset.source)


def slices(train: int) -> dict[str, str]:
    """The engine's slices of what `arranged` returns, with so many photos to train on."""
    return {"search_split": f"train[:{train}]", "eval_split": f"train[{train}:]"}
