"""The nearest photos of an embedded collection: `Searcher`, and `similar` for one call.

A small collection is read whole for every call. Of a large one the codes of its index choose candidates, which are then
compared exactly, by the vectors in the shards.
"""

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.errors import ImageError, InputError, MobileNetHubError
from mobilenet_hub.host.progress import OnProgress, silent
from mobilenet_hub.search.codes import largest
from mobilenet_hub.search.features import Features, directions
from mobilenet_hub.search.index import Index, open_index

if TYPE_CHECKING:
    from collections import Counter

    from mobilenet_hub.images.batches import Images
    from mobilenet_hub.inference.embed import Embedder

_SMALL = 1 << 25  # numbers in all vectors: up to here reading them all takes no longer than opening an index
_CANDIDATES = 400  # rows that are compared exactly, for up to 10 neighbours: recall 0.999 and more, docs/search.md
_CANDIDATES_PER_NEIGHBOUR = 40
_QUERIES = 1024  # photos of a stream that are looked up at a time
_MARGIN = 16  # more than k kept while float32 products choose; the order is made by float64
_DECIMALS = 6  # of a similarity; beyond them equal ones are ordered by their place in the collection


@dataclass(frozen=True, slots=True)
class Match:
    """A photo of the collection."""

    path: str
    similarity: float  # cosine, -1 to 1


class Searcher:
    """A collection, open for queries; safe to use from several threads.

    Attributes:
        features: the collection.
        note: why its index is not kept on disk; None: nothing is to be said.
    """

    def __init__(
        self,
        features: str | os.PathLike[str] | Features,
        *,
        module: str | os.PathLike[str] | None = None,
        exact: bool = False,
        threads: int | None = None,
        on_progress: OnProgress = silent,
    ):
        """Open a collection, and its index if it is large: one that is there and sound, or a new one.

        Args:
            features: what `embed -o` wrote.
            module: the module to compute queries with; None: the one that the collection's metadata names.
            exact: compare every query with every row, without an index.
            threads: of the network; None: as many as there are cores.
            on_progress: called with what is being done, how much of it is done, and how much there is.

        Raises:
            InputError: `features` is not what `embed` writes, or its shards are not what its manifest says.
            CorruptFileError: a shard cannot be read.
        """
        self.features = features if isinstance(features, Features) else Features(features)
        self.note: str | None = None
        self._module, self._threads = module, threads
        self._index: Index | None = None
        for stray in self.features.strays[:1]:
            warnings.warn(f"{stray} is not in the manifest and not searched; run the embed command again", stacklevel=2)
        if not self.features.complete:
            warnings.warn(f"{self.features.path} is not complete: embed was ended before its end", stacklevel=2)
        if not exact and self.features.rows * self.features.num_features > _SMALL:
            self._index, self.note = open_index(self.features, on_progress)

    @cached_property
    def embedder(self) -> "Embedder":
        """What computes the vectors of queries, as those of the collection were.

        Raises:
            InputError: the module, its size, fit or precision are not those of the collection.
        """
        return matching_embedder(self.features, self._module, self._threads)

    def similar(self, photos: "Images", k: int = 10) -> list[list[Match]]:
        """Return for each photo its `k` nearest of the collection, the nearest first.

        Raises:
            ImageError: a photo cannot be read.
            InputError: as `embedder`, or a `k` that means nothing.
        """
        return self.nearest(self.embedder.embed(photos), k)

    def stream(
        self,
        photos: Iterable["str | os.PathLike[str]"],
        k: int = 10,
        *,
        skipped: list[tuple[str, str]] | None = None,
        passed_over: "Counter[str] | None" = None,
    ) -> Iterator[tuple[str, list[Match]]]:
        """Yield (name, its `k` nearest) of photos, folders, globs or archives, however many: a thousand are in memory.

        Args:
            photos: as for `Embedder.stream`.
            k: how many.
            skipped: takes (name, reason) of those that cannot be read; None: the first one is an error.
            passed_over: counts, by suffix, the files among them that are no pictures.

        Raises:
            ImageError: a photo cannot be read, and there is no `skipped`.
            InputError: as `embedder`, or a `k` that means nothing.
        """
        names: list[str] = []
        parts: list[np.ndarray] = []
        for batch in self.embedder.stream(photos, passed_over):
            for name, reason in batch.skipped:
                if skipped is None:
                    raise ImageError(reason, name)
                skipped.append((name, reason))
            names += batch.sources
            parts.append(batch.features)
            if len(names) >= _QUERIES:
                yield from zip(names, self.nearest(np.concatenate(parts), k), strict=True)
                names, parts = [], []
        if names:
            yield from zip(names, self.nearest(np.concatenate(parts), k), strict=True)

    def nearest(self, vectors: np.ndarray, k: int = 10) -> list[list[Match]]:
        """Return for each vector, float32 [n, features], its `k` nearest of the collection, the nearest first.

        Rows without a direction (not finite, or all zero) are nobody's neighbours; a query without one has none.

        Raises:
            InputError: vectors of another length, or a `k` that means nothing.
        """
        if not isinstance(k, int) or k < 1:
            raise InputError(f"k must be a whole number from 1, not {k!r}")
        if not self.features.rows:
            return [[] for _ in vectors]
        if vectors.ndim != 2 or vectors.shape[1] != self.features.num_features:
            raise InputError(f"vectors must be [n, {self.features.num_features}], not {list(vectors.shape)}")
        queries = directions(vectors.astype(np.float32, copy=False))
        found = []
        candidates = self._candidates(queries, k)
        for query, (numbers, rows) in zip(queries, candidates, strict=True):
            similarities = directions(rows).astype(np.float64) @ query if query.any() else np.zeros(0)
            order = np.lexsort((numbers[: len(similarities)], -similarities.round(_DECIMALS)))[:k]
            paths = self.features.paths_of(numbers[order])
            found.append([Match(p, float(s)) for p, s in zip(paths, similarities[order].clip(-1, 1), strict=True)])
        return found

    def _candidates(self, queries: np.ndarray, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each query the numbers and vectors of rows among which its `k` nearest are."""
        if self._index is None:
            return self._all_compared(queries, k + _MARGIN)
        chosen = self._index.candidates(queries, max(_CANDIDATES, _CANDIDATES_PER_NEIGHBOUR * k))
        numbers = [np.sort(each) for each in chosen]
        return [(each, self.features.rows_of(each)) for each in numbers]

    def _all_compared(self, queries: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        kept = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        for start, block in self.features.blocks():
            rows = directions(block)
            scores = queries @ rows.T
            scores[:, ~rows.any(1)] = -np.inf
            for query, (numbers, best) in enumerate(kept):
                both = np.concatenate([best, scores[query]])
                places = np.sort(largest(both, count))  # of equal ones the first rows
                known = places < len(best)
                kept[query] = (
                    np.concatenate([numbers[places[known]], places[~known] - len(best) + start]),
                    both[places],
                )
        return [(numbers, self.features.rows_of(numbers)) for numbers, _ in kept]


def similar(
    photos: "Images",
    features: str | os.PathLike[str],
    k: int = 10,
    *,
    module: str | os.PathLike[str] | None = None,
    exact: bool = False,
) -> list[list[Match]]:
    """Return for each photo the `k` photos of a collection that are nearest to it.

    Args:
        photos: paths, bytes, open files, PIL images or uint8 arrays [h, w, 3], in a list or alone.
        features: what `mobilenet embed ... -o` wrote for the collection.
        k: how many.
        module: the module that the collection was embedded with, where its metadata's name for it leads nowhere.
        exact: compare with every row, without an index.

    Returns:
        A list for each photo, the nearest first, with the cosine of the angle between the feature vectors.

    Raises:
        ImageError: a photo cannot be read.
        InputError: no such collection, or one that was made with another module, size, fit or precision.

    Example:
        >>> similar("cat.jpg", "features/")  # doctest: +SKIP
        [[Match(path='photos/cat.jpg', similarity=1.0), Match(path='photos/lynx.jpg', similarity=0.81)]]
    """
    return Searcher(features, module=module, exact=exact).similar(photos, k)


def matching_embedder(
    features: Features, module: str | os.PathLike[str] | None = None, threads: int | None = None
) -> "Embedder":
    """Return an embedder whose vectors are comparable with a collection's.

    Raises:
        InputError: it cannot be: other weights, another size or fit, or a precision that queries cannot have.
    """
    from mobilenet_hub.inference.embed import Embedder
    from mobilenet_hub.store import locate, weights_sha256

    made = features.made_with
    missing = [name for name in ("module", "weights_sha256", "image_size", "fit", "precision") if name not in made]
    if missing:
        raise InputError(f"{features.path} does not say which {missing[0]} it was made with; embed the photos again")
    if made["precision"] == "int8":
        raise InputError(
            f"{features.path} was made in int8, calibrated with its own photos, which a query's vector cannot be; "
            "embed it again without --precision int8"
        )
    height, width = (int(side) for side in made["image_size"].strip("[]").split(","))
    place = module if module is not None else made["module"]
    try:
        found = locate(place, usual_size=(height, width))
    except MobileNetHubError as error:
        if module is not None:
            raise
        raise InputError(
            f"{features.path} was made with the module {made['module']!r}, which is not found from here ({error}); "
            "give its place with --module (module=)"
        ) from None
    digest = weights_sha256(found)
    if digest != made["weights_sha256"]:
        raise InputError(
            f"{features.path} was made with a module whose weights have SHA-256 {made['weights_sha256'][:12]}..., and "
            f"those of {os.fspath(place)} have {digest[:12]}...: their vectors cannot be compared; give the "
            "same module, or embed the photos again"
        )
    precision = "f32" if made["precision"] == "f32" else "bf16"
    return Embedder(found, precision, (height, width), fit=made["fit"], threads=threads, any_size=True)  # type: ignore[arg-type]
