"""Ray Data and Spark, run for real on this machine, give the features that `Embedder` gives."""

import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import mobilenet_hub as hub
from mobilenet_hub.adapters.encoded import embed_encoded

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(9):
        pixels = np.random.default_rng(number).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(pixels).resize((200, 180), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
    (folder / "4.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def expected(photos):
    embedder = hub.Embedder("starter", threads=1)
    return {f"{n}.jpg": embedder.embed(photos / f"{n}.jpg")[0] for n in range(9) if n != 4}


def test_bytes_in_features_and_reasons_out():
    buffer = io.BytesIO()
    Image.new("RGB", (60, 50), (200, 30, 20)).save(buffer, "PNG")
    embedder = hub.Embedder("starter")
    features, reasons = embed_encoded(embedder, [None, buffer.getvalue(), b""])
    assert np.isnan(features[[0, 2]]).all()
    assert np.array_equal(features[1], embedder.embed(buffer.getvalue())[0])
    assert reasons == ["no bytes", None, "empty file (0 bytes)"]


def close(found, wanted):
    return np.abs(np.asarray(found) - wanted).max() <= 1e-4 * np.abs(wanted).max()  # another batch size


@pytest.mark.slow
def test_ray_data(photos, expected):
    pytest.importorskip("ray.data", reason="needs Ray: the extra mobilenet-hub[ray]")
    code = (
        "import json, sys, ray, mobilenet_hub as hub\n"
        "ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='error')\n"
        f"data = ray.data.read_binary_files({str(photos)!r}, include_paths=True)\n"
        "rows = data.map_batches(hub.adapters.ray.Embed, fn_constructor_kwargs={'module': 'starter'}, batch_size=4,"
        " concurrency=1).take_all()\n"
        "print('ROWS' + json.dumps([[r['path'], [float(x) for x in r['features']], r['reason']] for r in rows]))\n"
    )
    check_rows(run_python(code, RAY_USAGE_STATS_ENABLED="0"), expected)


@pytest.mark.slow
def test_spark(photos, expected):
    pytest.importorskip("pyspark", reason="needs Spark: pip install pyspark")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    code = (
        "import json, mobilenet_hub as hub\n"
        "from pyspark.sql import SparkSession\n"
        "spark = SparkSession.builder.master('local[1]').config('spark.ui.enabled', 'false').getOrCreate()\n"
        f"frame = spark.read.format('binaryFile').load({str(photos)!r}).select('path', 'content')\n"
        "schema = f'path string, {hub.adapters.spark.FEATURE_COLUMNS}'\n"
        "rows = frame.mapInArrow(hub.adapters.spark.embed('starter'), schema).collect()\n"
        "print('ROWS' + json.dumps([[r.path, list(r.features or ()), r.reason or ''] for r in rows]))\n"
    )
    check_rows(run_python(code, PYSPARK_PYTHON=sys.executable), expected)


def run_python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return next(line for line in done.stdout.splitlines() if line.startswith("ROWS")).removeprefix("ROWS")


def check_rows(text, expected):
    import json

    rows = {path.rsplit("/", 1)[-1]: (features, reason) for path, features, reason in json.loads(text)}
    assert len(rows) == 9
    assert rows["4.jpg"][1].startswith("not a picture")
    assert not rows["4.jpg"][0] or np.isnan(rows["4.jpg"][0]).all()
    for name, wanted in expected.items():
        assert rows[name][1] == ""
        assert close(rows[name][0], wanted), name
