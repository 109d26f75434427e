"""What somebody sees who has never been here."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Button, Static

from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.widgets.pane import line, lines

ABOUT = (
    "Strangers rent each other GPUs here, and pay by the second in USDC.",
    "Your script runs sealed off on somebody's machine; you watch it",
    "live. The most a stranger can take is one short slice of time.",
)


class WelcomeModal(Dialog[str]):
    """Dismissed with ``buy``, ``sell``, or ``look``; None on escape.

    Args:
        has_wallet: there is one already.
        selling: a seller runs on this machine.
        example: the script that stands ready; empty where none does.
    """

    BINDINGS: ClassVar = [
        Binding("down,j", "app.focus_next", "down", show=False, id="welcome.down"),
        Binding("up,k", "app.focus_previous", "up", show=False, id="welcome.up"),
        Binding("b", "choose('buy')", "buy", show=False, id="welcome.buy"),
        Binding("s", "choose('sell')", "sell", show=False, id="welcome.sell"),
        Binding("l", "choose('look')", "look", show=False, id="welcome.look"),
    ]

    def __init__(self, *, has_wallet: bool, selling: bool, example: str) -> None:
        super().__init__("Welcome to ComputeSwarm")
        buy = "Buy your first job" if has_wallet and example else "Buy compute"
        if not has_wallet:
            how = "Makes you a wallet first: a minute, no account anywhere."
        elif example:
            how = f"An example stands ready: {example}, about a cent."
        else:
            how = "You have a wallet; choose a script, see the price, pay."
        sell = "See what your GPU earns" if selling else "Sell my GPU"
        earns = (
            "A seller runs on this machine." if selling else "Paid by the second while you idle."
        )
        self._choices = (
            ("buy", "b", buy, how),
            ("sell", "s", sell, earns),
            ("look", "l", "Just look", "The market is open to everybody; W brings this back."),
        )

    def content(self) -> ComposeResult:
        yield Static(lines(*(line(text) for text in ABOUT)), id="welcome-about", markup=False)
        with Vertical(id="welcome-choices"):
            for name, key, title, detail in self._choices:
                yield Button(Content(f" {key}  {title}"), id=f"welcome-{name}", compact=True)
                yield Static(line((f"    {detail}", "$muted")), classes="welcome-detail")

    def on_mount(self) -> None:
        self.query_one("#welcome-buy").focus()
        self.foot(("⏎ chooses · ↑ ↓ · esc looks around", "$muted"))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(str(event.button.id).removeprefix("welcome-"))

    def action_choose(self, choice: str) -> None:
        self.dismiss(choice)
