"""From which cosine two photos are taken for copies: measured on the collection, by how alike its other photos are.

Of different photos the share of pairs within a distance d = 1 - cosine of each other grows as a power of d, over many
decades, whatever the module (docs/search.md). The power is fitted where pairs are many, on a sample from which obvious
copies are taken out, and followed down to the share of false pairs that is allowed. In a large collection that is far:
some rows are compared with all, the power is fitted among the nearest of them, too, and the stricter of the two holds.

Different photos of one subject are as near as changed copies, but their light and dark lie elsewhere: of 1,750 pairs
of Tiny ImageNet's photos above the threshold one in twenty had hashes as alike as copies have (docs/search.md). So
where there are hashes, a cosine that ten times the share reaches is enough if they are alike; if not, that of a tenth.
"""

from dataclasses import dataclass

import numpy as np

from mobilenet_hub.errors import InputError
from mobilenet_hub.search.features import Features, directions
from mobilenet_hub.search.hashes import product_of_signs, signs

DEFAULT_FALSE_PAIRS = 1e-6
_FALSE_PHOTOS = 0.001  # without a wish: in a large collection no more false pairs than this share of its photos
_SAMPLE = 4096
_OBVIOUS = 0.97  # copies of this cosine, or whose hashes differ in no more than _OBVIOUS_BITS, are left out
_OBVIOUS_BITS = 4
_FITTED = (0.1, 0.01)  # shares of pairs between which the power is fitted
_DEEP_SAMPLE = 512  # rows that are compared with all of a large collection
_DEEPLY_FITTED = (1e-3, 1e-5)  # among those
_LEAST_PAIRS = 1000  # of different photos; with fewer nothing is measured
_UNMEASURED, _UNMEASURED_ALIKE = 0.97, 0.9  # of few pairs none is so near by chance; the latter where hashes are alike
_LEAST, _MOST = 0.5, 0.9995
# Hashes only count among the pairs that are this alike: 30 % of different ones, fewer in a large collection, where
# more pairs have like hashes by chance.
_LOOSE_SHARE, _LOOSE_PHOTOS = 0.3, 3000
_HASH_TELLS = 10.0  # times the share of false pairs where hashes are alike; a part of it where they are not


@dataclass(frozen=True, slots=True)
class Threshold:
    """When two photos are taken for copies."""

    cosine: float  # at least this
    loose: float  # or at least this, and hashes that hardly differ
    false_pairs: float | None  # the share of pairs of different photos that is expected to be as near; None: not known
    source: str  # "measured", "given", or "too few photos to measure"
    with_hashes: tuple[float, float] | None = None  # instead of `cosine`: where hashes are alike; where they are not


def measure_threshold(
    features: Features, false_pairs: float | None = None, given: float | None = None, hashes: np.ndarray | None = None
) -> Threshold:
    """Return the threshold of a collection.

    Args:
        features: the collection.
        false_pairs: the share of pairs of different photos that may be taken for copies; None: 1e-6, and less in a
            large collection, where it would be more than one in a thousand photos.
        given: the threshold itself, instead.
        hashes: uint64 [rows, 2], where there are some.

    Raises:
        InputError: a share or a cosine that means nothing.
    """
    if given is not None and false_pairs is not None:
        raise InputError("give a threshold or a share of false pairs, not both")
    if given is not None and not 0 < given <= 1:
        raise InputError(f"the threshold must be a cosine above 0 and up to 1, not {given!r}")
    if false_pairs is not None and not 0 < false_pairs < 0.1:
        raise InputError(f"false_pairs must be a share above 0 and below 0.1, not {false_pairs!r}")
    similarities = _foreign(features, hashes)
    if len(similarities) < _LEAST_PAIRS:
        if given is not None:
            return Threshold(given, given, None, "given")
        return Threshold(_UNMEASURED, _LEAST, None, "too few photos to measure", (_UNMEASURED_ALIKE, _UNMEASURED))
    fits = [_fit(similarities, len(similarities), _FITTED)]
    if features.rows > _SAMPLE:
        nearest, pairs = _nearest_foreign(features, hashes, float(similarities[int(_FITTED[1] * len(similarities))]))
        fits += [_fit(nearest, pairs, _DEEPLY_FITTED)] if len(nearest) > _DEEPLY_FITTED[0] * pairs else []
    loose = float(similarities[int(min(_LOOSE_SHARE, _LOOSE_PHOTOS / features.rows) * len(similarities))])
    if given is not None:
        share = max(float(np.exp((np.log(max(1 - given, 1e-6)) - start) / power)) for power, start in fits)
        return Threshold(given, min(loose, given), share, "given")
    wanted = false_pairs or min(DEFAULT_FALSE_PAIRS, 2 * _FALSE_PHOTOS / features.rows)

    def reached_by(share: float) -> float:
        distance = min(np.exp(start + power * np.log(share)) for power, start in fits)
        return float(np.clip(1 - distance, _LEAST, _MOST))

    cosine, alike, unlike = (reached_by(wanted * times) for times in (1, _HASH_TELLS, 1 / _HASH_TELLS))
    return Threshold(cosine, min(loose, alike), wanted, "measured", (alike, unlike))


def _foreign(features: Features, hashes: np.ndarray | None) -> np.ndarray:
    """Return the similarities of pairs of different photos of a sample, the largest first."""
    chosen = np.unique(np.linspace(0, max(features.rows - 1, 0), min(features.rows, _SAMPLE)).astype(np.int64))
    rows = directions(features.rows_of(chosen))
    bits = None if hashes is None else signs(hashes[chosen, 0])
    whole = rows.any(1)
    rows, bits = rows[whole], None if bits is None else bits[whole]
    similarities = rows @ rows.T
    copies = similarities >= _OBVIOUS
    if bits is not None:
        copies |= bits @ bits.T >= product_of_signs(_OBVIOUS_BITS)
    kept = np.ones(len(rows), bool)
    for row in range(len(rows)):
        if kept[row]:
            kept[row + 1 :] &= ~copies[row, row + 1 :]
    similarities = similarities[np.ix_(kept, kept)]
    return np.sort(similarities[np.triu_indices(len(similarities), 1)])[::-1]


def _nearest_foreign(features: Features, hashes: np.ndarray | None, least: float) -> tuple[np.ndarray, int]:
    """Compare some rows with all; return the similarities of different photos above `least`, and the number of pairs.

    The largest come first. A pair of obvious copies is left out.
    """
    chosen = np.linspace(0, features.rows - 1, _DEEP_SAMPLE).astype(np.int64)
    sample = directions(features.rows_of(chosen))
    found = []
    for start, block in features.blocks():
        scores = sample @ directions(block).T
        some, others = np.nonzero((scores > least) & (scores < _OBVIOUS))
        kept = chosen[some] != others + start
        if hashes is not None:
            first, second = (signs(hashes[rows, 0]) for rows in (chosen[some], others + start))
            kept &= np.einsum("ij,ij->i", first, second) < product_of_signs(_OBVIOUS_BITS)
        found.append(scores[some[kept], others[kept]])
    return np.sort(np.concatenate(found))[::-1], _DEEP_SAMPLE * (features.rows - 1)


def _fit(similarities: np.ndarray, pairs: int, shares: tuple[float, float]) -> tuple[float, float]:
    """Return power and constant of log distance = constant + power * log share, between two shares of all pairs.

    Args:
        similarities: the largest ones, the largest first.
        pairs: of how many.
        shares: the larger first.
    """
    largest, least = shares
    ranks = np.unique(np.geomspace(largest * pairs, max(least * pairs, 1), 50).astype(np.int64))
    distances = np.maximum(1 - similarities[ranks].astype(np.float64), 1e-9)
    power, start = np.polyfit(np.log(ranks / pairs), np.log(distances), 1)
    return max(float(power), 1e-3), float(start)
