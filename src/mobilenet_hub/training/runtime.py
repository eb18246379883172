"""What makes training steps fast on this machine: the arithmetic, and the settings of the process."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mobilenet_hub.errors import InputError
from mobilenet_hub.host.cpu import cpu_features
from mobilenet_hub.host.environment import set_variable, setting
from mobilenet_hub.inference.engine import Precision


def dtype_policy(precision: Precision, backend: str) -> str:
    """Return "mixed_bfloat16" or "float32"; "auto" is mixed where the hardware multiplies bfloat16 faster."""
    if precision == "auto":
        return "mixed_bfloat16" if _has_gpu(backend) or "amx_bf16" in cpu_features() else "float32"
    return "mixed_bfloat16" if precision == "bf16" else "float32"


def prepare_process(backend: str) -> None:
    """Set what makes a training step faster than the libraries' defaults do, for the whole process.

    The C library is told to keep the memory that it has: otherwise every activation is mapped anew in each step, and on
    virtual machines the page faults took a third of the time. TensorFlow leaves oneDNN off on AMD's CPUs; with it a
    step took a third less.
    """
    try:
        libc = ctypes.CDLL(None)
        for parameter, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
            libc.mallopt(parameter, value)
    except (OSError, AttributeError):
        pass  # another C library
    if backend == "tensorflow" and "tensorflow" not in sys.modules:
        set_variable("TF_ENABLE_ONEDNN_OPTS", "1")
        if not setting("TF_CPP_MIN_LOG_LEVEL"):
            set_variable("TF_CPP_MIN_LOG_LEVEL", "3")
            with _silence():  # after LiteRT has been loaded TensorFlow does not heed that setting
                import tensorflow

                tensorflow.config.list_physical_devices()  # which reports every missing GPU
    if backend == "torch":
        import torch

        torch.set_flush_denormal(True)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep off the terminal what a library in C prints to standard error; an exception is raised as ever."""
    try:
        kept = os.dup(2)
    except OSError:  # closed by who started the process
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123  (pathlib has no null device)
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def on_devices(count: int, backend: str) -> Iterator[None]:
    """Share every batch out among devices for a `with` block: each has all weights, and its part of the photos.

    Raises:
        InputError: another backend than JAX, or fewer devices.
    """
    if count == 1:
        yield
        return
    if backend != "jax":
        raise InputError(
            f"`devices` above 1 needs JAX, the one backend on which Keras 3 shares a batch out, and this is {backend}: "
            "set KERAS_BACKEND=jax (pip install 'mobilenet-hub[jax]'), or leave it out"
        )
    import keras

    there = keras.distribution.list_devices()
    if len(there) < count:
        raise InputError(
            f"there are {len(there)} devices ({', '.join(there)}) and not {count}; of a CPU JAX makes several with "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count}"
        )
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=there[:count], auto_shard_dataset=False)
    )
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)


def _has_gpu(backend: str) -> bool:
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import tensorflow

    return bool(tensorflow.config.list_physical_devices("GPU"))
