"""One shard while it is written, under a temporary name, and how its Parquet is encoded."""

from collections.abc import Iterable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from mobilenet_hub.host.files import replacing
from mobilenet_hub.host.object_path import Place
from mobilenet_hub.images.skipped import Skipped

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema
    from pyarrow.parquet import ParquetWriter


_ROW_GROUP = 1024  # rows held until they are written

_UNCOMPRESSED = "features.list.element"  # float32 features hardly shrink, and are read faster as they are


class _Unfinished(Exception):
    """What a shard that is given up leaves its place with."""


class Encoder:
    """Rows to Parquet, in groups of rows that depend on the batches alone.

    Attributes:
        inputs: how many inputs it was given.
        rows: how many rows.
        skipped: (name, reason) of the inputs without a row.
    """

    def __init__(self, stream: IO[bytes], schema: "Schema"):
        """Begin to write."""
        self.inputs = self.rows = 0
        self.skipped: list[Skipped] = []
        self._held: list[RecordBatch] = []
        self._schema = schema
        self._writer = open_parquet(stream, schema)

    def add(self, rows: "RecordBatch", inputs: int, skipped: Iterable[Skipped]) -> None:
        """Add the rows of some inputs, and (name, reason) of those without one."""
        self._held.append(rows)
        self.inputs += inputs
        self.rows += rows.num_rows
        self.skipped += skipped
        if sum(held.num_rows for held in self._held) >= _ROW_GROUP:
            self._write_held()

    def close(self) -> None:
        """Write what is held, and the end."""
        self._write_held()
        self._writer.close()

    def give_up(self) -> None:
        """End without what is held."""
        with suppress(OSError):
            self._writer.close()

    def _write_held(self) -> None:
        from pyarrow import Table

        held, self._held = self._held, []
        table = Table.from_batches(held, self._schema)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)


class ShardFile:
    """A shard while it is written, under a temporary name."""

    def __init__(self, path: Place, schema: "Schema"):
        """Begin to write."""
        self.path = path
        self._place = replacing(path)
        self.encoder = Encoder(self._place.__enter__(), schema)

    def finish(self) -> None:
        """Give the shard its name, flushed to disk."""
        try:
            self.encoder.close()
        except BaseException:
            self.discard()
            raise
        self._place.__exit__(None, None, None)

    def discard(self) -> None:
        """Leave nothing of it."""
        self.encoder.give_up()
        self._place.__exit__(_Unfinished, _Unfinished(), None)


def schema_of(file: Place) -> "Schema":
    """Return the schema of a Parquet file, its metadata included.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    from pyarrow import parquet

    with file.open("rb") as stream:
        return parquet.read_schema(stream)


def open_parquet(file: IO[bytes], schema: "Schema") -> "ParquetWriter":
    """Return a writer whose bytes depend on nothing but the rows."""
    from pyarrow.parquet import ParquetWriter

    compression = dict.fromkeys(_leaves(schema), "zstd")
    if _UNCOMPRESSED in compression:
        compression[_UNCOMPRESSED] = "none"
    return ParquetWriter(file, schema, compression=compression, use_dictionary=["label", "label.list.element"])


def _leaves(schema: "Schema") -> list[str]:
    from pyarrow import types

    def is_list(field: Any) -> bool:
        return types.is_list(field.type) or types.is_fixed_size_list(field.type)

    return [f"{field.name}.list.element" if is_list(field) else field.name for field in schema]
