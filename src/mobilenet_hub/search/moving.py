"""Copies moved out of the way, undoable: what a file of groups says is not kept goes to another folder, with a log.

Nothing is deleted, and nothing is written over. The log has a line for each move before it is done; `undo` reads it.
Killed at any moment every photo is in its old place, its new one, or both, and the next call, or `undo`, ends the move.
"""

import csv
import errno
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any

from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.files import clear_left_by_killed, is_file, is_folder, replacing, sha256_of
from mobilenet_hub.host.text import path_of_name
from mobilenet_hub.search.tables import read_table

LOG_COLUMNS = ("from", "to")
_LOGS = "moved-*.csv"
_ALL_FAIL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # what stops one move stops the next


@dataclass(frozen=True)
class Moved:
    """What was moved."""

    moves: tuple[tuple[Path, Path], ...]  # (from, to)
    left: tuple[tuple[str, str], ...]  # (path, why it was left where it is)
    log: Path | None  # None where nothing was moved


@dataclass(frozen=True)
class _Photo:
    """A row of a file of groups."""

    group: str
    path: str
    keep: bool
    sha256: str  # as it was when the groups were written; empty: not known

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "_Photo":
        cells = (row.get(name) for name in ("group", "path", "keep", "sha256"))
        group, path, keep, digest = ("" if cell is None else str(cell) for cell in cells)
        return cls(group, path_of_name(path), keep.strip().lower() == "true", digest.strip())

    def has_changed(self) -> bool:
        """Tell whether the file is another than the one that was compared.

        Raises:
            OSError: it cannot be read.
        """
        return bool(self.sha256) and sha256_of(Path(self.path)) != self.sha256


def move_copies(groups: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Moved:
    """Move what is not kept into a folder, as `GROUPS` says that `dedupe` wrote.

    A copy stays where it is if the photo to keep is not there, so that of no group all is moved; if one of the two has
    changed since `GROUPS` was written; and if it is a symbolic link with a relative target, which the move would break.

    Raises:
        InputError: the file has no groups.
        OutputError: the folder or the log cannot be written; what was moved stands in the log.
    """
    groups, folder = Path(groups), Path(folder)
    rows = read_table(groups)
    if rows and not {"group", "path", "keep"} <= rows[0].keys():
        raise InputError(f"{groups} has no columns group, path and keep; give what `mobilenet dedupe -o` wrote")
    photos = [_Photo.of(row) for row in rows]
    kept = {photo.group: photo for photo in photos if photo.keep}
    spared = {Path(photo.path).absolute() for photo in kept.values()}
    begun = _begun(folder)
    keeps: dict[str, str | None] = {}  # why nothing of a group may go
    moves: list[tuple[Path, Path]] = []
    left: list[tuple[str, str]] = []
    log = folder / f"moved-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.csv"
    for photo in photos:
        if photo.keep:
            continue
        if photo.group not in keeps:
            keeps[photo.group] = _why_not_kept(kept.get(photo.group))
        if reason := keeps[photo.group] or _why_not(photo, kept[photo.group], spared):
            left.append((photo.path, reason))
            continue
        path = Path(photo.path)
        try:
            target = begun.get(path.absolute()) or _target(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            _note(log, path.absolute(), target.absolute())
        except OSError as error:
            raise _stopped(path, folder, log if moves else None, error) from error
        try:
            _move(path, target)
        except OSError as error:
            if error.errno in _ALL_FAIL:
                raise _stopped(path, folder, log if moves else None, error) from error
            left.append((photo.path, f"it cannot be moved: {error.strerror or error}"))
            continue
        moves.append((path, target))
    return Moved(tuple(moves), tuple(left), log if moves else None)


def undo(log: str | os.PathLike[str]) -> Moved:
    """Move back what a log says was moved, the last first; or all logs of a folder.

    Raises:
        InputError: it is no log of moves, or a folder without one.
        OutputError: the disk is full.
    """
    log = Path(log)
    logs = sorted(log.glob(_LOGS)) if is_folder(log) else [log]
    if not logs:
        raise InputError(f"{log} has no {_LOGS}; give the log that --move-to wrote, or its folder")
    moves: list[tuple[Path, Path]] = []
    left: list[tuple[str, str]] = []
    for each in reversed(logs):
        for back, there in reversed(_moves_of(each)):
            try:
                reason = _move_back(there, back)
            except OSError as error:
                if error.errno in _ALL_FAIL:
                    raise OutputError(f"{there} cannot be moved back: {error.strerror or error}") from error
                reason = f"it cannot be moved back: {error.strerror or error}"
            if reason is None:
                moves.append((there, back))
                _clear_folders(there.parent, each.absolute().parent)
            elif reason:
                left.append((str(there), reason))
    return Moved(tuple(moves), tuple(left), log)


def _why_not_kept(keep: _Photo | None) -> str | None:
    if keep is None:
        return "its group names no photo to keep"
    if not is_file(keep.path):
        return f"the photo to keep, {keep.path}, is not there"
    try:
        return f"the photo to keep, {keep.path}, has changed since" if keep.has_changed() else None
    except OSError as error:
        return f"the photo to keep, {keep.path}, cannot be read: {error.strerror or error}"


def _why_not(photo: _Photo, keep: _Photo, spared: set[Path]) -> str | None:
    path = Path(photo.path)
    if path.is_symlink() and not path.readlink().is_absolute():
        return "it is a symbolic link that would lead nowhere from another place"
    if not is_file(path):
        return "it is not there, or in an archive"
    if path.samefile(keep.path):
        return "it is the photo to keep, by another name"
    if path.absolute() in spared:
        return "another group keeps it"
    try:
        return "it has changed since the groups were written; run dedupe again" if photo.has_changed() else None
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"


def _stopped(path: Path, folder: Path, log: Path | None, error: OSError) -> OutputError:
    told = f"; what was moved before stands in {log}" if log else ""
    return OutputError(f"{path} cannot be moved to {folder}: {error.strerror or error}{told}")


def _begun(folder: Path) -> dict[Path, Path]:
    """Return moves that were killed between the copy and the end: the photo is in both places."""
    both: dict[Path, Path] = {}
    for log in sorted(folder.glob(_LOGS)):
        both.update((old, new) for old, new in _moves_of(log) if is_file(old) and is_file(new) and _is_same(old, new))
    return both


def _moves_of(log: Path) -> list[tuple[Path, Path]]:
    """Return (from, to) of each line of a log; the last one may be cut."""
    rows = read_table(log)
    if rows and not set(LOG_COLUMNS) <= rows[0].keys():
        raise InputError(f"{log} has no columns {' and '.join(LOG_COLUMNS)}; give the log that --move-to wrote")
    return [(Path(row["from"]), Path(row["to"])) for row in rows if row["from"] and row["to"]]


def _is_same(one: Path, other: Path) -> bool:
    if one.samefile(other):
        return True
    return one.stat().st_size == other.stat().st_size and sha256_of(one) == sha256_of(other)


def _target(folder: Path, path: Path) -> Path:
    """Return where a file goes: its path within the folder, with a number where that is taken."""
    parts = [part for part in path.parts if part not in ("..", ".", PurePath(path).anchor)]
    target = folder.joinpath(*parts)
    return next(each for each in _numbered(target) if not os.path.lexists(each))


def _numbered(path: Path) -> Iterator[Path]:
    yield path
    number = 1
    while True:
        yield path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1


def _note(log: Path, path: Path, target: Path) -> None:
    new = not log.exists()
    with log.open("a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        lines: Sequence[Sequence[str]] = [LOG_COLUMNS] * new + [(str(path), str(target))]
        csv.writer(stream, lineterminator="\n").writerows(lines)
        stream.flush()
        os.fsync(stream.fileno())


def _move(path: Path, target: Path) -> None:
    """Move a file; from one disk to another only once its copy is on the disk and seen to be the same.

    Raises:
        OSError: it cannot be moved: it is where it was, and not in the other place.
    """
    if not (os.path.lexists(target) and _is_same(path, target)):
        try:
            os.link(path, target, follow_symlinks=False)  # fails where the target has appeared meanwhile
        except FileExistsError:
            raise
        except OSError:
            if path.is_symlink():
                target.symlink_to(path.readlink())
            else:
                _copy(path, target)
    try:
        path.unlink()
    except OSError:
        target.unlink()
        raise


def _copy(path: Path, target: Path) -> None:
    with path.open("rb") as source, replacing(target) as file:
        shutil.copyfileobj(source, file)
        file.flush()
        shutil.copystat(path, file.name)
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "another file has taken its place", str(target))
    if sha256_of(path) != sha256_of(target):
        target.unlink()
        raise OSError(f"{target} is not what was copied to it")


def _move_back(there: Path, back: Path) -> str | None:
    """Move a file back: None when it is done, why not if not, "" where there is nothing to do."""
    clear_left_by_killed(there)
    if not is_file(there):
        return "" if is_file(back) else "it is not there"
    if os.path.lexists(back) and not (is_file(back) and _is_same(there, back)):
        return f"{back} is there already"
    back.parent.mkdir(parents=True, exist_ok=True)
    _move(there, back)
    return None


def _clear_folders(folder: Path, end: Path) -> None:
    """Remove folders that have become empty, up to the one of the log."""
    with suppress(OSError):  # the first that is not
        while folder != end and folder.is_relative_to(end):
            folder.rmdir()
            folder = folder.parent
