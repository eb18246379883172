"""Compiled inference: the same numbers in every way of running, and a disk cache that nothing can break."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reference_network import forward, random_weights

from mobilenet_hub.architecture import Variant, mobilenet_v1
from mobilenet_hub.errors import InputError, InvalidModuleError, MissingExtraError
from mobilenet_hub.inference import compiled, litert, openvino
from mobilenet_hub.inference.engine import ENGINES, Engine, engine_for, installed_engines
from mobilenet_hub.inference.graph import dense_layers
from mobilenet_hub.module import Module, ModuleConfig, checked_image_size
from mobilenet_hub.module_folder import WEIGHTS_FILE, read_module, write_module
from mobilenet_hub.store import resolve
from mobilenet_hub.store.cache import cache_folder

RELATIVE = 1e-4  # what independent float32 implementations agree to


@pytest.fixture(scope="module")
def module():
    config = ModuleConfig("mobilenet_v2", 0.35, (48, 40), 5)
    return Module(config, random_weights(config.network))


@pytest.fixture(params=["litert", "openvino"])
def engine(request):
    """The name of each engine that is installed."""
    if request.param not in installed_engines():
        pytest.skip(f"needs the engine {request.param}")
    return request.param


@pytest.fixture
def folder(module, tmp_path):
    return write_module(tmp_path / "module", module)


def blobs():
    return sorted(f for f in (cache_folder() / "compiled").glob("*") if f.suffix != ".moved")


@pytest.mark.parametrize("threads", [None, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 8, 21])
def test_any_number_of_images_gives_the_reference(module, count, threads, engine):
    images = np.random.default_rng(count).random((count, 48, 40, 3), np.float32)
    expected = forward(module.config.network, module.weights, images) if count else {}
    results = Engine(module, ["logits", "features"], precision="f32", threads=threads, engine=engine).run(images)
    assert results["logits"].shape == (count, 5)
    assert results["features"].shape == (count, 1280)
    for name, value in results.items():
        assert value.dtype == np.float32
        if count:
            assert np.abs(value - expected[name]).max() < RELATIVE * np.abs(expected[name]).max()


def test_threads_that_each_have_images_of_their_own_get_their_own_results(module, engine):
    runner = Engine(module, ["features"], precision="f32", threads=2, engine=engine)
    batches = [np.random.default_rng(count).random((count, 48, 40, 3), np.float32) for count in (1, 2, 3, 7, 0, 5)]
    expected = [runner.run(batch)["features"] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: runner.run_here(batches[number % len(batches)])["features"], range(60)))
    for number, value in enumerate(found):
        # By the same arithmetic; OpenVINO's network for one image at a time may sum in another order.
        np.testing.assert_allclose(value, expected[number % len(batches)], rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="expected images of shape"):
        runner.run_here(np.zeros((1, 3, 3, 3), np.float32))


def test_strided_and_read_only_batches_are_read_right(module, engine):
    images = np.random.default_rng(0).random((6, 48, 80, 3), np.float32)[:, :, ::2]
    images.flags.writeable = False
    runner = Engine(module, ["features"], precision="f32", engine=engine)
    expected = runner.run(images.copy())["features"]
    np.testing.assert_array_equal(runner.run(images)["features"], expected)


def test_results_are_the_callers_own(module, engine):
    runner = Engine(module, ["features"], engine=engine)
    random = np.random.default_rng(0)
    first = runner.run(random.random((3, 48, 40, 3), np.float32))["features"]
    kept = first.copy()
    runner.run(random.random((3, 48, 40, 3), np.float32))
    np.testing.assert_array_equal(first, kept)


def test_threads_may_share_an_engine(module, engine):
    from concurrent.futures import ThreadPoolExecutor

    runner = Engine(module, ["features"], engine=engine)
    batches = [np.random.default_rng(i).random((1 + i % 4, 48, 40, 3), np.float32) for i in range(12)]
    expected = [runner.run(batch)["features"] for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        for value, wanted in zip(threads.map(lambda b: runner.run(b)["features"], batches), expected, strict=True):
            np.testing.assert_array_equal(value, wanted)


def test_the_second_start_takes_the_compiled_model_from_disk(folder, monkeypatch, engine):
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 40, 3), np.uint8)
    first = Engine(folder, ["logits"], engine=engine).run(images)["logits"]
    assert len(blobs()) == 1

    def no_build(*_, **__):
        raise AssertionError("built again")

    monkeypatch.setattr(openvino, "build_graph", no_build)
    monkeypatch.setattr(litert, "build_litert", no_build)
    np.testing.assert_array_equal(Engine(folder, ["logits"], engine=engine).run(images)["logits"], first)


def test_a_cache_that_is_emptied_or_replaced_changes_nothing_for_whoever_runs(folder, engine):
    """What was kept is mapped into memory: it stays there without its name."""
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 40, 3), np.uint8)
    first = Engine(folder, ["logits"], engine=engine)
    expected, here = first.run(images)["logits"], first.run_here(images)["logits"]
    for runner in (first, Engine(folder, ["logits"], engine=engine)):
        np.testing.assert_array_equal(runner.run(images)["logits"], expected)
        for file in blobs():
            other = file.with_name("other")
            other.write_bytes(b"\0" * file.stat().st_size)
            other.replace(file)
            file.unlink()
        np.testing.assert_array_equal(runner.run(images)["logits"], expected)
        np.testing.assert_array_equal(runner.run_here(images)["logits"], here)


def test_other_weights_of_the_same_shape_are_not_mistaken_for_the_cached_ones(folder, module, engine):
    images = np.full((1, 48, 40, 3), 0.5, np.float32)
    first = Engine(folder, ["logits"], engine=engine).run(images)["logits"]
    other = {name: array * np.float32(1.01) for name, array in module.weights.items()}
    stamp = (folder / WEIGHTS_FILE).stat()
    write_module(folder, Module(module.config, other), overwrite=True)
    os.utime(folder / WEIGHTS_FILE, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert np.abs(Engine(folder, ["logits"], engine=engine).run(images)["logits"] - first).max() > 1e-3


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "garbage"])
def test_a_damaged_cache_is_replaced(folder, damage, engine):
    images = np.full((1, 48, 40, 3), 0.5, np.float32)
    first = Engine(folder, ["logits"], engine=engine).run(images)["logits"]
    (file,) = blobs()
    whole = file.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "flip": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "truncate": whole[:middle],
        "empty": b"",
        "garbage": b"\0" * len(whole),
    }[damage]
    file.write_bytes(damaged)
    np.testing.assert_array_equal(Engine(folder, ["logits"], engine=engine).run(images)["logits"], first)
    assert blobs() == [file]
    assert file.read_bytes() != damaged


def test_a_model_compiled_by_other_code_is_not_taken(folder, monkeypatch, engine):
    images = np.zeros((1, 48, 40, 3), np.float32)
    Engine(folder, ["logits"], engine=engine).run(images)
    monkeypatch.setattr(compiled, "_MAKERS", compiled._MAKERS[1:])
    Engine(folder, ["logits"], engine=engine).run(images)
    assert len(blobs()) == 2


def test_a_model_compiled_without_its_hints_is_not_kept(folder, monkeypatch):
    pytest.importorskip("openvino")
    images = np.zeros((1, 48, 40, 3), np.float32)
    monkeypatch.setattr(openvino, "cpu_features", lambda: frozenset({"avx2"}))
    monkeypatch.setattr(openvino, "prefer_avx2_kernels", lambda model: None)  # as where the temporary folder is full
    Engine(folder, ["logits"], engine="openvino").run(images)
    assert blobs() == []


@pytest.mark.parametrize("outputs", [["bogus"], ["features", "features"], []])
def test_outputs_that_are_not_to_be_had_are_refused_at_once(folder, outputs):
    with pytest.raises(InputError, match="output"):
        Engine(folder, outputs)


def test_a_cache_that_cannot_be_written_is_done_without(folder, tmp_path, monkeypatch, engine):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / "file"))
    assert Engine(folder, ["logits"], engine=engine).run(np.zeros((1, 48, 40, 3), np.float32))["logits"].shape == (1, 5)


def test_the_cache_drops_what_was_used_longest_ago(folder, monkeypatch, engine):
    images = np.zeros((1, 48, 40, 3), np.float32)
    Engine(folder, ["logits"], engine=engine).run(images)
    (old,) = blobs()
    os.utime(old, (1, 1))
    monkeypatch.setattr(compiled, "_MAX_CACHE_BYTES", old.stat().st_size * 3 // 2)
    Engine(folder, ["features"], engine=engine).run(images)
    assert len(blobs()) == 1
    assert old not in blobs()


def test_a_damaged_module_is_named_though_its_cache_is_whole(folder, engine):
    images = np.zeros((1, 48, 40, 3), np.float32)
    Engine(folder, ["logits"], engine=engine).run(images)
    (folder / WEIGHTS_FILE).write_bytes(b"damaged")
    with pytest.raises(InvalidModuleError, match=WEIGHTS_FILE):
        Engine(folder, ["logits"], engine=engine).run(images)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(InvalidModuleError, match=WEIGHTS_FILE):
        Engine(folder, ["logits"], engine=engine).run(images)


def test_wrong_batches_are_refused(module, engine):
    runner = Engine(module, ["logits"], engine=engine)
    for images in (np.zeros((1, 40, 48, 3), np.float32), np.zeros((48, 40, 3), np.uint8), np.zeros((1, 48, 40, 3))):
        with pytest.raises(InputError, match="expected images of shape"):
            runner.run(images)
    with pytest.raises(InputError, match="threads"):
        Engine(module, ["logits"], threads=0, engine=engine)


def test_sizes_follow_what_the_published_module_allows():
    def config(handle):
        return ModuleConfig("mobilenet_v1", 0.25, (128, 128), handle=handle)

    v1 = "google/imagenet/mobilenet_v1_025_128/feature_vector"
    for version in (3, 4, 5):
        assert checked_image_size(config(f"{v1}/{version}"), 160) == (160, 160)
    for free in (None, "someone/their_module/1"):
        assert checked_image_size(config(free), (97, 130)) == (97, 130)
    for fixed in (f"{v1}/1", "google/imagenet/mobilenet_v2_035_128/feature_vector/4"):
        assert checked_image_size(config(fixed), None) == (128, 128)
        assert checked_image_size(config(fixed), 128) == (128, 128)
        assert checked_image_size(config(fixed), 160, any_size=True) == (160, 160)
        with pytest.raises(InputError, match=r"128x128 pixels only.*any_size"):
            checked_image_size(config(fixed), 160)
    for nonsense in (0, -3, (1, 2, 3), (1.5, 2)):
        with pytest.raises(InputError, match="image size"):
            checked_image_size(config(None), nonsense)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("capabilities", "instructions", "auto", "bf16"),
    [
        ({"FP32", "BF16"}, {"avx2", "avx512f", "avx512_bf16"}, "bf16", "bf16"),
        ({"FP32", "BF16"}, {"avx512f", "amx_bf16"}, "bf16", "bf16"),
        ({"FP32", "BF16"}, {"avx2", "avx512f", "avx512_vnni"}, "f32", "bf16"),  # emulated, and slower
        ({"FP32"}, {"avx2"}, "f32", "f32"),
        ({"FP32"}, {"avx512_bf16"}, "f32", "f32"),
        ({"FP32", "FP16"}, set(), "f32", "f32"),
    ],
)
def test_the_precision_follows_from_the_instructions(capabilities, instructions, auto, bf16):
    assert openvino.precision_for("auto", capabilities, instructions) == auto
    assert openvino.precision_for("bf16", capabilities, instructions) == bf16
    assert openvino.precision_for("f32", capabilities, instructions) == "f32"


def photos_of(size, count=4):
    """Views of a photo, float32 in [0, 1]."""
    from PIL import Image

    photo = Image.open(Path(__file__).parents[1] / "examples" / "cat.jpg").convert("RGB")
    views = [photo.rotate(20 * turn).resize(size[::-1], Image.Resampling.BILINEAR) for turn in range(count)]
    return np.stack([np.asarray(view, np.float32) / 255 for view in views])


def test_precision_is_what_the_cpu_has():
    """With a trained network: features of random weights are noise, which rounding moves at will."""
    pytest.importorskip("openvino")
    capabilities = openvino.import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for asked in ("auto", "bf16", "f32"):
        assert openvino.chosen_precision(asked) == openvino.precision_for(asked, capabilities, openvino.cpu_features())
    with pytest.raises(InputError, match="auto, f32, bf16"):
        openvino.chosen_precision("fp16")  # pyright: ignore[reportArgumentType]
    module = read_module(resolve("starter"))
    images = photos_of(module.config.image_size)
    exact = Engine(module, ["features"], precision="f32").run(images)["features"]
    runner = Engine(module, ["features"], precision="bf16")
    value = runner.run(images)["features"]
    cosine = (value * exact).sum(1) / np.linalg.norm(value, axis=1) / np.linalg.norm(exact, axis=1)
    assert cosine.min() > 0.999
    if runner.precision == "f32":
        np.testing.assert_allclose(value, exact, atol=RELATIVE * np.abs(exact).max())


@pytest.mark.parametrize("precision", ["f32", "bf16"])
@pytest.mark.parametrize("hidden_units", [(), (20,), (20, 9)])
def test_what_lies_behind_the_features_is_float32_in_every_precision(module, precision, hidden_units):
    """So a classifier fitted on an engine's features gives the logits that the engine gives."""
    config = replace(module.config, variant=Variant(hidden_units=hidden_units))
    module = Module(config, random_weights(config.network))
    images = np.random.default_rng(0).random((5, 48, 40, 3), np.float32)
    results = Engine(module, ["logits"], precision=precision).run(images)
    value = Engine(module, ["features"], precision=precision).run(images)["features"].astype(np.float64)
    for index, (kernel, biases) in enumerate(dense_layers(config.network, module.weights)):
        value = (np.maximum(value, 0) if index else value) @ kernel[0, 0] + biases
    assert np.abs(results["logits"] - value).max() < 1e-5 * np.abs(value).max()  # bf16 would be off by 4e-3


def test_the_engine_follows_from_precision_and_what_is_installed():
    both = ("litert", "openvino")
    assert engine_for("auto", "bf16", both) == "openvino"
    assert engine_for("auto", "f32", both) == "litert"
    for one in both:
        assert engine_for("auto", "f32", (one,)) == engine_for("auto", "bf16", (one,)) == one
        assert engine_for(one, "f32", both) == one
    wide, halved = {"avx2", "avx512f", "avx_vnni"}, {"avx2", "avx512f", "avx512_bf16"}
    small, large = (mobilenet_v1(depth, 1001).macs(size, size) for depth, size in ((0.25, 128), (1.0, 224)))
    for instructions, macs, name in [
        (wide, small, "openvino"), (wide, large, "litert"), (wide, None, "litert"),
        (halved, small, "litert"), ({"avx2"}, small, "litert"), ({"avx2", "avx_vnni"}, small, "litert"),
    ]:  # fmt: skip
        assert engine_for("auto", "f32", both, macs_in_bulk=macs, instructions=instructions) == name
        assert engine_for("auto", "f32", ("litert",), macs_in_bulk=macs, instructions=instructions) == "litert"
        assert engine_for("litert", "f32", both, macs_in_bulk=macs, instructions=instructions) == "litert"
        assert engine_for("auto", "bf16", both, macs_in_bulk=macs, instructions=instructions) == "openvino"
    with pytest.raises(InputError, match="auto, litert, openvino"):
        engine_for("tensorrt", "f32", both)  # pyright: ignore[reportArgumentType]
    with pytest.raises(MissingExtraError, match=r"mobilenet-hub\[openvino\]"):
        engine_for("openvino", "f32", ("litert",))
    with pytest.raises(MissingExtraError, match="litert"):
        engine_for("auto", "f32", ())


@pytest.mark.parametrize("threads", [1, None])
def test_the_engines_agree(module, threads):
    """Within what independent float32 implementations agree to; both say who they are."""
    if len(installed_engines()) < len(ENGINES) - 1:
        pytest.skip("needs both engines")
    images = np.random.default_rng(0).integers(0, 256, (5, 48, 40, 3), np.uint8)
    outputs = ["logits", "features", "layer_7", "global_pool", "Predictions"]
    runners = [Engine(module, outputs, precision="f32", threads=threads, engine=name) for name in installed_engines()]
    assert [runner.engine_name for runner in runners] == list(installed_engines())
    one, other = (runner.run(images) for runner in runners)
    for name in outputs:
        assert np.abs(one[name] - other[name]).max() < RELATIVE * np.abs(other[name]).max(), name


def test_few_and_many_go_to_the_engine_that_the_rule_says(module):
    both = installed_engines()
    macs = module.config.network.macs(*module.config.image_size)
    few = Engine(module, ["logits"], precision="f32", few=True)
    many = Engine(module, ["logits"], precision="f32")
    assert few.engine_name == engine_for("auto", "f32", both)
    assert many.engine_name == engine_for("auto", "f32", both, macs_in_bulk=macs)
    assert many.with_threads(1).engine_name == many.with_outputs(["features"]).engine_name == many.engine_name


def test_one_thread_is_all_that_computes(module, engine):
    """One image and many: however long it takes, there is no second thread's processor time in it."""
    images = np.random.default_rng(0).integers(0, 256, (16, 48, 40, 3), np.uint8)
    runner = Engine(module, ["logits"], threads=1, engine=engine)
    for batch in (images[:1], images):
        runner.run(batch)
        start, spent = time.perf_counter(), time.process_time()
        while time.perf_counter() < start + 0.3:
            runner.run(batch)
        assert (time.process_time() - spent) / (time.perf_counter() - start) < 1.3


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads what is mapped as Linux lists it")
def test_litert_s_weights_are_mapped_from_the_cache(folder):
    pytest.importorskip("ai_edge_litert")
    images = np.zeros((1, 48, 40, 3), np.uint8)
    for _ in ("written", "found"):
        runner = Engine(folder, ["logits"], engine="litert")
        runner.run(images)
        (file,) = blobs()
        assert str(file) in Path("/proc/self/maps").read_text()


def test_what_openvino_would_gain_is_said_where_it_is_not(folder, tmp_path):
    """By doctor, and by bulk runs where that is much; in a process that cannot import it."""
    assert openvino.gain_of_openvino({"avx2"}, is_there=False) is None
    assert openvino.gain_of_openvino({"avx512_bf16"}, is_there=True) is None
    assert "mobilenet-hub[openvino]" in (openvino.gain_of_openvino({"amx_bf16"}, is_there=False) or "")
    pytest.importorskip("ai_edge_litert")
    photo = Path(__file__).parents[1] / "examples" / "cat.jpg"
    embed = ["embed", str(photo), "--module", str(folder), "-o", str(tmp_path / "out.npy")]
    for words in (["doctor"], embed):
        code = f"import sys; sys.modules['openvino'] = None\nfrom mobilenet_hub.cli.main import main; main({words})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        line = openvino.gain_of_openvino(openvino.cpu_features(), is_there=False)
        told = [text for text in (done.stdout + done.stderr).splitlines() if "mobilenet-hub[openvino]" in text]
        assert len(told) == (line is not None), done.stderr
        assert line is None or line in told[0]


def test_litert_has_float32_alone(module):
    pytest.importorskip("ai_edge_litert")
    runner = Engine(module, ["logits"], precision="bf16", engine="litert")
    assert (runner.precision, runner.engine_name) == ("f32", "litert")
    with pytest.raises(InputError, match="precision"):
        Engine(module, ["logits"], precision="f16", engine="litert")  # pyright: ignore[reportArgumentType]


def test_inference_opens_no_connection(folder):
    """In a process of its own, where any attempt to use the network, a name look-up included, ends it."""
    code = f"""
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print(event, args, file=sys.stderr, flush=True)
        import os; os._exit(3)
sys.addaudithook(refuse)
import numpy as np
from mobilenet_hub.inference.engine import Engine
Engine({str(folder)!r}, ["logits"]).run(np.zeros((2, 48, 40, 3), np.float32))
assert not [name for name in sys.modules if "telemetry" in name]
"""
    environment = {**os.environ, "MOBILENET_HUB_OFFLINE": "0"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)
