"""Output that is never lost: Parquet shards, each complete or absent, a manifest, and going on where it stopped.

A shard holds the rows of a fixed number of inputs. It is written under a temporary name, synced and renamed; then the
manifest, which lists the finished shards, is replaced in the same way. What the manifest does not list does not count,
so a run killed at any moment goes on from the last shard it lists and ends with the same bytes as one that was not.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mobilenet_hub.bulk.part import Part
from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.files import PARTIAL, printable, replacing
from mobilenet_hub.host.locks import LOCK_FILE, claimed

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema

FORMAT = 1
MANIFEST_FILE, SKIPPED_FILE = "manifest.json", "skipped.csv"
DEFAULT_SHARD_SIZE = 4096
METADATA_PREFIX = "mobilenet_hub."
# What a killed run may leave without a manifest, finished or under a name of `replacing`.
_UNFINISHED = re.compile(rf"\.?(part-\d+\.parquet|{MANIFEST_FILE}|{SKIPPED_FILE})(\..*)?{PARTIAL}")
_LEFTOVER = re.compile(rf"part-\d+\.parquet|{SKIPPED_FILE}|{LOCK_FILE}|{_UNFINISHED.pattern}")
_FIRST = re.compile(rf"part-00000\.parquet|{SKIPPED_FILE}|{LOCK_FILE}|{_UNFINISHED.pattern}")


class Keyed(Protocol):
    """Anything with a name."""

    @property
    def key(self) -> str:
        """The name."""
        ...


AnyKeyed = TypeVar("AnyKeyed", bound=Keyed)


class Shards:
    """A folder of shards that one process at a time writes; a context manager.

    Attributes:
        folder: where the shards are.
        inputs: how many inputs are done with, those of earlier runs included.
        rows: how many rows are in finished shards.
        skipped: how many inputs were bad, in finished shards.
        complete: whether all inputs are done with.
        keys_sha256: of the names of all inputs done with.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], schema: "Schema"):
        """Open a folder, new or with what an earlier run has finished.

        Args:
            folder: made where it is not there.
            settings: whatever the rows depend on: a run with others is refused. `settings["shard_size"]` is the
                number of inputs of a shard.
            schema: of the rows; the settings become its metadata.

        Raises:
            InputError: the folder was made with other settings, or holds something else.
            OutputError: the folder cannot be written, or another process is writing it.
        """
        self.folder = folder
        self._settings = dict(settings)
        self._schema = schema.with_metadata(as_metadata(settings))
        self._shards: list[dict[str, Any]] = []
        self._hash = hashlib.sha256()
        self._skipped_bytes = 0
        self._part: Part | None = None
        self._open = ExitStack()
        self.complete = False
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._open.enter_context(claimed(folder / LOCK_FILE, folder))
        try:
            with _explained(folder):
                self._read_manifest()
                self._clear()
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_: object) -> None:
        if self._part is not None:
            self._part.discard()
        self._open.close()

    @property
    def inputs(self) -> int:
        """How many inputs are done with."""
        return sum(shard["inputs"] for shard in self._shards)

    @property
    def rows(self) -> int:
        """How many rows are in finished shards."""
        return sum(shard["rows"] for shard in self._shards)

    @property
    def skipped(self) -> int:
        """How many inputs of finished shards were bad."""
        return sum(shard["skipped"] for shard in self._shards)

    @property
    def keys_sha256(self) -> str:
        """The digest of the names of all inputs done with, in order."""
        return self._shards[-1]["keys_sha256"] if self._shards else self._hash.hexdigest()

    @property
    def files(self) -> list[Path]:
        """The finished shards, in order."""
        return [self.folder / shard["file"] for shard in self._shards]

    def remaining(self, items: Iterator[AnyKeyed]) -> Iterator[AnyKeyed]:
        """Return the items that are not done with, having seen that the first ones are those of the earlier run.

        Raises:
            InputError: the inputs have changed since.
        """
        for number, shard in enumerate(self._shards):
            for item in islice(items, shard["inputs"]):
                add_key(self._hash, item.key)
            if self._hash.hexdigest() != shard["keys_sha256"]:
                raise InputError(
                    f"the inputs are not those that {self.folder} was begun with: they differ before or within shard "
                    f"{number}, {shard['file']}; choose another output, or delete it to begin again"
                )
        if self.complete and next(items, None) is not None:
            raise InputError(
                f"the inputs are more than the {self.inputs} that {self.folder} was made of; choose another output, or "
                "delete it to begin again"
            )
        return items

    def add(self, rows: "RecordBatch", inputs: Sequence[str], skipped: Sequence[tuple[str, str]]) -> None:
        """Add the rows of some inputs, and the inputs that gave none; at a shard's end, finish it.

        Args:
            rows: in the order of the inputs; no more inputs than are wanting to the shard's end.
            inputs: the names of all inputs.
            skipped: (name, reason) of those without a row.

        Raises:
            OutputError: the disk is full, or anything else that keeps the shard from being written.
        """
        with _explained(self.folder, self.rows):
            if self._part is None:
                self._part = Part(self.folder / f"part-{len(self._shards):05d}.parquet", self._schema)
            self._part.add(rows, inputs, skipped)
            for key in inputs:
                add_key(self._hash, key)
            if self._part.inputs >= self._settings["shard_size"]:
                self._finish_part()

    def finish(self) -> None:
        """Finish the last shard and mark the whole as complete.

        Raises:
            OutputError: as for `add`.
        """
        with _explained(self.folder, self.rows):
            if self._part is not None:
                self._finish_part()
            if not self.complete:
                self.complete = True
                self._write_manifest()

    def _finish_part(self) -> None:
        part, self._part = self._part, None
        assert part is not None
        part.finish()
        with (self.folder / SKIPPED_FILE).open("ab") as file:
            file.write(_csv_lines(part.skipped))
            file.flush()
            os.fsync(file.fileno())
            self._skipped_bytes = file.tell()
        counts = {"inputs": part.inputs, "rows": part.rows, "skipped": len(part.skipped)}
        self._shards.append({"file": part.path.name, **counts, "keys_sha256": self._hash.hexdigest()})
        self._write_manifest()

    def _read_manifest(self) -> None:
        file = self.folder / MANIFEST_FILE
        if not file.exists():
            others = [entry.name for entry in self.folder.iterdir() if not _FIRST.fullmatch(entry.name)]
            if others:
                raise InputError(f"{self.folder} holds something else ({sorted(others)[0]}); choose a new folder")
            with replacing(self.folder / SKIPPED_FILE) as file:
                file.write(_csv_lines([("path", "reason")]))
            self._skipped_bytes = (self.folder / SKIPPED_FILE).stat().st_size
            self._write_manifest()
            return
        try:
            manifest = json.loads(file.read_bytes())
            settings = manifest["settings"]
            self._shards, self.complete = manifest["shards"], manifest["complete"]
            self._skipped_bytes = manifest["skipped_bytes"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is not a manifest of this program ({error}); choose a new folder") from None
        refuse_other_settings(self.folder, settings, self._settings)
        missing = [path for path in self.files if not path.is_file()]
        if missing:
            raise InputError(f"{missing[0]} is in the manifest and not there; delete {self.folder} to begin again")

    def _clear(self) -> None:
        """Remove what a killed run left that the manifest does not list."""
        os.truncate(self.folder / SKIPPED_FILE, self._skipped_bytes)
        for left in self.folder.iterdir():
            if _UNFINISHED.fullmatch(left.name):
                left.unlink()
        (self.folder / f"part-{len(self._shards):05d}.parquet").unlink(missing_ok=True)

    def _write_manifest(self) -> None:
        manifest = {
            "format": FORMAT,
            "settings": self._settings,
            "complete": self.complete,
            "skipped_bytes": self._skipped_bytes,
            "shards": self._shards,
        }
        with replacing(self.folder / MANIFEST_FILE) as file:
            file.write(json.dumps(manifest, indent=1, ensure_ascii=False).encode())


class _explained:
    """Turn the system's errors into ours, saying what is safe."""

    def __init__(self, path: Path, rows: int = 0):
        self._path, self._rows = path, rows

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, OSError) or isinstance(error, OutputError | InputError):
            return
        kept = f"; the {self._rows} rows of finished shards are kept: run the same command again to go on"
        raise OutputError(
            f"{self._path} cannot be written: {error.strerror or error}{kept if self._rows else ''}"
        ) from error


def discard_leftovers(folder: Path) -> None:
    """Remove a folder that holds nothing but shards without a manifest."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return
    if all(_LEFTOVER.fullmatch(name) for name in names):
        shutil.rmtree(folder, ignore_errors=True)


def as_metadata(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as a schema's metadata.

    Example:
        >>> as_metadata({"fit": "center"})
        {'mobilenet_hub.fit': 'center'}
    """
    return {f"{METADATA_PREFIX}{name}": value for name, value in as_text(settings).items()}


def as_text(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings with each value as text, JSON where it is none.

    Example:
        >>> as_text({"fit": "center", "limit": None})
        {'fit': 'center', 'limit': 'null'}
    """
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}


def refuse_other_settings(output: Path, made_with: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Refuse to mix rows made with different settings.

    Raises:
        InputError: they differ; names each setting that does.

    Example:
        >>> refuse_other_settings(Path("out"), {"fit": "pad"}, {"fit": "pad"})
    """
    names = [name for name in {**made_with, **asked} if made_with.get(name) != asked.get(name)]
    if names:
        changes = ", ".join(f"{name} {made_with.get(name)!r} and not {asked.get(name)!r}" for name in names)
        raise InputError(
            f"{output} was made with {changes}; rows of both must not mix: choose another output, or delete it to "
            "begin again"
        )


def add_key(digest: Any, key: str) -> None:
    """Add an input's name to a digest of names."""
    digest.update(os.fsencode(key))
    digest.update(b"\0")


def _csv_lines(rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    plain, quoting = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        (quoting if any("\r" in cell for cell in row) else plain).writerow([printable(cell) for cell in row])
    return text.getvalue().encode("utf-8", "backslashreplace")
