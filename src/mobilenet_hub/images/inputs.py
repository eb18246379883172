"""What IMAGES stands for: files, folders, globs, a list, .tar, .zip, Parquet, here or in a store, as one stream.

Nothing is read before it is asked for, and nothing is kept: a million photos cost no more memory than ten. Whatever
cannot be listed (a glob that matches nothing, a damaged archive) is an item too, which says so when it is read: every
input either gives a picture or a named reason.
"""

import glob
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.host.files import exists, is_folder, is_special
from mobilenet_hub.host.stores import Address, is_address
from mobilenet_hub.host.text import UTF8_MARK, UTF16_MARKS, as_text
from mobilenet_hub.images import archives
from mobilenet_hub.images.content import is_picture_file
from mobilenet_hub.images.decode import read_bytes
from mobilenet_hub.images.names import (
    SYSTEM_FOLDERS,
    is_picture_name,
    is_system_file,
    is_system_folder,
    suffix_of,
)
from mobilenet_hub.images.skipped import refuse

HELP = (
    "files, folders (searched whole, but for hidden ones and a system's own: @eaDir, #recycle, $RECYCLE.BIN, __MACOSX, "
    "...), globs, .tar, .zip or .parquet of images, s3:// and gs:// addresses of any of these, or - for a list on "
    "standard input"
)


Wanted = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Item:
    """One input: its name, and how to get at its bytes."""

    key: str  # a file's path; archive/member; table.parquet#row or the table's own key
    read: Callable[[], Any]  # what `images.decode_image` takes, bytes as a rule; raises ImageError with the reason
    root: "Root | None" = None  # the folder that was asked for, where the input was found by searching one
    held: int = 0  # bytes of it that are in memory already
    remote: int = 0  # bytes that reading it brings over a network, many at once; 0: it is at hand


@dataclass(frozen=True, slots=True)
class Root:
    """A folder that is searched, and which one it is: where a disk was mounted another folder appears without it."""

    path: str
    identity: tuple[int, int] | None

    @classmethod
    def at(cls, path: str) -> "Root":
        """Return the folder that is there now."""
        return cls(path, _identity(path))

    def demand(self) -> None:
        """Stop where the folder is gone: what cannot be read in it is then no bad picture.

        Raises:
            InputError: the folder is no longer there, or another one is in its place.
        """
        if self.identity is None or _identity(self.path) != self.identity:
            raise InputError(
                f"the folder {self.path} has vanished while it was read; what was finished before is kept: bring it "
                "back and run the same command again"
            )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)  # noqa: PTH116  (as a string: this is asked for every photo that cannot be read)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def items(
    inputs: Iterable[str | os.PathLike[str]], wanted: Wanted | None = None, passed_over: Counter[str] | None = None
) -> Iterator[Item]:
    """Yield every image of the inputs, in a stable order: arguments as given, folders and globs sorted.

    A file that is named is taken whatever its name; of a folder or an archive, what is an image as content.py says:
    what has the suffix of one, or no suffix and the first bytes of one. Hidden files and folders, a system's own
    (names.py) and links to folders are passed over; so are archives in folders, which are named to be read.

    Args:
        inputs: paths of files, folders, .tar (also .gz, .bz2, .xz), .zip and .parquet files, globs, s3:// and gs://
            addresses of any of these, "-" for a list of them on standard input, one a line.
        wanted: told an item's number, from 0, says whether its bytes are wanted; of others only the key is, and their
            bytes may be missing. None: all are.
        passed_over: counts, by suffix, the files in folders and archives that are no images.

    Example:
        >>> [item.key for item in items(["b.jpg", "a.jpg"])]
        ['b.jpg', 'a.jpg']
    """
    return _expand(arguments(inputs), wanted or _all, Counter() if passed_over is None else passed_over)


def count(inputs: Iterable[str | os.PathLike[str]], at_most: int | None = None) -> int | None:
    """Return how many items there are; None where finding out would take reading a list, an archive or a store.

    Args:
        inputs: as for `items`.
        at_most: count no further, for callers to whom more is as good as many.

    Example:
        >>> count(["b.jpg", "a.jpg"])
        2
    """
    given = [os.fspath(argument) for argument in inputs]
    if any(argument == "-" or is_address(argument) or archives.is_packed_tar(argument) for argument in given):
        return None
    return sum(1 for _ in islice(items(given, wanted=_none), at_most))


def arguments(inputs: Iterable[str | os.PathLike[str]]) -> Iterator[str]:
    """Yield the inputs as text, in the place of "-" the lines of standard input."""
    for argument in inputs:
        if os.fspath(argument) == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed; give the images as arguments, or a list of them through -")
            for line in lines(sys.stdin.buffer):
                if name := line.rstrip("\r\n"):
                    yield name
        else:
            yield os.fspath(argument)


def lines(stream: BinaryIO) -> Iterator[str]:
    """Yield the lines of a list, as they come; of one in UTF-16, whose lines no byte ends, once it is whole."""
    for number, line in enumerate(stream):
        if number == 0 and line.startswith(UTF16_MARKS):
            yield from as_text(line + stream.read()).splitlines()
            return
        yield os.fsdecode(line.removeprefix(UTF8_MARK) if number == 0 else line)


def _all(number: int) -> bool:
    return True


def _none(number: int) -> bool:
    return False


def _kind(argument: str, passed_over: Counter[str]) -> Callable[[str, Wanted], Iterator[Item]]:
    if is_address(argument):
        return partial(_in_store, passed_over=passed_over)
    if is_folder(argument):
        return partial(_folder, passed_over=passed_over)
    if glob.has_magic(argument) and not exists(argument):
        return partial(_glob, passed_over=passed_over)
    if is_special(argument) or not exists(argument):  # which is refused when it is read
        return _file
    return _collection(argument, archives.kind_of(argument), passed_over) or _file


def _collection(
    argument: str, kind: archives.Kind, passed_over: Counter[str]
) -> Callable[[str, Wanted], Iterator[Item]] | None:
    """Return what yields the items of an archive or a table."""
    if kind == "parquet":
        return _parquet
    members = {"tar": archives.tar_members, "zip": archives.zip_members}.get(kind)
    return partial(_archive, members=members, passed_over=passed_over) if members else None


def _expand(names: Iterable[str], wanted: Wanted, passed_over: Counter[str]) -> Iterator[Item]:
    """Yield the items of all arguments."""
    yielded = 0
    for argument in names:
        before = yielded
        kind = _kind(argument, passed_over)
        for item in kind(argument, lambda number, before=before: wanted(before + number)):
            yielded += 1
            yield item
        if yielded == before:
            yielded += 1
            yield refused(argument, f"{'a folder' if is_folder(argument) else 'an archive'} without images")


def refused(key: str, reason: str) -> Item:
    """Return an input that cannot be read."""
    return Item(key, partial(refuse, reason))


def _file(path: str, wanted: Wanted) -> Iterator[Item]:
    yield Item(path, partial(read_bytes, path))


def _folder(folder: str, wanted: Wanted, passed_over: Counter[str]) -> Iterator[Item]:
    root, waiting = Root.at(folder), [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                visible = sorted((entry for entry in entries if not is_system_file(entry.name)), key=lambda e: e.name)
        except OSError as error:
            yield refused(current, f"a folder that cannot be read ({error.strerror})")
            continue
        for entry in visible:
            if _is_folder(entry):
                continue
            if is_picture_file(entry.path):
                yield Item(entry.path, partial(read_bytes, entry.path), root)
            else:
                passed_over[suffix_of(entry.name)] += 1
        waiting += [
            entry.path
            for entry in reversed(visible)
            if _is_folder(entry, follow_symlinks=False) and not is_system_folder(entry.name)
        ]


def _is_folder(entry: "os.DirEntry[str]", *, follow_symlinks: bool = True) -> bool:
    try:
        return entry.is_dir(follow_symlinks=follow_symlinks)
    except OSError:  # a link to itself, or to where one may not look: reading it will say so
        return False


def _glob(pattern: str, wanted: Wanted, passed_over: Counter[str]) -> Iterator[Item]:
    literal = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    root = Root.at(literal[: literal.rfind(os.sep) + 1] or os.curdir)
    if found := matches(pattern):
        for item in _expand(found, wanted, passed_over):
            yield item if item.root else replace(item, root=root)
    else:
        yield refused(pattern, "matches no file")


def matches(pattern: str) -> list[str]:
    """Return what a pattern matches on this machine, sorted."""
    return sorted(match for match in _matches(pattern) if not _is_system_match(match, pattern))


def _is_system_match(match: str, pattern: str) -> bool:
    """Tell whether a star led into a system's folder, which the pattern does not name."""
    return any(part.lower() in SYSTEM_FOLDERS and part not in pattern for part in Path(match).parts)


def _matches(pattern: str) -> set[str]:
    """Return what a pattern matches; `**` stands for any folders, and goes into no link, which may lead back up."""
    if pattern == "**" or pattern.endswith(f"{os.sep}**"):
        pattern += f"{os.sep}*"
    head, deep, tail = pattern.partition(f"**{os.sep}")
    if not deep or (head and not head.endswith(os.sep)):
        return set(glob.glob(pattern))  # noqa: PTH207  (Path.glob takes no absolute pattern)
    found: set[str] = set()
    for base in glob.glob(head) if head else [""]:  # noqa: PTH207
        for folder, subfolders, _ in os.walk(base or os.curdir):
            subfolders[:] = [name for name in subfolders if not is_system_folder(name)]
            inside = f"{folder.rstrip(os.sep)}{os.sep}"
            found |= _matches(glob.escape(inside if base else inside.removeprefix(f"{os.curdir}{os.sep}")) + tail)
    return {match for match in found if not is_folder(match)}  # whose files match too


def _in_store(argument: str, wanted: Wanted, passed_over: Counter[str]) -> Iterator[Item]:
    """Yield the items of an address: of one object, of all below a prefix, or of what a pattern matches."""
    from mobilenet_hub.images import in_store

    address = Address.parse(argument)
    if in_store.names_one(argument):
        yield from _object(address, 0, wanted, passed_over)
    elif in_store.has_magic(address):
        yielded = 0
        for there, size, is_itself in in_store.matching(address, passed_over):
            before = yielded
            found = (
                _object(there, size, lambda n, before=before: wanted(before + n), passed_over) if is_itself else None
            )
            for item in found or [_of_object(there, size)]:
                yielded += 1
                yield item
        if not yielded:
            in_store.demand_bucket(address.scheme, address.bucket)
            yield refused(argument, "matches no object")
    else:
        found = in_store.below(address, passed_over)
        if (first := next(found, None)) is None:
            in_store.demand_bucket(address.scheme, address.bucket)
            yield refused(argument, "no such object, and no pictures below it")
            return
        yield from (_of_object(there, size) for there, size in chain([first], found))


def _object(address: Address, size: int, wanted: Wanted, passed_over: Counter[str]) -> Iterator[Item]:
    """Yield the items of an object that is named: of an archive or a table those in it."""
    from mobilenet_hub.images.in_store import first_bytes_of

    name = str(address)
    head = b"" if is_picture_name(name) else first_bytes_of(address, archives.HEAD_BYTES)
    collection = _collection(name, archives.kind_by(name, head), passed_over)
    yield from collection(name, wanted) if collection else [_of_object(address, size)]


def _of_object(address: Address, size: int) -> Item:
    from mobilenet_hub.images.in_store import UNKNOWN_BYTES, read_object

    return Item(str(address), partial(read_object, address), remote=size or UNKNOWN_BYTES)


def _archive(
    path: str,
    wanted: Wanted,
    members: Callable[[str, Wanted, Counter[str]], Iterator[archives.Member]],
    passed_over: Counter[str],
) -> Iterator[Item]:
    try:
        for key, read, held in members(path, wanted, passed_over):
            yield Item(key, read, held=held, remote=0 if held or not is_address(path) else 1)
    except ImageError as error:
        yield refused(path, error.reason)


def _parquet(path: str, wanted: Wanted) -> Iterator[Item]:
    from mobilenet_hub.images.parquet_inputs import rows

    try:
        for key, data in rows(path, wanted):
            yield Item(key, partial(_present, data), held=len(data or b""))
    except ImageError as error:
        yield refused(path, error.reason)


def _present(data: bytes | None) -> bytes:
    if data is None:
        raise ImageError("the table has no bytes for it")
    return data
