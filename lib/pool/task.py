"""What a scheduler sees of our work: a name and bytes. So it needs no Keras, and starts none."""

import pickle
from typing import Any


def call(name: str, arguments: bytes, *near: Any) -> Any:
    """Call a function of `lib.pool.worker`.

    Args:
        arguments: pickled, see `packed`.
        near: more arguments, which Dask brings to the worker.
    """
    from . import worker

    return getattr(worker, name)(*pickle.loads(arguments), *near)


def packed(*arguments: Any) -> bytes:
    return pickle.dumps(arguments)
