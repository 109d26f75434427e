"""Wallet mode: what there is, what may be spent, and the books."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual import on
from textual.containers import Container
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui import messages as m
from computeswarm.tui.backend import Backends, WalletBackend
from computeswarm.tui.feeds import Poll
from computeswarm.tui.format import money, short_address
from computeswarm.tui.keymap import bindings
from computeswarm.tui.screens.base import ModeScreen
from computeswarm.tui.views import FundsItem, LedgerItem, WalletItem
from computeswarm.tui.widgets.header import Header, Link, real_money
from computeswarm.tui.widgets.ledger_pane import LedgerPane
from computeswarm.tui.widgets.pane import Notice, Part
from computeswarm.tui.widgets.table import Table
from computeswarm.tui.widgets.wallet_pane import Purse, WalletPane

STATUS_EVERY, FUNDS_EVERY, LEDGER_EVERY = 2.0, 8.0, 2.0
PAGE = 500
"""Lines of the books that are fetched at a time."""
NEAR = 100
"""So close to the last of them the next ones are fetched."""


class WalletScreen(ModeScreen):
    mode = "wallet"
    BINDINGS: ClassVar = bindings("app", "wallet")
    CSS_PATH: ClassVar = ["../styles/panes.tcss", "../styles/wallet.tcss"]
    AUTO_FOCUS = "#ledger"

    def __init__(self) -> None:
        super().__init__()
        self.wallet: WalletItem | None = None
        self.funds: FundsItem | None = None
        self._funds_at = 0.0
        self._offline = ""
        self._door: WalletBackend | None = None
        self._polls: dict[str, Poll] = {}
        self._limit = PAGE

    def body(self) -> list[Widget]:
        panes = Container(WalletPane(id="wallet-pane"), LedgerPane(id="ledger-pane"), id="wallet")
        return [Notice(id="no-wallet"), panes]

    def on_mount(self) -> None:
        if self.swarm.backends is not None:
            self._begin(self.swarm.backends)

    # -- connection and feeds

    def on_connected(self, event: m.Connected) -> None:
        if self._door is None:
            self._begin(event.backends)

    def on_connect_failed(self, event: m.ConnectFailed) -> None:
        self.link_broken(event.error)

    def _begin(self, backends: Backends) -> None:
        door = self._door = backends.wallet
        if door is None:
            self.query_one(Header).link = Link("none", none="no books")
            self.query_one("#no-wallet", Notice).say(
                "◇", "No wallet can be shown here", "1 goes back to buying"
            )
            self.set_class(True, "-no-door")
            return

        async def status() -> m.WalletLoaded:
            return m.WalletLoaded(await door.status())

        async def ledger() -> m.LedgerLoaded:
            find = self.query_one(LedgerPane).find
            return m.LedgerLoaded(await door.ledger(find, limit=self._limit))

        self._poll("wallet", status, STATUS_EVERY)
        self._poll("ledger", ledger, LEDGER_EVERY)

    def _poll(self, name: str, fetch: Callable[[], Awaitable[Message]], period: float) -> None:
        poll = self._polls[name] = Poll(name, fetch, self.post_message, period)
        self.run_worker(poll.run(), group=name, exclusive=True, exit_on_error=False)

    def _ask_chain(self, door: WalletBackend) -> None:
        async def funds() -> m.FundsLoaded:
            return m.FundsLoaded(await door.funds())

        self._poll("funds", funds, FUNDS_EVERY)

    def kick(self, *names: str) -> None:
        """Fetch now what has surely changed."""
        for name in names:
            if name in self._polls:
                self._polls[name].kick()

    # -- what arrives

    def on_wallet_loaded(self, event: m.WalletLoaded) -> None:
        self.wallet = event.wallet
        if event.wallet.address and "funds" not in self._polls and self._door is not None:
            self._ask_chain(self._door)
        if not event.wallet.address:
            self.query_one(Header).link = Link("none", none="no wallet")
        self._show()

    def on_wallet_opened(self) -> None:
        self.kick("wallet", "ledger", "funds")

    def on_funds_loaded(self, event: m.FundsLoaded) -> None:
        self.funds, self._funds_at, self._offline = event.funds, self.now, ""
        self.link_good()
        self._show()

    def on_ledger_loaded(self, event: m.LedgerLoaded) -> None:
        pane = self.query_one(LedgerPane)
        if event.page.find == pane.find:  # else another is on its way
            pane.load(event.page)
            self.refresh_footer()

    def on_feed_failed(self, event: m.FeedFailed) -> None:
        if event.feed == "funds":
            self._offline = event.error.title
            self.link_broken(event.error)
            self._show()
        elif event.feed == "ledger":
            self.query_one(LedgerPane).fail(event.error.detail)
        elif self.wallet is None:
            pane = self.query_one(WalletPane)
            pane.notice("✗", event.error.title, event.error.detail, tone="$error")

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        wallet, backends = self.wallet, self.swarm.backends
        if wallet is None or backends is None or not self.query(WalletPane):
            return
        who = backends.buyer.identity
        age = max(0.0, self.now - self._funds_at)
        locked = who.locked and bool(wallet.address)
        purse = Purse(wallet, self.funds, age, self._offline, locked, who.barred)
        self.query_one(WalletPane).load(purse, roomy=self._roomy())
        self._facts(wallet)
        self.refresh_footer()

    def _roomy(self) -> bool:
        """Whether the QR code has its place beside the text, and the books still theirs."""
        width, height = self.app.size
        return width >= 118 and height >= 34

    def _facts(self, wallet: WalletItem) -> None:
        header = self.query_one(Header)
        header.alarm = real_money(wallet.real_money)
        facts: list[Part] = [(wallet.network, "bold $error" if wallet.real_money else "$muted")]
        if wallet.address:
            facts.append((short_address(wallet.address), "$muted"))
        if self.funds is not None:
            facts.append((f"{money(self.funds.usdc, 4)} USDC", "bold $bright"))
        header.facts = tuple(facts)

    # -- the books

    @on(Input.Changed, "#ledger-find")
    def _find(self) -> None:
        self._limit = PAGE
        self.kick("ledger")

    @on(Input.Submitted, "#ledger-find")
    def _found(self) -> None:
        self.query_one(LedgerPane).table.focus()

    @on(Table.Moved, "#ledger")
    def _moved(self) -> None:
        table = self.query_one(LedgerPane).table
        if len(table.rows) == self._limit and table.cursor > len(table.rows) - NEAR:
            self._limit += PAGE
            self.kick("ledger")
        self.refresh_footer()

    @on(Table.Chosen, "#ledger")
    def _chosen(self) -> None:
        self.action_entry()

    # -- keys

    @property
    def selected(self) -> LedgerItem | None:
        return self.query_one(LedgerPane).table.current

    def refusal(self, action: str) -> str:
        if action not in ("qr", "export", "filter", "entry"):
            return ""
        if self._door is None or self.wallet is None:
            return "Not connected yet; this takes a moment."
        if self.wallet.trouble and action in ("qr", "entry"):
            return self.wallet.trouble
        if action == "qr":
            return "" if self.wallet.address else "There is no wallet yet; ⏎ makes one."
        if action == "entry" and not self.wallet.address:
            return ""
        return "" if self.selected else "The books have nothing to show."

    def action_back(self) -> None:
        if not self.query_one(LedgerPane).close_find():
            self.unzoom()

    def action_filter(self) -> None:
        if self._door is not None:
            self.query_one(LedgerPane).open_find()

    def action_entry(self) -> None:
        """The entry under the cursor; where there is no wallet, one is made."""
        if self.refused("entry") or self.wallet is None:
            return
        if not self.wallet.address:
            from computeswarm.tui.welcome import make_wallet

            self.run_worker(make_wallet(self.swarm), group="new wallet", exit_on_error=False)
        elif (item := self.selected) is not None:
            from computeswarm.tui.modals.entry import EntryModal

            self.app.push_screen(EntryModal(item))

    def action_qr(self) -> None:
        if not self.refused("qr") and self.wallet is not None:
            from computeswarm.tui.modals.qr import QrModal

            self.app.push_screen(QrModal(self.wallet))

    def action_copy(self) -> None:
        item = self.selected
        if item is not None and item.transaction and self.query_one(LedgerPane).table.has_focus:
            self.swarm.copy(item.transaction, "transaction")
        elif self.wallet is not None and self.wallet.address:
            self.swarm.copy(self.wallet.address, "address")

    def action_export(self) -> None:
        if not self.refused("export") and self._door is not None:
            self.run_worker(self._export(self._door), group="export", exit_on_error=False)

    async def _export(self, door: WalletBackend) -> None:
        from datetime import datetime
        from pathlib import Path

        from computeswarm.tui.modals.save import SaveModal

        try:
            text = await door.ledger_csv(self.query_one(LedgerPane).find)
        except ComputeSwarmError as error:
            self.swarm.say(error.detail, title=error.title, severity="error")
            return
        today = datetime.fromtimestamp(self.now).date().isoformat()
        self.app.push_screen(SaveModal(Path(f"books-{today}.csv"), text, "Save the books"))
