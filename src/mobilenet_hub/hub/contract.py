"""What a module promises by its name and version: signatures, input size, momentum; and what it demands of images.

The rules are the published pages' (tfhub.dev) and the "common signatures for images" of TensorFlow Hub. Imports
errors, catalog, architecture, weights and store; no Keras.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_MOMENTUM, INPUT_CHANNELS
from mobilenet_hub.catalog.published import PublishedModule
from mobilenet_hub.errors import InputError
from mobilenet_hub.images.load import CHANNELS_LAST
from mobilenet_hub.module import ModuleConfig, check_has_weights, fixed_size, published_as
from mobilenet_hub.store import open_module

WITH_MOMENTUM = "_with_bn_hparams"
SERVING = "serving_default"
USUAL_SIZE = (224, 224)  # stands for the size of a module that takes any and does not say at which it was trained
CLASS_ENDPOINTS = ("Logits", "Predictions")


@dataclass(frozen=True)
class TensorInfo:
    """What a signature says of one input or output: its shape, with None where it is free, and its dtype."""

    shape: tuple[int | None, ...]
    dtype: str = "float32"
    is_sparse: bool = False

    def get_shape(self) -> tuple[int | None, ...]:
        """Return the shape, under the name that tensorflow_hub gave it."""
        return self.shape


@dataclass(frozen=True)
class Contract:
    """The promises of one module under the name that the caller used."""

    name: str
    config: ModuleConfig
    published: PublishedModule | None = None  # None: a module folder that was never published

    @property
    def size(self) -> tuple[int, int] | None:
        """The only (height, width) that it takes, or None where any will do."""
        return fixed_size(self.config, self.name)

    @property
    def batch_norm_momentum(self) -> float:
        """The momentum where the caller gives none."""
        return self.published.batch_norm_momentum if self.published else BATCH_NORM_MOMENTUM

    @property
    def is_hub1(self) -> bool:
        """Whether it was published in the format of TensorFlow 1, whose interface is its signatures."""
        return self.published is not None and self.published.format == "hub1"

    @property
    def format(self) -> str | None:
        """The format that it was published in; None where it never was."""
        return self.published.format if self.published else None

    @property
    def output_name(self) -> str:
        """What "serving_default" calls its output."""
        return "logits" if self.config.num_classes else "feature_vector"

    @property
    def hub1_signatures(self) -> tuple[str, ...]:
        """The signatures for hub.Module; a folder without a handle has those of the latest TF1 version."""
        if self.published is not None:
            return self.published.signatures if self.is_hub1 else ()
        named = ("image_classification",) if self.config.num_classes else ()
        named = (*named, "image_feature_vector")
        return ("default", *named, *(f"{name}{WITH_MOMENTUM}" for name in named))

    @property
    def signatures(self) -> tuple[str, ...]:
        """Every signature for hub.load and hub.KerasLayer; none before version 5 of the TF2 format."""
        if self.published is not None:
            return self.published.signatures
        return (*self.hub1_signatures, SERVING)

    def check_signature(self, signature: str, allowed: Sequence[str] | None = None) -> str:
        """Return the signature, or raise InputError with those that there are."""
        allowed = self.signatures if allowed is None else allowed
        if signature not in allowed:
            there = f"it has {', '.join(allowed)}" if allowed else "it has none: call it directly"
            raise InputError(f"{self.name} has no signature {signature!r}; {there}")
        return signature

    def input_info(self, signature: str) -> dict[str, TensorInfo]:
        """Return the inputs of a signature by name."""
        height, width = self.size or (None, None)
        images = TensorInfo((None, height, width, INPUT_CHANNELS))
        if signature == SERVING:
            return {"inputs": images}
        return {"images": images} | ({"batch_norm_momentum": TensorInfo(())} if has_momentum(signature) else {})

    @property
    def endpoint_signature(self) -> str:
        """The signature whose outputs are the default one and every endpoint."""
        return "image_classification" if self.config.num_classes else "image_feature_vector"

    def output_info(self, signature: str, size: tuple[int | None, int | None] | None = None) -> dict[str, TensorInfo]:
        """Return the outputs of a signature by name, for images of (height, width) where these are known."""
        network = self.config.network
        classes = gives_classes(signature, self.config)
        default = TensorInfo((None, network.num_classes if classes else network.num_features))
        if signature == SERVING:
            return {self.output_name: default}
        if signature == "default":
            return {"default": default}
        height, width = size or self.size or (None, None)
        known = height is not None and width is not None
        infos = {"default": default}
        for name, shape in network.endpoint_shapes(height or 1, width or 1).items():
            if not classes and name in CLASS_ENDPOINTS:
                continue
            free = not known and len(shape) == 3 and name != "global_pool"
            infos[f"{network.scope}/{name}"] = TensorInfo((None, *((None, None, shape[-1]) if free else shape)))
        return infos

    def check_shape(self, shape: Sequence[int | None]) -> None:
        """Raise InputError unless the shape is [batch, height, width, 3], of the right size where that is fixed."""
        wanted = self.size
        stated = f"[batch, {wanted[0]}, {wanted[1]}, 3]" if wanted else "[batch, height, width, 3]"
        shown = list(shape)
        if len(shown) != 4 or shown[3] not in (None, INPUT_CHANNELS):
            hint = "; add the batch axis: images[None]" if len(shown) == 3 else ""
            if len(shown) == 4 and shown[1] == INPUT_CHANNELS:
                hint = f"; use {CHANNELS_LAST}"
            raise InputError(f"{self.name} takes images of shape {stated}, not {shown}{hint}")
        if wanted and any(have not in (None, want) for have, want in zip(shown[1:3], wanted, strict=True)):
            raise InputError(
                f"{self.name} takes images of {wanted[0]}x{wanted[1]} pixels only, not {shown[1]}x{shown[2]}; "
                "resize them first, or use a MobileNet V1 of version 3 or later, which takes any size"
            )
        if any(length == 0 for length in shown[1:3]):
            raise InputError(f"{self.name} takes images of shape {stated}, not {shown}: there are no pixels")

    def check_dtype(self, dtype: str) -> None:
        """Raise InputError unless the images are floating point."""
        if "float" not in dtype:
            hint = "divide them by 255" if "int" in dtype else "convert them"
            raise InputError(f"{self.name} takes float32 images in [0, 1], not {dtype}; {hint}")

    def range_problem(self, low: float, high: float) -> str | None:
        """Return what is wrong where the values are those of another convention than [0, 1], with the fix; or None."""
        if not (np.isfinite(low) and np.isfinite(high)):
            return f"{self.name} was given images with values that are not finite"
        if high > RANGE[1]:
            return f"{self.name} takes images in [0, 1], not up to {high:g}; divide them by 255"
        if low < RANGE[0]:
            return f"{self.name} takes images in [0, 1], not down to {low:g}; from [-1, 1] use (images + 1) / 2"
        return None


# Augmentation may overshoot [0, 1] a little; images in [0, 255] or [-1, 1] pass these bounds by far.
RANGE = (-0.5, 2.0)


def has_momentum(signature: str) -> bool:
    """Tell whether a signature takes `batch_norm_momentum`."""
    return signature.endswith(WITH_MOMENTUM)


def gives_classes(signature: str, config: ModuleConfig) -> bool:
    """Tell whether a signature's default output is logits; otherwise it is the feature vector."""
    return bool(config.num_classes) and not signature.startswith("image_feature_vector")


def find_contract(name: str | os.PathLike[str], config: ModuleConfig) -> Contract:
    """Return the contract of a module by the name that it was asked for, or else by the handle that it carries.

    The handle of a folder with another number of classes says only where its network comes from.
    """
    return Contract(os.fspath(name), config, published_as(config, os.fspath(name)))


def open_contract(name: str | os.PathLike[str], *, fetch: bool = True) -> tuple[Contract, Mapping[str, np.ndarray]]:
    """Return a module's contract and its weights, by any of its names.

    A published feature vector whose folder also holds a classifier is opened without it. With `fetch=False` only what
    is on this machine counts.

    Raises:
        InputError: the name is not a string or path.
        MobileNetHubError: the module does not exist, cannot be fetched or is damaged.
    """
    if not isinstance(name, str | os.PathLike):
        raise InputError(f"a module is named by a string or path, not by {type(name).__name__}")
    module = open_module(name, fetch=fetch, usual_size=USUAL_SIZE, kind="feature_vector")
    check_has_weights(module.config, "open it in Keras or export it")
    contract = find_contract(name, module.config)
    if contract.published and contract.published.kind == "feature_vector" and module.config.num_classes:
        module = module.without_classifier()
        contract = replace(contract, config=module.config)
    return contract, module.weights


def check_tags(name: str, tags: Collection[str] | None, format: str | None = "hub1") -> bool:
    """Return whether a set of tags asks for the training graph: {} or None does not, {"train"} does.

    Args:
        name: the module's, for the error.
        tags: what the caller gave.
        format: "hub1" has the graphs {} and {"train"}, "savedmodel2" the one graph {"serve"}; None, a module folder
            that was never published, all of them.

    Raises:
        InputError: another set; the text lists those that there are.
    """
    chosen = {tags} if isinstance(tags, str) else set(tags or ())
    there = {"hub1": [set(), {"train"}], "savedmodel2": [{"serve"}]}.get(format or "", [{"train"}, {"serve"}])
    if chosen and chosen not in there:
        shown = " or ".join(repr(one) for one in there)
        raise InputError(f"{name} has no graph variant with tags {sorted(chosen)!r}; use {shown}")
    return chosen == {"train"}


def signature_inputs(contract: Contract, signature: str, inputs: Any) -> dict[str, Any]:
    """Return a signature's inputs by name; a lone tensor stands for the images.

    Raises:
        InputError: an input is missing, or is none of the signature's.
    """
    names = tuple(contract.input_info(signature))
    given = dict(inputs) if isinstance(inputs, Mapping) else {names[0]: inputs}
    if unknown := given.keys() - set(names):
        raise InputError(f"signature {signature!r} has no input {sorted(unknown)[0]!r}; it takes {', '.join(names)}")
    if names[0] not in given or given[names[0]] is None:
        raise InputError(f"signature {signature!r} lacks its input {names[0]!r}; it takes {', '.join(names)}")
    return given
