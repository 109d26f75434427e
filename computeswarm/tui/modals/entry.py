"""One line of the books, whole."""

from __future__ import annotations

import time
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.widgets import Static

from computeswarm.tui.format import money
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import LedgerItem
from computeswarm.tui.widgets.ledger_pane import kind_word, standing
from computeswarm.tui.widgets.pane import line, lines

MEANINGS = {
    "done": "a receipt proves it",
    "open": "signed or sent; what became of it is not known yet",
    "told": "so the seller says; not seen on the chain yet",
    "owed": "no transaction pays it yet",
    "reorged": "the chain took it back; the same is on its way again",
    "reverted": "it moved nothing and cost gas",
    "refused": "the seller says he took nothing; he still could",
    "expired": "never used, and it can't be any more",
    "spent": "refused, and used on the chain all the same",
    "written_off": "too old to ask about; taken for gone",
}


class EntryModal(Dialog[None]):
    BINDINGS: ClassVar = [
        Binding("enter", "leave", "close", show=False, id="entry.close"),
        Binding("y", "copy", "copy", show=False, id="entry.copy"),
    ]

    def __init__(self, item: LedgerItem) -> None:
        super().__init__(f"{kind_word(item).capitalize()} of {money(item.amount)} USDC")
        self._item = item

    def content(self) -> ComposeResult:
        yield Static(lines(*_rows(self._item)), markup=False)

    def on_mount(self) -> None:
        copy = "y copies the transaction · " if self._item.transaction else ""
        self.foot((f"{copy}esc closes", "$muted"))

    def action_copy(self) -> None:
        if self._item.transaction:
            self.swarm.copy(self._item.transaction, "transaction")


def _rows(item: LedgerItem) -> list[Content]:
    word, tone = standing(item)
    moved = f"{money(item.signed)}" if item.signed <= 0 else f"+{money(item.signed)}"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(item.at))
    facts = [
        ("When", when),
        ("Books", item.role),
        ("Job", item.job_id + (f" · slice {item.slice + 1}" if item.slice is not None else "")),
        ("Peer", item.peer),
        ("Ours", item.wallet),
        ("Sum", f"{money(item.amount)} USDC"),
        ("Moves", f"{moved} USDC" if item.signed else "nothing has moved"),
        ("Hash", item.transaction),
        ("Block", "" if item.block is None else f"{item.block:,}"),
        ("Gas", "" if item.gas_wei is None else f"{item.gas_wei / 10**18:.9f} ETH"),
        ("Chan", item.channel),
        ("Nonce", item.nonce),
        ("Note", item.note),
    ]
    head = line((f"{word}", f"bold {f'${tone}' if tone != 'bright' else ''}"),
                (f"  {MEANINGS.get(item.standing, '')}", "$muted"))  # fmt: skip
    return [
        head,
        line(""),
        *(line((f"{label:<6}", "$muted"), (text, "")) for label, text in facts if text),
    ]
