"""The two layers that MobileNets are made of: batch norm as TF-Slim trains it, and convolution + batch norm + ReLU6."""

from typing import Any

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
import numpy as np
from keras import ops  # noqa: TID253

from mobilenet_hub.architecture import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_LEAVES,
    BATCH_NORM_MOMENTUM,
    STATISTICS,
    WEIGHT_STDDEV,
    ConvUnit,
    Padding,
)
from mobilenet_hub.keras.convolution import convolve
from mobilenet_hub.keras.kernels import Tensor, batch_normalize, normalize


@keras.saving.register_keras_serializable(package="mobilenet_hub")
class BatchNorm(keras.layers.Layer):
    """Batch normalization over [batch, height, width, channels] with TensorFlow's training arithmetic.

    It differs from `keras.layers.BatchNormalization` in three ways: the moving variance takes over the Bessel-corrected
    batch variance (times N / (N - 1)), as TensorFlow's fused kernel reports it; the momentum can be given per call; and
    the backend's fused kernel does the work. The batch's own statistics are used, and the moving ones updated, only
    where the call is in training mode *and* the layer is trainable. Statistics are float32 under any dtype policy.
    """

    def __init__(self, epsilon: float = BATCH_NORM_EPSILON, momentum: float = BATCH_NORM_MOMENTUM, **layer_kwargs: Any):
        super().__init__(**layer_kwargs)
        self.epsilon = epsilon
        self.momentum = momentum

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the four variables, each [channels] float32."""
        for leaf in BATCH_NORM_LEAVES:
            variable = self.add_weight(
                name=leaf,
                shape=(input_shape[-1],),
                initializer=np.ones if leaf in ("gamma", "moving_variance") else np.zeros,
                trainable=leaf not in STATISTICS,
                autocast=False,
                dtype="float32",
            )
            setattr(self, leaf, variable)

    def call(self, x: Tensor, training: bool = False, momentum: float | Tensor | None = None) -> Tensor:
        """Normalize; `momentum` overrides the layer's own for this call."""
        gamma, beta = ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        if not (training and self.trainable):
            mean, variance = ops.convert_to_tensor(self.moving_mean), ops.convert_to_tensor(self.moving_variance)
            return normalize(x, gamma, beta, mean, variance, self.epsilon)
        batch = batch_normalize(x, gamma, beta, self.epsilon)
        step = 1 - (self.momentum if momentum is None else momentum)
        for moving, statistic in ((self.moving_mean, batch.mean), (self.moving_variance, batch.variance)):
            moving.assign(moving - (moving - ops.stop_gradient(statistic)) * step)
        return batch.output

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this layer again."""
        return {**super().get_config(), "epsilon": self.epsilon, "momentum": self.momentum}


class ConvBatchNorm(keras.layers.Layer):
    """One `ConvUnit` of an architecture: convolution without bias, batch norm, ReLU6 where the unit has it."""

    def __init__(
        self,
        unit: ConvUnit,
        padding: Padding,
        epsilon: float,
        momentum: float,
        weight_decay: float,
        **layer_kwargs: Any,
    ):
        super().__init__(**layer_kwargs)
        self.unit = unit
        self.padding: Padding = padding
        self.weight_decay = weight_decay
        self.batch_norm = BatchNorm(epsilon, momentum, name="BatchNorm", dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        """Make the kernel and the batch norm's variables; their shapes follow from the unit."""
        kernel = self.unit.kernel
        self.kernel = self.add_weight(
            name=kernel.name.rsplit("/", 1)[-1],
            shape=kernel.shape,
            initializer=truncated_normal,
            regularizer=l2_regularizer(self.weight_decay) if kernel.regularized else None,
        )
        self.batch_norm.build((None, None, None, self.unit.out_channels))

    def call(self, x: Tensor, training: bool = False, batch_norm_momentum: float | Tensor | None = None) -> Tensor:
        """Return [batch, height', width', out_channels]."""
        kernel = ops.convert_to_tensor(self.kernel)
        x = convolve(x, kernel, self.unit.stride, self.padding, self.unit.depthwise, training)
        x = self.batch_norm(x, training=training, momentum=batch_norm_momentum)
        return ops.relu6(x) if self.unit.relu6 else x


def truncated_normal(shape: tuple[int, ...], dtype: str | None = None) -> np.ndarray:
    """Draw TF-Slim's initial weights: normal, of standard deviation 0.09, none beyond two of them.

    NumPy draws them, from the state that `keras.utils.set_random_seed` seeds: for Keras' own initializer JAX compiles
    a program for every shape, twenty seconds for a network.
    """
    values = np.random.normal(size=shape)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = np.random.normal(size=np.count_nonzero(beyond))
    return (WEIGHT_STDDEV * values).astype(dtype or "float32")


def l2_regularizer(weight_decay: float) -> keras.regularizers.Regularizer | None:
    """Return slim.l2_regularizer(weight_decay), which is weight_decay * sum(w**2) / 2; None for 0."""
    return keras.regularizers.L2(weight_decay / 2) if weight_decay else None
