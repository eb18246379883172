"""The temperature and what abstaining gives: order kept, error smaller, in every format the same probabilities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilenet_hub.evaluation.calibration import at_temperature, believed, fit_temperature, threshold_for
from mobilenet_hub.evaluation.metrics import measure
from mobilenet_hub.inference.probabilities import likeliest, softmax


def drawn(temperature, count=4000, classes=5, seed=0):
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, classes))
    chances = softmax(logits / temperature)
    return logits, (chances.cumsum(1) > rng.random((count, 1))).argmax(1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature):
    logits, labels = drawn(temperature)
    found = fit_temperature(softmax(logits), labels)
    assert found == pytest.approx(temperature, rel=0.1)  # 4,000 labels: a standard error of some 3 %
    fresh, truth = drawn(temperature, seed=1)
    before = measure(softmax(fresh), truth).calibration_error
    after = measure(at_temperature(softmax(fresh), found), truth).calibration_error
    assert after < max(before, 0.03)


def test_few_photos_and_photos_that_are_all_right_say_little():
    assert fit_temperature(np.tile([[0.9, 0.1]], (5, 1)), np.zeros(5, int)) == 1
    assert 0.2 < fit_temperature(np.tile([[0.9, 0.1]], (40, 1)), np.zeros(40, int)) < 1


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=9), st.floats(0.05, 20))
def test_a_temperature_never_changes_the_order(logits, temperature):
    before = softmax(np.array([logits]))
    after = at_temperature(before, temperature)
    best = before.argmax()
    assert after[0, best] == after.max()
    assert after.sum() == pytest.approx(1)


@given(
    st.lists(st.sampled_from([0.0, 1.0, 1.0000001, -50.0, -45.0, 80.0, -3e4, 3e4, 1e38]), min_size=2, max_size=9),
    st.sampled_from([0.05, 0.3, 1.0, 7.0, 20.0]),
)
def test_classes_come_in_the_order_of_their_logits_at_any_temperature(logits, temperature):
    """Ties by index; extremes, whose scores are too small for a number, in their own order."""
    row = np.array([logits], np.float32)
    scores = softmax(row.astype(np.float64) / temperature)
    best, ranked = likeliest(scores, len(logits), row)
    expected = sorted(range(len(logits)), key=lambda index: (-row[0, index], index))
    assert best[0].tolist() == expected
    assert np.isfinite(ranked).all() and (np.diff(ranked[0]) <= 0).all()


def test_the_threshold_is_the_lowest_that_keeps_what_was_asked():
    scores, right = [0.9, 0.8, 0.8, 0.5, 0.4], [True, True, False, True, True]
    assert threshold_for(scores, right, 0.7).threshold == 0.4
    assert threshold_for(scores, right, 0.95).threshold == 0.9
    assert threshold_for([0.9], [False], 0.95) is None
    assert believed(scores, right, 0.8).answered == 0.6


def test_every_reader_of_a_module_honours_its_temperature(tmp_path):
    """Engines, and the formats that are written with what is always installed; logits are raw in all."""
    from dataclasses import replace

    from mobilenet_hub.inference.classify import Classifier
    from mobilenet_hub.inference.engine import Engine
    from mobilenet_hub.module_folder import read_module, write_module
    from mobilenet_hub.store import resolve

    module = read_module(resolve("starter"))
    plain = replace(module.config.variant, temperature=1.0)
    folders = {}
    for temperature in (1.0, 0.5):
        variant = replace(plain, temperature=temperature)
        config = replace(module.config, variant=variant)
        folders[temperature] = write_module(tmp_path / str(temperature), replace(module, config=config))
        assert read_module(folders[temperature]).config.variant.temperature == temperature
    photos = np.random.default_rng(0).random((2, *module.config.image_size, 3), np.float32)
    one, half = (Engine(folder, ("logits", "Predictions"), precision="f32").run(photos) for folder in folders.values())
    assert np.array_equal(one["logits"], half["logits"])
    assert np.allclose(half["Predictions"], softmax(half["logits"] / 0.5), atol=1e-6)  # float32
    said = [Classifier(folder, "f32").classify(photos, top=3) for folder in folders.values()]
    assert [p.labels for p in said[0]] == [p.labels for p in said[1]]
    assert said[1][0].scores[0] > said[0][0].scores[0]


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_exported_probabilities_have_the_temperature(name, tmp_path):
    from dataclasses import replace

    pytest.importorskip("onnxruntime" if name == "onnx" else "openvino", reason=f"{name} is run by it")
    from mobilenet_hub.exporting.export import export
    from mobilenet_hub.module_folder import read_module, write_module
    from mobilenet_hub.store import resolve

    module = read_module(resolve("starter"))
    config = replace(module.config, variant=replace(module.config.variant, temperature=0.5))
    folder = write_module(tmp_path / "m", replace(module, config=config))
    # The proof compares the export, run by its own runtime, with the engine.
    export(folder, name, tmp_path / "out", outputs=("logits", "probabilities"))


_RUNTIMES = {
    "tf-hub": (
        "tensorflow",
        "import tensorflow as tf\n"
        "found = tf.saved_model.load(path)(tf.constant(images), return_endpoints=True)\n"
        "logits, scores = (next(v for k, v in found.items() if k.endswith(e)) for e in ('/Logits', '/Predictions'))\n",
    ),
    "keras": (
        "keras",
        "import keras, mobilenet_hub\n"
        "found = keras.saving.load_model(path)(images, return_endpoints=True)\n"
        "found = {k: keras.ops.convert_to_numpy(v) for k, v in found.items()}\n"
        "logits, scores = (next(v for k, v in found.items() if k.endswith(e)) for e in ('/Logits', '/Predictions'))\n",
    ),
    "litert": (
        "ai_edge_litert",
        "from ai_edge_litert.interpreter import Interpreter\n"
        "run = Interpreter(path).get_signature_runner('serving_default')\n"
        "both = [run(**{next(iter(run.get_input_details())): images[i : i + 1]}) for i in range(len(images))]\n"
        "logits, scores = (np.concatenate([b[n] for b in both]) for n in ('logits', 'probabilities'))\n",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", _RUNTIMES)
def test_other_programs_get_the_scores_that_classify_gives(name, tmp_path):
    """Each format's own runtime, in a process of its own: raw logits, and probabilities at the temperature."""
    import subprocess
    import sys
    from dataclasses import replace

    package, code = _RUNTIMES[name]
    pytest.importorskip(package, reason=f"runs {name}")
    if name == "keras":
        pytest.importorskip("torch", reason="a backend of Keras")
    from mobilenet_hub.exporting.export import export
    from mobilenet_hub.inference.classify import Classifier
    from mobilenet_hub.module_folder import read_module, write_module
    from mobilenet_hub.store import resolve

    module = read_module(resolve("starter"))
    config = replace(module.config, variant=replace(module.config.variant, temperature=0.5))
    folder = write_module(tmp_path / "m", replace(module, config=config))
    images = np.random.default_rng(0).random((2, *config.image_size, 3), np.float32)
    suffix = {"keras": ".keras", "litert": ".tflite"}.get(name, "")
    wanted = {"outputs": ("logits", "probabilities")} if name == "litert" else {}
    export(folder, name, tmp_path / f"out{suffix}", **wanted)
    np.save(tmp_path / "images.npy", images)
    script = (
        f"import numpy as np\npath, images = {str(tmp_path / f'out{suffix}')!r}, np.load('images.npy')\n{code}"
        "np.savez('said.npz', logits=np.asarray(logits), scores=np.asarray(scores))"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True)
    said = np.load(tmp_path / "said.npz")
    classifier = Classifier(folder, "f32")
    expected = classifier.engine.run(images)["logits"]
    assert np.abs(said["logits"] - expected).max() < 1e-3  # two float32 programs
    assert np.abs(said["scores"] - classifier.engine.scores(expected)).max() < 1e-4
    assert np.abs(said["scores"] - softmax(expected)).max() > 0.01  # and not those without it
