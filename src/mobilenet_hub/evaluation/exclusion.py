"""A list of photos to leave out, as `mobilenet check` writes it and people edit it."""

import csv
import io
import os
from pathlib import Path

from mobilenet_hub.errors import InputError
from mobilenet_hub.host.text import path_of_name, read_text


def read_exclusions(file: str | os.PathLike[str], source: str | os.PathLike[str]) -> frozenset[Path]:
    """Return the absolute paths of the photos that a list names.

    Args:
        file: a .csv with a column `path`, or a text with a path on each line; empty lines and lines that begin with #
            are passed over. A path is relative to where one is, or to the photos' folder.
        source: the photos' folder, or table.

    Raises:
        InputError: the list cannot be read, or names what is not there.

    Example:
        >>> read_exclusions("nothing.csv", "photos")
        Traceback (most recent call last):
        mobilenet_hub.errors.InputError: nothing.csv cannot be read: No such file or directory
    """
    try:
        stream = io.StringIO(read_text(file), newline="")
        lines = list(csv.reader(stream)) if Path(file).suffix.lower() == ".csv" else [[line] for line in stream]
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    except csv.Error as error:
        raise InputError(f"{file} cannot be read as a table: {error}") from None
    column = 0
    if Path(file).suffix.lower() == ".csv" and lines:
        if "path" not in lines[0]:
            raise InputError(f"{file} has the columns {', '.join(lines[0])}; it needs path")
        column = lines[0].index("path")
        lines = lines[1:]
    names = [line[column].strip("\r\n") for line in lines if len(line) > column]
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    found = set()
    for name in names:
        if not name.strip():
            continue
        places = (Path(path_of_name(name)), Path(path_of_name(os.fspath(folder / name))))
        there = [path for path in places if os.path.lexists(path)]
        if not there and name.lstrip().startswith("#"):
            continue
        if not there:
            raise InputError(f"{file} names {name}, which is neither here nor in {folder}; take the line out")
        found.add(there[0].absolute())
    return frozenset(found)
