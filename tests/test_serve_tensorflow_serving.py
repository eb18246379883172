"""TensorFlow Serving's REST interface: requests as its document writes them, and as its users' clients do."""

import base64
import json

import numpy as np
import pytest
from serving import CAT, form, photos, running

from mobilenet_hub.images.load import load_image
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.embed import Embedder

NEAR = dict(rtol=2e-2, atol=5e-2)  # of bf16's rounding, where a CPU has it; f32 is far nearer
PREDICT = "/v1/models/starter:predict"


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def classifier():
    return Classifier("starter")


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


def test_status_and_metadata(server):
    for path in ("/v1/models/starter", "/v1/models/starter/versions/1"):
        status, answer, _ = server.get(path)
        assert status == 200
        (version,) = answer["model_version_status"]
        assert (version["version"], version["state"]) == ("1", "AVAILABLE")
        assert version["status"] == {"error_code": "OK", "error_message": ""}
    status, answer, _ = server.get("/v1/models/starter/metadata")
    assert status == 200
    assert answer["model_spec"] == {"name": "starter", "signature_name": "", "version": "1"}
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    shape = [dim["size"] for dim in signature["inputs"]["images"]["tensor_shape"]["dim"]]
    assert shape == ["-1", "160", "160", "3"]
    assert server.get("/v1/models/starter/versions/7")[0] == 404


def test_version_labels(server, classifier):
    body = {"instances": [b64(CAT.read_bytes())]}
    status, answer, _ = server.post("/v1/models/starter/labels/stable:predict", body)
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], classifier.logits([CAT]), **NEAR)
    assert server.get("/v1/models/starter/labels/stable")[1] == server.get("/v1/models/starter")[1]
    assert server.get("/v1/models/starter/labels/stable/metadata")[1] == server.get("/v1/models/starter/metadata")[1]
    status, answer, _ = server.post("/v1/models/starter/labels/canary:predict", body)
    assert status == 404
    assert "'canary'" in answer["error"]


def test_pictures_in_rows_and_columns(server, classifier):
    files = photos(3)
    expected = classifier.logits(files)
    bare = [b64(data) for data in files]
    for body in (
        {"instances": bare},
        {"signature_name": "serving_default", "instances": [{"images": entry} for entry in bare]},
        {"instances": [{"image_bytes": entry} for entry in bare]},  # whatever name the exporter gave
    ):
        status, answer, _ = server.post(PREDICT, body)
        assert status == 200
        np.testing.assert_allclose(answer["predictions"], expected, **NEAR)
    for body in ({"inputs": bare}, {"inputs": {"images": bare}}, {"signature_name": "default", "inputs": bare}):
        status, answer, _ = server.post("/v1/models/starter/versions/1:predict", body)
        assert status == 200
        np.testing.assert_allclose(answer["outputs"], expected, **NEAR)


def test_number_arrays_are_taken_as_they_are(server, classifier):
    images = np.stack([load_image(data, classifier.image_size) for data in photos(2)]).astype(np.float32) / 255
    expected = classifier.logits(images)
    status, answer, _ = server.post(PREDICT, {"instances": images.tolist()})
    assert status == 200
    np.testing.assert_allclose(answer["predictions"], expected, **NEAR)
    features = Embedder("starter").embed(images)
    body = {"signature_name": "image_feature_vector", "inputs": {"images": images.tolist()}}
    status, answer, _ = server.post(PREDICT, body)
    assert status == 200
    np.testing.assert_allclose(answer["outputs"], features, **NEAR)


def test_every_form_of_base64(server, classifier):
    data = CAT.read_bytes()
    plain = base64.b64encode(data).decode()
    expected = classifier.logits([data])[0]
    for text in (
        plain.rstrip("="),
        base64.urlsafe_b64encode(data).decode(),
        "\r\n".join(plain[i : i + 76] for i in range(0, len(plain), 76)),
        f"data:image/jpeg;base64,{plain}",
    ):
        status, answer, _ = server.post(PREDICT, {"instances": [{"b64": text}]})
        assert status == 200, answer
        np.testing.assert_allclose(answer["predictions"][0], expected, **NEAR)


def test_a_compressed_body(server):
    import gzip

    body = gzip.compress(json.dumps({"instances": [b64(CAT.read_bytes())]}).encode())
    assert server.post(PREDICT, body, {"Content-Encoding": "gzip"})[0] == 200
    bomb = gzip.compress(b" " * 30_000_000)
    assert server.post(PREDICT, bomb, {"Content-Encoding": "gzip"})[0] == 413


def test_a_damaged_picture_names_its_index(server):
    files = photos(3)
    status, answer, _ = server.post(PREDICT, {"instances": [b64(files[0]), b64(files[1][:500]), b64(files[2])]})
    assert status == 400
    assert "picture 1" in answer["error"]
    assert [row is None for row in answer["predictions"]] == [False, True, False]


IMAGE = [[[0.5, 0.5, 0.5]] * 160] * 160


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "JSON"),
        (b"[]", "object"),
        (b"\xff\xfe", "JSON"),
        (b"{", "JSON"),
        (b'{"instances": [NaN]}', "NaN"),
        (b'{"instances": [1], "instances": [2]}', "twice"),
        (b'{"instances": [{"b64": "aGk=", "b64": "aGk="}]}', "twice"),
        (b'{"instances": [[[[' + b"9" * 400 + b", 0, 0]]]]}", "bounds"),
        (b'{"instances": ' + b"[" * 500 + b"1" + b"]" * 500 + b"}", "nested"),
        ({"instances": [[[["x" * 300_000, *["y"] * 3000]]]]}, "numbers"),  # numpy would take 4 GB
        ({"instances": [[[[True, 0, 0]]]]}, "numbers"),
        (b"[" * 100_000, "nested"),
        (b'{"instances": ' + b"9" * 5000 + b"}", "JSON"),
        ({}, "instances"),
        ({"instances": [], "inputs": []}, "either"),
        ({"instances": []}, "no image"),
        ({"instances": 5}, "list"),
        ({"instances": [1, 2]}, "batch"),
        ({"instances": ["aGVsbG8="]}, "b64"),
        ({"instances": [{"b64": "!!!"}]}, "base64"),
        ({"instances": [{"b64": 7}]}, "base64"),
        ({"instances": [{"b64": "aGVsbG8="}]}, "picture 0"),
        ({"instances": [{"b64": "aGVsbG8="}, [[1.0]]]}, "instance 1"),
        ({"instances": [{"a": 1, "b": 2}]}, "one input"),
        ({"instances": [IMAGE, IMAGE[:-1]]}, "length"),
        ({"instances": [[[[None, 0, 0]]]]}, "numbers"),
        ({"instances": [[[["1", "0", "0"]]]]}, "numbers"),
        ({"instances": [[[[1e999, 0, 0]]]]}, "JSON"),
        ({"instances": [[[[0.1] * 3] * 16] * 16]}, "160x160"),
        ({"instances": [[[[200.0] * 3] * 160] * 160]}, "255"),
        ({"instances": [[[[-1.0, 0, 1.0]] * 160] * 160]}, "[-1, 1]"),
        ({"instances": [IMAGE], "signature_name": "tf"}, "signature"),
        ({"instances": [IMAGE], "signature_name": ["default"]}, "signature"),
        ({"instances": [IMAGE], "signature": "x"}, "signature"),
    ],
)
def test_what_is_wrong_is_said(server, body, text):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, answer, _ = server.post(PREDICT, data)
    assert status == 400
    assert text in answer["error"]


def test_what_takes_much_to_make_is_refused_before_it_is_made(server):
    """The server's most memory, through bombs that it grew by gigabytes with."""

    def binary(name, datatype, shape, data):
        size = {"binary_data_size": len(data)}
        entry = {"name": name, "datatype": datatype, "shape": shape, "parameters": size}
        text = json.dumps({"inputs": [entry]}).encode()
        return text + data, {"Inference-Header-Content-Length": str(len(text))}

    before, infer = server.most_memory(), "/v2/models/starter/infer"
    texts = {
        "inputs": [{"name": "images", "datatype": "FP32", "shape": [1, 1, 1, 3], "data": ["x" * 10**6, *"y" * 9999]}]
    }
    assert server.post(infer, texts)[0] == 400  # as an array of text, 40 GB
    assert server.post(infer, *binary("images", "UINT8", [6_000_000, 1, 1, 3], bytes(18_000_000)))[0] == 413
    assert server.post(infer, *binary("pictures", "BYTES", [4_000_000], bytes(16_000_000)))[0] == 413
    assert server.post(infer, *binary("pictures", "BYTES", [1 << 30, 1 << 30], bytes(16)))[0] == 400
    assert server.post(PREDICT, {"instances": [{"b64": ""}] * 65})[0] == 413
    fields = b'--aa\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n' * 100_000
    kind = {"Content-Type": "multipart/form-data; boundary=aa"}
    assert server.post("/classify", fields + b"--aa--\r\n", kind)[0] == 413
    assert server.post("/classify", *form([("x", b"")] * 65))[0] == 413
    assert server.most_memory() < before + 300_000_000


def test_a_json_bomb_is_refused_before_it_is_parsed(server):
    status, answer, _ = server.post(PREDICT, b'{"instances": [' + b"[]," * 2_000_000 + b"[]]}")
    assert status == 413
    assert "lists and objects" in answer["error"]
