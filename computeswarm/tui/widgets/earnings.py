"""What the seller earned: sums, by day, what went back and what is owed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from computeswarm.tui.format import money, sparkline
from computeswarm.tui.views import EarningsItem
from computeswarm.tui.widgets.pane import Notice, Pane, line, lines

LABEL = 9
"""Cells of a row's name."""


class EarningsPane(Pane):
    def compose(self) -> ComposeResult:
        yield Static(id="earnings-text", classes="body", markup=False)
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Earnings", "bold"), (" USDC", "$muted"))
        self.notice("◌", "Asking the seller…")

    def load(self, earned: EarningsItem) -> None:
        """All sums are after refunds."""
        rows = [
            line(
                (f"{'today':<{LABEL}}", "$muted"),
                (f"{money(earned.today, 4):>12}", "bold $primary"),
            ),
            line((f"{'7 days':<{LABEL}}", "$muted"), f"{money(earned.week, 4):>12}"),
            line((f"{'30 days':<{LABEL}}", "$muted"), f"{money(earned.month, 4):>12}"),
        ]
        if earned.by_day:
            room = max(7, self.content_size.width - LABEL - 1)  # the newest days where it is narrow
            days = [float(atoms) for _, atoms in earned.by_day[-room:]]
            bars = sparkline(list(days), len(days), max(days)) if any(days) else "▁" * len(days)
            rows.append(line((f"{'by day':<{LABEL}}", "$muted"), " ", (bars, "$primary")))
        rows.append(line((f"{'refunded':<{LABEL}}", "$muted"), f"{money(-earned.refunded, 4):>12}"))
        if earned.vouched:
            rows.append(
                line((f"{'vouched':<{LABEL}}", "$muted"), f"{money(earned.vouched, 4):>12}")
            )
        if earned.owed:
            rows.append(
                line(
                    (f"{'owed':<{LABEL}}", "$muted"),
                    (f"{money(earned.owed, 4):>12}", "$warning"),
                )
            )
        self.query_one("#earnings-text", Static).update(lines(*rows))
        self.foot(("after refunds", "$muted"))
        self.show_body()
