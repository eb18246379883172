"""Exports for TF Hub users: the unmodified tensorflow_hub loads, serves and fine-tunes them; our reader knows them.

The stock library runs in a process of its own (stock_tensorflow_hub.py): it wants TensorFlow with the old Keras.
"""

import hashlib
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from exported import MAX_DIFFERENCE, V1_CLASSES
from reference_network import convolve, same_padding

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.exporting.export import export
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.weights.convert import load_source

V2_FEATURES = "google/imagenet/mobilenet_v2_130_224/feature_vector/4"
V2_CLASSES = "google/tf2-preview/mobilenet_v2/classification/4"
V1_FEATURES = "google/imagenet/mobilenet_v1_025_128/feature_vector/4"
HANDLES = (V1_CLASSES, V1_FEATURES, V2_CLASSES, V2_FEATURES)

pytestmark = pytest.mark.slow


def close(value, expected):
    assert value.shape == expected.shape
    return np.abs(value - expected).max() <= MAX_DIFFERENCE * max(1, np.abs(expected).max())


@pytest.fixture(scope="module")
def cache(golden, tmp_path_factory):
    """A folder as TF Hub's own cache, with an export of each module; and the modules and proofs by handle."""
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("tfhub")
    made = {}
    for handle in HANDLES:
        found = find_module(handle)
        config = ModuleConfig(
            found.architecture, found.depth_multiplier, found.image_size, found.num_classes, handle=found.handle
        )
        module = Module(
            config, {name: golden.golden_array(name, v.shape) for name, v in config.network.variables.items()}
        )
        name = hashlib.sha1(f"https://tfhub.dev/{handle}".encode()).hexdigest()
        made[handle] = module, export(module, "tf-hub", folder / name)
    return folder, made


@pytest.fixture(scope="module")
def stock(cache, golden, shared, tmp_path_factory):
    """What the unmodified tensorflow_hub finds: arrays, and facts."""
    for package in ("tensorflow_hub", "tf_keras"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    inputs, results = tmp_path_factory.mktemp("inputs"), tmp_path_factory.mktemp("results")
    for name, size in (("128", (128, 128)), ("odd", (97, 130)), ("224", (224, 224))):
        np.save(inputs / f"{name}.npy", golden.golden_images(2, *size))
    blocks = []
    for file in sorted(shared("seeds").glob("*")):
        codes = re.findall(r"^```python\n(.*?)^```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        found = [code for code in codes if "KerasLayer" in code or "hub.load" in code]
        blocks += [code for code in found if code not in blocks]  # two documents share theirs
    (inputs / "blocks.json").write_text(json.dumps(blocks))
    script = Path(__file__).with_name("stock_tensorflow_hub.py")
    subprocess.run([sys.executable, script, cache[0], inputs, results], check=True, timeout=900)
    with np.load(results / "arrays.npz") as arrays:
        return dict(arrays), json.loads((results / "facts.json").read_text()), blocks


@pytest.mark.parametrize("handle", HANDLES)
def test_our_reader_reads_it_back_bit_for_bit(handle, cache):
    _, made = cache
    module, proof = made[handle]
    assert proof.difference <= proof.tolerance
    assert len(proof.sizes) == (2 if handle in (V1_CLASSES, V1_FEATURES) else 1)
    found = load_source(Path(proof.path))
    assert found.config.network == module.config.network
    assert found.config.image_size == module.config.image_size
    assert {name: array.tobytes() for name, array in found.weights.items()} == {
        name: array.tobytes() for name, array in module.weights.items()
    }


def test_the_stock_library_gives_what_tf_slim_gives(stock, published):
    arrays, facts, _ = stock
    expected = published["mobilenet_v1_025_128/logits"]
    for name in ("V1", "V1 serving", "V1 default"):
        assert close(arrays[name], expected), name
    assert arrays["V1 odd"].shape == (2, 1001)
    assert close(arrays["V1 pool"][:, 0, 0], published["mobilenet_v1_025_128/features"])
    assert close(arrays["V2"], published["mobilenet_v2_130_224/features"])
    assert facts["signature"] == {"feature_vector": "(None, 1664)"}
    assert {"default", "MobilenetV1/Conv2d_13_pointwise", "MobilenetV1/Predictions"} < set(facts["endpoints"])
    assert len(facts["endpoints"]) == 1 + 27 + 3


def test_the_blocks_of_the_module_pages_run(stock, published):
    arrays, _, blocks = stock
    assert len(blocks) == 3
    for at, code in enumerate(blocks):
        config = "mobilenet_v2_130_224/features" if "130_224" in code else "mobilenet_v2_100_224/logits"
        assert close(arrays[f"block {at}"], published[config]), code


@pytest.mark.parametrize(("key", "scope", "units"), [("trained", "MobilenetV1", 27), ("trained V2", "MobilenetV2", 52)])
def test_fine_tuning_changes_weights_and_every_moving_average(key, scope, units, stock, cache):
    handle = V1_CLASSES if units == 27 else V2_FEATURES
    module, _ = cache[1][handle]
    facts = stock[1][key]
    variables = module.config.network.variables
    assert facts["names"] and {name.removesuffix(":0") for name in facts["names"]} == set(variables)
    assert {name.removesuffix(":0") for name in facts["trainable"]} == {n for n, v in variables.items() if v.trainable}
    averages = [name for name in facts["changed"] if "/moving_" in name]
    assert len(averages) == 2 * units
    assert f"{scope}/{'Conv2d_0' if units == 27 else 'Conv'}/weights:0" in facts["changed"]
    regularized = [module.weights[name] for name, variable in variables.items() if variable.regularized]
    assert facts["losses"] == len(regularized)


def test_a_frozen_layer_changes_nothing(stock):
    facts = stock[1]["frozen"]
    assert facts["changed"] == []
    assert facts["trainable"] == []
    assert facts["regularization"] == 0


def test_moving_averages_take_over_the_batch_statistics_with_bessels_correction(stock, golden):
    found = {name.removeprefix("moved "): value for name, value in stock[0].items() if name.startswith("moved ")}
    images = golden.golden_images(2, 128, 128).astype(np.float64) * 2 - 1
    maps = convolve(images, found["kernel"].astype(np.float64), 2, False, same_padding).reshape(-1, 8)
    for name, statistic in (("mean", maps.mean(0)), ("variance", maps.var(0, ddof=1))):
        expected = found[f"{name} before"] * 0.5 + statistic * 0.5  # momentum 0.5
        assert np.abs(found[name] - expected).max() < 1e-5, name
    assert np.abs(found["gradient"]).max() > 0
    assert np.allclose(found["gradient twice"], 2 * found["gradient"], rtol=1e-4)


def test_regularization_is_tf_slims(stock, cache):
    module, _ = cache[1][V1_CLASSES]
    regularized = [v.name for v in module.config.network.variables.values() if v.regularized]
    total = sum(float((module.weights[name].astype(np.float64) ** 2).sum()) for name in regularized)
    # The layer's losses were read after one step of SGD at 0.01, which changes them by a few in a thousand.
    assert stock[1]["trained"]["regularization"] == pytest.approx(2e-5 * total, rel=0.05)
