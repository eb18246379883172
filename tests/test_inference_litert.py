"""LiteRT as an engine: any model, any number of images, any number of callers, no more threads than asked for."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from reference_network import random_weights

from mobilenet_hub.architecture import mobilenet_v1
from mobilenet_hub.errors import CorruptFileError, InputError
from mobilenet_hub.inference.litert import LiteRTModel
from mobilenet_hub.inference.litert_graph import build_litert


@pytest.fixture(scope="module")
def content():
    pytest.importorskip("ai_edge_litert")
    network = mobilenet_v1(0.25, num_classes=5)
    return build_litert(network, random_weights(network), (40, 32), ["logits", "features"])


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_an_image_gives_the_same_in_any_batch_and_from_any_thread(content, threads, tmp_path):
    images = np.random.default_rng(0).random((21, 40, 32, 3), np.float32)
    (tmp_path / "model.tflite").write_bytes(content)
    model = LiteRTModel(tmp_path / "model.tflite", threads=threads)
    alone = np.concatenate([model.run(image[np.newaxis])["logits"] for image in images])
    np.testing.assert_array_equal(model.run(images)["logits"], alone)
    assert model.run(images[:0])["logits"].shape == (0, 5)
    with ThreadPoolExecutor(8) as pool:
        counts = [1 + n % 6 for n in range(24)]
        for count, value in zip(counts, pool.map(lambda n: model.run(images[:n])["logits"], counts), strict=True):
            np.testing.assert_array_equal(value, alone[:count])


def test_quantized_models_of_others_give_what_litert_gives_bit_for_bit(shared):
    from ai_edge_litert.interpreter import Interpreter

    files = sorted(shared("weights/tflite").rglob("*.tflite"))
    assert files
    for file in files:
        model = LiteRTModel(file)
        images = np.random.default_rng(0).integers(0, 255, (3, *model.input.shape)).astype(model.input.dtype)
        interpreter = Interpreter(str(file))
        interpreter.allocate_tensors()
        (source,), targets = interpreter.get_input_details(), interpreter.get_output_details()
        results = model.run(images)
        assert len(results) == len(targets) == len(model.outputs)
        for number, image in enumerate(images):
            interpreter.set_tensor(source["index"], image[np.newaxis])
            interpreter.invoke()
            for target, port in zip(targets, model.outputs, strict=True):
                np.testing.assert_array_equal(results[port.name][number], interpreter.get_tensor(target["index"])[0])
                scale, zero = target["quantization"]
                real = (results[port.name][number].astype(float) - zero) * scale
                np.testing.assert_allclose(port.real(results[port.name])[number], real, rtol=1e-6)


def test_what_is_no_model_is_refused(content, tmp_path):
    (tmp_path / "torn.tflite").write_bytes(content[:1000])
    (tmp_path / "text.tflite").write_text("hello")
    for file in ("torn.tflite", "text.tflite", "missing.tflite"):
        with pytest.raises(CorruptFileError, match=file):
            LiteRTModel(tmp_path / file)
    model = LiteRTModel(content)
    for images in (np.zeros((1, 32, 40, 3), np.float32), np.zeros((1, 40, 32, 3), np.uint8)):
        with pytest.raises(InputError, match="expected images of shape"):
            model.run(images)


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads as Linux lists them")
def test_one_thread_is_one_thread(content, tmp_path):
    (tmp_path / "m.tflite").write_bytes(content)
    code = f"""
import os, numpy as np
from mobilenet_hub.inference.litert import LiteRTModel
before = len(os.listdir("/proc/self/task"))
model = LiteRTModel({str(tmp_path / "m.tflite")!r}, threads=1)
for count in (1, 9):
    model.run(np.zeros((count, 40, 32, 3), np.float32))
print(len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    assert done.stderr == ""
