"""Training on several devices: JAX makes two of one CPU."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from small_photos import make_classes

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError
from mobilenet_hub.training.runtime import on_devices
from mobilenet_hub.training.schedule import GradientOptions

TRAIN = """
import json, sys
from dataclasses import replace
import numpy as np
from mobilenet_hub.architecture import architecture
from mobilenet_hub.training import gradient
from mobilenet_hub.training.schedule import FROM_SCRATCH
from mobilenet_hub.training.train import train

devices, found, step = int(sys.argv[1]), [], gradient._Run._train_step

def watched(self, images, labels):
    step(self, images, labels)
    found.append((self.loss, len(self.model.trainable_variables[0].value.sharding.device_set)))

gradient._Run._train_step = watched  # looks on, and changes nothing
options = replace(FROM_SCRATCH, epochs=2, batch_size=8, precision="f32", dropout_rate=0.0, devices=devices)
network = architecture("mobilenet_v1", 0.25, 0)
done = train("photos", f"on{devices}", method="from-scratch", network=network, image_size=32, gradient=options)
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("jax") is None or find_spec("keras") is None, reason="needs Keras with JAX")
def test_two_devices_compute_what_one_does(tmp_path):
    """The first step's loss is the same but for the order of sums, and so are the weights that it leaves.

    Later steps are not compared: so small a network normalises next to nothing by its variance over eight photos, and
    what was 1e-5 after one step is tenths after three, with any change of the order of sums.
    """
    make_classes(tmp_path, 33)
    two = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": two, "JAX_PLATFORMS": "cpu"}
    losses = {}
    for devices in (1, 2):
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(devices)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        steps = json.loads(done.stdout.splitlines()[-1])
        assert {count for _, count in steps} == {devices}
        losses[devices] = [loss for loss, _ in steps]
    assert len(losses[1]) >= 4
    assert losses[2][0] == pytest.approx(losses[1][0], abs=1e-4)
    assert losses[2][1] == pytest.approx(losses[1][1], abs=2e-3)


def test_what_cannot_share_is_refused(tmp_path, monkeypatch, capsys):
    for backend in ("torch", "tensorflow"):
        with pytest.raises(InputError, match="needs JAX, the one backend"), on_devices(2, backend):
            pass
    with on_devices(1, "torch"):
        pass
    with pytest.raises(InputError, match="devices must be a whole number from 1 that the batch of 64 is a multiple of"):
        GradientOptions(epochs=1, devices=3)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "photos", "--devices", "2"]) == 2
    assert "--devices is for --fine-tune or --from-scratch" in capsys.readouterr().err
