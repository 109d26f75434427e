"""Wallet mode: what there is, what may be spent, and the books."""

from __future__ import annotations

from typing import ClassVar

from textual.widget import Widget

from computeswarm.tui.keymap import bindings
from computeswarm.tui.screens.base import ModeScreen
from computeswarm.tui.widgets.pane import Notice


class WalletScreen(ModeScreen):
    mode = "wallet"
    BINDINGS: ClassVar = bindings("app", "wallet")

    def body(self) -> list[Widget]:
        return [Notice(id="no-wallet")]

    def refusal(self, action: str) -> str:
        return ""
