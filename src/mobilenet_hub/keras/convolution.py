"""Convolution on [batch, height, width, channels] with each Keras backend's fastest kernels on a CPU.

Some of a backend's own gradients are slow there; those are written by hand, of differentiable operations, so that
second derivatives are right too. What was measured stands in benchmarks/NOTES.md, "training step".
"""

from functools import cache
from typing import Any

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
from keras import ops  # noqa: TID253

from mobilenet_hub.architecture import Padding, fixed_pad_amounts, pad_amounts
from mobilenet_hub.keras.kernels import Tensor

# From this many channels on, PyTorch's float32 matrix product is faster than oneDNN's 1x1 convolution on AVX2 (measured
# at 2 to 112 pixels: by 1.4 from 256 channels on, backward included; by 0.6 at 16). With AVX-512 it is not.
_WIDE = 64


def convolve(
    x: Tensor, kernel: Tensor, stride: int, padding: Padding, depthwise: bool, training: bool = False
) -> Tensor:
    """Convolve [batch, height, width, in] with a kernel [k, k, in, out], or [k, k, in, 1] where depthwise.

    Args:
        x: the images.
        kernel: of their dtype.
        stride: in both directions.
        padding: the rule.
        depthwise: whether each channel has a kernel of its own.
        training: whether gradients will be asked for. It changes how they are computed, and no result.
    """
    if keras.backend.backend() == "torch":
        return _torch_convolve(x, kernel, stride, padding, depthwise)
    size = kernel.shape[0]
    if training and stride == 1 and keras.backend.backend() == "tensorflow" and not _has_gpu():
        if depthwise and padding == "same":
            return _tensorflow_depthwise(x, kernel)
        if size == 1 and not depthwise:
            return _tensorflow_pointwise(x, kernel)
    mode = "same"
    if padding != "same":  # the other two rules do not depend on the image's size, which may be unknown here
        amounts = fixed_pad_amounts(size, stride, padding)
        x, mode = ops.pad(x, ((0, 0), amounts, amounts, (0, 0))), "valid"
    operation = ops.depthwise_conv if depthwise else ops.conv
    return operation(x, kernel, strides=stride, padding=mode, data_format="channels_last")


@cache
def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _tensorflow_pointwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve with a kernel [1, 1, in, out], whose gradient is a matrix product.

    oneDNN's gradient of such a kernel takes up to twice the time of the product of the same numbers.
    """
    import tensorflow as tf

    strides = [1, 1, 1, 1]

    @tf.custom_gradient
    def convolution(x: Tensor, kernel: Tensor) -> tuple[Tensor, Any]:
        def gradients(upstream: Tensor) -> tuple[Tensor, Tensor]:
            of_x = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(x), filter=kernel, out_backprop=upstream, strides=strides, padding="VALID"
            )
            rows, columns = (tf.reshape(one, (-1, one.shape[-1])) for one in (x, upstream))
            return of_x, tf.matmul(rows, columns, transpose_a=True)[None, None]

        return tf.nn.conv2d(x, kernel, strides, "VALID"), gradients

    return convolution(x, tf.convert_to_tensor(kernel))  # a variable's value: tf.custom_gradient asks more of variables


def _tensorflow_depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve with an odd kernel [k, k, channels, 1] at stride 1.

    The gradient of the images is the convolution with the kernel turned round, for which oneDNN has a faster kernel.
    """
    import tensorflow as tf

    strides = [1, 1, 1, 1]

    @tf.custom_gradient
    def convolution(x: Tensor, kernel: Tensor) -> tuple[Tensor, Any]:
        def gradients(upstream: Tensor) -> tuple[Tensor, Tensor]:
            of_x = tf.nn.depthwise_conv2d(upstream, tf.reverse(kernel, (0, 1)), strides, "SAME")
            return of_x, tf.nn.depthwise_conv2d_backprop_filter(x, kernel.shape, upstream, strides, "SAME")

        return tf.nn.depthwise_conv2d(x, kernel, strides, "SAME"), gradients

    return convolution(x, tf.convert_to_tensor(kernel))  # a variable's value: tf.custom_gradient asks more of variables


def _torch_convolve(x: Tensor, kernel: Tensor, stride: int, padding: Padding, depthwise: bool) -> Tensor:
    """Convolve without copying an image-sized tensor, which `keras.ops.conv` does on its way to PyTorch's layout."""
    import torch

    size = kernel.shape[0]
    wide = torch.backends.cpu.get_cpu_capability() == "AVX2" and min(kernel.shape[2:]) >= _WIDE
    if size == 1 and stride == 1 and x.dtype == torch.float32 and wide:
        return x @ kernel[0, 0]
    # [batch, height, width, channels] seen as NCHW is PyTorch's channels_last memory format.
    planes = x.permute(0, 3, 1, 2)
    weights = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
    before, after = zip(*(pad_amounts(length, size, stride, padding) for length in planes.shape[2:]), strict=True)
    if min(planes.shape[2:]) < size:  # for maps smaller than the kernel oneDNN has only its slow reference code
        planes = torch.nn.functional.pad(planes, (before[1], after[1], before[0], after[0]))
        before, after = (0, 0), (0, 0)
    groups = x.shape[-1] if depthwise else 1
    if depthwise and stride == 2 and planes.is_cpu and planes.requires_grad and not _is_torch_tracing():
        return _strided_depthwise().apply(planes, weights, before, after).permute(0, 2, 3, 1)
    return _torch_planes(planes, weights, stride, before, after, groups).permute(0, 2, 3, 1)


def _torch_planes(
    planes: Tensor, weights: Tensor, stride: int, before: tuple[int, int], after: tuple[int, int], groups: int
) -> Tensor:
    """Convolve [batch, in, height, width] with [out, in / groups, k, k], zeros before and after rows and columns."""
    from torch.nn.functional import conv2d, pad

    # PyTorch pads both sides alike. Zeros before the kernel instead of the image shift it to where it belongs.
    weights = pad(weights, (after[1] - before[1], 0, after[0] - before[0], 0))
    return conv2d(planes, weights, None, stride, after, 1, groups)


def _is_torch_tracing() -> bool:
    """Tell whether the network is being exported or compiled: then it is written down in PyTorch's own operations."""
    import torch

    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or torch.compiler.is_compiling()


@cache
def _strided_depthwise() -> Any:
    """Return the function of planes, weights, before, after that is a depthwise 3x3 convolution of stride 2."""
    import torch
    from torch.nn.functional import conv2d, pad

    backward_of = torch.ops.aten.convolution_backward

    class StridedDepthwise(torch.autograd.Function):
        """oneDNN has only its reference code for the kernel's gradient where it is padded, and for bfloat16 images'."""

        generate_vmap_rule = True

        @staticmethod
        def forward(planes: Tensor, weights: Tensor, before: tuple[int, int], after: tuple[int, int]) -> Tensor:
            return _torch_planes(planes, weights, 2, before, after, len(weights))

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            planes, weights, ctx.before, ctx.after = inputs
            ctx.save_for_backward(planes, weights)

        @staticmethod
        def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
            (upstream,) = grad_outputs
            planes, weights = ctx.saved_tensors
            (top, left), (bottom, right), channels = ctx.before, ctx.after, len(weights)
            of_planes = of_weights = None
            if ctx.needs_input_grad[0] and planes.dtype != torch.bfloat16:
                shifted = pad(weights, (right - left, 0, bottom - top, 0))
                geometry = [2, 2], [bottom, right], [1, 1], False, [0, 0], channels
                of_planes = backward_of(upstream, planes, shifted, None, *geometry, [True, False, False])[0]
            elif ctx.needs_input_grad[0]:
                # The gradient of the same convolution at stride 1, of whose outputs every second one was taken.
                spread = torch.zeros_like(planes)
                spread[:, :, 1 - top :: 2, 1 - left :: 2][:, :, : upstream.shape[2], : upstream.shape[3]] = upstream
                of_planes = conv2d(spread, weights.flip(2, 3), None, 1, 1, 1, channels)
            if ctx.needs_input_grad[1]:
                padded = pad(planes, (left, right, top, bottom))
                geometry = [2, 2], [0, 0], [1, 1], False, [0, 0], channels
                of_weights = backward_of(upstream, padded, weights, None, *geometry, [False, True, False])[1]
            return of_planes, of_weights, None, None

    return StridedDepthwise
