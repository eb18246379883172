"""Compiled models are kept under a name that tells all they depend on."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mobilenet_hub
from mobilenet_hub.inference.compiled import _MAKERS
from mobilenet_hub.store import resolve

_KEY = """
from pathlib import Path
from mobilenet_hub.inference.compiled import cache_key
from mobilenet_hub.inference.job import Job
from mobilenet_hub.module_folder import read_config
config = read_config(folder := Path({folder!r}))
print(cache_key(Job(folder, config, config.image_size, ("features",)), "machine"))
"""


def key_of(package):
    """The key that a process of its own gives, which finds the package in this folder."""
    code = f"import sys; sys.path.insert(0, {str(package)!r})" + _KEY.format(folder=str(resolve("starter")))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__", "starter")
    shutil.copytree(Path(mobilenet_hub.__file__).parent, folder / "mobilenet_hub", ignore=ignored)
    return folder


def test_other_code_gives_another_key_and_other_files_do_not(copy):
    before = key_of(copy)
    assert before == key_of(copy)
    with (copy / "mobilenet_hub/bulk/rows.py").open("a") as stream:
        stream.write("# more\n")
    assert key_of(copy) == before
    keys = {before}
    for maker in _MAKERS:
        file = copy / "mobilenet_hub" / Path(*maker.split(".")).with_suffix(".py")
        assert importlib.util.find_spec(f"mobilenet_hub.{maker}").origin.endswith(str(file.relative_to(copy)))
        with file.open("a") as stream:
            stream.write("# changed\n")
        keys.add(key_of(copy))
    assert len(keys) == 1 + len(_MAKERS)


def test_whatever_the_graph_is_built_from_is_a_maker():
    """The files of ours that graph.py and its likes import, and theirs in turn, down to what only checks or names."""
    told = (
        "import sys, mobilenet_hub; before = set(sys.modules); "
        "import mobilenet_hub.inference.graph, mobilenet_hub.inference.litert_graph;"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    loaded = {name.removeprefix("mobilenet_hub.") for name in done.stdout.split() if name.startswith("mobilenet_hub.")}
    loaded = {name for name in loaded if not name.startswith("host")}  # which only names and writes files
    assert loaded - {"errors", "inference"} == set(_MAKERS)
