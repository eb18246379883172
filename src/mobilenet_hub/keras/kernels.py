"""Batch normalization with each Keras backend's own fast kernels, on [batch, height, width, channels].

Keras' portable operations are right but slow here: its batch norm is a dozen elementwise passes over memory, where
TensorFlow and PyTorch have one fused kernel.
"""

from typing import Any, NamedTuple, TypeVar

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
from keras import ops  # noqa: TID253

Tensor = Any  # a tensor of the active backend
OneTensor = TypeVar("OneTensor")  # in public signatures: of the kind that was given, TensorFlow's, JAX's or PyTorch's


class Normalized(NamedTuple):
    """A normalized batch, and the statistics that the moving averages take over."""

    output: Tensor  # [batch, height, width, channels], of the input's dtype
    mean: Tensor  # [channels] float32
    variance: Tensor  # [channels] float32, Bessel-corrected: times N / max(N - 1, 1)


def batch_normalize(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Normalized:
    """Normalize by the batch's own mean and biased variance, as training does."""
    kernel = {"tensorflow": _tensorflow_train, "torch": _torch_train}.get(_fused_backend(x), _portable_train)
    return kernel(x, gamma, beta, epsilon)


def normalize(x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float) -> Tensor:
    """Normalize by given statistics, as inference does; the output has the dtype of x."""
    backend = _fused_backend(x)
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        ).y
    if backend == "torch":
        import torch

        output = torch.nn.functional.batch_norm(x.permute(0, 3, 1, 2), mean, variance, gamma, beta, eps=epsilon)
        return output.permute(0, 2, 3, 1)
    scale = gamma * ops.rsqrt(variance + epsilon)
    return ops.cast(ops.cast(x, "float32") * scale + (beta - mean * scale), x.dtype)


def _fused_backend(x: Tensor) -> str:
    """Return the backend whose fused kernel normalizes x; none takes float64."""
    return "" if keras.backend.standardize_dtype(x.dtype) == "float64" else keras.backend.backend()


def _tensorflow_train(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Normalized:
    import tensorflow as tf

    fused = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=gamma, offset=beta, mean=[], variance=[], epsilon=epsilon, exponential_avg_factor=1.0
    )
    return Normalized(fused.y, fused.batch_mean, fused.batch_variance)


def _torch_train(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Normalized:
    import torch

    # Momentum 1 makes the kernel write the batch's statistics into these, the variance already Bessel-corrected.
    mean, variance = torch.zeros_like(gamma, requires_grad=False), torch.zeros_like(gamma, requires_grad=False)
    # [batch, height, width, channels] seen as NCHW is PyTorch's channels_last memory format: nothing is copied.
    planes = x.permute(0, 3, 1, 2)
    output = torch.batch_norm(planes, gamma, beta, mean, variance, True, 1.0, epsilon, torch.backends.cudnn.enabled)
    if x.numel() == x.shape[-1]:  # one value per channel: PyTorch divides by N - 1 = 0
        variance = torch.zeros_like(variance)
    return Normalized(output.permute(0, 2, 3, 1), mean, variance)


def _portable_train(x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float) -> Normalized:
    wide = ops.cast(x, "float32")
    mean, variance = ops.moments(wide, axes=(0, 1, 2))
    scale = gamma * ops.rsqrt(variance + epsilon)
    output = ops.cast(wide * scale + (beta - mean * scale), x.dtype)
    shape = ops.shape(x)
    count = ops.cast(shape[0] * shape[1] * shape[2], "float32")
    return Normalized(output, mean, variance * (count / ops.maximum(count - 1.0, 1.0)))
