"""The 1000-class view of a 1001-class module."""

import numpy as np
import pytest
from tensorflow_files import some_weights

from mobilenet_hub.architecture import Variant, mobilenet_v1
from mobilenet_hub.catalog.labels import imagenet_labels, imagenet_labels_1000
from mobilenet_hub.errors import InputError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module import Module, ModuleConfig, checked_image_size, drop_background
from mobilenet_hub.module_folder import read_module, write_module


def test_all_logits_but_the_background_stay(tmp_path):
    config = ModuleConfig("mobilenet_v1", 0.25, (64, 64), 1001, imagenet_labels())
    module = Module(config, some_weights(mobilenet_v1(0.25, 1001)))
    smaller = read_module(write_module(tmp_path / "m", drop_background(module)))
    assert (smaller.config.num_classes, smaller.config.labels) == (1000, imagenet_labels_1000())
    images = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    all_logits, rest = (Engine(one, ["logits"], precision="f32").run(images)["logits"] for one in (module, smaller))
    np.testing.assert_allclose(rest, all_logits[:, 1:], rtol=1e-5, atol=1e-6)


def test_another_number_of_classes_is_refused():
    with pytest.raises(InputError, match="3 classes, not the 1001"):
        drop_background(Module(ModuleConfig("mobilenet_v1", 0.25, (64, 64), 3), some_weights(mobilenet_v1(0.25, 3))))


def test_without_classifier_gives_features_only():
    config = ModuleConfig("mobilenet_v1", 0.25, (64, 64), 2, ("a", "b"), variant=Variant(1e-5, hidden_units=(5, 4)))
    features = Module(config, some_weights(config.network)).without_classifier()
    assert (features.config.num_classes, features.config.labels) == (0, None)
    assert features.config.variant == Variant(1e-5)
    assert features.weights.keys() == features.config.network.variables.keys()


@pytest.mark.parametrize("kind", ["classification", "feature_vector"])
def test_the_size_is_fixed_alike_for_whoever_asks(kind):
    """Of published modules; one whose classes were changed is one's own, wherever its network comes from."""
    from mobilenet_hub.hub.contract import find_contract

    handle = f"google/imagenet/mobilenet_v2_035_96/{kind}/5"
    classes = 1001 if kind == "classification" else 0
    for num_classes in (0, 3, 1001):
        config = ModuleConfig("mobilenet_v2", 0.35, (96, 96), num_classes, handle=handle)
        is_fixed = num_classes == classes
        assert (find_contract("some/folder", config).size is not None) == is_fixed
        if is_fixed:
            with pytest.raises(InputError, match="96x96"):
                checked_image_size(config, 128)
        else:
            assert checked_image_size(config, 128) == (128, 128)
