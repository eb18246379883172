"""A MobileNet in plain TensorFlow, its variables named as TF-Slim names them: what SavedModels are made of."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf  # noqa: TID253 (this file is itself imported only where TensorFlow is wanted)

from mobilenet_hub.architecture import WEIGHT_DECAY, ConvUnit, Padding, fixed_pad_amounts
from mobilenet_hub.module import ModuleConfig


class TensorFlowNetwork:
    """The network, to be called while a tf.function is traced.

    Attributes:
        variables: tf.Variables by TF-Slim name, in TF-Slim's order.
    """

    def __init__(self, config: ModuleConfig, weights: Mapping[str, np.ndarray]):
        self.network = config.network
        self.frozen = config.batch_norm_folded  # nothing to train batch norm with
        self.variables = {
            name: tf.Variable(tf.constant(weights[name]), trainable=variable.trainable and not self.frozen, name=name)
            for name, variable in self.network.variables.items()
        }

    def __call__(self, images: tf.Tensor, training: bool, momentum: tf.Tensor | float) -> dict[str, tf.Tensor]:
        """Return the output as "default", and every endpoint by its name with the network's scope before it.

        In training, batch norm uses the batch's statistics and moves the moving ones towards them as this is called.
        """
        network = self.network
        x = images * network.variant.input_scale + network.variant.input_offset
        made: list[tf.Tensor] = []
        endpoints: dict[str, tf.Tensor] = {}
        for unit in network.units:
            with tf.name_scope(unit.scope):
                x = convolve(x, self.variables[unit.kernel.name], unit, network.variant.padding)
                x = self._normalize(x, unit, training and not self.frozen, momentum)
                x = tf.nn.relu6(x) if unit.relu6 else x
                x = x if unit.adds is None else x + made[unit.adds]
            made.append(x)
            endpoints.update(dict.fromkeys(unit.endpoints, x))
        endpoints["global_pool"] = tf.reduce_mean(x, (1, 2), keepdims=True)
        output = self._head(endpoints["global_pool"], training)
        if network.num_classes:
            scores = tf.nn.softmax(output / network.variant.temperature)
            endpoints["Logits"], endpoints["Predictions"] = output, scores
        return {"default": output, **{f"{network.scope}/{name}": value for name, value in endpoints.items()}}

    def _normalize(self, x: tf.Tensor, unit: ConvUnit, training: bool, momentum: tf.Tensor | float) -> tf.Tensor:
        gamma, beta, mean, variance = (self.variables[variable.name] for variable in unit.batch_norm)
        settings = {"x": x, "scale": gamma, "offset": beta, "epsilon": self.network.variant.batch_norm_epsilon}
        if not training:
            return tf.raw_ops.FusedBatchNormV3(mean=mean, variance=variance, is_training=False, **settings).y
        # Factor 1 makes the kernel report the batch's own statistics, the variance Bessel-corrected.
        fused = tf.raw_ops.FusedBatchNormV3(mean=[], variance=[], exponential_avg_factor=1.0, **settings)
        for moving, statistic in ((mean, fused.batch_mean), (variance, fused.batch_variance)):
            moving.assign_sub((moving - tf.stop_gradient(statistic)) * (1.0 - momentum))
        return fused.y

    def _head(self, pooled: tf.Tensor, training: bool) -> tf.Tensor:
        """Return [batch, features or classes] of the pooled features; dropout never touches the features."""
        x = tf.squeeze(pooled, (1, 2))
        if not self.network.num_classes:
            return x
        for weights, biases in self.network.hidden:
            x = tf.nn.relu(dense(x, self.variables[weights.name], self.variables[biases.name]))
        if training:
            x = tf.nn.dropout(x, self.network.dropout_rate)
        return dense(x, *(self.variables[variable.name] for variable in self.network.classifier))

    @property
    def regularization_losses(self) -> list[Callable[[], tf.Tensor]]:
        """The L2 terms that TF-Slim trained with, a tf.function without arguments for each."""
        kernels = [self.variables[name] for name, variable in self.network.variables.items() if variable.regularized]
        return [] if self.frozen else [_l2_term(kernel) for kernel in kernels]


def _l2_term(kernel: tf.Variable) -> Callable[[], tf.Tensor]:
    return tf.function(lambda: WEIGHT_DECAY * tf.nn.l2_loss(kernel), autograph=False, input_signature=[])


def convolve(x: tf.Tensor, kernel: tf.Tensor | tf.Variable, unit: ConvUnit, padding: Padding) -> tf.Tensor:
    """Convolve [batch, height, width, in] as a unit does, before its batch norm."""
    mode = "SAME"
    if padding != "same":  # the other two rules do not depend on the image's size, which may be unknown here
        amounts = fixed_pad_amounts(unit.kernel_size, unit.stride, padding)
        x, mode = tf.pad(x, ((0, 0), amounts, amounts, (0, 0))), "VALID"
    operation = tf.nn.depthwise_conv2d if unit.depthwise else tf.nn.conv2d
    return operation(x, kernel, (1, unit.stride, unit.stride, 1), mode)


def dense(x: tf.Tensor, weights: tf.Tensor | tf.Variable, biases: tf.Tensor | tf.Variable) -> tf.Tensor:
    """Return x @ weights + biases, the weights [1, 1, inputs, outputs] as TF-Slim keeps them."""
    return tf.linalg.matmul(x, weights[0, 0]) + biases
