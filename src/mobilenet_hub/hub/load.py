"""`hub.load`: a module as the reusable SavedModel that TensorFlow Hub described, on any Keras backend.

Source: tensorflow/hub docs/reusable_saved_models.md and docs/tf2_saved_model.md.
"""

import os
import weakref
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)
import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.hub.contract import (
    Contract,
    check_tags,
    open_contract,
    signature_inputs,
)
from mobilenet_hub.hub.image_check import ImageCheck
from mobilenet_hub.hub.running import build_network, check_momentum, run_signature
from mobilenet_hub.hub.saved_model import reusable, trackable
from mobilenet_hub.keras.kernels import OneTensor, Tensor
from mobilenet_hub.keras.mobilenet import MobileNet
from mobilenet_hub.keras.tracing import as_it_stands

_Trackable = object if TYPE_CHECKING else trackable()


class LoadedModule(_Trackable):
    """A callable module with its variables, losses and signatures.

    Attributes:
        contract: what the module promises by its version.
        network: the Keras model underneath.
        signatures: by name, functions from named tensors to a dict of tensors.
    """

    def __init__(self, contract: Contract, network: MobileNet, train_graph: bool = False):
        self.contract = contract
        self.network = network
        self.check = ImageCheck(contract)
        self._train_graph = train_graph
        self._layer: weakref.ref[Any] | None = None
        self.signatures: Mapping[str, Callable[..., dict[str, Tensor]]] = MappingProxyType(
            {name: _Signature(self, name, train_graph) for name in contract.signatures}
        )

    @as_it_stands
    def __call__(
        self,
        images: OneTensor,
        training: bool = False,
        batch_norm_momentum: float | None = None,
        return_endpoints: bool = False,
    ) -> OneTensor | dict[str, OneTensor]:
        """Return logits [batch, classes] or features [batch, num_features].

        Args:
            images: float32 [batch, height, width, 3] in [0, 1].
            training: use the batch's own statistics in batch norm, and update the moving ones.
            batch_norm_momentum: of that update; None: the module's default, 0.99 since version 3.
            return_endpoints: return a dict with "default" and every endpoint, "<TF-Slim scope>/<endpoint>".

        Raises:
            InputError: images of the wrong shape, dtype or range, or a momentum outside [0, 1].
        """
        if training and self.contract.config.batch_norm_folded:
            raise InputError(f"{self.contract.name} has its batch norm folded into its kernels: it cannot be trained")
        if training and not self.network.trainable:
            raise InputError(
                f"a frozen hub.KerasLayer shares the variables of this {self.contract.name}: make it trainable, or "
                "load the module once more"
            )
        return self.network(
            self.check(images),
            training=bool(training),
            batch_norm_momentum=check_momentum(batch_norm_momentum),
            return_endpoints=return_endpoints,
        )

    def give_to(self, layer: keras.layers.Layer) -> None:
        """Share the variables with a layer, one at a time: whether they are trained is decided for all who share them.

        Raises:
            InputError: another layer has them.
        """
        owner = self._layer and self._layer()
        if owner is not None and owner is not layer:
            raise InputError(
                f"this {self.contract.name} is the layer {owner.name!r} already: call that layer again to share its "
                "variables, or load the module once more"
            )
        self._layer = weakref.ref(layer)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        """Return what TensorFlow saves of it, on its backend."""
        return reusable(self, save_type, **kwargs) if save_type == "savedmodel" else {"network": self.network}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the contract and the weights; the module made of them has variables of its own."""
        return _unpickled, (self.contract, self.network.slim_weights(), self._train_graph)

    @property
    def variables(self) -> list[keras.Variable]:
        """Every variable, in TF-Slim's order."""
        return list(self.network.slim_variables.values())

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """The variables that training changes by gradients."""
        described = self.contract.config.network.variables
        return [variable for name, variable in self.variable_map.items() if described[name].trainable]

    @property
    def variable_map(self) -> dict[str, keras.Variable]:
        """Every variable by its TF-Slim name."""
        return self.network.slim_variables

    @property
    def regularization_losses(self) -> list[Callable[[], keras.KerasTensor]]:
        """The L2 terms, each a function without arguments; add them to the loss unscaled."""
        return self.network.regularization_losses


def _unpickled(contract: Contract, weights: Mapping[str, np.ndarray], train_graph: bool) -> LoadedModule:
    return LoadedModule(contract, build_network(contract, weights), train_graph)


class _Signature:
    """One signature: takes named tensors, or the images alone; gives a dict."""

    def __init__(self, module: LoadedModule, name: str, train_graph: bool):
        self.module = module
        self.name = name
        self.train_graph = train_graph

    @as_it_stands
    def __call__(self, *args: Any, **inputs: Any) -> dict[str, Tensor]:
        contract = self.module.contract
        if len(args) > 1 or (args and inputs):
            raise InputError(f"signature {self.name!r} takes one positional tensor or named ones, not both")
        given = signature_inputs(contract, self.name, args[0] if args else inputs)
        images = given["inputs" if "inputs" in given else "images"]
        # Momentum 1 leaves the moving statistics as they are: a signature of the original never updated them.
        momentum = 1.0 if self.train_graph else None
        return run_signature(self.module.network, self.module.check, self.name, images, self.train_graph, momentum)

    @property
    def structured_input_signature(self) -> tuple[tuple[()], dict[str, Any]]:
        """The positional inputs, of which there are none, and the named ones: shapes and dtypes."""
        return (), dict(self.module.contract.input_info(self.name))

    @property
    def inputs(self) -> list[Any]:
        """The inputs' shapes and dtypes."""
        return list(self.module.contract.input_info(self.name).values())

    @property
    def outputs(self) -> list[Any]:
        """The outputs' shapes and dtypes."""
        return list(self.structured_outputs.values())

    @property
    def structured_outputs(self) -> dict[str, Any]:
        """The outputs' shapes and dtypes by name."""
        return dict(self.module.contract.output_info(self.name))


def load(
    handle: str | os.PathLike[str], tags: Collection[str] | None = None, options: object | None = None
) -> LoadedModule:
    """Load a module by any of its names, as `tensorflow_hub.load` did.

    Args:
        handle: a module folder's path, a TF Hub or Kaggle URL or handle, a short name, or "starter".
        tags: {"train"} makes the signatures of a TF1-format module use the batch's own statistics.
        options: accepted for old code's sake; there is nothing to set.

    Returns:
        An object to call: `module(images, training=False, batch_norm_momentum=0.99, return_endpoints=False)`.

    Raises:
        InputError: the handle is not a string or path, or the tags are unknown.
        MobileNetHubError: the module does not exist, cannot be fetched or is damaged.

    Example:
        >>> import numpy as np
        >>> module = load("starter")
        >>> height, width = module.contract.config.image_size
        >>> module(np.zeros((1, height, width, 3), "float32")).shape[0]
        1
    """
    contract, weights = open_contract(handle)
    train_graph = check_tags(contract.name, tags, contract.format)
    return LoadedModule(contract, build_network(contract, weights), train_graph)
