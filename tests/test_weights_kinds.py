"""What a file is, from its content; and what people have in a file's place, said by its name."""

import shutil
import zipfile

import numpy as np
import pytest
from tensorflow_files import frozen_graph, some_weights

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


def test_a_pytorch_file_is_refused_by_its_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"")
    with pytest.raises(InvalidModuleError, match="PyTorch file"):
        load_source(tmp_path / "model.pt")


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
