"""The public names as a type checker and a person see them."""

import inspect
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import mobilenet_hub as hub
from mobilenet_hub.errors import MissingExtraError

SNIPPET = """
import mobilenet_hub as hub

reveal_type(hub.Classifier("starter"))
reveal_type(hub.Classifier("starter").classify(["cat.jpg"], top=3)[0].labels)
reveal_type(hub.Embedder("starter").embed(["cat.jpg"]).ndim)
reveal_type(hub.models("v2_130")[0].num_features)
reveal_type(hub.pull("mobilenet_v1_025_128/feature_vector"))
reveal_type(hub.bench("starter").one_image_ms)
reveal_type(hub.train("photos", "module").accuracy)
reveal_type(hub.evaluate("module", "photos").metrics)
reveal_type(hub.export("starter", "onnx", "starter.onnx").difference)
reveal_type(hub.resolve("starter"))
reveal_type(hub.convert("net.h5", "module"))
reveal_type(hub.GradientOptions(epochs=1, augmentation=hub.Augmentation()))
try:
    hub.resolve("nobody")
except (hub.UnknownModuleError, hub.OfflineError) as error:
    reveal_type(error)
hub.no_such_name
"""
REVEALED = (
    "Classifier", "tuple[str, ...]", "int", "int", "Path", "float", "float", "Metrics", "float", "Path",
    "Path", "GradientOptions", "UnknownModuleError | OfflineError",
)  # fmt: skip


def checked(code, tmp_path):
    """Return pyright's findings, [(severity, message)], on a file of a stranger's project."""
    if find_spec("pyright") is None:
        pytest.skip("needs pyright, of the extra mobilenet-hub[dev]")
    (tmp_path / "theirs.py").write_text(code)
    source = str(Path(hub.__file__).parents[1])
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [source], "typeCheckingMode": "standard"}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "theirs.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    return [(found["severity"], found["message"]) for found in json.loads(done.stdout)["generalDiagnostics"]]


@pytest.mark.slow
def test_a_type_checker_knows_the_public_names(tmp_path):
    found = checked(SNIPPET, tmp_path)
    told = [message.partition(' is "')[2].removesuffix('"') for severity, message in found if severity == "information"]
    assert tuple(told) == REVEALED
    assert [message for severity, message in found if severity == "error"] == [
        '"no_such_name" is not a known attribute of module "mobilenet_hub"'
    ]


def test_the_package_says_that_it_is_typed():
    assert (Path(hub.__file__).parent / "py.typed").exists()


def test_a_misspelled_name_gets_the_near_one():
    with pytest.raises(AttributeError, match="did you mean 'Classifier'"):
        hub.Clasifier  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(AttributeError, match=r"no attribute '__wrapped__'$"):
        hub.__wrapped__  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_the_verbs_of_the_command_line_are_functions():
    assert [module.handle for module in hub.models("mobilenet_v1_025_128/feature_vector/5")] == [
        "google/imagenet/mobilenet_v1_025_128/feature_vector/5"
    ]
    assert len(hub.models()) == 356
    with pytest.raises(hub.OfflineError):
        hub.pull("mobilenet_v1_025_128/feature_vector/5")
    with pytest.raises(hub.UnknownModuleError):
        hub.models("resnet_50")
    speed = hub.bench("mobilenet_v1_025_128/feature_vector/5", seconds=0.1)  # not in the cache: without its weights
    assert speed.one_image_ms > 0


def signatures(name, public):
    """Yield the signatures of a public name: a function's, or those of a class and its public methods."""
    if not inspect.isclass(public):
        yield name, inspect.signature(public)
        return
    for method, value in vars(public).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if inspect.isfunction(function) and (method == "__init__" or not method.startswith("_")):
            yield f"{name}.{method}", inspect.signature(function)


@pytest.mark.parametrize("name", list(hub._OWNERS))
def test_signatures_have_types_and_no_any(name):
    try:
        public = getattr(hub, name)
    except MissingExtraError as error:
        pytest.skip(str(error))
    for where, signature in signatures(name, public):
        for parameter in signature.parameters.values():
            if parameter.name not in ("self", "cls"):
                assert parameter.annotation is not inspect.Parameter.empty, f"{where}: {parameter.name}"
                assert not re.search(r"\bAny\b", str(parameter.annotation)), f"{where}: {parameter}"
        assert not re.search(r"\bAny\b", str(signature.return_annotation)), where
        assert signature.return_annotation is not inspect.Signature.empty or where.endswith("__init__"), where
