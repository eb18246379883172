"""TF1 hub modules and TF2 SavedModels, read without TensorFlow.

Both are a folder with saved_model.pb and variables/; the first has tfhub_module.pb besides. A TF1 checkpoint names its
tensors as TF-Slim does; a TF2 one numbers them, and an object graph in it says which number is which variable. Field
numbers: tensorflow/core/protobuf/{saved_model,meta_graph,saved_object_graph,trackable_object_graph,struct}.proto.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import CorruptFileError
from mobilenet_hub.module_folder import CONFIG_FILE, LABELS_FILE
from mobilenet_hub.weights.identify import Source
from mobilenet_hub.weights.reading import reading
from mobilenet_hub.weights.tensorflow.checkpoint import check_belongs, network_weights
from mobilenet_hub.weights.tensorflow.graph_def import facts_of, image_size_of, nodes_of, shape_of
from mobilenet_hub.weights.tensorflow.object_graph import OBJECT_GRAPH, named_variables
from mobilenet_hub.weights.tensorflow.protobuf import Message
from mobilenet_hub.weights.tensorflow.tensor_bundle import read_bundle

MODEL_FILE, HUB1_FILE, VARIABLES_FILE = "saved_model.pb", "tfhub_module.pb", "variables/variables.index"
EXTRA_FOLDER = "assets.extra"  # where TensorFlow lets a SavedModel keep what it does not read; our exports do
_HUB1_FORMAT = 3  # ModuleDef.FORMAT_V3, tensorflow_hub/module_def.proto
_IMAGE_MODULE_INFO = "image_module_info"
_MAX_DEPTH = 20


def read_saved_model(folder: Path) -> Source:
    """Read a TF1 hub module or a TF2 SavedModel.

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
        facts = facts_of(node for graph in graphs for node in nodes_of(graph.message(2)))
        sizes = {size for graph in graphs for size in _image_sizes(graph)} or {facts.image_size}
        objects = [graph.message(7) for graph in graphs if 7 in graph]
    stated_size, labels = _stated(folder / EXTRA_FOLDER)
    bundle = read_bundle((folder / VARIABLES_FILE).with_suffix(""))
    tensors = {name: value for name, value in bundle.items() if isinstance(value, np.ndarray)}
    if OBJECT_GRAPH in bundle:
        if not objects:
            raise CorruptFileError(f"{file} has no objects, as the weights beside it demand")
        tensors = named_variables(bundle, objects[0], folder)
    else:
        if objects:
            raise CorruptFileError(f"{file} has objects that the weights beside it know nothing of")
        check_belongs(facts.variables, tensors, file)
    with reading(folder, "a MobileNet"):
        weights = network_weights(tensors, folder)
    return Source(
        folder,
        "TF1 hub module" if is_hub1 else "TF2 SavedModel",
        weights,
        stated_size or (sizes.pop() if len(sizes) == 1 else None),
        labels,
        variant=facts.variant,
    )


def _stated(extra: Path) -> tuple[tuple[int, int] | None, tuple[str, ...] | None]:
    """Return the trained image size and the labels that one of our own exports states beside the model."""
    size, labels = None, None
    with reading(extra, "what an export states of its module"):
        if (extra / CONFIG_FILE).is_file():
            height, width = json.loads((extra / CONFIG_FILE).read_text("utf-8"))["image_size"]
            size = int(height), int(width)
        if (extra / LABELS_FILE).is_file():
            labels = tuple((extra / LABELS_FILE).read_text("utf-8").splitlines())
    return size, labels


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
    for function in graph.message(7).map(2).values():
        shapes.extend(_spec_shapes(function.message(3)))
    yield from filter(None, map(image_size_of, shapes))


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
