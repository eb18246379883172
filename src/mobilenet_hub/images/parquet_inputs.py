"""Parquet tables with a column of image files, as Hugging Face's data sets and many others keep them."""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from mobilenet_hub.errors import ImageError
from mobilenet_hub.host.stores import Address, StoreError, is_address
from mobilenet_hub.images.ranges import Ranges

if TYPE_CHECKING:
    from pyarrow import Field, RecordBatch, Schema

_KEY_COLUMNS = ("path", "key", "__key__", "file_name", "filename", "id")
_IMAGE_COLUMNS = ("image", "img", "bytes", "image_bytes", "jpg", "jpeg", "png", "webp", "content", "data")
_FIELD = "bytes"  # of a struct, as Hugging Face's Image feature has it
_ROWS_AT_ONCE = 8  # of images of ten megabytes each, what is held is still little
_READ_AT_ONCE = 1 << 20


def rows(path: str | os.PathLike[str], wanted: Callable[[int], bool]) -> Iterator[tuple[str, bytes | None]]:
    """Yield (key, image file) for every row.

    The images are in a binary column, or in a struct column with a field `bytes`; of several the first by the usual
    names ("image", "img", "bytes", ...) is taken. The key is the row's text under "path", "key", "__key__",
    "file_name", "filename" or "id" if there is such a column, else `table.parquet#row`.

    Args:
        path: the table.
        wanted: told a row's number, from 0, says whether its bytes are wanted; a group of rows of which none are is
            read without them.

    Raises:
        ImageError: no Parquet file, a damaged one, or one without images.
    """
    from pyarrow import ArrowException, parquet

    row = 0
    try:
        # Not mapped into memory: the pages that were read would count, and a file cut meanwhile would end the process.
        source = Ranges(Address.parse(os.fspath(path))) if is_address(path) else path
        with parquet.ParquetFile(source, buffer_size=_READ_AT_ONCE, pre_buffer=False) as table:
            image = _image_column(table.schema_arrow)
            key = next((k for k in _KEY_COLUMNS if k in table.schema_arrow.names and k != image.column), None)
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                asked = image if any(map(wanted, range(row, row + count))) else None
                columns = [name for name in (key, asked and asked.path) if name]
                if not columns:
                    yield from ((f"{path}#{row + index}", None) for index in range(count))
                    row += count
                    continue
                for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns):
                    yield from _of_batch(batch, path, row, key, asked)
                    row += batch.num_rows
    except (ImageError, StoreError):
        raise
    except (ArrowException, OSError, ValueError, KeyError) as error:
        raise ImageError(f"not a readable Parquet table, or damaged from row {row} on ({error})") from None


def _of_batch(
    batch: "RecordBatch", path: str | os.PathLike[str], row: int, key: str | None, image: "_ImageColumn | None"
) -> Iterator[tuple[str, bytes | None]]:
    names = _texts(batch.column(key)) if key else [None] * batch.num_rows
    values = [None] * batch.num_rows
    if image is not None:
        column = batch.column(image.column)
        values = (_plain(column).field(image.field) if image.field else column).to_pylist()
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        yield name if name is not None else f"{path}#{row + index}", value


def _texts(column: Any) -> list[str | None]:
    """Return the values as text; bytes that are no UTF-8 as Python has them in the names of files."""
    import pyarrow as pa

    column = _plain(column)
    if not (_is_text(column.type) or _is_binary(column.type)):
        return [None if value is None else str(value) for value in column.to_pylist()]
    values = column.cast(pa.large_binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]


def _plain(column: Any) -> Any:
    """Return a column whose values are stored once each as one that has them in every row."""
    from pyarrow import types

    return column.dictionary_decode() if types.is_dictionary(column.type) else column


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_binary(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    fixed = types.is_fixed_size_binary(kind)
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind) or fixed


class _ImageColumn(NamedTuple):
    """The column that holds image files; of a struct, the field."""

    column: str
    field: str = ""

    @property
    def path(self) -> str:
        """The name that Parquet has for it."""
        return f"{self.column}.{self.field}" if self.field else self.column


def _image_column(schema: "Schema") -> _ImageColumn:
    from pyarrow import types

    def leaf(field: "Field") -> _ImageColumn | None:
        if _is_binary(field.type):
            return _ImageColumn(field.name)
        if types.is_struct(field.type) and (at := field.type.get_field_index(_FIELD)) >= 0:
            return _ImageColumn(field.name, _FIELD) if _is_binary(field.type.field(at).type) else None
        return None

    found = {field.name: path for field in schema if (path := leaf(field))}
    named = next((found[name] for name in _IMAGE_COLUMNS if name in found), None)
    if named is None and len(found) != 1:
        what = f"several binary columns ({', '.join(found)})" if found else f"columns {', '.join(schema.names)}"
        raise ImageError(f"a Parquet table with {what}: which holds image files? Name it 'image'")
    return named or next(iter(found.values()))
