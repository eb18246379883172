"""How images enter: what the caller says where the file does not, and that nothing else is overruled."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tensorflow_files import frozen_graph, some_weights
from test_weights_hugging_face import write

from mobilenet_hub.architecture import Variant, mobilenet_v1
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import InputError, InvalidModuleError
from mobilenet_hub.inference.engine import Engine
from mobilenet_hub.module_folder import read_module
from mobilenet_hub.weights.convert import convert, load_source
from mobilenet_hub.weights.identify import ASSUMED
from mobilenet_hub.weights.pixels import FED, PIXELS, with_pixels

IMAGES = np.kron(np.random.default_rng(0).random((2, 4, 4, 3)), np.ones((1, 24, 24, 1))).astype(np.float32)


@pytest.mark.parametrize("pixels", FED)
def test_the_caller_says_what_the_file_leaves_open(tmp_path, pixels):
    write(tmp_path)
    module = load_source(tmp_path, pixels=pixels)
    scale, offset = FED[pixels]
    assert (module.config.variant.input_scale, module.config.variant.input_offset) == (scale, offset)
    assert not any("images enter" in one for one in module.config.extra.get(ASSUMED, ()))
    usual = load_source(tmp_path)
    assert PIXELS in usual.config.extra[ASSUMED]
    found = Engine(module, ["logits"], precision="f32").run(IMAGES)["logits"]
    same = (IMAGES * np.float32(scale) + np.float32(offset) + 1) / 2  # what the usual module takes to the same numbers
    wanted = Engine(usual, ["logits"], precision="f32").run(same)["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_what_a_file_says_is_not_overruled(tmp_path):
    write(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    assert ASSUMED not in load_source(tmp_path, pixels="x/127.5-1").config.extra
    with pytest.raises(
        InvalidModuleError, match=r"says itself that images enter as x/127\.5-1 of pixels x, not as x/255"
    ):
        load_source(tmp_path, pixels="x/255")
    with pytest.raises(InputError, match=r"pixels must be one of x/127\.5-1, x/255, x, not '0\.\.1'"):
        load_source(tmp_path, pixels="0..1")
    for scale, offset, said in ((255.0, 0.0, "as x of"), (255 / 128, -1.0, "as x/128-1 of"), (1.0, 0.0, "as x/255 of")):
        with pytest.raises(InvalidModuleError, match=said):
            with_pixels(replace(Variant(), input_scale=scale, input_offset=offset), (), "x/127.5-1", tmp_path)


def test_a_module_and_what_was_exported_from_it_are_corrected_once(tmp_path, capsys):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source")
    assert main(["convert", str(tmp_path / "source"), "-o", str(tmp_path / "module")]) == 0
    assert "say on which: --pixels x/255" in capsys.readouterr().out
    folder = convert(tmp_path / "module", tmp_path / "corrected", pixels="x/255")
    assert read_module(folder).config.variant.input_offset == 0
    with pytest.raises(InvalidModuleError, match="says itself that images enter as x/255"):
        load_source(folder, pixels="x")
    assert main(["convert", str(folder), "-o", str(tmp_path / "again"), "--pixels", "x"]) == 2
    assert main(["convert", str(folder), "-o", str(tmp_path / "again"), "--pixels", "x/255"]) == 0


def test_a_network_of_tf_slim_says_how_images_enter(tmp_path):
    (tmp_path / "net.pb").write_bytes(frozen_graph(some_weights(mobilenet_v1(0.25, 3)), (96, 96)))
    with pytest.raises(InvalidModuleError, match="says itself"):
        load_source(tmp_path / "net.pb", pixels="x/255")
