"""IMAGES in an object store: one object, all below a prefix, or all that a pattern matches.

The order is that of the keys' bytes, which is how stores list them. Where S3's own client is there (host/s3.py), a
prefix is listed page by page and takes no memory, however many names it has; elsewhere a folder's names are held while
it is gone through.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial

from mobilenet_hub.errors import ImageError
from mobilenet_hub.host import s3
from mobilenet_hub.host.object_path import ObjectPath
from mobilenet_hub.host.stores import (
    Address,
    DeniedError,
    NoSuchObjectError,
    StoreError,
    complete,
    explained,
    is_plain,
    reading,
)
from mobilenet_hub.images.ahead import ahead
from mobilenet_hub.images.content import HEAD_BYTES, is_picture
from mobilenet_hub.images.limits import MAX_FILE_BYTES, TOO_LARGE
from mobilenet_hub.images.names import SYSTEM_FOLDERS, is_in_system_folder, is_picture_name, suffix_of

UNKNOWN_BYTES = 1 << 20  # what an object is taken for whose size nobody has said
_LEAST_BYTES = 1 << 12  # of a request: fewer come no sooner
_MAGIC = re.compile(r"[*?[]")
_ODD_KEY = "a key with a part that is empty or dots, as a//b.jpg, which pyarrow cannot ask for"
_NEEDS_CLIENT = "; with pip install 'mobilenet-hub[s3]' it can be read"
_NO_PICTURE = ("INVALID_OBJECT_STATE", "InvalidObjectState")  # one that was moved to an archive, as Glacier


def read_object(address: Address) -> bytes:
    """Return an object's content.

    Raises:
        ImageError: there is no such object, it lies in an archive, or is larger than any picture.
        StoreError: the store cannot be read; that is no fault of the picture.
    """
    try:
        return reading(address, partial(_content, address))
    except NoSuchObjectError:
        demand_bucket(address.scheme, address.bucket)
        raise ImageError("no such object") from None
    except StoreError as error:
        if any(code in str(error) for code in _NO_PICTURE):
            raise ImageError("lies in an archive of the store, which has to bring it back first") from None
        raise


@cache
def demand_bucket(scheme: str, bucket: str) -> None:
    """Stop where there is no bucket of that name: then no single object is what is wrong.

    Raises:
        StoreError: there is none.
    """
    try:
        found = ObjectPath(Address(scheme, bucket, "")).exists()
    except StoreError:
        return  # one may read objects without being allowed to look at the bucket
    if not found:
        raise StoreError(f"there is no bucket {bucket}; is its name right, and the server's?")


def first_bytes_of(address: Address, count: int) -> bytes:
    """Return how an object begins; empty where there is none, or none so long.

    Raises:
        StoreError: the store cannot be read.
    """
    try:
        return reading(address, partial(_content, address, max(count, _LEAST_BYTES)))[:count]
    except NoSuchObjectError:
        return b""


def _content(address: Address, count: int | None = None) -> bytes:
    """Read an object, or only so many bytes of its beginning: by one request where that can be."""
    has_client = s3.has_client(address)
    if has_client and (data := s3.fetch(address, MAX_FILE_BYTES, count)) is not None:
        return data
    if not is_plain(address):
        raise ImageError(_ODD_KEY + ("" if address.scheme != "s3" or has_client else _NEEDS_CLIENT))
    with address.filesystem().open_input_file(address.path) as stream:
        size = stream.size()
        if count is None and size > MAX_FILE_BYTES:
            raise ImageError(TOO_LARGE)
        wanted = size if count is None else min(count, size)
        return complete(stream.read(wanted), wanted)


def names_one(argument: str) -> bool:
    """Tell whether an address is one object's, whatever it is; the store is asked where the name does not tell.

    Raises:
        InputError: it names no bucket.
        StoreError: the store cannot be read, or has no such bucket.
    """
    address = Address.parse(argument)
    if argument.endswith("/") or not address.key:
        return False
    if is_picture_name(address.key) and not has_magic(address):
        return True
    if not s3.has_client(address):
        return ObjectPath(address).is_file()
    try:
        return s3.is_object(address)
    except DeniedError as denied:
        try:
            return ObjectPath(address).is_file()  # one may read objects without being allowed to list them
        except StoreError:
            raise denied from None


def has_magic(address: Address) -> bool:
    """Tell whether an address is a pattern."""
    return bool(_MAGIC.search(address.key))


def below(address: Address, passed_over: Counter[str] | None = None) -> Iterator[tuple[Address, int]]:
    """Yield the pictures below a prefix, and their sizes, as a folder on a disk is searched.

    Raises:
        StoreError: the store cannot be listed, or has no such bucket.
    """
    prefix = f"{address.key}/" if address.key else ""
    found = (
        (key, size, False)
        for key, size in _names(address, prefix)
        if not (key.endswith("/") or is_in_system_folder(key[len(prefix) :]))
    )
    yield from ((there, size) for there, size, _ in _pictures(address, found, passed_over))


def matching(pattern: Address, passed_over: Counter[str] | None = None) -> Iterator[tuple[Address, int, bool]]:
    """Yield what a pattern matches: objects with True, whatever their names, and the pictures below folders with False.

    `*`, `?` and `[...]` stand for no "/", `**` for any folders; hidden names and a system's folders have to be named.

    Raises:
        StoreError: as for `below`.
    """
    matches = _matcher(pattern.key)
    literal = _MAGIC.split(pattern.key, maxsplit=1)[0]
    listed = ((key, size, matches(key)) for key, size in _names(pattern, literal) if not key.endswith("/"))
    yield from _pictures(pattern, ((key, size, how == "itself") for key, size, how in listed if how), passed_over)


def _matcher(pattern: str) -> Callable[[str], str]:
    """Return what tells of a key whether it matches "itself", lies "below" what does, or neither: ""."""
    parts = pattern.split("/")
    text = "".join(_part(part, is_last=index == len(parts) - 1) for index, part in enumerate(parts))
    compiled = re.compile(f"({text})(?P<below>/.*)?", re.DOTALL)
    deep = parts[-1] == "**"

    def tell(key: str) -> str:
        found = compiled.fullmatch(key)
        if not found:
            return ""
        inside = found["below"]
        if any(part.lower() in SYSTEM_FOLDERS and part not in pattern for part in key.split("/")[:-1]):
            return ""
        if inside and is_in_system_folder(inside[1:]):
            return ""
        return "below" if inside and not deep else "itself"

    return tell


def _part(part: str, *, is_last: bool) -> str:
    """Return a pattern for one part of a path."""
    if part == "**":
        return r"(?:(?!\.)[^/]+/)*" + (r"(?!\.)[^/]+" if is_last else "")
    text, index = ("" if part.startswith(".") else r"(?!\.)") if _MAGIC.search(part) else "", 0
    while index < len(part):
        char = part[index]
        end = part.find("]", index + 2) if char == "[" else -1
        if char == "*":
            text += "[^/]*"
        elif char == "?":
            text += "[^/]"
        elif end > 0:
            inside = part[index + 1 : end].replace("\\", r"\\")
            text += f"[{'^' + inside[1:] if inside.startswith('!') else inside}]"
            index = end
        else:
            text += re.escape(char)
        index += 1
    return text + ("" if is_last else "/")


def _pictures(
    address: Address, found: Iterable[tuple[str, int, bool]], passed_over: Counter[str] | None
) -> Iterator[tuple[Address, int, bool]]:
    """Yield those objects that are pictures, or are taken whatever they are (True).

    Into those whose names do not tell it is looked, many at once.
    """

    def asked() -> Iterator[tuple[tuple[Address, int, bool], int, Callable[[], bytes] | None]]:
        for key, size, is_taken in found:
            there = Address(address.scheme, address.bucket, key)
            known = is_taken or is_picture_name(key) or suffix_of(key)
            yield (there, size, is_taken), 0, None if known else partial(first_bytes_of, there, HEAD_BYTES)

    for (there, size, is_taken), head in ahead(asked()):
        if is_taken or is_picture(there.key, partial(bytes, head or b"")):
            yield there, size, is_taken
        elif passed_over is not None:
            passed_over[suffix_of(there.key)] += 1


def _names(address: Address, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield (key, size) of all objects whose key begins so, in the order of the keys' bytes."""
    if s3.has_client(address):
        yield from s3.names(address, prefix)
        return
    folder, _, _ = prefix.rpartition("/")
    yield from ((key, size) for key, size in _walk(address, folder) if key.startswith(prefix))


def _walk(address: Address, folder: str) -> Iterator[tuple[str, int]]:
    from pyarrow.fs import FileSelector, FileType

    there = Address(address.scheme, address.bucket, folder)
    at_once = address.scheme == "gs"  # whose folders pyarrow only sees where an empty object stands for them
    with explained(address):
        selected = FileSelector(there.path, allow_not_found=True, recursive=at_once)
        infos = address.filesystem().get_file_info(selected)
    start = len(address.bucket) + 1
    if any(info.path.rstrip("/") == there.path for info in infos):  # what lies in it is not told
        raise StoreError(f"an object in {there} has {_ODD_KEY}{_NEEDS_CLIENT}")
    entries = sorted(
        (info.path[start:] + "/", -1) if info.type == FileType.Directory else (info.path[start:], info.size or 0)
        for info in infos
    )
    del infos
    for key, size in entries:
        if size >= 0:
            yield key, size
        elif not at_once:
            yield from _walk(address, key[:-1])
