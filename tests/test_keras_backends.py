"""Which backend is taken: the one asked for, else one that is installed, on the first start and on every later one."""

import os
import subprocess
import sys

import pytest

from mobilenet_hub.keras.backends import BACKENDS, installed_backends

HIDE = "import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"  # as if they were not installed


def run(code, home, hidden=(), **environment):
    environment = {**os.environ, "KERAS_HOME": str(home), **environment}
    code = HIDE.format(hidden=tuple(hidden)) + code
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.keras_backend
@pytest.mark.skipif("torch" not in installed_backends(), reason="needs PyTorch")
def test_only_one_backend_is_installed(tmp_path):
    """Keras writes "tensorflow" into its configuration on the first start, whatever it runs on."""
    code = "import mobilenet_hub as hub; hub.KerasLayer; import keras; print(keras.backend.backend())"
    for _ in range(2):
        done = run(code, tmp_path, ("tensorflow", "jax"), KERAS_BACKEND="")
        assert (done.stdout.strip(), done.stderr) == ("torch", "")
    assert "tensorflow" in (tmp_path / "keras.json").read_text()


@pytest.mark.keras_backend
def test_none_is_installed_or_not_the_one_that_is_asked_for(tmp_path):
    code = "import mobilenet_hub as hub; hub.KerasLayer"
    done = run(code, tmp_path, BACKENDS, KERAS_BACKEND="")
    assert "pip install 'mobilenet-hub[tensorflow]'" in done.stderr
    done = run(code, tmp_path, ("jax",), KERAS_BACKEND="jax")
    assert "pip install 'mobilenet-hub[jax]'" in done.stderr
    done = run(code, tmp_path, KERAS_BACKEND="theano")
    assert "KERAS_BACKEND is 'theano'; use one of" in done.stderr
