"""What holds for any backend of Keras, before it starts and when its memory is spent."""

import os


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
