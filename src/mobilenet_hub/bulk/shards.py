"""Output that is never lost: Parquet shards, each complete or absent, a manifest, and going on where it stopped.

A shard holds the rows of a fixed number of inputs. It is written under a temporary name, synced and renamed; then the
manifest, which lists the finished shards, is replaced in the same way. What the manifest does not list does not count,
so a run killed at any moment goes on from the last shard it lists and ends with the same bytes as one that was not.
"""

import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mobilenet_hub.bulk.manifest import (
    MANIFEST_FILE,
    METADATA_PREFIX,
    PART_FILE,
    SKIPPED_FILE,
    SKIPPED_HEADING,
    WHOLE,
    Manifest,
    Part,
    add_key,
    as_metadata,
    csv_lines,
    refuse_other_settings,
    shard_name,
)
from mobilenet_hub.bulk.shard_file import ShardFile, schema_of
from mobilenet_hub.bulk.skipped_list import SkippedList
from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.files import PARTIAL, replacing, sha256_of
from mobilenet_hub.host.locks import LOCK_FILE, claimed
from mobilenet_hub.host.object_path import ObjectPath, Place, make_folder, where_full
from mobilenet_hub.host.ownership import note_kept
from mobilenet_hub.host.stores import StoreError
from mobilenet_hub.images.skipped import Skipped

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema

# What a killed run may leave without a manifest, finished or under a name of `replacing`.
_OWN = rf"part-(\d+)\.parquet|{MANIFEST_FILE}|{SKIPPED_FILE}"
_UNFINISHED = re.compile(rf"\.?({_OWN})(\..*)?{PARTIAL}")
_LEFTOVER = re.compile(rf"part-\d+\.parquet|{SKIPPED_FILE}|{LOCK_FILE}|{_UNFINISHED.pattern}")
_FIRST = re.compile(rf"part-00000\.parquet|{SKIPPED_FILE}|{LOCK_FILE}|{_UNFINISHED.pattern}")
_START = 1 << 12  # bytes of a file that tell whether it is a list of ours
# What other parts of the same run may have in a folder that they share.
_SHARED = re.compile(
    rf"part-\d+\.parquet|{PART_FILE.pattern}|\.?(?:part-\d+\.parquet|{PART_FILE.pattern})(?:\..*)?{PARTIAL}"
)


class Keyed(Protocol):
    """Anything with a name."""

    @property
    def key(self) -> str:
        """The name."""
        ...


AnyKeyed = TypeVar("AnyKeyed", bound=Keyed)


class Shards:
    """A folder of shards, of a run or of one part of it, that one process at a time writes; a context manager.

    Attributes:
        folder: where the shards are.
        part: which shards of the run are written here.
        complete: whether all inputs are done with.
    """

    def __init__(self, folder: Place, settings: Mapping[str, Any], schema: "Schema", part: Part = WHOLE):
        """Open a folder, new or with what an earlier run has finished.

        Args:
            folder: made where it is not there; several parts of one run may share it.
            settings: whatever the rows depend on: a run with others is refused. `settings["shard_size"]` is the
                number of inputs of a shard.
            schema: of the rows; the settings become its metadata.
            part: which shards to write.

        Raises:
            InputError: the folder was made with other settings, or holds something else.
            OutputError: the folder cannot be written, or another process is writing it.
        """
        self.folder, self.part = folder, part
        self._manifest = Manifest(dict(settings))
        self._shard_size: int = settings["shard_size"]
        self._schema = schema.with_metadata(as_metadata(settings))
        self._digests: dict[int, str] = {}  # by shard, of the names of all inputs to its end
        self._file: ShardFile | None = None
        self._skipped = SkippedList(self.skipped_file)
        self._open = ExitStack()
        with _explained(folder):
            make_folder(folder)
            self._open.enter_context(claimed(folder / part.name(LOCK_FILE), folder))
        try:
            with _explained(folder):
                self._begin()
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            note_kept(error, self.folder)
        if self._file is not None:
            self._file.discard()
        self._skipped.close()
        self._open.close()

    @property
    def complete(self) -> bool:
        """Whether all inputs are done with."""
        return self._manifest.complete

    @property
    def inputs(self) -> int:
        """How many inputs are done with, those of earlier runs included."""
        return self._manifest.total("inputs")

    @property
    def rows(self) -> int:
        """How many rows are in finished shards."""
        return self._manifest.total("rows")

    @property
    def skipped(self) -> int:
        """How many inputs of finished shards were bad."""
        return self._manifest.total("skipped")

    @property
    def skipped_file(self) -> Place:
        """The list of the inputs that were bad."""
        return self.folder / self.part.name(SKIPPED_FILE)

    @property
    def keys_sha256(self) -> str:
        """The digest of the names of all inputs done with, in order."""
        shards = self._manifest.shards
        return shards[-1]["keys_sha256"] if shards else hashlib.sha256().hexdigest()

    @property
    def files(self) -> Sequence[Place]:
        """The finished shards, in order."""
        return [self.folder / shard["file"] for shard in self._manifest.shards]

    def wants(self, number: int) -> bool:
        """Tell of an input's number whether it is still to be done here."""
        shard = number // self._shard_size
        return self.part.has(shard) and shard // self.part.count >= len(self._manifest.shards)

    def remaining(self, items: Iterator[AnyKeyed]) -> Iterator[AnyKeyed]:
        """Yield the items that are to be done here, having seen that the others are those of the earlier run.

        Raises:
            InputError: the inputs have changed since.
        """
        digest, number = hashlib.sha256(), 0
        finished = self._finished()
        end = self._end()
        for number, item in enumerate(items, 1):
            if end is not None and number > end:
                raise InputError(
                    f"the inputs are more than the {end} that {self.folder} was made of; choose another output, "
                    "or delete it to begin again"
                )
            add_key(digest, item.key)
            if number in finished:
                self._compare(finished.pop(number), digest.hexdigest())
            if number % self._shard_size == 0:
                self._digests[number // self._shard_size - 1] = digest.hexdigest()
            if self.wants(number - 1):
                yield item
        if finished:
            self._compare(min(finished.values()), "")
        self._digests.setdefault((number - 1) // self._shard_size, digest.hexdigest())
        if self.part != WHOLE and not self.complete:
            self._manifest.inputs, self._manifest.keys_sha256 = number, digest.hexdigest()
        elif self.part != WHOLE and self._manifest.keys_sha256 not in (None, digest.hexdigest()):
            raise InputError(f"the inputs are not those that {self.folder} was made of; choose another output")

    def add(self, rows: "RecordBatch", inputs: Sequence[str], skipped: Sequence[Skipped]) -> None:
        """Add the rows of some inputs, and the inputs that gave none; at a shard's end, finish it.

        Args:
            rows: in the order of the inputs; no more inputs than are wanting to the shard's end.
            inputs: the names of all inputs.
            skipped: (name, reason) of those without a row.

        Raises:
            OutputError: the disk is full, or anything else that keeps the shard from being written.
        """
        with _explained(self.folder, self.rows):
            if self._file is None:
                self._file = ShardFile(self.folder / shard_name(self._next), self._schema)
            self._file.encoder.add(rows, len(inputs), skipped)
            if self._file.encoder.inputs >= self._shard_size:
                self._finish_file()

    def commit(self, content: bytes, inputs: int, rows: int, skipped: Sequence[Skipped]) -> None:
        """Take a whole shard that was encoded elsewhere; shards come in their order.

        Args:
            content: of the Parquet file, as an `Encoder` of this schema writes it.
            inputs: how many inputs it is of.
            rows: how many rows it has.
            skipped: (name, reason) of the inputs without a row.

        Raises:
            OutputError: as for `add`.
        """
        with _explained(self.folder, self.rows):
            path = self.folder / shard_name(self._next)
            with replacing(path) as stream:
                stream.write(content)
            self._record(path, inputs, rows, skipped)

    def finish(self) -> None:
        """Finish the last shard and mark the whole as complete.

        Raises:
            OutputError: as for `add`.
        """
        with _explained(self.folder, self.rows):
            if self._file is not None:
                self._finish_file()
            if not self.complete:
                self._manifest.complete = True
                self._write_manifest()

    @property
    def schema(self) -> "Schema":
        """The schema of the rows, with the settings as its metadata."""
        return self._schema

    @property
    def _next(self) -> int:
        """The number of the shard that is written now."""
        return self.part.index + self.part.count * len(self._manifest.shards)

    def _finished(self) -> dict[int, int]:
        """Return at which number of inputs each finished shard of this part ends: ends to indices."""
        numbers = (self.part.index + self.part.count * index for index in range(len(self._manifest.shards)))
        return {
            number * self._shard_size + shard["inputs"]: index
            for index, (number, shard) in enumerate(zip(numbers, self._manifest.shards, strict=True))
        }

    def _end(self) -> int | None:
        """Return how many inputs the run has, where that is known: a shard that is not full is the last."""
        last = max(self._finished(), default=0)
        if self._manifest.inputs is not None:
            return self._manifest.inputs
        return last if last % self._shard_size or (self.complete and self.part == WHOLE) else None

    def _compare(self, index: int, digest: str) -> None:
        shard = self._manifest.shards[index]
        if digest != shard["keys_sha256"]:
            raise InputError(
                f"the inputs are not those that {self.folder} was begun with: they differ before or within shard "
                f"{self.part.index + self.part.count * index}, {shard['file']}; choose another output, or delete it to "
                "begin again"
            )

    def _finish_file(self) -> None:
        file, self._file = self._file, None
        assert file is not None
        file.finish()
        self._record(file.path, file.encoder.inputs, file.encoder.rows, file.encoder.skipped)

    def _record(self, path: Place, inputs: int, rows: int, skipped: Sequence[Skipped]) -> None:
        """Make a shard that has its name count."""
        number = self._next
        self._manifest.skipped_bytes = self._skipped.append(csv_lines(skipped))
        shard: dict[str, Any] = {"file": path.name, "inputs": inputs, "rows": rows, "skipped": len(skipped)}
        shard["keys_sha256"] = self._digests.pop(number)
        if self.part != WHOLE:  # for whoever merges
            shard |= {"sha256": sha256_of(path), "skipped_bytes": self._manifest.skipped_bytes}
        self._manifest.shards.append(shard)
        self._write_manifest()

    def _begin(self) -> None:
        """Read what an earlier run has finished, and remove what a killed one left that its manifest does not list."""
        file, whole = self.folder / self.part.name(MANIFEST_FILE), self.folder / MANIFEST_FILE
        if self.part != WHOLE and whole.exists() and not file.exists():
            self._take_merged(Manifest.read(whole))
            return
        if not file.exists():
            self._refuse_others()
            self._manifest.skipped_bytes = self._skipped.begin(csv_lines([SKIPPED_HEADING]))
            self._write_manifest()
        else:
            settings, self._manifest = self._manifest.settings, Manifest.read(file)
            refuse_other_settings(self.folder, self._manifest.settings, settings)
            self._manifest.settings = settings
            there = {entry.name for entry in self.folder.iterdir()}
            if missing := [path for path in self.files if path.name not in there]:
                raise InputError(f"{missing[0]} is in the manifest and not there; delete {self.folder} to begin again")
        self._skipped.go_on(self._manifest.skipped_bytes)
        for left in self.folder.iterdir():
            found = _UNFINISHED.fullmatch(left.name)
            if found and (self.part == WHOLE or (found[2] and self.part.has(int(found[2])))):
                left.unlink()
        (self.folder / shard_name(self._next)).unlink(missing_ok=True)

    def _take_merged(self, manifest: Manifest) -> None:
        """Go on from a run that is merged already: nothing is left to do for any part of it."""
        if not manifest.complete:
            raise InputError(f"{self.folder} holds a run that is not one of parts; choose another output")
        refuse_other_settings(self.folder, manifest.settings, self._manifest.settings)
        self._manifest.inputs = manifest.total("inputs")
        self._manifest.shards = [s for number, s in enumerate(manifest.shards) if self.part.has(number)]
        self._manifest.complete = True

    def _refuse_others(self) -> None:
        allowed = _FIRST if self.part == WHOLE else _SHARED
        others = sorted(e.name for e in self.folder.iterdir() if not (allowed.fullmatch(e.name) and is_written_here(e)))
        if others and PART_FILE.fullmatch(others[0]):
            raise InputError(f"{self.folder} holds parts of a run: merge them, or choose a new folder")
        if others:
            raise InputError(f"{self.folder} holds something else ({others[0]}); choose a new folder")
        if self.part != WHOLE:
            counts = {int(found[2]) for entry in self.folder.iterdir() if (found := PART_FILE.fullmatch(entry.name))}
            if counts - {self.part.count}:
                raise InputError(
                    f"{self.folder} holds parts of a run in {min(counts - {self.part.count})}, not in "
                    f"{self.part.count}; choose a new folder"
                )

    def _write_manifest(self) -> None:
        self._manifest.write(self.folder / self.part.name(MANIFEST_FILE))


class _explained:
    """Turn the system's errors into ours, saying what is safe."""

    def __init__(self, path: Place, rows: int = 0):
        self._path, self._rows = path, rows

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, OutputError | InputError):
            return
        if isinstance(self._path, ObjectPath):
            error = where_full(error)
        kept = f"; the {self._rows} rows of finished shards are kept: run the same command again to go on"
        raise OutputError(
            f"{self._path} cannot be written: {error.strerror or error}{kept if self._rows else ''}"
        ) from error


def is_written_here(file: Place) -> bool:
    """Tell by its content whether a file with a name of ours is ours: the user may have one of that name.

    Only shards and lists of what was skipped need to be asked: half a file under a partial name has no content to tell.
    """
    from pyarrow import ArrowException

    try:
        if file.name.endswith(SKIPPED_FILE):
            with file.open("rb") as stream:
                start = csv_lines([SKIPPED_HEADING])
                return stream.read(_START)[: len(start)] == start
        if file.suffix == ".parquet":
            metadata = schema_of(file).metadata or {}
            return any(key.startswith(METADATA_PREFIX.encode()) for key in metadata)
    except StoreError:
        raise
    except (ArrowException, OSError, ValueError):
        return False
    return True


def discard_leftovers(folder: Place) -> None:
    """Remove a folder that holds nothing but shards without a manifest."""
    try:
        entries = list(folder.iterdir())
    except OSError:
        return
    if all(_LEFTOVER.fullmatch(entry.name) and is_written_here(entry) for entry in entries):
        remove_folder(folder)


def remove_folder(folder: Place) -> None:
    """Remove a folder of shards with all that is in it, as far as that can be."""
    if not isinstance(folder, ObjectPath):
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError):
        folder.remove_below()
