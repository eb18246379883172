"""Checkpoint indexes: every byte is covered, so every flipped byte and every truncation is refused."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_files import MAGIC, block, entries, table, varint

from mobilenet_hub.weights.tensorflow.sstable import masked_crc32c, read_table

PAIRS = {f"MobilenetV1/Conv2d_{i}/weights".encode(): bytes([i]) * i for i in range(23)} | {b"": b"header"}


def snappy_literals(data):
    """Encode with literals only."""
    out = varint(len(data))
    for at in range(0, len(data), 60):
        piece = data[at : at + 60]
        out += bytes([(len(piece) - 1) << 2]) + piece
    return out


@given(st.dictionaries(st.binary(max_size=40), st.binary(max_size=40), min_size=1, max_size=30), st.integers(1, 9))
def test_tables_come_back(pairs, per_block):
    assert read_table(table(pairs, per_block)) == dict(sorted(pairs.items()))


def test_compressed_blocks_are_read():
    assert read_table(table(PAIRS, compress=snappy_literals)) == dict(sorted(PAIRS.items()))


def test_compressed_copies_are_read():
    # By hand: 16 bytes in all; the literal "abcd"; a copy of 4 from 4 back; one of 8 from 2 back, onto itself.
    compressed = bytes([16, 3 << 2]) + b"abcd" + bytes([0b00000001, 4]) + bytes([(8 - 1) << 2 | 2, 2, 0])
    wanted = b"abcdabcd" + b"cd" * 4
    value = varint(3) + varint(0) + varint(0)
    assert len(wanted) == 16
    contents = entries([(b"k", wanted)])
    assert len(value) == 3

    def compress(plain):
        assert plain == contents
        at = plain.index(wanted)
        head, tail = plain[:at], plain[at + len(wanted) :]
        literal = lambda piece: bytes([(len(piece) - 1) << 2]) + piece  # noqa: E731
        return varint(len(plain)) + literal(head) + compressed[1:] + literal(tail)

    assert read_table(table({b"k": wanted}, compress=compress)) == {b"k": wanted}


@pytest.mark.parametrize(
    "contents",
    [
        varint(10**12),  # announces a terabyte
        varint(8) + bytes([0b00000001, 4]),  # a copy of what is not there
        varint(8) + bytes([60 << 2]),  # a literal's length cut off
        varint(2) + bytes([3 << 2]) + b"abcd",  # longer than announced
        b"",
    ],
)
def test_damaged_compression_is_refused(contents):
    with pytest.raises(ValueError, match=r"compressed|cut off|does not fit"):
        read_table(table(PAIRS, compress=lambda _: contents))


def test_every_flipped_byte_is_refused():
    data = table(PAIRS)
    for at in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[at] ^= flip
            with pytest.raises(ValueError, match=r"\w"):
                read_table(bytes(damaged))


def test_every_truncation_is_refused():
    data = table(PAIRS)
    for size in range(len(data)):
        with pytest.raises(ValueError, match=r"\w"):
            read_table(data[:size])


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_garbage_with_a_valid_end_is_refused(data):
    with pytest.raises(ValueError, match=r"\w"):
        read_table(data + varint(0) + varint(len(data)) + bytes(36) + MAGIC)


def test_keys_out_of_order_and_too_many_restarts_are_refused():
    def one_block(contents):
        data = block(contents)
        index = block(entries([(b"z", varint(0) + varint(len(data) - 5))]))
        meta = block(entries([]))
        handles = varint(len(data)) + varint(len(meta) - 5) + varint(len(data) + len(meta)) + varint(len(index) - 5)
        return data + meta + index + handles.ljust(40, b"\0") + MAGIC

    assert read_table(one_block(entries([(b"a", b"1"), (b"b", b"2")]))) == {b"a": b"1", b"b": b"2"}
    with pytest.raises(ValueError, match="out of order"):
        read_table(one_block(entries([(b"b", b"1"), (b"a", b"2")])))
    with pytest.raises(ValueError, match="restart points"):
        read_table(one_block(struct.pack("<I", 2**31)))
    with pytest.raises(ValueError, match="does not fit its block"):
        read_table(one_block(varint(0) + varint(1) + varint(2**40) + b"a" + struct.pack("<II", 0, 1)))


def test_a_key_that_grows_without_end_is_refused():
    long = b"k" * 2000
    with pytest.raises(ValueError, match="does not fit its block"):
        read_table(table({long: b""}))


@pytest.mark.parametrize(
    ("data", "crc"),
    [  # RFC 3720, appendix B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
        (b"", 0),
    ],
)
def test_checksums_are_crc_32c_under_tensorflows_mask(data, crc):
    want = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(data) == masked_crc32c(memoryview(data)) == want
