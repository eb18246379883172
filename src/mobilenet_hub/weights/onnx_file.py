"""ONNX files that were exported by us, read without the onnx package.

Field numbers: onnx/onnx.proto.
"""

from collections.abc import Set
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from mobilenet_hub.weights.exported import check_graph, demand_carried, folded_source, weight_names
from mobilenet_hub.weights.identify import Source
from mobilenet_hub.weights.reading import Unusable, array_from, reading
from mobilenet_hub.weights.tensorflow.protobuf import Message, varints

_TYPES = {1: np.dtype("<f4"), 10: np.dtype("<f2")}  # TensorProto.DataType
_PROPERTIES, _GRAPH, _NODE, _INITIALIZER, _INPUT, _OUTPUT = 14, 7, 1, 5, 11, 12
_EXTERNAL = 14  # TensorProto.data_location


def read_onnx(file: Path) -> Source:
    """Read a file that `mobilenet export --format onnx` wrote.

    Raises:
        CorruptFileError: the file is damaged; says where.
        InvalidModuleError: others wrote it, or it was changed.
    """
    with reading(file, "an ONNX file exported by mobilenet-hub"):
        model = Message(file.read_bytes())
        texts = {one.text(1): one.text(2) for one in model.messages(_PROPERTIES)}
        carried = demand_carried(texts, file, "ONNX file")
        graph = model.message(_GRAPH)
        tensors = {tensor.text(8): tensor for tensor in graph.messages(_INITIALIZER)}
        kernels = [node.texts(1)[1] for node in graph.messages(_NODE) if node.text(4) == "Conv" and 1 in node]
        names = [unit.kernel.name for unit in carried.config.network.units]
        if kernels != names[: len(kernels)]:
            raise Unusable("its convolutions are others than it was exported with; export the module again")
        check_graph(carried, graph_digest(model, weight_names(carried.config.network)))
        constants = {name: _array(tensor, name) for name, tensor in tensors.items() if "/" in name}
        source = folded_source(file, "ONNX export", carried, constants)
        return _sized(source, graph)


def graph_digest(model: Message, weights: Set[str]) -> str:
    """Return a digest of what a model computes, whatever the weights of these names are."""
    graph, digest = model.message(_GRAPH), sha256()
    others = [data for data in graph.all_bytes(_INITIALIZER) if Message(data).text(8) not in weights]
    for part in (*graph.all_bytes(_NODE), *others, *graph.all_bytes(_INPUT), *graph.all_bytes(_OUTPUT)):
        digest.update(sha256(part).digest())
    return digest.hexdigest()


def _array(tensor: Message, name: str) -> np.ndarray:
    kind = tensor.number(2)
    if kind not in _TYPES or tensor.number(_EXTERNAL):
        raise Unusable(f"{name} is stored as type {kind} or outside of the file: it was changed since it was exported")
    shape = tuple(varints(tensor, 1))
    return array_from(tensor.bytes(9), _TYPES[kind], shape, name)


def _sized(source: Source, graph: Message) -> Source:
    """Take the image size from the input where it is fixed: [batch, height, width, 3]."""
    for value in graph.messages(_INPUT):
        dimensions = value.message(2).message(1).message(2).messages(1)
        if len(dimensions) == 4 and dimensions[1].signed(1) > 0 and dimensions[2].signed(1) > 0:
            return replace(source, image_size=(dimensions[1].signed(1), dimensions[2].signed(1)))
    return source
