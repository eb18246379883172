"""TF1 hub modules and TF2 SavedModels: read whole, and refused where files are damaged or of two modules."""

import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_files import signature, some_weights, write_hub1, write_saved_model

from mobilenet_hub.architecture import mobilenet_v1, mobilenet_v2
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError, MobileNetHubError
from mobilenet_hub.weights.convert import load_source
from mobilenet_hub.weights.tensorflow.saved_model import read_saved_model

V1, V2 = mobilenet_v1(0.25, 3), mobilenet_v2(0.35, 0)


def tf2(folder, network, seed=0, signatures=b""):
    weights = some_weights(network, seed)
    order = [(name, weights[name], network.variables[name].trainable) for name in sorted(weights)]
    return write_saved_model(folder, order, signatures)


@pytest.mark.parametrize("network", [V1, V2], ids=["v1", "v2"])
def test_both_formats_give_the_weights(tmp_path, network):
    hub1 = read_saved_model(write_hub1(tmp_path / "one", some_weights(network), (96, 64)))
    hub2 = read_saved_model(tf2(tmp_path / "two", network, signatures=signature((-1, 96, 64, 3))))
    assert hub1.image_size == hub2.image_size == (96, 64)
    assert (hub1.kind, hub2.kind) == ("TF1 hub module", "TF2 SavedModel")
    for name, array in some_weights(network).items():
        np.testing.assert_array_equal(hub1.weights[name], array)
        np.testing.assert_array_equal(hub2.weights[name], array)


def test_a_free_size_is_not_known(tmp_path):
    assert read_saved_model(tf2(tmp_path, V1, signatures=signature((-1, -1, -1, 3)))).image_size is None


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index"])
def test_files_of_another_module_are_refused(tmp_path, name):
    for make in (tf2, lambda folder, network: write_hub1(folder, some_weights(network))):
        for other in (mobilenet_v1(0.5, 3), mobilenet_v1(0.25, 4), V2):
            ours, theirs = make(tmp_path / "ours", V1), make(tmp_path / "theirs", other)
            shutil.copy(theirs / name, ours / name)
            with pytest.raises(CorruptFileError, match="ours"):
                read_saved_model(ours)
            shutil.rmtree(ours), shutil.rmtree(theirs)


def test_a_saved_model_of_the_other_format_is_refused(tmp_path):
    ours, theirs = tf2(tmp_path / "ours", V1), write_hub1(tmp_path / "theirs", some_weights(V1))
    shutil.copy(theirs / "saved_model.pb", ours)
    with pytest.raises(CorruptFileError, match=r"saved_model\.pb has no objects"):
        read_saved_model(ours)


@pytest.mark.parametrize("what", ["variables", "saved_model.pb"])
def test_files_of_a_newer_format_in_an_older_one_are_refused(tmp_path, what):
    newer, older = tf2(tmp_path / "newer", V1), write_hub1(tmp_path / "older", some_weights(V1))
    ours = newer if what == "variables" else older
    if what == "variables":
        shutil.rmtree(newer / what)
        shutil.copytree(older / what, newer / what)
    else:
        shutil.copy(newer / what, older / what)
    with pytest.raises(CorruptFileError, match=r"saved_model\.pb has objects that the weights beside it"):
        read_saved_model(ours)


def test_a_missing_graph_is_named(tmp_path):
    for folder in (tf2(tmp_path / "newer", V1), write_hub1(tmp_path / "older", some_weights(V1))):
        (folder / "saved_model.pb").unlink()
        with pytest.raises(InvalidModuleError, match=r"saved_model\.pb is missing"):
            load_source(folder)


@pytest.mark.parametrize("name", ["saved_model.pb", "variables/variables.index", "tfhub_module.pb"])
def test_every_truncation_is_refused(tmp_path, name):
    write_hub1(tmp_path, some_weights(V1))
    file = tmp_path / name
    data = file.read_bytes()
    halves = {len(data) // 2 + 1} if name == "saved_model.pb" else set()  # where the first graph ends: see below
    for size in {0, 1, len(data) // 3, len(data) // 2 - 1, len(data) - 1} - halves - {len(data)}:
        file.write_bytes(data[:size])
        with pytest.raises(CorruptFileError, match=file.name):
            load_source(tmp_path)
    file.unlink()
    if name == "tfhub_module.pb":  # what is left is a SavedModel with the same weights
        return
    with pytest.raises(MobileNetHubError, match=str(tmp_path)):
        load_source(tmp_path)


@settings(max_examples=25, deadline=None)
@given(at=st.integers(0, 10**9), flip=st.integers(1, 255))
def test_a_flip_in_the_graph_never_changes_weights(tmp_path_factory, at, flip):
    folder = tf2(tmp_path_factory.mktemp("flip"), V1, signatures=signature((-1, 96, 96, 3)))
    data = bytearray((folder / "saved_model.pb").read_bytes())
    data[at % len(data)] ^= flip
    (folder / "saved_model.pb").write_bytes(data)
    try:
        module = load_source(folder, image_size=96)
    except MobileNetHubError as error:
        assert str(folder) in str(error)
    else:
        for name, array in some_weights(V1).items():
            np.testing.assert_array_equal(module.weights[name], array)


def test_text_form_is_refused(tmp_path):
    (tmp_path / "saved_model.pbtxt").write_text("saved_model_schema_version: 1\n")
    with pytest.raises(MobileNetHubError, match="nothing that can be converted"):
        load_source(tmp_path)
