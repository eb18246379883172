"""Feature vectors of a data set's photos, each photo decoded once, kept on disk so that a killed run goes on."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import ImageError
from mobilenet_hub.evaluation.dataset import Example
from mobilenet_hub.host.files import replacing
from mobilenet_hub.host.progress import OnProgress, Stage
from mobilenet_hub.images.batches import work_ahead
from mobilenet_hub.images.resample import resample
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.inference.embed import Embedder

_BATCH = 64  # views that the engine gets at a time
_SHARD = 512  # photos; about as much is lost by a kill
_MIN_CROP = 0.75  # least share of a side that a jittered view shows
_BRIGHTNESS = 0.2  # largest change


@dataclass(frozen=True)
class Features:
    """The feature vectors of photos, and the files that turned out to be none."""

    vectors: dict[str, np.ndarray]  # digest -> float32 [views, features]; the first view is the photo as it is
    skipped: tuple[Skipped, ...]


def compute_features(
    examples: Sequence[Example],
    views: Sequence[int],
    embedder: Embedder,
    *,
    work: Path,
    key: str,
    on_progress: OnProgress,
) -> Features:
    """Compute the feature vectors of photos, or read those that an earlier run left.

    Args:
        examples: the photos.
        views: of each, how many views to take: 1 is the photo, 2 adds its mirror image, more add jittered ones.
        embedder: computes them.
        work: the folder that holds what is computed.
        key: names everything that the vectors depend on other than the photos.
        on_progress: told after each batch.

    Returns:
        The vectors of all photos that can be decoded.
    """
    work.mkdir(parents=True, exist_ok=True)
    wanted = {example.digest: (example, count) for example, count in zip(examples, views, strict=True)}
    found = {d: v for d, v in _read_shards(work, key).items() if d in wanted and len(v) >= wanted[d][1]}
    # The same batches in every run, each computed whole: the last bits of a feature depend on its neighbours.
    most = max((count for _, count in wanted.values()), default=1)
    step = max(1, _BATCH // most)
    requests = list(wanted.values())
    parts = [requests[start : start + step] for start in range(0, len(requests), step)]
    missing = [part for part in parts if not all(example.digest in found for example, _ in part)]
    again = {example.digest for part in missing for example, _ in part}
    vectors = {digest: rows for digest, rows in found.items() if digest not in again}
    skipped: list[Skipped] = []
    shard: dict[str, np.ndarray] = {}
    done = len(vectors)
    on_progress(Stage("features", "photo"), done, len(wanted))
    for batch in _batches(missing, embedder):
        good = [(example, pictures) for example, pictures in batch if not isinstance(pictures, ImageError)]
        skipped += [Skipped(str(e.path), pictures.reason) for e, pictures in batch if isinstance(pictures, ImageError)]
        if good:
            rows = embedder.engine.run(np.concatenate([pictures for _, pictures in good]))["features"]
            ends = np.cumsum([len(pictures) for _, pictures in good])
            split = np.split(rows, ends[:-1])
            shard |= {example.digest: part for (example, _), part in zip(good, split, strict=True)}
        done += len(batch)
        on_progress(Stage("features", "photo"), done, len(wanted))
        if len(shard) >= _SHARD:
            _write_shard(work, key, shard)
            vectors, shard = vectors | shard, {}
    if shard:
        _write_shard(work, key, shard)
    vectors = {digest: rows[: wanted[digest][1]] for digest, rows in (vectors | shard).items()}
    return Features(vectors, tuple(skipped))


def _batches(
    parts: Sequence[Sequence[tuple[Example, int]]], embedder: Embedder
) -> Iterator[list[tuple[Example, np.ndarray | ImageError]]]:
    """Yield photos with their views [views, height, width, 3], decoded by other threads while the engine computes."""

    def decode(request: tuple[Example, int]) -> np.ndarray | ImageError:
        example, count = request
        try:
            return _views(embedder.preprocessing.load(example.path), count, example.digest)
        except ImageError as error:
            return error

    groups = ((part, [partial(decode, request) for request in part]) for part in parts)
    for part, decoded in work_ahead(groups, threads=embedder.engine.threads):
        yield [(example, pictures) for (example, _), pictures in zip(part, decoded, strict=True)]


def _views(image: np.ndarray, count: int, digest: str) -> np.ndarray:
    """Return a photo, its mirror image, and jittered views of the two in turn: uint8 [count, height, width, 3].

    The jitter is drawn from the photo's own hash, so that it does not depend on which run computes it.
    """
    if count == 1:
        return image[np.newaxis]
    from PIL import Image, ImageEnhance

    views = [image, image[:, ::-1]][:count]
    random = np.random.default_rng(int(digest[:16], 16))
    height, width = image.shape[:2]
    while len(views) < count:
        picture = views[len(views) % 2]
        share = random.uniform(_MIN_CROP, 1)
        left, top = random.uniform(0, 1 - share) * width, random.uniform(0, 1 - share) * height
        box = (left, top, left + share * width, top + share * height)
        brightness = random.uniform(1 - _BRIGHTNESS, 1 + _BRIGHTNESS)
        cropped = Image.fromarray(resample(picture, (height, width), box, "bilinear"))
        views.append(np.asarray(ImageEnhance.Brightness(cropped).enhance(brightness)))
    return np.stack(views)


def _read_shards(work: Path, key: str) -> dict[str, np.ndarray]:
    vectors: dict[str, np.ndarray] = {}
    for file in sorted(work.glob(f"features-{key}-*.npz")):
        try:
            with np.load(file) as shard:
                digests, counts, rows = shard["digests"], shard["counts"], shard["rows"]
        except (OSError, ValueError, KeyError, EOFError):
            continue  # damaged: computed again
        parts = np.split(rows, np.cumsum(counts)[:-1])
        vectors |= dict(zip(digests.tolist(), parts, strict=True))
    return vectors


def _write_shard(work: Path, key: str, shard: dict[str, np.ndarray]) -> None:
    """Write vectors to a file of their own, whole or not at all."""
    digests = list(shard)
    name = hashlib.sha1("".join(digests).encode()).hexdigest()[:12]
    counts = [len(shard[digest]) for digest in digests]
    with replacing(work / f"features-{key}-{name}.npz") as stream:
        np.savez(stream, digests=digests, counts=counts, rows=np.concatenate(list(shard.values())))
