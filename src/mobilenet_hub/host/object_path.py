"""An address in an object store that answers what a `Path` answers, so that what writes folders can write there.

A store has no folders, no renames and no half files: an object appears whole when its last byte has arrived, or not at
all. What is written is therefore first complete on a local disk, then sent.
"""

import errno
import hashlib
import mmap
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from mobilenet_hub.host import s3
from mobilenet_hub.host.stores import Address, NoSuchObjectError, complete, demand_local, explained, is_address, reading

if TYPE_CHECKING:
    from pyarrow.fs import FileType


class ObjectPath:
    """A place in an object store.

    Example:
        >>> place = ObjectPath.parse("s3://bucket/features") / "part-00000.parquet"
        >>> str(place), place.name, place.suffix
        ('s3://bucket/features/part-00000.parquet', 'part-00000.parquet', '.parquet')
    """

    def __init__(self, address: Address):
        self.address = address

    @classmethod
    def parse(cls, text: str) -> "ObjectPath":
        """Read an address.

        Raises:
            InputError: it names no bucket.
        """
        return cls(Address.parse(text))

    def __str__(self) -> str:
        return str(self.address)

    def __repr__(self) -> str:
        return f"ObjectPath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectPath) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __truediv__(self, name: str) -> "ObjectPath":
        key = f"{self.address.key}/{name}" if self.address.key else name
        return ObjectPath(Address(self.address.scheme, self.address.bucket, key))

    @property
    def name(self) -> str:
        """The last part of the key; "" of a bucket."""
        return PurePosixPath(self.address.key).name

    @property
    def suffix(self) -> str:
        """How the name ends."""
        return PurePosixPath(self.name).suffix

    def with_name(self, name: str) -> "ObjectPath":
        """Return the place of this name beside it."""
        above = self.address.key.rpartition("/")[0]
        return ObjectPath(Address(self.address.scheme, self.address.bucket, "")) / (
            f"{above}/{name}" if above else name
        )

    def with_suffix(self, suffix: str) -> "ObjectPath":
        """Return the place beside it whose name ends otherwise."""
        return self.with_name(str(PurePosixPath(self.name).with_suffix(suffix)))

    def is_file(self) -> bool:
        """Tell whether there is an object, and not only some below it."""
        from pyarrow.fs import FileType

        return self._type() == FileType.File

    def is_dir(self) -> bool:
        """Tell whether there are objects below it."""
        from pyarrow.fs import FileType

        return self._type() == FileType.Directory

    def exists(self) -> bool:
        """Tell whether there is an object, or some below it."""
        from pyarrow.fs import FileType

        return self._type() != FileType.NotFound

    def iterdir(self) -> Iterator["ObjectPath"]:
        """Yield what lies directly below it; nothing where there is nothing.

        Raises:
            StoreError: there is no such bucket, or it cannot be listed.
        """
        from pyarrow.fs import FileSelector

        with explained(self.address):
            found = self.address.filesystem().get_file_info(FileSelector(self.address.path, allow_not_found=True))
        for info in sorted(found, key=lambda info: info.path):
            yield self / info.base_name

    def open(self, mode: str = "rb") -> Any:
        """Open the object for reading, at any place.

        Raises:
            NoSuchObjectError: there is none.
        """
        assert mode == "rb"
        with explained(self.address):
            return self.address.filesystem().open_input_file(self.address.path)

    def read_bytes(self) -> bytes:
        """Return the object's content.

        Raises:
            NoSuchObjectError: there is none.
        """

        def read() -> bytes:
            with self.address.filesystem().open_input_file(self.address.path) as stream:
                return complete(stream.read(), stream.size())

        return reading(self.address, read)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object; a store may pass over that there is none.

        Raises:
            NoSuchObjectError: there is none.
        """
        try:
            if s3.has_client(self.address):
                return s3.remove(self.address)
            with explained(self.address):
                return self.address.filesystem().delete_file(self.address.path)
        except NoSuchObjectError:
            if not missing_ok:
                raise

    def remove_below(self) -> None:
        """Remove all objects below it.

        Raises:
            StoreError: they cannot be.
        """
        with explained(self.address):
            self.address.filesystem().delete_dir(self.address.path)

    def write(self, content: BinaryIO) -> None:
        """Make an object of what a complete file holds from its beginning on; it appears when all of it has arrived.

        Raises:
            StoreError: it could not be sent; what was there is there still.
        """
        content.flush()
        with explained(self.address), ThreadPoolExecutor(1, "send") as thread:
            thread.submit(self._send, content.fileno()).result()

    def _send(self, descriptor: int) -> None:
        """Send a file's content in one call.

        A stream that is closed, or only forgotten, makes an object of what it was given until then. So nothing may come
        between its opening and its last byte: neither an error of reading, which a mapped file has none of, nor
        Ctrl-C, which is for the main thread.
        """
        size = os.fstat(descriptor).st_size
        data = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if size else b""
        stream = self.address.filesystem().open_output_stream(self.address.path)
        stream.write(data)
        stream.close()

    def tag(self) -> str | None:
        """Return what stands for its content: another one has another tag. None where there is no object."""
        if s3.has_client(self.address):
            return s3.etag(self.address)
        try:
            return hashlib.sha256(self.read_bytes()).hexdigest()
        except NoSuchObjectError:
            return None

    def write_if(self, data: bytes, expected: str | None) -> str | None:
        """Write the object where it has the tag that is expected (None: no object), and return its new one.

        Where the store has conditions, and botocore is there to ask for them, nobody can come between. Elsewhere it is
        looked at just before, so that a writer is noticed unless it writes in that very moment.

        Raises:
            ChangedError: somebody else has written it.
        """
        try:
            if s3.has_client(self.address):
                return s3.put_if(self.address, data, expected)
        except NotImplementedError:
            pass
        except s3.ChangedError:
            if self.read_bytes() == data:  # a try before the last was written, and only its answer was lost
                return self.tag()
            raise
        if self.tag() != expected:
            raise s3.ChangedError(f"{self} was written by somebody else meanwhile")
        with tempfile.TemporaryFile() as file:
            file.write(data)
            self.write(file)
        return hashlib.sha256(data).hexdigest()

    def _type(self) -> "FileType":
        with explained(self.address):
            return self.address.filesystem().get_file_info(self.address.path).type


@contextmanager
def replacing_object(path: ObjectPath) -> Iterator[BinaryIO]:
    """Give a file to write that becomes the object when all is well: as `host.files.replacing`.

    Raises:
        OSError: the local disk is full, or the store does not take it.
    """
    with tempfile.TemporaryFile() as file:
        try:
            yield file  # type: ignore[misc]
            file.flush()
        except OSError as error:
            if (full := where_full(error)) is not error:
                raise full from error
            raise
        path.write(file)


def where_full(error: OSError) -> OSError:
    """Return an error of writing a file that is to be sent; where a disk is full, with which it is: no store is.

    Example:
        >>> print(where_full(OSError(errno.EIO, "input/output error")))
        [Errno 5] input/output error
    """
    if error.errno != errno.ENOSPC:
        return error
    place = tempfile.gettempdir()
    return OSError(errno.ENOSPC, f"no space left in {place}, where it is complete before it is sent")


def object_path(name: object) -> ObjectPath | None:
    """Return the place that an address names; None where it is none.

    Example:
        >>> object_path("features"), object_path("s3://bucket/features")
        (None, ObjectPath('s3://bucket/features'))
    """
    if isinstance(name, ObjectPath):
        return name
    return ObjectPath.parse(name) if isinstance(name, str) and is_address(name) else None


Place = Path | ObjectPath  # where output may be


def place_of(name: str | os.PathLike[str] | ObjectPath) -> Place:
    """Return the place of this machine, or of an object store, that a name stands for.

    Raises:
        InputError: an address that names no bucket.

    Example:
        >>> place_of("features"), place_of("s3://bucket/features")
        (PosixPath('features'), ObjectPath('s3://bucket/features'))
    """
    return object_path(name) or Path(name)  # pyright: ignore[reportArgumentType]


def make_folder(place: Place) -> None:
    """Make a folder and those above it, where they are missing; a store has none, and needs none.

    Raises:
        InputError: an address that `Path` has made a path of.
        OSError: it cannot be made.

    Example:
        >>> make_folder(Path())
    """
    if isinstance(place, Path):
        demand_local(place, "what is written")
        place.mkdir(parents=True, exist_ok=True)
