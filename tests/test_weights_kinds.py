"""What a file is, from its content; and what people have in a file's place, said by its name."""

import pickle
import shutil
import zipfile

import numpy as np
import pytest
from tensorflow_files import frozen_graph, some_weights, write_hub1

from mobilenet_hub.architecture import mobilenet_v1
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.kinds import kind_of

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:6df6\nsize 87538539\n"


@pytest.mark.parametrize("name", ["net.pb", "net.model", "net", "NET.PB"])
def test_a_graph_by_any_name(tmp_path, name):
    (tmp_path / name).write_bytes(frozen_graph(some_weights(mobilenet_v1(0.25, 3)), (96, 96)))
    assert load_source(tmp_path / name).config.num_classes == 3


@pytest.mark.parametrize("name", ["model.H5", "model.keras", "model", "model.model"])
def test_hdf5_by_any_name(tmp_path, name):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / name, "w") as file:
        file["x"] = np.zeros(3)
    assert kind_of(tmp_path / name) == "keras"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (LFS, r"Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html><html>", "a web page, saved in the place of the file"),
        (b'model_checkpoint_path: "model.ckpt-3"\n', "which checkpoint beside it is the newest"),
    ],
)
@pytest.mark.parametrize("name", ["retrained_graph.pb", "keras_model.h5", "model.tflite", "checkpoint", "x.zip"])
def test_what_stands_in_a_files_place_is_said(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidModuleError, match=words) as caught:
        load_source(tmp_path / name)
    assert name in str(caught.value)


@pytest.mark.parametrize(
    "part", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"]
)
def test_a_pointer_in_the_place_of_a_part_is_said(tmp_path, part):
    """Repositories cloned without Git LFS have some files and pointers for others."""
    write_hub1(tmp_path, some_weights(mobilenet_v1(0.25, 3)), (96, 96))
    (tmp_path / part).write_bytes(LFS)
    with pytest.raises(InvalidModuleError, match=rf"{part}.* is a Git LFS pointer"):
        load_source(tmp_path)


def test_a_file_for_the_edge_tpu_is_refused_by_that_name(tmp_path):
    """As the Edge TPU's compiler writes it: one operator of its own, from images to scores."""
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    model, graph, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = b"edgetpu-custom-op"
    graph.tensors = [schema.TensorT(), schema.TensorT()]
    for tensor, shape in zip(graph.tensors, ([1, 224, 224, 3], [1, 5]), strict=True):
        tensor.shape, tensor.type, tensor.name = shape, schema.TensorType.UINT8, b"x"
    operator = schema.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    for name in ("model_edgetpu.tflite", "model"):
        (tmp_path / name).write_bytes(builder.Output())
        with pytest.raises(InvalidModuleError, match=r"compiled for the Edge TPU .* lacks _edgetpu"):
            load_source(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "member", "content"), [("model.pt", "data.pkl", b""), ("model.pt2", "archive_format", b"pt2")]
)
def test_a_pytorch_file_is_refused_by_its_name(tmp_path, name, member, content):
    """Also what torch.export writes: a zip without a pickle."""
    with zipfile.ZipFile(tmp_path / name, "w") as archive:
        archive.writestr(f"model/{member}", content)
    with pytest.raises(InvalidModuleError, match="a PyTorch file"):
        load_source(tmp_path / name)


@pytest.mark.parametrize("name", ["old.bin", "model.ckpt", "weights"])
def test_a_bare_pickle_is_refused_by_its_content(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"weights": [0.0] * 9}))
    with pytest.raises(InvalidModuleError, match=r"a pickle, .* never opened"):
        load_source(tmp_path / name)


@pytest.mark.parametrize(("name", "words"), [("m.mlmodel", "Core ML"), ("m.pth", "PyTorch"), ("m.h", "header")])
def test_a_file_of_others_is_refused_by_its_kind(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"\x08\x01\x12\x34")
    with pytest.raises(InvalidModuleError, match=f"{words}.*convert what it was made from"):
        load_source(tmp_path / name)


def test_what_lies_beside_a_model_does_not_matter(tmp_path):
    (tmp_path / "index.html").write_text("<!DOCTYPE html><html>")
    (tmp_path / "m.pth").write_bytes(b"\x80\x02")
    with pytest.raises(InvalidModuleError, match="web page"):
        load_source(tmp_path)
    (tmp_path / "net.pb").write_bytes(frozen_graph(some_weights(mobilenet_v1(0.25, 3)), (96, 96)))
    (tmp_path / "net_edgetpu.pb").write_bytes(b"compiled")
    assert load_source(tmp_path).config.num_classes == 3


def test_an_archive_by_any_name(tmp_path):
    (tmp_path / "net.pb").write_bytes(frozen_graph(some_weights(mobilenet_v1(0.25, 3)), (96, 96)))
    (tmp_path / "labels.txt").write_text("0 a\n1 b\n2 c\n")
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        archive.write(tmp_path / "net.pb", "net.pb")
        archive.write(tmp_path / "labels.txt", "labels.txt")
        archive.writestr("__MACOSX/._net.pb", b"x")
    shutil.copy(tmp_path / "net.zip", tmp_path / "download")
    for name in ("net.zip", "download"):
        module = load_source(tmp_path / name)
        assert module.config.labels == ("a", "b", "c")
        assert module.config.source["archive"] == name
