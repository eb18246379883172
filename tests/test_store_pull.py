"""Pulling modules from a server that may be honest or not: whole and right, or refused with nothing left behind."""

import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from modules import (
    SMALL,
    checkpoint_archive,
    network_of,
    packed,
    published_archive,
    snapshot,
    write_plain,
    write_published,
)
from servers import Answer, closed_port, serving
from tensorflow_files import some_weights
from test_weights_archive import member, tar

from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.errors import (
    DownloadError,
    InvalidModuleError,
    MobileNetHubError,
    ModuleUnavailableError,
    OfflineError,
    UnknownModuleError,
)
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.store.cache import cache_folder, check, entry_folder, read_origin
from mobilenet_hub.store.download import Policy
from mobilenet_hub.store.pull import pull

QUICK = Policy(timeout_s=1, attempts=2, first_pause_s=0.01, longest_pause_s=0.05)
CLASSIFIER = "google/imagenet/mobilenet_v1_025_128/classification/4"


@pytest.fixture(autouse=True)
def audible(caplog):
    """Undo what other libraries in this process may have done to logging (some disable every logger there is)."""
    logging.disable(logging.NOTSET)
    logger = logging.getLogger("mobilenet_hub")
    logger.disabled, logger.propagate = False, True
    caplog.set_level(logging.WARNING, "mobilenet_hub")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The smallest module's archive and weights."""
    return published_archive(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return checkpoint_archive(tmp_path_factory.mktemp("checkpoint"), SMALL)


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "0")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "kagglehub"))
    monkeypatch.delenv("MOBILENET_HUB_MIRROR", raising=False)
    with serving() as running:
        sources = ["tfhub-cache", "kagglehub-cache", "mirror", *(f"{s}={running.url}/{s}" for s in PUBLISHED)]
        monkeypatch.setenv("MOBILENET_HUB_SOURCES", ",".join(sources))
        yield running


PUBLISHED = {
    "tfhub": f"/tfhub/{SMALL}",
    "gcs": f"/gcs/{SMALL}.tar.gz",
    "kaggle": "/kaggle/google/mobilenet-v1/TensorFlow2/025-128-feature-vector/1/download",
    "slim": "/slim/download.tensorflow.org/models/mobilenet_v1_2018_02_22/mobilenet_v1_0.25_128.tgz",
}


def assert_is(folder, name, weights):
    module = find_module(name)
    found = read_module(folder)
    config = found.config
    assert config.handle == module.handle
    assert config.network == network_of(module)
    assert config.image_size == module.image_size
    assert (config.labels is not None) == (module.num_classes > 0)
    assert found.weights.keys() == network_of(module).variables.keys()
    assert all(np.array_equal(found.weights[key], weights[key]) for key in found.weights)
    check(folder)


def assert_nothing_left():
    left = [path for path in cache_folder().rglob("*") if path.is_file() or path.name.startswith(".")]
    assert left == []


def refused(match, error=DownloadError, name=SMALL):
    with pytest.raises(error, match=match) as caught:
        pull(name, policy=QUICK)
    assert_nothing_left()
    return str(caught.value)


@pytest.mark.parametrize("source", PUBLISHED)
def test_every_source_serves_when_those_before_it_do_not(server, small, checkpoint, source):
    archive, weights = checkpoint if source == "slim" else small
    server.serve(PUBLISHED[source], Answer(archive))
    folder = pull(SMALL, policy=QUICK)
    assert folder == entry_folder(SMALL)
    assert_is(folder, SMALL, weights)
    order = [request.path.split("/")[1] for request in server.requests]
    assert order == list(PUBLISHED)[: list(PUBLISHED).index(source) + 1]
    assert sorted(path.name for path in cache_folder().iterdir()) == ["google"]


def test_the_record_says_where_it_came_from(server, small):
    archive, _ = small
    url = server.serve(PUBLISHED["tfhub"], Answer(archive))
    folder = pull(SMALL, policy=QUICK)
    origin = read_origin(folder)
    assert (origin.handle, origin.source) == (SMALL, "tfhub")
    assert origin.url == f"{url}?tf-hub-format=compressed"
    assert origin.date.startswith("20")
    assert origin.archive["bytes"] == len(archive)
    assert len(origin.archive["sha256"]) == 64
    assert sorted(origin.files) == ["module.json", "weights.safetensors"]
    assert json.loads((folder / "module.json").read_text())["license"] == "Apache-2.0"


def test_what_is_there_is_not_fetched_again_unless_asked(server, small):
    server.serve(PUBLISHED["tfhub"], Answer(small[0]))
    for _ in range(3):
        pull(SMALL, policy=QUICK)
    assert len(server.requests) == 1
    pull(SMALL, force=True, policy=QUICK)
    assert len(server.requests) == 2
    assert sorted(path.name for path in cache_folder().iterdir()) == ["google"]


def test_a_name_without_version_is_the_latest(server, tmp_path):
    archive, weights = published_archive(tmp_path, "mobilenet_v1_025_128/feature_vector/5")
    server.serve("/tfhub/google/imagenet/mobilenet_v1_025_128/feature_vector/5", Answer(archive))
    for name in (
        "mobilenet_v1_025_128/feature_vector",
        "https://tfhub.dev/google/imagenet/mobilenet_v1_025_128/feature_vector",
    ):
        folder = pull(name, policy=QUICK)
        assert folder.name == "5"
    assert_is(folder, "mobilenet_v1_025_128/feature_vector/5", weights)


def test_one_checkpoint_serves_both_kinds(server, checkpoint):
    archive, weights = checkpoint
    server.serve(PUBLISHED["slim"], Answer(archive))
    assert_is(pull(SMALL, policy=QUICK), SMALL, weights)
    assert_is(pull(CLASSIFIER, policy=QUICK), CLASSIFIER, weights)


@pytest.mark.parametrize("path", [SMALL, f"{SMALL}.tar.gz", "mobilenet_v1_0.25_128.tgz"])
def test_a_mirror_is_asked_first(server, small, checkpoint, monkeypatch, path):
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", f"{server.url}/mirror")
    archive, weights = checkpoint if path.startswith("mobilenet_v1_0") else small
    server.serve(f"/mirror/{path}", Answer(archive))
    assert_is(pull(SMALL, policy=QUICK), SMALL, weights)
    assert all(request.path.startswith("/mirror/") for request in server.requests)
    assert server.requests[0].path == f"/mirror/{SMALL}?tf-hub-format=compressed"


@pytest.mark.parametrize("form", ["archive", "unpacked", "module folder"])
def test_a_folder_of_archives_needs_no_connection(server, small, monkeypatch, tmp_path, form):
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "1")
    place = tmp_path / "mirror" / SMALL
    archive, weights = small
    place.parent.mkdir(parents=True)
    if form == "archive":
        place.with_name("4.tar.gz").write_bytes(archive)
    else:
        write = write_published if form == "unpacked" else write_plain
        place.mkdir()
        write(place, find_module(SMALL), weights)
    before = snapshot(tmp_path / "mirror")
    assert_is(pull(SMALL, policy=QUICK), SMALL, weights)
    assert server.requests == []
    assert snapshot(tmp_path / "mirror") == before


def test_an_archive_that_wraps_its_files_in_a_folder(server, tmp_path):
    module = find_module(SMALL)
    weights = some_weights(network_of(module))
    write_published(tmp_path / "outer" / "inner", module, weights)
    server.serve(PUBLISHED["tfhub"], Answer(packed(tmp_path)))
    assert_is(pull(SMALL, policy=QUICK), SMALL, weights)


def test_offline_makes_no_connection_and_says_what_to_put_where(server, small, monkeypatch):
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "1")
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", server.url)
    server.serve(f"/{SMALL}", Answer(small[0]))
    text = refused("MOBILENET_HUB_OFFLINE=1", OfflineError)
    assert str(entry_folder(SMALL)) in text
    assert "weights.safetensors" in text
    assert f"{SMALL}.tar.gz" in text
    assert server.requests == []


def test_a_module_that_never_existed(server):
    refused("never published", UnknownModuleError, "mobilenet_v1_025_128/feature_vector/2")
    assert server.requests == []


def test_no_source_has_it(server, monkeypatch):
    text = refused("could not be fetched")
    assert [source in text for source in PUBLISHED] == [True] * 4
    assert "404" in text
    monkeypatch.setenv("MOBILENET_HUB_SOURCES", "mirror")
    refused("none of the configured sources", ModuleUnavailableError)
    monkeypatch.setenv("MOBILENET_HUB_SOURCES", f"tfhub=http://127.0.0.1:{closed_port()}")
    refused("no connection")


def test_a_server_that_does_not_answer_is_not_asked_for_everything(server, monkeypatch):
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("MOBILENET_HUB_SOURCES", "mirror")
    assert refused("no connection").count("no connection") == 1


HOSTILE = {
    "traversal": (tar(member("../../planted", b"1")), "outside"),
    "absolute": (tar(member("/planted", b"1")), "absolute"),
    "symlink": (tar(member("x", kind=b"2", linkname="/etc/passwd")), "link"),
    "device": (tar(member("x", kind=b"3")), "link, a device"),
    "twice": (tar(member("x", b"1"), member("x", b"2")), "twice"),
    "bomb": (gzip.compress(bytes(64 << 20)), "bomb"),
    "page": (b"<!DOCTYPE html><html>Sign in to Kaggle</html>", "a web page"),
    "empty": (b"", "empty"),
    "pickle": (tar(member("weights.pkl", b"\x80\x04cos\nsystem\n")), "a pickle, which is not read"),
}


@pytest.mark.parametrize(("archive", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives_are_refused(server, archive, reason, tmp_path):
    server.fallback = lambda path: Answer(archive)
    before = sorted(tmp_path.parent.iterdir())
    text = refused(reason)
    assert sorted(tmp_path.parent.iterdir()) == before
    assert ".incoming" not in text  # the address is what the user knows


def test_truncated_and_damaged_archives_are_refused(server, small):
    archive, _ = small
    server.fallback = lambda path: Answer(archive[: len(archive) // 2])
    refused("cut off")
    damaged = bytearray(archive)
    damaged[len(archive) // 2] ^= 1
    server.fallback = lambda path: Answer(bytes(damaged))
    refused("damaged")


@pytest.mark.parametrize(
    "other",
    [
        "google/imagenet/mobilenet_v1_050_128/feature_vector/4",
        "google/imagenet/mobilenet_v1_025_128/classification/4",
        "google/imagenet/mobilenet_v1_025_160/feature_vector/1",
        "google/imagenet/mobilenet_v2_035_128/feature_vector/4",
    ],
)
def test_a_different_module_than_asked_for_is_refused(server, tmp_path, other):
    archive, _ = published_archive(tmp_path, other)
    server.fallback = lambda path: None if path.startswith("/slim") else Answer(archive)
    refused("different module than asked for|160x160, not 128x128|made for images of")


def test_a_different_checkpoint_than_asked_for_is_refused(server, tmp_path):
    archive, _ = checkpoint_archive(tmp_path, "google/imagenet/mobilenet_v1_025_160/feature_vector/4")
    server.serve(PUBLISHED["slim"], Answer(archive))
    refused("different module than asked for")


def test_what_one_source_gets_wrong_the_next_gets_right_and_it_is_said(server, small, caplog):
    server.serve(PUBLISHED["tfhub"], Answer(HOSTILE["traversal"][0]))
    server.serve(PUBLISHED["gcs"], Answer(small[0]))
    with caplog.at_level(logging.WARNING, "mobilenet_hub"):
        assert_is(pull(SMALL, policy=QUICK), SMALL, small[1])
    assert "outside" in caplog.text
    assert read_origin(entry_folder(SMALL)).source == "gcs"


def test_a_mirror_that_states_another_checksum(server, small):
    digest = {"Repr-Digest": "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"}
    server.fallback = lambda path: Answer(small[0], headers=digest)
    refused("the server states")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "module.json", "origin.json"])
def test_a_damaged_entry_is_noticed_and_repaired(server, small, damage, caplog):
    archive, weights = small
    server.serve(PUBLISHED["tfhub"], Answer(archive))
    folder = pull(SMALL, policy=QUICK)
    file = damage_entry(folder, damage)
    assert pull(SMALL, policy=QUICK) == folder
    assert f"{file} " in caplog.text
    assert "fetched anew" in caplog.text
    assert_is(folder, SMALL, weights)
    assert len(server.requests) == 2
    assert sorted(path.name for path in cache_folder().iterdir()) == ["google"]


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "module.json", "origin.json"])
def test_a_damaged_entry_that_cannot_be_repaired_is_named(server, small, damage, monkeypatch):
    server.serve(PUBLISHED["tfhub"], Answer(small[0]))
    folder = pull(SMALL, policy=QUICK)
    file = damage_entry(folder, damage)
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "1")
    with pytest.raises(InvalidModuleError, match="could not be repaired") as caught:
        pull(SMALL, policy=QUICK)
    assert str(file) in str(caught.value)
    assert f"cache remove {SMALL}" in str(caught.value)
    assert not file.exists() or damage != "missing"
    assert sorted(path.name for path in cache_folder().iterdir()) == ["google"]


def damage_entry(folder, damage):
    weights = folder / "weights.safetensors"
    if damage == "flipped":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        stat = weights.stat()
        weights.write_bytes(data)
        os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a failing disk does it
        return weights
    if damage == "truncated":
        os.truncate(weights, 1000)
        return weights
    if damage == "missing":
        weights.unlink()
        return weights
    (folder / damage).write_text("{")
    return folder / damage


def test_a_module_folder_put_there_by_hand_is_taken(server):
    module = find_module(SMALL)
    weights = some_weights(network_of(module))
    write_plain(entry_folder(SMALL), module, weights)
    assert pull(SMALL, policy=QUICK) == entry_folder(SMALL)
    assert server.requests == []


def test_a_damaged_module_folder_put_there_by_hand_is_replaced(server, small):
    write_plain(entry_folder(SMALL), find_module(SMALL), small[1])
    os.truncate(entry_folder(SMALL) / "weights.safetensors", 1000)
    server.serve(PUBLISHED["tfhub"], Answer(small[0]))
    assert_is(pull(SMALL, policy=QUICK), SMALL, small[1])


@pytest.mark.parametrize("cache", ["TFHUB_CACHE_DIR", "KAGGLEHUB_CACHE"])
@pytest.mark.parametrize("name", [SMALL, "google/imagenet/mobilenet_v1_025_128/classification/3"])
def test_the_caches_of_other_tools_are_read_and_never_written(server, monkeypatch, tmp_path, cache, name):
    import hashlib

    module = find_module(name)
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "1")
    root = tmp_path / "other"
    monkeypatch.setenv(cache, str(root))
    if cache == "TFHUB_CACHE_DIR":
        sha1 = hashlib.sha1(module.url.encode()).hexdigest()
        folder = root / sha1
        root.mkdir()
        (root / f"{sha1}.descriptor.txt").write_text(f"Module: {module.url}\nDownload Time: 2020-01-01\n")
    else:
        folder = root / "models" / module.kaggle_handle
    weights = some_weights(network_of(module))
    write_published(folder, module, weights)
    before = snapshot(root)
    assert_is(pull(name, policy=QUICK), name, weights)
    assert snapshot(root) == before
    assert server.requests == []
    origin = read_origin(entry_folder(name))
    assert (origin.url, origin.archive) == (str(folder), None)


def test_a_broken_cache_of_another_tool_is_passed_over(server, monkeypatch, tmp_path, small, caplog):
    folder = (
        tmp_path / "kagglehub" / "models" / "google" / "mobilenet-v1" / "tensorFlow2" / "025-128-feature-vector" / "1"
    )
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"half of it")
    server.serve(PUBLISHED["tfhub"], Answer(small[0]))
    assert_is(pull(SMALL, policy=QUICK), SMALL, small[1])
    assert "kagglehub-cache" in caplog.text


def test_what_a_killed_pull_had_received_is_resumed(server, small):
    archive, weights = small
    cut = len(archive) // 2
    server.serve(PUBLISHED["tfhub"], Answer(archive, etag='"1"', chunk=cut, chunk_delay_s=0.2, cut_after=cut))
    code = f"from mobilenet_hub.store.pull import pull; pull({SMALL!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONWARNINGS": "ignore"})
    part = cache_folder() / ".incoming" / SMALL.replace("/", "--") / "archive.part"
    give_up_at = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size == cut):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.requests.clear()
    server.serve(PUBLISHED["tfhub"], Answer(archive, etag='"1"'))
    assert_is(pull(SMALL, policy=QUICK), SMALL, weights)
    assert server.requests[0].headers["range"] == f"bytes={cut}-"
    assert sorted(path.name for path in cache_folder().iterdir()) == ["google"]


def test_an_unwritable_cache_is_named(server, small, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / "file"))
    server.serve(PUBLISHED["tfhub"], Answer(small[0]))
    with pytest.raises(MobileNetHubError, match="MOBILENET_HUB_CACHE"):
        pull(SMALL, policy=QUICK)


@pytest.mark.parametrize(
    "name", ["hub1_mobilenet_v1_025_128_classification", "hub2_mobilenet_v2_035_96_feature_vector"]
)
def test_modules_that_tensorflow_wrote(server, shared, golden, name):
    fixture = shared(f"fixtures/{name}")
    handle = {
        "hub1_mobilenet_v1_025_128_classification": "google/imagenet/mobilenet_v1_025_128/classification/3",
        "hub2_mobilenet_v2_035_96_feature_vector": "google/imagenet/mobilenet_v2_035_96/feature_vector/5",
    }[name]
    server.serve(f"/tfhub/{handle}", Answer(packed(fixture)))
    network = network_of(find_module(handle))
    weights = {key: golden.golden_array(key, variable.shape) for key, variable in network.variables.items()}
    assert_is(pull(handle, policy=QUICK), handle, weights)


@pytest.mark.parametrize("name", ["mobilenet_v1_025_128", "mobilenet_v2_035_96"])
@pytest.mark.parametrize("kind", ["classification", "feature_vector"])
def test_checkpoints_that_tensorflow_wrote(server, shared, golden, name, kind):
    module = find_module(f"{name}/{kind}/1")
    path = {
        "mobilenet_v1": "download.tensorflow.org/models/mobilenet_v1_2018_02_22",
        "mobilenet_v2": "mobilenet_v2/checkpoints",
    }
    file = module.checkpoint_url.rpartition("/")[2]
    archive = shared(f"fixtures/{file}").read_bytes()
    server.serve(f"/slim/{path[module.architecture]}/{file}", Answer(archive))
    weights = {key: golden.golden_array(key, one.shape) for key, one in network_of(module).variables.items()}
    assert_is(pull(module.handle, policy=QUICK), module.handle, weights)
