"""What a reader found in a file, and how a module is made of it: names, network, number of classes, image size."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil, isclose
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.architecture import (
    IMAGENET_CLASSES,
    INPUT_OFFSET,
    INPUT_SCALE,
    Variant,
    architecture,
    height_and_width,
    is_image_size,
)
from mobilenet_hub.catalog.labels import imagenet_labels
from mobilenet_hub.catalog.published import configurations
from mobilenet_hub.errors import InputError, InvalidModuleError
from mobilenet_hub.module import MODEL_FILE, Module, ModuleConfig, check_weights
from mobilenet_hub.weights.pixels import (
    PIXEL_RANGE,
    PIXELS,
    SMALL,
    TEACHABLE_MACHINE_SCALE,
    exactly_usual,
    is_teachable_machine,
    scaling_of_images,
    takes_pixels,
    with_pixels,
)

SCOPES = {"MobilenetV1": "mobilenet_v1", "MobilenetV2": "mobilenet_v2"}
_SLIM = tuple(f"{scope}/" for scope in SCOPES)  # TF-Slim's programs make images -1 to 1
LEAVES = ("weights", "depthwise_weights", "biases", "gamma", "beta", "moving_mean", "moving_variance")
_SCOPED = re.compile(r"(?:^|/)((?:MobilenetV1|MobilenetV2)/.+)")
_CLASSIFIER = "/Logits/Conv2d_1c_1x1/biases"
_NAME = re.compile(r"mobilenet_(v[12])_(\d\.\d+|\d{3})_(\d{2,4})(?!\d)")
# Kaggle's folders, of /kaggle/input and of kagglehub's cache alike, and its archives' names.
_KAGGLE = re.compile(r"mobilenet-(v[12])[/-]tensorflow[12][/-](\d{3})-(\d{2,3})-(?:feature-vector|classification)")
_MAX_DECIMALS = 9
_RETRAIN, _RETRAIN_SCALE = "final_training_ops", 255 / 128
ASSUMED = "assumed"  # the key of module.json for what a file leaves open


@dataclass(frozen=True)
class Source:
    """What a reader found: float32 weights by TF-Slim name, and what else the file says of the network."""

    path: Path
    kind: str  # e.g. "TF-Slim checkpoint"
    weights: Mapping[str, np.ndarray]
    image_size: tuple[int, int] | None = None  # (height, width), where the file says it
    labels: tuple[str, ...] | None = None
    variant: Variant = field(default_factory=Variant)
    batch_norm_folded: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    scaled: bool = False  # the graph itself says how images are scaled
    model: bytes | None = None  # a file that the module keeps and runs as it is; the weights then only say what it is
    assumed: tuple[str, ...] = ()  # what the file leaves open, and what was taken for it
    carried: Any = None  # `exported.Carried`: what an export of ours carries of its module
    module: bool = False  # it was a module already: a folder, or an export that carries it


@dataclass(frozen=True)
class Found:
    """A network that was found in a graph, and what tells how its images are prepared."""

    weights: Mapping[str, np.ndarray]
    image_size: tuple[int, int] | None
    labels: tuple[str, ...] | None
    variant: Variant  # but for the scaling of images
    batch_norm_folded: bool
    scaling: tuple[float, float] | None  # what the graph itself does to its input: x * scale + offset; None: nothing
    names: tuple[str, ...]  # of its layers or operations


def assumed_of_weights(whose: str, *, pixels: bool = True) -> tuple[str, ...]:
    """Return what is assumed of a file of weights alone.

    Args:
        whose: whose network they are taken for, e.g. "TF-Slim's".
        pixels: whether nothing says how images enter.
    """
    network = (
        f"the file has weights only: the network is taken for {whose}, its ReLU6, strides, padding and average pooling"
    )
    return (network, PIXELS) if pixels else (network,)


def to_source(
    path: Path, kind: str, found: Found, given: tuple[float, float] | None = None, *, assumed: tuple[str, ...] = ()
) -> Source:
    """Return what was found as a source, with the scaling that takes images in [0, 1] to what the network takes.

    A graph that scales by itself takes pixels of 0 to 255, or images in [0, 1] where its factor is a hub module's.
    One that has such a factor in its first kernel, where converters put it, is known by how small that is.
    Others take what the tools that made them feed: Teachable Machine x / 127 - 1 (teachablemachine-community,
    libraries/image/src/utils/tf.ts), retrain.py's label_image.py (x - 128) / 128, all others x / 127.5 - 1.

    Args:
        path: the file or folder.
        kind: what it is.
        found: the network.
        given: scale and offset that take images in [0, 1] to what the graph is given, where the file says it; (1, 0)
            where its graph takes images in [0, 1].
        assumed: what the reader took for what the file leaves open.

    Raises:
        Unusable: it scales its images in a way that says nothing of what they are.
    """
    if given is not None:
        factor, summand = found.scaling or (1.0, 0.0)
        scale, offset = factor * given[0], factor * given[1] + summand
    elif found.scaling is not None:
        scale, offset = scaling_of_images(*found.scaling)
    elif _takes_pixels(found):
        scale, offset = PIXEL_RANGE, 0.0
        assumed = (*(one for one in assumed if one != PIXELS), SMALL)
    elif is_teachable_machine(found.names, found.variant.hidden_units):
        scale, offset = TEACHABLE_MACHINE_SCALE, INPUT_OFFSET
    elif any(_RETRAIN in name for name in found.names):
        scale, offset = _RETRAIN_SCALE, INPUT_OFFSET
    else:
        scale, offset = INPUT_SCALE, INPUT_OFFSET
        known = PIXELS in assumed or any(scope in name for name in found.names for scope in _SLIM)
        assumed = assumed if known else (*assumed, PIXELS)
    variant = replace(found.variant, input_scale=exactly_usual(scale), input_offset=offset)
    scaled = given is not None or found.scaling is not None
    labels, folded = found.labels, found.batch_norm_folded
    return Source(path, kind, found.weights, found.image_size, labels, variant, folded, scaled=scaled, assumed=assumed)


def _takes_pixels(found: Found) -> bool:
    networks = [name for scope, name in SCOPES.items() if any(key.startswith(f"{scope}/") for key in found.weights)]
    if len(networks) != 1:
        return False
    first = architecture(networks[0], 1.0, 0).units[0]
    return takes_pixels(found.weights, first, found.variant.batch_norm_epsilon)


@dataclass(frozen=True)
class Wanted:
    """What the caller says of the network; None where the file shall say it."""

    architecture: str | None = None
    depth_multiplier: float | None = None
    image_size: tuple[int, int] | None = None
    num_classes: int | None = None  # 0 leaves a classifier out
    handle: str | None = None
    pixels: str | None = None  # one of `pixels.FED`


def slim_name(name: str) -> str:
    """Return a variable's TF-Slim name: without the scopes before "MobilenetV1/" or "MobilenetV2/" and without ":0".

    Example:
        >>> slim_name("module/MobilenetV2/Conv/weights:0")
        'MobilenetV2/Conv/weights'
    """
    found = _SCOPED.search(name.removesuffix(":0"))
    return found[1] if found else name


def is_slim(name: str) -> bool:
    """Tell whether a name is that of a network's variable, and not of a slot or of anything else.

    Example:
        >>> is_slim("MobilenetV2/Conv/weights"), is_slim("MobilenetV2/Conv/weights/RMSProp")
        (True, False)
    """
    return name.partition("/")[0] in SCOPES and name.rpartition("/")[2] in LEAVES


def to_module(source: Source, wanted: Wanted) -> Module:
    """Find out which network the weights belong to, and check that they are all of it and nothing else.

    Raises:
        InvalidModuleError: the weights are no MobileNet, or another one than wanted; says which tensors do not fit.
        InputError: the image size is not in the file and not given either.
    """
    name, num_classes = _architecture_of(source), _classes_of(source)
    if wanted.architecture not in (None, name):
        raise InvalidModuleError(f"{source.path} holds {name}, not {wanted.architecture}")
    weights = source.weights
    if num_classes == 1 and wanted.num_classes != 0 and not source.module:
        raise InvalidModuleError(
            f"{source.path} has a classifier of one class, whose softmax is 1 for every photo; num_classes=0 leaves it "
            "out"
        )
    if wanted.num_classes not in (None, 0, num_classes):
        has = f"a classifier of {num_classes} classes" if num_classes else "no classifier"
        raise InvalidModuleError(f"{source.path} has {has}, not one of {wanted.num_classes}")
    multiplier = wanted.depth_multiplier or fitting_multiplier(weights, name, source.path)
    multiplier = multiplier or _nearest_multiplier(weights, name)
    variant, assumed = with_pixels(source.variant, source.assumed, wanted.pixels, source.path)
    config = ModuleConfig(
        architecture=name,
        depth_multiplier=multiplier,
        image_size=_image_size(source, name, multiplier, wanted),
        num_classes=num_classes,
        labels=_labels(source, num_classes),
        handle=wanted.handle,
        source={"format": source.kind, "file": source.path.name},
        variant=variant,
        batch_norm_folded=source.batch_norm_folded,
        model=MODEL_FILE if source.model is not None else None,
        extra={**source.extra, **({ASSUMED: list(assumed)} if assumed and not wanted.handle else {})},
    )
    check_weights(config.network, weights, str(source.path))
    module = Module(config, weights) if source.model is None else Module(config, {}, model=source.model)
    return module.without_classifier() if wanted.num_classes == 0 and num_classes else module


def without_assumed(extra: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what a module has besides, and apart from that what was assumed of its file."""
    assumed = extra.get(ASSUMED, ())
    others = {key: value for key, value in extra.items() if key != ASSUMED}
    return others, tuple(map(str, assumed)) if isinstance(assumed, list) else ()


def _architecture_of(source: Source) -> str:
    scopes = sorted({key.partition("/")[0] for key in source.weights} & SCOPES.keys())
    if len(scopes) != 1:
        found = " and ".join(scopes) if scopes else "none"
        raise InvalidModuleError(f"{source.path} must hold variables of MobilenetV1 or of MobilenetV2; found: {found}")
    return SCOPES[scopes[0]]


def _classes_of(source: Source) -> int:
    biases = [array for key, array in source.weights.items() if key.endswith(_CLASSIFIER)]
    return int(biases[0].shape[0]) if biases and biases[0].ndim == 1 else 0


def _labels(source: Source, num_classes: int) -> tuple[str, ...] | None:
    if source.labels is not None and num_classes:
        return source.labels
    return imagenet_labels() if num_classes == IMAGENET_CLASSES else None


def fitting_multiplier(weights: Mapping[str, np.ndarray], name: str, path: Path) -> float | None:
    """Return the depth multiplier whose layers are as wide as these weights, None where no multiplier's are.

    Many multipliers can give the same network: the one in the file's name comes first, then the published ones, then
    the one with the fewest decimals.
    """
    widths = _widths(weights, name)
    named = _named_configuration(path)
    likely = [named[1]] if named and named[0] == name else []
    for multiplier in (*likely, *_published_multipliers(name)):
        if multiplier > 0 and _channels(name, multiplier) == widths:
            return multiplier
    return _search_multiplier(name, widths)


def _nearest_multiplier(weights: Mapping[str, np.ndarray], name: str) -> float:
    """Return the published multiplier with the most layers as wide, for the report of those that are not."""
    widths = _widths(weights, name)
    return min(
        _published_multipliers(name),
        key=lambda one: sum(a != b for a, b in zip(_channels(name, one), widths, strict=True)),
    )


def _published_multipliers(name: str) -> tuple[float, ...]:
    return tuple(sorted({one.depth_multiplier for one in configurations() if one.architecture == name}))


@lru_cache(maxsize=1024)
def _channels(name: str, multiplier: float) -> tuple[int, ...]:
    return tuple(unit.out_channels for unit in architecture(name, multiplier, 0).units)


def _widths(weights: Mapping[str, np.ndarray], name: str) -> tuple[int, ...]:
    """Return the channels of every unit, 0 where its beta is missing."""
    widths = []
    for unit in architecture(name, 1.0, 0).units:
        beta = weights.get(f"{unit.scope}/BatchNorm/beta")
        widths.append(int(beta.shape[0]) if beta is not None and beta.ndim == 1 else 0)
    return tuple(widths)


def _search_multiplier(name: str, widths: tuple[int, ...]) -> float | None:
    """Return the multiplier with the fewest decimals that gives these widths; all that do give the same network.

    Every width grows with the multiplier, so that those that fit are one interval, found by bisection.
    """
    top = max(widths) + 1.0
    low = _bisect(top, lambda m: all(a >= b for a, b in zip(_channels(name, m), widths, strict=True)))
    high = _bisect(top, lambda m: any(a > b for a, b in zip(_channels(name, m), widths, strict=True)))
    for decimals in range(_MAX_DECIMALS + 1):
        multiplier = ceil(low * 10**decimals) / 10**decimals
        if 0 < multiplier <= high and _channels(name, multiplier) == widths:
            return multiplier
    return None


def _bisect(top: float, reached) -> float:
    """Return the least value in (0, top] from which on `reached` holds, from below within rounding; top if never."""
    low, high = 0.0, top
    while (middle := (low + high) / 2) not in (low, high):
        if reached(middle):
            high = middle
        else:
            low = middle
    return high


def _named_configuration(path: Path) -> tuple[str, float, int] | None:
    """Return the architecture, multiplier and image size that a file's or its folders' name tells, if one does.

    Example:
        >>> _named_configuration(Path("mobilenet_v1_0.25_128.ckpt"))
        ('mobilenet_v1', 0.25, 128)
        >>> _named_configuration(Path("mobilenet-v1/tensorFlow2/025-128-classification/1"))
        ('mobilenet_v1', 0.25, 128)
    """
    parts = [part.lower() for part in path.parts[-4:]]
    for found in [*(_NAME.search(part) for part in reversed(parts)), _KAGGLE.search("/".join(parts))]:
        if found:
            multiplier = float(found[2]) if "." in found[2] else int(found[2]) / 100
            return f"mobilenet_{found[1]}", multiplier, int(found[3])
    return None


def _image_size(source: Source, name: str, multiplier: float, wanted: Wanted) -> tuple[int, int]:
    """Return the size that is wanted, or that the file says inside or by its name; none of them may differ.

    A name may be wrong where the caller gives the size, but not where the caller says which module it is.
    """
    named = _named_configuration(source.path)
    by_name = (named[2], named[2]) if named and named[0] == name and isclose(named[1], multiplier) else None
    if wanted.image_size:
        height_and_width(wanted.image_size)
        by_name = by_name if wanted.handle else None
    said = {size for size in (source.image_size, by_name) if size}
    if wanted.image_size:
        if said - {wanted.image_size}:
            raise InvalidModuleError(
                f"{source.path} was made for images of {_shown(said)} pixels, not {_shown({wanted.image_size})}"
            )
        return wanted.image_size
    if len(said) > 1:
        raise InputError(
            f"{source.path} says {_shown(said)} pixels, by its name and inside; say which with image_size=N"
        )
    if not said:
        raise InputError(
            f"{source.path} does not say for which image size the network was trained; give it, e.g. image_size=224"
        )
    if not is_image_size(size := said.pop()):
        raise InvalidModuleError(f"{source.path} says that its images have {_shown({size})} pixels")
    return size


def _shown(sizes: set[tuple[int, int]]) -> str:
    return " and ".join(f"{height}x{width}" for height, width in sorted(sizes))
