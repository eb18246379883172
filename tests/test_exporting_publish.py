"""A published site, served by a plain static server on loopback: our pull and stock tensorflow_hub fetch from it."""

import json
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from exported import MAX_DIFFERENCE, V1_FEATURES, made_module
from reference_network import forward, random_weights

import mobilenet_hub as hub
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError, OutputError
from mobilenet_hub.exporting.export import export
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.store import open_module

pytestmark = pytest.mark.slow


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("tensorflow")
    folder = tmp_path_factory.mktemp("site")
    return folder, export(made_module(V1_FEATURES), "site", folder)


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site[0])))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_the_site_has_the_archive_under_the_handle_and_its_type(site):
    folder, proof = site
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}
    assert files == {V1_FEATURES, f"{V1_FEATURES}.proof.json", "_headers"}
    assert (folder / V1_FEATURES).read_bytes()[:2] == b"\x1f\x8b"
    assert f"/{V1_FEATURES}\n  Content-Type: application/gzip\n" in (folder / "_headers").read_text()
    assert proof.bytes == (folder / V1_FEATURES).stat().st_size
    assert json.loads((folder / f"{V1_FEATURES}.proof.json").read_text())["choices"]["handle"] == V1_FEATURES


def test_what_is_published_already_is_kept(site):
    folder, _ = site
    before = (folder / V1_FEATURES).read_bytes()
    with pytest.raises(OutputError, match="overwrite=True"):
        export(made_module(V1_FEATURES), "site", folder)
    with pytest.raises(OutputError, match="is a folder"):
        export(made_module(V1_FEATURES), "site", folder, handle=V1_FEATURES.rpartition("/")[0])
    for handle in ("../x", "one", "a//b", "/a/b", "a/.."):
        with pytest.raises(InputError, match="handle must be"):
            export(made_module(V1_FEATURES), "site", folder, handle=handle)
    assert (folder / V1_FEATURES).read_bytes() == before


def test_headers_of_ones_own_stay(tmp_path):
    pytest.importorskip("tensorflow")
    (tmp_path / "_headers").write_text("/*\n  X-Mine: yes\n")
    with pytest.warns(UserWarning, match="rules of your own and stays as it is; add to it: /me/a/1"):
        export(made_module(V1_FEATURES), "site", tmp_path, handle="me/a/1")
    assert (tmp_path / "_headers").read_text() == "/*\n  X-Mine: yes\n"
    assert (tmp_path / "me/a/1").exists()


@pytest.mark.parametrize("over_http", [True, False])
def test_mobilenet_pull_fetches_from_it(over_http, site, address, monkeypatch):
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "0" if over_http else "1")
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", address if over_http else str(site[0]))
    monkeypatch.setenv("MOBILENET_HUB_SOURCES", "mirror")
    assert main(["--quiet", "pull", V1_FEATURES]) == 0
    pulled, made = open_module(V1_FEATURES), made_module(V1_FEATURES)
    assert pulled.config.network == made.config.network
    assert all(pulled.weights[name].tobytes() == array.tobytes() for name, array in made.weights.items())


def test_a_module_of_ones_own_goes_by_its_address(address, site, tmp_path, monkeypatch, capsys):
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), 3, labels=("ant", "bee", "cat"))
    mine = Module(config, random_weights(config.network))
    export(mine, "site", site[0], handle="me/insects/1")
    url = f"{address}/me/insects/1"
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "0")
    classifier, images = (
        hub.Classifier(url, precision="f32"),
        np.random.default_rng(1).random((2, 32, 32, 3), np.float32),
    )
    assert classifier.labels == ("ant", "bee", "cat")
    expected = hub.Classifier(mine, precision="f32").logits(images)
    assert np.abs(classifier.logits(images) - expected).max() <= MAX_DIFFERENCE * np.abs(expected).max()
    keras = pytest.importorskip("keras")
    layer = hub.KerasLayer(url)
    assert np.abs(np.asarray(keras.ops.convert_to_numpy(layer(images))) - expected).max() < 1e-4
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "1")  # now it is in the cache
    assert hub.resolve(url) == hub.pull(url)
    assert main(["cache"]) == 0
    handle = url.removeprefix("http://").replace(":", "_")
    assert handle in capsys.readouterr().out
    assert main(["cache", "remove", url]) == 0
    with pytest.raises(hub.OfflineError, match="export --format site"):
        hub.Classifier(url)
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "0")
    with pytest.raises(hub.DownloadError, match=r"404.*\n.*Serve there"):
        hub.pull(f"{url}0")
    assert main(["cache"]) == 0 and handle not in capsys.readouterr().out


@pytest.mark.parametrize("url", ["http://localhost/", "http://me@localhost/a/1", "http://localhost/../x", "http://[/a"])
def test_what_cannot_be_a_modules_address_is_refused(url):
    with pytest.raises(hub.UnknownModuleError, match="no address of a module"):
        hub.resolve(url)


def test_stock_tensorflow_hub_fetches_from_it(address, tmp_path):
    from importlib.util import find_spec

    if find_spec("tensorflow_hub") is None or find_spec("tf_keras") is None:
        pytest.skip("needs tensorflow_hub and tf_keras")
    images = np.random.default_rng(0).random((2, 97, 128, 3), np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import os, warnings; warnings.simplefilter('ignore'); os.environ['TF_USE_LEGACY_KERAS'] = '1'\n"
        f"os.environ['TFHUB_CACHE_DIR'] = {str(tmp_path / 'cache')!r}\n"
        "import numpy, tensorflow_hub\n"
        f"layer = tensorflow_hub.KerasLayer({f'{address}/{V1_FEATURES}'!r}, trainable=True)\n"
        f"numpy.save({str(tmp_path / 'features.npy')!r}, layer(numpy.load({str(tmp_path / 'images.npy')!r})).numpy())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)
    made = made_module(V1_FEATURES)
    expected = forward(made.config.network, made.weights, images)["features"]
    found = np.load(tmp_path / "features.npy")
    assert np.abs(found - expected).max() <= MAX_DIFFERENCE * max(1, np.abs(expected).max())
