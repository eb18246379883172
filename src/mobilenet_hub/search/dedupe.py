"""Groups of (nearly) equal photos, with the one to keep: `dedupe`. Nothing is moved or deleted here."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.host.files import is_file
from mobilenet_hub.host.progress import OnProgress, Stage, silent
from mobilenet_hub.host.stores import demand_local
from mobilenet_hub.images.batches import decode_batches
from mobilenet_hub.images.decode import decode_image, read_bytes
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.images.inputs import Item, items
from mobilenet_hub.search.embedding import embed_photos, hash_columns
from mobilenet_hub.search.features import Features
from mobilenet_hub.search.hashes import hashes_of
from mobilenet_hub.search.similar import Searcher
from mobilenet_hub.search.stars import Stars, find_stars
from mobilenet_hub.search.threshold import Threshold, measure_threshold

Kind = Literal["same file", "same pixels", "near"]
Keep = Literal["largest", "oldest", "first"]
KEEPS: tuple[Keep, ...] = get_args(Keep)
_HASHED_SIZE = (64, 64)  # what pictures are decoded to where only their hashes are wanted
_ALL_BUT_EQUAL = 0.999  # below it nobody looks whether two pictures are the same pixel for pixel
_EQUAL_RESAVED = 0.97  # likewise where one alone is a JPEG: the network sees it at a reduced scale, a PNG of it whole
_JPEG = b"\xff\xd8\xff"
_LOOKED_FOR = 1000  # photos of an embedded collection, before each is looked for
_QUERIES = 1024  # rows of one collection that are looked up in another at a time


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A photo that is a copy of the one to keep."""

    path: str
    kind: Kind
    similarity: float  # cosine, with the one to keep


@dataclass(frozen=True, slots=True)
class Group:
    """Photos that are the same, or nearly."""

    keep: str
    others: tuple[Duplicate, ...]


_Left = tuple[tuple[tuple[str, str], ...], Mapping[str, int]]  # as `embed_photos` returns


@dataclass(frozen=True)
class Duplicates(Sequence[Group]):
    """What `dedupe` found: a sequence of groups, and how it was decided."""

    groups: tuple[Group, ...]
    threshold: Threshold
    photos: int
    hashed: int  # photos that could be compared by their perceptual hash too
    links: int  # names of one file, which are no copies
    skipped: tuple[tuple[str, str], ...]  # (name, reason) of photos that could not be read
    passed_over: Mapping[str, int] = field(default_factory=dict)  # files in folders that are no pictures, by suffix
    newer: int = 0  # photos in groups whose date is later than that of their features: they may have changed since

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: Any) -> Any:
        return self.groups[index]

    @property
    def expected_false_pairs(self) -> float | None:
        """How many pairs of different photos are expected to be as near as copies; None: not known."""
        share = self.threshold.false_pairs
        return None if share is None else share * self.photos * (self.photos - 1) / 2


def dedupe(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    module: str | os.PathLike[str] = "starter",
    false_pairs: float | None = None,
    threshold: float | None = None,
    keep: Keep = "largest",
    against: str | os.PathLike[str] | None = None,
    work: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    on_progress: OnProgress = silent,
) -> Duplicates:
    """Find groups of photos that are the same, or nearly.

    Two photos are near where the cosine of their features reaches a threshold, or where their perceptual hashes hardly
    differ, also mirrored, and their features are not far apart either. A group is a star: all are copies of the one to
    keep, not of one another. Names of one file, by hard or symbolic links, are no copies.

    Args:
        source: photos, folders, globs, archives; or what `embed -o` wrote. Of the latter the photos are read too where
            their paths lead to files, for their hashes.
        module: what to compute features of photos with.
        false_pairs: the share of pairs of different photos that may be taken for copies, from which the threshold is
            measured on the collection itself; None: 1e-6, less in a large collection.
        threshold: the least cosine, instead.
        keep: which of a group: the "largest" (most pixels, then bytes), the "oldest" by its date, or the "first".
        against: another collection that `embed -o` wrote: only what is in it already is found; that is what to keep.
        work: a folder for what a killed run can go on from; None: nothing is kept.
        threads: how many to use; None: as many as there are cores.
        on_progress: told how far it is.

    Returns:
        The groups, in the order of the photos to keep.

    Raises:
        InputError: nothing to read, or an argument that means nothing.

    Example:
        >>> dedupe("photos/")[0]  # doctest: +SKIP
        Group(keep='photos/cat.jpg', others=(Duplicate(path='photos/cat_small.jpg', kind='near', similarity=0.981),))
    """
    if keep not in KEEPS:
        raise InputError(f"keep must be one of {', '.join(KEEPS)}, not {keep!r}")
    for one in [source] if isinstance(source, str | os.PathLike) else source:
        demand_local(one, "what holds the photos")
    with _opened(source, module, work, threads, on_progress) as (features, readers, hashes, left):
        if not features.rows:
            return Duplicates((), Threshold(1, 1, None, "too few photos to measure"), 0, 0, 0, *left)
        bar = measure_threshold(features, false_pairs, threshold, hashes)
        paths = features.files()
        if against is not None:
            pairs = _in_other(features, against, bar, on_progress)
        else:
            order = _order(features, paths, keep)
            pairs = _pairs(find_stars(features, order, bar, hashes, on_progress), paths)
        groups, links = _groups(pairs, readers, on_progress)
        hashed = 0 if hashes is None or against is not None else int(np.count_nonzero(hashes[:, 0]))
        return Duplicates(groups, bar, features.rows, hashed, links, *left, newer=_newer(features, paths, groups))


@contextmanager
def _opened(
    source: Any, module: str | os.PathLike[str], work: Any, threads: int | None, on_progress: OnProgress
) -> Iterator[tuple[Features, Callable[[str], Any], np.ndarray | None, _Left]]:
    """Give the features of photos or of a collection; how to read a photo; hashes; and what was left."""
    if isinstance(source, str | os.PathLike) and _is_features(Path(source)):
        features = Features(source)
        hashes = _read_hashes(features, on_progress)
        yield features, lambda key: key, hashes, ((), {})
        return
    inputs = [source] if isinstance(source, str | os.PathLike) else list(source)
    with tempfile.TemporaryDirectory(prefix="mobilenet-dedupe-") as temporary:
        folder = Path(work) if work is not None else Path(temporary)
        left = embed_photos(inputs, folder / "features", module, threads, on_progress)
        features = Features(folder / "features")
        yield features, _reader(inputs), hash_columns(features), left


def _is_features(path: Path) -> bool:
    from mobilenet_hub.bulk.manifest import MANIFEST_FILE

    if path.suffix.lower() == ".parquet" and is_file(path):
        from pyarrow import ArrowException, parquet

        try:
            return "features" in parquet.read_schema(path).names
        except (ArrowException, OSError):
            return False
    return is_file(path / MANIFEST_FILE) or (path.suffix.lower() == ".npy" and is_file(path))


def _read_hashes(features: Features, on_progress: OnProgress) -> np.ndarray | None:
    """Return hashes of an embedded collection's photos, 0 for those whose path leads to no file; None if all."""
    paths = features.files()
    there = [(number, path) for number, path in enumerate(paths) if is_file(path)] if _are_there(paths) else []
    if not there:
        return None
    hashes = np.zeros((features.rows, 2), np.uint64)
    fit: Any = features.made_with.get("fit")
    listed = (Item(str(number), partial(str, path)) for number, path in there)
    done = 0
    for batch in decode_batches(listed, Preprocessing(_HASHED_SIZE, fit)):
        hashes[[int(key) for key in batch.keys]] = hashes_of(batch.images)
        done += len(batch.inputs)
        on_progress(Stage("hashes", "photo"), done, len(there))
    return hashes


def _order(features: Features, paths: Sequence[str], keep: Keep) -> np.ndarray:
    """Return all row numbers, those to keep rather than others first."""
    rows = np.arange(features.rows)
    if keep == "first":
        return rows
    facts = [_stat(path) for path in paths] if _are_there(paths) else [_stat("")] * len(paths)
    if keep == "oldest":
        return np.lexsort((rows, np.array([modified for _, modified in facts])))
    pixels = features.column("width").to_numpy().astype(np.int64) * features.column("height").to_numpy()
    return np.lexsort((rows, -np.array([size for size, _ in facts]), -pixels))


def _are_there(paths: Sequence[str]) -> bool:
    """Tell whether photos lie where their paths say: of a million, a thousand are looked for."""
    return any(is_file(path) for path in paths[:: max(1, len(paths) // _LOOKED_FOR)])


def _newer(features: Features, paths: Sequence[str], groups: Sequence[Group]) -> int:
    """Return how many photos in groups have a later date than their features."""
    members = {group.keep for group in groups} | {other.path for group in groups for other in group.others}
    newer = 0
    for shard in features.shards if members else ():
        made = shard.file.stat().st_mtime
        mine = (path for path in paths[shard.start : shard.start + shard.rows] if path in members)
        newer += sum(made < _stat(path)[1] < np.inf for path in mine)
    return newer


def _stat(path: str) -> tuple[int, float]:
    """Return a file's size and date; 0 and infinite where there is none."""
    try:
        info = os.stat(path)  # noqa: PTH116  (of a million)
    except (OSError, ValueError):
        return 0, np.inf
    return info.st_size, info.st_mtime


_Pair = tuple[str, str, float]  # the one to keep, its copy, similarity


def _pairs(stars: Stars, paths: Sequence[str]) -> list[_Pair]:
    copies = np.flatnonzero(stars.centre != np.arange(len(stars.centre)))
    pairs: list[_Pair] = []
    for row in map(int, copies[np.lexsort((copies, stars.centre[copies]))]):
        pairs.append((paths[int(stars.centre[row])], paths[row], float(stars.similarity[row])))
    return pairs


def _in_other(features: Features, against: Any, threshold: Threshold, on_progress: OnProgress) -> list[_Pair]:
    """Return what is in another collection already."""
    searcher = Searcher(against, on_progress=on_progress)
    mine, theirs = (each.made_with.get("weights_sha256") for each in (features, searcher.features))
    if mine != theirs or features.num_features != searcher.features.num_features:
        raise InputError(
            f"{searcher.features.path} was made with another module than {features.path}: their vectors cannot be "
            "compared; embed one of them again"
        )
    paths = features.files()
    pairs: list[_Pair] = []
    for start, block in features.blocks():
        for first in range(0, len(block), _QUERIES):
            for row, matches in enumerate(searcher.nearest(block[first : first + _QUERIES], 1), start + first):
                if matches and matches[0].similarity >= threshold.cosine:
                    pairs.append((matches[0].path, paths[row], matches[0].similarity))
            on_progress(Stage("copies", "photo"), start + first, features.rows)
    return sorted(pairs)


def _groups(
    pairs: Sequence[_Pair], reader: Callable[[str], Any], on_progress: OnProgress
) -> tuple[tuple[Group, ...], int]:
    """Return groups of pairs that stand together, and how many of them are names of one file."""
    groups: list[Group] = []
    links = 0
    held: list[Duplicate] = []
    seen: set[tuple[int, int]] = set()
    for number, (keep, copy, similarity) in enumerate(pairs):
        if not number or pairs[number - 1][0] != keep:
            seen, held = {_identity(keep)} - {None}, []  # type: ignore[assignment]
        identity = _identity(copy)
        if identity is not None and identity in seen:
            links += 1
        else:
            seen |= {identity} - {None}  # type: ignore[arg-type]
            held.append(Duplicate(copy, kind_of(reader, keep, copy, similarity), min(similarity, 1.0)))
        if number + 1 == len(pairs) or pairs[number + 1][0] != keep:
            if held:
                groups.append(Group(keep, tuple(held)))
            on_progress(Stage("kinds", "photo"), number + 1, len(pairs))
    return tuple(groups), links


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino


def kind_of(reader: Callable[[str], Any], keep: str, copy: str, similarity: float) -> Kind:
    """Tell how a copy is one, by reading both where they are all but equal."""
    if similarity < _EQUAL_RESAVED:
        return "near"
    try:
        first, second = (_bytes(reader(path)) for path in (keep, copy))
        if first == second:
            return "same file"
        if similarity < _ALL_BUT_EQUAL and first.startswith(_JPEG) == second.startswith(_JPEG):
            return "near"
        return "same pixels" if np.array_equal(decode_image(first), decode_image(second)) else "near"
    except (ImageError, InputError, OSError):
        return "near"


def _bytes(source: Any) -> bytes:
    return source if isinstance(source, bytes) else read_bytes(source)


def _reader(inputs: Sequence[Any]) -> Callable[[str], Any]:
    """Return what reads a photo by its name, also one in an archive."""
    archived: dict[str, Item] = {}

    def read(key: str) -> Any:
        if is_file(key):
            return key
        if not archived:
            archived.update((item.key, item) for item in items(inputs) if not is_file(item.key))
        return archived[key].read() if key in archived else key

    return read
