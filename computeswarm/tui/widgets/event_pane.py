"""What happened at the seller, newest at the end."""

from __future__ import annotations

from textual.app import ComposeResult

from computeswarm.tui.logbuffer import LogBuffer
from computeswarm.tui.views import EventItem, LogKind, LogLine
from computeswarm.tui.widgets.log_view import LogView
from computeswarm.tui.widgets.pane import Notice, Pane

_KINDS: dict[str, LogKind] = {
    "info": "note",
    "good": "good",
    "warning": "warn",
    "error": "bad",
}


class EventPane(Pane):
    def compose(self) -> ComposeResult:
        yield LogView(id="events")
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Events", "bold"))
        self.notice("·", "Nothing yet")

    def load(self, events: tuple[EventItem, ...]) -> None:
        """The seller's latest events, oldest first."""
        view = self.query_one("#events", LogView)
        lines = [
            LogLine(event.text, _KINDS.get(event.level, "note"), int(event.at * 1000))
            for event in events
        ]
        if lines and lines != view.buffer.lines:
            buffer = LogBuffer()
            buffer.extend(lines)
            view.show(buffer)
            self.show_body()
