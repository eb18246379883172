"""Every head that people build on keras.applications' networks, times every format that its library writes.

`python tests/keras_matrix.py [--log FILE] [WORDS...]` converts the whole of it and prints the table (about an hour);
rows that stand in the log are not computed again. The tests take a part in which every head, every format and every
pair of library and network occurs.
"""

import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from keras_heads import (
    BEFORE,
    BEHIND,
    FORMS,
    ONE,
    PIXELS,
    REFUSED,
    SIZE,
    body,
    given,
    preprocess,
    randomized,
    shaken,
    some_images,
)
from reference_network import forward

from mobilenet_hub.errors import MobileNetHubError
from mobilenet_hub.weights.convert import load_source

IMAGES = some_images()
TOLERANCE = 1e-4  # of probabilities and features: float32 sums in another order
LEAST_SPREAD = 0.003  # of the largest number: how far the answers to two images must be apart
LOGITS_TOLERANCE = 5e-4  # of the largest logit


@dataclass(frozen=True)
class Case:
    """A model as somebody builds it."""

    make: Callable  # of the library and the version
    pixels: str = PIXELS  # how it takes its images
    refused: str | None = None  # with which words, where it is


@cache
def _body(keras, version):
    return body(keras, version)


def _behind(name, form="nested"):
    def make(keras, version):
        before = [preprocess(keras, version)] if form == "nested" else []
        behind = BEHIND[name](keras) if name in BEHIND else REFUSED[name][0](keras)
        model = FORMS[form](keras, _body(keras, version), before, behind)
        model.build((None, SIZE, SIZE, 3))
        return shaken(model, _body(keras, version).layers)

    return Case(make, PIXELS if form == "nested" else ONE, REFUSED[name][1] if name in REFUSED else None)


def _before(name, form):
    before, how = BEFORE[name]

    def make(keras, version):
        model = FORMS[form](keras, _body(keras, version), before(keras, version), BEHIND["hidden"](keras))
        model.build((None, SIZE, SIZE, 3))
        return shaken(model)

    return Case(make, how)


def _whole(**options):
    def make(keras, version):
        build = keras.applications.MobileNetV2 if version == 2 else keras.applications.MobileNet
        model = build((SIZE, SIZE, 3), alpha=0.35 if version == 2 else 0.25, weights=None, **options)
        return shaken(randomized(model), model.layers[:-10])

    return Case(make, ONE)


def _partly_frozen(keras, version):
    network = body(keras, version)
    for layer in network.layers[:40:3]:
        layer.trainable = False
    return shaken(FORMS["nested"](keras, network, [preprocess(keras, version)], BEHIND["softmax"](keras)))


CASES = {
    **{name: _behind(name) for name in BEHIND},
    **{f"flat {name}": _behind(name, "flat") for name in ("softmax", "hidden", "sigmoid", "norm_before")},
    **{f"sequential {name}": _behind(name, "sequential") for name in ("softmax", "three_hidden", "average_pooling")},
    **{f"before {name}": _before(name, "nested") for name in BEFORE},
    **{f"sequential before {name}": _before(name, "sequential") for name in BEFORE if "preprocess" not in name},
    "partly frozen": Case(_partly_frozen),
    "with its top": _whole(classifier_activation="softmax"),
    "with its top's logits": _whole(classifier_activation=None),
    "pooled": _whole(include_top=False, pooling="avg"),
    **{f"refused {name}": _behind(name) for name in REFUSED},
}  # fmt: skip


def _json_beside(model, weights):
    weights.with_name("model.json").write_text(model.to_json())
    return weights


def _new_weights(model, folder):
    model.save_weights(folder / "model.weights.h5")
    return _json_beside(model, folder / "model.weights.h5")


def _old_weights(model, folder):
    model.save_weights(folder / "weights.h5")
    return _json_beside(model, folder / "weights.h5")


def _file(ending):
    def write(model, folder):
        model.save(folder / f"model{ending}")
        return folder / f"model{ending}"

    return write


def _model_save(model, folder):
    model.save(folder / "model", save_format="tf")
    return folder / "model"


def _export(model, folder):
    options = {"verbose": False} if "verbose" in model.export.__code__.co_varnames else {}
    model.export(folder / "export", **options)
    return folder / "export"


def _saved_model_save(model, folder):
    import tensorflow as tf

    tf.saved_model.save(model, str(folder / "saved"))
    return folder / "saved"


def _litert(model, folder):
    import tensorflow as tf

    (folder / "model.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return folder / "model.tflite"


def write_tfjs(model, folder):
    """Write what the TensorFlow.js converter writes: the configuration, and weights in the order of layers."""
    names, data = [], []
    for name, array in _named_weights(model):
        names.append({"name": name, "shape": list(array.shape), "dtype": "float32"})
        data.append(np.ascontiguousarray(array, "<f4").tobytes())
    (folder / "group1-shard1of1.bin").write_bytes(b"".join(data))
    topology = {"keras_version": "tfjs", "model_config": json.loads(model.to_json())}
    manifest = [{"paths": ["group1-shard1of1.bin"], "weights": names}]
    about = {"format": "layers-model", "generatedBy": "keras", "modelTopology": topology, "weightsManifest": manifest}
    (folder / "model.json").write_text(json.dumps(about))
    return folder / "model.json"


def _named_weights(model) -> Iterator[tuple[str, np.ndarray]]:
    for layer in model.layers:
        for variable in layer.weights:
            yield variable.name.partition(":")[0], variable.numpy()


FORMATS = {
    "keras": {
        ".keras": _file(".keras"), ".h5": _file(".h5"), ".weights.h5": _new_weights, "export": _export,
        "saved_model.save": _saved_model_save, "LiteRT": _litert,
    },
    "tf_keras": {
        ".keras": _file(".keras"), ".h5": _file(".h5"), ".weights.h5": _new_weights, "weights .h5": _old_weights,
        "model.save": _model_save, "export": _export, "saved_model.save": _saved_model_save, "TF.js": write_tfjs,
        "LiteRT": _litert,
    },
}  # fmt: skip


LIGHT = (".keras", ".h5")  # what is written soon


def part():
    """Yield library, version, head and formats: every head once, every format, all pairs of library and version."""
    turns = {library: [form for form in forms if form not in LIGHT] for library, forms in FORMATS.items()}
    for at, name in enumerate(CASES):
        library = list(FORMATS)[at % 2]
        heavy = turns[library][at // 2 % len(turns[library])]
        if "augmented" in name and library == "keras":
            heavy = "export"  # the others cannot write it
        yield library, 1 + at // 2 % 2, name, (LIGHT[at // 4 % 2], heavy)


def compare(model, path, name):
    """Convert a file; return the greatest difference, or raise AssertionError where it is not what it should be."""
    case = CASES[name]
    words = case.refused
    if "augmented" in name and path.name == "export":
        words = "at random"  # both libraries' export() traces augmentation as in training; its LiteRT has none
    if words:
        try:
            load_source(path)
        except MobileNetHubError as error:
            assert re.search(words, str(error)), f"refused for another reason: {error}"
            return "refused"
        raise AssertionError(f"is taken, and should be refused: {words}")
    module = load_source(path)
    assert module.config.image_size == (SIZE, SIZE)
    wanted = np.asarray(model(given(IMAGES, case.pixels), training=False)).reshape(len(IMAGES), -1)
    logits = "logit" in name
    if module.config.num_classes and not logits:
        assert 0.01 < np.abs(wanted[:, -1]).max() < 0.999 or wanted.shape[1] == 1000, "these answers say nothing"
    assert np.ptp(wanted, axis=0).max() > LEAST_SPREAD * np.abs(wanted).max(), "all images get the same answer"
    ours = answers(module, wanted.shape[1], logits)
    allowed = max(TOLERANCE, LOGITS_TOLERANCE * np.abs(wanted).max() if logits else 0)
    difference = float(np.abs(ours - wanted).max())
    assert difference <= allowed, f"differs by {difference:.2g}"
    return difference


def answers(module, width, logits=False):
    """Return what a module says of `IMAGES`, as wide as its model does: of two classes one unit has the second."""
    found = forward(module.config.network, module.weights, IMAGES)
    ours = found["features" if not module.config.num_classes else "logits" if logits else "Predictions"]
    return ours[:, 1:] - (ours[:, :1] if logits else 0) if width == 1 else ours


def main(words, log=None):
    import traceback
    from importlib import import_module
    from tempfile import TemporaryDirectory

    warnings.simplefilter("ignore")
    before = log.read_text().splitlines() if log and log.exists() else []
    done = {row.partition(" | ")[0] for row in before}
    faults = sum(row.count(": FAULT") for row in before)
    for library in ("keras", "tf_keras"):
        keras = import_module(library)
        for version in (1, 2):
            for name, case in CASES.items():
                title = f"{library} V{version} {name}"
                chosen = [one for one in FORMATS[library] if all(word in f"{title} {one}" for word in words)]
                if not chosen or title in done:
                    continue
                cells = []
                model = case.make(keras, version)
                for one in chosen:
                    with TemporaryDirectory() as folder:
                        try:
                            path = FORMATS[library][one](model, Path(folder))
                        except Exception as error:  # the library cannot write it
                            cells.append(f"{one}: not written ({type(error).__name__} {str(error)[:60]!r})")
                            continue
                        try:
                            result = compare(model, path, name)
                            cells.append(f"{one}: {result if isinstance(result, str) else f'{result:.0e}'}")
                        except Exception as error:  # the table shows all
                            faults += 1
                            cells.append(f"{one}: FAULT {error}")
                            if not isinstance(error, (AssertionError, MobileNetHubError)):
                                traceback.print_exc()
                row = f"{title} | " + " | ".join(cells)
                print(row, flush=True)
                if log:
                    with log.open("a") as lines:
                        lines.write(row + "\n")
    print(f"{faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    given_words = sys.argv[1:]
    logged = Path(given_words[1]) if given_words[:1] == ["--log"] else None
    sys.exit(main(given_words[2:] if logged else given_words, logged))
