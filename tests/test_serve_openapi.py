"""The description, and whatever schemathesis makes of it: no request that it can think of gets a 500."""

import subprocess
import sys

import pytest
from serving import CAT, JPEG, running


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


def test_the_description_names_every_address(server):
    status, answer, _ = server.get("/openapi.json")
    assert status == 200
    assert answer["openapi"].startswith("3.1")
    for path in ("/classify", "/embed", "/v1/models/{name}:predict", "/v1/models/{name}/versions/{version}/metadata"):
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
