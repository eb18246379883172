"""A published module in its own format (Kaggle's folder, an archive) goes wherever a module is asked for.

The same weights as a module folder, which every command takes, are the measure.
"""

import json
from importlib.util import find_spec

import numpy as np
import pytest
from modules import published_archive
from small_photos import jpeg

from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.inference.bench import bench
from mobilenet_hub.inference.embed import Embedder
from mobilenet_hub.weights.convert import convert

HANDLE = "google/imagenet/mobilenet_v1_025_128/feature_vector/3"
PLACE = "input/mobilenet-v1/tensorflow1/025-128-feature-vector/2"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """The same module in each form, by the form's name; and `work`, with photos in it."""
    root = tmp_path_factory.mktemp("own")
    folder = root / PLACE
    folder.mkdir(parents=True)
    archive, _ = published_archive(folder, HANDLE)
    (root / "module.tar.gz").write_bytes(archive)
    convert(folder, root / "converted")
    (root / "photos").mkdir()
    for number in range(6):
        (root / "photos" / f"{number}.jpg").write_bytes(jpeg(number))
    return {
        "folder": str(folder),
        "address": folder.as_uri(),
        "archive": str(root / "module.tar.gz"),
        "converted": str(root / "converted"),
        "photos": root / "photos",
        "root": root,
    }


@pytest.mark.parametrize("form", ["folder", "address", "archive"])
def test_embedded_searched_and_grouped_as_the_converted_module(places, form, tmp_path, capsys):
    photos, module = str(places["photos"]), places[form]
    before = sorted(places["root"].rglob("*"))
    assert main(["embed", photos, "-o", str(tmp_path / "features"), "--module", module, "--quiet"]) == 0
    capsys.readouterr()
    query = [str(places["photos"] / "3.jpg"), "--in", str(tmp_path / "features"), "-k", "1", "--json"]
    assert main(["similar", *query, "--module", module]) == 0
    assert "3.jpg" in capsys.readouterr().out
    # The weights are what counts, and not the form that they come in.
    assert main(["similar", *query, "--module", places["converted"]]) == 0
    for name, used in (("mine", module), ("theirs", places["converted"])):
        assert main(["dedupe", photos, "-o", str(tmp_path / f"{name}.csv"), "--module", used, "--quiet"]) == 0
    mine, theirs = ((tmp_path / f"{name}.csv").read_text() for name in ("mine", "theirs"))
    assert mine == theirs
    assert sorted(places["root"].rglob("*")) == before  # nothing is written beside a module


@pytest.mark.parametrize("form", ["folder", "address", "archive"])
def test_measured_and_served(places, form):
    if find_spec("starlette") is None:
        pytest.skip("needs the extra mobilenet-hub[serve]")
    from mobilenet_hub.serve.served import FEATURES, Modules, Options

    assert bench(places[form], seconds=0.05).inference > 0
    served = Modules().add(places[form], Options("f32"))
    assert served.name == ("module.tar.gz" if form == "archive" else "mobilenet_v1_025_128-feature_vector")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3), np.uint8)
    want = Embedder(places["converted"], "f32").engine.run(pictures)[FEATURES]
    np.testing.assert_allclose(served.engine((FEATURES,)).run(pictures)[FEATURES], want, rtol=1e-5, atol=1e-5)


def test_trained_like(places, tmp_path, capsys):
    """`--from-scratch` takes the network and its image size from a module."""
    from mobilenet_hub.cli.train import _new_network

    class Asked:
        module, image_size, architecture, depth_multiplier = places["folder"], None, None, None

    network, size = _new_network(Asked)  # type: ignore[arg-type]
    assert (network.name, network.depth_multiplier, size) == ("mobilenet_v1", 0.25, (128, 128))


def test_converted_by_address(places, tmp_path):
    convert(places["address"], tmp_path / "module")
    assert (tmp_path / "module/weights.safetensors").read_bytes() == (
        places["root"] / "converted/weights.safetensors"
    ).read_bytes()


def test_the_folder_around_the_versions_says_which_there_are(places):
    with pytest.raises(InvalidModuleError, match=f"did you mean {places['folder']}"):
        Embedder(places["folder"].rpartition("/")[0])


def test_kaggles_path_says_the_image_size_where_the_files_do_not(tmp_path):
    """Version 4 of a MobileNet V1 takes any size, and has no description that says at which it was trained."""
    name = "google/imagenet/mobilenet_v1_025_192/classification/4"
    folder = tmp_path / "models/google/mobilenet-v1/tensorFlow2/025-192-classification/1"
    folder.mkdir(parents=True)
    archive, _ = published_archive(folder, name)
    assert main(["convert", str(folder), "-o", str(tmp_path / "by path"), "--quiet"]) == 0
    file = tmp_path / "mobilenet-v1-tensorflow2-025-192-classification-v1.tar.gz"
    file.write_bytes(archive)
    assert main(["convert", str(file), "-o", str(tmp_path / "by name"), "--quiet"]) == 0
    for made in ("by path", "by name"):
        assert json.loads((tmp_path / made / "module.json").read_text())["image_size"] == [192, 192]


def test_evaluated(places, tmp_path, capsys):
    """Photos in folders of ImageNet's names; nobody trained the weights, and so any accuracy will do."""
    name = "google/imagenet/mobilenet_v1_025_128/classification/4"
    folder = tmp_path / "mobilenet-v1/tensorflow2/025-128-classification/1"
    folder.mkdir(parents=True)
    published_archive(folder, name)
    for first, label in enumerate(("tench", "goldfish")):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(3 * first, 3 * first + 3):
            (tmp_path / "photos" / label / f"{number}.jpg").write_bytes(jpeg(number))
    assert main(["evaluate", str(folder), str(tmp_path / "photos"), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)
