"""OpenVINO's IR that was exported by us: the .xml as text, the weights in the .bin beside it; no OpenVINO is needed."""

from collections.abc import Set
from copy import deepcopy
from dataclasses import replace
from hashlib import sha256
from math import prod
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mobilenet_hub.errors import CorruptFileError
from mobilenet_hub.weights.exported import check_graph, demand_carried, folded_source, weight_names
from mobilenet_hub.weights.identify import Source
from mobilenet_hub.weights.reading import Unusable, array_from, reading

_TYPES = {"f32": np.dtype("<f4"), "f16": np.dtype("<f2")}
_CONVOLUTIONS = ("Convolution", "GroupConvolution")


def read_openvino(file: Path) -> Source:
    """Read the .xml, and the .bin beside it, that `mobilenet export --format openvino` wrote.

    Raises:
        CorruptFileError: a file is damaged or missing; says where.
        InvalidModuleError: others wrote it, or it was changed.
    """
    with reading(file, "an OpenVINO IR exported by mobilenet-hub"):
        net = net_of(file)
        texts = {one.tag: one.get("value", "") for one in net.findall("rt_info/*")}
        carried = demand_carried(texts, file, "OpenVINO IR")
        data, layers = constants_of(file), net.findall("layers/layer")
        if sum(layer.get("type") in _CONVOLUTIONS for layer in layers) > len(carried.config.network.units):
            raise Unusable("it has more convolutions than it was exported with; export the module again")
        check_graph(carried, graph_digest(net, data, weight_names(carried.config.network)))
        source = folded_source(file, "OpenVINO export", carried, _constants(layers, data))
        shapes = [_shape(layer) for layer in layers if layer.get("type") == "Parameter"]
        if len(shapes) == 1 and len(shapes[0]) == 4 and min(shapes[0][1:3]) > 0:
            source = replace(source, image_size=shapes[0][1:3])
        return source


def net_of(file: Path) -> ElementTree.Element:
    """Return the network of an .xml.

    Raises:
        ValueError: it is damaged.
    """
    text = file.read_bytes()
    if b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise ValueError("it has definitions of its own, which an IR has not")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None


def constants_of(file: Path) -> memoryview:
    """Return the constants of an .xml, in the .bin beside it.

    Raises:
        CorruptFileError: it is missing.
    """
    constants = file.with_suffix(".bin")
    if not constants.is_file():
        raise CorruptFileError(f"{constants} is missing: it holds the weights of the .xml beside it")
    return memoryview(constants.read_bytes())


def graph_digest(net: ElementTree.Element, data: memoryview, weights: Set[str]) -> str:
    """Return a digest of what an IR computes, whatever the weights of these names are."""
    digest = sha256()
    for layer in net.findall("layers/layer"):
        about = deepcopy(layer)
        if layer.get("type") == "Const":
            place = _about(about)
            start, size = int(place.pop("offset")), int(place["size"])  # where a constant stands says nothing
            if layer.get("name") not in weights:
                digest.update(sha256(data[start : start + size]).digest())
        digest.update(ElementTree.tostring(about))
    for edge in net.findall("edges/edge"):
        digest.update(ElementTree.tostring(edge))
    return digest.hexdigest()


def _constants(layers: list[ElementTree.Element], data: memoryview) -> dict[str, np.ndarray]:
    """Return the weights by name."""
    found = {}
    for layer in layers:
        name = layer.get("name", "")
        if layer.get("type") != "Const" or "/" not in name:
            continue
        about = _about(layer)
        kind, start, size = about.get("element_type", ""), int(about["offset"]), int(about["size"])
        if kind not in _TYPES:
            raise Unusable(f"{name} is stored as {kind}: it was changed since it was exported")
        shape = _shape(layer)
        if min(start, size) < 0 or size != prod(shape) * _TYPES[kind].itemsize:
            raise ValueError(f"{name} has {size} bytes for shape {list(shape)}")
        found[name] = array_from(data[start : start + size], _TYPES[kind], shape, name)
    return found


def _about(layer: ElementTree.Element) -> dict[str, str]:
    data = layer.find("data")
    if data is None:
        raise ValueError(f"its layer {layer.get('name')} has no data")
    return data.attrib


def _shape(layer: ElementTree.Element) -> tuple[int, ...]:
    text = _about(layer)["shape"]
    return tuple(-1 if one.strip() == "?" else int(one) for one in text.split(",")) if text else ()
