"""Any name of a module to its folder."""

from pathlib import Path

import pytest
from modules import SMALL, network_of, write_plain
from tensorflow_files import some_weights

import mobilenet_hub
from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.errors import InvalidModuleError, ModuleUnavailableError, OfflineError, UnknownModuleError
from mobilenet_hub.store import open_module, resolve
from mobilenet_hub.store.cache import entry_folder
from mobilenet_hub.store.resolve import STARTER


@pytest.fixture
def folder(tmp_path):
    return write_plain(tmp_path / "mine", find_module(SMALL), some_weights(network_of(find_module(SMALL))))


@pytest.fixture
def entry():
    return write_plain(entry_folder(SMALL), find_module(SMALL), some_weights(network_of(find_module(SMALL))))


def test_it_is_public():
    assert mobilenet_hub.resolve is resolve


def test_a_folder_by_path(folder, monkeypatch):
    assert resolve(folder) == folder
    assert resolve(str(folder)) == folder
    monkeypatch.chdir(folder.parent)
    assert resolve("mine").samefile(folder)
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve("~/mine") == folder
    assert open_module(folder).config.num_classes == 0


@pytest.mark.parametrize(
    "name",
    [
        SMALL,
        f"https://tfhub.dev/{SMALL}",
        f"http://tfhub.dev/{SMALL}/",
        "mobilenet_v1_025_128/feature_vector/4",
        "google/mobilenet-v1/TensorFlow2/025-128-feature-vector/1",
        "https://www.kaggle.com/models/google/mobilenet-v1/tensorFlow2/025-128-feature-vector/1",
    ],
)
def test_a_cached_module_by_any_name(entry, name):
    assert resolve(name) == entry


def test_a_folder_with_a_module_wins_over_a_handle(entry, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder.parent / SMALL).parent.mkdir(parents=True)
    assert resolve(SMALL) == entry
    (folder.parent / SMALL).mkdir()
    assert resolve(SMALL) == entry  # an empty folder of that name is no module
    folder.rename(folder.parent / SMALL)
    assert resolve(SMALL).samefile(folder.parent / SMALL)


def test_the_starter():
    if (STARTER / "module.json").is_file():
        assert open_module("starter").config.num_classes > 0
    else:
        with pytest.raises(ModuleUnavailableError, match="reinstall"):
            resolve("starter")


def test_what_is_not_here():
    with pytest.raises(OfflineError, match="MOBILENET_HUB_OFFLINE"):
        resolve(SMALL)
    with pytest.raises(ModuleUnavailableError, match="not on this machine"):
        resolve(SMALL, fetch=False)


def test_what_is_no_module(tmp_path):
    with pytest.raises(InvalidModuleError, match="mobilenet convert"):
        resolve(tmp_path)
    with pytest.raises(InvalidModuleError, match="mobilenet convert"):
        resolve(str(tmp_path))
    for missing in (tmp_path / "absent", str(tmp_path / "absent"), "./absent", Path("absent")):
        with pytest.raises(ModuleUnavailableError, match="does not exist"):
            resolve(missing)
    with pytest.raises(UnknownModuleError, match="versions are 1, 3, 4"):
        resolve("mobilenet_v1_025_128/feature_vector/2")


def test_a_damaged_file_of_a_users_folder_is_named(folder):
    (folder / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(InvalidModuleError, match=r"weights\.safetensors"):
        open_module(folder)
