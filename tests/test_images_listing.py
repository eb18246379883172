"""A list of inputs, made once: every part that reads it sees the same ones."""

import os

import pytest
from small_photos import make_work

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError
from mobilenet_hub.images.inputs import items
from mobilenet_hub.images.listing import listed


@pytest.fixture
def here(tmp_path, monkeypatch):
    make_work(tmp_path, 12, {"003.jpg": b"no picture"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_it_holds_is_what_is_read(here):
    (here / "photos" / "sub").mkdir()
    for name in ("photos/sub/[1].jpg", "photos/notes.txt", os.fsdecode(b"photos/\xff.jpg")):
        (here / name).write_bytes(b"")
    main(["embed", "photos", "-o", "t.parquet", "--module", "m", "--quiet"])
    given = ["photos", "photos/00*.jpg", "none.jpg", "no*ne", "t.parquet", "photos/notes.txt"]
    names = list(listed("list.txt", given))
    assert names[-3:] == ["no*ne", "t.parquet", "photos/notes.txt"]
    assert [item.key for item in items(names)] == [item.key for item in items(given)]
    (here / "photos" / "new.jpg").write_bytes(b"")
    assert list(listed("list.txt", given)) == names


def test_parts_agree_on_their_inputs(here):
    words = ["embed", "photos", "--module", "m", "--precision", "f32", "--shard-size", "2", "--quiet"]
    assert main([*words, "-o", "one"]) == 1
    for part in (1, 0):
        assert main([*words, "-o", "parts", "--list", "list.txt", "--part", f"{part}/2"]) in (0, 1)
        (here / "photos" / f"new{part}.jpg").write_bytes(b"")
    assert main(["merge", "parts", "--quiet"]) == 1
    assert {p.name: p.read_bytes() for p in (here / "one").iterdir()} == {
        p.name: p.read_bytes() for p in (here / "parts").iterdir()
    }


def test_a_name_that_no_line_can_hold_is_refused(here):
    (here / "photos" / "a\nb.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="a line's end in its name"):
        listed("list.txt", ["photos"])
    assert not (here / "list.txt").exists()
