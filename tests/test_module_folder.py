"""The module folder: comes back as it was written, whole or not at all, and nothing damaged is taken."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tensorflow_files import some_weights

from mobilenet_hub.architecture import Variant, mobilenet_v1
from mobilenet_hub.errors import InvalidModuleError, OutputError
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_config, read_module, write_module

CONFIG = ModuleConfig("mobilenet_v1", 0.25, (96, 128), 3, ("cat", "dog", "ant, or bee\u2028"))
MODULE = Module(CONFIG, some_weights(mobilenet_v1(0.25, 3)))


@pytest.fixture
def folder(tmp_path):
    return write_module(tmp_path / "module", MODULE)


def edit(folder, **changes):
    data = json.loads((folder / "module.json").read_text()) | changes
    (folder / "module.json").write_text(json.dumps({k: v for k, v in data.items() if v is not ...}))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": None},
        {"num_classes": 0, "labels": None},
        {"handle": "google/x", "source": {"a": [1]}, "license": "MIT", "trained_on": "cats", "metrics": {"top1": 0.5}},
        {"variant": Variant(1e-5, "symmetric", 255 / 127, -0.5), "batch_norm_folded": True},
        {"variant": Variant(hidden_units=(10,))},
        {"variant": Variant(hidden_units=(10, 4))},
        {"extra": {"unknown": [1, {"kept": True}]}},
    ],
)
def test_a_module_comes_back_as_it_was(tmp_path, changes):
    config = replace(CONFIG, **changes)
    network = replace(mobilenet_v1(0.25, config.num_classes), variant=config.variant)
    weights = some_weights(network)
    module = read_module(write_module(tmp_path / "m", Module(config, weights)))
    assert module.config == config
    assert module.weights.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(module.weights[name], array)


def test_the_json_says_what_the_contract_says(folder):
    data = json.loads((folder / "module.json").read_text())
    assert data == {
        "format": 1, "architecture": "mobilenet_v1", "depth_multiplier": 0.25, "image_size": [96, 128],
        "num_classes": 3, "labels": "labels.txt",
    }  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["labels.txt", "module.json", "weights.safetensors"]


def test_float16_is_widened_and_other_types_are_refused(folder):
    weights = load_file(folder / "weights.safetensors")
    save_file({name: array.astype(np.float16) for name, array in weights.items()}, folder / "weights.safetensors")
    read = read_module(folder).weights
    assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}
    save_file({name: array.astype(np.float64) for name, array in weights.items()}, folder / "weights.safetensors")
    with pytest.raises(InvalidModuleError, match="is float64; only float32 and float16 are allowed"):
        read_module(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "not a module description of format 1"),
        ({"architecture": ...}, "lacks architecture"),
        ({"architecture": "mobilenet_v3"}, "mobilenet_v3"),
        ({"architecture": ["a"]}, "architecture"),
        ({"depth_multiplier": 0}, "depth_multiplier must be a number above 0, not 0"),
        ({"depth_multiplier": True}, "depth_multiplier must be"),
        ({"depth_multiplier": float("nan")}, "depth_multiplier must be"),
        ({"depth_multiplier": 10**400}, "depth_multiplier|too large"),
        ({"depth_multiplier": 1e308}, "module.json"),
        ({"image_size": 128}, r"image_size must be \[height, width\]"),
        ({"image_size": [128, 0]}, "image_size must be"),
        ({"image_size": [128, 10**6]}, "image_size must be"),
        ({"num_classes": -1}, "num_classes"),
        ({"num_classes": 10**30, "labels": None}, "up to 1000000"),
        ({"num_classes": 4}, "3 lines for 4 classes"),
        ({"num_classes": "3"}, "3 lines for 3 classes|num_classes must be"),
        ({"labels": "../labels.txt"}, 'labels must be "labels.txt" or null'),
        ({"padding": "valid"}, "padding must be one of"),
        ({"handle": 7}, "handle must be a string"),
        ({"hidden_units": 1.5}, "hidden_units must be"),
        ({"hidden_units": [4, 0]}, "hidden_units must be"),
        ({"hidden_units": [4] * 17}, "hidden_units must be"),
        ({"input_scale": 0}, "input_scale must be"),
        ({"input_offset": float("inf")}, "input_offset must be"),
    ],
)
def test_wrong_values_are_named(folder, changes, words):
    edit(folder, **changes)
    with pytest.raises(InvalidModuleError, match=words) as caught:
        read_module(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["module.json", "weights.safetensors", "labels.txt"])
def test_a_missing_or_cut_off_file_is_named(folder, name):
    file = folder / name
    data = file.read_bytes()
    # Where only the last label is shorter, nothing can tell.
    for size in (0, 1, 6) if name == "labels.txt" else (0, 1, len(data) // 2, len(data) - 2):
        file.write_bytes(data[:size])
        with pytest.raises(InvalidModuleError, match=str(folder)):
            read_module(folder)
    file.unlink()
    with pytest.raises(InvalidModuleError, match=name):
        read_module(folder)


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=200))
def test_garbage_is_refused(tmp_path_factory, data):
    folder = write_module(tmp_path_factory.mktemp("garbage") / "m", MODULE)
    for name in ("weights.safetensors", "module.json"):
        (folder / name).write_bytes(data)
        with pytest.raises(InvalidModuleError, match=str(folder)):
            read_module(folder)


def test_a_description_that_nests_without_end_is_refused(folder):
    (folder / "module.json").write_text("[" * 100_000)
    with pytest.raises(InvalidModuleError, match="cannot be read as JSON"):
        read_config(folder)


def test_labels_with_line_breaks_are_refused(tmp_path):
    with pytest.raises(InvalidModuleError, match="has a line break"):
        write_module(tmp_path / "m", Module(replace(CONFIG, labels=("a", "b\nc", "d")), MODULE.weights))
    with pytest.raises(InvalidModuleError, match="2 labels do not fit 3 classes"):
        write_module(tmp_path / "m", Module(replace(CONFIG, labels=("a", "b")), MODULE.weights))


def test_weights_that_do_not_fit_are_not_written(tmp_path):
    with pytest.raises(InvalidModuleError, match="not part of the network: extra"):
        write_module(tmp_path / "m", Module(CONFIG, {**MODULE.weights, "extra": np.zeros(1)}))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(folder, tmp_path):
    with pytest.raises(OutputError, match="exists"):
        write_module(folder, MODULE)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        write_module(tmp_path / "file", MODULE, overwrite=True)
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds something else than a module"):
        write_module(tmp_path / "papers", MODULE, overwrite=True)
    assert (tmp_path / "papers" / "thesis.txt").read_text() == "years of work"


def test_a_module_folder_is_replaced_whole(folder):
    (folder / "report.html").write_text("<!-- generated by mobilenet-hub -->of the old one")
    write_module(folder, Module(replace(CONFIG, labels=None), MODULE.weights), overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == ["module.json", "weights.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_an_empty_folder_is_filled_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    write_module(tmp_path / "empty", MODULE)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OutputError, match="no space left"):
        write_module(tmp_path / "full", MODULE)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_others_may_read_a_module(folder):
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}
