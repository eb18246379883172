"""`hub.KerasLayer`: a module as a real Keras 3 layer, on TensorFlow, JAX and PyTorch.

It keeps the arguments and meanings of tensorflow_hub's layer (keras_layer.py at v0.16.1). Its saved configuration
describes the network in full, so that a saved model loads without the cache and without network.
"""

import os
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
import numpy as np
from keras import ops  # noqa: TID253

from mobilenet_hub.architecture import Variant
from mobilenet_hub.errors import InputError, MobileNetHubError, ModuleUnavailableError
from mobilenet_hub.hub.contract import SERVING, Contract, check_tags, find_contract, open_contract, signature_inputs
from mobilenet_hub.hub.image_check import ImageCheck, has_values
from mobilenet_hub.hub.keras_2 import refuse_inside_its_layers, refuse_its_code, refuse_its_tensors
from mobilenet_hub.hub.load import LoadedModule
from mobilenet_hub.hub.old_files import describe
from mobilenet_hub.hub.old_files import install as read_old_files
from mobilenet_hub.hub.running import build_network, check_momentum, run_signature
from mobilenet_hub.keras.kernels import OneTensor, Tensor
from mobilenet_hub.module import ModuleConfig
from mobilenet_hub.weights.variable_order import weights_by_order


@dataclass(frozen=True)
class _Described:
    """A module that a saved configuration describes, with its weights where this machine has them."""

    contract: Contract
    weights: Mapping[str, np.ndarray] | None


_Shape = tuple[int | None, ...]
_ARGUMENTS = ("batch_norm_momentum", "return_endpoints")
# The fields of a module's configuration that, beside its variant, its network, variables and contract follow from.
_DESCRIPTION = ("architecture", "depth_multiplier", "image_size", "num_classes", "handle", "batch_norm_folded")


@keras.saving.register_keras_serializable(package="mobilenet_hub")
class KerasLayer(keras.layers.Layer):
    """A published MobileNet, or any module folder, as a layer.

    Args:
        handle: any name of a module, or what `hub.load` returned, whose variables it shares.
        trainable: whether training changes it. While False, batch norm uses its moving statistics and changes nothing
            even inside `fit`, and there are no regularization losses. May be set later: `layer.trainable = True`.
        arguments: for every call: `batch_norm_momentum` (0.99 where not given) and `return_endpoints` (give a dict of
            "default" and every endpoint, "<TF-Slim scope>/<endpoint>").
        tags: set() or {"train"}, for old code; training is decided by `trainable` and the call alone.
        signature: run this signature instead of the module itself; then exactly one of the next two is needed, except
            for modules in TF1 format, where both have defaults.
        signature_outputs_as_dict: return all outputs of the signature by name.
        output_key: return this one of several outputs.
        output_shape: the output's shape without the batch axis, or by name where there are several; checked.
        load_options: for old code; there is nothing to set.
        check_range: what to do about images that are not in [0, 1]: "warn" once, or "error".
        layer_kwargs: what every Keras layer takes: name, dtype, input_shape.

    Raises:
        InputError: an argument, signature, output key or shape that the module does not have.
        MobileNetHubError: the module does not exist, cannot be fetched or is damaged.

    Example:
        >>> model = keras.Sequential([KerasLayer("starter", trainable=False)])
        >>> model.build([None, 128, 128, 3])
    """

    def __init__(
        self,
        handle: "str | os.PathLike[str] | LoadedModule | _Described",
        trainable: bool = False,
        arguments: Mapping[str, object] | None = None,
        _sentinel: None = None,
        tags: Collection[str] | None = None,
        signature: str | None = None,
        signature_outputs_as_dict: bool | None = None,
        output_key: str | None = None,
        output_shape: Sequence[int | None] | Mapping[str, Sequence[int | None]] | None = None,
        load_options: object | None = None,
        check_range: str = "warn",
        **layer_kwargs: object,
    ):
        if _sentinel is not None:
            raise InputError("give everything after `arguments` by name: KerasLayer(handle, signature=...)")
        with warnings.catch_warnings():
            # Keras 3 would rather see an Input layer than `input_shape`; old code cannot know, and both work.
            warnings.filterwarnings("ignore", message=".*input_shape.*", category=UserWarning)
            # Images stay float32 until they are scaled, whatever the policy; the network casts by itself.
            super().__init__(**{"autocast": False, **_of_keras_3(layer_kwargs)})
        if isinstance(handle, LoadedModule):
            handle.give_to(self)
            self.contract, self.network = handle.contract, handle.network
        else:
            is_described = isinstance(handle, _Described)
            self.contract, weights = (handle.contract, handle.weights) if is_described else open_contract(handle)
            self.network = build_network(self.contract, weights, self.name, dtype=self.dtype_policy, name="network")
        check_tags(self.contract.name, tags, self.contract.format)
        self.tags = sorted({tags} if isinstance(tags, str) else tags or ()) or None
        self.check = ImageCheck(self.contract, check_range)
        self.arguments = _checked_arguments(arguments)
        self.signature = signature or ("default" if self.contract.is_hub1 else None)
        self.signature_outputs_as_dict = signature_outputs_as_dict
        self.output_key = output_key
        self._check_outputs()
        self._declared_shape = self._checked_shape(output_shape)
        self._awaits_weights = False
        self.trainable = trainable
        self.built = True

    def _check_outputs(self) -> None:
        """Settle which outputs a call returns, or raise InputError."""
        as_dict, endpoints = bool(self.signature_outputs_as_dict), bool(self.arguments.get("return_endpoints"))
        if self.signature is None:
            if self.signature_outputs_as_dict:
                raise InputError(
                    "signature_outputs_as_dict needs a signature; for all outputs of the module itself use "
                    "arguments=dict(return_endpoints=True)"
                )
            as_dict = endpoints and self.output_key is None
        else:
            self.contract.check_signature(self.signature)
            default = self.contract.is_hub1 and self.signature_outputs_as_dict is None and self.output_key is None
            if not default and as_dict == (self.output_key is not None):
                raise InputError("with a signature, give exactly one of output_key and signature_outputs_as_dict=True")
            if endpoints:
                raise InputError(
                    "return_endpoints is for modules without signature; use signature_outputs_as_dict=True"
                )
        self._as_dict = as_dict
        self._key = self.output_key or "default"
        if not as_dict and self._key not in (names := self._output_infos()):
            raise InputError(f"{self.contract.name} has no output {self._key!r} here; it has {', '.join(names)}")

    def _checked_shape(self, output_shape: Any) -> Any:
        if output_shape is None:
            return None
        infos = self._output_infos()
        declared = output_shape if isinstance(output_shape, Mapping) else {self._key: output_shape}
        if unknown := declared.keys() - infos.keys():
            raise InputError(f"output_shape names {sorted(unknown)[0]!r}; there is {', '.join(infos)}")
        shapes = {name: np.ravel(shape).tolist() for name, shape in declared.items()}
        for name, shape in shapes.items():
            actual = infos[name].shape[1:]  # None where any length will do
            pairs = zip(shape, actual, strict=False)
            if len(shape) != len(actual) or any(None not in pair and pair[0] != pair[1] for pair in pairs):
                raise InputError(f"output_shape is {shape}, but {self.contract.name} gives {list(actual)}")
        return shapes if isinstance(output_shape, Mapping) else shapes[self._key]

    def __call__(self, inputs: OneTensor, *args: object, **kwargs: object) -> OneTensor | dict[str, OneTensor]:
        """Call the layer; numbers, alone or in lists, become arrays for Keras."""
        refuse_its_tensors(inputs)
        if self.trainable:
            refuse_inside_its_layers()
        given: Any = inputs
        if isinstance(given, Mapping):
            given = {key: np.float32(v) if isinstance(v, int | float) else v for key, v in given.items()}
        elif isinstance(given, list | tuple) and not any(hasattr(one, "shape") for one in given):
            given = np.asarray(given, np.float32)
        return super().__call__(given, *args, **kwargs)

    @property
    def _keras_history(self) -> None:
        """Refuse tf_keras's Sequential, which asks for this first and would say only that this is no layer of its own.

        Raises:
            InputError: says what to change.
        """
        refuse_its_code(sys._getframe(1))
        raise AttributeError("_keras_history")

    def call(self, inputs: OneTensor, training: bool | None = None) -> OneTensor | dict[str, OneTensor]:
        """Return the output, or all outputs by name.

        Args:
            inputs: images float32 [batch, height, width, 3] in [0, 1], or with a signature a dict of its inputs.
            training: Keras gives it inside `fit`; it counts only while the layer is trainable.

        Raises:
            InputError: images of the wrong shape, dtype or range.
        """
        training = bool(training) and self.trainable and self.signature != SERVING
        if training and self.contract.config.batch_norm_folded:
            raise InputError(f"{self.contract.name} has its batch norm folded into its kernels: it cannot be trained")
        momentum = self.arguments.get("batch_norm_momentum")
        if self.signature is not None:
            given = signature_inputs(self.contract, self.signature, inputs)
            momentum = check_momentum(given.get("batch_norm_momentum", momentum))
            images = given["inputs" if self.signature == SERVING else "images"]
            self._check_weights(images)
            outputs = run_signature(self.network, self.check, self.signature, images, training, momentum)
        else:
            images = self.check(inputs)
            self._check_weights(images)
            several = bool(self.arguments.get("return_endpoints"))
            outputs = self.network(images, training=training, batch_norm_momentum=momentum, return_endpoints=several)
            outputs = outputs if several else {"default": outputs}
        return outputs if self._as_dict else outputs[self._key]

    def compute_output_spec(
        self, inputs: keras.KerasTensor | Mapping[str, keras.KerasTensor], training: bool | None = None
    ) -> keras.KerasTensor | dict[str, keras.KerasTensor]:
        """Return the outputs' shapes for symbolic images, after checking theirs."""
        named = signature_inputs(self.contract, self.signature, inputs) if self.signature else {"images": inputs}
        images: keras.KerasTensor = named["inputs" if self.signature == SERVING else "images"]
        self.contract.check_shape(images.shape)
        self.contract.check_dtype(keras.backend.standardize_dtype(images.dtype))
        specs = {
            name: keras.KerasTensor((images.shape[0], *info.shape[1:]), self.network.compute_dtype)
            for name, info in self._output_infos(images.shape[1:3]).items()
        }
        return specs if self._as_dict else specs[self._key]

    def compute_output_shape(self, input_shape: _Shape | Mapping[str, _Shape]) -> _Shape | dict[str, _Shape]:
        """Return the output's shape, or a dict of shapes."""
        shape = input_shape if not isinstance(input_shape, Mapping) else next(iter(input_shape.values()))
        infos = self._output_infos((shape[1], shape[2]))
        shapes = {name: (shape[0], *info.shape[1:]) for name, info in infos.items()}
        return shapes if self._as_dict else shapes[self._key]

    def _output_infos(self, size: tuple[int | None, int | None] | None = None) -> dict[str, Any]:
        signature = self.signature
        if signature is None:
            several = bool(self.arguments.get("return_endpoints"))
            signature = self.contract.endpoint_signature if several else "default"
        return self.contract.output_info(signature, size)

    @property
    def resolved_object(self) -> LoadedModule:
        """The module as `hub.load` gives it, sharing this layer's variables."""
        module = LoadedModule(self.contract, self.network)
        module.give_to(self)
        return module

    @property
    def variable_map(self) -> dict[str, keras.Variable]:
        """Every variable by its TF-Slim name."""
        return self.network.slim_variables

    def _get_own_losses(self) -> list[Tensor]:
        """Return a zero for a frozen layer, as the original did: old code gives `model.losses` to `tf.add_n`."""
        losses = super()._get_own_losses()
        return losses if self.trainable else [*losses, ops.zeros(())]

    def get_config(self) -> dict[str, object]:
        """Return the arguments that make this layer again, and a description of the network."""
        config = {key: value for key, value in super().get_config().items() if key != "autocast"}
        description = {key: getattr(self.contract.config, key) for key in _DESCRIPTION}
        description |= self.contract.config.variant.stated()
        return {
            **config,
            "handle": self.contract.name,
            "arguments": self.arguments,
            "tags": self.tags,
            "signature": self.signature,
            "signature_outputs_as_dict": self.signature_outputs_as_dict,
            "output_key": self.output_key,
            "output_shape": self._declared_shape,
            "check_range": self.check.mode,
            "module": description,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Make the layer of `get_config`, with the module's published weights where this machine has them.

        Nothing is fetched: a saved model brings its weights. A layer that got none says so when it is called.
        """
        refuse_its_code(sys._getframe(1))
        given: dict[str, Any] = dict(config)
        if isinstance(given.get("dtype"), Mapping):
            given["dtype"] = _dtype_policy(given["dtype"])
        handle = given.pop("handle")
        if "module" in given:
            description = dict(given.pop("module"))
            fields = {key: description[key] for key in _DESCRIPTION}
            fields["image_size"] = tuple(fields["image_size"])
            contract = find_contract(handle, ModuleConfig(**fields, variant=Variant.of(description)))
        else:  # of tensorflow_hub's own layer
            shape = given.get("batch_input_shape")
            contract = describe(handle, given.get("name", ""), shape[1:3] if shape else None)
            if contract is None:
                return cls(handle, **given)
        weights = _weights_here(contract)
        layer = cls(_Described(contract, weights), **given)
        if weights is None:
            first = next(iter(layer.network.slim_variables.values()))
            first.assign(np.full(first.shape, np.nan, "float32"))  # so that forgotten weights cannot pass for real ones
            layer._awaits_weights = True
        return layer

    def load_own_variables(self, store: Mapping[str, np.ndarray]) -> None:
        """Take the weights of a .keras or .weights.h5 file where it has them as tensorflow_hub's layer kept them.

        Raises:
            InvalidModuleError: they are not those of this network.
        """
        keys = sorted(store.keys(), key=int)
        if keys:  # our own stand under `network`
            arrays = [np.asarray(store[key]) for key in keys]
            self.network.load_slim_weights(weights_by_order(arrays, Path(self.name)))
        self._holds_all = bool(keys)

    def __dir__(self) -> list[str]:
        """List the attributes; Keras goes through them for sublayers to load, of which an old file has none."""
        names = [str(name) for name in super().__dir__()]
        if self.__dict__.pop("_holds_all", False):
            names.remove("network")
        return names

    def _check_weights(self, images: Tensor) -> None:
        """Raise where the layer was made from a configuration alone and no weights have been loaded since."""
        if not self._awaits_weights or not has_values(images):
            return
        first = next(iter(self.network.slim_variables.values()))
        if np.isnan(ops.convert_to_numpy(first)).any():
            raise ModuleUnavailableError(
                f"this layer was made from its configuration, and {self.contract.name} is not on this machine: load "
                f"the saved weights, or fetch the module with `mobilenet pull {self.contract.name}`"
            )
        self._awaits_weights = False


def _of_keras_3(layer_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a layer as Keras 3 takes them, of those of Keras 2: the batch's size is not stated."""
    known = {key: value for key, value in layer_kwargs.items() if key not in ("batch_input_shape", "batch_size")}
    if shape := layer_kwargs.get("batch_input_shape"):
        known["input_shape"] = tuple(shape[1:])
    return known


def _checked_arguments(arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    arguments = dict(arguments or {})
    if unknown := arguments.keys() - set(_ARGUMENTS):
        raise InputError(f"arguments has no {sorted(unknown)[0]!r}; a module takes {', '.join(_ARGUMENTS)}")
    check_momentum(arguments.get("batch_norm_momentum"))
    return arguments


def _dtype_policy(config: Mapping[str, Any]) -> Any:
    """Return a dtype policy of a saved configuration; Keras 2 called the class otherwise."""
    if config.get("class_name") == "Policy":
        return config["config"]["name"]
    return keras.dtype_policies.deserialize(config)


def _weights_here(contract: Contract) -> Mapping[str, np.ndarray] | None:
    """Return the published weights if this machine has them; fetch nothing."""
    try:
        found, weights = open_contract(contract.name, fetch=False)
    except MobileNetHubError:
        return None
    return weights if found.config.network == contract.config.network else None


read_old_files()
