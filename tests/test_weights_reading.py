"""Errors name the file, once, whatever a parser met."""

from pathlib import Path

import numpy as np
import pytest

from mobilenet_hub.errors import CorruptFileError, InputError, InvalidModuleError
from mobilenet_hub.weights.reading import Unusable, array_from, as_float32, reading

FILE = Path("folder/net.pb")


@pytest.mark.parametrize(
    ("raised", "became", "words"),
    [
        (ValueError("at byte 7"), CorruptFileError, r"folder/net\.pb is damaged, cut off or not a graph: at byte 7"),
        (OSError("disk"), CorruptFileError, "disk"),
        (RecursionError(), CorruptFileError, "RecursionError"),
        (MemoryError(), CorruptFileError, "MemoryError"),
        (KeyError("config"), CorruptFileError, r"folder/net\.pb is not a graph: KeyError 'config'"),
        (Unusable("quantized"), InvalidModuleError, r"folder/net\.pb is not a graph that can be used: quantized"),
        (FileNotFoundError(2, "no such file", "other.bin"), CorruptFileError, r"other\.bin is missing"),
        (InputError("as it is"), InputError, "as it is"),
    ],
)
def test_what_is_raised_becomes_one_error(raised, became, words):
    with pytest.raises(became, match=words), reading(FILE, "a graph"):
        raise raised


def test_a_fault_of_ours_is_not_hidden():
    with pytest.raises(AssertionError), reading(FILE, "a graph"):
        raise AssertionError


def test_arrays_have_exactly_their_bytes():
    np.testing.assert_array_equal(array_from(b"\0\0\x80\x3f" * 2, np.dtype("<f4"), (2, 1), "x"), [[1], [1]])
    for size, shape in ((7, (2,)), (8, (3,)), (8, (-2, -1)), (0, (2**40,))):
        with pytest.raises(ValueError, match="x has"):
            array_from(bytes(size), np.dtype("<f4"), shape, "x")


def test_only_floats_become_weights():
    assert as_float32(np.ones(2, np.float16), "x").dtype == np.float32
    assert np.isinf(as_float32(np.array([1e300]), "x")).all()
    with pytest.raises(ValueError, match="x is int32"):
        as_float32(np.ones(2, np.int32), "x")
