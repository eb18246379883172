"""Teaching over HTTP, a module that is replaced while it is asked, and similar photos."""

import http.client
import io
import json
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serving import CAT, JPEG, embedded, form, photos, running

from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import read_module, write_module
from mobilenet_hub.store import resolve


def coloured(colour, count, seed):
    """Return JPEGs of one colour with noise."""
    from PIL import Image

    random = np.random.default_rng(seed)
    files = []
    for _ in range(count):
        stream = io.BytesIO()
        pixels = np.clip(random.normal(0, 25, (90, 90, 3)) + colour, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(stream, "JPEG")
        files.append(stream.getvalue())
    return files


def test_classes_are_filled_trained_served_and_handed_out(tmp_path):
    with running("--teach", str(tmp_path / "teach")) as server:
        assert server.post("/teach/train", b"")[0] == 422
        for name, colour in (("sky", (90, 140, 230)), ("grass", (60, 150, 50))):
            assert server.post(f"/teach/classes?name={name}", b"")[0] == 200
            files = [(f"{i}.jpg", data) for i, data in enumerate(coloured(colour, 12, len(name)))]
            status, answer, _ = server.post(f"/teach/photos?class={name}", *form(files))
            assert status == 200, answer
        status, answer, _ = server.post("/teach/photos?class=sky", *form([("bad", b"x"), ("cat", CAT.read_bytes())]))
        assert status == 400
        assert "picture 0" in answer["error"]
        assert [(c["name"], c["photos"]) for c in answer["classes"]] == [("grass", 12), ("sky", 13)]
        assert server.post("/teach/train", b"")[0] == 202
        end = time.monotonic() + 120
        while (state := server.get("/teach")[1])["training"]:
            assert server.post("/classify", CAT.read_bytes(), JPEG)[0] == 200  # the server answers meanwhile
            assert time.monotonic() < end
        assert (state["stage"], state["module"]) == ("done", "taught"), state
        green = coloured((60, 150, 50), 1, 9)[0]
        assert server.post("/classify?module=taught&top=1", green, JPEG)[1]["predictions"][0]["labels"] == ["grass"]
        content = server.get("/teach/download?format=module")[1]
        zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "out")
        assert read_module(tmp_path / "out" / "module").config.labels == ("grass", "sky")
        status, report, headers = server.get("/teach/report")
        assert status == 200
        assert b"grass" in report
        assert "sandbox" in headers["content-security-policy"]
        assert server.ask("DELETE", "/teach/classes?name=sky")[0] == 200
        assert [c["name"] for c in server.get("/teach")[1]["classes"]] == ["grass"]
    with running("--teach", str(tmp_path / "teach")) as server:
        assert server.names == ["starter", "taught"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../up",
        "a/b",
        "a%5Cb",
        ".hidden",
        "a%00b",
        "a%0Ab",
        "x" * 61,
        "%20",
        "CON%3A",
        "__MACOSX",
        "con",
        "aux.txt",
        "LPT1",
        "%E2%80%AEa",
    ],
)
def test_a_class_cannot_be_called_by_a_path(tmp_path_factory, name, teaching):
    server, folder = teaching
    before = sorted(folder.rglob("*"))
    assert server.post(f"/teach/classes?name={name}", b"")[0] == 422
    assert server.post(f"/teach/photos?class={name}", CAT.read_bytes(), JPEG)[0] == 422
    assert server.ask("DELETE", f"/teach/classes?name={name}")[0] == 422
    assert sorted(folder.rglob("*")) == before


@pytest.fixture(scope="module")
def teaching(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teach")
    with running("--teach", str(folder)) as server:
        yield server, folder


def test_pages_of_others_may_not_teach(teaching):
    server, _ = teaching
    evil = {"Origin": "https://evil.example"}
    assert server.post("/teach/classes?name=a", b"", evil)[0] == 403
    rebound = {"Origin": "http://evil.example", "Host": "evil.example"}
    assert server.post("/teach/classes?name=a", b"", rebound)[0] == 403
    for host in ("evil.example", "[", "", "localhost.evil.example", "127.0.0.1.evil.example:8080"):
        assert server.post("/teach/classes?name=a", b"", {"Host": host})[0] == 403
    for origin in ("null", "http://[", "https://evil.example", f"http://{server.host}", "evil"):
        assert server.post("/teach/classes?name=a", b"", {"Origin": origin})[0] == 403
    for path in ("/teach", "/teach/report", "/teach/download"):  # photos of people are in the report
        assert server.get(path, evil)[0] == server.get(path, {"Host": "evil.example"})[0] == 403
    assert server.get("/teach", {"Host": "localhost:1234"})[0] == 200
    own = {"Origin": server.url}
    assert server.post("/teach/classes?name=a", b"", own)[0] == 200


def test_a_name_that_is_told_may_teach_behind_a_proxy(tmp_path):
    with running("--teach", str(tmp_path), "--cors", "https://teach.example") as server:
        proxied = {"Host": "teach.example", "Origin": "https://teach.example"}
        assert server.post("/teach/classes?name=a", b"", proxied)[0] == 200
        assert server.post("/teach/classes?name=a", b"", {"Origin": "https://teach.example"})[0] == 403


def test_nothing_is_written_or_deleted_beyond_the_folder(tmp_path):
    """Links in it, and files of its owner that stand where ours would."""
    for place in ("outside", "teach/photos", "teach/exports"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "outside" / "mine.txt").write_text("mine")
    (tmp_path / "teach" / "exports" / "module.onnx").write_text("mine, too")
    (tmp_path / "teach" / "photos" / "link").symlink_to(tmp_path / "outside")
    with running("--teach", str(tmp_path / "teach")) as server:
        status, answer, _ = server.post("/teach/photos?class=link", CAT.read_bytes(), JPEG)
        assert status == 422
        assert "link" in answer["error"]
        assert server.ask("DELETE", "/teach/classes?name=link")[0] == 422
        (tmp_path / "teach" / "photos").rename(tmp_path / "elsewhere")
        assert server.get("/teach")[0] == 507
    assert [file.name for file in (tmp_path / "outside").iterdir()] == ["mine.txt"]
    assert (tmp_path / "teach" / "exports" / "module.onnx").read_text() == "mine, too"


def test_a_module_that_has_the_name_of_what_is_taught_is_refused(tmp_path):
    shutil.copytree(resolve("starter"), tmp_path / "taught")
    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", "--port", "0", "--teach", str(tmp_path / "t")]
    done = subprocess.run([*words, str(tmp_path / "taught")], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'taught'" in done.stderr


def test_the_bounds_of_photos_and_of_the_disk(tmp_path, monkeypatch):
    from mobilenet_hub.serve import teach
    from mobilenet_hub.serve.limits import Limits, Refusal
    from mobilenet_hub.serve.served import Modules, Options
    from mobilenet_hub.serve.state import State

    modules = Modules()
    modules.add("starter", Options())
    teacher = teach.Teacher(State(modules, Limits()), tmp_path, Options())
    (tmp_path / "photos" / "a").mkdir()
    data = CAT.read_bytes()
    assert teacher._keep(tmp_path / "photos" / "a", [data, data]) == []
    for name, value, text in (("MOST_BYTES", len(data) + 5, "GB"), ("_SPARE_BYTES", 1 << 60, "disk")):
        with monkeypatch.context() as change, pytest.raises(Refusal, match=text) as refusal:
            change.setattr(teach, name, value)
            teacher._keep(tmp_path / "photos" / "a", [photos(1)[0]])
        assert refusal.value.status == 507
    assert len(list((tmp_path / "photos" / "a").iterdir())) == 1
    teacher._drop(tmp_path / "photos" / "a")
    assert teacher._bytes == 0
    teacher.close()


def test_without_teach_there_is_nothing_to_teach_with():
    with running() as server:
        assert server.get("/teach")[0] == 404


def test_a_module_is_replaced_without_a_lost_request(tmp_path):
    module = read_module(resolve("starter"))
    labels = tuple(f"new {label}" for label in module.config.labels or ())
    write_module(tmp_path / "shop", module)
    write_module(tmp_path / "next", Module(replace(module.config, labels=labels), module.weights))
    data = photos(1)[0]
    with running(str(tmp_path / "shop"), "--watch") as server:
        statuses, seen, end = [], [], threading.Event()

        def ask():
            while not end.is_set():
                status, answer, _ = server.post("/classify?top=1", data, JPEG)
                statuses.append(status)
                seen.append(answer["predictions"][0]["labels"][0])

        clients = [threading.Thread(target=ask) for _ in range(4)]
        for client in clients:
            client.start()
        limit = time.monotonic() + 60
        while len(seen) < 8 and time.monotonic() < limit:
            time.sleep(0.1)
        write_module(tmp_path / "shop", Module(replace(module.config, labels=labels), module.weights), overwrite=True)
        while not seen[-1].startswith("new ") and time.monotonic() < limit:
            time.sleep(0.1)
        # A folder that is no module changes nothing.
        shutil.rmtree(tmp_path / "shop")
        (tmp_path / "shop").mkdir()
        (tmp_path / "shop" / "module.json").write_text("{}")
        (tmp_path / "shop" / "weights.safetensors").write_text("")
        while "cannot be opened" not in server.log() and time.monotonic() < limit:
            time.sleep(0.1)
        end.set()
        for client in clients:
            client.join()
        assert "cannot be opened" in server.log()
    assert set(statuses) == {200}
    assert not seen[0].startswith("new ")
    assert seen[-1].startswith("new ")


def test_a_link_that_is_made_to_lead_elsewhere_is_a_new_module_of_the_same_name(tmp_path):
    """As releases are often switched: `shop -> releases/1`."""
    module = read_module(resolve("starter"))
    for release in ("1", "2"):
        labels = tuple(f"{release} {label}" for label in module.config.labels or ())
        write_module(tmp_path / "releases" / release, Module(replace(module.config, labels=labels), module.weights))
    (tmp_path / "shop").symlink_to(tmp_path / "releases" / "1")
    with running(str(tmp_path / "shop"), "--watch") as server:
        assert server.names == ["shop"]
        (tmp_path / "next").symlink_to(tmp_path / "releases" / "2")
        (tmp_path / "next").rename(tmp_path / "shop")
        end = time.monotonic() + 60
        while server.post("/classify?top=1", CAT.read_bytes(), JPEG)[1]["predictions"][0]["labels"][0][0] != "2":
            assert time.monotonic() < end, server.log()
            time.sleep(0.1)


def test_similar_photos(tmp_path):
    files = photos(6)
    features = embedded(tmp_path, {f"{index}.jpg": data for index, data in enumerate(files)})
    with running("--index", features) as server:
        status, answer, _ = server.post("/similar?k=2", *form([("a", files[3]), ("b", files[5])]))
        assert status == 200
        assert [Path(row[0]["path"]).name for row in answer["matches"]] == ["3.jpg", "5.jpg"]
        assert all(len(row) == 2 and row[0]["similarity"] > 0.99 for row in answer["matches"])
        assert "/similar" in server.get("/openapi.json")[1]["paths"]
        assert server.post("/similar?k=0", files[0], JPEG)[0] == 422
        assert server.post("/similar", b"x", JPEG)[0] == 400
        status, answer, _ = server.post("/similar", files[0], {**JPEG, "Host": "evil.example"})  # names of photos here
        assert (status, "matches" in answer) == (403, False)


def test_a_request_that_lacks_files_is_told_to_come_again(tmp_path):
    resource = pytest.importorskip("resource", reason="files are not counted here")
    if not hasattr(resource, "prlimit") or not Path("/proc/self/fd").is_dir():
        pytest.skip("another process's limit cannot be set here")
    with running("--teach", str(tmp_path)) as server:
        assert server.post("/teach/classes?name=sky", b"")[0] == 200
        with closing(http.client.HTTPConnection(server.host, server.port, timeout=30)) as connection:
            connection.request("GET", "/teach")
            assert connection.getresponse().read()
            before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
            # A new file gets the lowest number that is free, which may lie below any other limit.
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (0, before[1]))
            connection.request("GET", "/teach")
            answer = connection.getresponse()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "1"), answer.read()
            assert "files" in json.loads(answer.read())["error"]
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
            connection.request("GET", "/teach")
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["classes"]) == (200, [{"name": "sky", "photos": 0}])
