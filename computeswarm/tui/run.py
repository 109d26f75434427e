"""The way in for the command line: run the app, give the terminal back, return the exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from computeswarm.core.settings import Paths, Settings
    from computeswarm.tui.backend import Connect
    from computeswarm.tui.draft import ExampleJob

INTERNAL_ERROR = 125
"""What an uncaught error exits with, as every error of our own does."""


def run_tui(
    settings: Settings,
    paths: Paths,
    *,
    mode: str = "buyer",
    connect: Connect | None = None,
    example: ExampleJob | None = None,
) -> int:
    """Run the app until it is left; the exit code for the shell.

    Args:
        settings: whose ``theme`` is used, and what the live backends connect to.
        paths: where wallet and state lie.
        mode: ``buyer`` or ``seller``, the one shown first.
        connect: brings the backends; by default the live ones for these settings.
        example: a job offered to whoever has none of his own.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):  # Textual draws on stderr
        sys.stderr.write(
            "The terminal app needs a terminal; computeswarm --help lists the commands "
            "(seller and demo do without one by --headless).\n"
        )
        return INTERNAL_ERROR
    if os.environ.get("SSH_CONNECTION"):
        os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
    from computeswarm.tui.app import ComputeSwarmApp

    if connect is None:
        from computeswarm.tui.backends.connect import live_connect

        connect = live_connect(settings, paths)
    from computeswarm.tui.memory import FILE, Memory

    memory = Memory(paths.state / FILE)
    app = ComputeSwarmApp(mode=mode, connect=connect, example=example, memory=memory)
    if settings.theme and settings.theme in app.available_themes:
        app.theme = settings.theme
    app.run()
    code = app.return_code or 0
    return INTERNAL_ERROR if code == 1 else code
