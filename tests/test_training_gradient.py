import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import DivergedError, InputError
from mobilenet_hub.evaluation.dataset import read_dataset
from mobilenet_hub.evaluation.evaluate import predict
from mobilenet_hub.evaluation.metrics import measure
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.training.augment import Augmentation, Batches, decode_pictures, vary
from mobilenet_hub.training.frozen import FrozenOptions, fit_frozen
from mobilenet_hub.training.gradient import fine_tune, train_from_scratch
from mobilenet_hub.training.history import Epoch, History
from mobilenet_hub.training.schedule import GradientOptions, Schedule
from mobilenet_hub.training.state import Checkpoint, read_checkpoint, write_checkpoint

keras = pytest.importorskip("keras", reason="training by gradient descent needs Keras")
# JAX compiles half a minute for each run: there, the tests without this mark stand for all.
many_runs = pytest.mark.skipif(keras.backend.backend() == "jax", reason="takes minutes of compiling on JAX")

SIZE = (32, 32)
NETWORK = ModuleConfig("mobilenet_v1", 0.25, SIZE)
OPTIONS = GradientOptions(epochs=4, batch_size=8, learning_rate=0.01, warmup=0.5, decay=0.5, batch_norm_momentum=0.8)


def silent(what, done, total):
    pass


def make_photos(folder: Path, counts=(24, 24), seed=5) -> Path:
    """Two classes that a colour tells apart, under noise."""
    random = np.random.default_rng(seed)
    for label, count in enumerate(counts):
        (folder / "rb"[label]).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 100, (*SIZE, 3))
            pixels[..., 2 * label] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "rb"[label] / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "set")


@pytest.fixture(scope="module")
def dataset(photos):
    return read_dataset(photos)


def scratch(dataset, work, options=OPTIONS, on_progress=silent):
    return train_from_scratch(dataset, NETWORK, options=options, work=work, on_progress=on_progress)


def assert_same_weights(left: Module, right: Module) -> None:
    for name, array in left.weights.items():
        np.testing.assert_array_equal(array, right.weights[name], err_msg=name)


@pytest.fixture(scope="module")
def trained(dataset, tmp_path_factory):
    return scratch(dataset, tmp_path_factory.mktemp("work"))


@many_runs
def test_a_network_learns_what_can_be_learned(dataset, tmp_path):
    loss, accuracy = scratch(dataset, tmp_path, replace(OPTIONS, epochs=12)).curves
    assert max(value for _, value in accuracy.lines["validation"]) == 1.0
    first, *_, last = (value for _, value in loss.lines["training"])
    assert last < first


@many_runs
def test_the_seed_makes_a_run_repeatable_and_another_seed_another_run(dataset, trained, tmp_path):
    assert_same_weights(scratch(dataset, tmp_path / "again").module, trained.module)
    other = scratch(dataset, tmp_path / "other", replace(OPTIONS, seed=1)).module
    assert any((other.weights[name] != array).any() for name, array in trained.module.weights.items())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [pytest.param(1, marks=many_runs), 4, pytest.param(9, marks=many_runs)])
def test_a_stopped_run_ends_as_if_it_had_never_stopped(dataset, trained, tmp_path, monkeypatch, stop):
    monkeypatch.setattr("mobilenet_hub.training.gradient._CHECKPOINT_S", 0)
    steps = []

    def count(what, done, total):
        if what.startswith("training"):
            steps.append(done)
            if len(steps) == stop + 1:  # the step before it is on disk
                raise Stopped

    with pytest.raises(Stopped):
        scratch(dataset, tmp_path, on_progress=count)
    steps_before = len(steps)
    assert_same_weights(scratch(dataset, tmp_path, on_progress=count).module, trained.module)
    assert steps[steps_before] == steps[stop]  # it went on there, not at the beginning


@many_runs
@pytest.mark.slow
def test_a_killed_process_leaves_a_state_that_the_next_one_goes_on_from(photos, dataset, tmp_path):
    script = (
        "import sys; from pathlib import Path\n"
        "from mobilenet_hub.training import gradient\n"
        "gradient._CHECKPOINT_S = 0\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_training_gradient import scratch, read_dataset, replace, OPTIONS\n"
        "scratch(read_dataset(sys.argv[1]), Path(sys.argv[2]), replace(OPTIONS, epochs=400))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(photos), str(tmp_path)])
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("checkpoint-*.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    before = []
    options = replace(OPTIONS, epochs=400)

    def first(what, done, total):
        if what.startswith("training"):
            before.append(done)
            raise Stopped

    with pytest.raises(Stopped):
        scratch(dataset, tmp_path, options, first)
    assert before[0] > options.batch_size


@many_runs
def test_more_epochs_go_on_from_the_fall_of_a_finished_run(dataset, trained, tmp_path):
    longer = replace(OPTIONS, epochs=6)
    whole = scratch(dataset, tmp_path / "whole", longer)
    scratch(dataset, tmp_path / "parts")
    steps = []
    extended = scratch(dataset, tmp_path / "parts", longer, lambda what, done, total: steps.append(what))
    assert_same_weights(extended.module, whole.module)
    steps = [step for step in steps if step == "training"]  # the test photos are decoded before it
    assert steps[0].detail.startswith("epoch 3 of 6")


@many_runs
def test_what_is_neither_photo_nor_label_nor_setting_of_a_run_is_not_resumed(dataset, trained, tmp_path):
    scratch(dataset, tmp_path)
    steps = []
    scratch(dataset, tmp_path, replace(OPTIONS, learning_rate=0.02), lambda what, done, total: steps.append(what))
    steps = [step for step in steps if step == "training"]  # the test photos are decoded before it
    assert steps[0].detail.startswith("epoch 1 of 4")


@many_runs
def test_test_photos_change_nothing(photos, trained, tmp_path):
    for example in read_dataset(photos).examples:
        copy = tmp_path / "set" / example.split / example.name  # given parts: the split goes by the photos' content
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(example.path.read_bytes())
        if example.split == "test":
            Image.fromarray(np.full((*SIZE, 3), 7 * example.label, np.uint8)).save(copy)
            with copy.open("ab") as stream:
                stream.write(example.name.encode())  # so that no two are the same photo
    changed = read_dataset(tmp_path / "set")
    assert len(changed.part("test")) == len(read_dataset(photos).part("test"))
    assert_same_weights(scratch(changed, tmp_path / "work").module, trained.module)


@many_runs
def test_a_file_that_is_no_photo_is_left_out_and_named(tmp_path):
    folder = make_photos(tmp_path / "set")
    bad = next(e.path for e in read_dataset(folder).part("train"))
    bad.write_bytes(b"not a photo")
    fitted = scratch(read_dataset(folder), tmp_path / "work", replace(OPTIONS, epochs=1))
    assert [skip.path for skip in fitted.dataset.skipped] == [bad]


@many_runs
def test_unbalanced_classes_are_weighted(tmp_path):
    folder = make_photos(tmp_path / "set", (40, 8))
    fitted = scratch(read_dataset(folder), tmp_path / "work", replace(OPTIONS, epochs=1))
    assert fitted.settings["class_weights"] == "balanced"
    assert "unbalanced" in fitted.warnings[0]


def with_head(dataset, trained, work, strength=None):
    options = FrozenOptions(strength=strength)
    return fit_frozen(dataset, trained.module, options=options, work=work, on_progress=silent)


@pytest.fixture(scope="module")
def head(dataset, trained, tmp_path_factory):
    return with_head(dataset, trained, tmp_path_factory.mktemp("head"), 1000.0)  # a poor one, that can be improved on


def tune(head, work, **changes):
    options = replace(OPTIONS, epochs=10, decay=1.0, **changes)
    return fine_tune(head.dataset, head.module, options=options, work=work, on_progress=silent)


@many_runs
def test_fine_tuning_lowers_the_validation_loss(head, tmp_path):
    line = tune(head, tmp_path).curves[0].lines["validation"]
    assert line[0][0] == 0
    assert min(value for _, value in line) < line[0][1]


@many_runs
def test_fine_tuning_keeps_what_is_better_on_the_validation_photos(head, tmp_path):
    tuned = tune(head, tmp_path)
    assert tuned.settings["share_of_fine_tuning"] in (0.25, 0.5, 0.75, 1.0)
    examples = head.dataset.part("validation")
    labels = np.array([example.label for example in examples])
    of_head, of_tuned = (
        measure(predict(Classifier(module), examples)[0], labels) for module in (head.module, tuned.module)
    )
    assert of_tuned.loss < of_head.loss
    assert of_tuned.accuracy >= of_head.accuracy


def test_fine_tuning_that_only_harms_gives_back_the_start(dataset, trained, tmp_path):
    head = with_head(dataset, trained, tmp_path / "head")
    options = replace(OPTIONS, learning_rate=50.0, warmup=0, patience=2)
    tuned = fine_tune(head.dataset, head.module, options=options, work=tmp_path, on_progress=silent)
    assert_same_weights(tuned.module, head.module)
    assert tuned.settings["epochs_trained"] == 2


@many_runs
@pytest.mark.parametrize(("rate", "validation"), [(50.0, 0.0), (1e20, 0.2)])  # without bound, no number at all
def test_what_has_diverged_is_never_kept(photos, trained, tmp_path, rate, validation):
    dataset = read_dataset(photos, validation=validation)
    wild = replace(OPTIONS, learning_rate=rate, warmup=0)
    with pytest.raises(DivergedError, match=r"diverged: the mean loss was .* in epoch 1.*lower learning rate than"):
        scratch(dataset, tmp_path, wild)
    head = with_head(dataset, trained, tmp_path / "head")
    tuned = fine_tune(head.dataset, head.module, options=wild, work=tmp_path, on_progress=silent)
    assert_same_weights(tuned.module, head.module)
    assert "diverged" in tuned.warnings[-1]
    assert "classifier on the network as it was" in tuned.warnings[-1]
    assert json.dumps([curve.lines for curve in tuned.curves], allow_nan=False)


def test_the_best_epoch_before_a_divergence_is_known():
    def history(*losses, training=0.5):
        return History([Epoch(n, training if n else None, loss, None, 0.0) for n, loss in enumerate(losses)])

    def told(history):
        return [epoch and epoch.number for epoch in (history.best, history.diverged)]

    assert told(history(0.7, 0.6, 0.5, 0.5, 0.6)) == [3, None]
    assert told(history(0.7, 0.6, 1e15, 0.9)) == [1, 2]
    assert told(history(0.7, 30.0, 0.6)) == [2, None]  # it came back
    assert told(history(0.7, float("nan"), float("inf"))) == [None, 1]
    assert told(history(0.7)) == [None, None]
    assert told(history(None, None, None)) == [2, None]  # no validation photos: the last
    assert told(history(None, None, training=float("nan"))) == [None, 1]
    assert history(None, None, training=float("nan")).is_over(None)
    assert history(0.5, 0.7, float("nan")).is_over(2)
    assert not history(0.5, 0.7, 1e15, 0.4).is_over(2)


def test_the_command_says_what_to_do_where_training_diverges(photos, tmp_path, capsys):
    words = ["train", str(photos), "-o", str(tmp_path / "out"), "--from-scratch", "--quiet"]
    words += ["--architecture", "mobilenet_v1", "--depth-multiplier", "0.25", "--image-size", "32", "--epochs", "1"]
    assert main([*words, "--learning-rate", "1e20"]) == 2
    assert "A lower learning rate than 1e+20 may do" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_fine_tuning_wants_a_module_with_these_labels(dataset, trained, tmp_path):
    other = Module(replace(trained.module.config, labels=("x", "y")), trained.module.weights)
    with pytest.raises(InputError, match="other labels"):
        fine_tune(dataset, other, work=tmp_path, on_progress=silent)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"batch_size": 1},
        {"patience": 0},
        {"warmup": -1},
        {"dropout_rate": 1.0},
        {"coarse_size": (0, 0)},
        {"class_weights": "balancd"},
        {"precision": "f16"},
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(change):
    with pytest.raises(InputError, match=f"{next(iter(change))} must be .*, not "):
        replace(OPTIONS, **change)
    with pytest.raises(InputError, match="min_area"):
        Augmentation(min_area=0.0)


def test_the_schedule_rises_stays_and_falls():
    options = GradientOptions(epochs=10, learning_rate=1.0, warmup=2, decay=0.3, coarse_size=(16, 16))
    schedule = Schedule(options, 5, (32, 32))
    rates = [schedule.learning_rate(step) for step in range(schedule.steps)]
    assert rates[9:36] == [1.0] * 27
    assert (np.diff(rates[:10]) > 0).all()
    assert (np.diff(rates[35:]) < 0).all()
    assert min(rates) > 0
    assert [schedule.size(step) for step in (0, 34, 35, 49)] == [(16, 16), (16, 16), (32, 32), (32, 32)]


def test_moving_statistics_follow_the_first_steps_and_then_keep_their_momentum():
    """What they began with counts for nothing after a short run, and a long one is as it was asked for."""
    schedule = Schedule(replace(OPTIONS, batch_norm_momentum=0.99), 5, (32, 32))
    momenta = np.array([schedule.batch_norm_momentum(step) for step in range(1000)])
    assert (np.diff(momenta) >= 0).all()
    assert momenta[:20].prod() < 1e-6
    assert momenta[880] < 0.99 == momenta[890] == momenta[999]


def test_an_epoch_shows_every_photo_once_in_a_new_order():
    batches = Batches(np.zeros((12, 4, 4, 3), np.uint8), np.arange(12), 4, 0, Augmentation())
    epochs = [np.concatenate([batches.indices(step) for step in range(3 * e, 3 * e + 3)]) for e in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert (epochs[0] != epochs[1]).any()


def test_batches_made_ahead_are_those_made_one_by_one():
    random = np.random.default_rng(0)
    batches = Batches(random.integers(0, 256, (10, 16, 16, 3), np.uint8), np.arange(10), 4, 3, Augmentation())
    for step, (images, labels) in zip(range(2, 7), batches.run(range(2, 7), [(8, 8)] * 5), strict=True):
        again, same = batches.make(step, (8, 8))
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, same)
        assert images.dtype == np.float32
        assert 0 <= images.min() <= images.max() <= 1


def test_without_augmentation_a_photo_is_shown_as_it_is():
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    plain = Augmentation(min_area=1, mirror=False, brightness=0)
    np.testing.assert_array_equal(vary(picture, (16, 16), plain, np.random.default_rng(1)), picture)


@pytest.mark.parametrize("least", [0.25, 0.5, 1.0])
def test_a_crop_shows_at_least_the_share_of_the_photo_asked_for(least):
    rows, columns = np.mgrid[0:64, 0:64]  # each pixel tells its own place
    picture = np.stack([rows, columns, 0 * rows], -1).astype(np.uint8)
    shown = Augmentation(min_area=least, brightness=0)
    areas = []
    for seed in range(200):
        view = vary(picture, (64, 64), shown, np.random.default_rng(seed)).astype(int)
        height, width = np.ptp(view[..., 0]) + 1, np.ptp(view[..., 1]) + 1
        areas.append(height * width / 64**2)
    assert min(areas) > least - 0.04  # an edge pixel is a mean of two
    assert least == 1 or min(areas) < least + 0.1


def test_pictures_are_decoded_once(dataset, tmp_path):
    told = []
    for _ in range(2):
        pixels, skipped = decode_pictures(
            dataset.part("train"), Preprocessing(SIZE), tmp_path, lambda what, done, total: told.append(done)
        )
    assert told == [len(dataset.part("train"))]
    assert pixels.shape == (told[0], *SIZE, 3)
    assert skipped == ()
    np.testing.assert_array_equal(pixels[0], np.asarray(Image.open(dataset.part("train")[0].path)))


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_damaged_checkpoint_is_none(tmp_path, keep):
    file = tmp_path / "state.safetensors"
    write_checkpoint(file, Checkpoint("run", {"w": np.ones(50, np.float32), "n": np.array(3)}, {"step": 3}))
    whole = read_checkpoint(file, "run")
    assert whole is not None
    assert whole.arrays["n"].shape == ()
    assert read_checkpoint(file, "another run") is None
    file.write_bytes(file.read_bytes()[:keep])
    assert read_checkpoint(file, "run") is None
