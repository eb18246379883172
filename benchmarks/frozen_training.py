"""How long a classifier on a frozen network takes: `mobilenet train` against Keras with the network in the loop.

    python benchmarks/frozen_training.py MODULE FOLDER [--epochs 10] [--seeds 1]

Both get the same module, photos and split. Keras trains as the TF Hub documents do: Sequential([KerasLayer(module,
trainable=False), Dense]), Adam, batches of 32, decoded images already in memory, and the time of decoding, importing
and building left out; `mobilenet train` is timed whole, from listing the folder to writing the report. The backend is
Keras's choice: KERAS_BACKEND.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

import mobilenet_hub as hub
from mobilenet_hub.evaluation.dataset import read_dataset
from mobilenet_hub.images.load import load_image


def with_keras(module: str, dataset, epochs: int) -> tuple[float, float]:
    """Seconds of `fit` and the accuracy on the test photos."""
    import keras

    layer = hub.KerasLayer(module, trainable=False)
    size = hub.Embedder(module).image_size

    def arrays(split):
        examples = dataset.part(split)
        images = np.stack([load_image(example.path, size) for example in examples])
        return images.astype(np.float32) / 255, np.array([example.label for example in examples])

    train, validation, test = map(arrays, ("train", "validation", "test"))
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layer, keras.layers.Dense(len(dataset.labels), activation="softmax")])
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.build((None, *size, 3))
    start = time.perf_counter()
    model.fit(*train, validation_data=validation, epochs=epochs, batch_size=32, verbose=0)
    seconds = time.perf_counter() - start
    return seconds, float((model.predict(test[0], verbose=0).argmax(1) == test[1]).mean())


def with_mobilenet_train(module: str, folder: str, seed: int) -> tuple[float, float]:
    """Seconds of `train`, all included, and the accuracy on the test photos."""
    with tempfile.TemporaryDirectory() as work:
        start = time.perf_counter()
        result = hub.train(folder, Path(work) / "out", module=module, seed=seed)
        return time.perf_counter() - start, result.accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("module")
    parser.add_argument("folder")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    with_mobilenet_train(args.module, args.folder, 0)  # so that the network is compiled
    rows = []
    for seed in range(args.seeds):
        ours = with_mobilenet_train(args.module, args.folder, seed)
        keras = with_keras(args.module, read_dataset(args.folder, seed=seed), args.epochs)
        rows.append((ours, keras))
        print(
            f"split {seed}: mobilenet train {ours[0]:.1f} s, {ours[1]:.1%}; Keras "
            f"{keras[0]:.1f} s, {keras[1]:.1%}; {keras[0] / ours[0]:.0f} times as long",
            flush=True,
        )
    ours, keras = np.mean(rows, axis=0)
    print(
        f"mean: {ours[0]:.1f} s, {ours[1]:.1%} against {keras[0]:.1f} s, {keras[1]:.1%}: {keras[0] / ours[0]:.0f} times"
    )


if __name__ == "__main__":
    main()
