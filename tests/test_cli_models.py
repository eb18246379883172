"""The commands that show the catalogue: `mobilenet models` and `mobilenet info`."""

import json

import numpy as np
import pytest

from mobilenet_hub.architecture import mobilenet_v1
from mobilenet_hub.catalog.find import find_module
from mobilenet_hub.catalog.published import configurations, published_modules
from mobilenet_hub.cli.main import main
from mobilenet_hub.module import Module, ModuleConfig
from mobilenet_hub.module_folder import write_module
from mobilenet_hub.store.cache import cache_folder


@pytest.fixture
def say(capsys):
    """Run a command line; return its exit status and what it printed on standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        status = main(words)
        return status, *capsys.readouterr()

    return run


def module(**more) -> Module:
    network = mobilenet_v1(0.25, more.get("num_classes", 0))
    weights = {name: np.zeros(variable.shape, np.float32) for name, variable in network.variables.items()}
    return Module(ModuleConfig("mobilenet_v1", 0.25, (128, 128), **more), weights)


def test_models_lists_each_network_once(say):
    status, out, notes = say("models")
    rows = [line.split() for line in out.splitlines()[2:]]
    assert status == 0
    assert [row[0] for row in rows] == [c.name for c in configurations()]
    assert rows[-2] == ["mobilenet_v2_130_224", "1664", "509.4", "5.39", "74.4", "92.1", "123.0"]
    assert "computed" in notes
    assert say("models", "--quiet")[2] == ""


def test_models_as_json_keeps_computed_and_published_apart(say):
    rows = json.loads(say("models", "--json")[1])
    assert len(rows) == 38
    by_name = {row["network"]: row for row in rows}
    wrong = by_name["mobilenet_v1_075_224"]
    assert wrong["published_macs_are_wrong"]
    assert (wrong["published"]["macs"], wrong["computed"]["macs"] // 1_000_000) == (317_000_000, 325)
    assert sum(row["published_macs_are_wrong"] for row in rows) == 5


@pytest.mark.parametrize(
    "words, count",
    [
        (["--all"], 356),
        (["--all", "v2_130"], 10),
        (["--all", "v1*feature_vector"], 64),
        (["--all", "https://tfhub.dev/google/imagenet/mobilenet_v2_130_224/feature_vector"], 1),
        (["V2_130"], 1),
        (["tf2-preview"], 1),
        (["v1_*_224"], 4),
    ],
)
def test_models_filters(say, words, count):
    assert len(json.loads(say("models", "--json", *words)[1])) == count
    assert len(say("models", *words)[1].splitlines()) == count + 2


def test_models_says_what_is_in_the_cache(say):
    cached = find_module("mobilenet_v1_025_128/feature_vector/4")
    write_module(cache_folder() / cached.handle, module(handle=cached.handle))
    assert "feature_vector/4" in say("models", "v1_025_128")[1].splitlines()[2]
    assert sum(line.endswith(" yes") for line in say("models", "--all")[1].splitlines()) == 1
    rows = json.loads(say("models", "--json", "--all")[1])
    assert [row["handle"] for row in rows if row["cached"]] == [cached.handle]
    assert json.loads(say("info", "--json", cached.handle)[1])["cached"] is True


def test_a_filter_that_nothing_fits_is_refused(say):
    status, out, error = say("models", "resnet")
    assert (status, out) == (2, "")
    assert "'resnet'" in error and len(error.splitlines()) == 1


def test_info_describes_every_published_module():
    from mobilenet_hub.cli.info import module_facts

    for published in published_modules()[::7]:
        facts = module_facts(published)
        assert json.loads(json.dumps(facts)) == facts
        assert facts["num_classes"] == (1001 if "classification" in published.handle else 0)
        assert facts["endpoints"]["global_pool"] == [1, 1, facts["num_features"]]


def test_info_of_a_published_module(say):
    status, out, _ = say("info", "mobilenet_v2_130_224/feature_vector/4")
    assert status == 0
    assert out.startswith("google/imagenet/mobilenet_v2_130_224/feature_vector/4\nFeature vectors of images")
    for part in ("1,664", "509,000,000", "507,710,560", "Fixed broken UPDATE_OPS", "mobilenet_v2_1.3_224.ckpt"):
        assert part in out
    assert "expansion_output" not in out
    listed = say("info", "--endpoints", "mobilenet_v2_130_224/feature_vector/4")[1]
    assert "layer_3/expansion_output" in listed and "112x112x144" in listed


def test_info_of_a_module_folder(say, tmp_path):
    config = {"num_classes": 2, "labels": ("ant", "bee"), "license": "CC0", "extra": {"made_by": "a test"}}
    folder = write_module(tmp_path / "insects", module(**config))
    facts = json.loads(say("info", "--json", str(folder))[1])
    assert facts["labels"] == ["ant", "bee"]
    assert facts["license"] == "CC0" and facts["made_by"] == "a test"
    assert facts["computed"]["trainable_parameters"] == 213_072 + 2 * 256 + 2
    assert facts["bytes"] > 4 * 213_072
    assert "ant; bee" in say("info", str(folder))[1]


def test_info_of_what_is_no_module(say, tmp_path):
    status, _, error = say("info", str(tmp_path))
    assert status == 2 and "module.json" in error
    status, _, error = say("info", "mobilenet_v2_130_192/feature_vector")
    assert status == 2 and "are 224" in error
