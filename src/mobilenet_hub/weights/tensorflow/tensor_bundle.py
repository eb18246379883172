"""TensorFlow's checkpoint files, `<prefix>.index` and `<prefix>.data-00000-of-00001`, read without TensorFlow.

Source: tensorflow/core/util/tensor_bundle and core/protobuf/tensor_bundle.proto. Every byte of every file is covered by
a checksum, or must be zero, and is checked.
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from mobilenet_hub.errors import CorruptFileError
from mobilenet_hub.weights.reading import array_from, from_bfloat16, reading
from mobilenet_hub.weights.tensorflow.protobuf import Message, read_varint
from mobilenet_hub.weights.tensorflow.sstable import masked_crc32c, read_table

WHAT = "a TensorFlow checkpoint"
_DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}  # types.proto
_STRING, _BFLOAT16 = 7, 14
_MAX_SHARDS = 1000
_CHUNK = 1 << 20


@dataclass(frozen=True)
class _Entry:
    """A BundleEntryProto: where the bytes of one tensor lie."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_bundle(prefix: Path) -> dict[str, np.ndarray | tuple[bytes, ...]]:
    """Read a whole checkpoint and verify every checksum in it.

    Args:
        prefix: the path without `.index`.

    Returns:
        Name -> tensor; strings as a tuple of bytes. Tensors of exotic types are verified and left out.

    Raises:
        CorruptFileError: a file is missing, cut off, damaged in any byte, or belongs to another checkpoint; names
            the file and the tensor.

    Example:
        >>> read_bundle(Path("mobilenet_v1_0.25_128.ckpt"))["MobilenetV1/Conv2d_0/weights"].shape  # doctest: +SKIP
        (3, 3, 3, 8)
    """
    index = prefix.with_name(f"{prefix.name}.index")
    with reading(index, "a checkpoint index"):
        shards, entries = _read_index(index.read_bytes())
    tensors: dict[str, np.ndarray | tuple[bytes, ...]] = {}
    for shard in range(shards):
        file = prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}")
        with reading(file, WHAT):
            tensors.update(_read_shard(file, [entry for entry in entries if entry.shard == shard]))
    return tensors


def _read_index(data: bytes) -> tuple[int, list[_Entry]]:
    table = read_table(data)
    if b"" not in table:
        raise ValueError("it has no header")
    header = Message(table.pop(b""))
    shards = header.number(1)
    if header.number(2):
        raise ValueError("it was written on a big-endian machine, which is not supported")
    if not 1 <= shards <= _MAX_SHARDS:
        raise ValueError(f"it announces {shards} data files")
    entries = [_entry(str(key, "utf-8"), Message(value)) for key, value in table.items()]
    for entry in entries:
        if entry.shard >= shards:
            raise ValueError(f"{entry.name} lies in data file {entry.shard} of {shards}")
    return shards, entries


def _entry(name: str, proto: Message) -> _Entry:
    if 7 in proto:
        raise ValueError(f"{name} is a partitioned variable, which no MobileNet has")
    shape = tuple(dimension.signed(1) for dimension in proto.message(2).messages(2))
    crc = int.from_bytes(proto.bytes(6), "little")
    return _Entry(name, proto.number(1), shape, proto.number(3), proto.number(4), proto.number(5), crc)


def _read_shard(file: Path, entries: list[_Entry]) -> dict[str, np.ndarray | tuple[bytes, ...]]:
    tensors: dict[str, np.ndarray | tuple[bytes, ...]] = {}
    size = file.stat().st_size
    at = 0
    with file.open("rb") as stream:
        for entry in sorted(entries, key=lambda entry: (entry.offset, entry.size)):
            if entry.offset < at:
                raise ValueError(f"{entry.name} overlaps the tensor before it")
            if entry.offset + entry.size > size:
                raise ValueError(f"{entry.name} ends at byte {entry.offset + entry.size}; the file has {size}")
            _skip_zeros(stream.read, entry.offset - at, entry.name)
            value = _read_tensor(stream.read(entry.size), entry)
            if value is not None:
                tensors[entry.name] = value
            at = entry.offset + entry.size
        _skip_zeros(stream.read, size - at, "the end")
    return tensors


def _skip_zeros(read, count: int, before: str) -> None:
    """Step over the zeros that some writers put before a tensor, to align it."""
    while count > 0:
        chunk = read(min(count, _CHUNK))
        if not chunk or any(chunk):
            raise ValueError(f"there are bytes before {before} that belong to no tensor")
        count -= len(chunk)


def _read_tensor(data: bytes, entry: _Entry) -> np.ndarray | tuple[bytes, ...] | None:
    if entry.dtype == _STRING:
        strings, checked = _read_strings(data, entry)
    else:
        strings, checked = None, data
    if masked_crc32c(checked) != entry.crc:
        raise ValueError(f"the checksum of {entry.name} is wrong")
    if strings is not None:
        return strings
    if entry.dtype == _BFLOAT16:
        return from_bfloat16(array_from(data, np.dtype("<u2"), entry.shape, entry.name))
    if entry.dtype not in _DTYPES:
        return None
    return array_from(data, np.dtype(_DTYPES[entry.dtype]), entry.shape, entry.name)


def _read_strings(data: bytes, entry: _Entry) -> tuple[tuple[bytes, ...], bytes]:
    """Return the strings, and the bytes that their checksum covers (tensor_bundle.cc, WriteStringTensor).

    On disk: the lengths as varints, the masked checksum of the lengths, the strings. The checksum covers the lengths
    as 32-bit numbers (64 where they need it).
    """
    count = prod(entry.shape)
    if not 0 <= count <= len(data):
        raise ValueError(f"{entry.name} announces {count} strings in {len(data)} bytes")
    view, lengths, at = memoryview(data), [], 0
    for _ in range(count):
        length, at = read_varint(view, at)
        lengths.append(length)
    covered = b"".join(n.to_bytes(4 if n < 1 << 32 else 8, "little") for n in lengths)
    stored = data[at : at + 4]
    at += 4
    if at + sum(lengths) != len(data) or masked_crc32c(covered) != int.from_bytes(stored, "little"):
        raise ValueError(f"the lengths of the strings of {entry.name} are damaged")
    strings = []
    for length in lengths:
        strings.append(data[at : at + length])
        at += length
    return tuple(strings), covered + stored + b"".join(strings)


def find_prefix(folder: Path) -> Path | None:
    """Return the prefix of the checkpoint in a folder: the one that its `checkpoint` file names, or the only one.

    Raises:
        CorruptFileError: there are several and nothing says which.
    """
    prefixes = sorted(file.with_suffix("") for file in folder.glob("*.index"))
    if len(prefixes) > 1 and (folder / "checkpoint").is_file():
        with reading(folder / "checkpoint", "a list of checkpoints"):
            first = (folder / "checkpoint").read_text("utf-8").partition("\n")[0]
        latest = Path(first.partition(":")[2].strip().strip('"')).name
        prefixes = [prefix for prefix in prefixes if prefix.name == latest] or prefixes
    if len(prefixes) > 1:
        names = ", ".join(prefix.name for prefix in prefixes[:5])
        raise CorruptFileError(f"{folder} holds several checkpoints ({names}, ...); name one of them")
    return prefixes[0] if prefixes else None
