"""Saved models load after `import mobilenet_hub`, whatever else was imported, and in which order."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mobilenet_hub
from mobilenet_hub.keras.backends import installed_backends

pytest.importorskip("keras", reason="saved Keras models need Keras")
BACKENDS = installed_backends()
NAMES = ("keras", "mobilenet_hub", *BACKENDS)
ORDERS = list(itertools.permutations(name for name in NAMES if name not in ("torch", "jax")))

LOAD = """
import sys
from pathlib import Path
for name in sys.argv[2:]:
    __import__(name)
import keras
keras.saving.load_model(sys.argv[1])
if "tensorflow" in sys.modules:
    import tensorflow as tf
    tf.keras.models.load_model(sys.argv[1])
print("loaded")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A .keras file of a network of ours, made in a process of its own."""
    file = tmp_path_factory.mktemp("model") / "model.keras"
    code = (
        "import sys, keras\nfrom mobilenet_hub.architecture import mobilenet_v1\n"
        "from mobilenet_hub.keras.mobilenet import MobileNet\n"
        "model = MobileNet(mobilenet_v1(0.25, 2))\nmodel(keras.ops.zeros((1, 32, 32, 3)))\nmodel.save(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True, timeout=300)
    return file


def load(saved, names, backend):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(saved), *names],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.stdout.endswith("loaded\n"), f"{names}: {done.stderr[-2000:]}"


def test_a_look_up_is_not_an_import(saved):
    code = "import mobilenet_hub, importlib.util as u\nu.find_spec('keras')\nu.find_spec('keras')\n" + LOAD
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.stdout == "loaded\n", done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_every_order_of_imports(saved, order):
    """The other backends stand in turn at the beginning, in the middle and at the end."""
    number = ORDERS.index(order)
    names = list(order)
    for position, other in enumerate(name for name in ("torch", "jax") if name in BACKENDS):
        names.insert((number + position) % (len(names) + 1), other)
    load(saved, names, BACKENDS[number % len(BACKENDS)])


@pytest.mark.slow
def test_every_file_that_needs_keras_may_be_the_first_to_ask_for_it():
    root = Path(mobilenet_hub.__file__).parent
    files = [file for room in ("keras", "hub") for file in (root / room).glob("*.py")]
    names = [f"mobilenet_hub.{file.parent.name}.{file.stem}" for file in files if "\nimport keras" in file.read_text()]
    assert len(names) >= 7
    backend = BACKENDS[-1]
    before = "" if backend == "tensorflow" else f", {backend}"  # which asks for Keras by itself
    code = (
        f"import importlib, os, sys\nimport mobilenet_hub{before}\nassert 'keras' not in sys.modules\n"
        "for name in sys.argv[1:]:\n"
        "    if not (child := os.fork()):\n"  # Keras alone is imported anew for each
        "        importlib.import_module(name), sys.stdout.flush(), os._exit(0)\n"
        "    assert os.waitpid(child, 0)[1] == 0, name\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
