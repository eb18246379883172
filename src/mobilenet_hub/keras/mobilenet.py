"""MobileNet V1 and V2 in Keras 3, built from the architecture description, with TF-Slim's names for their variables."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
import numpy as np
from keras import ops  # noqa: TID253

from mobilenet_hub.architecture import (
    BATCH_NORM_LEAVES,
    BATCH_NORM_MOMENTUM,
    INPUT_CHANNELS,
    WEIGHT_DECAY,
    Architecture,
    Variable,
    Variant,
    architecture,
)
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.keras.kernels import Tensor
from mobilenet_hub.keras.layers import ConvBatchNorm, l2_regularizer, truncated_normal


@keras.saving.register_keras_serializable(package="mobilenet_hub")
class MobileNet(keras.Model):
    """A MobileNet: images [batch, height, width, 3] in [0, 1] to logits, or to features where it has no classes.

    Any image size is accepted, also one that is not known when a graph is made. Dropout acts before the classifier and
    in training only: features are never dropped.

    Args:
        network: which MobileNet, e.g. `mobilenet_v2(1.0, num_classes=0)`.
        batch_norm_momentum: of the moving statistics; a call may give another.
        weight_decay: of the L2 terms on full convolutions' kernels, each weight_decay * sum(w**2) / 2; 0 for none.
        dropout_rate: before the classifier; None takes the network's own.
        model_kwargs: what every Keras model takes: name, trainable, dtype.

    Example:
        >>> from mobilenet_hub.architecture import mobilenet_v1
        >>> model = MobileNet(mobilenet_v1(0.25, num_classes=10))
        >>> tuple(model(np.zeros((1, 64, 64, 3), "float32")).shape)
        (1, 10)
    """

    def __init__(
        self,
        network: Architecture,
        batch_norm_momentum: float = BATCH_NORM_MOMENTUM,
        weight_decay: float = WEIGHT_DECAY,
        dropout_rate: float | None = None,
        **model_kwargs: Any,
    ):
        # Images stay float32 until they are scaled: half of bfloat16's eight bits would be spent on their offset.
        super().__init__(autocast=False, **model_kwargs)
        self.network = network
        self.batch_norm_momentum = batch_norm_momentum
        self.weight_decay = weight_decay
        self.dropout_rate = network.dropout_rate if dropout_rate is None else dropout_rate
        self.units = [
            ConvBatchNorm(
                unit,
                network.variant.padding,
                network.variant.batch_norm_epsilon,
                batch_norm_momentum,
                weight_decay,
                name=_layer_name(network, unit.scope),
                dtype=self.dtype_policy,
            )
            for unit in network.units
        ]
        for name, variables in zip(self._hidden_names, network.hidden, strict=True):
            setattr(self, name, self._dense(variables, "relu"))  # saved files name a layer by its attribute
        self.classifier = self._dense(network.classifier, None) if network.classifier else None
        # A Dropout has a variable, the state of its generator: none where nothing is dropped.
        drops = self.classifier is not None and self.dropout_rate > 0
        self.dropout = keras.layers.Dropout(self.dropout_rate, dtype=self.dtype_policy) if drops else None

    def _dense(self, variables: tuple[Variable, ...], activation: str | None) -> keras.layers.Layer:
        """Return a 1x1 convolution with bias (TF-Slim's fully connected layer)."""
        weights = variables[0]
        return keras.layers.Conv2D(
            weights.shape[-1],
            1,
            activation=activation,
            data_format="channels_last",
            kernel_initializer=truncated_normal,
            bias_initializer=np.zeros,
            kernel_regularizer=l2_regularizer(self.weight_decay),
            name=_layer_name(self.network, weights.name.rsplit("/", 1)[0]),
            dtype=self.dtype_policy,
        )

    @property
    def _hidden_names(self) -> list[str]:
        return [f"hidden_{at}" if at else "hidden" for at in range(len(self.network.hidden))]

    @property
    def _dense_layers(self) -> list[Any]:
        if self.classifier is None:
            return []
        return [*(getattr(self, name) for name in self._hidden_names), self.classifier]

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        """Make every variable; nothing depends on the size of the images."""
        for unit in self.units:
            unit.build()
        width = self.network.num_features
        for layer, (_, biases) in zip(self._dense_layers, self.network.dense, strict=True):
            layer.build((None, 1, 1, width))
            width = biases.shape[0]

    def call(
        self,
        images: Tensor,
        training: bool = False,
        batch_norm_momentum: float | Tensor | None = None,
        return_endpoints: bool = False,
    ) -> Tensor | dict[str, Tensor]:
        """Return logits [batch, classes], or features [batch, num_features] where there are no classes.

        With `return_endpoints`, a dict instead: that output as "default", and every endpoint of TF-Slim with the
        network's scope before it, e.g. "MobilenetV2/layer_7/output", "MobilenetV1/global_pool".
        """
        variant = self.network.variant
        x = ops.cast(images, "float32") * variant.input_scale + variant.input_offset
        x = ops.cast(x, self.compute_dtype)
        added = {unit.adds for unit in self.network.units}
        kept: dict[int, Tensor] = {}
        endpoints: dict[str, Tensor] = {}
        for index, (unit, layer) in enumerate(zip(self.network.units, self.units, strict=True)):
            x = layer(x, training=training, batch_norm_momentum=batch_norm_momentum)
            if unit.adds is not None:
                x = x + kept.pop(unit.adds)
            if index in added:
                kept[index] = x
            if return_endpoints:
                endpoints.update(dict.fromkeys(unit.endpoints, x))
        pooled = ops.mean(x, axis=(1, 2), keepdims=True)
        output = self._head(pooled, training)
        if not return_endpoints:
            return output
        endpoints["global_pool"] = pooled
        if self.classifier is not None:
            scores = ops.softmax(output / self.network.variant.temperature)
            endpoints["Logits"], endpoints["Predictions"] = output, scores
        return {"default": output, **{f"{self.network.scope}/{name}": value for name, value in endpoints.items()}}

    def _head(self, pooled: Tensor, training: bool) -> Tensor:
        """Return [batch, features or classes] of the pooled features [batch, 1, 1, features]."""
        for layer in self._dense_layers:
            if layer is self.classifier and self.dropout is not None:
                pooled = self.dropout(pooled, training=training)
            pooled = layer(pooled)
        return ops.squeeze(pooled, axis=(1, 2))

    @property
    def slim_variables(self) -> dict[str, keras.Variable]:
        """Every variable by its TF-Slim name, in TF-Slim's order; made first where there are none yet."""
        if not self.built:
            self.build((None, None, None, INPUT_CHANNELS))
        variables: list[keras.Variable] = []
        for unit in self.units:
            variables += [unit.kernel, *(getattr(unit.batch_norm, leaf) for leaf in BATCH_NORM_LEAVES)]
        for layer in self._dense_layers:
            variables += [layer.kernel, layer.bias]
        return dict(zip(self.network.variables, variables, strict=True))

    def slim_weights(self) -> dict[str, np.ndarray]:
        """Return a copy of every variable as float32, by its TF-Slim name."""
        return {
            name: np.array(ops.convert_to_numpy(variable), dtype=np.float32)
            for name, variable in self.slim_variables.items()
        }

    def load_slim_weights(self, weights: Mapping[str, np.ndarray]) -> Self:
        """Take every variable's value from arrays named as TF-Slim names them; return the model.

        Raises:
            InvalidModuleError: a variable is missing, or an array has another shape. Nothing has been changed then.
        """
        variables = self.slim_variables
        for name, variable in variables.items():
            if name not in weights:
                raise InvalidModuleError(
                    f"the weights have no {name!r}; this network needs {list(variable.shape)} of it"
                )
            if tuple(weights[name].shape) != tuple(variable.shape):
                raise InvalidModuleError(
                    f"{name!r} has shape {list(weights[name].shape)}; this network needs {list(variable.shape)}"
                )
        for name, variable in variables.items():
            variable.assign(weights[name])
        return self

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """Return what `tf.train.Checkpoint` saves of this model: TensorFlow does not look into Keras 3's lists."""
        children = super()._trackable_children(save_type, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return {**children, **{unit.name: unit for unit in self.units}}

    @property
    def regularization_losses(self) -> list[Callable[[], Tensor]]:
        """The L2 terms, one function without arguments for each, whether or not the model is trainable."""
        return [
            partial(variable.regularizer, variable)
            for variable in self.slim_variables.values()
            if variable.regularizer is not None
        ]

    def compute_output_shape(self, input_shape: tuple[int | None, ...], **_: Any) -> tuple[int | None, int]:
        """Return (batch, classes), or (batch, features) where there are no classes."""
        return input_shape[0], self.network.num_classes or self.network.num_features

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this model again; the network as the fields that set it apart."""
        return {
            "network": {key: getattr(self.network, key) for key in _BUILT_FROM} | self.network.variant.stated(),
            "batch_norm_momentum": self.batch_norm_momentum,
            "weight_decay": self.weight_decay,
            "dropout_rate": self.dropout_rate,
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(self.dtype_policy),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Make the model of `get_config`, untrained."""
        fields = config["network"]
        base = architecture(*(fields[key] for key in _BUILT_FROM))
        network = replace(base, variant=Variant.of(fields))
        dtype = keras.dtype_policies.deserialize(config["dtype"])
        return cls(**{**config, "network": network, "dtype": dtype})


_BUILT_FROM = ("name", "depth_multiplier", "num_classes")


def _layer_name(network: Architecture, scope: str) -> str:
    """Return a TF-Slim scope as a Keras name, which may hold no slash: without the network's own scope."""
    return scope.removeprefix(f"{network.scope}/").replace("/", "_")
