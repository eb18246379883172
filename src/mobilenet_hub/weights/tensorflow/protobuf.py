"""The protocol buffers wire format, read without a schema.

Every length is checked against the bytes that are there; nothing is copied until it is asked for. Field numbers stand
with the readers that know them (tensorflow/core/framework and core/protobuf/*.proto).
"""

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_MAX_FIELDS = 1 << 18  # the largest known message, a graph with training, has some ten thousand

Value = int | memoryview


def read_varint(data: memoryview | bytes, at: int) -> tuple[int, int]:
    """Return the varint that begins at `at`, below 2**64, and the position after it.

    Raises:
        ValueError: the data end within it, or it is longer than it needs to be, as no writer makes it.

    Example:
        >>> read_varint(bytes([0xAC, 0x02]), 0)
        (300, 2)
    """
    value = 0
    for position, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            if position and not byte:
                break
            return value & 0xFFFF_FFFF_FFFF_FFFF, at + position + 1
    raise ValueError(f"the number at byte {at} is cut off or longer than need be")


def fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield (field number, value): an int for varints, the bytes for everything else.

    Raises:
        ValueError: the data are not a message: a field is cut off, or of a type that is not used.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = read_varint(data, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError(f"field number 0 before byte {at}")
        if kind == _VARINT:
            value, at = read_varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = read_varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"field {number} has wire type {kind} before byte {at}")
        if length > end - at:
            raise ValueError(f"field {number} is cut off: {length} bytes announced, {end - at} there")
        yield number, data[at : at + length]
        at += length


def varints(message: "Message", field: int) -> list[int]:
    """Return the int64 numbers of a repeated field, whether they are packed into one or written one by one."""
    found: list[int] = []
    for value in message.values(field):
        if isinstance(value, int):
            found.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = read_varint(value, at)
            found.append(number)
    return [value - (1 << 64) if value >> 63 else value for value in found]


class Message:
    """The fields of one message by number; nested messages are parsed when asked for.

    Attributes:
        last: the number of the field that was written last; 0 for an empty message.
    """

    def __init__(self, data: memoryview | bytes):
        self._fields: dict[int, list[Value]] = {}
        self.last = number = 0
        for count, (number, value) in enumerate(fields(memoryview(data))):
            if count >= _MAX_FIELDS:
                raise ValueError(f"one message has more than {_MAX_FIELDS} fields")
            self._fields.setdefault(number, []).append(value)
        self.last = number

    def __contains__(self, number: int) -> bool:
        return number in self._fields

    def values(self, field: int) -> list[Value]:
        """Return every value of a field as it is stored."""
        return list(self._fields.get(field, []))

    def number(self, field: int) -> int:
        """Return a varint field, 0 where it is absent."""
        value = self._fields.get(field, [0])[-1]
        if not isinstance(value, int):
            raise ValueError(f"field {field} is not a number")
        return value

    def signed(self, field: int) -> int:
        """Return an int64 field, 0 where it is absent."""
        value = self.number(field)
        return value - (1 << 64) if value >> 63 else value

    def all_bytes(self, field: int) -> list[memoryview]:
        """Return every value of a repeated string, bytes, message or fixed-width field."""
        values = [value for value in self._fields.get(field, []) if isinstance(value, memoryview)]
        if len(values) != len(self._fields.get(field, [])):
            raise ValueError(f"field {field} is a number, not bytes")
        return values

    def bytes(self, field: int) -> memoryview:
        """Return a string, bytes or fixed-width field, empty where it is absent."""
        values = self.all_bytes(field)
        return values[-1] if values else memoryview(b"")

    def text(self, field: int) -> str:
        """Return a string field, empty where it is absent."""
        return str(self.bytes(field), "utf-8")

    def texts(self, field: int) -> list[str]:
        """Return every value of a repeated string field."""
        return [str(value, "utf-8") for value in self.all_bytes(field)]

    def message(self, field: int) -> "Message":
        """Return a nested message, empty where it is absent."""
        return Message(self.bytes(field))

    def messages(self, field: int) -> "list[Message]":
        """Return every value of a repeated message field."""
        return [Message(value) for value in self.all_bytes(field)]

    def map(self, field: int) -> "dict[str, Message]":
        """Return a map<string, message> field.

        Raises:
            ValueError: a key occurs twice.
        """
        found: dict[str, Message] = {}
        for entry in self.messages(field):
            key = entry.text(1)
            if key in found:
                raise ValueError(f"{key!r} occurs twice")
            found[key] = entry.message(2)
        return found
