"""`auto` is not bfloat16 where that would move a module's scores, and for a few photos it is what starts fastest."""

import numpy as np
import pytest

from mobilenet_hub.inference import score_check
from mobilenet_hub.inference.engine import Engine, installed_engines
from mobilenet_hub.inference.openvino import chosen_precision
from mobilenet_hub.inference.score_check import MOST_MOVED, made_up_pictures, scores_moved
from mobilenet_hub.module import Module
from mobilenet_hub.module_folder import read_module, write_module
from mobilenet_hub.store import resolve


def need_bf16():
    if chosen_precision("auto") != "bf16":
        pytest.skip("needs OpenVINO and a CPU with bf16 arithmetic")


@pytest.fixture(scope="module")
def starter():
    return read_module(resolve("starter"))


@pytest.fixture(scope="module")
def loud(starter):
    """The starter with a head that makes twenty times as much of the same features."""
    weights = {n: a * np.float32(20) if "/Logits/" in n else a for n, a in starter.weights.items()}
    return Module(starter.config, weights)


def test_the_pictures_are_always_the_same_and_differ():
    pictures = made_up_pictures((40, 56))
    assert pictures.dtype == np.uint8
    made_up_pictures.cache_clear()
    assert np.array_equal(made_up_pictures((40, 56)), pictures)
    assert len(np.unique(pictures.reshape(len(pictures), -1), axis=0)) == len(pictures)


def test_auto_is_float32_where_bfloat16_moves_scores(starter, loud):
    need_bf16()
    assert Engine(starter, ["logits"]).precision == "bf16"
    assert Engine(loud, ["logits"]).precision == "f32"
    assert Engine(loud, ["logits"], engine="openvino").precision == "f32"
    assert Engine(loud, ["logits"], precision="bf16").precision == "bf16"  # who asks for it gets it
    assert Engine(loud, ["features"]).precision == "bf16"  # features have no scores
    quiet = scores_moved(Engine(starter, ["logits"], precision="bf16").job)
    assert 0 < quiet <= MOST_MOVED < scores_moved(Engine(loud, ["logits"], precision="bf16").job)


def test_of_a_folder_it_is_measured_once(loud, starter, tmp_path, monkeypatch):
    need_bf16()
    monkeypatch.setenv("MOBILENET_HUB_CACHE", str(tmp_path / "cache"))
    for name, module in (("quiet", starter), ("loud", loud)):
        write_module(tmp_path / name, module)
        assert Engine(tmp_path / name, ["logits"]).precision == {"quiet": "bf16", "loud": "f32"}[name]

    def measured_again(job):
        raise AssertionError("measured again")

    monkeypatch.setattr(score_check, "scores_moved", measured_again)
    assert Engine(tmp_path / "quiet", ["logits"], threads=1).precision == "bf16"
    assert Engine(tmp_path / "loud", ["logits"], threads=1).precision == "f32"


def test_for_a_few_photos_auto_is_what_starts_fastest(starter):
    if "litert" not in installed_engines():
        pytest.skip("needs the engine litert")
    engine = Engine(starter, ["logits"], few=True)
    assert (engine.engine_name, engine.precision) == ("litert", "f32")
    for asked in installed_engines():
        assert Engine(starter, ["logits"], few=True, engine=asked).engine_name == asked
    many = Engine(starter, ["logits"], precision="bf16", few=True)
    assert many.precision == Engine(starter, ["logits"], precision="bf16").precision
