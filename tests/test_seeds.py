"""Every Python block of the seed documents runs as it stands after `import mobilenet_hub as hub`, with right outputs.

The blocks are the published module pages' own. Placeholders (`images = ...`, `num_classes`) are filled in; modules come
from a cache of golden weights, so that the outputs can be compared with what TF-Slim computes.
"""

import ast
import re
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import SHARED

from mobilenet_hub.catalog.find import find_module

RTOL = 1e-4  # between independent float32 implementations; relative to the largest output
URL = re.compile(r'"(https://tfhub\.dev/[^"]+)"')


@dataclass(frozen=True)
class Block:
    document: str
    number: int
    code: str

    @property
    def urls(self) -> list[str]:
        return URL.findall(self.code)

    def __str__(self) -> str:
        return f"{self.document[:3]}-{self.number}"


def blocks() -> list[Block]:
    found = []
    for file in sorted((SHARED / "seeds").glob("*")):
        codes = re.findall(r"^```python\n(.*?)^```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        found += [Block(file.name, number, code) for number, code in enumerate(codes)]
    return found


BLOCKS = blocks()


def test_the_seed_documents_have_blocks(shared):
    shared("seeds")
    fences = sum(file.read_text(encoding="utf-8").count("```python") for file in (SHARED / "seeds").glob("*"))
    assert len(BLOCKS) == fences > 70
    for block in BLOCKS:
        ast.parse(block.code)


def variables_of(block: Block, golden, height: int, width: int) -> dict:
    """Return what the block's own text leaves to the reader."""
    import mobilenet_hub as hub

    variables = {"hub": hub, "num_classes": 5, "images": golden.golden_images(2, height, width)}
    if "tf." in block.code:
        import tensorflow as tf

        variables["tf"] = tf
    return variables


@pytest.mark.keras_backend
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_seed_block(block, golden, published, golden_module):
    import keras

    if "tf." in block.code and keras.backend.backend() != "tensorflow":
        pytest.skip("the block names tf, which runs on the TensorFlow backend")
    (url,) = set(block.urls)
    module = find_module(url)
    golden_module(url)
    height, width = module.image_size
    scope = variables_of(block, golden, height, width)
    placeholder = scope["images"]
    code = re.sub(r"^images = \.\.\.", "images = _images", block.code, flags=re.MULTILINE)
    tree = ast.parse(code)
    if isinstance(tree.body[-1], ast.Expr):  # a block that ends in an expression shows a layer: keep it
        tree.body[-1] = ast.copy_location(
            ast.Assign([ast.Name("layer", ast.Store())], tree.body[-1].value), tree.body[-1]
        )
    exec(compile(ast.fix_missing_locations(tree), str(block), "exec"), scope | {"_images": placeholder}, scope)
    check_outputs(scope, block, module, published, placeholder)


def check_outputs(scope: dict, block: Block, module, published, images) -> None:
    kind = "logits" if module.kind == "classification" else "features"
    want = published[f"{module.configuration.name}/{kind}"]
    if "m" in scope:
        inner = scope["m"].layers[0]
        got = inner(images)
        assert tuple(scope["m"](images).shape) == (2, 5 if len(scope["m"].layers) > 1 else 1001)
    elif "layer" in scope:
        assert scope["layer"].trainable
        assert scope["layer"].arguments == {"batch_norm_momentum": 0.997}
        got = scope["layer"](images)
    else:
        got = scope["logits" if module.kind == "classification" else "features"]
        assert scope.get("height", module.image_size[0]) == module.image_size[0]
        if "bn_hparams" in block.code:
            check_training_call(scope["module"], got, images)
            return
    got = np.asarray(got.detach() if hasattr(got, "detach") else got)
    assert np.abs(got - want).max() <= RTOL * np.abs(want).max()


def check_training_call(module, got, images) -> None:
    """The blocks on fine-tuning: batch statistics in the call, the moving ones moved by 1 - 0.997."""
    got = np.asarray(got.detach() if hasattr(got, "detach") else got)
    assert np.isfinite(got).all()
    fresh = module(images)  # tags {"train"}: batch statistics again, so independent of the moving ones
    fresh = np.asarray(fresh.detach() if hasattr(fresh, "detach") else fresh)
    features = got.shape[-1] != 1001
    if features:  # logits have dropout before them
        assert np.abs(got - fresh).max() <= RTOL * np.abs(fresh).max()
    assert len(module.trainable_variables) > 80
    assert module.regularization_losses
