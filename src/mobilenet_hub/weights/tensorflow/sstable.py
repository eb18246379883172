"""TensorFlow's sorted string table, the format of checkpoint indexes.

Layout (tensorflow/core/lib/io/table_format.txt, after LevelDB): data blocks, a metaindex block, an index block and a
footer of 48 bytes, without gaps. A block is its contents, one byte for the compression, and the masked CRC-32C of
both. Everything is checked: a table read here has no byte that is not covered by a checksum or known beforehand.
"""

from collections.abc import Iterator

import google_crc32c

from mobilenet_hub.weights.tensorflow.protobuf import read_varint

_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h
_FOOTER_BYTES, _MAGIC = 48, (0xDB4775248B80FB57).to_bytes(8, "little")
_TRAILER_BYTES = 5
_PLAIN, _SNAPPY = 0, 1
# The largest known index, of a V2 checkpoint with optimizer slots, has about a thousand keys of at most 80 bytes.
_MAX_KEYS, _MAX_KEY_BYTES = 20_000, 1024
_MAX_SNAPPY_RATIO = 64


def read_table(data: bytes) -> dict[bytes, bytes]:
    """Return the keys and values of a whole table, in order.

    Raises:
        ValueError: the table is damaged in any byte, or cut off.
    """
    if len(data) < _FOOTER_BYTES or not data.endswith(_MAGIC):
        raise ValueError("it does not end as a checkpoint index")
    footer = memoryview(data)[-_FOOTER_BYTES : -len(_MAGIC)]
    metaindex, at = _handle(footer, 0)
    index, at = _handle(footer, at)
    if any(footer[at:]):
        raise ValueError("its footer is damaged")
    body = memoryview(data)[:-_FOOTER_BYTES]
    handles = [_handle(value, 0)[0] for _, value in _entries(_block(body, index))]
    _check_no_gaps([*handles, metaindex, index], len(body))
    _block(body, metaindex)
    table: dict[bytes, bytes] = {}
    last = None
    for handle in handles:
        for key, value in _entries(_block(body, handle)):
            if last is not None and key <= last:
                raise ValueError(f"key {key!r} is out of order")
            if len(table) >= _MAX_KEYS:
                raise ValueError(f"it has more than {_MAX_KEYS} keys")
            table[key] = bytes(value)
            last = key
    return table


def _handle(data: memoryview, at: int) -> tuple[tuple[int, int], int]:
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _check_no_gaps(handles: list[tuple[int, int]], end: int) -> None:
    at = 0
    for offset, size in handles:
        if offset != at:
            raise ValueError(f"a block begins at byte {offset}, not {at}")
        at += size + _TRAILER_BYTES
    if at != end:
        raise ValueError(f"its blocks end at byte {at}, not {end}")


def masked_crc32c(data: bytes | memoryview) -> int:
    """Return the CRC-32C of bytes as TensorFlow stores it: rotated and shifted, so that a CRC of CRCs is harmless.

    Example:
        >>> hex(masked_crc32c(b""))
        '0xa282ead8'
    """
    crc = google_crc32c.value(bytes(data))
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _block(body: memoryview, handle: tuple[int, int]) -> memoryview:
    offset, size = handle
    if offset + size + _TRAILER_BYTES > len(body):
        raise ValueError(f"the block at byte {offset} is cut off")
    stored = int.from_bytes(body[offset + size + 1 : offset + size + _TRAILER_BYTES], "little")
    if masked_crc32c(body[offset : offset + size + 1]) != stored:
        raise ValueError(f"the checksum of the block at byte {offset} is wrong")
    contents, compression = body[offset : offset + size], body[offset + size]
    if compression == _PLAIN:
        return contents
    if compression == _SNAPPY:
        return memoryview(_unsnappy(contents))
    raise ValueError(f"the block at byte {offset} has the unknown compression {compression}")


def _entries(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the entries of a block, each key given by what it shares with the one before; restart points are unused."""
    if len(block) < 4:
        raise ValueError("a block is too short")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 - 4 * restarts
    if end < 0:
        raise ValueError("a block's restart points do not fit it")
    key, at = b"", 0
    while at < end:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        length, at = read_varint(block, at)
        if shared > len(key) or shared + unshared > _MAX_KEY_BYTES or unshared + length > end - at:
            raise ValueError(f"an entry after the key {key[:80]!r} does not fit its block")
        key = key[:shared] + bytes(block[at : at + unshared])
        at += unshared
        yield key, block[at : at + length]
        at += length


def _unsnappy(data: memoryview) -> bytes:
    """Decompress Snappy's raw format (github.com/google/snappy/blob/main/format_description.txt)."""
    size, at = read_varint(data, 0)
    if size > _MAX_SNAPPY_RATIO * len(data):
        raise ValueError("a compressed block announces more than its bytes can hold")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        kind, at = tag & 3, at + 1
        if kind == 0:
            length, at = _literal_length(data, at, tag >> 2)
            piece = data[at : at + length]
            at += length
            if len(piece) != length:
                raise ValueError("a compressed block is cut off")
            out += piece
        else:
            width = (0, 1, 2, 4)[kind]
            offset = int.from_bytes(data[at : at + width], "little") + ((tag >> 5) << 8 if kind == 1 else 0)
            length = (tag >> 2 & 7) + 4 if kind == 1 else (tag >> 2) + 1
            at += width
            if at > len(data) or not 0 < offset <= len(out):
                raise ValueError("a compressed block refers to bytes that it does not have")
            pattern = out[-offset:][:length]
            out += (pattern * (length // len(pattern) + 1))[:length]
        if len(out) > size:
            break
    if len(out) != size:
        raise ValueError(f"a compressed block holds {len(out)} bytes, not {size}")
    return bytes(out)


def _literal_length(data: memoryview, at: int, code: int) -> tuple[int, int]:
    if code < 60:
        return code + 1, at
    width = code - 59
    return int.from_bytes(data[at : at + width], "little") + 1, at + width
