"""A newcomer's whole way, in a real terminal and by the keyboard alone."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from cli_program import environment
from demo_fixtures import REPOSITORY
from tmux import Tmux, tmux

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed"),
]

SIZES = {"120x40": (120, 40), "80x24": (80, 24)}


def _environment(tmp_path: Path) -> dict[str, str]:
    env = environment(TMPDIR=str(tmp_path), LANG="C.UTF-8")
    for name in ("COMPUTESWARM_HOME", "NO_COLOR", "TMUX", "COLUMNS", "LINES"):
        env.pop(name, None)
    return env


def _left_clean(terminal: Tmux, code: int) -> None:
    """The shell is back, on its own screen, in its own mode."""
    shown = terminal.until(f"left {code}")
    assert terminal.ask("#{alternate_on}") == "0"
    assert terminal.ask("#{mouse_any_flag}#{mouse_button_flag}#{mouse_sgr_flag}") == "000"
    assert terminal.ask("#{cursor_flag}") == "1"
    terminal.until("icanon")
    assert "-icanon" not in terminal.screen
    assert "Traceback" not in shown


@pytest.mark.parametrize("size", SIZES)
def test_a_job_from_start_to_its_receipt(tmp_path: Path, size: str) -> None:
    columns, rows = SIZES[size]
    command = [sys.executable, "-m", "computeswarm", "demo"]
    with tmux(
        command, cwd=REPOSITORY, env=_environment(tmp_path), columns=columns, rows=rows
    ) as walk:
        walk.until("Welcome")
        walk.keys("Escape")
        walk.until("idle", "USDC", gone="Welcome")
        walk.keys("n")
        walk.until("Review", "computeswarm run")
        walk.keys("Enter")
        walk.until("Confirm payment", "Most you can lose")
        walk.keys("p")
        walk.until("done", gone="Confirm payment")
        walk.keys("r")
        walk.until("Receipt")
        walk.keys("Escape")
        walk.until("Jobs", gone="Receipt")  # else the next key and the escape are one: Alt+2
        walk.keys("2")
        walk.until("Earnings")
        walk.keys("3")
        walk.until("Ledger")
        walk.keys("1")
        walk.until("Jobs", "done")
        # any size does, and the way back
        walk.resize(60, 15)
        walk.until("done")
        walk.resize(200, 60)
        walk.until("done", "Jobs")
        walk.keys("q")
        _left_clean(walk, 0)
    assert not list(tmp_path.glob("computeswarm-demo-*"))
