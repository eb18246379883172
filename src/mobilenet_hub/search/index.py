"""The index of an embedded collection: codes for a fast scan, derived from the shards and never believed unchecked.

In the index folder lie segments, folders that are never changed once they stand, and `index.json`, which names them and
the shards that each covers, and is replaced last. Killed at any moment, or on a full disk, the old index stays, or
none. A segment's name is the digest of the shards' digests. When the index is opened, every file must be as it was: by
its size and times, or, where those differ, by its SHA-256; and the codes of some rows of every shard are made again.
New shards are a new segment; anything else that changed makes all of it anew.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mobilenet_hub.errors import CorruptFileError
from mobilenet_hub.host.files import beside, replacing, sha256_of, swap_folder
from mobilenet_hub.host.progress import OnProgress, Stage, silent
from mobilenet_hub.search.codes import CODE_LENGTH, OFFSET, RESIDUAL, SCALE, Basis, Codes
from mobilenet_hub.search.features import Features, Shard, directions
from mobilenet_hub.search.pages import Run

FORMAT = 1
INDEX_FILE = "index.json"
_SAMPLE = 16384  # rows that the basis is computed from
_MAX_SEGMENTS = 16  # beyond it all is made anew, as one
_GROWTH = 2.0  # likewise when the collection has grown by this factor since the basis was computed
_CANARIES = 2  # rows of each shard whose codes are made again when the index is opened
_CANARY_TOLERANCE = 1  # of a code: another CPU's matrix product may round the other way
_FACT_TOLERANCES = {SCALE: 1e-4, OFFSET: 1e-4, RESIDUAL: 1e-2}  # a residual is the root of what rounding leaves
_FILES = ("codes.npy", "rows.npy", "runs.npy")
_SEGMENT, _BASIS = re.compile(r"segment-[0-9a-f]{16}"), re.compile(r"basis-[0-9a-f]{16}\.npy")


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file was: enough to see cheaply that it is the same, and to make sure where that does not tell."""

    size: int
    modified_ns: int
    changed_ns: int
    sha256: str

    @classmethod
    def of(cls, file: Path) -> "Stamp":
        """Return the stamp of a file as it is."""
        info = file.stat()
        return cls(info.st_size, info.st_mtime_ns, info.st_ctime_ns, sha256_of(file))

    def renewed(self, file: Path) -> "Stamp | None":
        """Return the stamp of the file as it is now if its content is the same; None if it is not."""
        info = file.stat()
        if info.st_size != self.size:
            return None
        if (info.st_mtime_ns, info.st_ctime_ns) == (self.modified_ns, self.changed_ns):
            return self
        same = sha256_of(file) == self.sha256
        return replace(self, modified_ns=info.st_mtime_ns, changed_ns=info.st_ctime_ns) if same else None


@dataclass(frozen=True)
class Segment:
    """The codes of some shards."""

    shards: tuple[tuple[str, Stamp], ...]  # (file name, stamp)
    codes: Codes
    start: int  # number of its first row in the collection
    folder: Path | None  # None: in memory only

    @property
    def rows(self) -> int:
        """How many rows it covers."""
        return len(self.codes)


@dataclass(frozen=True)
class Index:
    """An index that covers all rows of a collection."""

    basis: Basis
    segments: tuple[Segment, ...]

    @property
    def rows(self) -> int:
        """How many rows it covers."""
        return sum(segment.rows for segment in self.segments)

    def candidates(self, queries: np.ndarray, count: int) -> list[np.ndarray]:
        """Return for each query, float32 [q, features] of length 1, the numbers of the `count` best rows by codes."""
        parts = [(s.start, s.codes.best(self.basis, queries, count)) for s in self.segments]
        found = []
        for query in range(len(queries)):
            numbers = np.concatenate([start + best[query][0] for start, best in parts])
            scores = np.concatenate([best[query][1] for _, best in parts])
            order = np.lexsort((numbers, -scores))[:count]
            found.append(numbers[order])
        return found


def open_index(features: Features, on_progress: OnProgress = silent) -> tuple[Index, str | None]:
    """Return the index of a collection: the one that is there, extended or made anew where that is needed.

    Returns:
        The index, and why it could not be kept on disk, if it could not.

    Raises:
        CorruptFileError: a shard cannot be read.
    """
    known = _read(features)
    if known is not None and known.rows == features.rows:
        return known, None
    if known is not None and (len(known.segments) >= _MAX_SEGMENTS or features.rows > _GROWTH * known.segments[0].rows):
        known = None
    basis = known.basis if known is not None else _basis(features)
    segments = known.segments if known is not None else ()
    covered, start = sum(len(segment.shards) for segment in segments), sum(segment.rows for segment in segments)
    try:
        features.index_folder.mkdir(exist_ok=True)
        segment = _make(features, basis, features.shards[covered:], start, features.index_folder, on_progress)
        index = Index(basis, (*segments, segment))
        _write(features, index)
        return index, None
    except OSError as error:
        if isinstance(error, CorruptFileError):
            raise
        segment = _make(features, basis, features.shards[covered:], start, None, on_progress)
        return Index(
            basis, (*segments, segment)
        ), f"{features.index_folder} cannot be written: {error.strerror or error}"


def _basis(features: Features) -> Basis:
    chosen = np.unique(np.linspace(0, max(features.rows - 1, 0), min(features.rows, _SAMPLE)).astype(np.int64))
    sample = directions(features.rows_of(chosen))
    return Basis.of(sample[sample.any(1)])


def _make(
    features: Features, basis: Basis, shards: Sequence[Shard], start: int, place: Path | None, report: OnProgress
) -> Segment:
    """Encode shards: into a new folder in `place`, or into memory."""
    rows = sum(shard.rows for shard in shards)
    length = basis.directions.shape[1]
    if place is None:
        codes, facts = np.empty((rows, length), np.int8), np.empty((rows, 3), np.float32)
        stamps = _encode(features, basis, shards, start, codes, facts, report)
        return Segment(stamps, Codes(codes, facts), start, None)
    with beside(place / "segment") as work:
        new = work / "new"
        new.mkdir()
        codes = np.lib.format.open_memmap(new / _FILES[0], "w+", np.int8, (rows, length))
        facts = np.lib.format.open_memmap(new / _FILES[1], "w+", np.float32, (rows, 3))
        _reserve(new)
        stamps = _encode(features, basis, shards, start, codes, facts, report)
        np.save(new / _FILES[2], _runs_table(shards))
        codes.flush()
        facts.flush()
        del codes, facts
        folder = place / _name(basis, stamps)
        swap_folder(new, folder, work / "old")
    return Segment(stamps, _load(folder), start, folder)


def _reserve(folder: Path) -> None:
    """Have the disk promise the room: written through a memory map, a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        for name in _FILES[:2]:
            file = folder / name
            with file.open("r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, file.stat().st_size)


def _encode(
    features: Features,
    basis: Basis,
    shards: Sequence[Shard],
    start: int,
    codes: np.ndarray,
    facts: np.ndarray,
    report: OnProgress,
) -> tuple[tuple[str, Stamp], ...]:
    with ThreadPoolExecutor(1) as hashing:
        stamps = [hashing.submit(Stamp.of, shard.file) for shard in shards]
        for first, block in features.blocks(shards):
            place = slice(first - start, first - start + len(block))
            codes[place], facts[place] = basis.encode(block)
            report(Stage("index", "photo"), place.stop, len(codes))
        return tuple((shard.file.name, stamp.result()) for shard, stamp in zip(shards, stamps, strict=True))


def _name(basis: Basis, stamps: Sequence[tuple[str, Stamp]]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {CODE_LENGTH}".encode())
    digest.update(np.ascontiguousarray(basis.directions).tobytes() + basis.mean.tobytes())
    for name, stamp in stamps:
        digest.update(f"{name} {stamp.sha256}\n".encode())
    return f"segment-{digest.hexdigest()[:16]}"


def _runs_table(shards: Sequence[Shard]) -> np.ndarray:
    """Return where the values of the shards lie, int64 [n, 4]: shard, first, offset, count."""
    table = [(i, run.first, run.offset, run.count) for i, shard in enumerate(shards) for run in shard.runs or ()]
    return np.array(table, np.int64).reshape(-1, 4)


def _load(folder: Path) -> Codes:
    return Codes(*(np.load(folder / name, mmap_mode="r") for name in _FILES[:2]))


def _write(features: Features, index: Index) -> None:
    """Make the index the one that counts, and remove segments that it does not name."""
    place = features.index_folder
    basis = f"basis-{_name(index.basis, ())[8:]}.npy"
    with replacing(place / basis) as file:
        np.save(file, np.vstack([index.basis.mean, index.basis.directions.T]))
    _write_json(features, index, basis)
    named = {segment.folder.name for segment in index.segments if segment.folder is not None} | {basis, INDEX_FILE}
    for entry in place.iterdir():
        if entry.name in named:
            continue
        if _SEGMENT.fullmatch(entry.name):
            shutil.rmtree(entry, ignore_errors=True)
        elif _BASIS.fullmatch(entry.name):
            with suppress(OSError):
                entry.unlink()


def _write_json(features: Features, index: Index, basis: str) -> None:
    place = features.index_folder
    described = {
        "format": FORMAT,
        "basis": {"file": basis, **asdict(Stamp.of(place / basis))},
        "segments": [
            {
                "folder": segment.folder.name,
                "files": {name: asdict(Stamp.of(segment.folder / name)) for name in _FILES},
                "shards": [{"file": name, **asdict(stamp)} for name, stamp in segment.shards],
            }
            for segment in index.segments
            if segment.folder is not None
        ],
    }
    with replacing(place / INDEX_FILE) as file:
        file.write(json.dumps(described, indent=1).encode())


def _read(features: Features) -> Index | None:
    """Return the index that is there, of all shards or the first ones; None where it is absent, old or in doubt."""
    place = features.index_folder
    try:
        described = json.loads((place / INDEX_FILE).read_bytes())
        if described["format"] != FORMAT or not described["segments"]:
            return None
        file = described["basis"]["file"]
        renewed = _is_renewed(place / file, _stamp(described["basis"]))
        array = np.load(place / file)
        basis = Basis(array[0], np.ascontiguousarray(array[1:].T))
        segments: list[Segment] = []
        for entry in described["segments"]:
            covered = sum(len(segment.shards) for segment in segments)
            shards = features.shards[covered : covered + len(entry["shards"])]
            segment = _read_segment(features, basis, shards, place / entry["folder"], entry)
            renewed |= segment.shards != tuple((listed["file"], _stamp(listed)) for listed in entry["shards"])
            renewed |= any(_is_renewed(place / entry["folder"] / n, _stamp(s)) for n, s in entry["files"].items())
            segments.append(segment)
    except (OSError, ValueError, KeyError, TypeError, IndexError, _ChangedError):
        return None
    index = Index(basis, tuple(segments))
    if renewed:  # copied, touched: next time this need not be read again
        with suppress(OSError):
            _write_json(features, index, file)
    return index


def _read_segment(
    features: Features, basis: Basis, shards: Sequence[Shard], folder: Path, entry: dict[str, Any]
) -> Segment:
    stamps = []
    for shard, listed in zip(shards, entry["shards"], strict=True):
        stamp = _stamp(listed).renewed(shard.file)
        if shard.file.name != listed["file"] or stamp is None:
            raise _ChangedError
        stamps.append((shard.file.name, stamp))
    for name in _FILES:
        _is_renewed(folder / name, _stamp(entry["files"][name]))
    codes = _load(folder)
    if len(codes) != sum(shard.rows for shard in shards):
        raise _ChangedError
    _give_runs(shards, np.load(folder / _FILES[2]))
    start = shards[0].start if shards else 0
    if not _canaries_agree(features, basis, shards, codes, start):
        raise _ChangedError
    return Segment(tuple(stamps), codes, start, folder)


class _ChangedError(Exception):
    """A file is not what it was."""


def _is_renewed(file: Path, stamp: Stamp) -> bool:
    """Tell whether a file's times are others than they were; its content must not be."""
    renewed = stamp.renewed(file)
    if renewed is None:
        raise _ChangedError
    return renewed != stamp


def _stamp(described: dict[str, Any]) -> Stamp:
    return Stamp(described["size"], described["modified_ns"], described["changed_ns"], described["sha256"])


def _give_runs(shards: Sequence[Shard], table: np.ndarray) -> None:
    """Tell shards where their values lie, so that not every file's pages are walked through."""
    for number, shard in enumerate(shards):
        mine = table[table[:, 0] == number]
        shard.__dict__["runs"] = tuple(Run(*map(int, row[1:])) for row in mine) or None


def _canaries_agree(features: Features, basis: Basis, shards: Sequence[Shard], codes: Codes, start: int) -> bool:
    """Make the codes of a few rows of each shard again, others each time."""
    random = np.random.default_rng()
    picked = [shard.start + random.integers(0, shard.rows, _CANARIES) for shard in shards if shard.rows]
    if not picked:
        return True
    numbers = np.unique(np.concatenate(picked))
    fresh, facts = basis.encode(features.rows_of(numbers))
    kept, known = codes.codes[numbers - start], codes.rows[numbers - start]
    near = np.abs(fresh.astype(np.int16) - kept.astype(np.int16)).max(initial=0) <= _CANARY_TOLERANCE
    return bool(near) and all(
        np.allclose(facts[:, column], known[:, column], rtol=1e-3, atol=tolerance)
        for column, tolerance in _FACT_TOLERANCES.items()
    )
