"""The wire format: what it must read, and that nothing but ValueError comes of anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_files import blob, fixed32, mapping, number, varint

from mobilenet_hub.weights.tensorflow.protobuf import Message, fields, read_varint


@given(st.integers(0, 2**64 - 1), st.binary(max_size=3))
def test_varints_come_back(value, rest):
    data = varint(value)
    assert read_varint(data + rest, 0) == (value, len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 10, b"\x80" * 11, b"\x85\x00"])
def test_a_varint_that_does_not_end_is_refused(data):
    with pytest.raises(ValueError, match="cut off or longer than need be"):
        read_varint(data, 0)


def test_fields_of_every_kind():
    message = Message(number(1, 300) + blob(2, "name") + fixed32(3, 7) + number(4, -1) + blob(2, "last"))
    assert message.number(1) == 300
    assert message.text(2) == "last"
    assert message.texts(2) == ["name", "last"]
    assert bytes(message.bytes(3)) == b"\7\0\0\0"
    assert message.signed(4) == -1
    assert message.number(9) == 0
    assert message.text(9) == ""
    assert 1 in message
    assert 9 not in message


def test_maps_and_a_key_twice():
    assert Message(mapping(5, {"a": number(1, 2)})).map(5)["a"].number(1) == 2
    with pytest.raises(ValueError, match="'a' occurs twice"):
        Message(mapping(5, {"a": b""}) * 2).map(5)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0a\x7fabc", "field 1 is cut off: 127 bytes announced, 3 there"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "cut off"),
        (b"\x0d\1\2", "field 1 is cut off"),
        (b"\x00\x01", "field number 0"),
        (b"\x0b", "wire type 3"),
    ],
)
def test_damage_is_named(data, words):
    with pytest.raises(ValueError, match=words):
        list(fields(memoryview(data)))


def test_a_field_of_the_other_kind_is_refused():
    with pytest.raises(ValueError, match="field 1 is not a number"):
        Message(blob(1, b"x")).number(1)
    with pytest.raises(ValueError, match="field 1 is a number"):
        Message(number(1, 1)).bytes(1)


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_value_errors(data):
    try:
        message = Message(data)
        for field in range(1, 8):
            message.map(field)
            message.texts(field)
    except ValueError:
        pass
