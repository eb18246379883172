"""A module as a value: its configuration and its weights, and the check that they fit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.architecture import (
    IMAGENET_CLASSES,
    Architecture,
    Variable,
    Variant,
    architecture,
    height_and_width,
)
from mobilenet_hub.errors import InputError, InvalidModuleError, UnknownModuleError
from mobilenet_hub.images.fit import Fit

if TYPE_CHECKING:
    from mobilenet_hub.catalog.published import PublishedModule

MODEL_FILE = "model.tflite"


@dataclass(frozen=True)
class ModuleConfig:
    """What module.json says: the network, its labels, and where it comes from.

    `variant` and `batch_norm_folded` are written only where they differ from TF-Slim: networks imported from peers
    that compute differently.
    """

    architecture: str
    depth_multiplier: float
    image_size: tuple[int, int]  # (height, width) it was trained at
    num_classes: int = 0
    labels: tuple[str, ...] | None = None
    handle: str | None = None
    source: Any = None
    license: Any = None
    trained_on: Any = None
    metrics: Any = None
    fit: Fit | None = None  # how pictures of another shape are fitted, where the module knows better than the default
    variant: Variant = field(default_factory=Variant)
    batch_norm_folded: bool = False  # batch norm is the identity plus a bias: inference only
    model: str | None = None  # a quantized file in the folder that is run as it is, in place of weights
    extra: Mapping[str, Any] = field(default_factory=dict)  # keys that this version does not know; kept

    @cached_property
    def network(self) -> Architecture:
        """The architecture that the weights belong to."""
        base = architecture(self.architecture, self.depth_multiplier, self.num_classes)
        return replace(base, variant=self.variant)


@dataclass(frozen=True)
class Module:
    """A module in memory: its configuration and its float32 weights by TF-Slim name."""

    config: ModuleConfig
    weights: Mapping[str, np.ndarray]
    path: Path | None = None
    model: bytes | None = None  # the quantized file, where the configuration names one; there are no weights then

    def without_classifier(self) -> "Module":
        """Return the module that gives features only: no classifier, hidden layers or labels.

        Raises:
            InputError: the module keeps a quantized file, which cannot be taken apart.
        """
        check_has_weights(self.config, "leave its classifier out")
        config = replace(
            self.config,
            num_classes=0,
            labels=None,
            variant=replace(self.config.variant, hidden_units=(), temperature=1.0),
        )
        return Module(config, {name: self.weights[name] for name in config.network.variables}, self.path)


def check_has_weights(config: ModuleConfig, what: str) -> None:
    """Refuse what needs weights for a module that keeps a quantized file.

    Args:
        config: the module's configuration.
        what: what shall be done, e.g. "train it".

    Raises:
        InputError: the module has no weights of its own; says what it can do.
    """
    if config.model is not None:
        raise InputError(
            f"this module is the quantized LiteRT file {config.model}, which is run as it is: one cannot {what}. It "
            "can classify, embed, evaluate and be measured; for everything else use the float file of the same network"
        )


def check_weights(network: Architecture, weights: Mapping[str, np.ndarray], source: str) -> None:
    """Demand exactly the network's variables: names, shapes, finite values, variances that are not negative.

    Args:
        network: the architecture.
        weights: arrays by TF-Slim name.
        source: the file that they come from, for the error.

    Raises:
        InvalidModuleError: lists what is missing, extra, misshapen, not finite or negative.
    """
    expected = network.variables
    problems = []
    if missing := expected.keys() - weights.keys():
        problems.append(f"missing: {_some(missing)}")
    if extra := weights.keys() - expected.keys():
        problems.append(f"not part of the network: {_some(extra)}")
    problems += [
        problem
        for name, variable in expected.items()
        if name in weights and (problem := _tensor_problem(variable, weights[name]))
    ]
    if problems:
        what = f"{network.name} with depth multiplier {network.depth_multiplier:g} and {network.num_classes} classes"
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more problems" if len(problems) > 8 else "")
        raise InvalidModuleError(f"{source} is not {what}: {shown}")


def _tensor_problem(variable: Variable, array: np.ndarray) -> str:
    if tuple(array.shape) != variable.shape:
        return f"{variable.name} has shape {list(array.shape)}, not {list(variable.shape)}"
    if not np.isfinite(array).all():
        return f"{variable.name} holds values that are not finite"
    if variable.name.endswith("moving_variance") and array.min() < 0:
        return f"{variable.name} holds negative values"
    return ""


def _some(names: Iterable[str], limit: int = 6) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:limit]) + (f" and {len(ordered) - limit} more" if len(ordered) > limit else "")


def check_labels(config: ModuleConfig) -> None:
    """Demand as many labels as classes, each of one line.

    Raises:
        InvalidModuleError: another number, or a line break in a label.
    """
    if config.labels is None:
        return
    if len(config.labels) != config.num_classes:
        raise InvalidModuleError(f"{len(config.labels)} labels do not fit {config.num_classes} classes")
    if broken := [label for label in config.labels if {"\n", "\r"} & set(label)]:
        raise InvalidModuleError(f"label {broken[0]!r} has a line break; labels.txt has one label a line")


def checked_image_size(
    config: ModuleConfig, image_size: int | tuple[int, int] | None, *, any_size: bool = False
) -> tuple[int, int]:
    """Return (height, width) to run a module at, if it allows it.

    Published modules other than V1's versions 3 to 5 were fixed to their own size; modules of one's own are not.

    Args:
        config: the module's configuration.
        image_size: a side or (height, width); None: the trained size.
        any_size: allow what the published module does not.

    Raises:
        InputError: the module does not allow this size.

    Example:
        >>> handle = "google/imagenet/mobilenet_v1_025_128/feature_vector/5"
        >>> config = ModuleConfig("mobilenet_v1", 0.25, (128, 128), handle=handle)
        >>> checked_image_size(config, 160)
        (160, 160)
    """
    if image_size is None:
        return config.image_size
    size = height_and_width(image_size)
    if size != config.image_size:
        check_has_weights(config, f"run it at {size[0]}x{size[1]}")
    if size != config.image_size and not any_size and fixed_size(config):
        trained = "x".join(map(str, config.image_size))
        raise InputError(
            f"{config.handle} takes images of {trained} pixels only, not {size[0]}x{size[1]}: leave the image size "
            f"out, take a V1 module of version 3 to 5, or insist with any_size=True"
        )
    return size


def fixed_size(config: ModuleConfig, name: str | None = None) -> tuple[int, int] | None:
    """Return the only (height, width) that a module takes, or None where any will do.

    Args:
        config: the module's configuration.
        name: what it was asked for by.
    """
    published = published_as(config, name)
    return config.image_size if published and published.fixed_size else None


def published_as(config: ModuleConfig, name: str | None = None) -> "PublishedModule | None":
    """Return the published module that a module is by the name it was asked for, or else by the handle that it carries.

    The handle of a module with another number of classes says only where its network comes from.

    Args:
        config: the module's configuration.
        name: what it was asked for by; None: only its handle counts.

    Example:
        >>> handle = "google/imagenet/mobilenet_v2_035_96/classification/5"
        >>> config = ModuleConfig("mobilenet_v2", 0.35, (96, 96), 1001, handle=handle)
        >>> published_as(config).kind, published_as(replace(config, num_classes=0))
        ('classification', None)
    """
    if name is not None and (published := find_published(name)):
        return published
    published = find_published(config.handle) if config.handle else None
    return published if published and published.num_classes == config.num_classes else None


def find_published(name: str) -> "PublishedModule | None":
    """Return the published module that a name stands for, or None."""
    from mobilenet_hub.catalog.find import find_module

    try:
        return find_module(name)
    except UnknownModuleError:
        return None


def drop_background(module: Module) -> Module:
    """Return a module of 1001 ImageNet classes as one of 1000: the same logits but the first, the background's.

    Raises:
        InputError: the module has another number of classes.

    Example:
        >>> from mobilenet_hub.weights.convert import load_source
        >>> drop_background(load_source("mobilenet_v1_0.25_128.tgz")).config.num_classes  # doctest: +SKIP
        1000
    """
    config = module.config
    check_has_weights(config, "leave its background class out")
    if config.num_classes != IMAGENET_CLASSES:
        raise InputError(f"the module has {config.num_classes} classes, not the {IMAGENET_CLASSES} with background")
    classifier = {variable.name: module.weights[variable.name][..., 1:] for variable in config.network.classifier}
    labels = config.labels[1:] if config.labels else None
    return Module(replace(config, num_classes=IMAGENET_CLASSES - 1, labels=labels), {**module.weights, **classifier})
