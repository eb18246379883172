"""A large object of a store as an open file, which is read in blocks, the next of them ahead."""

import io
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from mobilenet_hub.host.stores import Address, complete, explained, reading

_BLOCK = 1 << 22  # bytes of one request; at 20 ms a request 200 MB/s for each that is under way
_AHEAD = 4
_KEPT = 8


class Ranges(io.RawIOBase):
    """What `tarfile`, `zipfile` and pyarrow read from; safe from several threads through `read_at`.

    Raises:
        NoSuchObjectError: there is no such object.
        StoreError: the store cannot be read.
    """

    def __init__(self, address: Address):
        """Open it."""
        super().__init__()
        self._address = address
        with explained(address):
            self._file = address.filesystem().open_input_file(address.path)
            self._size = self._file.size()
        self._at = 0
        self._blocks: OrderedDict[int, Future[bytes]] = OrderedDict()
        self._last = -1  # block that was asked for last
        self._turn = Lock()
        self._pool = ThreadPoolExecutor(_AHEAD, "decode-read")
        # Both ends at once: what reads an archive's takes an error there for damage.
        self.read_at(self._size - 1, 1)
        self.read_at(0, 1)

    def read_at(self, offset: int, length: int) -> bytes:
        """Return bytes of the object, fewer at its end.

        Raises:
            StoreError: the store cannot be read.
        """
        length = max(0, min(length, self._size - offset))
        if not length:
            return b""
        numbers = range(offset // _BLOCK, (offset + length - 1) // _BLOCK + 1)
        start = offset - numbers[0] * _BLOCK
        parts = [self._block(number) for number in numbers]
        return (parts[0] if len(parts) == 1 else b"".join(parts))[start : start + length]

    def _block(self, number: int) -> bytes:
        with self._turn:
            in_sequence = number == self._last + 1
            self._last = max(self._last, number) if in_sequence or number == self._last else number
            wanted = range(number, number + (_AHEAD if in_sequence else 1))
            for one in wanted:
                if one not in self._blocks and one * _BLOCK < self._size:
                    self._blocks[one] = self._pool.submit(self._fetch, one)
            self._blocks.move_to_end(number)
            future = self._blocks[number]
            while len(self._blocks) > _KEPT:
                self._blocks.popitem(last=False)
        return future.result()

    def _fetch(self, number: int) -> bytes:
        length = min(_BLOCK, self._size - number * _BLOCK)

        def read() -> bytes:
            return complete(self._file.read_at(length, number * _BLOCK), length)

        return reading(self._address, read)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read anywhere."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Fill a buffer; return how many bytes there were."""
        data = self.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            self._pool.shutdown(wait=False, cancel_futures=True)
        super().close()
