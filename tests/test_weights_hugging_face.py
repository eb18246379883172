"""Hugging Face's MobileNets: the same outputs as transformers where it is installed, and the same names everywhere."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tensorflow_files import some_weights

from mobilenet_hub.architecture import architecture
from mobilenet_hub.errors import CorruptFileError, InvalidModuleError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.weights.convert import load_source

LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
CONFIG = {"image_size": 96, "depth_multiplier": 0.35, "tf_padding": True, "layer_norm_eps": 0.001}


def their_layers(name):
    """The layers' names as a person reads them in modeling_mobilenet_v{1,2}.py."""
    if name == "mobilenet_v1":
        return ["conv_stem", *(f"layer.{i}" for i in range(26))]
    stem = [f"conv_stem.{part}" for part in ("first_conv", "conv_3x3", "reduce_1x1")]
    blocks = [f"layer.{i}.{part}" for i in range(16) for part in ("expand_1x1", "conv_3x3", "reduce_1x1")]
    return [*stem, *blocks, "conv_1x1"]


def write(folder, name="mobilenet_v2", multiplier=0.35, classes=3, **config):
    network = architecture(name, multiplier, classes)
    weights, stored = some_weights(network), {}
    for unit, layer in zip(network.units, their_layers(name), strict=True):
        axes = (2, 3, 0, 1) if unit.depthwise else (3, 2, 0, 1)
        stored[f"{name}.{layer}.convolution.weight"] = np.ascontiguousarray(weights[unit.kernel.name].transpose(axes))
        for ours, theirs in LEAVES.items():
            stored[f"{name}.{layer}.normalization.{theirs}"] = weights[f"{unit.scope}/BatchNorm/{ours}"]
        stored[f"{name}.{layer}.normalization.num_batches_tracked"] = np.array(1, np.int64)
    if classes:
        kernel, bias = (weights[variable.name] for variable in network.classifier)
        stored["classifier.weight"], stored["classifier.bias"] = np.ascontiguousarray(kernel[0, 0].T), bias
    save_file(stored, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": name, **CONFIG, **config}))
    return weights


@pytest.mark.parametrize(("name", "multiplier"), [("mobilenet_v1", 0.25), ("mobilenet_v2", 0.35)])
@pytest.mark.parametrize("classes", [0, 3])
def test_every_tensor_finds_its_name(tmp_path, name, multiplier, classes):
    weights = write(tmp_path, name, multiplier, classes)
    for path in (tmp_path, tmp_path / "config.json", tmp_path / "model.safetensors"):
        module = load_source(path)
        assert (module.config.depth_multiplier, module.config.num_classes) == (multiplier, classes)
        assert (module.config.image_size, module.config.variant.padding) == ((96, 96), "same")
        for key, array in weights.items():
            np.testing.assert_array_equal(module.weights[key], array, err_msg=key)


def test_other_arithmetic_and_labels_are_recorded(tmp_path):
    write(tmp_path, tf_padding=False, layer_norm_eps=1e-5, id2label={"0": "a", "1": "b\nc", "2": "d"})
    config = load_source(tmp_path).config
    assert (config.variant.padding, config.variant.batch_norm_epsilon) == ("symmetric", 1e-5)
    assert config.labels == ("a", "b c", "d")
    write(tmp_path, id2label={"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"})
    assert load_source(tmp_path).config.labels is None


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "vit"}, "model_type is 'vit'"),
        ({"hidden_act": "relu"}, "hidden_act is 'relu', not 'relu6'"),
        ({"output_stride": 8}, "output_stride is 8"),
        ({"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_classification'"),
        ({"image_size": "large"}, r"config\.json.*image_size is 'large'"),
        ({"model_type": None, "architecture": "mobilenetv2_100"}, "a model of timm, 'mobilenetv2_100'"),
    ],
)
def test_another_network_is_refused(tmp_path, config, words):
    write(tmp_path, **config)
    with pytest.raises((InvalidModuleError, CorruptFileError), match=words):
        load_source(tmp_path)


def test_another_preparation_of_images_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    load_source(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.485, 0.456, 0.406]}))
    with pytest.raises(InvalidModuleError, match="image_mean is"):
        load_source(tmp_path)
    others = {"do_normalize": False, "do_rescale": False, "rescale_factor": 1.0, "rescale_offset": True}
    for key, value in {**others, "do_flip_channel_order": True}.items():
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({key: value}))
        with pytest.raises(InvalidModuleError, match=f"{key} is {value}"):
            load_source(tmp_path)


def test_pickles_are_never_opened(tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(InvalidModuleError, match="a pickle, which can run any program and is never opened"):
            load_source(path)


def test_one_unit_is_two_classes(tmp_path):
    """As transformers' pipeline reads it: the probability is the sigmoid of the one number."""
    weights = write(tmp_path, classes=1, id2label={"0": "a person"}, image_size=[96, 96])
    module = load_source(tmp_path)
    assert (module.config.num_classes, module.config.labels) == (2, None)
    scope = "MobilenetV2/Logits/Conv2d_1c_1x1"
    for leaf in ("weights", "biases"):
        array = weights[f"{scope}/{leaf}"]
        np.testing.assert_array_equal(module.weights[f"{scope}/{leaf}"], np.concatenate([0 * array, array], -1))


def test_bfloat16_is_widened_and_integers_are_refused(tmp_path):
    torch, save = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch").save_file
    weights = write(tmp_path)
    file = tmp_path / "model.safetensors"
    stored = {key: torch.from_numpy(array) for key, array in load_file(file).items()}
    save({key: one.bfloat16() if one.is_floating_point() else one for key, one in stored.items()}, file)
    for key, array in load_source(tmp_path).weights.items():
        wanted = torch.from_numpy(weights[key].copy()).bfloat16().float().numpy()
        np.testing.assert_array_equal(array, wanted, err_msg=key)
    save({**stored, "classifier.weight": stored["classifier.weight"].to(torch.int8)}, file)
    with pytest.raises(InvalidModuleError, match=r"classifier\.weight is stored as I8"):
        load_source(tmp_path)


def test_a_part_alone_says_what_is_missing(tmp_path):
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    (tmp_path / "config.json").rename(tmp_path.with_name("config.json"))
    renamed = tmp_path / "mobilenet_v2.safetensors"
    for path, name in ((tmp_path, file), (file, file), (renamed, renamed)):
        file.rename(name) if not name.exists() else None
        with pytest.raises(InvalidModuleError, match=r"weights alone, .* with its config\.json"):
            load_source(path)
    renamed.unlink()
    tmp_path.with_name("config.json").rename(tmp_path / "config.json")
    with pytest.raises(CorruptFileError, match=r"model\.safetensors is missing"):
        load_source(tmp_path)


def test_damage_is_refused(tmp_path):
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    data = file.read_bytes()
    for size in (0, 7, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(CorruptFileError, match=r"model\.safetensors"):
            load_source(tmp_path)
    file.write_bytes(data)
    stored = load_file(file)
    save_file({**stored, "decoder.weight": np.zeros(2, np.float32)}, file)
    with pytest.raises(InvalidModuleError, match=r"not part of the network: decoder\.weight"):
        load_source(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CorruptFileError, match=r"config\.json"):
        load_source(tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["MobileNetV1", "MobileNetV2"])
@pytest.mark.parametrize(("tf_padding", "epsilon"), [(True, 0.001), (False, 1e-5)])
def test_the_same_outputs_as_transformers(tmp_path, name, tf_padding, epsilon):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    multiplier = 0.25 if name == "MobileNetV1" else 0.35
    config = getattr(transformers, f"{name}Config")(
        depth_multiplier=multiplier, image_size=97, num_labels=5, tf_padding=tf_padding, layer_norm_eps=epsilon
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForImageClassification")(config).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.ndim == 4:
                tensor.normal_(0, float(np.sqrt(2 / tensor[0].numel())))
            elif tensor.ndim == 1 and "normalization" in key:
                tensor.uniform_(0.5, 1.5) if key.endswith(("weight", "running_var")) else tensor.uniform_(-0.2, 0.2)
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(0).random((2, 97, 97, 3), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(images.transpose(0, 3, 1, 2) * 2 - 1)).logits.numpy()
    found = Engine(load_source(tmp_path), ["logits"], precision="f32").run(images)["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
