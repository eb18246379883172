"""Shards: complete or absent, whatever fails and whenever; nothing mixed."""

import json
import os

import pyarrow as pa  # noqa: TID253
import pytest
from pyarrow import parquet  # noqa: TID253

from mobilenet_hub.bulk.manifest import as_metadata
from mobilenet_hub.bulk.shards import Shards
from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.images.inputs import Item

SCHEMA = pa.schema([pa.field("path", pa.string(), nullable=False)])
SETTINGS = {"fit": "center", "shard_size": 4}
KEYS = [f"{number}.jpg" for number in range(10)]
BAD = {"2.jpg", "3.jpg", "8.jpg"}


def rows(keys):
    return pa.RecordBatch.from_arrays([pa.array([key for key in keys if key not in BAD], pa.string())], schema=SCHEMA)


def skipped(keys):
    return [(key, "no, picture") for key in keys if key in BAD]


def run(folder, keys=KEYS, stop_after=None, settings=SETTINGS):
    """Write what an uninterrupted run, or one that ends after some inputs, would write."""
    with Shards(folder, settings, SCHEMA) as shards:
        stream = shards.remaining(Item(key, bytes) for key in keys)
        left, before = [item.key for item in stream], shards.inputs
        for start in range(0, len(left), 2):
            if stop_after is not None and before + start >= stop_after:
                return left
            shards.add(rows(left[start : start + 2]), left[start : start + 2], skipped(left[start : start + 2]))
        shards.finish()
        return left


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_a_folder_holds(tmp_path):
    run(tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == [
        "manifest.json", "part-00000.parquet", "part-00001.parquet", "part-00002.parquet", "skipped.csv",
    ]  # fmt: skip
    tables = [parquet.read_table(path) for path in sorted((tmp_path / "out").glob("*.parquet"))]
    assert [table["path"].to_pylist() for table in tables] == [KEYS[:2], KEYS[4:8], ["9.jpg"]]
    assert tables[0].schema.metadata == {k.encode(): v.encode() for k, v in as_metadata(SETTINGS).items()}
    lines = (tmp_path / "out" / "skipped.csv").read_text().splitlines()
    assert lines == ["path,reason", *(f'{key},"no, picture"' for key in sorted(BAD))]


@pytest.mark.parametrize("stop_after", range(0, 10, 2))
@pytest.mark.parametrize("leavings", [False, True])
def test_going_on_gives_the_same_bytes(tmp_path, stop_after, leavings):
    run(tmp_path / "whole")
    run(tmp_path / "out", stop_after=stop_after)
    done = stop_after // 4 * 4
    if leavings:  # what a kill may leave: half a shard, a shard and lines that the manifest does not know yet
        (tmp_path / "out" / f"part-{done // 4:05d}.parquet.partial").write_bytes(b"half")
        (tmp_path / "out" / f"part-{done // 4:05d}.parquet").write_bytes(b"unlisted")
        with (tmp_path / "out" / "skipped.csv").open("a") as file:
            file.write("8.jpg,unlisted\n")
    assert run(tmp_path / "out") == KEYS[done:]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert run(tmp_path / "out") == []
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_settings_are_refused(tmp_path):
    run(tmp_path / "out", stop_after=6)
    before = contents(tmp_path / "out")
    for settings in ({**SETTINGS, "fit": "pad"}, {**SETTINGS, "shard_size": 5}, {**SETTINGS, "new": 1}):
        with pytest.raises(InputError, match="must not mix"):
            run(tmp_path / "out", settings=settings)
    assert contents(tmp_path / "out") == before


def test_other_inputs_are_refused(tmp_path):
    run(tmp_path / "out", stop_after=6)
    for keys in (["new.jpg", *KEYS], KEYS[1:], KEYS[:3], [*KEYS[:3], "other.jpg", *KEYS[4:]]):
        with pytest.raises(InputError, match="inputs are not those"):
            run(tmp_path / "out", keys)
    run(tmp_path / "out")
    with pytest.raises(InputError, match="more than the 10"):
        run(tmp_path / "out", [*KEYS, "new.jpg"])


def test_foreign_and_damaged_folders_are_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match=r"holds something else \(photo.jpg\)"):
        run(tmp_path)
    run(tmp_path / "out")
    (tmp_path / "out" / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"part-00001.parquet is in the manifest and not there"):
        run(tmp_path / "out")
    for text in ("", "[]", json.dumps({"settings": SETTINGS})):
        (tmp_path / "out" / "manifest.json").write_text(text)
        with pytest.raises(InputError, match="not a manifest"):
            run(tmp_path / "out")


def test_one_process_at_a_time(tmp_path):
    with Shards(tmp_path / "out", SETTINGS, SCHEMA), pytest.raises(OutputError, match="another process is writing"):
        Shards(tmp_path / "out", SETTINGS, SCHEMA)
    run(tmp_path / "out")


def test_an_error_between_leaves_nothing_half(tmp_path):
    with pytest.raises(RuntimeError), Shards(tmp_path / "out", SETTINGS, SCHEMA) as shards:
        shards.add(rows(KEYS[:2]), KEYS[:2], [])
        raise RuntimeError
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "skipped.csv"]


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        run(tmp_path / "file")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(OutputError, match="Permission denied"):
            run(tmp_path / "closed" / "out")


def test_rows_are_written_as_they_come(tmp_path):
    keys = [f"n{number}" for number in range(3000)]
    with Shards(tmp_path / "out", {"shard_size": 10_000}, SCHEMA) as shards:
        assert len(list(shards.remaining(Item(key, bytes) for key in keys))) == 3000
        for start in range(0, 3000, 100):
            shards.add(rows(keys[start : start + 100]), keys[start : start + 100], [])
        shards.finish()
    with parquet.ParquetFile(tmp_path / "out" / "part-00000.parquet") as file:
        assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [1100, 1100, 800]
        assert file.read()["path"].to_pylist() == keys
