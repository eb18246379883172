"""FEATURES folders with given vectors, written by what `embed` writes with."""

from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa  # noqa: TID253

from mobilenet_hub.bulk.rows import feature_rows
from mobilenet_hub.bulk.shards import Shards

MADE_WITH = {
    "command": "embed",
    "module": "starter",
    "weights_sha256": "0" * 64,
    "image_size": [160, 160],
    "precision": "f32",
    "fit": "center",
}


def write_features(folder, vectors, *, half=False, shard_size=64, limit=None, paths=None):
    """Write vectors as `embed` does; with `limit` only the first shards, as a run that was ended."""
    rows = feature_rows(vectors.shape[1], half=half)
    vectors = vectors.astype(np.float16 if half else np.float32)
    paths = paths or [f"photos/{i:06d}.jpg" for i in range(len(vectors))]
    with Shards(Path(folder), {**MADE_WITH, "shard_size": shard_size}, rows.schema) as shards:
        start = shards.inputs
        stream = shards.remaining(iter([SimpleNamespace(key=path) for path in paths]))
        while (limit is None or start < limit) and (keys := [item.key for item in islice(stream, shard_size)]):
            part = vectors[start : start + shard_size]
            start += shard_size
            lists = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), type=rows.schema.field("features").type)
            sizes = [pa.array(np.full(len(part), side, np.int32)) for side in (640, 480)]
            batch = pa.RecordBatch.from_arrays([pa.array(keys, pa.string()), *sizes, lists], schema=rows.schema)
            shards.add(batch, keys, [])
        if limit is None:
            shards.finish()
    return Path(folder)


def clustered(count, features=96, seed=0):
    """Vectors like a network's: not negative, in clusters, each with near and far neighbours."""
    random = np.random.default_rng(seed)
    centres = random.gamma(0.7, 1.0, (max(2, count // 40), features))
    noise = random.uniform(0.05, 0.6, (count, 1)) * random.standard_normal((count, features))
    return np.maximum(centres[random.integers(0, len(centres), count)] * (1 + noise), 0).astype(np.float32)
