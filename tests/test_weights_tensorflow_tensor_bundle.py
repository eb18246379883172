"""Checkpoints: every tensor comes back, and every damaged byte of either file is refused, with its name."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_files import number, table, write_bundle

from mobilenet_hub.errors import CorruptFileError
from mobilenet_hub.weights.tensorflow.tensor_bundle import find_prefix, read_bundle

TENSORS = {
    "MobilenetV1/Conv2d_0/weights": np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2),
    "half": np.array([1.5, -2], np.float16),
    "double": np.array([[1.5, -2e300]]),
    "step": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def prefix(tmp_path):
    return write_bundle(tmp_path / "net.ckpt", TENSORS | {"graph": b"bytes \0 of an object graph"})


def data_of(prefix):
    return prefix.with_name(f"{prefix.name}.data-00000-of-00001")


def index_of(prefix):
    return prefix.with_name(f"{prefix.name}.index")


def test_every_tensor_comes_back(prefix):
    read = read_bundle(prefix)
    assert read.pop("graph") == (b"bytes \0 of an object graph",)
    assert read.keys() == TENSORS.keys()
    for name, array in TENSORS.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_bfloat16_is_widened(tmp_path):
    prefix = write_bundle(tmp_path / "b", {"x": np.array([0x3FC0, 0xC000], np.uint16)})
    np.testing.assert_array_equal(read_bundle(prefix)["x"], np.array([1.5, -2], np.float32))


@pytest.mark.parametrize("which", [data_of, index_of])
def test_every_flipped_byte_is_refused_and_the_file_named(prefix, which):
    file = which(prefix)
    data = file.read_bytes()
    for at in range(len(data)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(CorruptFileError, match=file.name):
            read_bundle(prefix)


@pytest.mark.parametrize("which", [data_of, index_of])
def test_every_truncation_and_addition_is_refused(prefix, which):
    file = which(prefix)
    data = file.read_bytes()
    for size in range(len(data)):
        file.write_bytes(data[:size])
        with pytest.raises(CorruptFileError, match=file.name):
            read_bundle(prefix)
    file.write_bytes(data + b"x")
    with pytest.raises(CorruptFileError, match=file.name):
        read_bundle(prefix)


def test_the_damaged_tensor_is_named(prefix):
    data = bytearray(data_of(prefix).read_bytes())
    data[10] ^= 1
    data_of(prefix).write_bytes(data)
    with pytest.raises(CorruptFileError, match="checksum of MobilenetV1/Conv2d_0/weights is wrong"):
        read_bundle(prefix)


def test_data_of_another_checkpoint_are_refused(prefix, tmp_path):
    other = write_bundle(tmp_path / "other", {name: array + 1 for name, array in TENSORS.items()})
    shutil.copy(data_of(other), data_of(prefix))
    with pytest.raises(CorruptFileError, match="data-00000-of-00001"):
        read_bundle(prefix)


@pytest.mark.parametrize("which", [data_of, index_of])
def test_a_missing_file_is_named(prefix, which):
    which(prefix).unlink()
    with pytest.raises(CorruptFileError, match=f"{which(prefix).name} is missing"):
        read_bundle(prefix)


def test_zeros_between_tensors_are_taken_and_other_bytes_are_not(tmp_path):
    prefix = write_bundle(tmp_path / "aligned", TENSORS, gap=24)
    assert len(read_bundle(prefix)) == len(TENSORS)
    data = bytearray(data_of(prefix).read_bytes())
    data[-1] = 1
    data_of(prefix).write_bytes(data)
    with pytest.raises(CorruptFileError, match="belong to no tensor"):
        read_bundle(prefix)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({}, "no header"),
        ({b"": number(1, 10**9)}, "announces 1000000000 data files"),
        ({b"": number(1, 0)}, "announces 0 data files"),
        ({b"": number(1, 1) + number(2, 1)}, "big-endian"),
        ({b"": number(1, 1), b"x": number(3, 5)}, "x lies in data file 5 of 1"),
        ({b"": number(1, 1), b"x": number(1, 1) + number(5, 2**40)}, "x ends at byte 1099511627776"),
        ({b"": number(1, 1), b"x": number(4, 2**62) + number(5, 4)}, "the file has 4"),
        ({b"": number(1, 1), b"x": b"\x3a\x00"}, "partitioned"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, rows, words):
    (tmp_path / "x.index").write_bytes(table(rows))
    (tmp_path / "x.data-00000-of-00001").write_bytes(bytes(4))
    with pytest.raises(CorruptFileError, match=words):
        read_bundle(tmp_path / "x")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_garbage_behind_valid_checksums_is_refused_or_read(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("garbage")
    rows = {b"": number(1, 1)} | data.draw(st.dictionaries(st.binary(min_size=1, max_size=8), st.binary(max_size=30)))
    (folder / "x.index").write_bytes(table(rows))
    (folder / "x.data-00000-of-00001").write_bytes(data.draw(st.binary(max_size=20)))
    try:
        read_bundle(folder / "x")
    except CorruptFileError as error:
        assert str(folder) in str(error)


def test_the_checkpoint_of_a_folder(tmp_path):
    assert find_prefix(tmp_path) is None
    write_bundle(tmp_path / "model.ckpt-10", TENSORS)
    assert find_prefix(tmp_path) == tmp_path / "model.ckpt-10"
    write_bundle(tmp_path / "model.ckpt-20", TENSORS)
    with pytest.raises(CorruptFileError, match=r"model.ckpt-10, model.ckpt-20"):
        find_prefix(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-20"\n')
    assert find_prefix(tmp_path) == tmp_path / "model.ckpt-20"
