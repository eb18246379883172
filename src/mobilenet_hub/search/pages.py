"""Where the vectors of an embedded collection lie in its files: one row is read without its thousand neighbours.

`embed` writes features plain and uncompressed: the values of a Parquet page are its last bytes, as they are in memory.
The page headers are Thrift's compact protocol (parquet.thrift, PageHeader); four of their numbers are wanted.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mobilenet_hub.errors import CorruptFileError

_DATA_PAGE, _PLAIN = 0, 0
_MAX_HEADER = 4096  # statistics of 2-byte or 4-byte values are short
# Types of Thrift's compact protocol.
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12


@dataclass(frozen=True, slots=True)
class Run:
    """Values that lie side by side in a file."""

    first: int  # number of the first of them, among all of the file
    offset: int  # where it lies, in bytes
    count: int


def plain_runs(path: Path, column: str) -> tuple[Run, ...] | None:
    """Return where the values of a column lie; None where they are compressed, encoded or partly null.

    Raises:
        CorruptFileError: the pages do not hold what the file's footer says.
        OSError: it cannot be read.
    """
    from pyarrow.parquet import ParquetFile

    runs: list[Run] = []
    with ParquetFile(path) as parquet, path.open("rb") as file:
        footer = parquet.metadata
        for group in range(footer.num_row_groups):
            row_group = footer.row_group(group)
            chunks = [row_group.column(index) for index in range(row_group.num_columns)]
            chunk = next(chunk for chunk in chunks if chunk.path_in_schema == column)
            wanted = parquet.schema_arrow.field(column.partition(".")[0]).type.list_size * row_group.num_rows
            if chunk.compression != "UNCOMPRESSED" or chunk.has_dictionary_page or chunk.num_values != wanted:
                return None
            found = _chunk_runs(file, chunk, sum(run.count for run in runs))
            if found is None:
                return None
            if sum(run.count for run in found) != wanted:
                raise CorruptFileError(f"{path}: its pages do not hold the values that its footer names")
            runs += found
    return tuple(runs)


def _chunk_runs(file: BinaryIO, chunk: Any, first: int) -> list[Run] | None:
    size = {"FIXED_LEN_BYTE_ARRAY": 2, "FLOAT": 4}.get(getattr(chunk, "physical_type", ""))
    if size is None:
        return None
    position = chunk.data_page_offset
    end = position + chunk.total_compressed_size
    runs: list[Run] = []
    while position < end:
        file.seek(position)
        header = file.read(_MAX_HEADER)
        try:
            fields, length = _struct(header, 0)
            kind, bytes_held, page = fields[1], fields[3], fields.get(5)
        except (IndexError, KeyError, ValueError) as error:
            raise CorruptFileError(f"{file.name}: damaged page header at byte {position} ({error})") from None
        if kind != _DATA_PAGE or not isinstance(page, dict) or page.get(2) != _PLAIN:
            return None
        count, position = page[1], position + length + bytes_held
        runs.append(Run(first, position - count * size, count))
        first += count
    return runs


def _struct(data: bytes, at: int) -> tuple[dict[int, object], int]:
    """Read a struct: {field number: integer or struct}, what is of another type passed over; and where it ends."""
    fields: dict[int, object] = {}
    number = 0
    while data[at]:
        step, kind = data[at] >> 4, data[at] & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(data, at, kind)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int) -> tuple[object, int]:
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, at
    if kind == _STRUCT:
        return _struct(data, at)
    if kind == _BINARY:
        length, at = _varint(data, at)
        return None, at + length
    if kind in (_BYTE, _DOUBLE):
        return None, at + (1 if kind == _BYTE else 8)
    if kind in (_LIST, _SET, _MAP):
        raise ValueError(f"a collection, of type {kind}, where none belongs")
    return _integer(data, at)


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def read_values(file: FileIO, runs: Sequence[Run], firsts: Sequence[int], start: int, out: np.ndarray) -> None:
    """Fill `out` with the values from number `start` on; `firsts` are the runs' first numbers."""
    index = bisect_right(firsts, start) - 1
    filled = 0
    while filled < len(out):
        run = runs[index]
        skipped = start + filled - run.first
        count = min(run.count - skipped, len(out) - filled)
        file.seek(run.offset + skipped * out.itemsize)
        wanted = out[filled : filled + count].view(np.uint8).data
        while wanted:
            read = file.readinto(wanted)
            if not read:
                raise CorruptFileError(f"{file.name} is shorter than it was")
            wanted = wanted[read:]
        filled += count
        index += 1
