"""The parts of a run, computed anywhere, into what one uninterrupted run would have written: `merge`.

Every part has seen the names of all inputs, so that their digests tell whether all parts meant the same inputs in the
same order; every shard's bytes have a digest, so that one which came over a network damaged is noticed.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilenet_hub.bulk.manifest import (
    MANIFEST_FILE,
    PART_FILE,
    SKIPPED_FILE,
    SKIPPED_HEADING,
    Manifest,
    Part,
    csv_lines,
    refuse_other_settings,
    shard_name,
)
from mobilenet_hub.bulk.run import Summary
from mobilenet_hub.bulk.shard_file import schema_of
from mobilenet_hub.bulk.shards import Shards, discard_leftovers, is_written_here
from mobilenet_hub.bulk.single_file import assemble, check_places, is_single_file, shards_of, skipped_of, totals_of
from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.files import exists, is_folder, replacing, sha256_of
from mobilenet_hub.host.locks import LOCK_FILE, claimed, is_locked
from mobilenet_hub.host.object_path import Place, make_folder, place_of
from mobilenet_hub.host.progress import OnProgress, Stage, silent

_STAGE = Stage("merge", "shard")


@dataclass(frozen=True)
class _Found:
    """A part in a folder."""

    part: Part
    manifest: Manifest
    folder: Place


def merge(
    outputs: Sequence[str | os.PathLike[str]],
    into: str | os.PathLike[str] | None = None,
    *,
    on_progress: OnProgress = silent,
) -> Summary:
    """Verify the parts of a run and make the output that a single run would have made, byte for byte.

    Killed at any moment, the same call goes on; called again when all is done, it changes nothing.

    Args:
        outputs: what the parts were written to: one output that all of them shared, or several.
        into: the output to make, as for `write`; None: in the place of the one output. What is in `outputs` is then
            kept, shared with the new output where the file system can.
        on_progress: told how many shards are verified, and how many there are.

    Raises:
        InputError: a part is missing, unfinished or there twice; the parts differ in settings or inputs; a shard is
            missing or damaged. Says which; nothing was changed.
        OutputError: the output cannot be written, or a part is still being written.

    Example:
        >>> merge(["features/"])  # doctest: +SKIP
        Summary(output=PosixPath('features'), rows=9990, skipped=10, skipped_file=PosixPath(...), resumed=0)
    """
    if into is None and len(outputs) != 1:
        raise InputError("several outputs are merged into a new one: say which with `into` (-o OUT)")
    output = place_of(outputs[0] if into is None else into)
    is_file = is_single_file(outputs[0] if into is None else into)
    folder = shards_of(output) if is_file else output
    try:
        if is_file:
            check_places(output)
            _check_ending(output, [folder] if into is None else [_folder_of(place_of(source)) for source in outputs])
        if into is not None:
            _gather([_folder_of(place_of(source)) for source in outputs], folder)
        elif is_file and exists(output) and not (exists(folder / MANIFEST_FILE) or _parts(folder)):  # merged before
            discard_leftovers(folder)  # of a merge that was killed while it tidied up
            rows, skipped = totals_of(output)
            return Summary(output, rows, skipped, skipped_of(output) if skipped else None, rows + skipped)
        elif not is_folder(folder):
            raise InputError(f"there are no parts of {output} to merge: no folder {folder}")
        with claimed(folder / LOCK_FILE, folder):
            manifest = _merged(folder, on_progress)
        skipped_file = folder / SKIPPED_FILE
        if is_file:
            skipped_file = _single(folder, output, manifest)
    except OSError as error:
        if isinstance(error, OutputError | InputError):
            raise
        raise OutputError(f"{output} cannot be written: {error.strerror or error}; all parts are kept") from error
    skipped = manifest.total("skipped")
    return Summary(output, manifest.total("rows"), skipped, skipped_file if skipped else None, 0)


def _check_ending(output: Place, sources: Sequence[Place]) -> None:
    """Refuse a name that rows like those of the parts cannot be written to."""
    from pyarrow import ArrowException

    for found in (found for source in sources for found in _parts(source)):
        for shard in found.manifest.shards[:1]:
            try:
                names = schema_of(found.folder / Path(shard["file"]).name).names
            except (ArrowException, OSError):
                continue  # damaged or gone, which is told later
            allowed = (".parquet", ".npy") if "features" in names else (".parquet", ".csv", ".jsonl")
            if output.suffix.lower() not in allowed:
                raise InputError(f"{output}: the name must end in {', '.join(allowed)}, or be that of a folder")


def _folder_of(source: Place) -> Place:
    if is_folder(source):
        return source
    if is_folder(shards_of(source)):
        return shards_of(source)
    raise InputError(f"{source} holds no part of a run: no such folder")


def _parts(folder: Place) -> list[_Found]:
    names = sorted(entry.name for entry in folder.iterdir()) if is_folder(folder) else []
    matches = [match for name in names if name.startswith("manifest.") and (match := PART_FILE.fullmatch(name))]
    return [_Found(Part(int(m[1]), int(m[2])), Manifest.read(folder / m[0]), folder) for m in matches]


def _gather(sources: Sequence[Place], folder: Place) -> None:
    """Bring all parts into one folder: shards first, then what lists them."""
    parts = [part for source in sources for part in _parts(source)]
    for source in sources:
        if not any(part.folder == source for part in parts):
            raise InputError(f"{source} holds no part of a run")
    _check_parts(parts)
    make_folder(folder)
    strange = [entry for entry in folder.iterdir() if not (entry.name.startswith(".") or _is_ours(entry.name))]
    if strange:
        raise InputError(f"{folder} holds something else ({strange[0].name}); choose a new folder")
    for found in parts:
        skipped, manifest = (found.part.name(name) for name in (SKIPPED_FILE, MANIFEST_FILE))
        for name in (*(shard["file"] for shard in found.manifest.shards), skipped, manifest):
            source, target = found.folder / Path(name).name, folder / Path(name).name
            if not source.is_file():
                raise InputError(f"{source} is in the manifest of part {found.part} and not there")
            if not exists(target):
                _share(source, target)
            elif sha256_of(source) != sha256_of(target):
                raise InputError(f"{target} is there already, and is not {source}; choose a new folder")


def _is_ours(name: str) -> bool:
    return bool(PART_FILE.fullmatch(name)) or name in (MANIFEST_FILE, SKIPPED_FILE) or name.startswith("part-")


def _share(source: Place, target: Place) -> None:
    """Make a file's content appear under another name, whole; without a copy where the file system can."""
    try:
        if isinstance(target, Path) and isinstance(source, Path):
            target.hardlink_to(source)
            return
    except OSError:  # another disk, or one without links
        pass
    with source.open("rb") as stream, replacing(target) as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)


def _check_parts(parts: Sequence[_Found]) -> None:
    """Demand one finished part of each number, all with the same settings and inputs."""
    first = parts[0]
    seen: dict[int, _Found] = {}
    for found in parts:
        if found.part.count != first.part.count:
            raise InputError(
                f"{found.folder} holds part {found.part} and {first.folder} part {first.part}: parts of different runs"
            )
        refuse_other_settings(found.folder, found.manifest.settings, first.manifest.settings)
        if found.part.index in seen and found.manifest != seen[found.part.index].manifest:
            other = seen[found.part.index].folder
            raise InputError(f"{found.folder} and {other} both hold part {found.part}, and they differ; remove one")
        seen[found.part.index] = found
        if is_locked(found.folder / found.part.name(LOCK_FILE)):
            raise OutputError(f"part {found.part} is still being written in {found.folder}; wait for it")
        if not found.manifest.complete:
            raise InputError(f"part {found.part} in {found.folder} is not finished: run its command again")
        totals = (found.manifest.inputs, found.manifest.keys_sha256)
        if totals != (first.manifest.inputs, first.manifest.keys_sha256):
            raise InputError(
                f"part {found.part} saw other inputs ({found.manifest.inputs}) than part {first.part} "
                f"({first.manifest.inputs}): delete the one that is wrong and run it again; a list of the inputs, made "
                "once for all parts (--list), keeps them the same"
            )
    missing = [str(Part(index, first.part.count)) for index in range(first.part.count) if index not in seen]
    if missing:
        named = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise InputError(f"of {first.part.count} parts these are missing: {named}; run them, then merge again")


def _merged(folder: Place, on_progress: OnProgress) -> Manifest:
    """Make one manifest of those of the parts, then remove these; return it."""
    parts = _parts(folder)
    whole = folder / MANIFEST_FILE
    before = Manifest.read(whole) if whole.exists() else None
    if not parts:
        if before is None:
            raise InputError(f"{folder} holds no part of a run")
        if not before.complete:
            raise InputError(f"{folder} is a run of its own that is not finished: run its command again")
        manifest = before
    elif before is None:
        manifest = _whole(folder, parts, on_progress)
        manifest.write(whole)
    elif before.complete and _is_of(before, parts[0].manifest):  # a merge was killed while it removed the parts' files
        manifest = before
    else:
        raise InputError(f"{whole} is that of another run than the parts beside it; merge these into a new folder")
    left = [entry for entry in folder.iterdir() if PART_FILE.fullmatch(entry.name)]
    for entry in sorted(left, key=lambda entry: not entry.name.startswith("manifest.")):  # what reads the others first
        entry.unlink()
    return manifest


def _is_of(whole: Manifest, part: Manifest) -> bool:
    last = whole.shards[-1]["keys_sha256"] if whole.shards else None
    return (whole.settings, whole.total("inputs"), last) == (part.settings, part.inputs, part.keys_sha256)


def _whole(folder: Place, parts: Sequence[_Found], on_progress: OnProgress) -> Manifest:
    _check_parts(parts)
    by_index = {found.part.index: found.manifest for found in parts}
    count = parts[0].part.count
    settings: dict[str, Any] = parts[0].manifest.settings
    inputs, size = parts[0].manifest.inputs or 0, settings["shard_size"]
    merged = Manifest(settings, complete=True)
    if exists(folder / SKIPPED_FILE) and not is_written_here(folder / SKIPPED_FILE):
        raise OutputError(f"{folder / SKIPPED_FILE} was not written by this program; move it away")
    with replacing(folder / SKIPPED_FILE) as lists:
        lists.write(csv_lines([SKIPPED_HEADING]))
        for number in range(-(-inputs // size)):
            found, shards = Part(number % count, count), by_index[number % count].shards
            at = number // count
            listed = shards[at] if at < len(shards) else {}
            path = folder / shard_name(number)
            if listed.get("file") != path.name or listed.get("inputs") != min(size, inputs - number * size):
                raise InputError(f"part {found} does not list {path.name} as it must: delete the part and run it again")
            if not path.is_file():
                raise InputError(f"{path} is in the manifest of part {found} and not there")
            if sha256_of(path) != listed["sha256"]:
                raise InputError(f"{path} is damaged: its bytes are not those that part {found} wrote; run it again")
            lists.write(_between(folder / found.name(SKIPPED_FILE), shards, at))
            merged.shards.append({key: v for key, v in listed.items() if key not in ("sha256", "skipped_bytes")})
            on_progress(_STAGE, number + 1, -(-inputs // size))
        merged.skipped_bytes = lists.tell()
    if merged.shards and merged.shards[-1]["keys_sha256"] != parts[0].manifest.keys_sha256:
        raise InputError(f"the last shard of {folder} does not end with the last input; run its part again")
    return merged


def _between(file: Place, shards: Sequence[dict[str, Any]], at: int) -> bytes:
    """Return what a part's list of skipped inputs says of one of its shards."""
    start = shards[at - 1]["skipped_bytes"] if at else len(csv_lines([SKIPPED_HEADING]))
    length = shards[at]["skipped_bytes"] - start
    with file.open("rb") as stream:
        stream.seek(start)
        lines = stream.read(length)
    if len(lines) != length or (lines and not lines.endswith(b"\n")):
        raise InputError(f"{file} is cut off; run its part again")
    return lines


def _single(folder: Place, output: Place, manifest: Manifest) -> Place:
    if not manifest.shards:
        raise InputError(f"the parts of {output} are of no inputs at all")
    schema = schema_of(folder / manifest.shards[0]["file"]).remove_metadata()
    with Shards(folder, manifest.settings, schema) as shards:
        return assemble(shards, output, schema, manifest.settings)
