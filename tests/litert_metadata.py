"""LiteRT files with metadata, as TensorFlow Lite's metadata writers make them (metadata_schema.fbs, by hand)."""

import io
import zipfile


def with_metadata(data, mean, std, labels=None, times=1):
    """Attach what images are normalized by, and labels as a zip archive behind the model."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(metadata(mean, std, times))
    entry.name, entry.buffer = "TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    written = io.BytesIO(bytes(builder.Output()))
    if labels:
        with zipfile.ZipFile(written, "a") as archive:
            archive.writestr("labels.txt", "\n".join(labels))
    return written.getvalue()


def metadata(mean, std, times=1):
    """Return a ModelMetadata of one graph with one input."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    units = [_normalization(builder, mean, std) for _ in range(times)]
    image = _table(builder, 8, {4: _vector(builder, units)})
    graph = _table(builder, 8, {2: _vector(builder, [image])})
    builder.Finish(_table(builder, 8, {3: _vector(builder, [graph])}), b"M001")
    return bytes(builder.Output())


def _normalization(builder, mean, std):
    numbers = {}
    for at, values in enumerate((mean, std)):
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(value)
        numbers[at] = builder.EndVector()
    options = _table(builder, 2, numbers)
    builder.StartObject(2)
    builder.PrependUint8Slot(0, 1, 0)  # NormalizationOptions
    builder.PrependUOffsetTRelativeSlot(1, options, 0)
    return builder.EndObject()


def _vector(builder, tables):
    builder.StartVector(4, len(tables), 4)
    for one in reversed(tables):
        builder.PrependUOffsetTRelative(one)
    return builder.EndVector()


def _table(builder, size, fields):
    builder.StartObject(size)
    for slot, value in fields.items():
        builder.PrependUOffsetTRelativeSlot(slot, value, 0)
    return builder.EndObject()
