"""Parquet tables with a column of image files, as Hugging Face's data sets and many others keep them.

Imports errors; pyarrow on first use.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mobilenet_hub.errors import ImageError

if TYPE_CHECKING:
    from pyarrow import Field, RecordBatch, Schema

_KEY_COLUMNS = ("path", "key", "__key__", "file_name", "filename", "id")
_IMAGE_COLUMNS = ("image", "img", "bytes", "image_bytes", "jpg", "jpeg", "png", "webp", "content", "data")
_ROWS_AT_ONCE = 32  # of images of a megabyte each, what is held is still little


def rows(path: str | os.PathLike[str], unread: int = 0) -> Iterator[tuple[str, bytes | None]]:
    """Yield (key, image file) for every row.

    The images are in a binary column, or in a struct column with a field `bytes`; of several the first by the usual
    names ("image", "img", "bytes", ...) is taken. The key is the row's text under "path", "key", "__key__",
    "file_name", "filename" or "id" if there is such a column, else `table.parquet#row`.

    Args:
        path: the table.
        unread: of this many rows at the start only the key is wanted; their bytes are None.

    Raises:
        ImageError: no Parquet file, a damaged one, or one without images.
    """
    from pyarrow import ArrowException, parquet

    row = 0
    try:
        with parquet.ParquetFile(path, memory_map=True) as table:
            image = _image_column(table.schema_arrow)
            key = next((k for k in _KEY_COLUMNS if k in table.schema_arrow.names and k != image.split(".")[0]), None)
            for group in range(table.num_row_groups):
                count = table.metadata.row_group(group).num_rows
                wanted = image if row + count > unread else None
                columns = [name for name in (key, wanted) if name]
                if not columns:
                    yield from ((f"{path}#{row + index}", None) for index in range(count))
                    row += count
                    continue
                for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=columns):
                    yield from _of_batch(batch, path, row, key, wanted)
                    row += batch.num_rows
    except (ArrowException, OSError) as error:
        raise ImageError(f"not a readable Parquet table, or damaged from row {row} on ({error})") from None


def _of_batch(
    batch: "RecordBatch", path: str | os.PathLike[str], row: int, key: str | None, image: str | None
) -> Iterator[tuple[str, bytes | None]]:
    names = batch.column(key).to_pylist() if key else [None] * batch.num_rows
    values = [None] * batch.num_rows
    if image is not None:
        column = batch.column(image.split(".")[0])
        values = (column.field("bytes") if "." in image else column).to_pylist()
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        yield str(name) if name is not None else f"{path}#{row + index}", value


def _image_column(schema: "Schema") -> str:
    """Return the column that holds image files: "image", or "image.bytes" for a struct's field."""
    from pyarrow import types

    def leaf(field: "Field") -> str | None:
        if types.is_binary(field.type) or types.is_large_binary(field.type):
            return field.name
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return f"{field.name}.bytes"
        return None

    found = {field.name: path for field in schema if (path := leaf(field))}
    named = next((found[name] for name in _IMAGE_COLUMNS if name in found), None)
    if named is None and len(found) != 1:
        what = f"several binary columns ({', '.join(found)})" if found else f"columns {', '.join(schema.names)}"
        raise ImageError(f"a Parquet table with {what}: which holds image files? Name it 'image'")
    return named or next(iter(found.values()))
