"""The Open Inference Protocol v2: with NVIDIA's client, and with requests that no client would write."""

import base64
import json
import struct

import numpy as np
import pytest
from serving import CAT, photos, running

from mobilenet_hub.images.load import load_image
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.embed import Embedder

NEAR = dict(rtol=2e-2, atol=5e-2)  # of bf16's rounding, where a CPU has it; f32 is far nearer
INFER = "/v2/models/starter/infer"


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def images():
    """float32 [3, 160, 160, 3] in [0, 1]."""
    return np.stack([load_image(data, 160) for data in photos(3)]).astype(np.float32) / 255


@pytest.fixture(scope="module")
def logits(images):
    return Classifier("starter").logits(images)


@pytest.fixture(scope="module")
def triton(server):
    client = pytest.importorskip("tritonclient.http", reason="needs tritonclient[http]")
    with client.InferenceServerClient(f"{server.host}:{server.port}", concurrency=4) as connected:
        yield client, connected


def test_health_and_metadata_with_tritons_client(triton):
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("starter")
    assert client.is_model_ready("starter", "1")
    assert client.get_server_metadata()["name"] == "mobilenet-hub"
    model = client.get_model_metadata("starter")
    assert model["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 160, 160, 3]}]
    assert [output["name"] for output in model["outputs"]] == ["logits", "features"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_floats_with_tritons_client(triton, images, logits, binary_in, binary_out):
    http, client = triton
    tensor = http.InferInput("images", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=binary_in)
    outputs = [http.InferRequestedOutput("logits", binary_data=binary_out)]
    result = client.infer("starter", [tensor], outputs=outputs, request_id="7")
    np.testing.assert_allclose(result.as_numpy("logits"), logits, **NEAR)
    assert result.get_response()["id"] == "7"


def test_pictures_bytes_and_both_outputs_with_tritons_client(triton, images):
    http, client = triton
    files = np.array(photos(3), dtype=object)
    tensor = http.InferInput("pictures", [3], "BYTES")
    tensor.set_data_from_numpy(files, binary_data=True)
    result = client.infer("starter", [tensor])  # all outputs, as bytes
    np.testing.assert_allclose(result.as_numpy("logits"), Classifier("starter").logits(list(files)), **NEAR)
    np.testing.assert_allclose(result.as_numpy("features"), Embedder("starter").embed(list(files)), **NEAR)
    tensor = http.InferInput("images", [3, 160, 160, 3], "UINT8")
    tensor.set_data_from_numpy((images * 255).round().astype(np.uint8), binary_data=True)
    compressed = client.infer("starter", [tensor], request_compression_algorithm="gzip")
    np.testing.assert_allclose(compressed.as_numpy("logits"), result.as_numpy("logits"), **NEAR)


def test_many_requests_at_a_time_with_tritons_client(triton, images, logits):
    http, client = triton
    waiting = []
    for index in range(12):
        tensor = http.InferInput("images", [1, 160, 160, 3], "FP32")
        tensor.set_data_from_numpy(images[index % 3 : index % 3 + 1])
        waiting.append(client.async_infer("starter", [tensor], outputs=[http.InferRequestedOutput("logits")]))
    for index, answer in enumerate(waiting):
        np.testing.assert_allclose(answer.get_result().as_numpy("logits")[0], logits[index % 3], **NEAR)


def test_an_error_reaches_tritons_client(triton):
    http, client = triton
    tensor = http.InferInput("images", [1, 8, 8, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 8, 8, 3), np.float32))
    with pytest.raises(http.InferenceServerException, match="160x160"):
        client.infer("starter", [tensor])
    with pytest.raises(http.InferenceServerException, match="no module"):
        client.get_model_metadata("resnet")


def test_json_tensors_flat_or_nested_and_base64_pictures(server):
    image = np.full((1, 160, 160, 3), 0.5, np.float32)
    tensor = {"name": "images", "shape": [1, 160, 160, 3], "datatype": "FP32"}
    flat = server.post(INFER, {"inputs": [{**tensor, "data": image.ravel().tolist()}]})[1]
    nested = server.post(INFER, {"inputs": [{**tensor, "data": image.tolist()}], "outputs": [{"name": "logits"}]})[1]
    assert [output["name"] for output in flat["outputs"]] == ["logits", "features"]
    assert [output["name"] for output in nested["outputs"]] == ["logits"]
    np.testing.assert_allclose(flat["outputs"][0]["data"], nested["outputs"][0]["data"], **NEAR)
    text = base64.b64encode(CAT.read_bytes()).decode()
    body = {"id": "x", "inputs": [{"name": "pictures", "shape": [1], "datatype": "BYTES", "data": [text]}]}
    status, answer, _ = server.post(INFER, body)
    assert (status, answer["id"], answer["model_name"]) == (200, "x", "starter")
    assert answer["outputs"][0]["shape"] == [1, 202]


def tensor(**changes):
    return {"inputs": [{"name": "images", "shape": [1, 160, 160, 3], "datatype": "FP32", "data": [0.5], **changes}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [1]}, "object"),
        (tensor(), "76800"),
        (tensor(name="input_1"), "not known"),
        (tensor(datatype="FP64"), "not known"),
        (tensor(datatype=["FP32"]), "not known"),
        (tensor(shape=[1 << 30, 1 << 30, 1 << 30, 3]), "numbers"),
        (tensor(shape=[-1, 160, 160, 3]), "shape"),
        (tensor(shape=[True, 160, 160, 3]), "shape"),
        (tensor(shape="1"), "shape"),
        (tensor(shape=[1, 3, 160, 160]), "RGB"),
        (tensor(data=["a"]), "numbers"),
        (tensor(data={}), "data"),
        (tensor(parameters=5), "parameters"),
        (tensor(datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, 300]), "255"),
        (tensor(datatype="UINT8", shape=[1, 1, 1, 3], data=[1, 2, 0.5]), "255"),
        (tensor(name="pictures", datatype="BYTES", shape=[2], data=["aGVsbG8="]), "2 files"),
        (tensor(name="pictures", datatype="BYTES", shape=[1], data=["aGVsbG8="]), "picture 0"),
        (tensor(name="pictures", datatype="BYTES", shape=[1], data=[{}]), "base64"),
        ({**tensor(data=[0.5] * 76800), "outputs": [{"name": "probabilities"}]}, "logits"),
        ({**tensor(data=[0.5] * 76800), "outputs": 3}, "outputs"),
        ({**tensor(data=[0.5] * 76800), "outputs": [{"name": "logits"}] * 2}, "twice"),
        ({**tensor(data=[0.5] * 76800), "id": 5}, "id"),
        ({**tensor(data=[0.5] * 76800), "parameters": {"binary_data_output": "yes"}}, "binary_data_output"),
        (tensor(parameters={"binary_data_size": 4}), "follow"),
    ],
)
def test_what_is_wrong_is_said(server, body, text):
    status, answer, _ = server.post(INFER, body)
    assert status == 400, answer
    assert text in answer["error"]


def binary(size, data, shape=(1, 160, 160, 3), datatype="FP32", header=None, name="images"):
    parameters = {"binary_data_size": size}
    entry = {"name": name, "shape": list(shape), "datatype": datatype, "parameters": parameters}
    text = json.dumps({"inputs": [entry]}).encode()
    return text + data, {"Inference-Header-Content-Length": str(len(text)) if header is None else header}


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (*binary(4, b"\0" * 4), "307200"),
        (*binary(8, b"\0" * 4), "follow"),
        (*binary(4, b"\0" * 4, header="99999"), "body's"),
        (*binary(4, b"\0" * 4, header="-1"), "body's"),
        (*binary(4, b"\0" * 4, header="5"), "JSON"),
        (*binary(307200, struct.pack("<f", float("nan")) * 76800), "finite"),
        (*binary(4, b"\xff\xff\xff\xff", shape=(1,), datatype="BYTES", name="pictures"), "claims"),
        (*binary(0, b"", shape=(1,), datatype="BYTES", name="pictures"), "1 files"),
    ],
)
def test_binary_data_of_wrong_lengths(server, body, headers, text):
    status, answer, _ = server.post(INFER, body, headers)
    assert status == 400, answer
    assert text in answer["error"]
