"""For Spark's `DataFrame.mapInArrow`: a column of encoded pictures to features. Spark itself is not imported here."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mobilenet_hub.adapters.encoded import embed_encoded, embedder

if TYPE_CHECKING:
    from pyarrow import RecordBatch

FEATURE_COLUMNS = "features array<float>, reason string"  # what `embed` adds, as Spark writes schemas


def embed(
    module: str | os.PathLike[str] = "starter", *, column: str = "content", threads: int | None = 1
) -> "Callable[[Iterator[RecordBatch]], Iterator[RecordBatch]]":
    """Return what `mapInArrow` takes; each of Spark's Python workers compiles the network once.

    The rows keep their columns but the pictures', in their order, and get `features`, null where the bytes are no
    picture, and `reason`, null or why there is none.

    Args:
        module: a name of a module that every worker can open.
        column: the encoded pictures'; Spark's own reader of binary files calls it "content".
        threads: of each worker.

    Example:
        >>> frame = spark.read.format("binaryFile").load("photos").select("path", "content")  # doctest: +SKIP
        >>> frame.mapInArrow(embed("starter"), f"path string, {FEATURE_COLUMNS}")  # doctest: +SKIP
    """
    name = os.fspath(module)

    def rows(batches: "Iterator[RecordBatch]") -> "Iterator[RecordBatch]":
        import numpy as np
        import pyarrow as pa

        for batch in batches:
            features, reasons = embed_encoded(embedder(name, threads), batch.column(column).to_pylist())
            missing = np.array([reason is not None for reason in reasons], bool)
            offsets = np.concatenate([[0], np.cumsum(np.where(missing, 0, features.shape[1]))]).astype(np.int32)
            lists = pa.ListArray.from_arrays(
                pa.array(offsets), pa.array(features[~missing].ravel(), pa.float32()), mask=pa.array(missing)
            )
            kept = [column_name for column_name in batch.schema.names if column_name != column]
            columns = [*(batch.column(kept_name) for kept_name in kept), lists, pa.array(reasons, pa.string())]
            yield pa.RecordBatch.from_arrays(columns, names=[*kept, "features", "reason"])

    return rows
