"""The features of a data set's photos out of what `embed` wrote, on one machine or on many: no photo is decoded."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilenet_hub.bulk.manifest import MANIFEST_FILE, SKIPPED_FILE, Manifest, as_text, read_skipped
from mobilenet_hub.bulk.single_file import index_of, settings_of, skipped_of
from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.dataset import Example
from mobilenet_hub.host.files import is_file, is_folder, printable
from mobilenet_hub.host.stores import demand_local
from mobilenet_hub.images.skipped import Skipped
from mobilenet_hub.training.features import Features

if TYPE_CHECKING:
    from pyarrow import RecordBatch

_NAMED = 3  # photos that have no row
_ROWS = 1024  # read at a time


def read_features(
    path: Path, examples: Sequence[Example], made_with: Mapping[str, str]
) -> tuple[Features, dict[str, str]]:
    """Return the features of photos, and what else they were made with ("precision", "engine", "dtype").

    A photo is known by its path: as it was when they were computed, or below the folder that was given then.

    Args:
        path: the folder, .parquet or .npy that `embed` wrote.
        examples: the photos.
        made_with: the settings that they must have been made with, as text.

    Raises:
        InputError: they were not made by `embed`, not to the end, or otherwise; or photos are missing there.
    """
    demand_local(path, "the features")
    settings, files, skipped_file = _described(path)
    other = {name: settings.get(name) for name, value in made_with.items() if settings.get(name) != value}
    if other or settings.get("command") != "embed":
        wanted = ", ".join(f"{name} {made_with[name]}, not {value}" for name, value in other.items()) or "by `embed`"
        raise InputError(f"{path} cannot be trained on: it must be made with {wanted}; run `mobilenet embed` again")
    names = _Names(examples, json.loads(settings["inputs"]))
    vectors: dict[str, np.ndarray] = {}
    for keys, rows in _rows(files):
        for index, digest in ((i, digest) for i, key in enumerate(keys) for digest in names.digests(key)):
            vectors[digest] = rows[index : index + 1].astype(np.float32)
    skipped = read_skipped(skipped_file) if is_file(skipped_file) else []
    bad = {digest: reason for name, reason in skipped for digest in names.digests(name)}
    missing = [e for e in examples if e.digest not in vectors and e.digest not in bad]
    if missing:
        named = ", ".join(str(e.path) for e in missing[:_NAMED])
        raise InputError(
            f"{len(missing)} of {len(examples)} photos are not in {path}, the first {named}: run `mobilenet embed` on "
            "the same folder again, into a new place"
        )
    left_out = tuple(Skipped(str(e.path), bad[e.digest]) for e in examples if e.digest not in vectors)
    return Features(vectors, left_out), {name: settings[name] for name in ("precision", "engine", "dtype")}


class _Names:
    """Which photo a name in an output stands for."""

    def __init__(self, examples: Sequence[Example], inputs: Sequence[str]):
        self._digests: dict[str, set[str]] = {}
        self._below: dict[str, set[str]] = {}  # by the ends of the paths
        for example in examples:
            self._digests.setdefault(_full(example.path), set()).add(example.digest)
            parts = example.path.parts
            for start in range(len(parts)):
                self._below.setdefault(printable("/".join(parts[start:])), set()).add(example.digest)
        self._inputs = [f"{name.rstrip('/')}/" for name in inputs]

    def digests(self, name: str) -> set[str]:
        """Return the digests of the photos of a name: none where it is no photo's, or might be several'."""
        found = self._digests.get(_full(Path(name)))
        above = next((folder for folder in self._inputs if name.startswith(folder)), None)
        if found is None and above is not None:
            found = self._below.get(name.removeprefix(above), set())
            return found if len(found) == 1 else set()
        return found or set()


def _full(path: Path) -> str:
    return printable(os.path.normpath(path.absolute()))


def _described(path: Path) -> tuple[dict[str, str], list[Path], Path]:
    """Return the settings of an output, its files and its list of what was skipped."""
    from pyarrow import ArrowException

    if is_folder(path):
        manifest = Manifest.read(path / MANIFEST_FILE) if is_file(path / MANIFEST_FILE) else None
        if manifest is None or not manifest.complete:
            raise InputError(
                f"{path} is not finished, or not what `mobilenet embed -o` writes: run its command again, `mobilenet "
                "merge` where it was computed in parts"
            )
        files = [path / shard["file"] for shard in manifest.shards]
        return as_text(manifest.settings), files, path / SKIPPED_FILE
    try:
        return settings_of(path), [path], skipped_of(path)  # type: ignore[return-value]
    except (OSError, ArrowException, ValueError):
        raise InputError(f"{path} is not what `mobilenet embed -o` writes") from None


def _rows(files: Sequence[Path]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield (names, features [n, num_features])."""
    from pyarrow import ArrowException, parquet

    for file in files:
        try:
            is_array = file.suffix.lower() == ".npy"
            array = np.load(file, mmap_mode="r") if is_array else None
            start = 0
            with parquet.ParquetFile(index_of(file) if is_array else file) as table:
                for batch in table.iter_batches(_ROWS, columns=["path"] if is_array else ["path", "features"]):
                    rows = _vectors(batch) if array is None else array[start : start + batch.num_rows]
                    start += batch.num_rows
                    yield batch.column("path").to_pylist(), rows
        except (OSError, ArrowException, ValueError) as error:
            raise InputError(f"{file} cannot be read ({error}); run `mobilenet embed` again") from None


def _vectors(batch: "RecordBatch") -> np.ndarray:
    column = batch.column("features")
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
