"""What makes training steps fast on this machine: the arithmetic, and the settings of the process."""

import ctypes
import sys

from mobilenet_hub.host.cpu import cpu_features
from mobilenet_hub.host.environment import set_variable
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
    if backend == "torch":
        import torch

        torch.set_flush_denormal(True)


def _has_gpu(backend: str) -> bool:
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    import tensorflow

    return bool(tensorflow.config.list_physical_devices("GPU"))
