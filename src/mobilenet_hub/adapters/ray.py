"""For `ray.data`: a column of encoded pictures to features. Ray itself is not imported here."""

import os
from typing import Any

import numpy as np

from mobilenet_hub.adapters.encoded import embed_encoded, embedder


class Embed:
    """What `Dataset.map_batches` takes: one compiled network for each actor.

    The rows keep their columns but the pictures', and get `features`, float32 [n, num_features], NaN where the bytes
    are no picture, and `reason`, "" or why there is none.

    Example:
        >>> import ray  # doctest: +SKIP
        >>> pictures = ray.data.read_binary_files("photos/", include_paths=True)  # doctest: +SKIP
        >>> pictures.map_batches(Embed, fn_constructor_kwargs={"module": "starter"}, concurrency=2)  # doctest: +SKIP
    """

    def __init__(self, module: str | os.PathLike[str] = "starter", *, column: str = "bytes", threads: int | None = 1):
        """Open a module.

        Args:
            module: a name of a module that every worker can open.
            column: the encoded pictures'.
            threads: of each actor; None: as many as its machine has cores.

        Raises:
            MobileNetHubError: as `Embedder` does.
        """
        self._embedder = embedder(os.fspath(module), threads)
        self._column = column

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Return a batch's rows with features."""
        features, reasons = embed_encoded(self._embedder, list(batch[self._column]))
        kept = {name: values for name, values in batch.items() if name != self._column}
        return {**kept, "features": features, "reason": np.array([reason or "" for reason in reasons], object)}
