"""`train` with a frozen network: from folders of coloured squares to a module that classifies as its report says."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference_network import random_weights

import mobilenet_hub as hub
from mobilenet_hub.architecture import architecture
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import AccuracyError, InputError, OutputError
from mobilenet_hub.evaluation.dataset import read_dataset
from mobilenet_hub.host.locks import LOCK_FILE, claimed
from mobilenet_hub.host.ownership import note_in_work
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import read_module, write_module
from mobilenet_hub.training.frozen import FrozenOptions
from mobilenet_hub.training.result import Fitted
from mobilenet_hub.training.schedule import GradientOptions
from mobilenet_hub.training.train import train

COLORS = {"blue sky": (40, 80, 220), "Grün": (40, 200, 60), "red": (220, 50, 40)}


def paint(folder, counts, size=48, seed=0):
    """Noisy squares of each class's colour; noise enough for a few mistakes."""
    random = np.random.default_rng(seed)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            color = np.array(COLORS[label]) + random.normal(0, 55, 3)
            pixels = np.clip(color + random.normal(0, 60, (size, size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"photo {i}.png")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 7, labels=tuple("abcdefg"))
    return write_module(tmp_path_factory.mktemp("base") / "base", Module(config, random_weights(config.network)))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("data") / "colours", dict.fromkeys(COLORS, 40))


@pytest.fixture
def trained(photos, base, tmp_path):
    return train(photos, tmp_path / "out", module=base)


def photos_csv(folder):
    with (folder / "photos.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_result_is_a_module_folder_with_all_that_belongs_to_it(trained, base):
    module = read_module(trained.path)
    assert module.config.labels == trained.labels == tuple(sorted(COLORS))
    assert trained.accuracy > 0.6  # three classes; random features of colours still tell most apart
    frozen = read_module(base)
    for name, array in module.weights.items():
        if "Logits" not in name:
            assert np.array_equal(array, frozen.weights[name])
    assert {path.name for path in trained.path.iterdir()} == {
        "module.json", "weights.safetensors", "labels.txt", "metrics.json", "report.html", "README.md", "photos.csv",
    }  # fmt: skip
    assert not trained.path.with_name("out.work").exists()
    metrics = json.loads((trained.path / "metrics.json").read_text("utf-8"))
    assert metrics["test"]["accuracy"] == pytest.approx(trained.accuracy, abs=1e-6)
    assert metrics["test"]["interval"][0] < trained.accuracy <= metrics["test"]["interval"][1]
    assert metrics["test"]["images"] + metrics["validation"]["images"] + metrics["train"]["images"] == 120
    texts = [(trained.path / name).read_text("utf-8") for name in ("metrics.json", "README.md", "report.html")]
    assert all(str(trained.path.parent) not in text for text in texts)


def test_classify_and_evaluate_agree_with_the_reported_accuracy(trained, photos):
    rows = [row for row in photos_csv(trained.path) if row["split"] == "test"]
    predictions = hub.Classifier(trained.path).classify([photos / row["photo"] for row in rows], top=1)
    assert [p.indices[0] for p in predictions] == [int(row["predicted"]) for row in rows]
    assert [p.scores[0] for p in predictions] == pytest.approx([float(row["score"]) for row in rows], abs=1e-4)
    right = sum(p.labels[0] == Path(row["photo"]).parts[0] for p, row in zip(predictions, rows, strict=True))
    assert right / len(rows) == trained.accuracy
    evaluation = hub.evaluate(trained.path, photos, unseen=True)
    assert evaluation.accuracy == trained.accuracy
    assert evaluation.metrics.images == len(rows)


def test_evaluating_on_its_own_training_photos_is_pointed_out(trained, photos):
    evaluation = hub.evaluate(trained.path, photos)
    seen = sum(row["split"] != "test" for row in photos_csv(trained.path))
    assert f"{seen} of these 120 photos" in evaluation.warnings[0]


def test_the_same_command_gives_the_same_bytes_and_another_seed_another_split(trained, photos, base, tmp_path):
    again = train(photos, tmp_path / "again", module=base)
    other = train(photos, tmp_path / "other", module=base, seed=5)
    weights = [(path / "weights.safetensors").read_bytes() for path in (trained.path, again.path, other.path)]
    assert weights[0] == weights[1] != weights[2]


def test_held_out_photos_never_influence_training(trained, photos, base, tmp_path):
    """Spoil every test photo, and plant spoiled copies as well: not a bit of the classifier changes.

    The parts are given, as the split goes by the photos' content.
    """
    spoiled = tmp_path / "colours"
    for row in photos_csv(trained.path):
        target = spoiled / row["split"] / row["photo"]
        target.parent.mkdir(parents=True, exist_ok=True)
        if row["split"] == "test":
            Image.fromarray(np.random.default_rng(int(row["sha1"][:8], 16)).integers(0, 255, (9, 9, 3), np.uint8)).save(
                target
            )
            (target.parent / f"copy of {target.name}").write_bytes(target.read_bytes())
        else:
            target.write_bytes((photos / row["photo"]).read_bytes())
    result = train(spoiled, tmp_path / "spoiled", module=base)
    assert (result.path / "weights.safetensors").read_bytes() == (trained.path / "weights.safetensors").read_bytes()
    assert "copies" in result.warnings[0]
    assert result.accuracy < trained.accuracy


def test_bad_files_are_named_and_left_out(base, tmp_path, capsys):
    folder = paint(tmp_path / "photos", {"red": 25, "Grün": 25})
    (folder / "red/broken.jpg").write_bytes(b"\xff\xd8\xff not a photo")
    (folder / "red/empty.png").write_bytes(b"")
    (folder / "Grün/readme.txt").write_text("hello")
    (folder / "no photos").mkdir()
    status = main(["train", str(folder), "-o", str(tmp_path / "out"), "--module", str(base)])
    captured = capsys.readouterr()
    assert status == 1
    assert all(name in captured.err for name in ("broken.jpg", "empty.png", "'no photos'"))
    assert "1 file that is no picture was passed over: 1 .txt" in captured.err
    assert "test" in captured.out
    skipped = json.loads((tmp_path / "out/metrics.json").read_text("utf-8"))["skipped"]
    assert {entry["path"] for entry in skipped} == {"red/broken.jpg", "red/empty.png"}


def test_one_photo_in_a_class_works_and_is_cautioned_about(base, tmp_path):
    folder = paint(tmp_path / "photos", {"red": 30, "Grün": 30, "blue sky": 1})
    result = train(folder, tmp_path / "out", module=base)
    assert len(result.labels) == 3
    assert any("'blue sky' (1)" in warning for warning in result.warnings)
    assert any("unbalanced" in warning for warning in result.warnings)
    assert result.settings["class_weights"] == "balanced"


def test_assert_accuracy_writes_nothing_below_it(photos, base, tmp_path):
    with pytest.raises(AccuracyError, match=r"below the 1 asked"):
        train(photos, tmp_path / "out", module=base, assert_accuracy=1.0)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.work/result/report.html").exists()
    train(photos, tmp_path / "out", module=base, assert_accuracy=0.1)


def test_an_existing_output_is_kept_unless_told(trained, photos, base):
    with pytest.raises(OutputError, match="overwrite"):
        train(photos, trained.path, module=base)
    assert train(photos, trained.path, module=base, overwrite=True).accuracy == trained.accuracy


def test_only_a_module_is_ever_replaced(photos, base, tmp_path):
    """Asked to overwrite it, training must not delete what is no module, least of all the photos."""
    kept = sorted(photos.rglob("*"))
    (tmp_path / "file").write_text("a thesis")
    for output, what in ((photos, "something else"), (photos.parent, "something else"), (tmp_path / "file", "a file")):
        with pytest.raises(OutputError, match=what):
            train(photos, output, module=base, overwrite=True)
    (module_of_photos := tmp_path / "mine").mkdir()
    (module_of_photos / "module.json").write_text('{"format": 1, "architecture": "mobilenet_v1"}')
    (module_of_photos / "photos").symlink_to(photos)
    with pytest.raises(OutputError, match="holds the photos"):
        train(module_of_photos / "photos", module_of_photos, module=base, overwrite=True)
    assert sorted(photos.rglob("*")) == kept
    assert (tmp_path / "file").read_text() == "a thesis"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"method": "thawed"}, "method"),
        ({"gradient": GradientOptions(epochs=1)}, "gradient says nothing to the method frozen"),
        ({"network": architecture("mobilenet_v1", 0.25, 0)}, "network says nothing"),
        ({"image_size": (32, 0)}, "image size"),
        ({"image_size": True}, "image size"),
        ({"method": "from-scratch"}, "needs a network"),
        ({"method": "from-scratch", "network": architecture("mobilenet_v1", 0.25, 0), "image_size": -5}, "image size"),
    ],
)
def test_bad_arguments_leave_nothing(photos, base, tmp_path, arguments, what):
    with pytest.raises(InputError, match=what):
        train(photos, tmp_path / "out", module=base, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options", [{"views": 0}, {"strength": -1.0}, {"class_weights": "balancd"}, {"precision": "f16"}]
)
def test_options_that_mean_nothing_are_refused_by_name(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} must be .*, not "):
        FrozenOptions(**options)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--epochs", "3"], "--epochs is for --fine-tune or --from-scratch"),
        (["--architecture", "mobilenet_v1"], "--architecture is for --from-scratch"),
        (["--fine-tune", "--depth-multiplier", "0.5"], "--depth-multiplier is for --from-scratch"),
        (["--from-scratch", "--views", "2"], "--views is for training from a module"),
        (["--class-weights", "balancd"], "--class-weights must be"),
        (["--from-scratch", "--image-size", "0"], "image size"),
    ],
)
def test_options_that_say_nothing_are_refused(photos, tmp_path, capsys, options, what):
    assert main(["train", str(photos), "-o", str(tmp_path / "out"), *options]) == 2
    assert what in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "name", "multiplier", "size"),
    [
        ([], "mobilenet_v2", 1.0, (224, 224)),
        (["--module", "mobilenet_v1_050_160/feature_vector"], "mobilenet_v1", 0.5, (160, 160)),
        (["--module", "mobilenet_v1_050_160/classification", "--depth-multiplier", "0.1", "--image-size", "48x64"],
         "mobilenet_v1", 0.1, (48, 64)),
        (["--module", "starter", "--architecture", "mobilenet_v2"], "mobilenet_v2", 0.5, (160, 160)),
    ],
)  # fmt: skip
def test_a_new_network_is_as_asked_for_or_as_the_module(monkeypatch, options, name, multiplier, size):
    asked = {}
    monkeypatch.setattr("mobilenet_hub.training.train.train", lambda *a, **k: asked.update(k) or 1 / 0)
    assert main(["train", "photos", "-o", "out", "--from-scratch", *options]) == 2
    network = asked["network"]
    assert (network.name, network.depth_multiplier, asked["image_size"]) == (name, multiplier, size)


def test_a_seed_below_zero_is_refused(photos, tmp_path, capsys):
    assert main(["train", str(photos), "-o", str(tmp_path / "out"), "--seed", "-1"]) == 2
    assert "the seed must be a whole number from 0, not -1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("validation", [0.2, 0.0])
def test_without_test_photos_nothing_claims_that_they_chose_nothing(photos, base, tmp_path, validation):
    result = train(photos, tmp_path / "out", module=base, test=0, validation=validation)
    judged = "validation" if validation else "train"
    assert result.judged_on == judged
    assert any("no test photos" in warning for warning in result.warnings)
    for name in ("README.md", "report.html"):
        text = (result.path / name).read_text("utf-8")
        assert "chose nothing" not in text, name
        assert "test photos neither" not in text, name
    assert f"On {result.metrics[judged].images} {judged} photos" in (result.path / "README.md").read_text("utf-8")
    assert "which flatters it" in (result.path / "README.md").read_text("utf-8")


def test_the_last_measurement_is_one_stage_over_all_photos(photos, base, tmp_path):
    """Where the engine has to answer once more for every photo: after training by gradient descent."""
    from mobilenet_hub.training import train as module_of_train

    told = []
    result = train(photos, tmp_path / "out", module=base)
    dataset = read_dataset(photos)
    fitted = Fitted(read_module(result.path), dataset, (), {})
    module_of_train._with_probabilities(fitted, FrozenOptions(), lambda *a: told.append(a), None)
    assert {(str(stage), total) for stage, _, total in told} == {("measuring", 120)}
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert done[-1] == 120


def test_names_that_are_no_unicode(base, tmp_path):
    """Of the set, of a class, of a photo and of a file that is none: shown with the bytes escaped."""
    odd = os.fsdecode(b"odd \xff")
    photos = paint(tmp_path / odd, {"red": 20, "blue sky": 20}, size=24)
    (photos / "red").rename(photos / odd)
    (photos / odd / "photo 0.png").rename(photos / odd / f"{odd}.png")
    (photos / "blue sky" / f"{odd} too.png").write_bytes(b"no picture")
    result = train(photos, tmp_path / "out", module=base)
    assert result.labels == ("blue sky", r"odd \xff")
    assert any(r"odd \xff/odd \xff.png" in row["photo"] for row in photos_csv(tmp_path / "out"))
    json.loads((tmp_path / "out" / "metrics.json").read_text("utf-8"))
    evaluation = hub.evaluate(tmp_path / "out", photos)
    evaluation.write_report(tmp_path / "report.html")
    assert len(evaluation.outcomes) == 40


def test_views_of_training_photos_only(photos, base, tmp_path):
    plain = train(photos, tmp_path / "a", module=base, frozen=FrozenOptions(views=1), work=tmp_path / "work")
    more = train(photos, tmp_path / "b", module=base, frozen=FrozenOptions(views=3), work=tmp_path / "work")
    assert plain.metrics["train"].images == more.metrics["train"].images
    assert (plain.path / "weights.safetensors").read_bytes() != (more.path / "weights.safetensors").read_bytes()


def test_a_killed_run_goes_on_where_it_was(base, tmp_path):
    folder = paint(tmp_path / "photos", {"red": 700, "Grün": 700}, size=32)
    arguments = ["train", folder, "-o", tmp_path / "out", "--module", base, "--quiet", "--views", "6"]
    command = [sys.executable, "-m", "mobilenet_hub.cli.main", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    work = tmp_path / "out.work"
    deadline = time.monotonic() + 60
    while not list(work.glob("features-*.npz")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    kept = list(work.glob("features-*.npz"))
    assert kept
    told = []
    resumed = train(
        folder, tmp_path / "out", module=base, frozen=FrozenOptions(views=6), on_progress=lambda *a: told.append(a)
    )
    whole = train(folder, tmp_path / "whole", module=base, frozen=FrozenOptions(views=6))
    assert told[0][1] > 0  # began with what was there
    weights = [read_module(path).weights for path in (resumed.path, whole.path)]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not work.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("imagenette_small", 0.90), ("ants_bees", 0.86)])
def test_googles_network_on_real_photos(name, least, shared, tmp_path):
    import zipfile

    from mobilenet_hub.weights.convert import load_source

    with zipfile.ZipFile(shared(f"datasets/{name}.zip")) as archive:
        archive.extractall(tmp_path / name)
    base = write_module(tmp_path / "base", load_source(shared("weights/slim_frozen/mobilenet_v1_0.25_224_frozen.tgz")))
    results = [
        train(tmp_path / name, tmp_path / f"out{seed}", module=base, seed=seed, work=tmp_path / "work")
        for seed in range(12)
    ]
    assert np.mean([result.accuracy for result in results]) >= least  # measured: 90.5 % and 87.2 %


def test_work_of_others_is_not_touched(photos, base, tmp_path):
    """A folder beside the output that only looks like the work's, the photos, a run under way: refused, not removed."""
    thesis = tmp_path / "out.work" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("years")
    with pytest.raises(OutputError, match="holds something else than unfinished work"):
        train(photos, tmp_path / "out", module=base)
    shutil.copytree(photos, tmp_path / "pets.work")
    with pytest.raises(OutputError, match="lie in each other"):
        train(tmp_path / "pets.work", tmp_path / "pets", module=base)
    with pytest.raises(OutputError, match="lie in each other"):
        train(photos, photos / "red" / "out", module=base)
    (tmp_path / "mine" / "result").mkdir(parents=True)
    (tmp_path / "mine" / "result" / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="something else"):
        train(photos, tmp_path / "new", module=base, work=tmp_path / "mine")
    lock = tmp_path / "busy.work" / LOCK_FILE
    with claimed(lock, lock.parent), pytest.raises(OutputError, match="another process"):
        train(photos, tmp_path / "busy", module=base)
    with claimed(tmp_path / f".busy{LOCK_FILE}", tmp_path), pytest.raises(OutputError, match="another process"):
        train(photos, tmp_path / "busy", module=base, work=tmp_path / "other")
    assert thesis.read_text() == "years"
    assert len(list((tmp_path / "pets.work").rglob("*.*"))) == len(list(photos.rglob("*.*")))
    assert not (tmp_path / "new").exists()


def test_what_somebody_puts_into_the_work_of_a_run_stays(photos, base, tmp_path):
    """Also where the folder bears our mark: of a run that was killed, or copied from one."""
    (tmp_path / "out.work").mkdir()
    note_in_work(tmp_path / "out.work", "out")
    shutil.copytree(base, tmp_path / "out.work" / "result")
    for name in ("thesis.txt", "result/thesis.txt", "features-of-my-house.txt"):
        (tmp_path / "out.work" / name).write_text("years")
    train(photos, tmp_path / "out", module=base)
    left = {p.relative_to(tmp_path).as_posix() for p in (tmp_path / "out.work").rglob("*") if p.is_file()}
    assert left == {f"out.work/{name}" for name in ("thesis.txt", "result/thesis.txt", "features-of-my-house.txt")}


def test_what_is_not_ours_stays_where_a_module_is_replaced(photos, base, tmp_path):
    out = train(photos, tmp_path / "out", module=base).path
    (out / "thesis.txt").write_text("years")
    (out / "notes").mkdir()
    (out / "notes" / "a.txt").write_text("days")
    train(photos, out, module=base, overwrite=True, seed=1)
    assert (out / "thesis.txt").read_text() == "years"
    assert (out / "notes" / "a.txt").read_text() == "days"
    (out / "README.md").write_text("my own words")
    with pytest.raises(OutputError, match=r"README\.md was not written by this program"):
        train(photos, out, module=base, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_failure_after_training_keeps_what_was_trained(photos, base, tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mobilenet_hub.training.places.shutil.copy2", full)
        with pytest.raises(OutputError, match=r"No space left.*out\.work: the same command goes on"):
            train(photos, tmp_path / "out", module=base)
    assert (tmp_path / "out.work" / "result" / "module.json").exists()
    told = []
    train(photos, tmp_path / "out", module=base, on_progress=lambda *a: told.append(a))
    assert told[0][1] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_run_killed_after_its_last_writing_leaves_nothing(photos, base, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("mobilenet_hub.training.train.clear_work", lambda *_: None)
        train(photos, tmp_path / "out", module=base)
    assert (tmp_path / "out.work").exists()
    with pytest.raises(OutputError, match="exists"):
        train(photos, tmp_path / "out", module=base)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_no_file_of_a_result_says_where_the_photos_lie(base, tmp_path):
    """A table of absolute paths, some of them bad: the reasons and the names in the result hold no path of it."""
    home = tmp_path / "home" / "somebody"
    folder = paint(home / "photos", {"red": 25, "Grün": 25})
    for number, name in enumerate(("red/torn.jpg", "Grün/empty.png", "Grün/gone.jpg")):
        if number < 2:
            (folder / name).write_bytes(b"\xff\xd8\xff not a photo"[: -20 * number])
    rows = [f"{p},{p.parent.name}" for p in sorted(folder.rglob("*.*"))] + [f"{folder / 'Grün' / 'gone.jpg'},Grün"]
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "table.csv"
    table.write_text("\n".join(["path,label", *rows]))
    result = train(table, tmp_path / "out", module=base)
    assert len(result.skipped) == 3
    for file in result.path.iterdir():
        assert b"somebody" not in file.read_bytes(), file
