"""Environment variables: one file names and reads them all, and whoever asks gets the same answer."""

import json
import re
from pathlib import Path

import pytest

import mobilenet_hub
from mobilenet_hub.cli.main import main
from mobilenet_hub.errors import ModuleUnavailableError, OfflineError
from mobilenet_hub.host.environment import VARIABLES, is_offline, set_variable, setting
from mobilenet_hub.store.pull import pull

PACKAGE = Path(mobilenet_hub.__file__).parent
OF_TESTS = {"MOBILENET_HUB_SHARED", "MOBILENET_HUB_SERVE_PICTURES"}  # the tests read them, the package does not


def test_one_file_reads_the_environment():
    others = {file for file in PACKAGE.rglob("*.py") if "environ" in file.read_text("utf-8").replace("environment", "")}
    assert {file.relative_to(PACKAGE).as_posix() for file in others} == {"host/environment.py"}
    with pytest.raises(AssertionError):
        setting("NO_SUCH_VARIABLE")


def test_every_variable_of_ours_that_a_text_names_is_listed():
    root = Path(__file__).parents[1]
    texts = [file.read_text("utf-8") for file in (*PACKAGE.rglob("*.py"), *root.glob("docs/*.md"), root / "README.md")]
    named = {name for text in texts for name in re.findall(r"MOBILENET_HUB_[A-Z_]+", text)}
    assert named - OF_TESTS <= set(VARIABLES)


@pytest.mark.parametrize(
    ("value", "offline"),
    [
        *((value, True) for value in ("1", "true", "True", " yes ", "on", "TRUE", "2", "offline")),
        *((value, False) for value in ("", " ", "0", "false", "False", "no", "OFF", "off ")),
    ],
)
def test_fetching_doctor_and_the_error_agree_about_offline(value, offline, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", value)
    monkeypatch.setenv("MOBILENET_HUB_SOURCES", "mirror")  # an empty folder: nothing is connected to in either case
    monkeypatch.setenv("MOBILENET_HUB_MIRROR", str(tmp_path))
    assert is_offline() is offline
    main(["doctor", "--json"])
    assert json.loads(capsys.readouterr().out)["cache"]["offline"] is offline
    with pytest.raises(ModuleUnavailableError if not offline else OfflineError) as refused:
        pull("mobilenet_v1_025_128/feature_vector")
    assert ("MOBILENET_HUB_OFFLINE" in str(refused.value)) is offline


def test_a_variable_is_set_only_where_it_is_unset(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    set_variable("TF_ENABLE_ONEDNN_OPTS", "1")
    assert setting("TF_ENABLE_ONEDNN_OPTS") == "0"
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")
    set_variable("TF_ENABLE_ONEDNN_OPTS", "1")
    assert setting("TF_ENABLE_ONEDNN_OPTS") == "1"
