"""/metrics, read by Prometheus' own parser."""

import pytest
from serving import CAT, JPEG, form, running


def test_metrics_are_what_prometheus_reads():
    parser = pytest.importorskip("prometheus_client.parser", reason="needs prometheus-client")
    with running() as server:
        assert server.post("/classify", CAT.read_bytes(), JPEG)[0] == 200
        assert server.post("/classify", *form([("a", CAT.read_bytes()), ("b", b"")]))[0] == 400
        assert server.get("/nothing/here")[0] == 404
        status, text, headers = server.get("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in parser.text_string_to_metric_families(text.decode())}
    requests = {(s.labels["endpoint"], s.labels["status"]): s.value for s in families["mobilenet_requests"].samples}
    assert requests == {("/classify", "200"): 1, ("/classify", "400"): 1, ("other", "404"): 1}
    (images,) = families["mobilenet_images"].samples
    assert (images.labels, images.value) == ({"module": "starter"}, 2)
    (info,) = families["mobilenet_model_info"].samples
    assert len(info.labels["weights_sha256"]) == 64
    assert families["mobilenet_bad_images"].samples[0].value == 1
    for name in ("mobilenet_request_seconds", "mobilenet_stage_seconds", "mobilenet_batch_images"):
        assert families[name].type == "histogram"
        buckets = [s for s in families[name].samples if s.name.endswith("_bucket")]
        assert any(s.labels["le"] == "+Inf" for s in buckets)
    assert families["process_resident_memory_bytes"].samples[0].value > 0
