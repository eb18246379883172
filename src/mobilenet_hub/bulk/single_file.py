"""Finished shards put together into the one file that was asked for."""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.bulk.manifest import MANIFEST_FILE, METADATA_PREFIX, SKIPPED_FILE, as_metadata, settings_in
from mobilenet_hub.bulk.rows import LABEL_COLUMNS, Rows, dtype_of
from mobilenet_hub.bulk.shard_file import open_parquet, schema_of
from mobilenet_hub.bulk.shards import Shards, is_written_here, remove_folder
from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.files import exists, replacing
from mobilenet_hub.host.object_path import Place, object_path
from mobilenet_hub.host.stores import StoreError

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema


_LONGEST_LINE = 1 << 20


def is_single_file(output: str | os.PathLike[str]) -> bool:
    """Tell of the name of an output whether it is one file, and not a folder of shards.

    Example:
        >>> is_single_file("features.npy"), is_single_file("features"), is_single_file("features.v2/")
        (True, False, False)
    """
    if (place := object_path(output)) is not None:
        return bool(place.suffix) and not os.fspath(output).endswith("/")
    return bool(Path(output).suffix) and not os.fspath(output).endswith(("/", os.sep))


def shards_of(output: Place) -> Place:
    """Return the folder of the shards that one file is put together from."""
    return output.with_name(f"{output.name}.parts")


def endings(rows: Rows) -> tuple[str, ...]:
    """Return the endings of file names that such rows can be written to."""
    return (".parquet", ".npy") if rows.output == "features" else (".parquet", ".csv", ".jsonl")


def is_label_text(output: Place) -> bool:
    """Tell by its first line whether a text file was written here, or is empty."""
    try:
        with output.open("rb") as file:
            line = file.read(_LONGEST_LINE).partition(b"\n")[0]
        if output.suffix.lower() == ".csv" or not line:
            return not line or line.startswith(",".join(LABEL_COLUMNS).encode())
        return list(json.loads(line)) == list(LABEL_COLUMNS)
    except StoreError:
        raise
    except (OSError, ValueError, TypeError):
        return False


def index_of(output: Place) -> Place:
    """Return where the names of an NPY file's rows stand."""
    return output.with_suffix(".index.parquet")


def skipped_of(output: Place) -> Place:
    """Return where the inputs stand that gave no row."""
    return output.with_name(f"{output.name}.{SKIPPED_FILE}")


def settings_of(output: Place) -> dict[str, str]:
    """Return what a finished .parquet or .npy file says of itself: the settings it was made with, and its totals.

    Raises:
        OSError, pyarrow.ArrowException: it cannot be read.
    """
    described = output if output.suffix.lower() == ".parquet" else index_of(output)
    return settings_in(schema_of(described))


def totals_of(output: Place) -> tuple[int, int]:
    """Return how many rows a finished file has, and how many inputs gave none.

    Raises:
        InputError: it is no file of this program.
    """
    from pyarrow import ArrowException

    def lines(file: Place) -> int:
        with io.TextIOWrapper(file.open("rb"), encoding="utf-8", newline="") as stream:
            return sum(1 for _ in (stream if file.suffix.lower() == ".jsonl" else csv.reader(stream)))

    try:
        if output.suffix.lower() in (".csv", ".jsonl"):
            skipped = lines(skipped_of(output)) - 1 if skipped_of(output).exists() else 0
            return lines(output) - (output.suffix.lower() == ".csv"), skipped
        made_with = settings_of(output)
        return int(made_with["rows"]), int(made_with["skipped"])
    except StoreError:
        raise
    except (ArrowException, OSError, KeyError, ValueError, csv.Error):
        raise InputError(f"{output} is no output of this program") from None


def check_places(output: Place) -> None:
    """Refuse, before the work, files of the user's where the output, or what belongs to it, is to be.

    Raises:
        InputError: another file is there.
        OutputError: one is where what belongs to it is to be.
    """
    from pyarrow import ArrowException

    try:
        text = output.suffix.lower() in (".csv", ".jsonl")
        ours = not exists(output) or (is_label_text(output) if text else "rows" in settings_of(output))
    except StoreError:
        raise
    except (ArrowException, OSError, ValueError):
        ours = False
    if not ours:
        raise InputError(f"{output} is there already, and not from this command; choose another name")
    companions = [skipped_of(output), *([index_of(output)] if output.suffix.lower() == ".npy" else [])]
    for file in companions:
        if file.exists() and not is_written_here(file):
            raise OutputError(f"{file} belongs to {output}, and was not written by this program; choose another name")


def assemble(shards: Shards, output: Place, schema: "Schema", settings: dict[str, Any]) -> Place:
    """Put finished shards together into one file, then remove them; return the list of what was skipped."""
    totals = {"rows": shards.rows, "skipped": shards.skipped, "keys_sha256": shards.keys_sha256}
    schema = schema.with_metadata(as_metadata({**settings, **totals}))
    try:
        if shards.skipped:
            with replacing(skipped_of(output)) as file:
                file.write(shards.skipped_file.read_bytes())
        else:
            skipped_of(output).unlink(missing_ok=True)
        kind = output.suffix.lower()
        if kind == ".npy":
            narrow = schema.remove(schema.get_field_index("features"))
            with replacing(index_of(output)) as file:
                _write_parquet(file, shards, narrow)
            with replacing(output) as file:
                _write_npy(file, shards, schema)
        else:
            writer = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}[kind]
            with replacing(output) as file:
                writer(file, shards, schema)
        (shards.folder / MANIFEST_FILE).unlink()  # first: what is left without it is not taken for unfinished work
        remove_folder(shards.folder)
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written: {error.strerror or error}; all rows are kept in {shards.folder}: make room "
            "and run the same command again"
        ) from error
    return skipped_of(output)


def _record_batches(shards: Shards, columns: Sequence[str]) -> Iterator["RecordBatch"]:
    from pyarrow import parquet

    for path in shards.files:
        with path.open("rb") as stream, parquet.ParquetFile(stream) as file:
            yield from file.iter_batches(columns=list(columns))


def _write_parquet(file: IO[bytes], shards: Shards, schema: "Schema") -> None:
    from pyarrow import Table

    with open_parquet(file, schema) as writer:
        for batch in _record_batches(shards, schema.names):
            writer.write_table(Table.from_batches([batch]).cast(schema), row_group_size=max(1, batch.num_rows))


def _write_npy(file: IO[bytes], shards: Shards, schema: "Schema") -> None:
    kind = schema.field("features").type
    header = {"descr": dtype_of(kind).str, "fortran_order": False, "shape": (shards.rows, kind.list_size)}
    np.lib.format.write_array_header_1_0(file, header)
    for batch in _record_batches(shards, ["features"]):
        file.write(batch.column("features").flatten().to_numpy().tobytes())


def _write_csv(file: IO[bytes], shards: Shards, schema: "Schema") -> None:
    """Write label, score and index of the best class, then label_2, score_2, index_2 of the second, and so on.

    Classes that are not believed leave their cells empty: every row has as many as the heading.
    """
    ranks = int((schema.metadata or {}).get(f"{METADATA_PREFIX}top".encode(), 1))
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text)
    ends = ["", *(f"_{rank}" for rank in range(2, ranks + 1))]
    writer.writerow(["path", *(f"{name}{end}" for end in ends for name in LABEL_COLUMNS[1:])])
    for row in _dicts(shards, schema):
        lists = [row[name] if isinstance(row[name], list) else [row[name]] for name in LABEL_COLUMNS[1:]]
        cells = [cell for ranked in zip(*lists, strict=True) for cell in ranked]
        writer.writerow([row["path"], *cells, *[""] * (len(lists) * ranks - len(cells))])
    text.flush()
    text.detach()


def _write_jsonl(file: IO[bytes], shards: Shards, schema: "Schema") -> None:
    for row in _dicts(shards, schema):
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _dicts(shards: Shards, schema: "Schema") -> Iterator[dict[str, Any]]:
    for batch in _record_batches(shards, schema.names):
        yield from batch.to_pylist()
