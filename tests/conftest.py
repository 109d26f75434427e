"""What every test may rely on: a home of its own, and no colours or settings from outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["chain_fixtures", "demo_fixtures", "docker_engine", "internet", "postgres_server"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing a test does reaches the user's own wallet, settings or jobs."""
    for name in list(os.environ):
        if name.startswith("COMPUTESWARM_") or name in ("NO_COLOR", "TEXTUAL_THEME"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("COMPUTESWARM_HOME", str(home))
    return home
