"""How long the study takes, told before it starts, by each cell's work and this machine's speed.

The work is that of `lib.tune.forecast`, which counts multiply-adds and what tracing takes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..lanes.trunk import read_graph
from ..tune.candidates import candidates
from ..tune.forecast import measured_speed, seconds_of, strategy_works
from ..tune.lanes import pooled
from ..tune.run import network
from .protocol import SEARCH, TIMED, Cell, Protocol
from .run import Places, settings_of


def cost(protocol: Protocol, cell: Cell, places: Places) -> dict[str, float]:
    """Minutes of one seed, by what is run; what is wanted on top is not known, and is little."""
    settings = settings_of(protocol, cell, 0, places)
    backbone = pooled(network(settings, cell.size))
    graph, speed = read_graph(backbone), measured_speed(backbone)
    found = candidates(backbone, settings.candidates, settings.window)
    minutes = {}
    for name in (SEARCH, *TIMED):
        own = replace(settings, strategy=name)
        work = strategy_works(own, found, protocol.train, protocol.evaluation)
        minutes[name] = seconds_of(graph, work, speed) / 60
    return minutes


def report(protocol: Protocol, cells: Sequence[Cell], places: Places) -> Iterator[str]:
    """A line a cell, and the sum, of all seeds."""
    total = 0.0
    for cell in cells:
        minutes = cost(protocol, cell, places)
        own = sum(minutes[n] for s in protocol.seeds for n in (SEARCH, *protocol.timed(s)))
        total += own
        parts = ", ".join(f"{name} {found:.1f}" for name, found in minutes.items())
        yield f"{cell.name}: {own:.0f} min (with one seed {parts})"
    yield f"in all {total / 60:.1f} h, in one process"
