"""The description, and whatever schemathesis makes of it: no request that it can think of gets a 500."""

import subprocess
import sys

import pytest
from serving import CAT, JPEG, embedded, photos, running


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that answers all that there is to answer."""
    folder = tmp_path_factory.mktemp("all")
    features = embedded(folder, {f"{index}.jpg": data for index, data in enumerate(photos(4))})
    with running("--index", features, "--teach", str(folder / "teach")) as started:
        yield started


def test_the_description_names_every_address(server):
    status, answer, _ = server.get("/openapi.json")
    assert status == 200
    assert answer["openapi"].startswith("3.1")
    for path in ("/classify", "/embed", "/v1/models/{name}:predict", "/v1/models/{name}/versions/{version}/metadata"):
        assert path in answer["paths"]
    for path in ("/similar", "/teach", "/teach/photos", "/v1/models/{name}/labels/{label}:predict"):
        assert path in answer["paths"]
    for path in ("/v2", "/v2/health/ready", "/v2/models/{name}/infer", "/metrics"):
        assert path in answer["paths"]


@pytest.mark.slow
def test_schemathesis_finds_no_500_and_no_answer_that_is_not_described(server, tmp_path):
    pytest.importorskip("schemathesis", reason="needs schemathesis")
    checks = "not_a_server_error,status_code_conformance,response_schema_conformance,content_type_conformance"
    words = ["--max-examples", "25", "--checks", checks, "--no-color", "--generation-deterministic"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json", *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.post("/classify", CAT.read_bytes(), JPEG)[0] == 200
