"""The rows that a batch becomes: features, or labels with scores. pyarrow on first use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.host.files import printable
from mobilenet_hub.images.batches import Batch

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch, Schema


LABEL_COLUMNS = ("path", "label", "score", "index")


@dataclass(frozen=True)
class Rows:
    """What the rows of a table hold, and how they are made of a batch."""

    output: str  # the engine's output that they are made of: "features" or "logits"
    schema: "Schema"
    make: Callable[[Batch, np.ndarray], "RecordBatch"]


def feature_rows(num_features: int, *, half: bool = False) -> Rows:
    """Return rows of path, width, height and features, a fixed-size list of float32, or float16 if `half`."""
    import pyarrow as pa

    number, dtype = (pa.float16(), np.float16) if half else (pa.float32(), np.float32)
    schema = pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("features", pa.list_(pa.field("element", number, nullable=False), num_features), nullable=False),
        ]
    )

    def make(batch: Batch, features: np.ndarray) -> "RecordBatch":
        values = pa.array(features.astype(dtype, copy=False).ravel())  # shares the memory
        heights, widths = np.array(batch.sizes, np.int32).reshape(-1, 2).T
        lists = pa.FixedSizeListArray.from_arrays(values, type=schema.field("features").type)
        return pa.RecordBatch.from_arrays([_paths(batch), pa.array(widths), pa.array(heights), lists], schema=schema)

    return Rows("features", schema, make)


def dtype_of(features: "DataType") -> np.dtype:
    """Return NumPy's type of the numbers that a column of lists holds, without pandas, which pyarrow's own way takes.

    Raises:
        AttributeError: it is no column of lists.

    Example:
        >>> import pyarrow as pa
        >>> dtype_of(pa.list_(pa.float16(), 3))
        dtype('float16')
    """
    import pyarrow as pa

    return pa.array([], features.value_type).to_numpy(zero_copy_only=False).dtype


def label_rows(
    labels: Sequence[str], top: int, scores_of: Callable[[np.ndarray], np.ndarray], min_score: float = 0.0
) -> Rows:
    """Return rows of path, label, score and index: values for top 1, lists for more, the likeliest first.

    Scores below `min_score` are not believed: lists lack them; a single label is empty then, its index -1.

    Args:
        labels: a label for each class.
        top: how many classes of each photo.
        scores_of: makes scores of logits: `Engine.scores`.
        min_score: the least score that is believed.
    """
    import pyarrow as pa

    from mobilenet_hub.inference.probabilities import likeliest

    def of(kind: pa.DataType) -> pa.DataType:
        return kind if top == 1 else pa.list_(pa.field("element", kind, nullable=False))

    kinds = (pa.string(), of(pa.string()), of(pa.float64()), of(pa.int32()))
    schema = pa.schema([pa.field(n, kind, nullable=False) for n, kind in zip(LABEL_COLUMNS, kinds, strict=True)])

    def make(batch: Batch, logits: np.ndarray) -> "RecordBatch":
        indices, scores = likeliest(scores_of(logits), top, logits)
        if top == 1:
            indices, scores = indices[:, 0], scores[:, 0]
        named = np.array(labels, object)[indices]
        values = [named.tolist(), scores.tolist(), indices.tolist()]
        if min_score > 0 and top == 1:
            sure = scores >= min_score
            values = [np.where(sure, named, "").tolist(), values[1], np.where(sure, indices, -1).tolist()]
        elif min_score > 0:
            counts = (scores >= min_score).sum(axis=1)
            values = [[row[:count] for row, count in zip(rows, counts, strict=True)] for rows in values]
        columns = [
            pa.array(value, schema.field(name).type) for name, value in zip(LABEL_COLUMNS[1:], values, strict=True)
        ]
        return pa.RecordBatch.from_arrays([_paths(batch), *columns], schema=schema)

    return Rows("logits", schema, make)


def _paths(batch: Batch) -> Any:
    import pyarrow as pa

    return pa.array([printable(key) for key in batch.keys], pa.string())
