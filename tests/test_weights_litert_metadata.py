"""What LiteRT's metadata say of a file's images is what the module makes of them."""

import numpy as np
import pytest
from litert_metadata import metadata, with_metadata
from test_weights_litert import SIZE, files, interpreted  # noqa: F401 (a fixture)

from mobilenet_hub.errors import CorruptFileError, InvalidModuleError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.weights.convert import convert, load_source
from mobilenet_hub.weights.identify import ASSUMED
from mobilenet_hub.weights.reading import Unusable

LABELS = tuple("abcde")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name, mean, std", [("v1", [0.0], [255.0]), ("v1", [128.0] * 3, [64.0] * 3)])
def test_images_are_normalized_as_the_metadata_say(files, tmp_path, name, mean, std):  # noqa: F811
    file = tmp_path / "net.tflite"
    file.write_bytes(with_metadata(files[name, "float32"].read_bytes(), mean, std, LABELS))
    module = read_module(convert(file, tmp_path / "module"))
    assert module.config.labels == LABELS
    assert ASSUMED not in module.config.extra
    images = np.random.default_rng(0).random((1, SIZE, SIZE, 3), np.float32)
    wanted = interpreted(file, (images * 255 - np.float32(mean[0])) / np.float32(std[0]))
    found = Engine(module, ["logits"], precision="f32").run(images)["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * max(1, np.abs(wanted).max()))


@pytest.mark.filterwarnings("ignore")
def test_a_graph_that_scales_by_itself_does_so_after_the_metadata(files, tmp_path):  # noqa: F811
    file = tmp_path / "net.tflite"
    file.write_bytes(with_metadata(files["v2", "float32"].read_bytes(), [0.0], [255.0]))
    assert load_source(file).config.variant.input_scale == 2  # x / 255, and the graph's own 2 x - 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "mean, std, times, error, words",
    [
        ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4], 1, InvalidModuleError, "scale the colours differently"),
        ([0.0], [0.0], 1, CorruptFileError, "its metadata normalize by"),
        ([0.0, 0.0], [1.0], 1, CorruptFileError, "its metadata normalize by"),
        ([float("nan")], [1.0], 1, CorruptFileError, "its metadata normalize by"),
        ([0.0], [255.0], 2, InvalidModuleError, "normalize the images 2 times"),
    ],
)
def test_metadata_that_a_module_cannot_honour_are_refused(files, tmp_path, mean, std, times, error, words):  # noqa: F811
    file = tmp_path / "net.tflite"
    file.write_bytes(with_metadata(files["v1", "float32"].read_bytes(), mean, std, times=times))
    with pytest.raises(error, match=words):
        load_source(file)


def test_cut_metadata_raise_nothing_but_value_errors():
    from mobilenet_hub.weights.litert_metadata import scaling_of_metadata

    whole = metadata([0.0], [255.0])
    for size in range(len(whole)):
        try:
            scaling_of_metadata(_model_of(whole[:size]))
        except (ValueError, Unusable):
            continue


def _model_of(content):
    """A model of nothing but metadata."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, buffer, entry = schema.ModelT(), schema.BufferT(), schema.MetadataT()
    buffer.data, entry.name, entry.buffer = list(content), "TFLITE_METADATA", 0
    model.buffers, model.metadata = [buffer], [entry]
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
