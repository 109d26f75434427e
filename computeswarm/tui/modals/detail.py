"""All about a node, also where the screen has no room for its pane."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from computeswarm.tui.format import price
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import NodeItem
from computeswarm.tui.widgets.node_detail import Insight, describe
from computeswarm.tui.widgets.pane import line, lines

_WIDTH = 24
UNKNOWN = Insight()


class DetailModal(Dialog[None]):
    def __init__(self, node: NodeItem, now: float, insight: Insight = UNKNOWN) -> None:
        super().__init__(f"{node.node_id} · {node.name}")
        self._node, self._now, self._insight = node, now, insight

    def content(self) -> ComposeResult:
        images = ", ".join(self._node.images[:8])
        more = [
            line((f"images {images}", "$muted")),
            line(("✓ signed by ", "$muted"), (self._node.wallet, "$muted")),
            line((f"at {self._node.endpoint}", "$muted")),
        ]
        text = describe(self._node, self._now, self._insight, width=_WIDTH)
        yield Static(lines(text, *self._asked(), *more), id="detail-modal-text", markup=False)

    def _asked(self) -> list[Content]:
        trend = self._insight.prices.trend
        if trend is None or not trend.points:
            return []
        last = trend.points[-1]
        figures = " · ".join(
            f"{share} {price(asked)}"
            for share, asked in (
                ("10 %", last.p10),
                ("25 %", last.p25),
                ("half", last.p50),
                ("75 %", last.p75),
                ("90 %", last.p90),
            )
        )
        return [line((f"{last.sellers} sellers ask at most: {figures}", "$muted"))]

    def on_mount(self) -> None:
        self.foot(("y copies the id · esc closes", "$muted"))

    def key_y(self) -> None:
        self.swarm.copy(self._node.node_id, "node id")
