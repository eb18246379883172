"""Our own exports read back: each carries the module.json of its module, and is that module again.

The weights are the file's own, in ONNX and OpenVINO by the names that the exports give them; what they compute, and
whatever else was known of the module, is what module.json says. Where batch norm is folded into the kernels the exports
carry its vectors besides, so that it can be taken out again: bfloat16 and more training need it.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path

import numpy as np

from mobilenet_hub.architecture import BATCH_NORM_EPSILON, Architecture, ConvUnit, Variant
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_stated, stated
from mobilenet_hub.weights.identify import Source, Wanted, to_module, without_assumed
from mobilenet_hub.weights.kinds import CONVERT_ITS_ORIGIN
from mobilenet_hub.weights.reading import Unusable, array_from, as_float32

CUT = (
    "it was exported with inner layers for its outputs, or changed since; convert the module that it was exported "
    "from, or export that with its own outputs"
)
# What the two are called in the metadata of an export.
STATED, BATCH_NORM, GRAPH = "mobilenet_hub.module", "mobilenet_hub.batch_norm", "mobilenet_hub.graph"


@dataclass(frozen=True)
class Carried:
    """What an export carries: module.json, and batch norm's vectors where they are folded into the kernels."""

    config: ModuleConfig
    batch_norm: Mapping[str, np.ndarray] | None  # float32 by TF-Slim name
    graph: str = ""  # the digest of the graph but for its weights, where these are read by their names


def carried_texts(module: Module, *, folds: bool = True) -> dict[str, str]:
    """Return what the export of a module carries, as texts by name.

    Args:
        module: what is exported.
        folds: whether the format folds batch norm into kernels that can be read back.
    """
    texts = {STATED: stated(module.config)}
    if folds and not module.config.batch_norm_folded:
        vectors = [module.weights[one.name] for unit in module.config.network.units for one in unit.batch_norm]
        texts[BATCH_NORM] = base64.b64encode(np.concatenate(vectors).astype("<f4").tobytes()).decode()
    return texts


def read_carried(texts: Mapping[str, str], file: Path) -> Carried | None:
    """Read what `carried_texts` wrote; None where there is nothing of it.

    Raises:
        InvalidModuleError: it is damaged.
    """
    if STATED not in texts:
        return None
    config = read_stated(texts[STATED], file)
    graph = texts.get(GRAPH, "")
    if BATCH_NORM not in texts:
        return Carried(config, None, graph)
    variables = [one for unit in config.network.units for one in unit.batch_norm]
    try:
        data = base64.b64decode(texts[BATCH_NORM], validate=True)
        count = sum(one.shape[0] for one in variables)
        values = iter(np.split(array_from(data, np.dtype("<f4"), (count,), BATCH_NORM), _ends(variables)))
    except (ValueError, binascii.Error) as error:
        raise InvalidModuleError(f"{file} carries a batch norm that does not fit its network: {error}") from None
    return Carried(config, {one.name: next(values) for one in variables}, graph)


def demand_carried(texts: Mapping[str, str], file: Path, kind: str) -> Carried:
    """Read what `carried_texts` wrote into a format of which only our own files are read.

    Raises:
        InvalidModuleError: others wrote the file, or what it carries is damaged.
    """
    carried = read_carried(texts, file)
    if carried is None:
        raise InvalidModuleError(
            f"{file} is an {kind} that does not carry the description of a module; of {kind.split(maxsplit=1)[0]} only "
            f"files that mobilenet-hub exported are read back: {CONVERT_ITS_ORIGIN}"
        )
    return carried


def _ends(variables: list) -> list[int]:
    return list(np.cumsum([one.shape[0] for one in variables])[:-1])


def from_export(source: Source, carried: Carried, wanted: Wanted) -> Module:
    """Make the module again that an export was made of.

    Args:
        source: what a reader found in the export.
        carried: what the export carries.
        wanted: what the caller demands.

    Raises:
        InvalidModuleError: the weights are no longer those of that module's network, or of another than wanted.
    """
    known = carried.config
    variant = known.variant
    scaling = (source.variant.input_scale, source.variant.input_offset)
    if source.scaled and not np.allclose(scaling, (variant.input_scale, variant.input_offset), rtol=1e-5, atol=1e-6):
        raise InvalidModuleError(
            f"{source.path} scales its images otherwise than the module that it was exported from: it was changed "
            "since; export the module again"
        )
    if source.model is not None:  # a kept file scales by itself, and its images are what it takes
        variant = replace(source.variant, temperature=variant.temperature)
    else:
        epsilon, hidden = source.variant.batch_norm_epsilon, source.variant.hidden_units
        if not source.batch_norm_folded and isclose(epsilon, variant.batch_norm_epsilon, rel_tol=1e-6):
            epsilon = variant.batch_norm_epsilon  # a graph has the nearest float32
        variant = replace(variant, batch_norm_epsilon=epsilon, hidden_units=hidden)
    extra, assumed = without_assumed(known.extra)
    size = source.image_size or known.image_size
    source = replace(source, variant=variant, image_size=size, labels=known.labels, extra=extra)
    source = replace(source, assumed=assumed, module=True)
    module = to_module(source, replace(wanted, depth_multiplier=wanted.depth_multiplier or known.depth_multiplier))
    found = module.config
    if found.architecture != known.architecture or found.num_classes not in (0, known.num_classes):
        raise InvalidModuleError(
            f"{source.path} says that it was exported from {known.architecture} with {known.num_classes} classes, and "
            f"holds {found.architecture} with {found.num_classes}: it was changed since; export the module again"
        )
    if found.batch_norm_folded and carried.batch_norm is not None:
        module = _unfolded(module, known, carried.batch_norm)
    return with_knowledge(module, known if known.source else replace(known, source=found.source), wanted)


def with_knowledge(module: Module, known: ModuleConfig, wanted: Wanted) -> Module:
    """Return a module that was read with what is known of it besides its network and its labels."""
    config = replace(
        module.config,
        handle=wanted.handle or known.handle,
        source=known.source,
        license=known.license,
        trained_on=known.trained_on,
        metrics=known.metrics,
        fit=known.fit,
    )
    return replace(module, config=config)


def _unfolded(module: Module, known: ModuleConfig, batch_norm: Mapping[str, np.ndarray]) -> Module:
    """Take batch norm out of the kernels again, so that folding gives these very kernels; as it is where they changed.

    Of kernels that were rounded since, in float16 say, the nearest float32 are taken.
    """
    epsilon = known.variant.batch_norm_epsilon
    weights = dict(module.weights)
    for unit in module.config.network.units:
        gamma, beta, mean, variance = (batch_norm[one.name].astype(np.float64) for one in unit.batch_norm)
        scale = gamma / np.sqrt(variance + epsilon)
        bias = module.weights[unit.batch_norm[1].name]
        if not np.array_equal((beta - mean * scale).astype(np.float32), bias):
            return module
        weights[unit.kernel.name] = _divided(module.weights[unit.kernel.name], scale, unit)
        weights |= {one.name: batch_norm[one.name] for one in unit.batch_norm}
    variant = replace(module.config.variant, batch_norm_epsilon=epsilon)
    return replace(module, config=replace(module.config, variant=variant, batch_norm_folded=False), weights=weights)


def _divided(folded: np.ndarray, scale: np.ndarray, unit: ConvUnit) -> np.ndarray:
    """Return float32 numbers that times the scales of their outputs give the folded ones, rounded to float32."""
    per_output = np.broadcast_to(scale[:, np.newaxis] if unit.depthwise else scale, folded.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        near = np.where(per_output == 0, 0, folded.astype(np.float64) / per_output).astype(np.float32)
    for side in (np.inf, -np.inf):
        other = np.nextafter(near, np.float32(side))
        better = (_times(near, per_output) != folded) & (_times(other, per_output) == folded)
        near = np.where(better, other, near)
    return near


def _times(kernel: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (kernel.astype(np.float64) * scale).astype(np.float32)


def weight_names(network: Architecture) -> set[str]:
    """Return what our graphs call the constants that hold a network's weights, batch norm folded into them."""
    units = {name for unit in network.units for name in (unit.kernel.name, f"{unit.scope}/bias")}
    return units | {one.name for layer in network.dense for one in layer}


def check_graph(carried: Carried, found: str) -> None:
    """Demand that a graph whose weights are read by their names is the one that was exported.

    Raises:
        Unusable: it was changed since.
    """
    if carried.graph != found:
        raise Unusable(
            "its graph was changed since it was exported, or it is of an older version of mobilenet-hub; convert the "
            "module that it was exported from, or export that again"
        )


def folded_source(file: Path, kind: str, carried: Carried, constants: Mapping[str, np.ndarray]) -> Source:
    """Return what an export holds whose graph has its batch norm folded; the image size is left to the caller.

    Args:
        file: the export.
        kind: what it is.
        carried: what it carries.
        constants: its weights as our graphs name them, channels first.

    Raises:
        Unusable: one is missing.
        ValueError: one has another number of values.
    """
    variant = Variant(hidden_units=carried.config.variant.hidden_units)
    weights = _folded_weights(carried.config.network, constants)
    return Source(file, kind, weights, variant=variant, batch_norm_folded=True, carried=carried)


def _folded_weights(network: Architecture, constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    weights = {}
    for unit in network.units:
        kernel, bias = (_constant(constants, name) for name in (unit.kernel.name, f"{unit.scope}/bias"))
        square = (unit.kernel_size, unit.kernel_size)
        if unit.depthwise:
            kernel = kernel.reshape(unit.in_channels, 1, *square).transpose(2, 3, 0, 1)
        else:
            kernel = kernel.reshape(unit.out_channels, unit.in_channels, *square).transpose(2, 3, 1, 0)
        ones, zeros = np.ones(unit.out_channels), np.zeros(unit.out_channels)
        norm = (ones, bias.reshape(unit.out_channels), zeros, ones - BATCH_NORM_EPSILON)  # so that it divides by 1
        for variable, array in zip((unit.kernel, *unit.batch_norm), (kernel, *norm), strict=True):
            weights[variable.name] = as_float32(array, variable.name)
    for layer in network.dense:
        weights |= {one.name: _constant(constants, one.name).reshape(one.shape) for one in layer}
    return weights


def _constant(constants: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in constants:
        raise Unusable(f"it has no {name}: {CUT}")
    return as_float32(constants[name], name)
