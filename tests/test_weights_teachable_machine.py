"""A Teachable Machine project is the same module from each of its downloads.

Its .h5 is somebody's own (../shared/realfiles); the other downloads are made of it as the site makes them, by tf_keras,
TensorFlow's LiteRT converter and the layout of the site's zip files.
"""

import shutil
import warnings
import zipfile

import numpy as np
import pytest
from keras_matrix import write_tfjs

from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.pixels import TEACHABLE_MACHINE_SCALE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
DOWNLOADS = ("keras_model.h5", "model.savedmodel", "model_unquant.tflite", "model.json")


@pytest.fixture(scope="module")
def project(shared, tmp_path_factory):
    """The downloads of one project, each in a folder of its own with its labels."""
    pytest.importorskip("h5py")
    keras, tensorflow = pytest.importorskip("tf_keras"), pytest.importorskip("tensorflow")
    source = shared("realfiles/files/tmh5_2023_04")
    folder = tmp_path_factory.mktemp("project")
    for name in DOWNLOADS:
        (folder / name).mkdir()
        shutil.copy(source / "labels.txt", folder / name)
    shutil.copy(source / "keras_model.h5", folder / "keras_model.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = keras.models.load_model(source / "keras_model.h5", compile=False)
        model.save(folder / "model.savedmodel" / "model.savedmodel", save_format="tf")
        lite = tensorflow.lite.TFLiteConverter.from_keras_model(model).convert()
    (folder / "model_unquant.tflite" / "model_unquant.tflite").write_bytes(lite)
    write_tfjs(model, folder / "model.json")
    return folder


@pytest.fixture(scope="module")
def original(project):
    return load_source(project / "keras_model.h5" / "keras_model.h5")


@pytest.mark.parametrize("packed", [False, True], ids=["unpacked", "zip"])
@pytest.mark.parametrize("name", DOWNLOADS)
def test_every_download_is_the_same_module(project, original, name, packed, tmp_path):
    path = project / name / name
    if packed:
        path = tmp_path / "converted.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted((project / name).rglob("*")):
                archive.write(file, file.relative_to(project / name))
    module = load_source(path)
    config = module.config
    assert config.variant.input_scale == TEACHABLE_MACHINE_SCALE and config.variant.input_offset == -1
    assert config.labels == original.config.labels and len(config.labels or ()) == config.num_classes
    assert (config.image_size, config.variant.hidden_units) == ((224, 224), (100,))
    if name == "model_unquant.tflite":  # batch norm is folded there: other weights, the same answers
        images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
        ours, theirs = (Classifier(one, precision="f32").engine for one in (module, original))
        np.testing.assert_allclose(ours.run(images)["logits"], theirs.run(images)["logits"], atol=1e-4)
        return
    assert module.weights.keys() == original.weights.keys()
    for key, array in original.weights.items():
        np.testing.assert_array_equal(module.weights[key], array, err_msg=key)


def test_float_and_quantized_downloads_agree(shared, tmp_path):
    """Two downloads of one project of somebody: 8 bits move its answers a little."""
    plain = load_source(shared("realfiles/files/zip_tflite_2022/converted_tflite.zip"))
    quantized = load_source(shared("realfiles/files/zip_tfliteq_2022/converted_tflite_quantized.zip"))
    assert plain.config.labels == quantized.config.labels
    assert plain.config.variant.input_scale == quantized.config.variant.input_scale == TEACHABLE_MACHINE_SCALE
