"""FlatBuffers, read without a schema compiler: tables, vectors, numbers.

Every offset is held against the data. Field numbers stand with the readers that know them.
"""

from struct import Struct, error, unpack_from

_U16, _I32, _U32 = Struct("<H"), Struct("<i"), Struct("<I")
_HEADER_BYTES = 4  # of a list of field positions: its own size, and the table's
_MAX_TABLES = _MAX_NUMBERS = 10_000  # more than any model's: many lists may share the same bytes


class Table:
    """A table at a position of the data; a field that is absent has its default."""

    def __init__(self, data: bytes | memoryview, at: int):
        self._data = memoryview(data)
        self._at = at
        self._fields_at = at - self._unpack(_I32, at)

    @classmethod
    def root(cls, data: bytes | memoryview) -> "Table":
        """Return the table that the data begin with."""
        view = memoryview(data)
        if len(view) < 8:
            raise ValueError("it is too short for a FlatBuffer")
        return cls(view, _U32.unpack_from(view)[0])

    def number(self, field: int, kind: str = "i", default: int = 0) -> int:
        """Return a number of the `struct` module's kind, e.g. "b" for int8."""
        at = self._position(field)
        return self._unpack(Struct(f"<{kind}"), at) if at else default

    def table(self, field: int) -> "Table | None":
        """Return a nested table."""
        at = self._position(field)
        return Table(self._data, at + self._unpack(_U32, at)) if at else None

    def tables(self, field: int) -> "list[Table]":
        """Return a vector of tables."""
        start, count = self._vector(field, 4)
        if count > _MAX_TABLES:
            raise ValueError(f"a list of {count} tables at byte {start}")
        return [Table(self._data, at + self._unpack(_U32, at)) for at in range(start, start + 4 * count, 4)]

    def numbers(self, field: int, kind: str = "i") -> list[int]:
        """Return a vector of numbers."""
        size = Struct(f"<{kind}").size
        start, count = self._vector(field, size)
        if count > _MAX_NUMBERS:
            raise ValueError(f"a list of {count} numbers at byte {start}")
        return list(unpack_from(f"<{count}{kind}", self._data, start)) if count else []

    def place(self, field: int) -> int:
        """Return where in the data the first number of a vector stands."""
        return self._vector(field, 4)[0]

    def bytes(self, field: int) -> memoryview:
        """Return a vector of bytes or a string."""
        start, count = self._vector(field, 1)
        return self._data[start : start + count]

    def _position(self, field: int) -> int:
        within = _HEADER_BYTES + 2 * field
        known = within + 2 <= self._unpack(_U16, self._fields_at)
        offset = self._unpack(_U16, self._fields_at + within) if known else 0
        return self._at + offset if offset else 0

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        at = self._position(field)
        if not at:
            return 0, 0
        start = at + self._unpack(_U32, at)
        count = self._unpack(_U32, start)
        if size * count > len(self._data) - start - 4:
            raise ValueError(f"a list of {count} at byte {start} is cut off")
        return start + 4, count

    def _unpack(self, form: Struct, at: int) -> int:
        if at < 0:
            raise ValueError("it refers to bytes before its beginning")
        try:
            return form.unpack_from(self._data, at)[0]
        except error:
            raise ValueError(f"it refers to byte {at} of {len(self._data)}") from None
