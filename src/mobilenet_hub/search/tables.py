"""Rows to a .csv, .jsonl or .parquet file, whole or not at all, and back."""

import csv
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.host.files import is_folder, printable, replacing
from mobilenet_hub.host.ownership import bears_mark, check_file_place, clear_work, work_folder
from mobilenet_hub.host.text import read_text

TABLE_ENDINGS = (".csv", ".jsonl", ".parquet")
_WORK = re.compile("features")  # what lies in the folder of unfinished work
_LONGEST_LINE = 1 << 20
_FORMULA = ("=", "+", "-", "@")  # a spreadsheet computes cells that begin so; they can only be paths here


def checked_output(
    output: str | os.PathLike[str] | None, endings: Sequence[str], columns: Sequence[str] = (), *, overwrite: bool
) -> Path | None:
    """Return where to write, refusing before the work what would be refused after it.

    Args:
        output: the name given, if any.
        endings: what it may end in.
        columns: of the table that is written where it is no page.
        overwrite: whether a file of the user's may be replaced.

    Raises:
        InputError: another ending.
        OutputError: no such folder to write in, or something else is there.

    Example:
        >>> checked_output("out.txt", (".csv", ".html"), overwrite=False)
        Traceback (most recent call last):
        mobilenet_hub.errors.InputError: out.txt: the name must end in .csv, .html
    """
    if output is None:
        return None
    path = Path(output)
    if path.suffix.lower() not in endings:
        raise InputError(f"{path}: the name must end in {', '.join(endings)}")
    if not is_folder(path.absolute().parent):
        raise OutputError(f"{path}: the folder {path.absolute().parent} does not exist; make it first")
    is_page = path.suffix.lower() == ".html"
    check_file_place(path, overwrite=overwrite, is_ours=bears_mark if is_page else lambda it: _has(it, columns))
    return path


def _has(table: Path, columns: Sequence[str]) -> bool:
    """Tell whether a file is a table of just these columns, or of no row at all."""
    from pyarrow import ArrowException, parquet

    try:
        if table.suffix.lower() == ".parquet":
            return parquet.read_schema(table).names == list(columns)
        with table.open(encoding="utf-8-sig", newline="") as stream:
            line = stream.readline(_LONGEST_LINE)
        return not line or (
            line.strip() == ",".join(columns)
            if table.suffix.lower() == ".csv"
            else list(json.loads(line)) == list(columns)
        )
    except (OSError, ValueError, TypeError, ArrowException):
        return False


@contextmanager
def kept_work(output: Path | None) -> Iterator[Path | None]:
    """Give the folder beside an output for what a killed run can go on from; it is cleared when all is done.

    Args:
        output: where the result will lie; None: the work is not kept.

    Raises:
        OutputError: the folder holds something else, or another run works there.
    """
    if output is None:
        yield None
        return
    with work_folder(output.with_name(f"{output.name}.work"), output.name, _WORK, shared=False) as work:
        yield work
        clear_work(work, _WORK)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write rows of texts, numbers and truths, in the form that the name's ending says.

    Raises:
        OutputError: it cannot be written; what was there is there still.
    """
    rows = [[printable(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    try:
        with replacing(path) as file:
            if path.suffix.lower() == ".parquet":
                import pyarrow as pa
                from pyarrow import parquet

                cells = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
                parquet.write_table(pa.table(dict(zip(columns, map(list, cells), strict=True))), file)
                return
            text = io.TextIOWrapper(file, "utf-8", newline="")
            if path.suffix.lower() == ".csv":
                writer = csv.writer(text, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows([_cell(cell) for cell in row] for row in rows)
            else:
                for row in rows:
                    line = {n: round(c, 6) if isinstance(c, float) else c for n, c in zip(columns, row, strict=True)}
                    text.write(json.dumps(line, ensure_ascii=False) + "\n")
            text.flush()
            text.detach()
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


def read_table(path: Path) -> list[dict[str, Any]]:
    """Return the rows of such a file; of a .csv all cells as text.

    Raises:
        InputError: it is none, or cannot be read.
    """
    from pyarrow import ArrowException, parquet

    try:
        kind = path.suffix.lower()
        if kind == ".parquet":
            return parquet.read_table(path, partitioning=None).to_pylist()
        if kind == ".jsonl":
            return [json.loads(line) for line in read_text(path).split("\n") if line.strip()]
        if kind == ".csv":
            return list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except (OSError, ValueError, ArrowException, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from None
    raise InputError(f"{path}: the name must end in {', '.join(TABLE_ENDINGS)}")


def _cell(cell: Any) -> Any:
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, str) and cell.startswith(_FORMULA):
        return f"./{cell}"
    return f"{cell:.6f}" if isinstance(cell, float) else cell
