"""The committed artifacts are what their sources build to, from packages that are pinned."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

_CONTRACTS = Path(__file__).resolve().parents[2] / "contracts"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
@pytest.mark.skipif(
    not (_CONTRACTS / "node_modules/solc").is_dir(), reason="solc is missing (npm ci in contracts/)"
)
def test_artifacts_are_what_their_sources_build_to() -> None:
    done = subprocess.run(
        ["node", "build.mjs", "--check"],
        cwd=_CONTRACTS,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_pins_content_and_names_no_place() -> None:
    lock = json.loads((_CONTRACTS / "package-lock.json").read_text("utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    for name, entry in packages.items():
        assert entry["integrity"].startswith("sha512-"), name
        assert "resolved" not in entry, name
