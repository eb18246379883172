"""Photos to features, with what else is seen of each picture in passing: its hash, its light, its sharpness."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.bulk.manifest import SKIPPED_FILE, read_skipped
from mobilenet_hub.host.progress import OnProgress, Stage
from mobilenet_hub.search.features import Features
from mobilenet_hub.search.hashes import hashes_of

if TYPE_CHECKING:
    from mobilenet_hub.bulk.rows import Rows

HASH_COLUMNS = ("hash", "mirrored_hash")
LOOK_COLUMNS = ("shadows", "lights", "contrast", "sharpness")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601
_SHADOWS, _LIGHTS = 5, 95  # percentiles of a picture's gray values


def embed_photos(
    inputs: Sequence[Any], folder: Path, module: str | os.PathLike[str], threads: int | None, on_progress: OnProgress
) -> tuple[tuple[tuple[str, str], ...], Mapping[str, int]]:
    """Write features of photos, with hashes and looks, as `embed` does.

    Returns:
        (name, reason) of each that is no photo; and how many files were passed over as no pictures, by suffix.

    Raises:
        InputError, OutputError: as for `bulk.run.write`.
    """
    from mobilenet_hub.bulk.run import write
    from mobilenet_hub.images.inputs import count
    from mobilenet_hub.inference.embed import Embedder
    from mobilenet_hub.store import locate, weights_sha256

    found = locate(module)
    embedder = Embedder(found, threads=threads)
    about = {
        "command": "dedupe",
        "module": os.fspath(module),
        "weights_sha256": weights_sha256(found),
        "image_size": list(embedder.image_size),
        "precision": embedder.precision,
    }
    total = count(inputs)
    folder.parent.mkdir(parents=True, exist_ok=True)

    def report(_: str, done: int, __: int | None) -> None:
        on_progress(Stage("photos", "photo"), done, total)

    rows = _rows(embedder.num_features)
    done = write(inputs, folder, embedder.engine, rows, about, preprocessing=embedder.preprocessing, on_progress=report)
    return tuple(read_skipped(folder / SKIPPED_FILE)), done.passed_over


def hash_columns(features: Features) -> np.ndarray | None:
    """Return the hashes that `embed_photos` wrote, uint64 [rows, 2]; None where there are no rows."""
    return _columns(features, HASH_COLUMNS)


def look_columns(features: Features) -> np.ndarray | None:
    """Return what `embed_photos` saw of the pictures, as `looks_of`, float32 [rows, 4]; None without rows."""
    return _columns(features, LOOK_COLUMNS)


def looks_of(pictures: np.ndarray) -> np.ndarray:
    """Return how pictures, uint8 [n, height, width, 3], look: float32 [n, 4], in 0..255.

    Shadows and lights are the 5th and 95th percentile of the gray values, contrast their standard deviation, sharpness
    the 99th percentile of the differences between neighbouring pixels: of the edges, however few there are.

    Example:
        >>> looks_of(np.full((1, 8, 8, 3), 100, np.uint8)).round(2).tolist()
        [[100.0, 100.0, 0.0, 0.0]]
    """
    gray = pictures.astype(np.float32) @ _LUMA
    flat = gray.reshape(len(gray), gray.shape[1] * gray.shape[2])
    if not len(flat):
        return np.empty((0, 4), np.float32)
    shadows, lights = np.percentile(flat, (_SHADOWS, _LIGHTS), axis=1)
    steps = [np.abs(np.diff(gray, axis=axis)).reshape(len(gray), -1) for axis in (1, 2)]
    sharpness = np.percentile(np.concatenate(steps, axis=1), 99, axis=1)
    return np.stack([shadows, lights, flat.std(1), sharpness], axis=1).astype(np.float32)


def _rows(num_features: int) -> "Rows":
    """Return rows as `embed` writes them, with hashes and looks."""
    import pyarrow as pa

    from mobilenet_hub.bulk.rows import Rows, feature_rows

    plain = feature_rows(num_features, half=True)
    schema = plain.schema
    for names, kind in ((HASH_COLUMNS, pa.uint64()), (LOOK_COLUMNS, pa.float32())):
        for name in names:
            schema = schema.append(pa.field(name, kind, nullable=False))

    def make(batch: Any, features: np.ndarray) -> Any:
        seen = [*hashes_of(batch.images).T, *looks_of(batch.images).T]
        columns = [*plain.make(batch, features).columns, *(pa.array(np.ascontiguousarray(values)) for values in seen)]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    return Rows(plain.output, schema, make)


def _columns(features: Features, names: Sequence[str]) -> np.ndarray | None:
    from pyarrow import parquet

    tables = [parquet.read_table(s.file, columns=list(names), partitioning=None) for s in features.shards]
    parts = [np.stack([table[name].to_numpy() for name in names], axis=1) for table in tables]
    return np.concatenate(parts) if parts else None
