"""What IMAGES stands for: every kind of input, in a stable order, and what is said of those that give nothing."""

import io
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet_hub.errors import ImageError, InputError
from mobilenet_hub.images.inputs import count, items


def picture(level, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Photos in a folder and its subfolders, beside what is to be passed over; the current folder is its parent."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["b.jpg", "a.PNG", "z/c.jpeg", "m/n/d.webp", "A.jpg"]):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    for name in ("notes.txt", ".hidden.jpg", ".thumbs/e.jpg", "__init__", "odd.jpg/inner.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no picture" if name == "__init__" else picture(9))
    return tmp_path / "photos"


def keys(*inputs):
    found = [item.key for item in items(inputs)]
    assert count(inputs) == len(found)
    return found


def refusals(*inputs):
    told = {}
    for item in items(inputs):
        try:
            item.read()
        except ImageError as error:
            told[item.key] = error.reason
    return told


def test_folders_are_searched_whole_in_a_stable_order(folder):
    expected = ["A.jpg", "a.PNG", "b.jpg", "m/n/d.webp", "odd.jpg/inner.jpg", "z/c.jpeg"]
    assert keys("photos") == [f"photos/{name}" for name in expected]
    assert [item.read() for item in items(["photos"])][:2] == [picture(4), picture(1)]
    assert {item.root.path for item in items(["photos"])} == {"photos"}


def test_links_in_a_circle_are_bad_images(folder):
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    assert len(keys("photos")) == 7
    assert "cannot be read" in refusals("photos")["photos/loop.jpg"]


def test_folders_may_lie_deep(folder):
    deep = folder.joinpath(*["d"] * 1200)
    try:
        os.chdir(folder)
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("x.jpg").write_bytes(picture(1))
        os.chdir(folder.parent)
        assert keys("photos/d") == [str(deep.relative_to(folder.parent) / "x.jpg")]
    finally:
        subprocess.run(["rm", "-r", folder / "d"], check=True)  # too deep for what tidies up after the tests


def test_pipes_are_never_waited_for(folder):
    for name in ("pipe.tar", "pipe.zip", "pipe.parquet", "pipe.tar.gz"):
        os.mkfifo(name)
        assert refusals(name) == {name: "not a regular file"}


def test_deep_globs_follow_no_links(folder):
    (folder / "m" / "up").symlink_to(folder)
    (folder / "m" / "n" / "up").symlink_to(folder)
    assert keys("photos/**/*.jpg") == ["photos/A.jpg", "photos/b.jpg", "photos/odd.jpg/inner.jpg"]
    assert keys("**/*.webp") == ["photos/m/n/d.webp"]
    assert keys(f"{folder}/**/n/*") == [f"{folder}/m/n/d.webp"]
    assert keys("photos/**") == keys("photos/**/*")
    assert "photos/notes.txt" in keys("photos/**")


def test_a_disk_that_is_gone_is_not_a_million_missing_files(folder):
    from mobilenet_hub.images.batches import decode_batches
    from mobilenet_hub.images.fit import Preprocessing

    for inputs in (["photos"], ["photos/*.jpg"]):
        listed = list(items(inputs))
        folder.rename(folder.with_name("unmounted"))
        folder.mkdir()  # the mount point stays
        with pytest.raises(InputError, match="has vanished"):
            list(decode_batches(listed, Preprocessing(8)))
        folder.rmdir()
        folder.with_name("unmounted").rename(folder)


def test_links_to_folders_cannot_make_it_endless(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "link.jpg").symlink_to(folder / "b.jpg")
    assert len(keys("photos")) == 7


def test_arguments_keep_their_order_and_names_their_freedom(folder):
    assert keys("photos/b.jpg", "photos/notes.txt", "photos/A.jpg") == [
        "photos/b.jpg", "photos/notes.txt", "photos/A.jpg",
    ]  # fmt: skip


def test_globs(folder):
    assert keys("photos/*.jpg") == ["photos/A.jpg", "photos/b.jpg", "photos/odd.jpg/inner.jpg"]
    assert keys("photos/**/*.webp") == ["photos/m/n/d.webp"]
    (folder / "odd[1].jpg").write_bytes(picture(1))
    assert keys("photos/odd[1].jpg") == ["photos/odd[1].jpg"]
    assert refusals("photos/*.gif") == {"photos/*.gif": "matches no file"}


def test_a_list_on_standard_input(folder, monkeypatch):
    text = b"photos/b.jpg\r\n\nphotos/z\nphotos/\xff.jpg\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert [item.key for item in items(["-"])] == ["photos/b.jpg", "photos/z/c.jpeg", os.fsdecode(b"photos/\xff.jpg")]
    assert count(["-"]) is None


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"])
def test_tar_archives(folder, ending):
    path = f"shard{ending}"
    with tarfile.open(path, "w:" + {".tgz": "gz"}.get(ending, ending.removeprefix(".tar").lstrip("."))) as archive:
        for name in ("photos/z/c.jpeg", "photos/notes.txt", "photos/A.jpg", "photos/.hidden.jpg", "photos"):
            archive.add(name, recursive=False)
    found = list(items([path]))
    assert [item.key for item in found] == [f"{path}/photos/z/c.jpeg", f"{path}/photos/A.jpg"]
    # After the archive has been walked through, and in any order: threads read when they get to it.
    assert [item.read() for item in reversed(found)] == [picture(4), picture(2)]
    assert count([path]) == (2 if ending == ".tar" else None)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_tar_cut_anywhere_is_named(folder, ending):
    path = folder.parent / f"shard{ending}"
    with tarfile.open(path, "w:" + ending.removeprefix(".tar").lstrip(".")) as archive:
        for name in ("photos/b.jpg", "photos/A.jpg"):
            archive.add(name)
    data = path.read_bytes()
    for length in range(0, min(len(data), 4096), 97):  # the pictures and their headers take 4096 bytes, unpacked
        path.write_bytes(data[:length])
        if not refusals(str(path)):  # only what follows the pictures is missing
            assert [item.read() for item in items([path])] == [picture(0), picture(4)]
    path.write_bytes(data)
    assert refusals(str(path)) == {}
    if ending == ".tar":
        path.write_bytes(data[:2048] + b"x" + data[2049:])  # in the second header
        assert "damaged from here on" in refusals(str(path))[str(path)]
        assert next(items([path])).read() == picture(0)


def test_what_is_no_tar_is_named(folder):
    (folder.parent / "text.tgz").write_text("no archive")
    assert "not a readable .tar" in refusals("text.tgz")["text.tgz"]
    for name in ("no.tar", "no.zip", "no.parquet"):
        assert refusals(name) == {name: "no such file"}


def test_links_in_a_tar_are_named(folder):
    os.link(folder / "b.jpg", folder / "hard.jpg")
    with tarfile.open("links.tar", "w") as archive:
        archive.add("photos/b.jpg")
        archive.add("photos/hard.jpg")
    assert keys("links.tar") == ["links.tar/photos/b.jpg", "links.tar/photos/hard.jpg"]
    assert "a link to photos/b.jpg" in refusals("links.tar")["links.tar/photos/hard.jpg"]


def test_damaged_archives_end_nothing_else(folder):
    with zipfile.ZipFile("some.zip", "w") as archive:
        archive.write("photos/A.jpg")
        archive.writestr("x", b"")
    data = bytearray(Path("some.zip").read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 6] = 219  # the version that is needed to unpack
    Path("future.zip").write_bytes(data)
    assert "not a readable .zip" in refusals("future.zip")["future.zip"]
    data = Path("some.zip").read_bytes().replace(b"x", b"/")
    Path("rootless.zip").write_bytes(data)
    assert keys("rootless.zip") == ["rootless.zip/photos/A.jpg"]
    with tarfile.open("sparse.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("a.jpg")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "none"}
        archive.addfile(member)
    assert "not a readable .tar" in refusals("sparse.tar", "photos/b.jpg")["sparse.tar"]


def test_zip_archives(folder):
    with zipfile.ZipFile("some.zip", "w") as archive:
        archive.write("photos/z/c.jpeg")
        archive.write("photos/notes.txt")
        archive.writestr("__MACOSX/._c.jpeg", b"")
        archive.write("photos/A.jpg", compress_type=zipfile.ZIP_DEFLATED)
    found = list(items(["some.zip"]))
    assert [item.key for item in found] == ["some.zip/photos/z/c.jpeg", "some.zip/photos/A.jpg"]
    assert [item.read() for item in found] == [picture(2), picture(4)]
    data = bytearray((folder.parent / "some.zip").read_bytes())
    data[data.index(picture(2)) + 20] ^= 1
    (folder.parent / "some.zip").write_bytes(data)
    assert "cannot be unpacked" in refusals("some.zip")["some.zip/photos/z/c.jpeg"]
    (folder.parent / "text.zip").write_text("no archive")
    assert "not a readable .zip" in refusals("text.zip")["text.zip"]


def test_parquet_tables(folder):
    import pyarrow as pa
    from pyarrow import parquet

    pictures = [picture(level) for level in range(100)]
    struct = pa.array([{"bytes": data, "path": None} for data in pictures])
    for columns, expected in (
        ({"image": struct, "label": list(range(100))}, [f"t.parquet#{i}" for i in range(100)]),
        ({"jpg": pictures, "mask": pictures, "__key__": [f"k{i}" for i in range(100)]}, [f"k{i}" for i in range(100)]),
        ({"raw": pictures, "id": list(range(100))}, [str(i) for i in range(100)]),
    ):
        parquet.write_table(pa.table(columns), "t.parquet", row_group_size=40)
        found = list(items(["t.parquet"]))
        assert [item.key for item in found] == expected
        assert [item.read() for item in found] == pictures
        assert count(["t.parquet"]) == 100
        partly = list(items(["t.parquet"], wanted=lambda number: number >= 45))
        assert [item.key for item in partly] == expected
        assert [item.read() for item in partly[45:]] == pictures[45:]


def test_odd_names_in_parquet_tables(folder):
    import pyarrow as pa
    from pyarrow import parquet

    struct = pa.array([{"bytes": picture(1), "path": None}])
    for column, values in (("image.bytes", [picture(1)]), ("my.image", [picture(1)]), ("a.b", struct)):
        parquet.write_table(pa.table({column: values, "label": ["x"]}), "t.parquet")
        assert [item.read() for item in items(["t.parquet"])] == [picture(1)]
    raw = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 3], np.int32)), pa.py_buffer(b"a\xffb"))
    parquet.write_table(pa.table({"image": [picture(1)], "path": raw}), "t.parquet")
    assert [item.key for item in items(["t.parquet"])] == [os.fsdecode(b"a\xffb")]


def test_a_table_cannot_have_files_of_this_machine_read(folder):
    import pyarrow as pa
    from pyarrow import parquet

    secret = str(folder / "b.jpg")
    for values in (pa.array([{"bytes": secret}]), pa.array([{"bytes": [1, 2]}])):
        parquet.write_table(pa.table({"image": values}), "t.parquet")
        assert "which holds image files" in refusals("t.parquet")["t.parquet"]


def test_other_parquet_tables_are_named(folder):
    import pyarrow as pa
    from pyarrow import parquet

    for columns, reason in (
        ({"label": [1, 2]}, "columns label"),
        ({"a": [b"1"], "b": [b"2"]}, "several binary columns"),
        ({"image": [picture(1), None]}, "no bytes"),
    ):
        parquet.write_table(pa.table(columns), "t.parquet")
        assert reason in " ".join(refusals("t.parquet").values())
    (folder.parent / "t.parquet").write_text("no table")
    assert "not a readable Parquet" in refusals("t.parquet")["t.parquet"]


def test_what_gives_nothing_is_named(folder, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert refusals("nothing", "gone.jpg") == {"nothing": "a folder without images", "gone.jpg": "no such file"}


@pytest.mark.parametrize("inputs", [["a.parquet", "b.parquet"], ["?.parquet"], ["-"]])
def test_unread_items_across_tables(folder, monkeypatch, inputs):
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a.parquet\nb.parquet\n")))
    pictures = {name: [picture(level + start) for level in range(8)] for name, start in (("a", 0), ("b", 8))}
    for name, images in pictures.items():
        parquet.write_table(pa.table({"image": images}), f"{name}.parquet", row_group_size=4)
    found = list(items(inputs, wanted=lambda number: number >= 9))
    assert [item.key for item in found] == [f"{name}.parquet#{row}" for name in "ab" for row in range(8)]
    assert [item.read() for item in found[9:]] == pictures["b"][1:]


def test_an_archive_without_images_is_named(folder):
    import pyarrow as pa
    from pyarrow import parquet

    with zipfile.ZipFile("none.zip", "w") as archive:
        archive.write("photos/notes.txt")
    with tarfile.open("none.tar", "w") as archive:
        archive.add("photos/notes.txt")
    parquet.write_table(pa.table({"image": pa.array([], pa.binary())}), "none.parquet")
    for name in ("none.zip", "none.tar", "none.parquet"):
        assert refusals(name) == {name: "an archive without images"}
    assert set(refusals("none.*")) == {"none.zip", "none.tar", "none.parquet"}


@pytest.mark.parametrize(
    "system", ["@eaDir", ".@__thumb", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", "@Recycle", "#snapshot"]
)
def test_a_systems_own_folders_are_searched_by_nothing(folder, system):
    before = keys("photos")
    for place in (system, f"z/{system}", f"z/{system}/c.jpeg"):
        inner = folder / place / "SYNOPHOTO_THUMB_M.jpg"
        inner.parent.mkdir(parents=True, exist_ok=True)
        inner.write_bytes(picture(9))
    assert keys("photos") == before
    for pattern in ("photos/**/*.jpg", "photos/*", "photos/*/*"):
        assert not [key for key in keys(pattern) if system in key]
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.write(folder / "a.PNG", "cats/a.png")
        archive.write(folder / "a.PNG", f"cats/{system}/a.png/THUMB.png")
        archive.write(folder / "a.PNG", "cats/._a.png")
    assert keys("photos.zip") == ["photos.zip/cats/a.png"]
    with tarfile.open("photos.tar", "w") as archive:
        archive.add(folder, "photos")
    assert not [key for key in keys("photos.tar") if system in key]


def test_what_is_passed_over_by_its_name_is_counted(folder):
    from collections import Counter

    for name in ("Thumbs.db", "desktop.ini", "z/other.txt", "phone.HIF", "two.mpo"):
        (folder / name).write_bytes(picture(1))
    passed_over = Counter()
    found = [item.key for item in items(["photos"], passed_over=passed_over)]
    assert passed_over == {".txt": 2, "": 1}
    assert {"photos/phone.HIF", "photos/two.mpo"} <= set(found)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz", "w"])
@pytest.mark.parametrize("name", ["photos.tar", "photos.tgz", "photos.tar.gz", "PHOTOS.TAR"])
def test_a_tar_is_what_its_content_is(folder, mode, name):
    with tarfile.open(name, mode) as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"cats/{number}.png")
            info.size = len(picture(number))
            archive.addfile(info, io.BytesIO(picture(number)))
    found = list(items([name]))
    assert [item.key for item in found] == [f"{name}/cats/{number}.png" for number in range(3)]
    assert [item.read() for item in found] == [picture(number) for number in range(3)]
    assert count([name]) == (3 if mode == "w" else None)


def test_the_gzipped_reference_tar_has_its_pictures(shared):
    read = [item.read() for item in items([shared("oddfiles/gzip_named.tar")])]
    assert read and all(data.startswith((b"\xff\xd8", b"\x89PNG", b"BM", b"RIFF")) for data in read)


def test_a_byte_order_mark_is_no_part_of_a_name(folder, monkeypatch):
    class Standard:
        buffer = io.BytesIO(b"\xef\xbb\xbfphotos/b.jpg\r\n\r\nphotos/A.jpg\r\n")

    monkeypatch.setattr("sys.stdin", Standard)
    assert [item.key for item in items(["-"])] == ["photos/b.jpg", "photos/A.jpg"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_in_any_encoding(folder, monkeypatch, encoding, end):
    names = ["photos/Äther 日本.jpg", "photos/b.jpg", "photos/\u0a0a.jpg"]  # a letter with line feeds for bytes
    mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""

    class Standard:
        buffer = io.BytesIO((mark + "".join(name + end for name in names)).encode(encoding))

    monkeypatch.setattr("sys.stdin", Standard)
    assert [item.key for item in items(["-"])] == names


def test_parquet_columns_in_every_encoding(folder):
    import pyarrow as pa
    from pyarrow import parquet

    data, names = [picture(1), picture(2), picture(1), None], ["a", "b", "c", "d"]
    images = pa.array(data, pa.binary())
    struct = pa.StructArray.from_arrays([images, pa.array(names)], ["bytes", "path"])
    kinds = {
        "plain": images,
        "large": images.cast(pa.large_binary()),
        "dictionary": images.dictionary_encode(),
        "view": images.cast(pa.binary_view()),
        "struct": struct,
        "struct of views": pa.StructArray.from_arrays([images.cast(pa.binary_view())], ["bytes"]),
    }
    texts = {
        "plain": pa.array(names),
        "dictionary": pa.array(names).dictionary_encode(),
        "view": pa.array(names).cast(pa.string_view()),
    }
    for column in kinds.values():
        for key in texts.values():
            parquet.write_table(pa.table({"image": column, "path": key}), "t.parquet")
            found = list(items(["t.parquet"]))
            assert [item.key for item in found] == names
            assert [item.read() for item in found[:3]] == data[:3]
            with pytest.raises(ImageError, match="no bytes"):
                found[3].read()
