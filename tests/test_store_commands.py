"""`mobilenet pull` and `mobilenet cache`, through the command line itself."""

import json

import pytest
from modules import SMALL, published_archive

from mobilenet_hub.cli.main import main
from mobilenet_hub.store.cache import cache_folder, entry_folder, work_folder

OTHER = "google/imagenet/mobilenet_v1_025_128/feature_vector/5"


@pytest.fixture(autouse=True)
def mirror(tmp_path, monkeypatch):
    """A folder with the archives of two modules."""
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    for name in (SMALL, OTHER):
        place = tmp_path / "mirror" / f"{name}.tar.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(published_archive(tmp_path / name, name)[0])
    return tmp_path / "mirror"


def run(capsys, *words):
    status = main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_pull_prints_the_folders(capsys):
    assert run(capsys, "pull", SMALL, OTHER) == (0, f"{entry_folder(SMALL)}\n{entry_folder(OTHER)}\n", "")


def test_pull_as_json(capsys):
    status, out, _ = run(capsys, "pull", "mobilenet_v1_025_128/feature_vector", "--json")
    (pulled,) = json.loads(out)
    assert status == 0
    assert pulled["handle"] == OTHER
    assert pulled["path"] == str(entry_folder(OTHER))
    assert pulled["source"] == "mirror"


def test_pull_names_what_it_could_not_have(capsys):
    status, out, err = run(capsys, "pull", SMALL, "mobilenet_v2_035_96/classification")
    assert (status, out) == (1, f"{entry_folder(SMALL)}\n")
    assert "mobilenet_v2_035_96/classification" in err
    assert "MOBILENET_HUB_OFFLINE" in err
    status, out, err = run(capsys, "pull", "mobilenet_v3")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert run(capsys, "pull", "mobilenet_v3", "mobilenet_v4")[0] == 2


def test_pull_again_by_force(capsys):
    run(capsys, "pull", SMALL)
    inode = entry_folder(SMALL).stat().st_ino
    run(capsys, "pull", SMALL)
    assert entry_folder(SMALL).stat().st_ino == inode
    assert run(capsys, "pull", SMALL, "--force")[0] == 0
    assert entry_folder(SMALL).stat().st_ino != inode


def test_cache_list(capsys):
    assert run(capsys, "cache", "list") == (0, "", "0 modules, 0.0 MB\n")
    run(capsys, "pull", SMALL, OTHER)
    status, out, err = run(capsys, "cache", "list")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[2:]] == [SMALL, OTHER]
    assert err.startswith("2 modules, 1.8 MB")
    (row,) = json.loads(run(capsys, "cache", "list", SMALL, "--json")[1])
    assert (row["handle"], row["source"], row["path"]) == (SMALL, "mirror", str(entry_folder(SMALL)))


def test_cache_verify_and_repair(capsys, mirror):
    run(capsys, "pull", SMALL, OTHER)
    assert run(capsys, "cache", "verify")[0] == 0
    weights = entry_folder(SMALL) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    status, out, err = run(capsys, "cache", "verify")
    assert status == 1
    assert [line.split()[1] for line in out.splitlines()[2:]] == ["damaged", "sound"]
    assert str(weights) in err
    status, out, _ = run(capsys, "cache", "verify", "--repair", "--json")
    assert status == 0
    assert [row["state"] for row in json.loads(out)] == ["repaired", "sound"]
    weights.unlink()
    (mirror / f"{SMALL}.tar.gz").unlink()
    status, out, err = run(capsys, "cache", "verify", "--repair", SMALL)
    assert status == 1
    assert "could not be repaired" in err


def test_cache_verify_tidies_after_killed_pulls(capsys):
    work_folder(SMALL).mkdir(parents=True)
    status, _, err = run(capsys, "cache", "verify")
    assert status == 0
    assert "unfinished pull" in err
    assert list(cache_folder().iterdir()) == []


def test_cache_remove(capsys):
    run(capsys, "pull", SMALL, OTHER)
    assert run(capsys, "cache", "remove")[0] == 2
    assert run(capsys, "cache", "remove", SMALL, "--all")[0] == 2
    assert run(capsys, "cache", "remove", "mobilenet_v1_025_128/feature_vector/4") == (0, "", f"removed {SMALL}\n")
    status, _, err = run(capsys, "cache", "remove", SMALL)
    assert status == 2
    assert "not in the cache" in err
    assert run(capsys, "cache", "remove", "--all")[0] == 0
    assert list(cache_folder().iterdir()) == []


def test_cache_path(capsys):
    assert run(capsys, "cache", "path")[1] == f"{cache_folder()}\n"
    assert run(capsys, "cache", "path", "mobilenet_v1_025_128/feature_vector/4")[1] == f"{entry_folder(SMALL)}\n"
    assert json.loads(run(capsys, "cache", "path", "--json")[1]) == [str(cache_folder())]


def test_a_module_put_there_by_hand_can_be_listed_and_removed(capsys):
    run(capsys, "pull", SMALL)
    mine = cache_folder() / "mine" / "flowers"
    mine.parent.mkdir()
    entry_folder(SMALL).rename(mine)
    (mine / "origin.json").unlink()
    _, out, _ = run(capsys, "cache", "list", "--json")
    assert [(row["handle"], row["source"]) for row in json.loads(out)] == [("mine/flowers", "by hand")]
    assert run(capsys, "cache", "verify")[0] == 0
    assert run(capsys, "cache", "remove", "mine/flowers")[0] == 0
    assert not mine.exists()
