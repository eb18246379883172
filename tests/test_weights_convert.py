"""Every kind of file becomes the module that it is, and damaged ones never do."""

import gzip
import io
import json
import shutil
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tensorflow_files import frozen_graph, some_weights, write_bundle, write_hub1, write_saved_model

from mobilenet_hub.architecture import mobilenet_v1
from mobilenet_hub.catalog.labels import imagenet_labels
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import CorruptFileError, InputError, InvalidModuleError, MobileNetHubError, UnknownModuleError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_module, write_module
from mobilenet_hub.weights.convert import convert, load_source

FIXTURES = {
    "fixtures/mobilenet_v1_0.25_128.tgz": ("mobilenet_v1", 0.25, 128, 1001),
    "fixtures/mobilenet_v2_0.35_96.tgz": ("mobilenet_v2", 0.35, 96, 1001),
    "fixtures/hub1_mobilenet_v1_025_128_classification": ("mobilenet_v1", 0.25, 128, 1001),
    "fixtures/hub1_mobilenet_v2_035_96_feature_vector": ("mobilenet_v2", 0.35, 96, 0),
    "fixtures/hub2_mobilenet_v1_025_128_classification": ("mobilenet_v1", 0.25, 128, 1001),
    "fixtures/hub2_mobilenet_v2_035_96_feature_vector": ("mobilenet_v2", 0.35, 96, 0),
}
FROZEN = {
    "weights/slim_frozen/mobilenet_v1_0.25_128_frozen.pb": 128,
    "weights/slim_frozen/mobilenet_v1_0.25_224_frozen.tgz": 224,
}
NETWORK = mobilenet_v1(0.25, 3)


@pytest.mark.parametrize("relative", FIXTURES)
def test_the_fixtures_hold_the_golden_weights(shared, golden, tmp_path, relative):
    module = read_module(convert(shared(relative), tmp_path / "module"))
    config = module.config
    found = (config.architecture, config.depth_multiplier, config.image_size[0], config.num_classes)
    assert found == FIXTURES[relative]
    assert config.labels == (imagenet_labels() if config.num_classes else None)
    for name, array in module.weights.items():
        np.testing.assert_array_equal(array, golden.golden_array(name, array.shape), err_msg=name)


@pytest.mark.parametrize("relative", FROZEN)
def test_googles_trained_networks(shared, golden, relative):
    module = load_source(shared(relative))
    size = FROZEN[relative]
    assert module.config.image_size == (size, size)
    with np.load(shared("golden/pretrained_v1_025.npz")) as wanted:
        outputs = Engine(module, ["logits", "features"], precision="f32").run(golden.golden_images(2, size, size))
        np.testing.assert_allclose(outputs["logits"], wanted[f"{size}/golden_logits"], atol=1e-3)
        np.testing.assert_allclose(outputs["features"], wanted[f"{size}/golden_features"], atol=1e-3)


# One small network in every format, written by the tests themselves.


def tgz(folder, archive, flags="w:gz"):
    with tarfile.open(archive, flags) as tar:
        tar.add(folder, arcname=".")
    return archive


def checkpoint(folder):
    write_bundle(folder / "mobilenet_v1_0.25_96.ckpt", some_weights(NETWORK))
    return folder


def checkpoint_prefix(folder):
    return checkpoint(folder) / "mobilenet_v1_0.25_96.ckpt"


def checkpoint_index(folder):
    return checkpoint(folder) / "mobilenet_v1_0.25_96.ckpt.index"


def nested_archive(folder):
    checkpoint(folder / "in" / "mobilenet_v1_0.25_96")
    return tgz(folder / "in", folder / "net.tar.gz")


def plain_tar(folder):
    checkpoint(folder / "in")
    return tgz(folder / "in", folder / "net.tar", "w")


def graph_file(folder):
    (folder / "net.pb").write_bytes(frozen_graph(some_weights(NETWORK), (96, 96)))
    return folder / "net.pb"


def graph_folder(folder):
    graph_file(folder)
    (folder / "quantized_graph.pb").write_bytes(b"")
    return folder


def hub1(folder):
    return write_hub1(folder, some_weights(NETWORK), (96, 96))


def hub1_file(folder):
    return hub1(folder) / "saved_model.pb"


def saved_model(folder):
    weights = some_weights(NETWORK)
    order = [(name, weights[name], NETWORK.variables[name].trainable) for name in sorted(weights)]
    return write_saved_model(folder / "mobilenet_v1_025_96", order)


def module_folder(folder):
    config = ModuleConfig("mobilenet_v1", 0.25, (96, 96), 3)
    return write_module(folder / "module", Module(config, some_weights(NETWORK)))


def module_file(folder):
    return module_folder(folder) / "module.json"


KINDS = [
    checkpoint, checkpoint_prefix, checkpoint_index, nested_archive, plain_tar, graph_file, graph_folder, hub1,
    hub1_file, saved_model, module_folder, module_file,
]  # fmt: skip


@pytest.mark.parametrize("make", KINDS)
def test_the_kind_is_found_out(tmp_path, make):
    module = load_source(make(tmp_path))
    assert module.config.image_size == (96, 96)
    assert module.config.num_classes == 3
    for name, array in some_weights(NETWORK).items():
        np.testing.assert_array_equal(module.weights[name], array, err_msg=name)


def test_what_is_none_of_them_is_refused(tmp_path):
    (tmp_path / "text.txt").write_text("hello")
    for path, words in [(tmp_path, "holds nothing"), (tmp_path / "text.txt", "none of"), (tmp_path / "x", "not exist")]:
        with pytest.raises(InputError, match=words):
            load_source(path)


def test_two_graphs_in_a_folder_are_asked_about(tmp_path):
    graph_file(tmp_path)
    shutil.copy(tmp_path / "net.pb", tmp_path / "other.pb")
    with pytest.raises(InvalidModuleError, match=r"net\.pb, other\.pb; name one"):
        load_source(tmp_path)


def test_an_error_inside_an_archive_names_the_archive(tmp_path):
    checkpoint(tmp_path / "in")
    (tmp_path / "in" / "mobilenet_v1_0.25_96.ckpt.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(CorruptFileError) as caught:
        load_source(tgz(tmp_path / "in", tmp_path / "net.tgz"))
    assert f"{tmp_path}/net.tgz/mobilenet_v1_0.25_96.ckpt.data-00000-of-00001" in str(caught.value)


def small_archive(folder):
    """A .tgz of one checkpoint, the same bytes in every run: no times, no owners."""
    checkpoint(folder / "in")
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for file in sorted((folder / "in").iterdir()):
            entry = tarfile.TarInfo(file.name)
            entry.size = file.stat().st_size
            archive.addfile(entry, io.BytesIO(file.read_bytes()))
    return gzip.compress(plain.getvalue(), mtime=0)


@pytest.fixture(scope="module")
def archive_bytes(tmp_path_factory):
    made = [small_archive(tmp_path_factory.mktemp("archive")) for _ in range(2)]
    assert made[0] == made[1]
    return made[0]


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 10**9), flip=st.integers(1, 255))
@example(at=4, flip=0x41)  # the time in gzip's header: no checksum covers it, and nothing is read from it
def test_any_flipped_byte_of_an_archive_is_refused(archive_bytes, tmp_path_factory, at, flip):
    """Refused, or unpacked to the same bytes: a copy from elsewhere in the same run of zeros, gzip's header."""
    folder = tmp_path_factory.mktemp("flip")
    data = bytearray(archive_bytes)
    data[at % len(data)] ^= flip
    (folder / "net.tgz").write_bytes(data)
    try:
        module = load_source(folder / "net.tgz")
    except CorruptFileError as error:
        assert "net.tgz" in str(error)
    else:
        assert gzip.decompress(bytes(data)) == gzip.decompress(archive_bytes)
        for name, array in some_weights(NETWORK).items():
            assert module.weights[name].tobytes() == array.tobytes()


def test_any_truncation_of_an_archive_is_refused(tmp_path):
    data = small_archive(tmp_path)
    for size in [*range(0, len(data), len(data) // 20), *range(len(data) - 9, len(data))]:
        (tmp_path / "net.tgz").write_bytes(data[:size])
        with pytest.raises(CorruptFileError, match=r"net\.tgz"):
            load_source(tmp_path / "net.tgz")


@pytest.mark.parametrize("relative", ["variables.index", "variables.data-00000-of-00001"])
def test_flipped_bytes_of_the_fixtures_are_refused(shared, tmp_path, relative):
    for name in ("hub1_mobilenet_v1_025_128_classification", "hub2_mobilenet_v2_035_96_feature_vector"):
        copy = shutil.copytree(shared(f"fixtures/{name}"), tmp_path / name)
        file = copy / "variables" / relative
        file.chmod(0o644)
        file.parent.chmod(0o755)
        data = file.read_bytes()
        for at in np.random.default_rng(5).integers(0, len(data), 4):
            file.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
            with pytest.raises(CorruptFileError, match=file.name):
                load_source(copy)


def test_memory_stays_in_proportion(tmp_path):
    """A graph of some kilobytes that announces terabytes."""
    from tensorflow_files import blob, graph, node, number, shape

    proto = number(1, 1) + blob(2, shape((3, 3, 3, 2**38))) + blob(4, bytes(64))
    lying = [node("MobilenetV1/Conv2d_0/weights", "Const", value=blob(8, proto))] * 1
    use = [node("use", "Mul", ["MobilenetV1/Conv2d_0/weights"])]
    (tmp_path / "net.pb").write_bytes(graph(lying + use))
    tracemalloc.start()
    with pytest.raises(CorruptFileError, match="64 bytes for shape"):
        load_source(tmp_path / "net.pb")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_handle_gives_and_demands_everything(shared):
    path = shared("fixtures/mobilenet_v1_0.25_128.tgz")
    handle = "google/imagenet/mobilenet_v1_025_128/{}/5"
    config = load_source(path, handle=f"https://tfhub.dev/{handle.format('feature_vector')}").config
    assert (config.num_classes, config.labels, config.handle) == (0, None, handle.format("feature_vector"))
    assert load_source(path, handle=handle.format("classification")).config.num_classes == 1001
    for other in ("mobilenet_v1_025_160", "mobilenet_v1_050_128", "mobilenet_v2_035_128"):
        with pytest.raises(InvalidModuleError, match=r"mobilenet_v1_0\.25_128"):
            load_source(path, handle=f"google/imagenet/{other}/classification/3")
    with pytest.raises(UnknownModuleError):
        load_source(path, handle="google/imagenet/mobilenet_v1_026_128/classification/3")
    with pytest.raises(InputError, match="num_classes 5 was given"):
        load_source(path, handle=handle.format("classification"), num_classes=5)


def test_a_module_folder_keeps_what_it_says(tmp_path):
    config = ModuleConfig(
        "mobilenet_v1", 0.25, (96, 96), 3, ("a", "b", "c"), license="MIT", metrics={"top1": 0.5}, extra={"note": 1}
    )
    write_module(tmp_path / "one", Module(config, some_weights(NETWORK)))
    copied = load_source(tmp_path / "one").config
    assert copied == config
    with pytest.raises(InvalidModuleError, match="images of 96x96 pixels, not 128x128"):
        load_source(tmp_path / "one", handle="google/imagenet/mobilenet_v1_025_128/feature_vector/5")
    headless = load_source(tmp_path / "one", num_classes=0).config
    assert (headless.num_classes, headless.labels, headless.license) == (0, None, "MIT")


def test_labels_are_taken_or_refused(tmp_path):
    folder = convert(graph_file(tmp_path), tmp_path / "out", labels=["a", "b", "c"])
    assert read_module(folder).config.labels == ("a", "b", "c")
    with pytest.raises(InputError, match="2 labels were given for 3 classes"):
        convert(tmp_path / "net.pb", tmp_path / "other", labels=["a", "b"])
    assert not (tmp_path / "other").exists()


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(["x.pb", "x.tgz", "x.tar", "x.index", "saved_model.pb", "module.json"]),
    data=st.binary(max_size=300),
)
def test_garbage_under_any_name_is_refused(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("garbage")
    (folder / name).write_bytes(data)
    for path in (folder, folder / name):
        with pytest.raises(MobileNetHubError) as caught:
            load_source(path)
        assert str(folder) in str(caught.value) or name in str(caught.value)


def test_the_command(tmp_path, capsys):
    graph_file(tmp_path)
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    out = tmp_path / "out"
    words = ["convert", str(tmp_path / "net.pb"), "-o", str(out)]
    assert main([*words, "--labels", str(tmp_path / "labels.txt")]) == 0
    assert "mobilenet_v1 0.25, 96x96, 3 classes" in capsys.readouterr().out
    assert main(words) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*words, "--force", "--json", "--num-classes", "0", "--image-size", "96x96"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["num_features"], shown["image_size"], shown["num_classes"]) == (256, [96, 96], 0)
    assert main([*words, "--force", "--image-size", "large"]) == 2
    assert "'large' is not a number of pixels" in capsys.readouterr().err
    assert main([*words, "--force", "--labels", str(tmp_path / "none.txt")]) == 2
    assert main(["convert", str(tmp_path / "none"), "-o", str(out)]) == 2
