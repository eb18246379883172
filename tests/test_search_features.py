"""Vectors are read row by row, from every form that `embed` writes, as a Parquet reader reads them."""

import json

import numpy as np
import pytest
from feature_folders import clustered, write_features
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet  # noqa: TID253

from mobilenet_hub.errors import CorruptFileError, InputError
from mobilenet_hub.search.features import Features, as_float32, directions
from mobilenet_hub.search.pages import plain_runs


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("features", [1, 7, 96, 1280])
def test_any_row_in_any_order(tmp_path, half, features):
    vectors = clustered(700, features)
    expected = vectors.astype(np.float16 if half else np.float32).astype(np.float32)
    opened = Features(write_features(tmp_path / "f", vectors, half=half, shard_size=300))
    assert (opened.rows, opened.num_features, len(opened.shards)) == (700, features, 3)
    assert np.array_equal(np.concatenate([block for _, block in opened.blocks()]), expected)
    numbers = np.random.default_rng(1).integers(0, 700, 200)
    assert np.array_equal(opened.rows_of(numbers), expected[numbers])
    assert opened.paths_of(np.array([699, 0])) == ["photos/000699.jpg", "photos/000000.jpg"]
    assert plain_runs(opened.shards[0].file, "features.list.element") is not None


def test_values_that_a_page_splits(tmp_path):
    """A row may begin on one page and end on the next: 1280 numbers of 4 bytes, pages of a megabyte."""
    vectors = clustered(1000, 1280)
    opened = Features(write_features(tmp_path / "f", vectors, shard_size=1000))
    assert len(opened.shards[0].runs) > 1
    assert np.array_equal(opened.rows_of(np.arange(1000)), vectors)


def test_files_of_other_writers_go_through_the_parquet_reader(tmp_path):
    vectors = clustered(500, 16)
    folder = write_features(tmp_path / "f", vectors, shard_size=500)
    table = parquet.read_table(folder / "part-00000.parquet")
    parquet.write_table(table, folder / "part-00000.parquet", compression="zstd", row_group_size=97)
    opened = Features(folder)
    assert opened.shards[0].runs is None
    numbers = np.random.default_rng(1).integers(0, 500, 50)
    assert np.array_equal(opened.rows_of(numbers), vectors[numbers])


def test_one_file_forms(tmp_path):
    vectors = clustered(100, 8)
    folder = write_features(tmp_path / "f", vectors, shard_size=100)
    (folder / "part-00000.parquet").rename(tmp_path / "one.parquet")
    table = parquet.read_table(tmp_path / "one.parquet")
    np.save(tmp_path / "two.npy", vectors)
    parquet.write_table(table.drop_columns(["features"]), tmp_path / "two.index.parquet")
    for name in ("one.parquet", "two.npy"):
        opened = Features(tmp_path / name)
        assert np.array_equal(opened.rows_of(np.array([5, 99, 0])), vectors[[5, 99, 0]])
        assert opened.paths_of(np.array([7])) == ["photos/000007.jpg"]
        assert opened.made_with["module"] == "starter"


def test_what_is_not_features_is_refused_with_the_reason(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Features(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no manifest"):
        Features(tmp_path / "empty")
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="neither"):
        Features(tmp_path / "photo.jpg")
    folder = write_features(tmp_path / "f", clustered(100, 8))
    (folder / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"part-00001.parquet is in the manifest and not there"):
        Features(folder)
    write_features(tmp_path / "g", clustered(100, 8))
    (tmp_path / "g" / "part-00001.parquet").write_bytes(b"damaged")
    with pytest.raises(CorruptFileError, match="part-00001"):
        Features(tmp_path / "g")
    manifest = json.loads((tmp_path / "g" / "manifest.json").read_text())
    del manifest["shards"][0]["rows"]
    (tmp_path / "g" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="manifest"):
        Features(tmp_path / "g")


def test_every_half_is_widened_exactly():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    assert np.array_equal(as_float32(every), every.astype(np.float32), equal_nan=True)
    assert np.array_equal(as_float32(every[:0x7C00]), every[:0x7C00].astype(np.float32))


@given(st.lists(st.floats(width=32), min_size=3, max_size=3), st.lists(st.floats(width=32), min_size=3, max_size=3))
def test_a_direction_has_length_one_or_nothing(first, second):
    found = directions(np.array([first, second], np.float32))
    lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    for row, length in zip((first, second), lengths, strict=True):
        has_one = np.isfinite(row).all() and np.any(row)
        assert abs(length - has_one) < 1e-5  # float32
