"""CRC-32C against published values and against the definition, bit by bit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenet_hub.weights.tensorflow.crc32c import crc32c, masked


def by_definition(data):
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


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
def test_published_values(data, crc):
    assert crc32c(data) == crc


@given(st.binary(max_size=300))
def test_the_definition(data):
    assert crc32c(data) == by_definition(data)
    assert crc32c(memoryview(data)) == by_definition(data)


def test_long_data_of_every_remainder():
    data = bytes(i * 7 % 251 for i in range(70_003))
    for size in (65_535, 65_536, 65_537, 70_003):
        assert crc32c(data[:size]) == by_definition(data[:size])


def test_the_mask_is_tensorflows():
    assert masked(0) == 0xA282EAD8
    assert masked(0xFFFFFFFF) == (0xFFFFFFFF + 0xA282EAD8) & 0xFFFFFFFF
    assert masked(1) == ((1 << 17) + 0xA282EAD8) & 0xFFFFFFFF
