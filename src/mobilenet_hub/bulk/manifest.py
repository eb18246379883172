"""What is written down of a run: its settings, its finished shards, and which of them one machine of several computes.

A manifest lists the finished shards; what it does not list does not count. A run on one machine has `manifest.json`
and `skipped.csv`; the parts of one on several have their own beside the shards, until `merge` makes those two of them.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilenet_hub.errors import InputError
from mobilenet_hub.host.files import printable, replacing
from mobilenet_hub.host.locks import LOCK_FILE

if TYPE_CHECKING:
    from pyarrow import Schema

    from mobilenet_hub.host.object_path import Place

FORMAT = 1
MANIFEST_FILE, SKIPPED_FILE = "manifest.json", "skipped.csv"
SKIPPED_HEADING = ("path", "reason")
DEFAULT_SHARD_SIZE = 4096
METADATA_PREFIX = "mobilenet_hub."
_MAX_PARTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """Which shards of a run are computed here: those whose number is `index` modulo `count`.

    Modulo, and not one stretch of the inputs each: then nobody needs to know how many inputs there are before the
    first shard is begun, and a folder of large photos is shared out among all.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Part":
        """Read "I/N".

        Raises:
            InputError: not two numbers, or I is not 0 to N - 1.

        Example:
            >>> Part.parse("2/7")
            Part(index=2, count=7)
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not found or not int(found[1]) < int(found[2]) <= _MAX_PARTS:
            raise InputError(f"a part is I/N, with I from 0 to N - 1, as 0/4 to 3/4; not {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def has(self, shard: int) -> bool:
        """Tell whether a shard is computed here."""
        return shard % self.count == self.index

    def share(self, inputs: int, shard_size: int) -> int:
        """Return how many of so many inputs are computed here.

        Example:
            >>> [Part(index, 3).share(10, 2) for index in range(3)]
            [4, 4, 2]
        """
        starts = range(self.index * shard_size, inputs, self.count * shard_size)
        return sum(min(shard_size, inputs - start) for start in starts)

    def name(self, file: str) -> str:
        """Return what a file of the whole run is called of this part.

        Example:
            >>> Part(2, 7).name("manifest.json"), Part().name("manifest.json")
            ('manifest.part-2-of-7.json', 'manifest.json')
        """
        stem, ending = os.path.splitext(file)  # noqa: PTH122
        return file if self == WHOLE else f"{stem}.part-{self.index}-of-{self.count}{ending}"


WHOLE = Part()
PART_FILE = re.compile(rf"(?:manifest|skipped|{re.escape(LOCK_FILE)})\.part-(\d+)-of-(\d+)(?:\.json|\.csv)?")


@dataclass
class Manifest:
    """The settings of a run and its finished shards, in order."""

    settings: dict[str, Any]
    complete: bool = False
    skipped_bytes: int = 0  # of the list of what was skipped, that finished shards account for
    shards: list[dict[str, Any]] = field(default_factory=list)
    keys_sha256: str | None = None  # of a finished part: of all inputs of the run
    inputs: int | None = None  # of a finished part: of the whole run
    tag: str | None = field(default=None, compare=False)  # of the object in a store that it was last read from

    @classmethod
    def read(cls, file: "Place") -> "Manifest":
        """Read it back.

        Raises:
            InputError: it is damaged, or none of this program.
        """
        tag = None if isinstance(file, Path) else file.tag()
        content = file.read_bytes()
        try:
            data = json.loads(content)
            known = cls(data["settings"], data["complete"], data["skipped_bytes"], data["shards"])
            known.tag = tag
            known.keys_sha256, known.inputs = data.get("keys_sha256"), data.get("inputs")
            sums = [shard["inputs"] + shard["rows"] + shard["skipped"] for shard in known.shards]
            if not isinstance(known.settings, dict) or not all(isinstance(number, int) for number in sums):
                raise ValueError("not the values that this program writes")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is not a manifest of this program ({error}); choose a new folder") from None
        return known

    def total(self, name: str) -> int:
        """Return a count of all finished shards: "inputs", "rows" or "skipped"."""
        return sum(shard[name] for shard in self.shards)

    def write(self, file: "Place") -> None:
        """Write it, whole or not at all; in a store only over what this process has read or written there itself."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "settings": self.settings,
            "complete": self.complete,
            "skipped_bytes": self.skipped_bytes,
            "shards": self.shards,
        }
        if self.inputs is not None:
            data |= {"keys_sha256": self.keys_sha256, "inputs": self.inputs}
        content = json.dumps(data, indent=1, ensure_ascii=False).encode()
        if not isinstance(file, Path):
            self.tag = file.write_if(content, self.tag)
            return
        with replacing(file) as stream:
            stream.write(content)


def shard_name(number: int) -> str:
    """Return the file name of a shard.

    Example:
        >>> shard_name(3)
        'part-00003.parquet'
    """
    return f"part-{number:05d}.parquet"


def as_metadata(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as a schema's metadata.

    Example:
        >>> as_metadata({"fit": "center"})
        {'mobilenet_hub.fit': 'center'}
    """
    return {f"{METADATA_PREFIX}{name}": value for name, value in as_text(settings).items()}


def settings_in(schema: "Schema") -> dict[str, str]:
    """Return the settings that a schema's metadata holds, as text."""
    metadata, prefix = schema.metadata or {}, METADATA_PREFIX.encode()
    return {key[len(prefix) :].decode(): value.decode() for key, value in metadata.items() if key.startswith(prefix)}


def as_text(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings with each value as text, JSON where it is none.

    Example:
        >>> as_text({"fit": "center", "limit": None})
        {'fit': 'center', 'limit': 'null'}
    """
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}


def refuse_other_settings(output: "Place", made_with: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
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


def csv_lines(rows: Iterable[Sequence[str]]) -> bytes:
    """Return rows as lines of CSV, the same bytes for the same rows."""
    text = io.StringIO()
    plain, quoting = (csv.writer(text, lineterminator="\n", quoting=how) for how in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        (quoting if any("\r" in cell for cell in row) else plain).writerow([printable(cell) for cell in row])
    return text.getvalue().encode("utf-8", "backslashreplace")


def read_skipped(file: Path) -> list[tuple[str, str]]:
    """Return the (path, reason) of a list of what was skipped.

    Raises:
        OSError: it cannot be read.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        return [(row[0], row[1]) for row in list(csv.reader(stream))[1:]]
