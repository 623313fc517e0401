"""What came out: the layers to tune, what that adds, and how the network does on the test photos.

All of it is data, made from rows and from one look at the test photos; the report and the model
card only write it down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm
from scipy.stats import t as student

from ..audit.intervals import Interval, clustered
from ..ledger import read_results, unpack_hits
from .candidates import WORDS, Candidate
from .confirm import curve
from .export import Export
from .folder import Photos
from .settings import Settings
from .split import Split

TOGETHER = "layers together"  # what ranked candidates are


@dataclass(frozen=True, eq=False)
class Tested:
    """One network on the test photos.

    Attributes:
        probabilities: float32 ``(photos, classes)``.
        epochs: that it was trained for.
        history: loss and accuracy on its training photos after each epoch.
    """

    probabilities: np.ndarray
    epochs: int
    history: Mapping[str, Sequence[float]]

    def right(self, labels: np.ndarray) -> np.ndarray:
        """Which photos it got right, bool ``(photos,)``."""
        return self.probabilities.argmax(axis=1) == labels


@dataclass(frozen=True, eq=False)
class Answer:
    """All that the report and the model card say.

    Attributes:
        winner: what the strategy chose; kept: what is worth keeping of it.
        gain: what the winner adds to the classifier alone, cross-validated on training photos that
            did not score it; None where the classifier alone won.
        tried: as `tried` returns it.
        curves: accuracy on held-out photos after each epoch, by candidate's name.
        tested: of the kept network; alone: of the classifier alone, the same where it is kept.
        minutes: as told before it started, and as it took.
        settings_tested: under how many settings, these among them, networks in this folder were
            tested.
    """

    settings: Settings
    image_size: int
    photos: Photos
    split: Split
    twins: Sequence[tuple[int, ...]]
    winner: Candidate
    kept: Candidate
    gain: Interval | None
    tried: pd.DataFrame
    curves: Mapping[str, np.ndarray]
    tested: Tested
    alone: Tested
    exports: Sequence[Export]
    minutes: tuple[float, float]
    versions: str
    settings_tested: int

    @property
    def looked(self) -> str:
        """How often test photos were looked at."""
        others = self.settings_tested - 1
        again = f"; so were those of {others} other settings in this folder" * (others > 0)
        return f"the test photos were looked at once, after everything was chosen{again}"

    @property
    def after(self) -> str:
        """When the winner and the classifier alone were compared: not after their best epochs."""
        epochs = self.settings.epochs
        return f"after {epochs} epoch{'s' * (epochs > 1)}"

    @property
    def like(self) -> str:
        """What intervals are for others of: photos, or the groups of `Settings.groups`."""
        return "groups of photos" if self.settings.groups else "photos"

    @property
    def labels(self) -> np.ndarray:
        """Labels of the test photos."""
        return self.photos.labels[self.split.test]

    @property
    def sentence(self) -> str:
        """The answer."""
        if self.gain is None:
            return "nothing that was tried is better than the classifier alone: keep it"
        if self.kept.layers:
            gain = f"{signed(self.gain)} over the classifier alone, both {self.after}"
            return f"tune {named(self.kept)}: {gain}"
        return (
            "nothing is better than the classifier alone beyond its interval "
            f"({named(self.winner)}: {signed(self.gain)}, both {self.after}): keep it"
        )

    @property
    def accuracy(self) -> Interval:
        """Of the kept network on the test photos."""
        return proportion(self.tested.right(self.labels), self.split.units[self.split.test])

    @property
    def test_gain(self) -> Interval:
        """What the kept network adds to the classifier alone on the test photos, paired."""
        right = [t.right(self.labels).astype(float) for t in (self.tested, self.alone)]
        return paired(*right, self.split.units[self.split.test])

    def by_class(self) -> pd.DataFrame:
        """Precision and recall of each class on the test photos, with how many there are."""
        found, labels = self.tested.probabilities.argmax(axis=1), self.labels
        rows = []
        for c, name in enumerate(self.photos.names):
            hits = int(((found == c) & (labels == c)).sum())
            said, there = int((found == c).sum()), int((labels == c).sum())
            rows.append((name, there, hits / said if said else np.nan, hits / there))
        return pd.DataFrame(rows, columns=["class", "photos", "precision", "recall"])

    def confusion(self) -> np.ndarray:
        """Number of test photos by class (rows) and by what the network says (columns)."""
        n = len(self.photos.names)
        pairs = self.labels * n + self.tested.probabilities.argmax(axis=1)
        return np.bincount(pairs, minlength=n * n).reshape(n, n)

    def mistakes(self, most: int = 12) -> list[int]:
        """Test photos that the network gets wrong with most confidence, by place in the test."""
        wrong = np.flatnonzero(~self.tested.right(self.labels))
        sure = self.tested.probabilities.max(axis=1)
        return sorted(wrong.tolist(), key=lambda i: -sure[i])[:most]


def named(candidate: Candidate) -> str:
    """A candidate with its layers, as far as a sentence can hold them."""
    if not candidate.layers or candidate.label in candidate.layers:
        return candidate.label
    shown = ", ".join(candidate.layers[:4]) + ", ..." * (len(candidate.layers) > 4)
    return f"{candidate.label} ({len(candidate.layers)} layers: {shown})"


def proportion(right: np.ndarray, units: np.ndarray) -> Interval:
    """A share of photos with its 95 % interval (Wilson) for other units of photos.

    Args:
        right: bool ``(photos,)``; units: as `lib.audit.intervals.clustered` takes them.

    Photos of few units say as much as fewer photos of their own would; so many are reckoned with,
    and Student's distribution, as so few units do not show well how much they differ.
    """
    share, n = float(right.mean()), len(right)
    sizes = np.unique(units, return_counts=True)[1]
    if len(sizes) < 2:
        return Interval(share, 0.0, 1.0)
    alone, together = clustered(right, np.arange(n)), clustered(right, units)
    if alone.error == 0:  # all right, or all wrong
        n = n**2 / (sizes**2).sum()
    else:
        n /= max(1.0, (together.error / alone.error) ** 2)
    law = norm if len(sizes) == len(right) else student(together.freedom)
    z2 = law.ppf(0.975) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return Interval(share, float(middle - half), float(middle + half))


def paired(upper: np.ndarray, lower: np.ndarray, units: np.ndarray) -> Interval:
    """A difference of two shares on the same photos, with its 95 % interval for other units."""
    return clustered(upper.astype(float) - lower, units).interval()


def shares(interval: Interval) -> str:
    """An interval of shares as text, without signs."""
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def signed(interval: Interval) -> str:
    """An interval of differences of shares as text; none where it holds all that there can be.

    Where no photo differs there is none either: that others would not is not shown.
    """
    if interval.low == interval.high == 0:
        return "+0.000 (no photo differs)"
    if interval.low <= -1 and interval.high >= 1:
        return f"{interval.value:+.3f} (no interval)"
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def by_epochs(folder: Path) -> list[Path]:
    """The folders of rows, from the fewest epochs to the most."""
    return sorted(folder.glob("epochs_*"), key=lambda x: int(x.name.removeprefix("epochs_")))


def tried(folder: Path, layers: Sequence[str], units: np.ndarray) -> pd.DataFrame:
    """Every candidate that was trained, with what it adds to the classifier alone.

    Of a candidate that was trained for several numbers of epochs, the most; compared with the
    classifier alone after as many, on the selection photos.

    Columns: block, kind, layers, epochs, accuracy, gain, low, high, depth (mean place of its layers
    among all with weights, from 1), curve.

    Args:
        folder: of the search's rows.
        layers: names of all layers with weights, from the input to the output.
        units: of the selection photos.
    """
    place = {name: i for i, name in enumerate(layers, start=1)}
    found: dict[str, tuple] = {}
    for stage in by_epochs(folder):
        rows = read_results(stage).drop_duplicates("layers")
        if not len(rows) or not (rows["layers"] == "").any():
            continue
        hits = {
            r.layers: unpack_hits(r.hits, r.eval_images).astype(float) for r in rows.itertuples()
        }
        for r in rows.to_dict("records"):
            gain = paired(hits[r["layers"]], hits[""], units)
            names = r["layers"].split(";") if r["layers"] else []
            depth = np.mean([place[n] for n in names]) if names else np.nan
            kind = WORDS.get(r["method"], TOGETHER)
            found[r["layers"]] = (r["block"], kind, tuple(names), r["epochs"], r["val_accuracy"],
                                  gain.value, gain.low, gain.high, depth, curve(r))  # fmt: skip
    columns = ["block", "kind", "layers", "epochs", "accuracy", "gain", "low", "high", "depth",
               "curve"]  # fmt: skip
    return pd.DataFrame(found.values(), columns=columns)
