"""Copies to stars: each photo that is kept, with those that are near to itself; no chains.

In the order of preference, a photo that is nobody's copy is a centre, and what is near to it and nobody's copy yet is
its. A small collection is compared whole. A large one is cut into cells of neighbours by k-means on the index's codes;
each row is compared, by its exact vector, with all rows of the two cells nearest to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mobilenet_hub.host.progress import OnProgress, Stage, silent
from mobilenet_hub.search.codes import SCALE
from mobilenet_hub.search.features import Features, directions
from mobilenet_hub.search.hashes import product_of_signs, signs
from mobilenet_hub.search.index import Index, open_index
from mobilenet_hub.search.threshold import Threshold

HASH_BITS = 8  # hashes that differ in no more are near, where the features are not far apart
_SURE_BITS = 2  # and in no more whatever the features are: gray copies can be far from coloured ones
_ALIKE_BITS = 20  # where features are near: copies that are cut by 5 % or turned by 5 degrees differ in no more
_ROUNDING = 1e-6  # of float32
_WHOLE = 8192  # rows that are compared all with all
_PROBES = 2
_BLOCK = 256  # centres that are compared at a time
_ITERATIONS = 5
_SAMPLE_OF_CELL = 32  # rows for each cell that its centre is computed from
_ROUNDS = 3  # a row whose centre became another's copy is compared again
_ASSIGNED = 8192  # rows that are given their cells at a time

_Edges = tuple[np.ndarray, np.ndarray, np.ndarray]  # copies, their centres, similarities
_Compared = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]  # vectors, signs of hashes, of mirrored ones


@dataclass(frozen=True)
class Stars:
    """Who is whose copy."""

    centre: np.ndarray  # int64 [rows]: the number of its centre; its own where it is nobody's copy
    similarity: np.ndarray  # float32 [rows]: with its centre


def find_stars(
    features: Features,
    order: np.ndarray,
    threshold: Threshold,
    hashes: np.ndarray | None = None,
    on_progress: OnProgress = silent,
) -> Stars:
    """Find the copies of a collection.

    Args:
        features: the collection.
        order: int64 [rows], all row numbers, those to keep rather than others first.
        threshold: what is near.
        hashes: uint64 [rows, 2], of each picture and its mirror image; None: there are none.
        on_progress: told how many rows are compared.
    """
    rank = np.empty(features.rows, np.int64)
    rank[order] = np.arange(features.rows)
    centre, similarity = np.arange(features.rows), np.ones(features.rows, np.float32)
    if features.rows <= _WHOLE:
        for copies, stars, near in _compare(features, order, threshold, hashes):
            centre[copies], similarity[copies] = stars, near
        return Stars(centre, similarity)
    index = open_index(features, on_progress)[0]
    left = order
    for _ in range(_ROUNDS):
        found = list(_edges(features, index, left, rank, threshold, hashes, on_progress))
        if not found:
            break
        copies, stars, near = (np.concatenate(part) for part in zip(*found, strict=True))
        again = _assign(centre, similarity, rank, copies, stars, near)
        if not len(again):
            break
        left = again[np.argsort(rank[again])]
    return Stars(centre, similarity)


def _assign(
    centre: np.ndarray,
    similarity: np.ndarray,
    rank: np.ndarray,
    copies: np.ndarray,
    stars: np.ndarray,
    near: np.ndarray,
) -> np.ndarray:
    """Give copies to their centres, in the centres' order; return those whose centre turned out to be a copy."""
    by_centre = np.lexsort((rank[copies], rank[stars]))
    lost = set()
    for place in by_centre:
        copy, star = int(copies[place]), int(stars[place])
        if centre[copy] != copy:
            lost.discard(copy)
        elif centre[star] != star:
            lost.add(copy)
        else:
            centre[copy], similarity[copy] = star, near[place]
            lost.discard(copy)
    taken = set(centre[centre != np.arange(len(centre))].tolist())
    return np.array([row for row in lost if centre[row] == row and row not in taken], np.int64)


def _edges(
    features: Features,
    index: Index,
    rows: np.ndarray,
    rank: np.ndarray,
    threshold: Threshold,
    hashes: np.ndarray | None,
    on_progress: OnProgress,
) -> Iterator[_Edges]:
    """Yield (copies, centres, similarities) of stars within cells."""
    done = 0
    for cell in _cells(index, np.sort(rows)):
        yield from _compare(features, cell[np.argsort(rank[cell])], threshold, hashes)
        done += len(cell)
        on_progress(Stage("copies", "photo"), done // _PROBES, len(rows))


def _compare(
    features: Features, members: np.ndarray, threshold: Threshold, hashes: np.ndarray | None
) -> Iterator[_Edges]:
    """Yield (copies, centres, similarities) of the stars among some rows, given in their order of preference."""
    free = members  # neither centre nor copy so far
    vectors = _Vectors(features, hashes, members)
    while len(free):
        block, rest = free[:_BLOCK], free[_BLOCK:]
        head = vectors.of(block)
        near, alike = _compared(head, head, threshold)
        owner = np.full(len(block), -1)
        for place in range(len(block)):
            if owner[place] < 0:
                owner[(owner < 0) & alike[place]] = place
                owner[place] = place
        centres = np.unique(owner)
        copies = np.flatnonzero(owner != np.arange(len(block)))
        yield block[copies], block[owner[copies]], near[owner[copies], copies]
        head = vectors.of(block[centres])
        left: list[np.ndarray] = []
        for start in range(0, len(rest), _WHOLE):
            part = rest[start : start + _WHOLE]
            near, alike = _compared(head, vectors.of(part), threshold)
            first, taken = alike.argmax(0), alike.any(0)
            yield part[taken], block[centres[first[taken]]], near[first[taken], np.flatnonzero(taken)]
            left.append(part[~taken])
        free = np.concatenate(left) if left else rest


def _compared(head: _Compared, rows: _Compared, threshold: Threshold) -> tuple[np.ndarray, np.ndarray]:
    """Return similarities, float32 [heads, rows], and whether they are near."""
    near = head[0] @ rows[0].T
    if rows[1] is None or head[1] is None or head[2] is None:
        return near, near >= threshold.cosine - _ROUNDING
    hashes_alike, unlike = threshold.with_hashes or (threshold.cosine, threshold.cosine)
    alike = near >= unlike - _ROUNDING
    agree = np.maximum(head[1] @ rows[1].T, head[2] @ rows[1].T)  # 64 less twice the bits that differ
    alike |= (agree >= product_of_signs(_ALIKE_BITS)) & (near >= hashes_alike - _ROUNDING)
    alike |= (agree >= product_of_signs(HASH_BITS)) & (near >= threshold.loose)
    alike |= agree >= product_of_signs(_SURE_BITS)
    return near, alike


class _Vectors:
    """Vectors and hashes of rows: held where they are few enough, else read as they are asked for."""

    def __init__(self, features: Features, hashes: np.ndarray | None, members: np.ndarray):
        self._features, self._hashes = features, hashes
        self._place: dict[int, int] | None = None
        self._sorted = np.sort(members)
        self._held = directions(features.rows_of(self._sorted)) if len(members) <= _WHOLE else None

    def of(self, rows: np.ndarray) -> _Compared:
        """Return directions, and the signs of the hashes of the pictures and their mirror images."""
        if self._held is not None:
            vectors = self._held[np.searchsorted(self._sorted, rows)]
        else:
            vectors = directions(self._features.rows_of(rows))
        if self._hashes is None:
            return vectors, None, None
        return vectors, signs(self._hashes[rows, 0]), signs(self._hashes[rows, 1])


def _cells(index: Index, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Yield rows, sorted, in cells of neighbours; each row in the two nearest."""
    if len(rows) <= _WHOLE:
        yield rows
        return
    centres = _centres(index, rows)
    nearest = np.empty((len(rows), _PROBES), np.int32)
    for start in range(0, len(rows), _ASSIGNED):
        scores = _scores(_projected(index, rows[start : start + _ASSIGNED]), centres)
        for probe in range(_PROBES):
            best = scores.argmax(1)
            nearest[start : start + len(best), probe] = best
            scores[np.arange(len(best)), best] = -np.inf
    owner = nearest.reshape(-1)
    by_cell = np.argsort(owner, kind="stable")
    bounds = np.searchsorted(owner[by_cell], np.arange(len(centres) + 1))
    for start, end in pairwise(bounds):
        cell = rows[by_cell[start:end] // _PROBES]
        if _WHOLE < len(cell) < 0.7 * len(rows):
            yield from _cells(index, cell)
        elif len(cell) > 1:
            yield cell  # if it is large, it is one heap of all but equal rows, which few centres use up


def _centres(index: Index, rows: np.ndarray) -> np.ndarray:
    count = max(2, int(2 * np.sqrt(len(rows))))
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLE_OF_CELL * count)).astype(np.int64)]
    sample = _projected(index, chosen)
    centres = sample[np.linspace(0, len(sample) - 1, count).astype(np.int64)].copy()
    for _ in range(_ITERATIONS):
        owner = np.concatenate(
            [_scores(sample[s : s + _ASSIGNED], centres).argmax(1) for s in range(0, len(sample), _ASSIGNED)]
        )
        by_cell = np.argsort(owner, kind="stable")
        there, starts = np.unique(owner[by_cell], return_index=True)
        sums = np.add.reduceat(sample[by_cell], starts, axis=0)
        centres[there] = sums / np.diff([*starts, len(sample)])[:, np.newaxis]
    return centres


def _scores(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return what is largest for the nearest centre: half the squared distance, negative, but for a term of the row."""
    scores = rows @ centres.T
    scores -= 0.5 * np.einsum("ij,ij->i", centres, centres)
    return scores


def _projected(index: Index, rows: np.ndarray) -> np.ndarray:
    found = np.empty((len(rows), index.segments[0].codes.codes.shape[1]), np.float32)
    for segment in index.segments:
        mine = (rows >= segment.start) & (rows < segment.start + segment.rows)
        places = rows[mine] - segment.start
        found[mine] = segment.codes.codes[places] * segment.codes.rows[places, SCALE, np.newaxis]
    return found
