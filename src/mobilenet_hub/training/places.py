"""Where a training run writes: its output, and its unfinished work, which the next run takes over from a killed one."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mobilenet_hub.errors import AccuracyError, DivergedError, MobileNetHubError, OutputError
from mobilenet_hub.evaluation.dataset import TABLE_SUFFIXES
from mobilenet_hub.host import ownership
from mobilenet_hub.host.files import clear_left_by_killed, exists, is_folder, replacing_folder, sha256_of
from mobilenet_hub.host.locks import LOCK_FILE, claimed
from mobilenet_hub.host.ownership import check_apart, note_in_work, read_work, work_folder
from mobilenet_hub.module_folder import CONFIG_FILE, check_place, is_ours

RESULT = "result"  # in the work folder: the module folder until it is moved to its place
_FILES = re.compile(
    r"features-\w+-[0-9a-f]{12}\.npz|pixels-[0-9a-f]{16}\.npy|(checkpoint|before-fall)-[0-9a-f]{16}\.safetensors"
)
_WORK = re.compile(rf"{_FILES.pattern}|{RESULT}")
_FINGERPRINT = "metrics.json"


def check_output(source: Path, folder: Path, work: Path, *, overwrite: bool) -> None:
    """Refuse before the work what would be refused after it, and whatever would touch the photos.

    Raises:
        OutputError: the output cannot be made, holds something else, or lies with the photos.
    """
    _finish_killed(folder, work)
    check_place(folder, overwrite)
    if any(photos.is_relative_to(folder.resolve()) for photos in (source.parent.resolve(), source.resolve())):
        raise OutputError(f"{folder} holds the photos to learn from; choose another folder")
    places = {"the output": folder, "the work folder": work}
    check_apart(places if source.suffix.lower() in TABLE_SUFFIXES else {"the folder of photos": source, **places})
    if exists(work / RESULT):
        check_place(work / RESULT, overwrite=True)
    above = next(parent for parent in folder.absolute().parents if exists(parent))
    if not is_folder(above):
        raise OutputError(f"{folder} cannot be written: {above} is a file")


@contextmanager
def claimed_places(folder: Path, work: Path, *, shared: bool) -> Iterator[None]:
    """Hold the output and the work folder: a second run on one of them is refused.

    Args:
        folder: the output.
        work: the work folder; made.
        shared: whether the user named the work folder.

    Raises:
        OutputError: another run holds one, or one cannot be made.
    """
    try:
        with claimed(_lock_of(folder), folder), work_folder(work, folder.name, _WORK, shared=shared):
            yield
    except MobileNetHubError:
        raise
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from error


@contextmanager
def kept_on_failure(work: Path) -> Iterator[None]:
    """Say, where something fails after the training, that what was trained is kept."""
    try:
        yield
    except (AccuracyError, DivergedError):
        raise
    except MobileNetHubError as error:
        error.args = (f"{error}; what was trained is kept in {work}: the same command goes on from there",)
        raise


def move_result(staged: Path, folder: Path) -> None:
    """Put the finished folder in its place, whole or not at all, also from another disk.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        note_in_work(staged.parent, folder.name, finished=sha256_of(staged / _FINGERPRINT))
        with replacing_folder(folder, keep=lambda entry: not is_ours(entry)) as new:
            for entry in filter(is_ours, staged.iterdir()):
                shutil.copy2(entry, new / entry.name)
        _clear_result(staged)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}") from None


def clear_work(work: Path) -> None:
    """Remove what a run has written into its work folder; the folder too, where nothing else is in it."""
    _clear_result(work / RESULT)
    ownership.clear_work(work, _FILES)


def _clear_result(staged: Path) -> None:
    """Remove a module folder from the work; what somebody has put into it stays."""
    ours = [entry for entry in staged.iterdir() if is_ours(entry)] if is_folder(staged) else []
    for entry in sorted(ours, key=lambda entry: entry.name == CONFIG_FILE):  # last: the others are known by it
        with suppress(OSError):
            entry.unlink()
    with suppress(OSError):
        staged.rmdir()


def _lock_of(folder: Path) -> Path:
    """Return the lock of an output; it lies beside it."""
    return folder.absolute().with_name(f".{folder.name}{LOCK_FILE}")


def _finish_killed(folder: Path, work: Path) -> None:
    """Clear what a killed run left beside its output, and its work where its result had come to its place."""
    if folder.name in ("", ".."):
        return  # refused in a moment
    clear_left_by_killed(folder.absolute())
    if exists(_lock_of(folder)):
        with suppress(OSError), claimed(_lock_of(folder), folder):
            pass
    with suppress(OSError):  # the mark was gone, the lock or the folder not yet
        if {entry.name for entry in work.iterdir()} <= {LOCK_FILE}:
            with claimed(work / LOCK_FILE, work):
                pass
    with suppress(OSError):
        if read_work(work).get("finished") == sha256_of(folder / _FINGERPRINT):
            with claimed(work / LOCK_FILE, work):
                clear_work(work)
