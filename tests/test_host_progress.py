"""Bars: when they appear, and what they count."""

import subprocess
import sys
import time

import pytest

import mobilenet_hub.host.progress
from mobilenet_hub.host.progress import Bars, Stage


def test_a_bar_appears_only_when_the_work_takes_long(capsys):
    with Bars() as on_progress:
        on_progress("reading", 1, 2)
        on_progress("reading", 2, 2)
    assert capsys.readouterr().err == ""


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(mobilenet_hub.host.progress, "_DELAY_S", 1e-9)
    monkeypatch.setattr(mobilenet_hub.host.progress, "_LOG_INTERVAL_S", 1e-9)


def test_what_is_shown(at_once, capsys):
    with Bars() as on_progress:
        for done in (10, 20, 30):
            on_progress(Stage("training", "photo", "loss 0.5"), done, 30)
            time.sleep(0.01)
    shown = capsys.readouterr().err
    assert "training" in shown
    assert "loss 0.5" in shown
    assert "10/20" in shown  # a resumed run counts from where it began
    with Bars() as on_progress:
        on_progress("one", 0, None)
        on_progress("one", 1, None)
        on_progress("two", 0, 5)
        on_progress("two", 1, 5)
    shown = capsys.readouterr().err
    assert "one: 1" in shown
    assert "1/5" in shown
    with Bars(quiet=True) as on_progress:
        on_progress(Stage("training", "photo"), 10, 30)
    assert capsys.readouterr().err == ""


def test_short_work_does_not_wait_for_tqdm():
    """It takes as long to import as a photo to classify."""
    code = (
        "import sys; from mobilenet_hub.host.progress import Bars\n"
        "with Bars() as show: show('reading', 1, 2); show('reading', 2, 2)\n"
        "print('tqdm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
