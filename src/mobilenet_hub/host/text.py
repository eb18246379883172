"""Text files as people's programs save them: lists, tables and labels that this program reads."""

import os
import re
from pathlib import Path

UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
UTF8_MARK = b"\xef\xbb\xbf"
_ESCAPED = re.compile(r"\\x([89a-f][0-9a-f])")  # a byte of no UTF-8, as `files.printable` writes it


def as_text(data: bytes) -> str:
    r"""Return the text of a file: UTF-8 with or without its mark, UTF-16 with one; other bytes as names of files have.

    Windows's programs save UTF-16 ("Unicode") and put marks in front. Ends of lines stay as they are.

    Example:
        >>> as_text(b"\xef\xbb\xbfa\r\n"), as_text("a".encode("utf-16")), as_text(b"\xe4")
        ('a\r\n', 'a', '\udce4')
    """
    if data.startswith(UTF16_MARKS):
        return data.decode("utf-16", "replace")
    return data.removeprefix(UTF8_MARK).decode("utf-8", "surrogateescape")


def read_text(path: str | os.PathLike[str]) -> str:
    """Return the text of a file, as `as_text`.

    Raises:
        OSError: it cannot be read.

    Example:
        >>> read_text(os.devnull)
        ''
    """
    return as_text(Path(path).read_bytes())


def path_of_name(name: str) -> str:
    r"""Return the path of the file that a table names: bytes that are no UTF-8 stand there as backslash escapes.

    Example:
        >>> os.fsencode(path_of_name(r"a\xff.jpg"))
        b'a\xff.jpg'
    """
    if "\\x" not in name or os.path.lexists(name):
        return name
    return _ESCAPED.sub(lambda found: os.fsdecode(bytes.fromhex(found[1])), name)
