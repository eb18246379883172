"""The examples of the docstrings do what they say."""

import doctest
import pkgutil
from importlib import import_module

import pytest

import mobilenet_hub

NEED_KERAS = ("keras.layers", "keras.mobilenet", "keras.kernels", "hub", "training.gradient")
NEED_SERVE = ("serve.app", "serve.connection")
FILES = [file.name for file in pkgutil.walk_packages(mobilenet_hub.__path__, "mobilenet_hub.")]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.keras_backend)
        if name.removeprefix("mobilenet_hub.").startswith(NEED_KERAS)
        else name
        for name in FILES
    ],
)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name.removeprefix("mobilenet_hub.").startswith(NEED_SERVE):
        pytest.importorskip("uvicorn", reason="needs the extra mobilenet-hub[serve]")
    assert doctest.testmod(import_module(name), report=True).failed == 0
