"""What a worker does first, ``dask worker --preload lib.pool.preload``: start Keras, quietly."""

from ..quiet import import_quietly

import_quietly()
