"""`hub.Module`: the interface of TensorFlow 1, eager: tags, signatures, dicts of endpoints, momentum by signature.

Source: tensorflow/hub docs/tf1_hub_module.md, docs/common_signatures/images.md, module.py and image_util.py at
v0.15.0. What its graph collections held are properties here, and updates happen in the call.
"""

import os
from collections.abc import Callable, Collection, Mapping

import keras  # noqa: TID253 (this file is itself imported only where Keras is wanted)

from mobilenet_hub.catalog.published import PublishedModule
from mobilenet_hub.errors import InputError
from mobilenet_hub.hub.contract import Contract, TensorInfo, check_tags, open_contract, signature_inputs
from mobilenet_hub.hub.image_check import ImageCheck
from mobilenet_hub.hub.running import build_network, check_momentum, run_signature
from mobilenet_hub.keras.kernels import OneTensor
from mobilenet_hub.keras.tracing import as_it_stands
from mobilenet_hub.module import find_published
from mobilenet_hub.store import is_local


class Module:
    """A module under its TF1 signatures.

    Tags and `trainable` together decide what a call does, as they did:

    | tags | trainable | batch norm uses | moving statistics | variables and losses for training |
    |---|---|---|---|---|
    | {} | False | moving statistics | kept | none |
    | {} | True | moving statistics | kept | all |
    | {"train"} | False | the batch's own | kept | none |
    | {"train"} | True | the batch's own | updated by each call | all |

    Args:
        spec: any name of a module of TF1 format, or a module folder without a published handle; or what
            `load_module_spec` returned.
        trainable: whether `trainable_variables` and `regularization_losses` hold anything.
        name: kept for old code; names nothing.
        tags: {} for inference, {"train"} for training.

    Raises:
        InputError: the version is 4 or later (use hub.KerasLayer), or the tags are unknown.
        MobileNetHubError: the module does not exist, cannot be fetched or is damaged.

    Example:
        >>> module = Module("starter")
        >>> "image_feature_vector" in module.get_signature_names()
        True
    """

    def __init__(
        self,
        spec: "str | os.PathLike[str] | ModuleSpec",
        trainable: bool = False,
        name: str = "module",
        tags: Collection[str] | None = None,
    ):
        if tags is None and not isinstance(name, str):  # Module(spec, True, {"train"})
            name, tags = "module", name
        spec = spec.handle if isinstance(spec, ModuleSpec) else spec
        asked = os.fspath(spec) if isinstance(spec, str | os.PathLike) else ""
        self.train_graph = check_tags(asked, tags)
        if asked and not is_local(asked):
            _refuse_tf2(find_published(asked), asked)  # before it is fetched
        self.contract, weights = open_contract(spec)
        _refuse_tf2(self.contract.published, self.contract.name)
        self.trainable = bool(trainable)
        self.name = name
        if self.contract.config.batch_norm_folded and (self.train_graph or self.trainable):
            raise InputError(f"{self.contract.name} has its batch norm folded into its kernels: it cannot be trained")
        self.network = build_network(self.contract, weights)
        self.check = ImageCheck(self.contract)

    @as_it_stands
    def __call__(
        self,
        inputs: OneTensor | Mapping[str, object] | None = None,
        _sentinel: None = None,
        signature: str | None = None,
        as_dict: bool = False,
    ) -> OneTensor | dict[str, OneTensor]:
        """Return a signature's default output, or with `as_dict` all of them by name.

        Args:
            inputs: images float32 [batch, height, width, 3] in [0, 1], or a dict of the signature's inputs.
            signature: one of `get_signature_names()`; None: "default".
            as_dict: return every output: "default" and the endpoints, "<TF-Slim scope>/<endpoint>".

        Raises:
            InputError: an unknown signature or input, or images that do not fit.
        """
        if _sentinel is not None:
            raise InputError("give signature and as_dict by name: module(images, signature=..., as_dict=...)")
        signature = self._signature(signature)
        given = signature_inputs(self.contract, signature, inputs)
        momentum = check_momentum(given.get("batch_norm_momentum"))
        # Momentum 1 leaves the moving statistics exactly as they are.
        momentum = momentum if self.trainable else 1.0
        outputs = run_signature(self.network, self.check, signature, given["images"], self.train_graph, momentum)
        return outputs if as_dict else outputs["default"]

    def get_signature_names(self, tags: Collection[str] | None = None) -> list[str]:
        """Return the names of the signatures, the same for both sets of tags."""
        check_tags(self.contract.name, tags)
        return list(self.contract.hub1_signatures)

    def get_input_info_dict(self, signature: str | None = None) -> dict[str, TensorInfo]:
        """Return shape and dtype of a signature's inputs by name."""
        return self.contract.input_info(self._signature(signature))

    def get_output_info_dict(self, signature: str | None = None) -> dict[str, TensorInfo]:
        """Return shape and dtype of a signature's outputs by name."""
        return self.contract.output_info(self._signature(signature))

    @property
    def variable_map(self) -> dict[str, keras.Variable]:
        """Every variable by its TF-Slim name, e.g. "MobilenetV2/Conv/weights"."""
        return self.network.slim_variables

    @property
    def variables(self) -> list[keras.Variable]:
        """Every variable, sorted by its TF-Slim name."""
        return [variable for _, variable in sorted(self.variable_map.items())]

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """What the collection TRAINABLE_VARIABLES held: nothing unless the module is trainable."""
        return [variable for variable in self.variables if variable.trainable] if self.trainable else []

    @property
    def regularization_losses(self) -> list[Callable[[], keras.KerasTensor]]:
        """What the collection REGULARIZATION_LOSSES held, as functions without arguments."""
        return self.network.regularization_losses if self.trainable else []

    def _signature(self, signature: str | None) -> str:
        return _checked_signature(self.contract, signature)


class ModuleSpec:
    """What a module of TF1 format offers, before it is made; `hub.load_module_spec` returns it."""

    def __init__(self, handle: str | os.PathLike[str]):
        self.handle = handle
        self.contract, _ = open_contract(handle)
        _refuse_tf2(self.contract.published, self.contract.name)

    def get_tags(self) -> list[set[str]]:
        """Return the sets of tags: of inference, and of training."""
        return [set(), {"train"}]

    def get_signature_names(self, tags: Collection[str] | None = None) -> list[str]:
        """Return the names of the signatures, the same for both sets of tags."""
        check_tags(self.contract.name, tags)
        return list(self.contract.hub1_signatures)

    def get_input_info_dict(
        self, signature: str | None = None, tags: Collection[str] | None = None
    ) -> dict[str, TensorInfo]:
        """Return shape and dtype of a signature's inputs by name."""
        return self.contract.input_info(_checked_signature(self.contract, signature))

    def get_output_info_dict(
        self, signature: str | None = None, tags: Collection[str] | None = None
    ) -> dict[str, TensorInfo]:
        """Return shape and dtype of a signature's outputs by name."""
        return self.contract.output_info(_checked_signature(self.contract, signature))


def load_module_spec(path: str | os.PathLike[str]) -> ModuleSpec:
    """Return what a module of TF1 format offers, by any of its names; `hub.Module` takes it.

    Raises:
        InputError: the version is 4 or later (use hub.KerasLayer).
        MobileNetHubError: the module does not exist, cannot be fetched or is damaged.

    Example:
        >>> "default" in load_module_spec("starter").get_signature_names()
        True
    """
    return ModuleSpec(path)


def _checked_signature(contract: Contract, signature: str | None) -> str:
    return contract.check_signature(signature or "default", contract.hub1_signatures)


def _refuse_tf2(published: PublishedModule | None, name: str) -> None:
    if published is not None and published.format != "hub1":
        raise InputError(
            f"{name} is in the SavedModel format of TensorFlow 2 (version {published.version}), which hub.Module "
            f"cannot load; use hub.KerasLayer({name!r}) or hub.load"
        )


def get_expected_image_size(module: object, signature: str | None = None, input_name: str | None = None) -> list[int]:
    """Return [height, width] in pixels that a module was trained at; others may be allowed.

    Args:
        module: what hub.Module, hub.load or hub.KerasLayer gave.
        signature: kept for old code: all signatures of a module take the same images.
        input_name: likewise.

    Raises:
        InputError: the object is no module.
    """
    config = _contract(module).config
    if "image_size_unknown" in config.extra:
        raise InputError(f"{_contract(module).name} does not say at which image size it was trained; it takes any")
    return list(config.image_size)


def get_num_image_channels(module: object, signature: str | None = None, input_name: str | None = None) -> int:
    """Return the number of colour channels of a module's images: 3."""
    return _contract(module).config.network.units[0].in_channels


def _contract(module: object) -> Contract:
    contract = getattr(module, "contract", None)
    if contract is None:
        raise InputError(f"expected what hub.Module, hub.load or hub.KerasLayer returns, not {type(module).__name__}")
    return contract
