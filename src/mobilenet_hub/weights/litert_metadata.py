"""What a LiteRT file's metadata say of its images: the mean and the deviation that pixels are normalized by.

Field numbers: tensorflow/lite/schema/metadata_schema.fbs. What they mean: (pixel - mean) / std for each colour, for
inputs of floats (tensorflow.org/lite/models/convert/metadata, "Normalization and quantization parameters").
"""

from collections.abc import Iterator

import numpy as np

from mobilenet_hub.weights.flatbuffer import Table
from mobilenet_hub.weights.reading import Unusable

METADATA = "TFLITE_METADATA"  # the entry's name
NORMALIZATION = 1  # of union ProcessUnitOptions
_COLOURS = 3


def entries_of(data: bytes) -> Iterator[tuple[bytes, Table]]:
    """Yield the name of each of a file's metadata, ours and others', and the Buffer whose field 0 is its content.

    Raises:
        ValueError: the file is damaged.
    """
    model = Table.root(data)
    buffers = model.tables(4)
    for entry in model.tables(6):
        at = entry.number(1, "I")
        if at < len(buffers):
            yield bytes(entry.bytes(0)), buffers[at]


def scaling_of_metadata(data: bytes) -> tuple[float, float] | None:
    """Return the scale and offset that take images in [0, 1] to what a file's metadata say that it is given.

    Args:
        data: the file's content.

    Returns:
        None where there are no metadata, or they say nothing of it.

    Raises:
        Unusable: each colour has its own, or they are several.
        ValueError: the metadata are damaged.
    """
    buffer = next((buffer for name, buffer in entries_of(data) if name == METADATA.encode()), None)
    if buffer is None or not len(content := buffer.bytes(0)):
        return None
    images = [one for graph in Table.root(content).tables(3)[:1] for one in graph.tables(2)[:1]]
    units = [unit for image in images for unit in image.tables(4) if unit.number(0, "B") == NORMALIZATION]
    options = [found for unit in units if (found := unit.table(1)) is not None]
    if not options:
        return None
    if len(options) > 1:
        raise Unusable(f"its metadata normalize the images {len(options)} times")
    mean, deviation = (np.array(options[0].numbers(field, "f"), np.float64) for field in (0, 1))
    if not len(mean) and not len(deviation):
        return None
    if {len(mean), len(deviation)} - {1, _COLOURS} or not np.isfinite([*mean, *deviation]).all() or min(deviation) <= 0:
        raise ValueError(f"its metadata normalize by the means {mean.tolist()} and deviations {deviation.tolist()}")
    if len(np.unique(mean)) > 1 or len(np.unique(deviation)) > 1:
        raise Unusable(
            f"its metadata scale the colours differently, by the means {mean.tolist()} and deviations "
            f"{deviation.tolist()}, which a module cannot"
        )
    return 255 / float(deviation[0]), -float(mean[0]) / float(deviation[0])
