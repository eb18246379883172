"""Speed: figures that hang together, budgets that are kept, a chart that can be read."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from mobilenet_hub.architecture import mobilenet_v1
from mobilenet_hub.catalog.published import configurations
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.speed_chart import speed_chart
from mobilenet_hub.images.decode import decode_image
from mobilenet_hub.images.fit import Preprocessing
from mobilenet_hub.inference.bench import (
    NetworkSpeed,
    best_within,
    example_photos,
    front,
    measure,
    measure_catalog,
    photos_in_memory,
    placeholder,
)  # fmt: skip
from mobilenet_hub.inference.engine import Engine, engine_for, installed_engines

SMALL = [c for c in configurations() if c.name in ("mobilenet_v1_025_128", "mobilenet_v2_035_96")]


@pytest.fixture(scope="module")
def speeds():
    """Made-up figures: a network twice as costly takes twice as long."""
    return [
        NetworkSpeed(c, one_image_ms=c.published.mmacs / 50, images_per_s=50_000 / c.published.mmacs)
        for c in configurations()
    ]


def test_the_limit_follows_from_the_parts():
    engine = Engine(placeholder(SMALL[0]), ("logits",))
    speed = measure(engine, example_photos(8), Preprocessing(engine.image_size), seconds=0.3)
    assert speed.limit == pytest.approx(1 / (1 / speed.decode + 1 / speed.inference))
    assert speed.limit < min(speed.decode, speed.inference)
    # The machine that runs the tests may be busy with other things at any moment: no more than the order is certain.
    assert 0.2 * speed.limit < speed.end_to_end < 5 * speed.limit
    assert speed.one_image_ms > 0


def test_photos(tmp_path):
    assert decode_image(example_photos(1)[0].read()).shape == (375, 500, 3)
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    [photo], [(name, reason)] = photos_in_memory([str(tmp_path)])
    assert photo.read() == (tmp_path / "a.jpg").read_bytes()
    assert (name, "not a picture" in reason) == (str(tmp_path / "b.jpg"), True)
    with pytest.raises(InputError, match=r"gone\.jpg: no such file"):
        photos_in_memory([str(tmp_path / "gone.jpg")])
    with pytest.raises(InputError, match="no photos"):
        photos_in_memory([])


def test_placeholders_are_the_published_networks_and_stay_in_range():
    for configuration in SMALL:
        module = placeholder(configuration)
        assert set(module.weights) == set(module.config.network.variables)
        logits = Engine(module, ("logits",)).run(np.full((1, *module.config.image_size, 3), 99, np.uint8))["logits"]
        assert np.isfinite(logits).all()
        assert 1e-3 < np.abs(logits).max() < 1e3


def test_the_catalog_is_measured():
    measured = measure_catalog(seconds=0.05, networks=SMALL)
    assert [speed.configuration for speed in measured] == SMALL
    assert all(speed.one_image_ms > 0 and speed.images_per_s > 0 for speed in measured)


def test_budgets_are_kept_and_the_most_accurate_comes_first(speeds):
    fitting = best_within(speeds, budget_ms=3.0)
    assert {s.configuration.name for s in fitting} == {s.configuration.name for s in speeds if s.one_image_ms <= 3.0}
    accuracies = [s.configuration.published.top1 for s in fitting]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(s.images_per_s >= 500 for s in best_within(speeds, images_per_s=500))
    assert best_within(speeds, budget_ms=0.001) == []
    assert len(best_within(speeds)) == 38


def test_none_beats_those_of_the_front(speeds):
    chosen = front(speeds)
    assert 3 < len(chosen) < 38
    for best in chosen:
        assert not any(
            s.one_image_ms <= best.one_image_ms and s.configuration.published.top1 > best.configuration.published.top1
            for s in speeds
        )


def test_the_chart_shows_every_network(speeds):
    root = ElementTree.fromstring(speed_chart(speeds, "2 cores <of & a> CPU", 5.0))
    space = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{space}circle")
    assert len(circles) == 38 + 2  # and the legend's
    box = [float(value) for value in root.attrib["viewBox"].split()]
    assert all(0 < float(c.attrib["cx"]) < box[2] and 0 < float(c.attrib["cy"]) < box[3] for c in circles)
    texts = [text.text for text in root.findall(f"{space}text")]
    assert any("<of & a>" in (text or "") for text in texts)
    assert "budget 5 ms" in texts


def test_the_command_measures_modules(tmp_path, capsys):
    Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(tmp_path / "a.jpg")
    words = ["bench", "mobilenet_v1_025_128/feature_vector", "--photos", str(tmp_path), "--seconds", "0.1", "--quiet"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    [result] = told["results"]
    assert result["share_of_limit"] == pytest.approx(result["end_to_end_per_s"] / result["limit_per_s"])
    assert "1 photos" in told["photos"]
    assert main(words) == 0
    assert "mobilenet_v1_025_128/feature_vector" in capsys.readouterr().out
    assert main(["bench", "no_such_module"]) == 2
    assert main(["bench", "--seconds", "0"]) == 2
    assert main(["bench", "mobilenet_v1_025_128", "--budget-ms", "5"]) == 2
    assert "leave the modules out" in capsys.readouterr().err


def test_bench_says_what_auto_takes_in_the_precision_asked_for(capsys):
    words = ["bench", "mobilenet_v1_025_128/feature_vector", "--seconds", "0.05", "--quiet", "--json"]
    assert main([*words, "--engine", "all", "--precision", "f32"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [result["engine"] for result in results] == list(installed_engines())
    for job, macs in (("few", None), ("many", mobilenet_v1(0.25).macs(128, 128))):
        wanted = engine_for("auto", "f32", installed_engines(), macs_in_bulk=macs)
        assert [result["engine"] for result in results if job in result["auto_for"]] == [wanted]


def test_the_command_finds_what_fits(tmp_path, capsys):
    plot = tmp_path / "speed.svg"
    words = [
        "bench",
        "--catalog",
        "v1_025_1",
        "--budget-ms",
        "1000",
        "--plot",
        str(plot),
        "--seconds",
        "0.02",
        "--quiet",
    ]
    assert main(words) == 0
    assert "3 of 3 networks fit 1000.0 ms an image" in capsys.readouterr().out
    assert ElementTree.parse(plot)
    assert main(["bench", "--catalog", "v9"]) == 2
    assert main(["bench", "--plot", str(tmp_path / "gone" / "speed.svg")]) == 2
