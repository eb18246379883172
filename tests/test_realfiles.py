"""Model files that other people made, against what their own runtimes compute of eight images (../shared/realfiles).

Skipped without them. Tolerances are the manifest's: float formats round differently, quantized files not at all.
"""

import json

import numpy as np
import pytest
from conftest import SHARED

from mobilenet_hub.errors import MobileNetHubError
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.embed import Embedder
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.weights.convert import convert
from mobilenet_hub.weights.identify import ASSUMED
from mobilenet_hub.weights.labels import plain_labels

REALFILES = SHARED / "realfiles"
MANIFEST = json.loads((REALFILES / "manifest.json").read_text()) if REALFILES.is_dir() else []
REASONS = {  # of what is refused, in words that a person understands
    "tiny_vww_int8": "is relu, where a MobileNet has ReLU6",
    "stm_fd_025_128_flowers": "looks like an FD-MobileNet",
    "ei_tire_2021": "gray images",
    "openmv_mask_2020": "flattens the feature map",
    "lfs_pb": "Git LFS pointer",
    "lfs_pose_tfjs": "Git LFS pointer",
    "other_pb_2019": "another network",
}
pytestmark = pytest.mark.skipif(not MANIFEST, reason="needs ../shared/realfiles")


def entries(expected):
    chosen = [entry for entry in MANIFEST if entry["expected"] == expected]
    return pytest.mark.parametrize("entry", chosen, ids=[entry["id"] for entry in chosen])


def images_of(entry):
    with np.load(REALFILES / entry["inputs"]) as images:
        return images[images.files[0]]


def reference_of(entry):
    with np.load(REALFILES / entry["reference"]) as reference:
        return reference["outputs"]


def converted(entry, folder):
    pytest.importorskip("h5py")
    return convert(REALFILES / entry["source"], folder / "module")


def check_labels(entry, config):
    if "labels_file" in entry and config.num_classes:
        assert config.labels == plain_labels((REALFILES / entry["labels_file"]).read_text("utf-8"))


@entries("converts")
def test_the_same_probabilities_and_labels(entry, tmp_path):
    classifier = Classifier(converted(entry, tmp_path), precision="f32")
    found = classifier.engine.scores(classifier.engine.run(images_of(entry))["logits"])
    wanted = reference_of(entry)
    if wanted.shape[1] == 1:  # one sigmoid: the second of two classes
        found = found[:, 1:]
    np.testing.assert_allclose(found, wanted, atol=entry["tolerance"])
    check_labels(entry, classifier.config)


@entries("converts, quantized")
def test_quantized_files_answer_bit_for_bit(entry, tmp_path):
    folder, wanted = converted(entry, tmp_path), reference_of(entry)
    engine = Engine(folder, ["logits" if "embedding" not in entry["id"] else "features"])
    for images in (images_of(entry), images_of(entry) / np.float32(255)):
        (found,) = engine.run(images.astype(np.float32) if images.dtype != np.uint8 else images).values()
        np.testing.assert_array_equal(found, interpreted(folder / "model.tflite", images_of(entry), entry["scaling"]))
        # TensorFlow's LiteRT made the reference. That of another version has other kernels: one of the 72 answers of
        # these files differs, by a few steps of 1/256.
        assert (found == wanted).all(axis=1).mean() >= 0.85
        np.testing.assert_allclose(found, wanted, atol=0.03)
    assert engine.precision == "int8"
    assert ASSUMED not in engine.config.extra  # its input's range says what images become
    check_labels(entry, engine.config)
    if engine.config.num_classes:
        best = Classifier(folder).classify(list(images_of(entry)), top=1)
        assert [one.scores[0] for one in best] == found.max(axis=1).astype(np.float64).tolist()
    assert Embedder(folder).embed(list(images_of(entry))).shape == (8, engine.config.network.num_features)


def interpreted(file, images, divisor):
    """What LiteRT itself says, with images quantized as TensorFlow Lite's own helpers do."""
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(str(file))
    network.allocate_tensors()
    (source,), (target,) = network.get_input_details(), network.get_output_details()
    scale, zero = source["quantization"]
    rows = []
    for image in images:
        real = image.astype(np.float32) / float(divisor) - 1
        network.set_tensor(source["index"], np.clip(np.round(real / scale + zero), 0, 255).astype(np.uint8)[None])
        network.invoke()
        row = network.get_tensor(target["index"]).reshape(-1)
        scale_out, zero_out = target["quantization"]
        rows.append(row if row.dtype == np.float32 else (row.astype(np.float32) - zero_out) * np.float32(scale_out))
    return np.stack(rows)


@entries("refused")
def test_what_is_no_mobilenet_is_refused_with_the_reason(entry, tmp_path):
    pytest.importorskip("h5py")
    with pytest.raises(MobileNetHubError, match=REASONS.get(entry["id"], r"\w")) as caught:
        convert(REALFILES / entry["source"], tmp_path / "module")
    assert str(REALFILES) in str(caught.value)
    assert not (tmp_path / "module").exists()
