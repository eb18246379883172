"""Modules that keep a quantized LiteRT file, served: other people's files (../shared/realfiles), their own answers.

The same interpreter computes the same integers whether it is asked here or by the server, so that nothing may differ.
"""

import hashlib
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import SHARED
from serving import CAT, JPEG, form, photos, running

from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.embed import Embedder
from mobilenet_hub.store import resolve
from mobilenet_hub.weights.convert import convert

FILES = SHARED / "realfiles" / "files"
CLASSES = FILES / "coral_v1_025_128_quant" / "mobilenet_v1_0.25_128_quant.tflite"
FEATURES = FILES / "coral_v1_10_224_quant_embedding_extractor" / "mobilenet_v1_1.0_224_quant_embedding_extractor.tflite"
pytestmark = pytest.mark.skipif(not FILES.is_dir(), reason="needs ../shared/realfiles")
pytest.importorskip("ai_edge_litert", reason="needs LiteRT")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    convert(CLASSES, folder / "classes")
    convert(FEATURES, folder / "features")
    return folder


@pytest.fixture(scope="module")
def server(folder):
    with running(str(folder / "classes"), str(folder / "features")) as started:
        yield started


def digest_of(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_labels_are_the_files_own_and_the_digest_names_it(server, folder):
    files = [(f"{index}.jpg", data) for index, data in enumerate(photos(3))]
    status, answer, _ = server.post("/classify?top=3&module=classes", *form(files))
    assert status == 200
    assert answer["weights_sha256"] == digest_of(CLASSES)
    for found, expected in zip(
        answer["predictions"], Classifier(folder / "classes").classify([data for _, data in files], 3), strict=True
    ):
        assert (found["labels"], found["scores"]) == (list(expected.labels), list(expected.scores))


def test_features_of_a_classifier_and_of_a_file_that_gives_nothing_else(server, folder):
    for name, file in (("classes", CLASSES), ("features", FEATURES)):
        status, answer, _ = server.post(f"/embed?module={name}", CAT.read_bytes(), JPEG)
        assert status == 200
        assert answer["weights_sha256"] == digest_of(file)
        np.testing.assert_array_equal(np.float32(answer["features"]), Embedder(folder / name).embed([CAT.read_bytes()]))
    status, answer, _ = server.post("/classify?module=features", CAT.read_bytes(), JPEG)
    assert status == 422
    assert "no classifier" in answer["error"]


def test_an_explanation_is_refused_with_the_reason(server):
    status, answer, _ = server.post("/classify?module=classes&explain=1", CAT.read_bytes(), JPEG)
    assert status == 422
    assert "quantized LiteRT file" in answer["error"]


def test_the_standard_protocols_give_both_outputs(server, folder):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [2, 128, 128, 3], "data": pixels.reshape(-1).tolist()}
    status, answer, _ = server.post("/v2/models/classes/infer", {"inputs": [tensor]})
    assert status == 200
    found = {one["name"]: np.float32(one["data"]).reshape(one["shape"]) for one in answer["outputs"]}
    np.testing.assert_array_equal(found["logits"], Classifier(folder / "classes").engine.run(pixels)["logits"])
    np.testing.assert_array_equal(found["features"], Embedder(folder / "classes").engine.run(pixels)["features"])
    status, answer, _ = server.post("/v1/models/classes:predict", {"instances": (pixels / 255).tolist()})
    assert status == 200
    np.testing.assert_array_equal(np.float32(answer["predictions"]), found["logits"])


def test_the_metrics_say_how_it_computes(server):
    _, text, _ = server.get("/metrics")
    line = next(line for line in text.decode().splitlines() if f'weights_sha256="{digest_of(CLASSES)}"' in line)
    assert 'precision="int8"' in line
    assert 'engine="litert"' in line


def test_another_precision_is_refused_before_anything_is_served(folder):
    command = [sys.executable, "-m", "mobilenet_hub.cli.main", "serve", "--port", "0", "--precision", "f32"]
    done = subprocess.run([*command, str(folder / "classes")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "leave --precision out" in done.stderr or "leave the precision out" in done.stderr


def test_a_float_module_is_replaced_by_a_quantized_one(folder, tmp_path):
    shutil.copytree(resolve("starter"), tmp_path / "shop")
    with running(str(tmp_path / "shop"), "--watch") as server:
        convert(CLASSES, tmp_path / "shop", overwrite=True)
        end = time.monotonic() + 60
        while server.post("/classify", CAT.read_bytes(), JPEG)[1]["weights_sha256"] != digest_of(CLASSES):
            assert time.monotonic() < end, server.log()
            time.sleep(0.1)
        assert "was replaced" in server.log()
