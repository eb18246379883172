"""TensorFlow.js models: layers models, Teachable Machine's projects among them, and graph models.

A model is model.json, with its configuration and a list of its weights, and the files of bytes that the list names.
A Teachable Machine project has metadata.json besides, with its labels; its networks saw pixels as x / 127 - 1
(teachablemachine-community, libraries/image/src/utils/tf.ts).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.weights.identify import Source, to_source
from mobilenet_hub.weights.keras_network import read_network
from mobilenet_hub.weights.keras_weights import Arrays
from mobilenet_hub.weights.kinds import refuse_stand_in
from mobilenet_hub.weights.pixels import TEACHABLE_MACHINE_SCALE
from mobilenet_hub.weights.reading import array_from, reading
from mobilenet_hub.weights.tfjs_graph import read_graph_model

MODEL_FILE, METADATA_FILE = "model.json", "metadata.json"
_TEACHABLE_MACHINE = "@teachablemachine/image"
_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}
_QUANTIZED = {"uint8": "u1", "uint16": "<u2", "float16": "<f2"}


def read_tfjs(file: Path, size: tuple[int, int] | None = None) -> Source:
    """Read a model from its model.json, with the labels and the scaling of Teachable Machine's projects.

    Args:
        file: model.json.
        size: (height, width) that the caller gives, for models that do not say it.

    Raises:
        CorruptFileError: a file is damaged, cut off or of another model, or the model is no MobileNet; says which.
    """
    with reading(file, "a TensorFlow.js model of a MobileNet"):
        model = _json(file)
        topology = model.get("modelTopology")
        if not isinstance(topology, dict):
            raise ValueError("it has no modelTopology")
        weights = _read_weights(model.get("weightsManifest"), file.parent)
        if model.get("format") == "graph-model" or "node" in topology:
            return to_source(file, "TensorFlow.js graph model", read_graph_model(model, weights, size))
        found = read_network(_by_layer(weights), topology.get("model_config", topology), size)
        source = to_source(file, "TensorFlow.js layers model", found)
    labels = _read_metadata(file.with_name(METADATA_FILE))
    if labels is None:
        return source
    if found.scaling is None:
        source = replace(source, variant=replace(source.variant, input_scale=TEACHABLE_MACHINE_SCALE))
    return replace(source, labels=labels)


def is_tfjs(file: Path) -> bool:
    """Tell whether a JSON file is a TensorFlow.js model, whatever it is called."""
    try:
        return isinstance(_json(file).get("weightsManifest"), list)
    except (OSError, ValueError, RecursionError):
        return False


def _json(file: Path) -> dict[str, Any]:
    value = json.loads(file.read_text("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def _read_metadata(file: Path) -> tuple[str, ...] | None:
    if not file.is_file():
        return None
    with reading(file, "the description of a Teachable Machine project"):
        data = _json(file)
        if "packageName" not in data:
            return None  # somebody else's
        if data["packageName"] != _TEACHABLE_MACHINE:
            raise ValueError(f"it describes a project of {data.get('packageName')!r}, not of images")
        if data.get("grayscale"):
            raise ValueError("its network takes gray images, which a module cannot")
        labels = data.get("labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise ValueError("it has no list of labels")
        return tuple(" ".join(label.split()) for label in labels)


def _by_layer(weights: Mapping[str, np.ndarray]) -> Mapping[str, Arrays]:
    """Return weights grouped by layer, in the order of the manifest."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for name, array in weights.items():
        layer, _, leaf = name.rpartition("/")
        layers.setdefault(layer, {})[leaf] = array
    return layers


def _read_weights(manifest: Any, folder: Path) -> Mapping[str, np.ndarray]:
    """Read the weights by name, in the order of the manifest."""
    if not isinstance(manifest, list):
        raise ValueError("it has no list of weights")
    weights: dict[str, np.ndarray] = {}
    paths = [path for group in manifest for path in group["paths"]]
    if len(paths) != len(set(map(str, paths))):
        raise ValueError("one of its files of weights is named twice")
    for group in manifest:
        data = memoryview(b"".join(_read_shard(folder, path) for path in group["paths"]))
        at = 0
        for entry in group["weights"]:
            name, dtype = entry["name"], _stored_dtype(entry)
            shape = tuple(int(size) for size in entry["shape"])
            count = prod(shape) * dtype.itemsize
            if min(shape, default=1) < 0 or count > len(data) - at:
                raise ValueError(
                    f"{name} of shape {list(shape)} does not fit the {len(data)} bytes of {group['paths']}"
                )
            array = array_from(data[at : at + count], dtype, shape, name)
            at += count
            if name in weights:
                raise ValueError(f"{name} occurs twice")
            weights[name] = _plain(array, entry.get("quantization"))
        if at != len(data):
            raise ValueError(f"{group['paths']} have {len(data)} bytes; {at} are announced")
    return weights


def _read_shard(folder: Path, path: Any) -> bytes:
    if not isinstance(path, str) or Path(path).name != path:
        raise ValueError(f"its weights are said to lie in {path!r}, not beside it")
    refuse_stand_in(folder / path)
    return (folder / path).read_bytes()


def _stored_dtype(entry: dict[str, Any]) -> np.dtype:
    quantization = entry.get("quantization")
    known = _QUANTIZED if quantization else _DTYPES
    name = (quantization or entry)["dtype"]
    if name not in known:
        raise ValueError(f"{entry['name']} is stored as {name}")
    return np.dtype(known[name])


def _plain(array: np.ndarray, quantization: dict[str, Any] | None) -> np.ndarray:
    """Return weights as TensorFlow.js computes with them: small integers times scale plus minimum, in float32."""
    if not quantization or array.dtype.kind == "f":
        return array
    return array.astype(np.float32) * np.float32(quantization["scale"]) + np.float32(quantization["min"])
