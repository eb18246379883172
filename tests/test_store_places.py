"""Where modules are looked for: addresses, order, other tools' caches. No connection is opened here."""

import hashlib

import pytest

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.catalog.published import published_modules
from mobilenet_hub.errors import InputError
from mobilenet_hub.store.places import SOURCES, candidates, configured_sources

V2 = find_module("google/imagenet/mobilenet_v2_130_224/feature_vector/4")
V1 = find_module("google/imagenet/mobilenet_v1_025_128/classification/3")


@pytest.fixture(autouse=True)
def no_other_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    for name in ("MOBILENET_HUB_MIRROR", "MOBILENET_HUB_SOURCES"):
        monkeypatch.delenv(name, raising=False)


def places(module):
    return [str(candidate.place) for candidate in candidates(module)]


def test_the_published_addresses_in_order():
    assert places(V2) == [
        "https://tfhub.dev/google/imagenet/mobilenet_v2_130_224/feature_vector/4?tf-hub-format=compressed",
        "https://storage.googleapis.com/tfhub-modules/google/imagenet/mobilenet_v2_130_224/feature_vector/4.tar.gz",
        "https://www.kaggle.com/api/v1/models/google/mobilenet-v2/TensorFlow2/130-224-feature-vector/1/download",
        "https://storage.googleapis.com/mobilenet_v2/checkpoints/mobilenet_v2_1.3_224.tgz",
    ]
    assert places(V1)[-1].endswith("/download.tensorflow.org/models/mobilenet_v1_2018_02_22/mobilenet_v1_0.25_128.tgz")


def test_every_address_is_encrypted_and_the_checkpoint_is_marked():
    for module in published_modules():
        found = list(candidates(module))
        assert [candidate.source for candidate in found] == ["tfhub", "gcs", "kaggle", "slim"]
        assert all(str(candidate.place).startswith("https://") for candidate in found)
        assert [candidate.is_checkpoint for candidate in found] == [False, False, False, True]


def test_the_checkpoint_is_the_one_that_the_catalog_names():
    for module in published_modules():
        checkpoint = list(candidates(module))[-1].place
        assert checkpoint.rpartition("/")[2] == module.checkpoint_url.rpartition("/")[2]


def test_sources_can_be_chosen_ordered_and_moved(monkeypatch):
    monkeypatch.setenv("MOBILENET_HUB_SOURCES", "slim=http://127.0.0.1:1/slim/, tfhub=http://hub.local")
    assert configured_sources() == {"slim": "http://127.0.0.1:1/slim", "tfhub": "http://hub.local"}
    assert places(V2) == [
        "http://127.0.0.1:1/slim/mobilenet_v2/checkpoints/mobilenet_v2_1.3_224.tgz",
        "http://hub.local/google/imagenet/mobilenet_v2_130_224/feature_vector/4?tf-hub-format=compressed",
    ]


def test_an_unknown_source_is_refused(monkeypatch):
    monkeypatch.setenv("MOBILENET_HUB_SOURCES", "tfhub,torrent")
    with pytest.raises(InputError, match="'torrent'; the sources are tfhub-cache"):
        list(candidates(V2))


def test_a_mirror_comes_before_the_published_addresses(monkeypatch):
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", "https://mirror.local/hub/")
    assert places(V2)[:3] == [
        "https://mirror.local/hub/google/imagenet/mobilenet_v2_130_224/feature_vector/4?tf-hub-format=compressed",
        "https://mirror.local/hub/google/imagenet/mobilenet_v2_130_224/feature_vector/4.tar.gz",
        "https://mirror.local/hub/mobilenet_v2_1.3_224.tgz",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "google/imagenet/mobilenet_v2_130_224/feature_vector/4.tar.gz",
        "google/imagenet/mobilenet_v2_130_224/feature_vector/4.tgz",
        "google/imagenet/mobilenet_v2_130_224/feature_vector/4",
        "google_imagenet_mobilenet_v2_130_224_feature_vector_4.tar.gz",
        "imagenet_mobilenet_v2_130_224_feature_vector_4.tar.gz",
        "google/mobilenet-v2/tensorFlow2/130-224-feature-vector/1.tar.gz",
        "mobilenet-v2-tensorflow2-130-224-feature-vector-v1.tar.gz",
        "mobilenet_v2_1.3_224.tgz",
    ],
)
def test_archives_in_a_folder_are_found_by_handle_and_as_browsers_save_them(monkeypatch, tmp_path, name):
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", str(tmp_path))
    archive = tmp_path / name
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.write_bytes(b"")
    first = next(candidates(V2))
    assert (first.place, first.server) == (archive, "")
    assert first.is_checkpoint == name.startswith("mobilenet_v2_1.3")


def test_unpacked_modules_in_a_folder_are_found(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", f"file://{tmp_path}")
    folder = tmp_path / V2.handle
    folder.mkdir(parents=True)
    assert next(candidates(V2)).source == "tfhub"  # an empty folder is nothing
    (folder / "saved_model.pb").write_bytes(b"")
    assert next(candidates(V2)).place == folder


# Known names of tensorflow_hub's cache: SHA-1 of the handle as given.
@pytest.mark.parametrize(
    ("handle", "sha1"),
    [
        ("google/imagenet/mobilenet_v2_130_224/feature_vector/4", "dac19711178b9e63c2e1682de8d72861d59bef56"),
        ("google/imagenet/mobilenet_v1_025_128/classification/3", "f356297ac994a3c91208a4a0ec4d4fc13034fa2b"),
        ("google/tf2-preview/mobilenet_v2/classification/4", "426589ad685896ab7954855255a52db3442cb38d"),
        ("google/imagenet/mobilenet_v2_100_224/feature_vector/5", "5a2fc00b609485c742fba2c65fadaca6c99a835c"),
    ],
)
def test_the_cache_of_tensorflow_hub(monkeypatch, tmp_path, handle, sha1):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    (tmp_path / sha1).mkdir()
    module = find_module(handle)
    assert next(candidates(module)).source == "tfhub"  # an empty folder is nothing
    (tmp_path / sha1 / "saved_model.pb").write_bytes(b"")
    first = next(candidates(module))
    assert (first.source, first.place, first.server) == ("tfhub-cache", tmp_path / sha1, "")


@pytest.mark.parametrize(
    "name",
    [
        "http://tfhub.dev/google/imagenet/mobilenet_v2_130_224/feature_vector/4",
        "https://tfhub.dev/google/imagenet/mobilenet_v2_130_224/feature_vector/4/",
        "https://www.kaggle.com/models/google/mobilenet-v2/TensorFlow2/130-224-feature-vector/1",
        "https://www.kaggle.com/models/google/mobilenet-v2/tensorFlow2/130-224-feature-vector/1",
        "https://kaggle.com/models/google/mobilenet-v2/frameworks/TensorFlow2/variations/130-224-feature-vector/versions/1",
    ],
)
def test_other_spellings_in_the_cache_of_tensorflow_hub(monkeypatch, tmp_path, name):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    folder = tmp_path / hashlib.sha1(name.encode()).hexdigest()
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    assert next(candidates(V2)).place == folder


@pytest.mark.parametrize("framework", ["tensorFlow2", "TensorFlow2", "tensorflow2"])
def test_the_cache_of_kagglehub(monkeypatch, tmp_path, framework):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    folder = tmp_path / "models" / "google" / "mobilenet-v2" / framework / "130-224-feature-vector" / "1"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    first = next(candidates(V2))
    assert first.source == "kagglehub-cache"
    assert first.place.samefile(folder)


def test_the_default_order():
    assert list(SOURCES) == ["tfhub-cache", "kagglehub-cache", "mirror", "tfhub", "gcs", "kaggle", "slim"]
