"""Our own requests to a real server, each answer beside what `Classifier` and `Embedder` give."""

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image
from serving import CAT, JPEG, form, photos, running

from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.embed import Embedder

# The same network on the same pixels, alone or in a batch: float32 sums in another order; bf16 rounds sums that differ.
NEAR = 2e-2


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def classifier():
    return Classifier("starter")


def test_the_first_line_says_what_and_where(server):
    assert server.names == ["starter"]
    assert server.host == "127.0.0.1"


def test_a_picture_gets_the_classifiers_labels(server, classifier):
    expected = classifier.classify([CAT], top=3)[0]
    for kind in ("image/jpeg", "image/x-anything", "application/octet-stream", "Image/JPEG; q=1"):
        status, answer, headers = server.post("/classify?top=3", CAT.read_bytes(), {"Content-Type": kind})
        assert status == 200
        assert answer["module"] == "starter"
        assert len(answer["weights_sha256"]) == 64
        (prediction,) = answer["predictions"]
        assert tuple(prediction["labels"]) == expected.labels
        assert tuple(prediction["indices"]) == expected.indices
        np.testing.assert_allclose(prediction["scores"], expected.scores, atol=1e-6)
        assert headers["content-type"] == "application/json"


def test_a_picture_is_explained_where_one_asks(server, classifier):
    (expected,) = classifier.explain([CAT], top=2)
    status, plain, _ = server.post("/classify?top=3", CAT.read_bytes(), JPEG)
    status, answer, _ = server.post("/classify?top=3&explain=2", CAT.read_bytes(), JPEG)
    assert status == 200
    (prediction,) = answer["predictions"]
    explained = prediction.pop("explanations")
    assert answer == plain  # the labels are the same, with or without
    assert [one["label"] for one in explained] == prediction["labels"][:2]
    for rank, one in enumerate(explained):
        np.testing.assert_allclose(one["map"], expected.maps[rank], atol=NEAR * np.abs(expected.maps).max())
        assert np.mean(one["map"]) + one["bias"] == pytest.approx(one["logit"], abs=1e-4)
        assert (len(one["rows"]), len(one["columns"])) == expected.maps.shape[1:]
        kind, _, data = one["picture"].partition(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            drawn = np.asarray(picture)
        assert drawn.shape == expected.image.shape
        assert np.abs(drawn.astype(int) - expected.overlay(rank)).mean() < 6  # a JPEG of it


def test_what_cannot_be_explained_says_so_and_costs_the_others_nothing(server):
    good = photos(3)
    status, answer, _ = server.post("/classify?explain=1", *form([("a", good[0]), ("b", b"no"), ("c", good[2])]))
    assert status == 400
    first, none, last = answer["predictions"]
    assert none is None and len(first["explanations"]) == len(last["explanations"]) == 1
    status, answer, _ = server.post("/classify?explain=1", b"no picture", JPEG)
    assert status == 400 and answer["predictions"] == [None]
    for wrong in ("0", "6", "x", "", "-1"):
        status, answer, _ = server.post(f"/classify?explain={wrong}", good[0], JPEG)
        assert status == 422 and "explain must be a whole number from 1 to 5" in answer["error"]
    status, answer, _ = server.post("/classify?explain=1", *form([("a", good[0])] * 17))
    assert status == 422 and "at most 16 are explained" in answer["error"]


def test_a_form_may_hold_any_number_of_files(server, classifier):
    files = [(f"photo {index} ü.jpg", data) for index, data in enumerate(photos(5))]
    status, answer, _ = server.post("/classify?top=2", *form(files))
    assert status == 200
    assert [p["name"] for p in answer["predictions"]] == [name for name, _ in files]
    for prediction, expected in zip(answer["predictions"], classifier.classify([d for _, d in files], 2), strict=True):
        np.testing.assert_allclose(prediction["scores"], expected.scores, atol=NEAR)


def test_large_pictures_among_small_ones_are_all_answered_in_their_order(server, classifier):
    """Only one large picture is decoded at a time, and the others are put behind what else waits."""
    with Image.open(CAT) as cat:
        stream = io.BytesIO()
        cat.convert("RGB").resize((2300, 2000)).save(stream, "PNG", compress_level=1)
    files = [stream.getvalue() if number % 3 == 0 else data for number, data in enumerate(photos(9))]
    status, answer, _ = server.post("/classify?top=2", *form([(f"{n}", data) for n, data in enumerate(files)]))
    assert status == 200, answer
    for found, expected in zip(answer["predictions"], classifier.classify(files, top=2), strict=True):
        assert found["labels"][0] == expected.labels[0] or expected.scores[0] - expected.scores[1] < NEAR
        np.testing.assert_allclose(found["scores"], expected.scores, atol=NEAR)


def test_a_name_as_older_clients_write_it(server):
    """urllib3 before 2 sent names beyond ASCII as filename* alone."""
    start = b"--aa\r\nContent-Disposition: form-data; name=\"file\"; filename*=utf-8''k%C3%A4tze.jpg\r\n\r\n"
    body = start + CAT.read_bytes() + b"\r\n--aa--\r\n"
    status, answer, _ = server.post("/classify", body, {"Content-Type": "multipart/form-data; boundary=aa"})
    assert (status, answer["predictions"][0]["name"]) == (200, "kätze.jpg")


def test_a_damaged_picture_names_its_index_and_costs_the_others_nothing(server):
    good = photos(3)
    status, answer, _ = server.post("/classify", *form([("a", good[0]), ("b.jpg", good[1][:900]), ("c", good[2])]))
    assert status == 400
    assert "picture 1 (b.jpg)" in answer["error"]
    assert "truncated" in answer["error"]
    assert [bad["index"] for bad in answer["errors"]] == [1]
    assert [p and p["name"] for p in answer["predictions"]] == ["a", None, "c"]
    status, answer, _ = server.post("/embed", *form([("a", b""), ("b", good[0])]))
    assert status == 400
    assert answer["features"][0] is None
    assert len(answer["features"][1]) > 0


def test_features_as_json_and_as_an_array(server):
    expected = Embedder("starter").embed([CAT.read_bytes()])
    status, answer, _ = server.post("/embed", CAT.read_bytes(), JPEG)
    assert status == 200
    np.testing.assert_allclose(answer["features"], expected, rtol=1e-5, atol=1e-5)
    status, content, headers = server.post("/embed", CAT.read_bytes(), {**JPEG, "Accept": "application/x-npy"})
    assert status == 200
    assert headers["content-type"] == "application/x-npy"
    array = np.load(io.BytesIO(content), allow_pickle=False)
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "text"),
    [
        ("POST", "/classify", b"no picture", JPEG, 400, "picture 0"),
        ("POST", "/classify", b"", JPEG, 400, "empty"),
        ("POST", "/classify", CAT, {"Content-Type": "text/plain"}, 415, "text/plain"),
        ("POST", "/classify", CAT, {"Content-Type": "application/x-www-form-urlencoded"}, 415, "-F file=@"),
        ("POST", "/classify", CAT, {**JPEG, "Content-Encoding": "br"}, 415, "br"),
        ("POST", "/classify", CAT, {**JPEG, "Content-Encoding": "gzip"}, 400, "gzip"),
        ("POST", "/classify?top=0", CAT, JPEG, 422, "top"),
        ("POST", "/classify?top=nan", CAT, JPEG, 422, "top"),
        ("POST", "/classify?top=1&top=2", CAT, JPEG, 422, "twice"),
        ("POST", "/classify?tpo=1", CAT, JPEG, 422, "tpo"),
        ("POST", "/classify?module=../../etc/passwd", CAT, JPEG, 404, "starter"),
        ("POST", "/classify", b"x", {"Content-Type": "multipart/form-data"}, 400, "boundary"),
        ("POST", "/classify", b"x", {"Content-Type": "multipart/form-data; boundary=a"}, 400, "multipart"),
        ("POST", "/classify", b"--a--\r\n", {"Content-Type": "multipart/form-data; boundary=a"}, 400, "file"),
        ("GET", "/classify", None, {}, 405, "GET"),
        ("DELETE", "/v2", None, {}, 405, "DELETE"),
        ("GET", "/..%2f..%2fetc/passwd", None, {}, 404, "nothing"),
        ("GET", "/similar", None, {}, 404, "nothing"),
    ],
)
def test_what_is_wrong_is_said(server, method, path, body, headers, status, text):
    got, answer, _ = server.ask(method, path, body.read_bytes() if body is CAT else body, headers)
    assert got == status
    assert text in answer["error"]


def test_a_request_keeps_its_id(server):
    assert server.get("/v2", {"X-Request-Id": "abc-123"})[2]["x-request-id"] == "abc-123"
    made = server.get("/v2", {"X-Request-Id": 'a"b{}'})[2]["x-request-id"]
    assert made.isalnum()


def test_several_modules_a_token_and_a_page_of_another_origin(tmp_path):
    from dataclasses import replace

    from mobilenet_hub.module import Module
    from mobilenet_hub.module_folder import read_module, write_module
    from mobilenet_hub.store import resolve

    module = read_module(resolve("starter"))
    network = replace(module.config, num_classes=0, labels=None)
    weights = {name: module.weights[name] for name in network.network.variables}
    write_module(tmp_path / "my features", Module(network, weights))
    options = ("starter", str(tmp_path / "my features"), "--token", "sesame", "--cors", "https://shop.example")
    with running(*options, "--log-json") as server:
        assert server.names == ["starter", "my features"]
        assert server.post("/classify", CAT.read_bytes(), JPEG)[0] == 401
        assert server.get("/metrics", {"Authorization": "Bearer sesam"})[0] == 401
        assert server.get("/v2/health/ready")[0] == 200
        token = {"Authorization": "Bearer sesame", "Origin": "https://shop.example"}
        status, answer, headers = server.post("/embed?module=my%20features", CAT.read_bytes(), {**JPEG, **token})
        assert (status, answer["module"]) == (200, "my features")
        assert headers["access-control-allow-origin"] == "https://shop.example"
        assert headers["vary"] == "Origin"
        assert "inference-header-content-length" in headers["access-control-expose-headers"].lower()
        assert headers["x-content-type-options"] == "nosniff"
        for wrong in ("", "Bearer", "Bearer ", "Basic sesame", "sesame", "Bearer sesame2", "Bearer SESAME"):
            assert server.get("/metrics", {"Authorization": wrong})[0] == 401
        assert server.get("/metrics?token=sesame")[0] == 401  # addresses stand in logs
        assert server.get("/metrics", {"X-Token": "sesame"})[0] == 401
        assert server.get("/v1/models/my%20features", token)[0] == 200
        status, answer, _ = server.post("/classify?module=my%20features", CAT.read_bytes(), {**JPEG, **token})
        assert status == 422
        assert "no classifier" in answer["error"]
        preflight = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        assert server.ask("OPTIONS", "/classify", None, preflight)[0] == 204
        other = {**token, "Origin": "https://evil.example"}
        assert "access-control-allow-origin" not in server.get("/v2", other)[2]
        assert server.get("/v2", other)[2]["vary"] == "Origin"
        assert '"path": "/embed", "status": 200' in server.log()


def test_a_token_beyond_ascii_and_a_log_that_nobody_reads():
    import http.client
    import subprocess
    import sys

    words = [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", "--port", "0", "--log-json"]
    environment = {**os.environ, "MOBILENET_HUB_TOKEN": "séſame"}
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        process.stderr.close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for token, status in (("séſame", 200), ("sesame", 401), ("séſame", 200)):
            connection.request(
                "POST", "/classify", CAT.read_bytes(), {**JPEG, "Authorization": f"Bearer {token}".encode()}
            )
            answer = connection.getresponse()
            assert answer.read()
            assert answer.status == status
        connection.close()
        process.terminate()
        assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--queue", "0"), "--queue"),
        (("--timeout", "0"), "--timeout"),
        (("--max-body", "much"), "much"),
        (("--host", "192.0.2.1"), "192.0.2.1"),
        (("--cors", "example.org"), "--cors"),
        (("--token", ""), "--token"),  # of a variable that is not set: it would be open to all
        (("--token", " sesame"), "--token"),
        (("no/such/module",), "no/such/module"),
        (("starter", "starter"), "two modules"),
    ],
)
def test_options_that_mean_nothing_are_refused_before_anything_starts(options, text):
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ,
    )
    assert done.returncode == 2
    assert text in done.stderr
    assert done.stdout == ""
