"""One shard while it is written, under a temporary name, and how its Parquet is encoded."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mobilenet_hub.host.files import replacing
from mobilenet_hub.images.skipped import Skipped

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema
    from pyarrow.parquet import ParquetWriter


_ROW_GROUP = 1024  # rows held until they are written

_UNCOMPRESSED = "features.list.element"  # float32 features hardly shrink, and are read faster as they are


class _Unfinished(Exception):
    """What a shard that is given up leaves its place with."""


class ShardFile:
    """A shard while it is written, under a temporary name."""

    def __init__(self, path: Path, schema: "Schema"):
        self.path = path
        self.inputs = self.rows = 0
        self.skipped: list[Skipped] = []
        self._held: list[RecordBatch] = []
        self._schema = schema
        self._place = replacing(path)
        self._writer = open_parquet(self._place.__enter__(), schema)

    def add(self, rows: "RecordBatch", inputs: Sequence[str], skipped: Iterable[Skipped]) -> None:
        """Add the rows of some inputs, and (name, reason) of those without one."""
        self._held.append(rows)
        self.inputs += len(inputs)
        self.rows += rows.num_rows
        self.skipped += skipped
        if sum(held.num_rows for held in self._held) >= _ROW_GROUP:
            self._write_held()

    def finish(self) -> None:
        """Give the shard its name, flushed to disk."""
        try:
            self._write_held()
            self._writer.close()
        except BaseException:
            self.discard()
            raise
        self._place.__exit__(None, None, None)

    def discard(self) -> None:
        """Leave nothing of it."""
        with suppress(OSError):
            self._writer.close()
        self._place.__exit__(_Unfinished, _Unfinished(), None)

    def _write_held(self) -> None:
        from pyarrow import Table

        held, self._held = self._held, []
        table = Table.from_batches(held, self._schema)
        if table.num_rows:
            self._writer.write_table(table, row_group_size=table.num_rows)


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
