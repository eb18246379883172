"""A column of encoded pictures to features, and to a reason where a cell holds no picture."""

from collections.abc import Sequence
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.images.batches import compute
from mobilenet_hub.images.inputs import Item

if TYPE_CHECKING:
    from mobilenet_hub.inference.embed import Embedder


@cache
def embedder(module: str, threads: int | None) -> "Embedder":
    """Return the one compiled network that a process has of a module."""
    from mobilenet_hub.inference.embed import Embedder

    return Embedder(module, threads=threads)


def embed_encoded(embedder: "Embedder", pictures: Sequence[bytes | None]) -> tuple[np.ndarray, list[str | None]]:
    """Compute the features of encoded pictures.

    Args:
        embedder: what computes.
        pictures: the bytes of n files.

    Returns:
        float32 [n, num_features], NaN where there is no picture; and n reasons, None where there is one.

    Example:
        >>> from mobilenet_hub.inference.embed import Embedder
        >>> features, reasons = embed_encoded(Embedder("starter"), [b"no picture", None])
        >>> bool(np.isnan(features).all()), reasons[1]
        (True, 'no bytes')
    """
    features = np.full((len(pictures), embedder.num_features), np.nan, np.float32)
    reasons: list[str | None] = [None] * len(pictures)
    items = [Item(str(index), partial(_present, data), held=len(data or b"")) for index, data in enumerate(pictures)]
    for batch, values in compute(items, embedder.engine, "features", embedder.preprocessing):
        features[[int(key) for key in batch.keys]] = values
        for skipped in batch.skipped:
            reasons[int(skipped[0])] = skipped[1]
    return features, reasons


def _present(data: bytes | None) -> bytes:
    if data is None:
        raise ImageError("no bytes")
    return bytes(data)
