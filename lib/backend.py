"""What holds for any backend of Keras: how it starts, what is checked of it, its spent memory."""

import os

from .params import InputError

BACKENDS = ("tensorflow", "jax")  # those that the fused engine has


def share_the_gpu() -> None:
    """Have TensorFlow and JAX take a GPU's memory as they need it, not all of it at once.

    Else a second process on the same GPU finds none. Both read these when they first use a device;
    what the user has set stays.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def out_of_memory(error: Exception) -> bool:
    """Whether an error of either backend says that the device's memory did not suffice."""
    named = type(error).__name__ == "ResourceExhaustedError"  # TensorFlow's
    return isinstance(error, MemoryError) or named or "RESOURCE_EXHAUSTED" in str(error)  # JAX's


def check_keras() -> None:
    """Refuse global settings of Keras that change results and stand in no row.

    They come from variables such as ``KERAS_MAX_EPOCHS``, from Keras' own file (``keras.json``)
    or from code. The backend is a setting as well, but rows name it, and it is part of their keys.

    Raises InputError.
    """
    from keras import config  # here: the rest of this module comes before a backend is imported

    for name, value, allowed in (
        ("backend", config.backend(), BACKENDS),
        ("max_epochs (KERAS_MAX_EPOCHS)", config.max_epochs(), (None,)),
        ("max_steps_per_epoch (KERAS_MAX_STEPS_PER_EPOCH)", config.max_steps_per_epoch(), (None,)),
        ("floatx", config.floatx(), ("float32",)),
        ("dtype_policy", config.dtype_policy().name, ("float32",)),
        ("image_data_format", config.image_data_format(), ("channels_last",)),
        ("epsilon", config.epsilon(), (1e-7,)),
    ):
        if value not in allowed:
            raise InputError(
                f"Keras' {name} is {value!r}; allowed: {' or '.join(map(str, allowed))}"
            )
