"""Models with tensorflow_hub's own layer, in every format that tf_keras writes, become one module with their head.

The files are made by the unmodified tensorflow_hub and tf_keras (stock_old_models.py), the layer's variables in each
order that published modules had; the answers beside them are the original's.
"""

import shutil

import numpy as np
import pytest
from reference_network import forward

from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.weights.convert import load_source

pytestmark = pytest.mark.slow
SIZES = {"frozen": 128, "frozen by name": 128, "tuned": 96, "classes": 128, "own folder": 128, "nested": 96}
CLASSES = {"tuned": 3, "classes": 1001, "nested": 2}
ALONE = (".weights.h5", "_weights.h5")  # their to_json() lies beside them
TOLERANCE = 1e-4  # of the largest answer: two float32 sums in another order


def check(path, name, folder):
    module = load_source(path, image_size=SIZES[name])
    with np.load(folder / "answers.npz") as answers:
        wanted = answers[name]
    config, images = module.config, np.load(folder / "images.npy")[:, : SIZES[name], : SIZES[name]]
    assert config.num_classes == CLASSES.get(name, 3)
    assert (config.variant.input_scale, config.variant.input_offset) == (2, -1)
    found = forward(config.network, module.weights, images)["Predictions" if name == "frozen" else "logits"]
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.mark.parametrize("ending", [".h5", ".keras", *ALONE])
@pytest.mark.parametrize("name", SIZES)
def test_files(old_hub_models, name, ending):
    check(old_hub_models / f"{name}{ending}", name, old_hub_models)


@pytest.mark.parametrize("ending", [".saved", ".exported"])
@pytest.mark.parametrize("name", ["frozen", "tuned"])
def test_saved_models(old_hub_models, name, ending):
    check(old_hub_models / f"{name}{ending}", name, old_hub_models)


def test_the_json_of_a_model_finds_the_weights_beside_it(old_hub_models, tmp_path):
    for name in ("tuned.json", "tuned.weights.h5"):
        shutil.copy(old_hub_models / name, tmp_path / name.replace("tuned", "model"))
    for path in (tmp_path, tmp_path / "model.json", tmp_path / "model.weights.h5"):
        check(path, "tuned", old_hub_models)


@pytest.mark.parametrize("ending", [".h5", ".keras"])
def test_several_networks_in_one_model_are_refused(old_hub_models, ending):
    with pytest.raises(InvalidModuleError, match=r"several published networks|a branch that no MobileNet has"):
        load_source(old_hub_models / f"several{ending}", image_size=96)
