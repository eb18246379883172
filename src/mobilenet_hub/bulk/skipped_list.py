"""The list of what was skipped while it grows: by appending to a file, or by writing an object anew.

An object cannot be appended to. Its lines are kept in a local temporary file, which is sent when there are new ones.
"""

import os
import tempfile
from typing import BinaryIO

from mobilenet_hub.host.files import replacing
from mobilenet_hub.host.object_path import ObjectPath, Place


class SkippedList:
    """A list that the manifest says of how much of it counts."""

    def __init__(self, place: Place):
        """Say where it is; nothing is read or written yet."""
        self._place = place
        self._copy: BinaryIO | None = None  # of an object

    def begin(self, heading: bytes) -> int:
        """Write a new one; return its size.

        Raises:
            OSError: it cannot be written.
        """
        with replacing(self._place) as stream:
            stream.write(heading)
        return len(heading)

    def go_on(self, size: int) -> None:
        """Leave of it what counts.

        Raises:
            OSError: it is not there, or cannot be written.
        """
        if not isinstance(self._place, ObjectPath):
            os.truncate(self._place, size)
            return
        lines = self._place.read_bytes()
        self._copy = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the run)
        self._copy.write(lines[:size])
        if len(lines) > size:
            self._place.write(self._copy)

    def append(self, lines: bytes) -> int:
        """Add lines, so that they are there to stay; return its size.

        Raises:
            OSError: it cannot be written.
        """
        if isinstance(self._place, ObjectPath):
            assert self._copy is not None
            size = self._copy.tell()
            if not lines:
                return size
            try:
                self._copy.write(lines)
                self._place.write(self._copy)
            except BaseException:
                self._copy.seek(size)
                self._copy.truncate()
                raise
            return self._copy.tell()
        with self._place.open("ab") as stream:
            stream.write(lines)
            stream.flush()
            os.fsync(stream.fileno())
            return stream.tell()

    def close(self) -> None:
        """Forget the local copy."""
        if self._copy is not None:
            self._copy.close()
