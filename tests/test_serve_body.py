"""Bodies taken apart: whatever bytes come, they give what was put in or a refusal with a status of 4xx."""

import base64
import gzip
import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import form, running

from mobilenet_hub.serve.body import multipart_files, parse_json, picture_of_base64, unpacked
from mobilenet_hub.serve.limits import Refusal

NAMES = st.text(st.characters(codec="utf-8", exclude_characters='"\\\r\n', exclude_categories=("C",)), min_size=1)


def refused(call):
    """Return what a call gives, or None where it refuses with a status of 4xx; any other error is one."""
    try:
        return call()
    except Refusal as refusal:
        assert 400 <= refusal.status < 500
        return None


@given(st.lists(st.tuples(NAMES, st.binary(max_size=300)), min_size=1, max_size=5))
def test_a_form_gives_back_its_files(files):
    body, headers = form(files)
    assert multipart_files(body, headers["Content-Type"], 10) == files


@given(st.binary(max_size=400), st.binary(max_size=40))
def test_what_is_no_form_is_refused(body, boundary):
    kind = f"multipart/form-data; boundary={boundary.decode('latin-1')}"
    refused(lambda: multipart_files(body, kind, 3))
    whole, headers = form([("a", body)])
    for end in (len(whole) - 1, len(whole) - 10, len(whole) // 2):
        found = refused(lambda part=whole[:end]: multipart_files(part, headers["Content-Type"], 3))
        assert found in (None, [("a", body)])


@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_base64_in_either_alphabet_with_and_without_padding(data, urlsafe, padded):
    text = (base64.urlsafe_b64encode if urlsafe else base64.b64encode)(data).decode()
    assert picture_of_base64(text if padded else text.rstrip("="), "x") == data


@given(st.text(max_size=60))
def test_what_is_no_base64_is_refused(text):
    refused(lambda: picture_of_base64(text, "x"))


@given(st.binary(max_size=200))
def test_packed_bodies_are_what_they_were_or_refused(data):
    assert unpacked(gzip.compress(data), "gzip", 200) == data
    assert unpacked(zlib.compress(data), "deflate", 200) == data
    refused(lambda: unpacked(data, "gzip", 200))
    with pytest.raises(Refusal, match="limit"):
        unpacked(gzip.compress(data + b"x"), "gzip", len(data))


@given(st.binary(max_size=100))
def test_json_or_a_refusal(data):
    refused(lambda: parse_json(data))


@pytest.fixture(scope="module")
def server():
    with running() as started:
        yield started


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["images", "pictures"]),
        "datatype": st.sampled_from(["FP32", "UINT8", "BYTES"]),
        "shape": st.lists(st.integers(-1, 4), max_size=5) | st.just([1, 2, 2, 3]),
        "data": st.lists(st.integers(-1, 256) | st.floats(allow_nan=False) | st.text(max_size=8), max_size=13) | JSON,
    },
    optional={"parameters": JSON},
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["/v1/models/starter:predict", "/v2/models/starter/infer"]),
    JSON
    | st.fixed_dictionaries({}, optional={"instances": JSON, "inputs": JSON, "signature_name": JSON})
    | st.fixed_dictionaries({"inputs": st.lists(TENSOR, max_size=2)}, optional={"outputs": JSON, "id": JSON}),
)
def test_no_json_gets_a_500(server, path, value):
    status, answer, _ = server.post(path, json.dumps(value).encode(), {"Content-Type": "application/json"})
    assert status == 200 or (400 <= status < 500 and answer["error"]), (status, answer)
