"""Copies moved out of the way, undoable: what a file of groups says is not kept goes to another folder, with a log.

Nothing is deleted, and nothing is written over. The log has a line for each move before it is done; `undo` reads it.
"""

import csv
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath

from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.files import exists, is_file, sha256_of
from mobilenet_hub.search.tables import read_table

LOG_COLUMNS = ("from", "to")


@dataclass(frozen=True)
class Moved:
    """What was moved."""

    moves: tuple[tuple[Path, Path], ...]  # (from, to)
    left: tuple[tuple[str, str], ...]  # (path, why it was left where it is)
    log: Path | None  # None where nothing was moved


def move_copies(groups: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Moved:
    """Move what is not kept into a folder, as `GROUPS` says that `dedupe` wrote.

    A copy stays where it is if the photo to keep is not there, so that of no group all is moved.

    Raises:
        InputError: the file has no groups.
        OutputError: the folder or the log cannot be written; what was moved stands in the log.
    """
    groups, folder = Path(groups), Path(folder)
    rows = read_table(groups)
    if rows and not {"group", "path", "keep"} <= rows[0].keys():
        raise InputError(f"{groups} has no columns group, path and keep; give what `mobilenet dedupe -o` wrote")
    kept = {str(row["group"]): str(row["path"]) for row in rows if _is_true(row["keep"])}
    moves: list[tuple[Path, Path]] = []
    left: list[tuple[str, str]] = []
    log = folder / f"moved-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.csv"
    for row in rows:
        path, keep = str(row["path"]), kept.get(str(row["group"]))
        if _is_true(row["keep"]):
            continue
        if reason := _why_not(path, keep):
            left.append((path, reason))
            continue
        try:
            target = _target(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            _note(log, Path(path).absolute(), target.absolute())
            _move(Path(path), target)
        except OSError as error:
            told = f"; what was moved before stands in {log}" if moves else ""
            raise OutputError(f"{path} cannot be moved to {folder}: {error.strerror or error}{told}") from error
        moves.append((Path(path), target))
    return Moved(tuple(moves), tuple(left), log if moves else None)


def undo(log: str | os.PathLike[str]) -> Moved:
    """Move back what a log says was moved, the last first.

    Raises:
        InputError: it is no log of moves.
        OutputError: a file cannot be moved back.
    """
    rows = read_table(Path(log))
    if rows and not set(LOG_COLUMNS) <= rows[0].keys():
        raise InputError(f"{log} has no columns {' and '.join(LOG_COLUMNS)}; give the log that --move-to wrote")
    moves: list[tuple[Path, Path]] = []
    left: list[tuple[str, str]] = []
    for row in reversed(rows):
        back, there = Path(row["from"]), Path(row["to"])
        if not is_file(there):
            if not is_file(back):
                left.append((str(there), "it is not there"))
        elif exists(back):
            left.append((str(there), f"{back} is there already"))
        else:
            try:
                back.parent.mkdir(parents=True, exist_ok=True)
                _move(there, back)
            except OSError as error:
                raise OutputError(f"{there} cannot be moved back: {error.strerror or error}") from error
            moves.append((there, back))
    return Moved(tuple(moves), tuple(left), Path(log))


def _is_true(cell: object) -> bool:
    return cell is True or str(cell).lower() == "true"


def _why_not(path: str, keep: str | None) -> str | None:
    if keep is None or not is_file(keep):
        return f"the photo to keep, {keep}, is not there" if keep else "its group names no photo to keep"
    if not is_file(path):
        return "it is not there, or in an archive"
    if Path(keep).samefile(path) and not Path(path).is_symlink():
        return "it is the photo to keep, by another name"
    return None


def _target(folder: Path, path: str) -> Path:
    """Return where a file goes: its path within the folder, with a number where that is taken."""
    parts = [part for part in PurePath(path).parts if part not in ("..", ".", PurePath(path).anchor)]
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
    """Move a file; from one disk to another only once its copy is seen to be the same."""
    try:
        os.link(path, target, follow_symlinks=False)  # fails where the target has appeared meanwhile; rename would not
    except FileExistsError:
        raise
    except OSError:
        shutil.copy2(path, target, follow_symlinks=False)
        if not target.is_symlink() and sha256_of(path) != sha256_of(target):
            target.unlink()
            raise OSError(f"{target} is not what was copied to it") from None
    path.unlink()
