"""Keras and its backend without their log lines."""

import logging
import os
import sys


def import_quietly() -> None:
    """Import Keras with its backend, without the lines that the backend's libraries log.

    TensorFlow's C++ libraries write some before any setting can silence them; in a command, where
    one line is promised to whoever made a mistake, they are sent nowhere.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import keras

        keras.ops.zeros(1)
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
    # Many models in one process are what this project is about, not a mistake to be warned of.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
