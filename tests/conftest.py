"""Where the tests find the reference data that lies beside the project, and the golden weights made from it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

# The reference data is not part of the project: a checkout without it still runs every test that needs none of it.
SHARED = Path(os.environ.get("MOBILENET_HUB_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def need(relative: str) -> Path:
    """Return a path of the reference data, or skip the test that asked for it."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"needs the reference data {relative}, which is not beside this checkout")
    return path


def copy_of_checkout(place: Path) -> Path:
    """Copy this checkout without what was made in it: what is built there leaves nothing here."""
    made = shutil.ignore_patterns(".git", "build", "dist", ".venv", "__pycache__", ".*_cache", "*.egg-info")
    return shutil.copytree(Path(__file__).resolve().parents[1], place, ignore=made)


def pytest_collection_modifyitems(items):
    """Skip what needs Keras, and say so, where Keras or all of its backends are absent."""
    from importlib.util import find_spec

    from mobilenet_hub.keras.backends import installed_backends

    if find_spec("keras") is not None and installed_backends():
        return
    skip = pytest.mark.skip(reason="needs Keras with a backend, e.g. the extra mobilenet-hub[torch]")
    for item in items:
        if item.get_closest_marker("keras_backend"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def shared():
    """A function from a relative path to the reference file or folder; skips where it is absent."""
    return need


@pytest.fixture(scope="session")
def golden():
    """The module of golden weights and images (golden.py of the reference data)."""
    spec = importlib.util.spec_from_file_location("golden", need("golden/golden.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def published():
    """The outputs that TF-Slim computes with the golden weights: key -> array."""
    with np.load(need("golden/published.npz")) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def old_hub_models(tmp_path_factory):
    """A folder of models that the unmodified tensorflow_hub and tf_keras saved (stock_old_models.py)."""
    for package in ("tensorflow", "tensorflow_hub", "tf_keras"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    made = tmp_path_factory.mktemp("old")
    script = Path(__file__).with_name("stock_old_models.py")
    subprocess.run([sys.executable, script, made], check=True, timeout=600, capture_output=True)
    return made


@pytest.fixture(params=["with botocore", "without"])
def either(request, monkeypatch):
    """Run a test of object stores with the client that `host/s3.py` prefers, and with pyarrow alone."""
    if request.param == "without":
        monkeypatch.setitem(sys.modules, "botocore", None)


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory, monkeypatch):
    """Keep every test away from the caches of the person who runs it, and offline."""
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "1")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path_factory.mktemp("kagglehub")))
    for name in ("TFHUB_CACHE_DIR", "MOBILENET_HUB_MIRROR", "MOBILENET_HUB_SOURCES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def golden_module(golden, monkeypatch, tmp_path_factory):
    """A function that puts a published module with golden weights into the test's cache, and returns its name."""
    from mobilenet_hub.catalog.find import find_module
    from mobilenet_hub.module import Module, ModuleConfig
    from mobilenet_hub.module_folder import write_module

    cache = tmp_path_factory.mktemp("golden-cache")
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(cache))

    def fill(name: str) -> str:
        found = find_module(name)
        config = ModuleConfig(
            found.architecture, found.depth_multiplier, found.image_size, found.num_classes, handle=found.handle
        )
        weights = {name: golden.golden_array(name, v.shape) for name, v in config.network.variables.items()}
        if not (cache / found.handle).exists():
            write_module(cache / found.handle, Module(config, weights))
        return name

    return fill


def pytest_terminal_summary(terminalreporter):
    """Say what decided the precisions that were tested."""
    from mobilenet_hub.host.cpu import cpu_features, cpu_name

    telling = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "bf16")
    instructions = " ".join(name for name in telling if name in cpu_features()) or "no special instructions"
    terminalreporter.write_line(f"CPU: {cpu_name()} with {instructions}")
