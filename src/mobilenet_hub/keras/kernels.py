"""Convolution and batch normalization with each Keras backend's own fast kernels, on [batch, height, width, channels].

Keras' portable operations are right but slow here: its batch norm is a dozen elementwise passes over memory, where
TensorFlow and PyTorch have one fused kernel.
"""

from typing import Any, NamedTuple

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
from keras import ops  # noqa: TID253

from mobilenet_hub.architecture import Padding, fixed_pad_amounts, pad_amounts

Tensor = Any  # a tensor of the active backend


# From this many channels on, PyTorch's float32 matrix product is faster than oneDNN's 1x1 convolution (measured on AVX2
# at 2 to 112 pixels: by 1.4 from 256 channels on, backward included; by 0.6 at 16).
_WIDE = 64


class Normalized(NamedTuple):
    """A normalized batch, and the statistics that the moving averages take over."""

    output: Tensor  # [batch, height, width, channels], of the input's dtype
    mean: Tensor  # [channels] float32
    variance: Tensor  # [channels] float32, Bessel-corrected: times N / max(N - 1, 1)


def convolve(x: Tensor, kernel: Tensor, stride: int, padding: Padding, depthwise: bool) -> Tensor:
    """Convolve [batch, height, width, in] with a kernel [k, k, in, out], or [k, k, in, 1] where depthwise."""
    if keras.backend.backend() == "torch":
        return _torch_convolve(x, kernel, stride, padding, depthwise)
    mode = "same"
    if padding != "same":  # the other two rules do not depend on the image's size, which may be unknown here
        amounts = fixed_pad_amounts(kernel.shape[0], stride, padding)
        x, mode = ops.pad(x, ((0, 0), amounts, amounts, (0, 0))), "valid"
    operation = ops.depthwise_conv if depthwise else ops.conv
    return operation(x, kernel, strides=stride, padding=mode, data_format="channels_last")


def _torch_convolve(x: Tensor, kernel: Tensor, stride: int, padding: Padding, depthwise: bool) -> Tensor:
    """Convolve without copying an image-sized tensor, which `keras.ops.conv` does on its way to PyTorch's layout."""
    import torch

    size = kernel.shape[0]
    if size == 1 and stride == 1 and x.dtype == torch.float32 and min(kernel.shape[2:]) >= _WIDE:
        return x @ kernel[0, 0]
    # [batch, height, width, channels] seen as NCHW is PyTorch's channels_last memory format.
    planes = x.permute(0, 3, 1, 2)
    weights = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    before, after = zip(*(pad_amounts(length, size, stride, padding) for length in planes.shape[2:]), strict=True)
    if min(planes.shape[2:]) < size:  # for maps smaller than the kernel oneDNN has only its slow reference code
        planes, margin = torch.nn.functional.pad(planes, (before[1], after[1], before[0], after[0])), (0, 0)
    else:
        # PyTorch pads both sides alike. Zeros before the kernel instead of the image shift it to where it belongs.
        weights = torch.nn.functional.pad(weights, (after[1] - before[1], 0, after[0] - before[0], 0))
        margin = after
    groups = x.shape[-1] if depthwise else 1
    return torch.nn.functional.conv2d(planes, weights, None, stride, margin, 1, groups).permute(0, 2, 3, 1)


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
