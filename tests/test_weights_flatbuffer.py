"""FlatBuffers: a small one by hand, and nothing but ValueError of anything else."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenet_hub.weights.flatbuffer import Table

# Root offset 12; the list of field positions at 4: 8 bytes, table of 12, field 0 at 4, field 1 at 8.
# The table at 12: positions 8 bytes before it; field 0: 7; field 1: a vector 4 bytes on, of two int32.
SMALL = struct.pack("<I4H", 12, 8, 12, 4, 8) + struct.pack("<iiI", 8, 7, 4) + struct.pack("<Iii", 2, -1, 5)


def test_numbers_and_vectors():
    table = Table.root(SMALL)
    assert table.number(0) == 7
    assert table.numbers(1) == [-1, 5]
    assert bytes(table.bytes(1)) == b"\xff\xff"
    assert table.number(2, default=9) == 9
    assert table.numbers(5) == []
    assert table.table(3) is None
    assert table.tables(2) == []


@pytest.mark.parametrize("size", range(0, len(SMALL), 3))
def test_truncations_are_refused(size):
    with pytest.raises(ValueError, match=r"byte|short|cut off"):
        Table.root(SMALL[:size]).numbers(1)


def test_lists_that_lie_are_refused():
    lying = bytearray(SMALL)
    lying[24:28] = struct.pack("<I", 2**31)
    with pytest.raises(ValueError, match="a list of 2147483648"):
        Table.root(bytes(lying)).numbers(1)
    many = SMALL[:24] + struct.pack("<I", 20_000) + bytes(80_000)
    with pytest.raises(ValueError, match="20000 tables"):
        Table.root(many).tables(1)


@given(st.binary(max_size=100))
def test_garbage_raises_nothing_but_value_errors(data):
    try:
        table = Table.root(data)
        for field in range(4):
            table.number(field), table.numbers(field), table.bytes(field)
            [inner.number(0) for inner in table.tables(field)]
    except ValueError:
        pass
