"""What is checked of Keras before anything is trained."""

import keras

from .params import InputError

BACKENDS = ("tensorflow", "jax")  # those that the fused engine has


def check_keras() -> None:
    """Refuse global settings of Keras that change results and stand in no row.

    They come from variables such as ``KERAS_MAX_EPOCHS``, from Keras' own file (``keras.json``)
    or from code. The backend is a setting as well, but rows name it, and it is part of their keys.

    Raises InputError.
    """
    config = keras.config
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
