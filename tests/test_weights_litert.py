"""Float LiteRT files: the same outputs as LiteRT's interpreter, and nothing quantized or rewired."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_files import some_weights

from mobilenet_hub.architecture import architecture
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError, MobileNetHubError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.weights.convert import convert, load_source
from mobilenet_hub.weights.litert import of_range
from mobilenet_hub.weights.reading import Unusable

NETWORKS = {"v1": architecture("mobilenet_v1", 0.25, 5), "v2": architecture("mobilenet_v2", 0.35, 0)}
SIZE = 64


def function(tf, network, scaled=False):
    """The network in TensorFlow's own operations, as TF-Slim defines it."""
    weights = some_weights(network)

    @tf.function(input_signature=[tf.TensorSpec((1, SIZE, SIZE, 3), tf.float32)])
    def run(images):
        x, outputs = images * 2 - 1 if scaled else images, []
        for unit in network.units:
            strides = [1, unit.stride, unit.stride, 1]
            conv = tf.nn.depthwise_conv2d if unit.depthwise else tf.nn.conv2d
            x = conv(x, weights[unit.kernel.name], strides=strides, padding="SAME")
            gamma, beta, mean, variance = (weights[one.name] for one in unit.batch_norm)
            x = tf.nn.batch_normalization(x, mean, variance, beta, gamma, 0.001)
            x = tf.nn.relu6(x) if unit.relu6 else x
            x = x if unit.adds is None else x + outputs[unit.adds]
            outputs.append(x)
        x = tf.reduce_mean(x, [1, 2], keepdims=True)
        if network.classifier:
            kernel, bias = (weights[one.name] for one in network.classifier)
            x = tf.nn.conv2d(x, kernel, 1, "SAME") + bias
        return tf.squeeze(x, [1, 2])

    return run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    tf = pytest.importorskip("tensorflow")
    folder, written = tmp_path_factory.mktemp("tflite"), {}
    for name, network in NETWORKS.items():
        run = function(tf, network, scaled=name == "v2")
        for form in ("float32", "float16", "int8"):
            converter = tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()])
            if form != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if form == "float16":
                converter.target_spec.supported_types = [tf.float16]
            written[name, form] = folder / f"{name}_{form}.tflite"
            written[name, form].write_bytes(converter.convert())
    return written


def interpreted(file, images):
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(str(file))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("form", ["float32", "float16"])
def test_the_same_outputs_as_the_interpreter(files, name, form):
    module = load_source(files[name, form])
    config, network = module.config, NETWORKS[name]
    assert (config.architecture, config.depth_multiplier) == (network.name, network.depth_multiplier)
    assert (config.image_size, config.num_classes) == ((SIZE, SIZE), network.num_classes)
    assert config.batch_norm_folded
    images = np.random.default_rng(0).random((1, SIZE, SIZE, 3), np.float32)
    wanted = interpreted(files[name, form], images if name == "v2" else images * 2 - 1)
    output = "logits" if network.num_classes else "features"
    found = Engine(module, [output], precision="f32").run(images)[output]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_in_integers_are_widened(files, name):
    """Dynamic range: the kernels of 256 steps for each tensor or channel, everything else as it was."""
    packed, module = load_source(files[name, "int8"]), load_source(files[name, "float32"])
    assert packed.config.network == module.config.network
    for key, array in module.weights.items():
        step = np.abs(array).max() / 127
        np.testing.assert_allclose(packed.weights[key], array, atol=step if "weights" in key else 1e-6)


@pytest.mark.parametrize("relative", ["mobilenet_v1_0.5_160_quant.tflite", "tf2_mobilenet_v2_1.0_224_ptq.tflite"])
def test_published_quantized_files_are_kept(shared, tmp_path, relative):
    file = shared(f"weights/tflite/{relative}")
    folder = convert(file, tmp_path / "module")
    assert (folder / "model.tflite").read_bytes() == file.read_bytes()
    module = read_module(folder)
    assert (module.config.num_classes, module.config.model) == (1001, "model.tflite")
    assert sorted(path.name for path in folder.iterdir()) == ["labels.txt", "model.tflite", "module.json"]


@pytest.mark.parametrize(
    ("least", "most", "scaling"),
    [
        (-1.0, 0.992, None), (-0.95, 0.98, None), (-4.1, 3.9, None), (0.0, 1.0, (1.0, 0.0)), (0.0, 0.97, (1.0, 0.0)),
        (0.0, 255.0, (255.0, 0.0)), (-128.0, 127.0, (255.0, -128.0)),
        (-2.118, 2.64, Unusable), (0.0, 0.3, Unusable),
        (-0.5, 0.5, Unusable), (0.0, 6.0, Unusable), (-300.0, 300.0, Unusable),
    ],
)  # fmt: skip
def test_the_range_of_a_quantized_input_says_what_images_become(least, most, scaling):
    if scaling is Unusable:
        with pytest.raises(Unusable, match="nothing says how an image becomes such"):
            of_range(least, most)
    else:
        assert of_range(least, most) == scaling


def test_a_kept_file_is_run_without_a_word_of_litert(shared, tmp_path):
    """LiteRT writes "INFO: Created TensorFlow Lite XNNPACK delegate" to the descriptor of standard error."""
    pytest.importorskip("ai_edge_litert")
    folder = convert(shared("weights/tflite/mobilenet_v1_0.5_160_quant.tflite"), tmp_path / "module")
    program = "import sys, numpy as np; from mobilenet_hub.inference.engine import Engine; from pathlib import Path; "
    program += "Engine(Path(sys.argv[1]), ['logits', 'features']).run(np.zeros((2, 160, 160, 3), np.float32))"
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, check=True)
    assert done.stderr == b""


def test_truncations_are_refused(files, tmp_path):
    data = files["v1", "float32"].read_bytes()
    for size in [*range(0, 64, 5), *range(64, len(data), len(data) // 40), len(data) - 5]:
        (tmp_path / "cut.tflite").write_bytes(data[:size])
        with pytest.raises(MobileNetHubError, match=r"cut\.tflite"):
            load_source(tmp_path / "cut.tflite")


@settings(max_examples=80, deadline=None)
@given(at=st.integers(0, 10**9), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_changes_one_number(files, tmp_path_factory, at, flip):
    file = tmp_path_factory.mktemp("flip") / "net.tflite"
    good = files["v1", "float32"]
    data = bytearray(good.read_bytes())
    data[at % len(data)] ^= flip
    file.write_bytes(data)
    try:
        module = load_source(file)
    except MobileNetHubError as error:
        assert "net.tflite" in str(error)
    else:
        wanted = load_source(good).weights
        assert sum(int((module.weights[name] != array).sum()) for name, array in wanted.items()) <= 1


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300))
def test_garbage_is_refused(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("garbage") / "net.tflite"
    for content in (data, data[:4].ljust(4, b"\x10") + b"TFL3" + data):
        file.write_bytes(content)
        with pytest.raises((CorruptFileError, InvalidModuleError), match=r"net\.tflite"):
            load_source(file)
