"""How one sells: the command, what it does; and waiting for a seller to be there."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Static

from computeswarm.tui.backend import SellerBackend
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.widgets.pane import line, lines

COMMAND = "computeswarm seller --price 0.40"
LOOK_EVERY = 2.0


class SellModal(Dialog[bool]):
    """Dismissed with True when a seller has been started meanwhile.

    Args:
        attach: the door to a seller on this machine, where one runs.
    """

    BINDINGS: ClassVar = [
        Binding("y", "copy", "copy", show=False, id="sell.copy"),
        Binding("enter", "leave", "close", show=False, id="sell.close"),
    ]

    def __init__(self, attach: Callable[[], SellerBackend | None]) -> None:
        super().__init__("Sell your GPU")
        self._find = attach

    def content(self) -> ComposeResult:
        yield Static(
            lines(
                line(("In another terminal on the machine with the GPU:", "$muted")),
                line(""),
                line((f"  {COMMAND}", "bold $primary")),
                line(""),
                line(("1  ", "$muted"), "asks for your wallet's password, and finds your GPUs"),
                line(("2  ", "$muted"), "lists them at 0.40 USDC an hour; p changes it any time"),
                line(("3  ", "$muted"), "runs paid jobs sealed off from your files and network"),
                line(("4  ", "$muted"), "gives way to you: what you use yourself is not sold"),
                line(""),
                line(("It needs a little ETH in your wallet to collect what it earns.", "$muted")),
            ),
            markup=False,
        )

    def on_mount(self) -> None:
        self.foot(("◌ waiting for it to start… · y copies it · esc closes", "$muted"))
        self.set_interval(LOOK_EVERY, self._look)

    def _look(self) -> None:
        if self._find() is not None:
            self.swarm.say("Your seller is here.")
            self.dismiss(True)

    def action_copy(self) -> None:
        self.swarm.copy(COMMAND, "command")

    def action_leave(self) -> None:
        self.dismiss(False)
