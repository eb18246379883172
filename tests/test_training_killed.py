"""kill -9 at any moment of a training run: the same command makes the same module, and nothing is left behind."""

import json
import os
import random
import re
import shutil
import time

import pytest
from killed_training import Trainer
from reference_network import random_weights
from test_training_frozen import paint

from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL"),
]
ROUNDS = int(os.environ.get("MOBILENET_HUB_TEST_ROUNDS", "2"))  # of killing, for each method; more by hand
SMALL = ["--epochs", "3", "--batch-size", "8"]
METHODS = {
    "frozen": [],
    "fine-tune": ["--fine-tune", *SMALL],
    "from-scratch": ["--from-scratch", "--image-size", "32", *SMALL],
}
TIMES = re.compile(r"[\d.e+-]+ s, all included|(?<=training seconds)(\W|<[^>]*>)*[\d.e+-]+")


def contents(folder):
    """What a module folder says, the times that it took aside."""
    found = {file.name: file.read_bytes() for file in folder.iterdir()}
    metrics = json.loads(found.pop("metrics.json"))
    metrics.pop("seconds")
    metrics["settings"].pop("training_seconds", None)
    metrics["facts"].pop("Time and versions")
    metrics["facts"]["Settings"].pop("training seconds", None)
    texts = {name: TIMES.sub("", found.pop(name).decode()) for name in ("report.html", "README.md")}
    return {**found, **texts, "metrics.json": metrics}


def entries(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name not in ("log", "errors"))


@pytest.fixture(params=METHODS)
def killed(request, tmp_path):
    """A trainer, what one run of it that nobody stops makes, what it does to the disk, and its seconds."""
    if request.param != "frozen":
        keras = pytest.importorskip("keras", reason="training by gradient descent needs Keras")
        if keras.backend.backend() == "jax":
            pytest.skip("takes minutes of compiling on JAX")
    paint(tmp_path / "photos", {"red": 14, "Grün": 14}, size=32)
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 2, labels=("a", "b"))
    write_module(tmp_path / "base", Module(config, random_weights(config.network)))
    (tmp_path / "tmp").mkdir()
    words = ["train", "photos", "-o", "out", "--module", "base", "--quiet", *METHODS[request.param]]
    trainer = Trainer(tmp_path, words, needs_keras=request.param != "frozen")
    trainer.run()  # the first one may compile something
    shutil.rmtree(tmp_path / "out")
    start = time.monotonic()
    status, changes = trainer.run()
    assert status == 0, (tmp_path / "errors").read_text()
    return trainer, contents(tmp_path / "out"), entries(tmp_path), changes, time.monotonic() - start


def test_a_killed_run_ends_as_if_it_had_never_been_killed(killed):
    """Half of the moments are any of the run, half are just before one of the things that it does to the disk."""
    trainer, whole, there, changes, seconds = killed
    root, chance, killings = trainer.root, random.Random(len(changes)), 0
    for number in range(ROUNDS):
        shutil.rmtree(root / "out")
        if number % 2:
            moment = {"kill_after_s": chance.uniform(0, seconds)}
        else:
            moment = {"kill_at_change": chance.randrange(len(changes) - 1)}
        killings += trainer.run(**moment)[0] == -9
        status, _ = trainer.run()
        errors = (root / "errors").read_text()
        assert status == 0 or (status == 2 and "out exists" in errors), (moment, errors)  # it was done already
        assert contents(root / "out") == whole, moment
        assert entries(root) == there, moment
    assert killings >= ROUNDS // 2
