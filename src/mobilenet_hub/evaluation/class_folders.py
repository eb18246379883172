"""Class folders as people have them: which folders are classes, which are the parts of a split, and which are neither.

Classes that hold only subfolders with the same names are no classes but parts: they are used as the split that their
names say, or left out by name, or refused, and never trained as classes.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mobilenet_hub.errors import InputError
from mobilenet_hub.host.files import is_folder
from mobilenet_hub.images.content import is_picture_file, passed_over_text
from mobilenet_hub.images.names import is_system_file, is_system_folder, suffix_of

Split = Literal["train", "validation", "test"]
GIVEN_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
}
_UNLABELLED = frozenset(["unlabeled", "unlabelled", "unsup", "unsupervised", "pred", "predict", "prediction"])
_FILLING = frozenset(["set", "sets", "data", "dataset", "images", "imgs", "img", "photos", "seg", "split", "folder"])


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo in a class folder."""

    path: Path
    inner: str  # its path in the class folder
    label: str
    split: Split | None  # what its part is; None where the folder has no parts


@dataclass
class Listing:
    """What a folder of class folders holds."""

    photos: list[Photo] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)  # files and folders that are left out, and why
    passed_over: Counter[str] = field(default_factory=Counter)  # files that are no pictures, by their suffixes
    warnings: list[str] = field(default_factory=list)


def list_class_folders(folder: Path) -> Listing:
    """List the photos of all classes.

    Raises:
        InputError: folders that are parts of a split, but it is not clear which part each is.
        OSError: the folder itself cannot be read.
    """
    listing = Listing()
    root = _unwrapped(folder)
    photos_of: Counter[str] = Counter()
    for split, path, label in _classes(root, listing):
        found = _list_photos(path, listing)
        photos_of[label] += len(found)
        listing.photos += [Photo(photo, photo.relative_to(path).as_posix(), label, split) for photo in found]
    if empty := [label for label, count in photos_of.items() if not count]:
        listing.warnings.append(f"no photos in class folder {some(empty)}: left out")
    loose = [e.name for e in root.iterdir() if not is_system_file(e.name) and e.is_file() and is_picture_file(e)]
    if loose:
        listing.warnings.append(f"{len(loose)} photos lie outside the class folders: left out, e.g. {loose[0]}")
    if said := passed_over_text(listing.passed_over):
        listing.warnings.append(said)
    return listing


def part_of(name: str) -> Split | None:
    """Return which part of a split a folder's name says it is; None where it says nothing of the kind.

    Example:
        >>> part_of("training_set"), part_of("seg_test"), part_of("Val2"), part_of("test tubes")
        ('train', 'test', 'validation', None)
    """
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word and word not in _FILLING]
    words = [word.removesuffix("set").removesuffix("data") for word in words]
    return GIVEN_SPLITS.get(words[0]) if len(words) == 1 else None


def _is_unlabelled(name: str) -> bool:
    return any(word in _UNLABELLED for word in re.split(r"[^a-z]+", name.lower()))


def _classes(root: Path, listing: Listing) -> list[tuple[Split | None, Path, str]]:
    """Return the class folders, each with its part, if it has one, and its label."""
    tops = {path: _unwrapped(path) for path in _subfolders(root, listing)}
    inside = {
        top: frozenset(path.name.casefold() for path in _subfolders(inner))
        for top, inner in tops.items()
        if not _has_photos(inner)
    }
    inside = {top: names for top, names in inside.items() if names}
    parts = {top: part for top in inside if (part := part_of(top.name))}
    if parts and not all(part_of(name) for top in parts for name in inside[top]):
        return _classes_of_parts(parts, tops, listing)
    if inside and all(part_of(name) for names in inside.values() for name in names):  # each class has its parts inside
        found: list[tuple[Split | None, Path, str]] = [(None, top, top.name) for top in tops if top not in inside]
        for top in inside:
            found.extend((part_of(path.name), path, top.name) for path in _subfolders(tops[top], listing))
        return found
    names = {top.name.casefold() for top in tops}
    again = [top for top in inside if len(inside[top]) > 1 and inside[top] <= names - {top.name.casefold()}]
    if again:  # as an archive leaves that was unpacked into itself
        listing.warnings.append(f"the folder {some(top.name for top in again)} holds the classes once more: left out")
    _refuse_alike({top: names for top, names in inside.items() if top not in again})
    return _without_parts([top for top in tops if top not in again], root, listing)


def _classes_of_parts(
    parts: dict[Path, Split], tops: dict[Path, Path], listing: Listing
) -> list[tuple[Split | None, Path, str]]:
    used: dict[Split, str] = {"train": "train", "validation": "validation", "test": "test"}
    if set(parts.values()) == {"train", "validation"}:
        used["validation"] = "test, as it is the only part held out"
    if odd := [f"{top.name!r} as {used[part]}" for top, part in parts.items() if top.name.lower() not in GIVEN_SPLITS]:
        listing.warnings.append(f"folders taken as parts of a split: {', '.join(odd)}")
    others = [top for top in tops if top not in parts]
    classes: list[tuple[Split | None, Path, str]] = []
    for top, part in parts.items():
        classes.extend((part, path, path.name) for path in _subfolders(tops[top], listing))
    unlabelled = [path for _, path, _ in classes if _is_unlabelled(path.name)]
    if left := [path.name for path in (*others, *unlabelled)]:
        listing.warnings.append(f"beside the parts of the split, the folder {some(left)}: left out")
    return [(part, path, name) for part, path, name in classes if path not in unlabelled]


def _refuse_alike(inside: dict[Path, frozenset[str]]) -> None:
    """Refuse folders that hold folders of the same names, when their own names do not say which part each is."""
    for top, names in inside.items():
        if len(names) > 1 and (same := [other.name for other in inside if inside[other] == names and other != top]):
            raise InputError(
                f"the folders {some(sorted([top.name, *same]))} hold folders of the same names, {some(sorted(names))}: "
                "are these the classes, and which folder is to train, which to test? Name them train, val and test, "
                "or give a table with the columns path, label and split"
            )


def _without_parts(classes: list[Path], root: Path, listing: Listing) -> list[tuple[Split | None, Path, str]]:
    """Leave out folders of photos that are called as parts are, or as what has no label."""
    left = [path for path in classes if _is_unlabelled(path.name) or part_of(path.name)]
    if left and len(classes) - len(left) < 2:
        raise InputError(
            f"{root} holds the folders {some(path.name for path in classes)}: they are called as the parts of a split "
            "are, or as what has no label, and hold no class folders; give one folder for each class"
        )
    if left:
        names = some(path.name for path in left)
        listing.warnings.append(f"the folder {names} is called as a part of a split is, not as a class: left out")
    return [(None, path, path.name) for path in classes if path not in left]


def _subfolders(parent: Path, listing: Listing | None = None) -> list[Path]:
    """Return the folders in a folder; one that cannot be read is said in the listing."""
    try:
        entries = sorted(parent.iterdir())
    except OSError as error:
        if listing is not None:
            listing.skipped.append((parent, f"a folder that cannot be read ({error.strerror or error})"))
        return []
    return [entry for entry in entries if not is_system_folder(entry.name) and is_folder(entry)]


def _has_photos(folder: Path) -> bool:
    try:
        return any(is_picture_file(e) and not is_system_file(e.name) for e in folder.iterdir() if not is_folder(e))
    except OSError:
        return False  # which is said when it is listed


def _unwrapped(folder: Path) -> Path:
    """Go into a folder that holds nothing but one folder of folders, as archives do that were unpacked into one."""
    while not _has_photos(folder):
        inner = _subfolders(folder)
        if len(inner) != 1 or _has_photos(inner[0]) or not _subfolders(inner[0]):
            break
        folder = inner[0]
    return folder


def _list_photos(folder: Path, listing: Listing) -> list[Path]:
    """Return the photos under a class folder; what else is there is said in the listing."""

    def unreadable(error: OSError) -> None:
        listing.skipped.append((Path(error.filename), f"a folder that cannot be read ({error.strerror or error})"))

    photos = []
    for parent, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not is_system_folder(name)]
        for name in files:
            if is_system_file(name):
                continue
            path = Path(parent) / name
            if is_picture_file(path):
                photos.append(path)
            else:
                listing.passed_over[suffix_of(name)] += 1
    return photos


def some(names: Iterable[str], limit: int = 5) -> str:
    """Return the first names, quoted, and how many more there are.

    Example:
        >>> some(["a", "b", "c"], limit=2)
        "'a', 'b' and 1 more"
    """
    names = [repr(name) for name in names]
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
