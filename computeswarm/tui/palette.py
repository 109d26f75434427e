"""What the command palette offers: every key that means something here, orders, and themes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from textual.app import SystemCommand
from textual.screen import Screen

from computeswarm.tui.theme import THEMES

if TYPE_CHECKING:
    from computeswarm.tui.app import ComputeSwarmApp

_NOT_HERE = ("palette", "pane.next", "pane.back")
"""The palette itself, and moving where a palette is in the way."""


def commands(app: ComputeSwarmApp, screen: Screen[object]) -> Iterator[SystemCommand]:
    """The commands for a screen; one that can't run says why when it is chosen."""
    places = ("app", getattr(screen, "mode", ""))
    for key in app.keys.all:
        if key.where in places and key.id not in _NOT_HERE:
            yield SystemCommand(key.help, f"key {key.shown}", _runner(app, key.action, screen))
    for search in app.memory.searches if "buyer" in places else ():
        action = f"apply_search({search.name!r})"
        yield SystemCommand(f"Search: {search.name}", search.query, _runner(app, action, screen))
    for theme in THEMES:
        chosen = " (now)" if theme.name == app.theme else ""
        yield SystemCommand(
            f"Theme: {theme.name}{chosen}", "Change the colours", _themer(app, theme.name)
        )
    yield SystemCommand("Theme: others", "Textual's own colours", app.action_change_theme)


def _runner(app: ComputeSwarmApp, action: str, screen: Screen[object]) -> Callable[[], None]:
    def run() -> None:
        app.call_later(app.run_action, action, screen)

    return run


def _themer(app: ComputeSwarmApp, name: str) -> Callable[[], None]:
    def run() -> None:
        app.theme = name

    return run
