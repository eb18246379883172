"""Hostile archives: refused, with nothing written outside and nothing left behind."""

import gzip
import io
import os
import random
import shutil
import stat
import subprocess
import sys
import tarfile
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobilenet_hub.errors import CorruptFileError, OutputError
from mobilenet_hub.weights.archive import Limits, unpack

SMALL = Limits(total_bytes=1 << 20, members=20, ratio=50, ratio_from=1 << 16)
FILES = {"saved_model.pb": b"graph", "variables/variables.index": b"index", "assets/labels.txt": b"cat\ndog\n"}


def member(name, data=b"", kind=tarfile.REGTYPE, **fields):
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar(*members, form=tarfile.PAX_FORMAT, compress=True):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), 1, mtime=0) if compress else buffer.getvalue()


def honest(**options):
    return tar(*(member(name, data) for name, data in FILES.items()), **options)


def write(tmp_path, data):
    archive = tmp_path / "module.tar.gz"
    archive.write_bytes(data)
    return archive


def everything(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refused(tmp_path, data, match=None, limits=SMALL):
    archive = write(tmp_path, data)
    with pytest.raises(CorruptFileError, match=match) as caught:
        unpack(archive, tmp_path / "out" / "module", limits)
    assert everything(tmp_path) in (["module.tar.gz"], ["module.tar.gz", "out"])
    assert "module.tar.gz" in str(caught.value)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("compress", [True, False])
def test_an_honest_archive(tmp_path, form, compress):
    folder = unpack(write(tmp_path, honest(form=form, compress=compress)), tmp_path / "out")
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == FILES


def test_folders_and_the_root_entry(tmp_path):
    data = tar(
        member("./", kind=tarfile.DIRTYPE),
        member("./variables", kind=tarfile.DIRTYPE),
        member("./variables/", kind=tarfile.DIRTYPE),
        member("./variables/x", b"1"),
    )
    assert everything(unpack(write(tmp_path, data), tmp_path / "out")) == ["variables", "variables/x"]


def test_long_names_are_taken(tmp_path):
    name = "/".join(["folder" * 10] * 4 + ["file"])
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        folder = unpack(write(tmp_path, tar(member(name, b"1"), form=form)), tmp_path / str(form))
        assert (folder / name).read_bytes() == b"1"


def test_modes_of_the_archive_are_not_taken(tmp_path):
    folder = unpack(write(tmp_path, tar(member("x", b"1", mode=0o6777))), tmp_path / "out")
    assert stat.S_IMODE((folder / "x").stat().st_mode) & 0o7111 == 0


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a/..", "..", "./../x", "/etc/x", "//x", "a/../b"])
def test_names_that_lead_elsewhere(tmp_path, name):
    refused(tmp_path, tar(member(name, b"1")), "outside|absolute")


@pytest.mark.parametrize(
    "name",
    [
        "a\\..\\x", "C:x", "C:\\x", "x:stream", "con", "NUL.txt", "a/com1", "x.", "x ", " x", "tab\tx", "new\nline",
        "escape\x1b[2J", "right\u202eleft", "zero\u200bwidth", "x" * 300, "é" * 200, "?", "a*", "lone\udcff",
    ],
)  # fmt: skip
def test_names_with_tricks(tmp_path, name):
    refused(tmp_path, tar(member(name, b"1")), "not safe")


def test_a_very_long_name(tmp_path):
    refused(tmp_path, tar(member("/".join(["ab"] * 500), b"1")), "1499 characters")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE],
    ids=["symlink", "hard link", "character device", "block device", "pipe"],
)
def test_what_is_neither_file_nor_folder(tmp_path, kind):
    refused(tmp_path, tar(member("ok", b"1"), member("x", kind=kind, linkname="ok")), "link, a device")


def test_a_link_to_the_outside_and_a_file_through_it(tmp_path):
    data = tar(member("x", kind=tarfile.SYMTYPE, linkname=str(tmp_path)), member("x/planted", b"1"))
    refused(tmp_path, data, "link, a device")


def test_a_sparse_file(tmp_path):
    info, data = member("x", b"0" * 512)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"}
    refused(tmp_path, tar((info, data)))


@pytest.mark.parametrize(
    "names", [("x", "x"), ("X", "x"), ("x", "./x"), ("a/x", "a//x"), ("\u00e9", "e\u0301"), ("ﬁle", "file")]
)
def test_names_that_occur_twice(tmp_path, names):
    refused(tmp_path, tar(*(member(name, b"1") for name in names)), "occurs twice")


def test_a_file_that_is_also_a_folder(tmp_path):
    refused(tmp_path, tar(member("x", b"1"), member("x/y", b"1")), "inside a file")
    refused(tmp_path, tar(member("x/y", b"1"), member("x", b"1")), "occurs twice")


def test_more_than_the_limits(tmp_path):
    noise = os.urandom(1 << 19)
    refused(tmp_path, tar(member("x", noise), member("y", noise), member("z", noise)), "more than 1048576 bytes")
    refused(tmp_path, tar(*(member(str(i)) for i in range(30))), "more than 20 members")
    refused(tmp_path, tar(*(member("same", kind=tarfile.DIRTYPE) for _ in range(30))), "more than 20 members")
    refused(tmp_path, tar(member("x", bytes(1 << 19))), "bomb")


def test_a_member_that_claims_more_than_there_is(tmp_path):
    info, _ = member("x", b"1")
    info.size = 1 << 40
    refused(tmp_path, gzip.compress(info.tobuf() + bytes(1024)), "unpacks to more")
    info.size = 1 << 19
    refused(tmp_path, gzip.compress(info.tobuf() + os.urandom(1000)), "cut off|damaged")


def test_a_negative_size(tmp_path):
    info, _ = member("x")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 12  # base 256, two's complement: -1
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    refused(tmp_path, gzip.compress(bytes(header) + bytes(1024)), "negative|damaged")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_extended_header_that_would_fill_the_memory(tmp_path, kind):
    info, _ = member("x", kind=kind)
    info.size = 1 << 33
    refused(tmp_path, gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096)), "header of")


def test_extended_headers_without_end(tmp_path):
    info, _ = member("x", kind=tarfile.XHDTYPE)
    refused(tmp_path, gzip.compress(info.tobuf() * 1500))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"\xef\xbb\xbf \r\n<HTML>", "a web page"),
        (b'{"error": "no"}', "a JSON text"),
        (b"PK\x03\x04rest", "a zip file"),
        (b"", "empty"),
        (bytes(range(1, 256)) * 4, "something else"),
    ],
)
def test_what_is_no_archive(tmp_path, data, what):
    refused(tmp_path, data, what)


def test_an_archive_of_nothing(tmp_path):
    refused(tmp_path, tar(), "no file")
    refused(tmp_path, tar(member("folder", kind=tarfile.DIRTYPE)), "no file")
    refused(tmp_path, gzip.compress(b""))


def test_truncation_at_any_point(tmp_path):
    data = tar(*(member(name, os.urandom(700)) for name in FILES))
    for end in range(0, len(data) - 1, 37):
        refused(tmp_path, data[:end])


@pytest.mark.parametrize("compress", [True, False])
def test_any_flipped_byte_is_refused_or_changes_nothing(tmp_path, compress):
    """Every byte in turn: of the packed stream, whose checksum covers all; of a plain tar the headers, as tar can."""
    contents = {name: random.Random(name).randbytes(200) for name in FILES}
    data = tar(*(member(name, content) for name, content in contents.items()), compress=compress)
    headers = [at for at in range(len(data)) if compress or (at % 1024 < 512 and at < 1024 * len(FILES))]
    told = 0
    for at in headers:
        archive = write(tmp_path, data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        try:
            unpack(archive, tmp_path / "out", SMALL)
        except CorruptFileError:
            told += 1
            assert everything(tmp_path) == ["module.tar.gz"]
        else:  # the time in gzip's header, a copy from elsewhere in the same run of zeros: nothing was damaged
            files = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
            assert {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in files} == contents, at
            shutil.rmtree(tmp_path / "out")
    assert told > 0.9 * len(headers)


def test_a_damaged_header_of_a_plain_tar(tmp_path):
    data = bytearray(honest(compress=False))
    data[1024 + 5] ^= 1  # the second member's name: its checksum no longer fits
    refused(tmp_path, bytes(data), "damaged header")


def test_a_plain_tar_cut_between_two_members(tmp_path):
    data = tar(*(member(name, b"x" * 512) for name in FILES), compress=False)
    for end in range(1024, 1024 * (len(FILES) + 1), 1024):
        refused(tmp_path, data[:end], "cut off")


def test_trailing_junk(tmp_path):
    refused(tmp_path, honest() + b"junk", "damaged")


def test_an_existing_folder_is_not_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(OutputError, match="cannot be made"):
        unpack(write(tmp_path, honest()), tmp_path / "out")
    assert everything(tmp_path / "out") == ["mine"]


NAMES = st.one_of(
    st.sampled_from(["x", "a/b", "..", "/x", "a/../x", "con", "variables/variables.index", "", ".", "a//b", "X"]),
    st.text(max_size=20),
)
KINDS = st.sampled_from([b"0", b"5", b"1", b"2", b"3", b"7", b"x", b"g", b"L", b"K", b"S", b"V", b"\0"])


@settings(max_examples=150, deadline=None)
@given(
    members=st.lists(st.tuples(NAMES, KINDS, st.binary(max_size=600), st.integers(-600, 1 << 34)), max_size=6),
    flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), max_size=4),
    cut=st.one_of(st.none(), st.integers(0, 1 << 14)),
    compress=st.booleans(),
)
def test_fuzzed_archives(tmp_path_factory, members, flips, cut, compress):
    check_fuzzed(tmp_path_factory.mktemp("fuzz"), members, flips, cut, compress)


def check_fuzzed(folder, members, flips, cut, compress):
    """Unpack a made-up archive: it is taken or refused, and either way nothing lies where it should not."""
    pieces = []
    for name, kind, data, size in members:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, size if size >= 0 else len(data), "x"
        try:
            pieces.append(info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape"))
        except (ValueError, UnicodeError):
            continue
        pieces.append(data + bytes(-len(data) % 512))
    raw = bytearray(b"".join(pieces) + bytes(1024))
    for at, value in flips:
        raw[at % len(raw)] = value
    data = gzip.compress(bytes(raw), 1) if compress else bytes(raw)
    (folder / "in").mkdir()
    archive = folder / "in" / "fuzzed.tar.gz"
    archive.write_bytes(data[:cut])
    target = folder / "out" / "target"
    try:
        unpack(archive, target, SMALL)
    except CorruptFileError:
        assert everything(folder) in (["in", "in/fuzzed.tar.gz", "out"],)
        return
    for path in target.rglob("*"):
        assert not path.is_symlink()
        assert path.is_file() or path.is_dir()
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) <= SMALL.total_bytes
    assert [path.name for path in (folder / "out").iterdir()] == ["target"]
    assert everything(folder / "in") == ["fuzzed.tar.gz"]


def test_memory_stays_bounded(tmp_path):
    """A gigabyte of zeros, and of one member's extended headers, is refused in little memory."""
    bomb = tmp_path / "bomb.tar.gz"
    info, _ = member("x")
    info.size = 1 << 30
    with gzip.open(bomb, "wb", 1) as file:
        file.write(info.tobuf())
        for _ in range(256):
            file.write(bytes(1 << 20))
    code = f"""
        import resource
        from pathlib import Path
        from mobilenet_hub.errors import CorruptFileError
        from mobilenet_hub.weights.archive import unpack
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            unpack(Path({str(bomb)!r}), Path({str(tmp_path / "out")!r}))
        except CorruptFileError as error:
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20 * 1024  # KiB
