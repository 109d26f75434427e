"""The market's systemd unit: what systemd says of it, and a market that a real systemd starts."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from cli_program import free_port
from systemd_machine import THIS_TREE, booted

import computeswarm

UNIT = Path(__file__).resolve().parents[2] / "deploy" / "computeswarm-market.service"
PROGRAM = "/opt/computeswarm/bin/computeswarm"
PACKAGE = Path(computeswarm.__file__).parent
TREE_ANYWHERE = f"""[Service]
ProtectHome=read-only
BindReadOnlyPaths={PACKAGE.parent}
"""
"""This tree may lie in a home or below /tmp, where the service has its own."""
WAIT = 60.0
EXPOSURE = 2.0
"""Of systemd's ten points; the seller's has over five, since it makes sandboxes."""


def analyze(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    return subprocess.run(
        ["systemd-analyze", *command, str(copy)], capture_output=True, text=True, check=False
    )


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    done = analyze(tmp_path, "verify")
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, ours) == (0, [])


def test_it_is_given_little(tmp_path: Path) -> None:
    done = analyze(tmp_path, "security", "--offline=true", "--no-pager")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) < EXPOSURE


def test_a_market_under_systemd_comes_back_after_kill_and_ends(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    port = free_port()
    with booted(tmp_path / "machine", shared) as machine:
        machine.install(
            shared,
            {
                PROGRAM: (THIS_TREE, 0o755),
                "/etc/computeswarm-market/config.toml": (f"port = {port}\n", 0o600),
                f"/etc/systemd/system/{UNIT.name}": (UNIT.read_text(), 0o644),
                f"/etc/systemd/system/{UNIT.name}.d/test.conf": (TREE_ANYWHERE, 0o644),
            },
        )
        # the service's user has to reach this tree and its Python; only in there, not here
        for used in (Path(sys.executable), Path(sys.base_prefix) / "lib", PACKAGE):
            machine.must("chmod", "a+rx", *map(str, (*used.parents, used)))
        started = machine.run("systemctl", "start", UNIT.name)
        assert started.returncode == 0, machine.journal(UNIT.name)
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/stats")
        assert answer.json()["nodes_total"] == 0

        pid = machine.property(UNIT.name, "MainPID")
        status = machine.must("cat", f"/proc/{pid}/status")
        assert re.search(r"^Uid:\s+(\d+)", status, re.MULTILINE)[1] != "0"  # type: ignore[index]
        assert re.search(r"^CapEff:\s+(\w+)", status, re.MULTILINE)[1] == "0" * 16  # type: ignore[index]

        machine.must("systemctl", "kill", "-s", "KILL", "--kill-who=main", UNIT.name)
        deadline = time.monotonic() + WAIT
        while machine.property(UNIT.name, "NRestarts") != "1" or (
            machine.property(UNIT.name, "SubState") != "running"
        ):
            assert time.monotonic() < deadline, machine.journal(UNIT.name)
            time.sleep(0.2)
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200

        machine.must("systemctl", "stop", UNIT.name)
        assert machine.property(UNIT.name, "Result") == "success"
        assert "Traceback" not in machine.journal(UNIT.name)
