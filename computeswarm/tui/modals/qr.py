"""Where money is sent: the address in full and as a QR code; and waiting until some has come."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Static

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.backend import WalletBackend
from computeswarm.tui.format import money
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import WalletItem
from computeswarm.tui.widgets.pane import line, lines
from computeswarm.tui.widgets.qr import QrCode

LOOK_EVERY = 3.0
FAUCETS = {"Base Sepolia": "faucet.circle.com"}
"""Where a network's test USDC is given away."""


class QrModal(Dialog[bool]):
    """The address of a wallet."""

    BINDINGS: ClassVar = [Binding("y", "copy", "copy", show=False, id="qr.copy")]

    def __init__(self, wallet: WalletItem, title: str = "Your address") -> None:
        super().__init__(title)
        self._wallet = wallet

    def content(self) -> ComposeResult:
        with Horizontal(id="qr-row"):
            yield QrCode(self._wallet.address)
            yield Static(lines(*self.words()), id="qr-words", markup=False)
        yield Static(line((self._wallet.address, "bold")), id="qr-address", markup=False)

    def words(self) -> list[Content]:
        """What stands beside the code."""
        wallet = self._wallet
        if wallet.real_money:
            worth = line(("✗ REAL MONEY", "bold $error"))
        else:
            worth = line(("Test money, worth nothing", "$muted"))
        return [
            line(("Send USDC on", "$muted")),
            line((wallet.network, "bold $error" if wallet.real_money else "bold $bright")),
            line(""),
            worth,
            line(""),
            line(("On any other network it would not arrive here.", "$muted")),
        ]

    def on_mount(self) -> None:
        self.foot(("y copies the address · esc closes", "$muted"))

    def action_copy(self) -> None:
        self.swarm.copy(self._wallet.address, "address")

    def action_leave(self) -> None:
        self.dismiss(False)


class FundModal(QrModal):
    """Dismissed with True once there is money, or enter goes on without; with False on escape."""

    BINDINGS: ClassVar = [Binding("enter", "go_on", "go on", show=False, id="fund.on")]

    def __init__(self, wallet: WalletItem, door: WalletBackend) -> None:
        super().__init__(wallet, "Put some money in it")
        self._door = door

    def words(self) -> list[Content]:
        rows = super().words()
        if faucet := FAUCETS.get(self._wallet.network):
            rows += [line(""), line(("Given away at", "$muted")), line((faucet, "bold $secondary"))]
        return [*rows, line(""), line(("A first job costs about a cent.", "$muted"))]

    def on_mount(self) -> None:
        self.query_one("#qr-words", Static).update(lines(*self.words()))
        self.foot(("◌ waiting for USDC… · ⏎ go on · y copy · esc later", "$warning"))
        self.run_worker(self._wait(), group="funding", exit_on_error=False)

    async def _wait(self) -> None:
        while True:
            try:
                funds = await self._door.funds()
            except ComputeSwarmError as error:
                self.foot((f"✗ {error.title}; looking again · ⏎ go on · esc later", "$error"))
            else:
                if funds.usdc:
                    self.swarm.say(f"{money(funds.usdc)} USDC is there.", title="Money has come")
                    self.dismiss(True)
                    return
                self.foot(("◌ waiting for USDC… · ⏎ go on · y copy · esc later", "$warning"))
            await asyncio.sleep(LOOK_EVERY)

    def action_go_on(self) -> None:
        self.dismiss(True)
