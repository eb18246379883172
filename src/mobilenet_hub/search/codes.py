"""Short codes of vectors, and the scan that finds with them the rows worth an exact look.

Vectors at length 1 are centred and projected on the directions in which the collection varies most (principal
components of a sample), then rounded to 8 bits with a scale for each row. Of a query's nearest ten, the first few
hundred rows by codes hold all but the odd one (docs/search.md has the measurements).

The products are whole numbers below 2**24, so NumPy in float32 and simsimd's integer instructions give the same bits
and the same order, on any CPU.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from mobilenet_hub.host.cpu import available_cores
from mobilenet_hub.search.features import directions

CODE_LENGTH = 128  # 128 * 127 * 127 is below 2**24: sums of products are exact in float32
_LARGEST = 127
_SCAN_ROWS = 8192  # of codes that are taken at a time: 4 MB when they are widened
_LEAST_LENGTH = 1e-15  # below it squares are lost
_FEW_QUERIES = 8  # up to here simsimd's one pass for each query is faster than a matrix product for all
_MANY_QUERIES = 32  # taken together: their products with a million rows are 128 MB
SCALE, OFFSET, RESIDUAL = range(3)  # columns of Codes.rows


@dataclass(frozen=True)
class Basis:
    """The directions that vectors are projected on."""

    mean: np.ndarray  # float32 [features]
    directions: np.ndarray  # float32 [features, code length], orthonormal

    @classmethod
    def of(cls, sample: np.ndarray) -> "Basis":
        """Return the principal components of vectors of length 1, float32 [n, features]."""
        mean = sample.mean(0, dtype=np.float64) if len(sample) else np.zeros(sample.shape[1])
        centred = (sample - mean).astype(np.float32)
        scatter = (centred.T @ centred).astype(np.float64)
        _, vectors = np.linalg.eigh(scatter)  # ascending
        kept = vectors[:, ::-1][:, :CODE_LENGTH]
        return cls(mean.astype(np.float32), np.ascontiguousarray(kept, np.float32))

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes of vectors of any length, float32 [n, features]; those without a direction are left out.

        Returns:
            int8 [n, code length] and float32 [n, 3]: scale of the code; offset, the product of mean and centred vector,
            -inf where it has no direction; residual, the length of what the projection leaves out.
        """
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        odd = ~((lengths > _LEAST_LENGTH) & (lengths < np.inf))
        if odd.any():
            vectors, lengths = vectors.copy(), lengths.copy()
            vectors[odd] = directions(vectors[odd])
            lengths[odd] = 1
        products = vectors @ np.column_stack([self.directions, self.mean])  # one pass for both
        products /= lengths[:, np.newaxis]
        along_mean, squared = products[:, -1], float(self.mean @ self.mean)
        projected = products[:, :-1] - self.mean @ self.directions
        rows = np.empty((len(vectors), 3), np.float32)
        rows[:, SCALE] = np.maximum(np.abs(projected).max(1, initial=0), 1e-12) / _LARGEST
        rows[:, OFFSET] = along_mean - squared
        left = 1 - 2 * along_mean + squared - np.einsum("ij,ij->i", projected, projected)
        rows[:, RESIDUAL] = np.sqrt(np.maximum(left, 0))
        projected /= rows[:, SCALE, np.newaxis]
        codes = np.rint(projected, out=projected).astype(np.int8)
        if odd.any():
            nothing = np.flatnonzero(odd)[~vectors[odd].any(1)]
            codes[nothing], rows[nothing] = 0, (0, -np.inf, 0)
        return codes, rows


@dataclass(frozen=True)
class Codes:
    """The codes of a stretch of rows."""

    codes: np.ndarray  # int8 [n, code length]
    rows: np.ndarray  # float32 [n, 3], as `Basis.encode` gives them

    def __len__(self) -> int:
        return len(self.codes)

    def best(self, basis: Basis, queries: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return for each query, float32 [q, features] of length 1, the (row numbers, estimates) of the best rows.

        At most `count` of them, of equal ones the first; in no order.
        """
        codes, rows = basis.encode(queries)
        along_mean = np.array([query @ basis.mean for query in queries], np.float32)  # to the bit, however many
        found = []
        for start in range(0, len(queries), _MANY_QUERIES):
            some = slice(start, start + _MANY_QUERIES)
            for scores in self._scores(codes[some], rows[some, SCALE], along_mean[some]):
                numbers = largest(scores, count)
                found.append((numbers, scores[numbers]))
        return found

    def _scores(self, codes: np.ndarray, scales: np.ndarray, along_mean: np.ndarray) -> np.ndarray:
        """Return for queries, as their codes, the estimates of all rows, float32 [q, n]."""
        simsimd = import_simsimd() if len(codes) <= _FEW_QUERIES else None
        wide = codes.astype(np.float32)
        scores = np.empty((len(codes), len(self)), np.float32)

        def part(start: int) -> None:
            """Compute what stays in the cache meanwhile."""
            own = slice(start, start + _SCAN_ROWS)
            mine = scores[:, own]
            if simsimd is None:
                np.matmul(wide, self.codes[own].astype(np.float32).T, out=mine)
            else:
                for query, code in enumerate(codes):
                    mine[query] = np.asarray(simsimd.dot(code[np.newaxis], self.codes[own])).reshape(-1)
            mine *= scales[:, np.newaxis] * self.rows[own, SCALE]
            mine += self.rows[own, OFFSET]
            mine += along_mean[:, np.newaxis]

        _in_threads(part, range(0, len(self), _SCAN_ROWS))
        return scores


def largest(scores: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the largest scores that are not -inf, at most `count`; of equal ones the first.

    Example:
        >>> sorted(largest(np.array([1.0, 3.0, 3.0, -np.inf, 3.0]), 2).tolist())
        [1, 2]
    """
    if count < len(scores):
        limit = np.partition(scores, len(scores) - count)[len(scores) - count]
        above = np.flatnonzero(scores > limit)
        places = np.concatenate([above, np.flatnonzero(scores == limit)[: count - len(above)]])
    else:
        places = np.arange(len(scores))
    return places[scores[places] > -np.inf]


@cache
def import_simsimd() -> Any:
    """Return simsimd, or None where the extra is not installed."""
    try:
        import simsimd
    except ImportError:
        return None
    return simsimd


def _in_threads(part: Callable[[int], None], starts: range) -> None:
    tasks = iter(starts)

    def work() -> None:
        for start in tasks:  # each takes the next one
            part(start)

    others = min(available_cores(), len(starts)) - 1
    if others < 1:
        work()
        return
    with ThreadPoolExecutor(others) as pool:
        running = [pool.submit(work) for _ in range(others)]
        work()
        for one in running:
            one.result()
