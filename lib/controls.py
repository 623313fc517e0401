"""The runs that the audit needs and the paper did not make: ``make controls``.

One record a control: a name, what it is for, and the jobs that make its rows, each with a folder of
rows of its own beside those of the profile, so that no figure of the paper mixes them in. Reading
starts no Keras.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from .errors import InputError
from .ledger import read_results
from .methods import BASELINES, methods
from .params import Params
from .results import NOTHING, Results

SEEDS = 3  # of the layer-wise search and of the long one
LONG = 50  # epochs of the search that tells when to stop: the paper's
LONGER = {"epochs": 25, "final_epochs": 8}  # what a shorter profile is held to
LARGER = {"image_size": 96, **LONGER}  # and one with smaller photos
SIZES = (96, 128, 224)  # pixels; the last is the paper's, and trains all methods


@dataclass(frozen=True)
class Job:
    """Some runs of one setting.

    Attributes:
        params: the setting, with its own folder of rows.
        methods: what is run.
        repeats: of their search alone; 0: their final runs, and the searches these need.
    """

    params: Params
    methods: tuple[str, ...]
    repeats: int = 0


@dataclass(frozen=True)
class Control:
    """Runs for one doubt.

    Attributes:
        name: for ``make controls CONTROL=...``.
        jobs: what makes its rows under a profile; none where the profile does not need it.
        trained: by ``make controls``; otherwise its rows are those of a profile of its own.
    """

    name: str
    jobs: Callable[[Params], Iterator[Job]]
    trained: bool = True


def _beside(params: Params, folder: str, **changes) -> Params:
    """The profile with a folder of rows of its own, and other changes."""
    return replace(params, results=f"{params.results_dir}_{folder}", **changes)


def _first(params: Params) -> Params:
    """The profile with its first backbone only."""
    return replace(params, backbones=params.backbones[:1])


def _seeds(params: Params) -> Iterator[Job]:
    """The layer-wise search with other seeds, among the profile's own rows."""
    yield Job(params, ("layer_wise",), SEEDS)


def _batch_norms(params: Params) -> Iterator[Job]:
    """BatchNorms alone tuned, search and final."""
    yield Job(_beside(params, "norms"), ("batch_norm",))


def _blocks(params: Params) -> Iterator[Job]:
    """Every block of one backbone trained on the final slice."""
    changes = {"search_split": params.final_split, "epochs": params.final_epochs or params.epochs}
    yield Job(_beside(_first(params), "blocks", **changes), ("block_wise",), 1)


def _epochs(params: Params) -> Iterator[Job]:
    """Baselines and blocks of one backbone, searched for the paper's 50 epochs with other seeds."""
    long = _beside(_first(params), "epochs", epochs=max(LONG, params.epochs))
    yield Job(long, (*BASELINES, "random", "block_wise"), SEEDS)


def _larger(params: Params) -> Iterator[Job]:
    """All of the paper's runs of one backbone with larger photos and longer training."""
    if not params.thin and params.image_size < LARGER["image_size"]:  # thin: drawn at 32 px
        yield Job(_beside(_first(params), "larger", **LARGER), methods(params))


def _sizes(params: Params) -> Iterator[Job]:
    """Both baselines of one backbone with larger photos, all else as in the profile.

    At the paper's size all methods.
    """
    for pixels in () if params.thin else SIZES:
        if pixels > params.image_size:
            larger = _beside(_first(params), f"{pixels}px", image_size=pixels)
            for method in BASELINES:  # one by one: Baseline I alone has all of its trunk
                yield Job(larger, (method,))
            if pixels == SIZES[-1]:
                yield Job(larger, methods(params))


def _longer(params: Params) -> Iterator[Job]:
    """All of the paper's runs, trained longer."""
    if params.epochs < LONGER["epochs"] and not params.thin:  # thin: a rate of its own
        yield Job(_beside(params, "longer", **LONGER), methods(params))


def _native(params: Params) -> Iterator[Job]:
    """All of the paper's runs with the backbones' own input scaling."""
    yield Job(_beside(params, "native", input_scaling="native"), methods(params))


def _native_longer(params: Params) -> Iterator[Job]:
    """The same, trained longer."""
    (native,) = _native(params)
    yield from _longer(native.params)


# In the order in which they are trained, cheap ones first.
CONTROLS = (
    Control("seeds", _seeds),
    Control("batch_norms", _batch_norms),
    Control("blocks", _blocks),
    Control("epochs", _epochs),
    Control("larger", _larger),
    Control("sizes", _sizes),
    Control("longer", _longer),
    Control("native", _native, trained=False),
    Control("native_longer", _native_longer, trained=False),
)


@dataclass(frozen=True, eq=False)
class Controls:
    """The results beside those of a profile.

    Attributes:
        found: by the control's name, one `Results` for each of its settings that has rows.
    """

    found: Mapping[str, Sequence[Results]]

    def __getitem__(self, name: str) -> Results:
        """Of a control with one setting; without rows where it was not run."""
        return next(iter(self.found.get(name, ())), NOTHING)

    def each(self, name: str) -> Sequence[Results]:
        """Of a control with several settings."""
        return self.found.get(name, ())

    @property
    def reruns(self) -> list[Results]:
        """All of the paper's runs again, under settings that cost more than the profile's."""
        names = ("longer", "native_longer", "larger", "sizes")
        every = [results for name in names for results in self.each(name)]
        return [results for results in every if "layer_wise" in set(results.rows["method"])]


def read_controls(params: Params) -> Controls:
    """What was run beside a profile's own rows."""
    return Controls({control.name: _read(control, params) for control in CONTROLS})


def _read(control: Control, params: Params) -> list[Results]:
    settings = {job.params.results_dir: job.params for job in control.jobs(params)}
    settings.pop(params.results_dir, None)  # among the profile's own rows: no results beside them
    every = [Results.of(read_results(folder), own) for folder, own in settings.items()]
    return [results for results in every if len(results)]


def train_controls(params: Params, names: Sequence[str] = ()) -> None:
    """Train what is missing of the rows that `read_controls` reads.

    names: some of the controls that ``make controls`` trains; none for all of them.

    Raises InputError for another name.
    """
    trained = [control for control in CONTROLS if control.trained]
    known = [control.name for control in trained]
    for name in names:
        if name not in known:
            raise InputError(f"control: {name!r} is unknown; allowed: {', '.join(known)}")
    for control in trained:
        if control.name in names or not names:
            for job in control.jobs(params):
                _train(job)


def _train(job: Job) -> None:
    from .sweep import final, search  # here, so that reading starts no Keras

    if job.repeats:
        search(job.params, *job.methods, repeats=job.repeats)
    else:
        final(job.params, *job.methods)
