"""Teaching over HTTP, a module that is replaced while it is asked, and similar photos."""

import io
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from serving import CAT, JPEG, form, photos, running

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
    "name", ["", "..", "../up", "a/b", "a%5Cb", ".hidden", "a%00b", "a%0Ab", "x" * 61, "%20", "CON%3A", "__MACOSX"]
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
    own = {"Origin": server.url}
    assert server.post("/teach/classes?name=a", b"", own)[0] == 200


def test_without_teach_there_is_nothing_to_teach_with():
    with running() as server:
        assert server.get("/teach")[0] == 404


def test_a_module_is_replaced_without_a_lost_request(tmp_path):
    module = read_module(resolve("starter"))
    labels = tuple(f"new {label}" for label in module.config.labels)
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
        time.sleep(0.5)
        write_module(tmp_path / "shop", Module(replace(module.config, labels=labels), module.weights), overwrite=True)
        limit = time.monotonic() + 60
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


def test_similar_photos(tmp_path):
    files = photos(6)
    (tmp_path / "photos").mkdir()
    for index, data in enumerate(files):
        (tmp_path / "photos" / f"{index}.jpg").write_bytes(data)
    subprocess.run(
        [sys.executable, "-m", "mobilenet_hub.cli.main", "embed", tmp_path / "photos", "-o", tmp_path / "features"],
        check=True,
        capture_output=True,
    )
    with running("--index", str(tmp_path / "features")) as server:
        status, answer, _ = server.post("/similar?k=2", *form([("a", files[3]), ("b", files[5])]))
        assert status == 200
        assert [Path(row[0]["path"]).name for row in answer["matches"]] == ["3.jpg", "5.jpg"]
        assert all(len(row) == 2 and row[0]["similarity"] > 0.99 for row in answer["matches"])
        assert "/similar" in server.get("/openapi.json")[1]["paths"]
        assert server.post("/similar?k=0", files[0], JPEG)[0] == 422
        assert server.post("/similar", b"x", JPEG)[0] == 400
