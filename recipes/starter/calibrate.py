"""The starter's temperature, fitted on Tiny ImageNet's validation images: writes it into the module's module.json.

python recipes/starter/calibrate.py tiny_imagenet.zip src/mobilenet_hub/starter      # under a minute on two cores
"""

import argparse
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from prepare import read_labels

from mobilenet_hub.evaluation.calibration import at_temperature, fit_temperature
from mobilenet_hub.evaluation.metrics import measure
from mobilenet_hub.inference.classify import Classifier
from mobilenet_hub.inference.probabilities import softmax


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archive", type=Path, help="Tiny ImageNet's images")
    parser.add_argument("module", type=Path, help="the module folder")
    args = parser.parse_args()
    classifier = Classifier(args.module, "f32")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(args.archive) as archive:
            names = [n for n in archive.namelist() if "/val/" in f"/{n}" and n.endswith(".webp")]
            archive.extractall(folder, names)
            words = next(n for n in archive.namelist() if n.endswith("words.txt"))
            named = read_labels(archive.read(words).decode())
        known = {wnid: classifier.labels.index(name) for wnid, name in named.items() if name in classifier.labels}
        photos = [(Path(folder) / n, known[Path(n).parent.name]) for n in names if Path(n).parent.name in known]
        logits = classifier.logits([path for path, _ in photos])
    labels = np.array([label for _, label in photos])
    before = softmax(logits)
    temperature = fit_temperature(before, labels)
    for name, values in (("before", before), ("after", at_temperature(before, temperature))):
        metrics = measure(values, labels)
        print(
            f"{name}: {metrics.images} photos, accuracy {metrics.accuracy:.4f}, error {metrics.calibration_error:.4f}"
        )
    chosen = np.random.default_rng(0).random(len(labels)) < 0.5  # of each half with the temperature of the other
    for name, half in (("one half", chosen), ("the other", ~chosen)):
        apart = fit_temperature(before[~half], labels[~half])
        errors = [
            measure(values[half], labels[half]).calibration_error for values in (before, at_temperature(before, apart))
        ]
        print(f"{name}, at {apart} as fitted on the rest: error {errors[0]:.4f} before, {errors[1]:.4f} after")
    file = args.module / "module.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "temperature": temperature}, indent=2) + "\n")
    print("temperature", temperature)


if __name__ == "__main__":
    main()
