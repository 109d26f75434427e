"""The books: every movement of money, newest first, with what it comes to."""

from __future__ import annotations

import time

from textual.app import ComposeResult
from textual.widgets import Input

from computeswarm.tui.format import DASH, money, short_address, short_job
from computeswarm.tui.views import LedgerItem, LedgerPage, LedgerSums
from computeswarm.tui.widgets.pane import Notice, Pane, Part
from computeswarm.tui.widgets.table import Column, Table

STANDINGS: dict[str, tuple[str, str]] = {
    "done": ("✓ done", "success"),
    "open": ("… open", "warning"),
    "told": ("◌ told", "warning"),
    "owed": ("! owed", "warning"),
    "reorged": ("↺ reorged", "error"),
    "reverted": ("✗ reverted", "error"),
    "refused": ("✗ refused", "warning"),
    "expired": ("○ expired", "muted"),
    "spent": ("✗ spent", "error"),
    "written_off": ("– written off", "warning"),
}
"""Glyph with word, and tone."""
KINDS = {
    "channel_deposit": "deposit",
    "channel_claim": "claim",
    "channel_settle": "settle",
    "channel_refund": "channel back",
    "channel_withdrawal": "withdrawal",
}


def kind_word(item: LedgerItem) -> str:
    """What happened, for a narrow column."""
    return KINDS.get(item.kind, item.kind)


def standing(item: LedgerItem) -> tuple[str, str]:
    """How sure the books are of it: glyph with word, and tone."""
    return STANDINGS.get(item.standing, (item.standing, "muted"))


def amount(item: LedgerItem) -> tuple[str, str]:
    """Signed where it has moved, in brackets where it has not."""
    if not item.signed:
        return f"({money(item.amount, 6)})", "muted"
    if item.signed < 0:
        return f"{money(item.signed, 6)} ", ""
    return f"+{money(item.signed, 6)} ", "success"


def _job(item: LedgerItem) -> str:
    mark = f"#{item.slice}" if item.slice else ""
    return f"{short_job(item.job_id)}{mark}" if item.job_id else DASH


_COLUMNS: tuple[Column[LedgerItem], ...] = (
    Column("DATE", 11, lambda e: (time.strftime("%m-%d %H:%M", time.localtime(e.at)), "muted")),
    Column("WHAT", 12, lambda e: (kind_word(e), "bright")),
    Column("AMOUNT", 12, amount, right=True),
    Column("STANDING", 13, standing, grow=True),
    Column("PEER", 11, lambda e: (short_address(e.peer) if e.peer else DASH, ""), rank=3),
    Column("JOB", 13, lambda e: (_job(e), "muted"), rank=2),
    Column("SIDE", 6, lambda e: (e.role, "muted"), rank=5),
    Column("TX", 11, lambda e: (short_address(e.transaction) or DASH, "muted"), rank=4),
)


class LedgerPane(Pane):
    def compose(self) -> ComposeResult:
        find = Input(placeholder="job, peer, kind, standing, date…", id="ledger-find", compact=True)
        yield find
        yield Table[LedgerItem](_COLUMNS, lambda item: item.key, id="ledger")
        yield Notice()

    def on_mount(self) -> None:
        self.head(("Ledger", "bold"))
        self.query_one("#ledger-find").display = False
        self.notice("◌", "Reading the books…")

    @property
    def table(self) -> Table[LedgerItem]:
        return self.query_one("#ledger", Table)

    @property
    def find(self) -> str:
        """What is looked for."""
        return self.query_one("#ledger-find", Input).value.strip()

    def open_find(self) -> None:
        field = self.query_one("#ledger-find", Input)
        field.display = True
        field.focus()

    def close_find(self) -> bool:
        """Look for nothing; whether something was looked for."""
        field = self.query_one("#ledger-find", Input)
        was = field.display
        field.value, field.display = "", False
        self.table.focus()
        return bool(was)

    def load(self, page: LedgerPage) -> None:
        self.table.set_rows(page.items)
        count = f"{page.total:,}" if page.total else ""
        self.head(("Ledger", "bold"), (f"  {count} ", "$muted"))
        self.foot(*_totals(page.sums))
        if page.items:
            self.show_body()
        elif page.find:
            self.notice("○", "Nothing in the books fits", f"{page.find}", "esc shows all of them")
        else:
            self.notice(
                "◇", "Nothing has been paid yet", "Every payment and refund will stand here"
            )

    def fail(self, why: str) -> None:
        """The books can't be read."""
        if not self.table.rows:
            self.notice("✗", "The books can't be read", why, tone="$error")
        else:
            self.foot((f"✗ {why}", "$error"))


def _totals(sums: tuple[LedgerSums, ...]) -> list[Part]:
    """What each side comes to; one's income is the other's expense, so never in one sum."""
    parts: list[Part] = []
    for side in sums:
        if parts:
            parts.append(("   ", ""))
        parts += [
            (f"{side.role} ", "$muted"),
            (f"+{money(side.received)} ", "$success"),
            (f"-{money(side.sent)} ", ""),
            (f"net {money(side.net)}", "bold"),
        ]
        if side.owed:
            parts.append((f" ! owed {money(side.owed)}", "$warning"))
    return parts
