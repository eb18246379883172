"""Files and folders that are written whole or not at all, whoever else writes and whoever is killed."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mobilenet_hub.host.files import beside, replace_files, replacing, replacing_folder

WRITE = """
import sys, time
from pathlib import Path
from mobilenet_hub.host.files import replacing, replacing_folder
place = Path(sys.argv[2])
if sys.argv[1] == "file":
    with replacing(place) as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        time.sleep(60)
else:
    with replacing_folder(place) as new:
        (new / "half").write_text("half")
        print("writing", flush=True)
        time.sleep(60)
"""


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture(params=["file", "folder"])
def killed(request, tmp_path):
    """Something written to `place` by a process that is killed half way; whole content is there from before."""
    place = tmp_path / "place"
    write(request.param, place, "before")
    process = subprocess.Popen([sys.executable, "-c", WRITE, request.param, place], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    yield request.param, place, process
    process.kill()
    process.wait()
    process.stdout.close()


def write(kind, place, text):
    if kind == "file":
        with replacing(place) as file:
            file.write(text.encode())
    else:
        with replacing_folder(place) as new:
            (new / "content").write_text(text)


def read(kind, place):
    return (place if kind == "file" else place / "content").read_text()


def test_what_a_killed_writer_leaves_is_cleared_by_the_next(killed):
    kind, place, process = killed
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert read(kind, place) == "before"
    assert len(names(place.parent)) == 2
    write(kind, place, "after")
    assert read(kind, place) == "after"
    assert names(place.parent) == ["place"]


def test_a_living_writer_is_left_alone(killed):
    kind, place, _ = killed
    write(kind, place, "after")
    assert read(kind, place) == "after"
    assert len(names(place.parent)) == 2


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_writers_do_not_collide(tmp_path, kind):
    errors = []

    def work(text):
        try:
            for _ in range(10):
                if kind == "file":
                    write(kind, tmp_path / "place", text)
                else:
                    with beside(tmp_path / "place") as folder:
                        (folder / "content").write_text(text)
                        assert (folder / "content").read_text() == text
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(letter * 10_000,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    if kind == "file":
        assert len(set((tmp_path / "place").read_text())) == 1
    assert names(tmp_path) == (["place"] if kind == "file" else [])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_leaves_what_was_there(tmp_path, kind):
    write(kind, tmp_path / "place", "before")
    writing = replacing if kind == "file" else replacing_folder
    with pytest.raises(KeyError), writing(tmp_path / "place"):
        raise KeyError
    assert read(kind, tmp_path / "place") == "before"
    assert names(tmp_path) == ["place"]


def test_a_folder_moved_aside_by_a_killed_process_goes_back(tmp_path):
    """Between the two renames of a swap there is nothing at the place."""
    write("folder", tmp_path / "place", "before")
    work = tmp_path / ".place.mobilenet-0123abcd.partial"
    work.mkdir()
    (tmp_path / "place").rename(work / "old")
    with pytest.raises(KeyError), replacing_folder(tmp_path / "place"):
        raise KeyError
    assert read("folder", tmp_path / "place") == "before"
    assert names(tmp_path) == ["place"]


def test_what_is_kept_is_carried_over_with_every_byte(tmp_path):
    place = tmp_path / "place"
    write("folder", place, "before")
    (place / "mine").mkdir()
    (place / "mine" / "thesis.txt").write_text("years")
    (place / "link").symlink_to("nowhere")
    with replacing_folder(place, keep=lambda entry: entry.name != "content") as new:
        (new / "content").write_text("after")
    assert read("folder", place) == "after"
    assert (place / "mine" / "thesis.txt").read_text() == "years"
    assert (place / "link").readlink() == Path("nowhere")
    assert names(place) == ["content", "link", "mine"]


def test_a_link_and_its_permissions_stay(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "file"
    target.write_text("before")
    target.chmod(0o640)
    (tmp_path / "link").symlink_to(target)
    write("file", tmp_path / "link", "after")
    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == "after"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_as_it_is(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "from mobilenet_hub.host.files import replacing\nfrom pathlib import Path\n"
         "with replacing(Path('/dev/stdout')) as file: file.write(b'text')"],
        capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == b"text"


def test_files_are_replaced_all_or_none(tmp_path):
    new, aside = tmp_path / "new", tmp_path / "aside"
    for folder in (new, aside):
        folder.mkdir()
    for name in ("a", "b", "c"):
        (new / name).write_text("after")
    (tmp_path / "a").write_text("before")
    (tmp_path / "c").mkdir()  # which no file can replace
    moves = [(new / name, tmp_path / name) for name in ("a", "b", "c")]
    with pytest.raises(OSError, match="c"):
        replace_files(moves, aside)
    assert (tmp_path / "a").read_text() == "before"
    assert not (tmp_path / "b").exists()
    (tmp_path / "c").rmdir()
    (new / "a").write_text("after")  # replaced when what was there went back
    replace_files(moves, aside)
    assert [(tmp_path / name).read_text() for name in ("a", "b", "c")] == ["after"] * 3
