"""The examples of the docstrings do what they say; where an extra that one needs is absent, it skips."""

import doctest
import pkgutil
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import mobilenet_hub
from mobilenet_hub.errors import MissingExtraError

NEED_KERAS = ("keras.layers", "keras.mobilenet", "keras.kernels", "hub", "training.gradient")
FILES = [file.name for file in pkgutil.walk_packages(mobilenet_hub.__path__, "mobilenet_hub.")]
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]


def words(requirements):
    return {requirement.partition(">")[0].partition("[")[0].partition("=")[0].strip() for requirement in requirements}


OPTIONAL = {name.replace("-", "_") for one in PROJECT["optional-dependencies"].values() for name in words(one)}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.keras_backend)
        if name.removeprefix("mobilenet_hub.").startswith(NEED_KERAS)
        else name
        for name in FILES
    ],
)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        doctest.testmod(import_module(name), raise_on_error=True)
    except ModuleNotFoundError as error:
        skip_where_optional(error)
    except doctest.UnexpectedException as unexpected:
        error = unexpected.exc_info[1]
        if not isinstance(error, MissingExtraError | ModuleNotFoundError):
            raise error from None
        skip_where_optional(error)
    except doctest.DocTestFailure as failure:
        where = f"{failure.test.name}, line {failure.test.lineno + failure.example.lineno + 1}"
        pytest.fail(f"{where}: {failure.example.source}gave {failure.got}instead of {failure.example.want}")


def skip_where_optional(error):
    """Skip for want of an extra; anything else that cannot be imported is an error."""
    package = error.package if isinstance(error, MissingExtraError) else (error.name or "").partition(".")[0]
    if package not in OPTIONAL:
        raise error
    pytest.skip(f"needs {package}, which comes with an extra")
