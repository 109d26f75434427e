"""A node's details where the screen has no room for their pane."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import NodeItem
from computeswarm.tui.widgets.node_detail import describe
from computeswarm.tui.widgets.pane import line, lines


class DetailModal(Dialog[None]):
    def __init__(self, node: NodeItem, now: float) -> None:
        super().__init__(f"{node.node_id} · {node.name}")
        self._node, self._now = node, now

    def content(self) -> ComposeResult:
        more = line(("at ", "$muted"), (self._node.endpoint, "$muted"))
        yield Static(lines(describe(self._node, self._now), more), id="detail-modal-text")

    def on_mount(self) -> None:
        self.foot(("y copies the id · esc closes", "$muted"))

    def key_y(self) -> None:
        self.swarm.copy(self._node.node_id, "node id")
