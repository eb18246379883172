"""Copies go another way and come back: killed at any moment, on other disks, with odd names, and changed meanwhile."""

import csv
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.search.moving import move_copies, undo
from mobilenet_hub.search.tables import write_table

COLUMNS = ("group", "path", "keep", "kind", "similarity", "sha256")
ODD = [os.fsdecode(b"n\xff.jpg"), "a,b.jpg", 'q"q.jpg', "two\nlines.jpg", "=cmd.jpg", "ü.jpg", "back\\xff.jpg"]
# A process that stops, as if killed, at the n-th time that it opens, links, renames or removes something.
STOP_AT = """
import os, sys
left = int(sys.argv[1])
def count(event, _):
    global left
    if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir") and armed:
        left -= 1
        if left < 0:
            os._exit(9)
armed = False
sys.addaudithook(count)
from mobilenet_hub.search.moving import move_copies, undo
armed = True
"""


@pytest.fixture(params=["one disk", "two disks"])
def elsewhere(request, tmp_path):
    """A folder to move to, on the same disk or on another."""
    if request.param == "one disk":
        yield tmp_path / "moved"
        return
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "moved"


def collection(folder, names=("1.jpg", "2.jpg", "3.jpg")):
    """Files, one to keep and copies in other folders by the same names, and the groups that say so."""
    rows = []
    for number, name in enumerate(names):
        for place in ("kept", "a", "b"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            file = folder / place / name
            file.write_bytes(f"{number} {place}".encode() * 1000)
            os.utime(file, (1e9 + number, 1e9 + number))
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            rows.append((number, str(file), place == "kept", "" if place == "kept" else "near", 0.99, digest))
    write_table(folder.parent / "groups.csv", COLUMNS, rows)
    return folder.parent / "groups.csv"


def content(folder):
    return {
        os.fspath(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime) for p in folder.rglob("*") if p.is_file()
    }


def test_there_and_back(tmp_path, elsewhere):
    groups = collection(tmp_path / "photos", ["1.jpg", *ODD])
    before = content(tmp_path / "photos")
    done = move_copies(groups, elsewhere)
    assert done.left == ()
    assert len(done.moves) == 2 * (1 + len(ODD))
    kept = {name: value for name, value in before.items() if name.startswith("kept")}
    assert content(tmp_path / "photos") == kept
    assert {to.read_bytes() for _, to in done.moves} == {v[0] for name, v in before.items() if name not in kept}
    back = undo(elsewhere)  # all logs of the folder
    assert len(back.moves) == len(done.moves)
    assert content(tmp_path / "photos") == before
    assert [entry.name for entry in elsewhere.iterdir()] == [done.log.name]
    assert undo(done.log).moves == ()


@pytest.mark.parametrize("what", ["move", "undo"])
def test_killed_at_every_step(tmp_path, elsewhere, what):
    groups = collection(tmp_path / "photos", ["1.jpg", "2.jpg"])
    before = content(tmp_path / "photos")
    code = f"move_copies({str(groups)!r}, {str(elsewhere)!r})" if what == "move" else f"undo({str(elsewhere)!r})"
    step, status = 0, 9
    while status == 9:
        if what == "undo":
            assert len(move_copies(groups, elsewhere).moves) == 4
        status = subprocess.run([sys.executable, "-c", STOP_AT + code, str(step)], check=False).returncode
        everything = [*content(tmp_path / "photos").values(), *content(elsewhere).values()]
        assert {v[0] for v in before.values()} <= {v[0] for v in everything}  # nothing is lost
        if what == "move":
            again = move_copies(groups, elsewhere)
            assert again.left == () or all("not there" in reason for _, reason in again.left)
            assert len(content(tmp_path / "photos")) == 2
            moved = {n: v for n, v in content(elsewhere).items() if not Path(n).name.startswith("moved-")}
            assert len(moved) == 4  # none of them twice, and nothing half done
        assert undo(elsewhere).left == ()
        assert content(tmp_path / "photos") == before
        assert all(entry.name.startswith("moved-") for entry in elsewhere.iterdir())
        shutil.rmtree(elsewhere)
        step += 4  # the seven steps of a photo come in another place of it each time
    assert status == 0
    assert step > 12


def test_what_changed_since_stays(tmp_path):
    groups = collection(tmp_path / "photos", ["1.jpg", "2.jpg", "3.jpg"])
    (tmp_path / "photos/a/1.jpg").write_bytes(b"another photo")
    times = (tmp_path / "photos/kept/2.jpg").stat()
    (tmp_path / "photos/kept/2.jpg").write_bytes(b"9 kept" * 1000)  # of the same size
    os.utime(tmp_path / "photos/kept/2.jpg", (times.st_atime, times.st_mtime))
    os.utime(tmp_path / "photos/a/3.jpg")  # touched, and the same
    done = move_copies(groups, tmp_path / "moved")
    names = {os.path.relpath(path, tmp_path / "photos"): reason for path, reason in done.left}
    assert set(names) == {"a/1.jpg", "a/2.jpg", "b/2.jpg"}
    assert "changed since the groups were written" in names["a/1.jpg"]
    assert "the photo to keep" in names["b/2.jpg"]
    assert len(done.moves) == 3


def test_links_and_what_another_group_keeps_stay(tmp_path):
    photos = tmp_path / "photos"
    groups = collection(photos, ["1.jpg", "2.jpg"])
    (photos / "a/1.jpg").unlink()
    (photos / "a/1.jpg").symlink_to("../b/1.jpg")
    rows = list(csv.reader(groups.read_text().splitlines()))
    rows.append(["1", str(photos / "kept/1.jpg"), "false", "near", "0.9", ""])
    with groups.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    done = move_copies(groups, tmp_path / "moved")
    reasons = {Path(path).parent.name: reason for path, reason in done.left}
    assert reasons["kept"] == "another group keeps it"
    assert "symbolic link" in reasons["a"]
    assert len(reasons) == 2
    assert (photos / "kept/1.jpg").exists()


def test_groups_that_people_made_need_no_digests(tmp_path):
    collection(tmp_path / "photos", ["1.jpg"])
    (tmp_path / "mine.csv").write_text(
        "\ufeffgroup,path,keep\nx,{0}/kept/1.jpg,TRUE\nx,{0}/a/1.jpg,FALSE\n".format(tmp_path / "photos"), "utf-8"
    )
    assert len(move_copies(tmp_path / "mine.csv", tmp_path / "moved").moves) == 1
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no columns group, path and keep"):
        move_copies(tmp_path / "none.csv", tmp_path / "moved")
    with pytest.raises(InputError, match="no columns from and to"):
        undo(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"has no moved-\*.csv"):
        undo(tmp_path / "photos")


def test_a_full_disk_stops_and_loses_nothing(tmp_path):
    """A copy that finds no room: the file size is limited, which the system reports as another error than ENOSPC."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    groups = collection(tmp_path / "photos", ["1.jpg"])
    before = content(tmp_path / "photos")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        code = (
            "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
            "from mobilenet_hub.search.moving import move_copies\n"
            f"print(move_copies({str(groups)!r}, {folder!r}).left)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.count("cannot be moved: File too large") == 2
        assert content(tmp_path / "photos") == before
        assert [p.name for p in Path(folder).rglob("*.jpg*")] == []


def test_places_that_cannot_be_written(tmp_path):
    groups = collection(tmp_path / "photos", ["1.jpg"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be moved to"):
        move_copies(groups, tmp_path / "file")
    if os.getuid():
        (tmp_path / "photos/a").chmod(0o500)
        done = move_copies(groups, tmp_path / "moved")
        (tmp_path / "photos/a").chmod(0o700)
        assert [reason for _, reason in done.left] == ["it cannot be moved: Permission denied"]
        assert (tmp_path / "photos/a/1.jpg").exists()
        assert [p.parent.name for p in (tmp_path / "moved").rglob("1.jpg")] == ["b"]
