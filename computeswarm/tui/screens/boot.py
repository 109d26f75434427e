"""The first frame, before the widgets of a mode are even imported."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.screen import Screen

from computeswarm.core.clock import Clock
from computeswarm.tui.widgets.footer import Footer
from computeswarm.tui.widgets.header import Header
from computeswarm.tui.widgets.skeleton import Skeleton


class BootScreen(Screen[None]):
    """Shows the mode's skeleton; the app goes on to the mode itself once this is drawn."""

    AUTO_FOCUS = ""

    def __init__(self, mode: str, clock: Clock, drawn: Callable[[], object]) -> None:
        super().__init__()
        self.mode = mode
        self._clock = clock
        self._drawn = drawn

    def compose(self) -> ComposeResult:
        yield Header(self.mode, self._clock)
        yield Skeleton(self.mode, self._drawn)
        yield Footer(self.mode, lambda _action: "")
