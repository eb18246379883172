"""Every published handle, from a server that holds each module in the format that it was published in."""

import itertools
import shutil

import numpy as np
import pytest
from modules import network_of, packed, write_published
from servers import Answer, serving
from tensorflow_files import some_weights

from mobilenet_hub.catalog.published import published_modules
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.store import resolve
from mobilenet_hub.store.cache import cache_folder

NETWORKS = [
    (key, list(modules))
    for key, modules in itertools.groupby(
        sorted(published_modules(), key=lambda m: (m.architecture, m.depth_multiplier)),
        lambda m: (m.architecture, m.depth_multiplier),
    )
]


def test_the_networks_are_all_of_the_catalogue(shared):
    lines = shared("reference/tfhub_handles.txt").read_text().split()
    handles = {module.handle for _, modules in NETWORKS for module in modules}
    assert handles == {line for line in lines if "/quantops/" not in line}


@pytest.mark.slow
@pytest.mark.parametrize(("network", "modules"), NETWORKS, ids=lambda value: "_".join(map(str, value))[:20])
def test_every_handle_resolves(network, modules, tmp_path, monkeypatch, request):
    """Each module arrives bit-identical, with the catalogue's network, size and labels."""
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "0")
    monkeypatch.delenv("MOBILENET_HUB_MIRROR", raising=False)
    expected = {kind: weights_of(kind, modules, request) for kind in ("classification", "feature_vector")}
    with serving() as server:
        monkeypatch.setenv("MOBILENET_HUB_SOURCES", f"tfhub={server.url}")
        for module in modules:
            folder = write_published(tmp_path / "published", module, expected[module.kind])
            server.answers = {f"/{module.handle}": [Answer(packed(folder, level=0))]}
            check(resolve(module.url), module, expected[module.kind])
            shutil.rmtree(folder)
            shutil.rmtree(cache_folder())


def weights_of(kind, modules, request):
    """Return the golden weights where they are, else others."""
    network = network_of(next(module for module in modules if module.kind == kind))
    try:
        golden = request.getfixturevalue("golden")
    except pytest.skip.Exception:
        return some_weights(network)
    return {name: golden.golden_array(name, variable.shape) for name, variable in network.variables.items()}


def check(folder, module, weights):
    found = read_module(folder)
    assert found.config.network == network_of(module)
    assert found.config.image_size == module.image_size
    assert found.config.handle == module.handle
    assert bool(found.config.labels) == (module.kind == "classification")
    assert found.weights.keys() == weights.keys()
    for name, array in weights.items():
        assert np.array_equal(found.weights[name], array), name
