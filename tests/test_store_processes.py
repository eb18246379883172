"""Many processes pull one module at once while some are killed: always one good copy, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from modules import SMALL, published_archive
from servers import Answer, serving

PULLERS = Path(__file__).with_name("pullers.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_eight_pullers_of_which_two_are_killed(rounds, tmp_path, monkeypatch):
    archive, _ = published_archive(tmp_path / "published", SMALL)
    monkeypatch.setenv("MOBILENET_HUB_OFFLINE", "0")
    monkeypatch.delenv("MOBILENET_HUB_MIRROR", raising=False)
    with serving() as server:
        # Slow enough for kills to hit downloads too, and honouring ranges, so that survivors resume them.
        server.serve(f"/{SMALL}", Answer(archive, etag='"1"', chunk=1 << 16, chunk_delay_s=0.01))
        monkeypatch.setenv("MOBILENET_HUB_SOURCES", f"tfhub={server.url}")
        command = [sys.executable, str(PULLERS), SMALL, str(rounds), "8", "2", str(rounds)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        took = done.stdout.splitlines()
        assert len(took) == rounds
        assert any("0 killed" not in line for line in took)
        # Without kills each round needs one request; a killed download needs another.
        assert rounds <= len(server.requests) <= 4 * rounds
