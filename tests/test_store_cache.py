"""The cache's folder: where it is, what counts as an entry, what damage is noticed, what removal leaves."""

import fcntl
import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest
from modules import SMALL, network_of, snapshot, write_plain
from tensorflow_files import some_weights

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.errors import InvalidModuleError
from mobilenet_hub.store import cache
from mobilenet_hub.store.cache import Origin, abandoned, cache_folder, check, entries, entry_folder, install, remove


@pytest.fixture
def entry():
    """An entry with its record, as a pull leaves it."""
    module = find_module(SMALL)
    work = cache.work_folder(SMALL)
    staged = write_plain(work / "module", module, some_weights(network_of(module)))
    files = {file.name: cache.describe_file(file) for file in staged.iterdir()}
    folder = install(staged, Origin(SMALL, "tfhub", "https://tfhub.dev", "2026-01-01T00:00:00+00:00", None, files))
    cache.tidy(SMALL)
    return folder


def test_the_variable_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("MOBILENET_HUB_CACHE", "~/mine")
    assert cache_folder() == Path.home() / "mine"


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, ".cache/mobilenet-hub"),
        ("linux", {"XDG_CACHE_HOME": "/elsewhere"}, "/elsewhere/mobilenet-hub"),
        ("darwin", {}, "Library/Caches/mobilenet-hub"),
    ],
)
def test_the_platforms_places(monkeypatch, platform, variables, expected):
    monkeypatch.delenv("MOBILENET_HUB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache_folder() == Path.home() / expected


def test_a_sound_entry(entry):
    check(entry)
    (found,) = entries()
    assert (found.handle, found.path, found.origin.source) == (SMALL, entry, "tfhub")
    assert found.size == sum(file.stat().st_size for file in entry.iterdir())
    assert sorted(path.name for path in cache_folder().iterdir()) == ["google"]


def test_any_changed_byte_is_noticed(entry):
    for file in entry.iterdir():
        whole = file.read_bytes()
        for at in {0, len(whole) // 3, len(whole) - 2}:
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            if file.name == "origin.json" and at == len(whole) - 2:
                continue  # the closing brace: covered by the case below
            damage = cache.damage_of(entry)
            assert damage is None or str(file) in str(damage) or "weights.safetensors" in str(damage)
            assert damage is not None or file.name == "origin.json"
        file.write_bytes(whole)
    check(entry)


@pytest.mark.parametrize(
    "record",
    ["", "{", "[]", "null", "{}", '{"handle": 1}', '"text"', "[" * 100_000],
    ids=lambda text: text[:10],
)
def test_a_damaged_record_is_named(entry, record):
    (entry / "origin.json").write_text(record)
    with pytest.raises(InvalidModuleError, match=r"origin\.json is damaged"):
        check(entry)


@pytest.mark.parametrize("files", [{}, {"../../x": {}}, {"module.json": 1}, [], {"module.json": {}}])
def test_a_record_that_lists_nonsense_is_named(entry, files):
    data = json.loads((entry / "origin.json").read_text())
    (entry / "origin.json").write_text(json.dumps(data | {"files": files}))
    with pytest.raises(InvalidModuleError, match=r"origin\.json is damaged"):
        check(entry)


def test_installing_replaces_and_leaves_nothing(entry):
    module = find_module(SMALL)
    staged = write_plain(cache.work_folder(SMALL) / "module", module, some_weights(network_of(module), seed=1))
    files = {file.name: cache.describe_file(file) for file in staged.iterdir()}
    before = (entry / "weights.safetensors").read_bytes()
    install(staged, Origin(SMALL, "gcs", "https://x", "2026-01-02T00:00:00+00:00", None, files))
    cache.tidy(SMALL)
    check(entry)
    assert (entry / "weights.safetensors").read_bytes() != before
    assert sorted(path.name for path in cache_folder().iterdir()) == ["google"]


def test_removal_leaves_nothing_of_it_and_all_of_the_rest(entry):
    other = "google/imagenet/mobilenet_v1_025_128/feature_vector/5"
    write_plain(entry_folder(other), find_module(other), some_weights(network_of(find_module(other))))
    rest = snapshot(entry_folder(other))
    assert remove(SMALL)
    assert not entry.exists()
    assert snapshot(entry_folder(other)) == rest
    assert remove(other)
    assert list(cache_folder().iterdir()) == []
    assert not remove(other)


def test_what_killed_pulls_left_is_found_and_tidied(entry):
    work = cache.work_folder(SMALL)
    work.mkdir(parents=True)
    (work / "archive.part").write_bytes(b"half")
    cache.lock_file(SMALL).write_text("dead process")
    assert abandoned() == [SMALL]
    with cache.locked(cache.lock_file(SMALL)):
        assert abandoned() == []  # its owner lives
    cache.tidy(SMALL)
    assert abandoned() == []
    assert not work.parent.exists()
    check(entry)


def test_the_empty_folder_of_an_owner_killed_at_its_very_end_is_tidied(entry):
    cache.work_folder(SMALL).parent.mkdir()
    cache.tidy(SMALL)
    assert sorted(path.name for path in cache_folder().iterdir()) == ["google"]


def test_what_an_owner_leaves_that_is_killed_while_others_tidy_is_removed(entry):
    lock, taken = cache.lock_file(SMALL), threading.Event()

    def hold():
        lock.parent.mkdir(parents=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            taken.set()
            time.sleep(0.1)  # then gone, as a killed process is: the file stays

    owner = threading.Thread(target=hold)
    owner.start()
    taken.wait()
    cache.tidy(SMALL)
    owner.join()
    assert not lock.parent.exists()


def test_a_cache_that_is_not_there_is_empty(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / "absent"))
    assert list(entries()) == []
    assert abandoned() == []
    assert not (tmp_path / "absent").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_is_read(entry):
    folders = [entry, *entry.parents[: len(entry.relative_to(cache_folder()).parts)]]
    for folder in folders:
        folder.chmod(0o555)
    try:
        check(entry)
        cache.tidy(SMALL)
    finally:
        for folder in folders:
            folder.chmod(0o755)
