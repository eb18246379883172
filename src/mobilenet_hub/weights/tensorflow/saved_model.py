"""TF1 hub modules and TF2 SavedModels, read without TensorFlow.

Both are a folder with saved_model.pb and variables/; the first has tfhub_module.pb besides. A TF1 checkpoint names its
tensors as TF-Slim does; a TF2 one numbers them, and an object graph in it says which number is which variable. Field
numbers: tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph,trackable_object_graph,struct}.proto.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import CorruptFileError
from mobilenet_hub.module_folder import CONFIG_FILE, LABELS_FILE
from mobilenet_hub.weights.exported import STATED, Carried, read_carried
from mobilenet_hub.weights.identify import Found, Source, assumed_of_weights, to_source
from mobilenet_hub.weights.operations import as_found, recognize
from mobilenet_hub.weights.reading import Unusable, reading
from mobilenet_hub.weights.tensorflow.checkpoint import check_belongs, network_weights
from mobilenet_hub.weights.tensorflow.graph_def import (
    CONVOLUTIONS,
    facts_of,
    image_size_of,
    nodes_of,
    shape_of,
    variant_of,
)
from mobilenet_hub.weights.tensorflow.graph_operations import TensorFlowGraph
from mobilenet_hub.weights.tensorflow.object_graph import OBJECT_GRAPH, Tensors, full_names, named_variables
from mobilenet_hub.weights.tensorflow.protobuf import Message
from mobilenet_hub.weights.tensorflow.saved_functions import traces
from mobilenet_hub.weights.tensorflow.tensor_bundle import read_bundle
from mobilenet_hub.weights.tensorflow.variables import Variables, restored_variables

MODEL_FILE, HUB1_FILE, VARIABLES_FILE = "saved_model.pb", "tfhub_module.pb", "variables/variables.index"
EXTRA_FOLDER = "assets.extra"  # where TensorFlow lets a SavedModel keep what it does not read; our exports do
_HUB1_FORMAT = 3  # ModuleDef.FORMAT_V3, tensorflow_hub/module_def.proto
_IMAGE_MODULE_INFO = "image_module_info"
_MAX_DEPTH = 20
_SIGNATURES = ("serving_default", "default", "serve", "predict")


def read_saved_model(folder: Path, given: tuple[int, int] | None = None) -> Source:
    """Read a TF1 hub module or a TF2 SavedModel.

    Args:
        folder: the folder.
        given: (height, width) of the images, where the caller says it; it matters where the file does not.

    Raises:
        CorruptFileError: a file is missing, damaged, cut off, or belongs to another model; names it and the tensor.
        InvalidModuleError: it holds something else than a float MobileNet.
    """
    file = folder / MODEL_FILE
    is_hub1 = (folder / HUB1_FILE).is_file()
    if is_hub1:
        with reading(folder / HUB1_FILE, "a hub module's description"):
            if (form := Message((folder / HUB1_FILE).read_bytes()).number(1)) != _HUB1_FORMAT:
                raise ValueError(f"it says format {form}, not {_HUB1_FORMAT}")
    with reading(file, "a SavedModel"):
        graphs = Message(file.read_bytes()).messages(2)
        if not graphs:
            raise ValueError("it has no graph")
        nodes = [node for graph in graphs for node in nodes_of(graph.message(2))]
        facts = facts_of(nodes)
        sizes = {size for graph in graphs for size in _image_sizes(graph)} or {facts.image_size}
        objects = [graph.message(7) for graph in graphs if 7 in graph]
    stated_size, labels, carried = _stated(folder / EXTRA_FOLDER)
    bundle = read_bundle((folder / VARIABLES_FILE).with_suffix(""))
    tensors = {name: value for name, value in bundle.items() if isinstance(value, np.ndarray)}
    variables = tensors
    if OBJECT_GRAPH in bundle:
        with reading(folder, "a SavedModel"):
            variables = full_names(bundle)
    elif objects:
        raise CorruptFileError(f"{file} has objects that the weights beside it know nothing of")
    else:
        check_belongs(facts.variables, tensors, file)
    kind = "TF1 hub module" if is_hub1 else "TF2 SavedModel" if objects else "SavedModel"
    size = stated_size or (sizes.pop() if len(sizes) == 1 else None)
    with reading(folder, "a SavedModel of a MobileNet"):
        found = _followed(graphs, variables, bundle, size or given) or _called(graphs, bundle, size or given)
        if found:
            # What a hub module, or an export of ours, takes is written in its description: images in [0, 1].
            fed = (1.0, 0.0) if is_hub1 or stated_size is not None else None
            found = replace(found, labels=labels, image_size=size)
            return replace(to_source(folder, kind, found, fed), carried=carried)
        if OBJECT_GRAPH in bundle and not objects:
            raise CorruptFileError(f"{file} has no objects, as the weights beside it demand")
        if any(node.op in CONVOLUTIONS for node in nodes):
            raise Unusable("it has neither a signature that serves nor a function to call, only graphs in it")
        tensors = named_variables(bundle, objects[0], folder) if objects else tensors
        weights = network_weights(tensors, folder)
        assumed = assumed_of_weights("TF-Slim's", pixels=False)
        return Source(folder, kind, weights, size, labels, variant_of(nodes), assumed=assumed, carried=carried)


def _followed(
    graphs: list[Message], variables: dict[str, np.ndarray], tensors: Tensors, size: tuple[int, int] | None
) -> Found | None:
    """Follow the signature that serves from its images to its output; None where a model has none with an output."""
    serving = [graph for graph in graphs if "train" not in graph.message(1).texts(4)]
    for graph in serving or graphs:
        ends = _ends(graph.map(5))
        if ends is None:
            continue
        followed = TensorFlowGraph(graph.message(2), Variables(variables, restored_variables(graph, tensors)))
        start, end = map(followed.tensor, ends)
        operations = followed.operations(end)
        found = recognize(operations, start, end, size)
        return as_found(found, size, (start[0], *(one.name for one in operations)))
    return None


def _called(graphs: list[Message], bundle: Tensors, size: tuple[int, int] | None) -> Found | None:
    """Follow the function that a model without a signature is called by; None where it has none."""
    objects = [graph for graph in graphs if 7 in graph]
    refused: Unusable | None = None
    for traced in traces(objects[0].message(2), objects[0].message(7), bundle) if objects else ():
        try:
            operations = traced.graph.operations(traced.end)
            found = recognize(operations, traced.start, traced.end, size)
            return as_found(found, size, tuple(one.name for one in operations))
        except Unusable as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return None


def _ends(signatures: dict[str, Message]) -> tuple[str, str] | None:
    """Return the tensors of a signature's images and of its output."""
    ends = {
        name: tuple({key: info.text(1) for key, info in one.map(field).items()} for field in (1, 2))
        for name, one in signatures.items()
    }
    usable = [name for name, (inputs, outputs) in ends.items() if inputs and any(outputs.values())]
    if not usable:
        return None
    chosen = next((name for name in _SIGNATURES if name in usable), None)
    if chosen is None and len(usable) > 1:
        raise Unusable(f"it has the signatures {', '.join(usable)}, and none is called {_SIGNATURES[0]}")
    inputs, outputs = ends[chosen or usable[0]]
    if len(inputs) != 1 or (len(outputs) != 1 and "default" not in outputs):
        raise Unusable(f"it takes {', '.join(inputs)} and gives {', '.join(outputs)}, where a module has one of each")
    return next(iter(inputs.values())), outputs.get("default") or next(iter(outputs.values()))


def _stated(extra: Path) -> tuple[tuple[int, int] | None, tuple[str, ...] | None, Carried | None]:
    """Return the trained image size and the labels that an export states beside the model, and what ours carry."""
    size, labels, carried = None, None, None
    with reading(extra, "what an export states of its module"):
        if (extra / CONFIG_FILE).is_file():
            text = (extra / CONFIG_FILE).read_text("utf-8")
            stated = json.loads(text)
            height, width = stated["image_size"]
            size = int(height), int(width)
            carried = read_carried({STATED: text}, extra / CONFIG_FILE) if "format" in stated else None
        if (extra / LABELS_FILE).is_file():
            labels = tuple((extra / LABELS_FILE).read_text("utf-8").splitlines())
    return size, labels, carried


def _image_sizes(graph: Message) -> Iterator[tuple[int, int]]:
    """Yield what one MetaGraphDef says of the image size: its attached ImageModuleInfo, else its inputs' shapes."""
    collection = graph.map(4).get("hub_module_attachments")
    attachments = [Message(value) for value in collection.message(2).all_bytes(1)] if collection else []
    for attachment in attachments:
        if attachment.text(1) == _IMAGE_MODULE_INFO:
            size = attachment.message(2).message(1)
            if size.number(1) and size.number(2):
                yield size.number(1), size.number(2)
                return
    shapes = [
        shape_of(tensor.message(3)) for signature in graph.map(5).values() for tensor in signature.map(1).values()
    ]
    if signed := [size for size in map(image_size_of, shapes) if size]:
        yield from signed
        return
    # Keras saves functions of single layers, too: images that are padded are no larger images.
    for function in graph.message(7).map(2).values():
        yield from filter(None, map(image_size_of, _spec_shapes(function.message(3))))


def _spec_shapes(value: Message, depth: int = 0) -> Iterator[tuple[int, ...] | None]:
    """Yield the shapes of the tensors in a StructuredValue: the arguments that a function was traced with."""
    if depth > _MAX_DEPTH:
        raise ValueError("its signatures nest too deep")
    if 33 in value:
        yield shape_of(value.message(33).message(2))
    for field in (51, 52):  # list_value, tuple_value
        for item in value.message(field).messages(1):
            yield from _spec_shapes(item, depth + 1)
    for item in value.message(53).map(1).values():  # dict_value
        yield from _spec_shapes(item, depth + 1)
