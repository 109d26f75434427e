"""The way in for the command line: run the app, give the terminal back, return the exit code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from computeswarm.core.settings import Paths, Settings
    from computeswarm.tui.backend import Connect
    from computeswarm.tui.draft import ExampleJob
    from computeswarm.tui.memory import Memory

INTERNAL_ERROR = 125
"""What an uncaught error exits with, as every error of our own does."""


def run_tui(
    settings: Settings,
    paths: Paths,
    *,
    mode: str = "buyer",
    connect: Connect | None = None,
    example: ExampleJob | None = None,
    memory: Memory | None = None,
) -> int:
    """Run the app until it is left; the exit code for the shell.

    Args:
        settings: whose ``theme`` is used, and what the live backends connect to.
        paths: where wallet and state lie.
        mode: ``buyer`` or ``seller``, the one shown first.
        connect: brings the backends; by default the live ones for these settings.
        example: a job offered to whoever has none of his own.
        memory: what is remembered; by default the file in ``paths.state``.

    Raises:
        ConfigError: a theme or a key that is none.
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
    from computeswarm.core.errors import ConfigError
    from computeswarm.tui.keys import Keys
    from computeswarm.tui.memory import FILE, Memory
    from computeswarm.tui.theme import THEMES, fitting

    memory = Memory(paths.state / FILE) if memory is None else memory
    keys = Keys(settings.keys)
    app = ComputeSwarmApp(mode=mode, connect=connect, example=example, memory=memory, keys=keys)
    theme = settings.theme or fitting()
    if theme not in app.available_themes:
        raise ConfigError(
            f"There is no theme {theme[:40]!r}; choose one of {', '.join(t.name for t in THEMES)}."
        )
    app.set_reactive(type(app).theme, theme)  # nothing is drawn yet that would have to change
    app.rings, app.tells_desktop = settings.bell, settings.desktop_notifications
    app.run(mouse=settings.mouse)
    code = app.return_code or 0
    return INTERNAL_ERROR if code == 1 else code
