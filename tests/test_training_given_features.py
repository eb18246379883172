"""Training on features that `embed` has written, on one machine or on several."""

import json
import shutil

import pytest
from small_photos import jpeg, make_classes

from mobilenet_hub.cli.main import main


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Two classes of photos, and one file that is none."""
    make_classes(tmp_path, 24)
    (tmp_path / "photos" / "ant" / "bad.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def embed(output, *more, inputs="photos"):
    words = ["embed", inputs, "-o", output, "--module", "m", "--precision", "f32", "--quiet", "--shard-size", "8"]
    assert main([*words, *more]) in (0, 1)


def train(output, *more, folder="photos"):
    words = ["train", folder, "-o", output, "--module", "m", "--precision", "f32", "--quiet", "--views", "1"]
    return main([*words, *more])


@pytest.mark.parametrize("name", ["features", "features.parquet", "features.npy"])
def test_it_is_the_classifier_that_decoding_gives(here, name):
    assert train("decoded") == 1
    embed(name)
    assert train("given", "--features", name) == 1
    decoded, given = (json.loads((here / folder / "metrics.json").read_text()) for folder in ("decoded", "given"))
    assert decoded["test"]["accuracy"] == given["test"]["accuracy"]
    from safetensors.numpy import load_file

    weights = [load_file(here / folder / "weights.safetensors") for folder in ("decoded", "given")]
    for key, value in weights[0].items():  # the last bits of a feature depend on its neighbours in a batch
        assert abs(value - weights[1][key]).max() <= 1e-4 * max(1, abs(value).max()), key


def test_features_from_parts_and_from_another_place(here):
    shutil.copytree(here / "photos", here / "elsewhere" / "data")
    for part in range(3):
        embed("features", "--part", f"{part}/3", inputs="elsewhere/data")
    assert train("given", "--features", "features") == 2  # not merged yet
    assert main(["merge", "features", "--quiet"]) == 1
    shutil.rmtree(here / "elsewhere")
    assert train("given", "--features", "features") == 1


def test_what_does_not_fit_is_refused(here, capsys):
    def refused(text, *words, folder="photos"):
        assert train("given", *words, folder=folder) == 2
        said = capsys.readouterr().err
        assert text in said, said
        assert not (here / "given").exists()

    embed("features")
    refused("not finished, or not what", "--features", "photos")
    refused("s3://bucket/f", "--features", "s3://bucket/f")
    refused("is not what `mobilenet embed -o` writes", "--features", "nothing.parquet")
    refused("features must be left out where --views is above 1", "--features", "features", "--views", "3")
    embed("padded", "--fit", "pad")
    refused("fit", "--features", "padded")
    assert main(["classify", "photos", "-o", "labels", "--module", "m", "--quiet"]) == 1
    refused("by `embed`", "--features", "labels")
    (here / "photos" / "bee" / "new.jpg").write_bytes(jpeg(99))
    refused("1 of 26 photos are not in features, the first photos/bee/new.jpg", "--features", "features")
