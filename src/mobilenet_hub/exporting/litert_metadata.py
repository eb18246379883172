"""What a LiteRT file says of itself: the TFLite metadata that Android's and MediaPipe's task libraries read.

A flatbuffer of tflite-support's metadata_schema.fbs lies in a buffer of the model, named TFLITE_METADATA; the files
that it speaks of are appended as a zip archive, which interpreters ignore. That package is not maintained, so the few
tables that are needed are written here, field by field.
"""

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mobilenet_hub.exporting.formats import PROBABILITIES
from mobilenet_hub.exporting.request import Request
from mobilenet_hub.inference.graph import INPUT
from mobilenet_hub.inference.litert_model import aligned_buffer
from mobilenet_hub.module_folder import LABELS_FILE
from mobilenet_hub.weights.litert_metadata import METADATA, NORMALIZATION

# metadata_schema.fbs: identifier and version, and members of its enums and unions.
_IDENTIFIER, _PARSER = b"M001", "1.0.0"
_IMAGE_PROPERTIES, _RGB, _AXIS_LABELS = 2, 1, 2

# A field of a table: its number, and either an offset in the builder or a small number.
_Field = tuple[int, int] | tuple[int, int, str]


def add_metadata(model: bytes, request: Request) -> bytes:
    """Return a model with its metadata in it.

    Args:
        model: what the converter gave.
        request: what was exported.
    """
    import flatbuffers

    schema = _schema()
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(model, 0))
    graph = tree.subgraphs[0]
    names = {output.tensorIndex: output.name.decode() for output in tree.signatureDefs[0].outputs}
    contents = {
        METADATA: _metadata(request, [names[index] for index in graph.outputs]),
        **{key: text.encode() for key, text in request.carried.items()},
    }
    tree.metadata = tree.metadata or []
    for name, content in contents.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data, entry.name, entry.buffer = content, name, len(tree.buffers)
        tree.buffers.append(buffer)
        tree.metadata.append(entry)
    tree.buffers = [  # the schema's own way of writing them leaves them where they fall
        one if one.data is None else aligned_buffer(schema, bytes(bytearray(one.data))) for one in tree.buffers
    ]
    builder = flatbuffers.Builder(len(model) + 4096)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def attach_labels(file: Path, labels: Sequence[str]) -> None:
    """Append the labels to the file, as the metadata says: an archive of labels.txt, one label a line."""
    with zipfile.ZipFile(file, "a") as archive:
        # ZipInfo's fixed date keeps the export reproducible.
        archive.writestr(zipfile.ZipInfo(LABELS_FILE), "".join(f"{label}\n" for label in labels))


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        from tensorflow.lite.python import schema_py_generated
    return schema_py_generated


def _metadata(request: Request, outputs: Sequence[str]) -> bytes:
    """Return the ModelMetadata; the outputs in the order of the model's own."""
    import flatbuffers

    b = flatbuffers.Builder(1024)
    inputs = _offsets(b, [_image(b, request)])
    results = _offsets(b, [_output(b, name, request) for name in outputs])
    graph = _table(b, [(2, inputs), (3, results)])
    fields = [
        (0, b.CreateString(request.config.architecture)),
        (1, b.CreateString(f"{request.contract.name}, exported by mobilenet-hub")),
        (3, _offsets(b, [graph])),
        (7, b.CreateString(_PARSER)),
    ]
    if request.config.license:
        fields.append((5, b.CreateString(str(request.config.license))))
    b.Finish(_table(b, fields), _IDENTIFIER)
    return bytes(b.Output())


def _image(b: Any, request: Request) -> int:
    """Write the input's TensorMetadata: RGB, and what takes 0..255 to what the tensor takes before quantization."""
    properties = _table(b, [(0, _RGB, "Int8")])
    content = _table(b, [(0, _IMAGE_PROPERTIES, "Uint8"), (1, properties)])
    takes_pixels = request.uint8_input and request.precision != "int8"
    largest = 255.0 if takes_pixels else 1.0
    normalization = _table(b, [(0, _floats(b, [0.0])), (1, _floats(b, [255.0 / largest]))])
    unit = _table(b, [(0, NORMALIZATION, "Uint8"), (1, normalization)])
    stats = _table(b, [(0, _floats(b, [largest])), (1, _floats(b, [0.0]))])
    name = b.CreateString(INPUT)
    return _table(b, [(0, name), (3, content), (4, _offsets(b, [unit])), (5, stats)])


def _output(b: Any, name: str, request: Request) -> int:
    """Write an output's TensorMetadata, with the labels where it has a value for each."""
    fields: list[_Field] = [(0, b.CreateString(name))]
    if request.config.labels and name.lower() in ("logits", "predictions", PROBABILITIES):
        file = _table(b, [(0, b.CreateString(LABELS_FILE)), (2, _AXIS_LABELS, "Int8")])
        fields.append((6, _offsets(b, [file])))
    return _table(b, fields)


def _table(b: Any, fields: Sequence[_Field]) -> int:
    b.StartObject(1 + max(field[0] for field in fields))
    for field in fields:
        if len(field) == 3:
            getattr(b, f"Prepend{field[2]}Slot")(field[0], field[1], 0)
        else:
            b.PrependUOffsetTRelativeSlot(field[0], field[1], 0)
    return b.EndObject()


def _offsets(b: Any, tables: Sequence[int]) -> int:
    return _vector(b, tables, b.PrependUOffsetTRelative)


def _floats(b: Any, values: Sequence[float]) -> int:
    return _vector(b, values, b.PrependFloat32)


def _vector(b: Any, values: Sequence[Any], prepend: Callable[[Any], None]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        prepend(value)
    return b.EndVector()
