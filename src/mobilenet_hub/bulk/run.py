"""A collection of any size through a module into a table: decoding, inference, shards, and the one file at the end.

Imports errors, disk, sources, pipeline, shards and classify; pyarrow on first use.
"""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mobilenet_hub.bulk.shards import (
    DEFAULT_SHARD_SIZE,
    MANIFEST_FILE,
    METADATA_PREFIX,
    SKIPPED_FILE,
    Shards,
    add_key,
    as_metadata,
    as_text,
    discard_leftovers,
    open_parquet,
    refuse_other_settings,
)
from mobilenet_hub.errors import ImageError, InputError, OutputError
from mobilenet_hub.host.files import exists, is_folder, printable, replacing
from mobilenet_hub.images.batches import Batch, Computes, compute
from mobilenet_hub.images.fit import Fit
from mobilenet_hub.images.inputs import Item, items

if TYPE_CHECKING:
    from pyarrow import RecordBatch, Schema


_LABEL_COLUMNS = ("path", "label", "score", "index")
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Rows:
    """What the rows of a table hold, and how they are made of a batch."""

    output: str  # the engine's output that they are made of: "features" or "logits"
    schema: "Schema"
    make: Callable[[Batch, np.ndarray], "RecordBatch"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a bulk run has done."""

    output: Path
    rows: int
    skipped: int
    skipped_file: Path | None  # None where nothing was skipped
    resumed: int  # inputs that an earlier run had done


def feature_rows(num_features: int, *, half: bool = False) -> Rows:
    """Return rows of path, width, height and features, a fixed-size list of float32, or float16 if `half`."""
    import pyarrow as pa

    number, dtype = (pa.float16(), np.float16) if half else (pa.float32(), np.float32)
    schema = pa.schema(
        [
            pa.field("path", pa.string(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("features", pa.list_(pa.field("element", number, nullable=False), num_features), nullable=False),
        ]
    )

    def make(batch: Batch, features: np.ndarray) -> "RecordBatch":
        values = pa.array(features.astype(dtype, copy=False).ravel())  # shares the memory
        heights, widths = np.array(batch.sizes, np.int32).reshape(-1, 2).T
        lists = pa.FixedSizeListArray.from_arrays(values, type=schema.field("features").type)
        return pa.RecordBatch.from_arrays([_paths(batch), pa.array(widths), pa.array(heights), lists], schema=schema)

    return Rows("features", schema, make)


def label_rows(labels: Sequence[str], top: int) -> Rows:
    """Return rows of path, label, score and index: values for top 1, lists for more, the likeliest first."""
    import pyarrow as pa

    from mobilenet_hub.inference.classify import likeliest

    def of(kind: pa.DataType) -> pa.DataType:
        return kind if top == 1 else pa.list_(pa.field("element", kind, nullable=False))

    kinds = (pa.string(), of(pa.string()), of(pa.float64()), of(pa.int32()))
    schema = pa.schema([pa.field(n, kind, nullable=False) for n, kind in zip(_LABEL_COLUMNS, kinds, strict=True)])

    def make(batch: Batch, logits: np.ndarray) -> "RecordBatch":
        indices, scores = likeliest(logits, top)
        if top == 1:
            indices, scores = indices[:, 0], scores[:, 0]
        named = np.array(labels, object)[indices].tolist()
        columns = [
            pa.array(value, schema.field(name).type)
            for name, value in zip(_LABEL_COLUMNS[1:], (named, scores.tolist(), indices.tolist()), strict=True)
        ]
        return pa.RecordBatch.from_arrays([_paths(batch), *columns], schema=schema)

    return Rows("logits", schema, make)


def _paths(batch: Batch) -> Any:
    import pyarrow as pa

    return pa.array([printable(key) for key in batch.keys], pa.string())


def write(
    inputs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    engine: Computes,
    rows: Rows,
    settings: dict[str, Any],
    *,
    fit: Fit,
    limit: int | None = None,
    shard_size: int = DEFAULT_SHARD_SIZE,
    strict: bool = False,
    on_progress: Callable[[int], object] = lambda done: None,
) -> Summary:
    """Compute the rows of all inputs, in their order, into a folder of shards or one file; go on if it was begun.

    Args:
        inputs: as for `sources.items`.
        output: a name without suffix, or with / at its end, is a folder with part-00000.parquet, ..., manifest.json
            and skipped.csv; a name ending in .parquet, .npy (with a .index.parquet beside it), .csv or .jsonl is one
            file, put together at the end from shards kept beside it until then, with OUTPUT.skipped.csv if anything
            was skipped.
        engine: what computes.
        rows: what to make of its output.
        settings: whatever else the rows depend on; kept in the schema's metadata, and not to be changed when going on.
        fit: how pictures are fitted.
        limit: take only this many inputs.
        shard_size: inputs of a shard.
        strict: stop at the first input that is no picture.
        on_progress: called with the number of inputs that were just done.

    Raises:
        ImageError: an input is no picture, and `strict`; what was finished is kept.
        InputError: the output was begun with other settings or inputs, or a folder vanished while it was read.
        OutputError: the output cannot be written; what was finished is kept.
    """
    is_file = bool(Path(output).suffix) and not os.fspath(output).endswith(("/", os.sep))
    output = Path(output)
    _check(output, rows, limit, shard_size, is_file=is_file)
    settings = {**settings, "fit": fit, "limit": limit, "shard_size": shard_size}
    folder = output.with_name(f"{output.name}.parts") if is_file else output
    if is_file and exists(output) and not exists(folder / MANIFEST_FILE):
        done = _finished_before(output, settings, islice(items(inputs, limit or 2**63), limit))
        discard_leftovers(folder)  # of a run that was killed while it tidied up
        if done is not None:
            return done
    with Shards(folder, settings, rows.schema) as shards:
        resumed = shards.inputs
        stream = shards.remaining(islice(items(inputs, unread=resumed), limit))
        on_progress(resumed)
        for batch, values in compute(stream, engine, rows.output, fit, shard_size=shard_size):
            if strict and batch.skipped:
                key, reason = batch.skipped[0]
                raise ImageError(reason, key)
            shards.add(rows.make(batch, values), batch.inputs, batch.skipped)
            on_progress(len(batch.inputs))
        shards.finish()
        skipped_file = folder / SKIPPED_FILE
        if is_file:
            skipped_file = _assemble(shards, output, rows.schema, settings)
        return Summary(output, shards.rows, shards.skipped, skipped_file if shards.skipped else None, resumed)


def _check(output: Path, rows: Rows, limit: int | None, shard_size: int, *, is_file: bool) -> None:
    if is_file and output.suffix.lower() not in _endings(rows):
        raise InputError(
            f"{output}: the name must end in {', '.join(_endings(rows))}, or be that of a folder, with / at its end"
        )
    if is_file and is_folder(output):
        raise InputError(f"{output} is a folder; a name ending in {output.suffix} is a file: choose another")
    if not is_folder(output.absolute().parent):
        raise OutputError(
            f"{output}: the folder {output.absolute().parent} does not exist, or one may not look there; make it first"
        )
    for name, number in (("limit", limit), ("shard size", shard_size)):
        if number is not None and number < 1:
            raise InputError(f"the {name} must be 1 or more, not {number}")


def _endings(rows: Rows) -> tuple[str, ...]:
    return (".parquet", ".npy") if rows.output == "features" else (".parquet", ".csv", ".jsonl")


def _finished_before(output: Path, settings: dict[str, Any], stream: Iterator[Item]) -> Summary | None:
    """Return what the finished file holds; None where it is text, which cannot tell and is made again."""
    from pyarrow import ArrowException, parquet

    foreign = InputError(f"{output} is there already, and not from this command; choose another name")
    if output.suffix.lower() in (".csv", ".jsonl"):
        if not _is_label_text(output):
            raise foreign
        return None
    described = output if output.suffix.lower() == ".parquet" else _index_of(output)
    try:
        metadata = parquet.read_schema(described).metadata or {}
        made_with = {
            key.decode().removeprefix(METADATA_PREFIX): value.decode()
            for key, value in metadata.items()
            if key.startswith(METADATA_PREFIX.encode())
        }
        rows, skipped, digest_before = (
            int(made_with.pop("rows")),
            int(made_with.pop("skipped")),
            made_with.pop("keys_sha256"),
        )
    except (ArrowException, OSError, KeyError, ValueError):
        raise foreign from None
    refuse_other_settings(output, made_with, as_text(settings))
    digest = hashlib.sha256()
    for item in stream:
        add_key(digest, item.key)
    if digest.hexdigest() != digest_before:
        raise InputError(f"{output} is there already, made of other inputs; choose another name, or delete it")
    return Summary(output, rows, skipped, _skipped_of(output) if skipped else None, rows + skipped)


def _is_label_text(output: Path) -> bool:
    """Tell by its first line whether a text file was written here, or is empty."""
    try:
        with output.open("rb") as file:
            line = file.readline(_LONGEST_LINE)
        if output.suffix.lower() == ".csv" or not line:
            return not line or line.startswith(",".join(_LABEL_COLUMNS).encode())
        return list(json.loads(line)) == list(_LABEL_COLUMNS)
    except (OSError, ValueError, TypeError):
        return False


def _index_of(output: Path) -> Path:
    return output.with_suffix(".index.parquet")


def _skipped_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.{SKIPPED_FILE}")


def _assemble(shards: Shards, output: Path, schema: "Schema", settings: dict[str, Any]) -> Path:
    """Put finished shards together into one file, then remove them; return the list of what was skipped."""
    totals = {"rows": shards.rows, "skipped": shards.skipped, "keys_sha256": shards.keys_sha256}
    schema = schema.with_metadata(as_metadata({**settings, **totals}))
    try:
        if shards.skipped:
            with replacing(_skipped_of(output)) as file:
                file.write((shards.folder / SKIPPED_FILE).read_bytes())
        else:
            _skipped_of(output).unlink(missing_ok=True)
        kind = output.suffix.lower()
        if kind == ".npy":
            narrow = schema.remove(schema.get_field_index("features"))
            with replacing(_index_of(output)) as file:
                _write_parquet(file, shards, narrow)
            with replacing(output) as file:
                _write_npy(file, shards, schema)
        else:
            writer = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}[kind]
            with replacing(output) as file:
                writer(file, shards, schema)
        (shards.folder / MANIFEST_FILE).unlink()  # first: what is left without it is not taken for unfinished work
        shutil.rmtree(shards.folder, ignore_errors=True)
    except OSError as error:
        raise OutputError(
            f"{output} cannot be written: {error.strerror or error}; all rows are kept in {shards.folder}: make room "
            "and run the same command again"
        ) from error
    return _skipped_of(output)


def _record_batches(shards: Shards, columns: Sequence[str]) -> Iterator["RecordBatch"]:
    from pyarrow import parquet

    for path in shards.files:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(columns=list(columns))


def _write_parquet(file: IO[bytes], shards: Shards, schema: "Schema") -> None:
    from pyarrow import Table

    with open_parquet(file, schema) as writer:
        for batch in _record_batches(shards, schema.names):
            writer.write_table(Table.from_batches([batch]).cast(schema), row_group_size=max(1, batch.num_rows))


def _write_npy(file: IO[bytes], shards: Shards, schema: "Schema") -> None:
    kind = schema.field("features").type
    dtype = np.dtype(kind.value_type.to_pandas_dtype())
    header = {"descr": dtype.str, "fortran_order": False, "shape": (shards.rows, kind.list_size)}
    np.lib.format.write_array_header_1_0(file, header)
    for batch in _record_batches(shards, ["features"]):
        file.write(batch.column("features").flatten().to_numpy().tobytes())


def _write_csv(file: IO[bytes], shards: Shards, schema: "Schema") -> None:
    """Write label, score and index of the best class, then label_2, score_2, index_2 of the second, and so on."""
    text = io.TextIOWrapper(file, "utf-8", newline="")
    writer = csv.writer(text)
    heading = False
    for row in _dicts(shards, schema):
        lists = [row[name] if isinstance(row[name], list) else [row[name]] for name in _LABEL_COLUMNS[1:]]
        if not heading:
            ends = ["", *(f"_{rank}" for rank in range(2, len(lists[0]) + 1))]
            writer.writerow(["path", *(f"{name}{end}" for end in ends for name in _LABEL_COLUMNS[1:])])
            heading = True
        writer.writerow([row["path"], *(cell for ranked in zip(*lists, strict=True) for cell in ranked)])
    if not heading:
        writer.writerow(schema.names)
    text.flush()
    text.detach()


def _write_jsonl(file: IO[bytes], shards: Shards, schema: "Schema") -> None:
    for row in _dicts(shards, schema):
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _dicts(shards: Shards, schema: "Schema") -> Iterator[dict[str, Any]]:
    for batch in _record_batches(shards, schema.names):
        yield from batch.to_pylist()
