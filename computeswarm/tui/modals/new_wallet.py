"""A wallet is made, or a key of one's own taken. The password stays in this dialog."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.content import Content
from textual.widgets import Input, Static

from computeswarm.core.errors import ComputeSwarmError, RealMoneyRefused
from computeswarm.tui.backend import BuyerBackend, WalletBackend
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import WalletItem
from computeswarm.tui.widgets.pane import line, lines

FIELDS = ("key", "password", "again")
LABELS = {"key": "Private key", "password": "Password", "again": "Once more"}


class NewWalletModal(Dialog[bool]):
    """Dismissed with True once there is a wallet that the buyer can pay from."""

    SPENDS = True
    BINDINGS: ClassVar = [
        Binding("ctrl+t", "swap", "import", show=False, id="new-wallet.swap", priority=True)
    ]

    def __init__(self, wallet: WalletItem, door: WalletBackend, buyer: BuyerBackend) -> None:
        super().__init__("Your wallet")
        self._wallet, self._door, self._buyer = wallet, door, buyer
        self._importing = self._busy = False

    def content(self) -> ComposeResult:
        yield Static("", id="new-about", markup=False)
        for name in FIELDS:
            yield Static(line((LABELS[name], "bold")), id=f"new-label-{name}", classes="new-label")
            yield Input(password=True, compact=True, max_length=1_000, id=f"new-{name}")
        yield Static("", id="new-note", markup=False)

    def on_mount(self) -> None:
        self._arrange()

    def action_swap(self) -> None:
        """A key of one's own instead of a new one, and back."""
        if not self._busy:
            self._importing = not self._importing
            self._arrange()

    def _arrange(self) -> None:
        for part in ("#new-label-key", "#new-key"):
            self.query_one(part).display = self._importing
        self.query_one("#new-about", Static).update(lines(*self._about()))
        self.query_one("#new-key" if self._importing else "#new-password").focus()
        other = "^t a new key" if self._importing else "^t take a key of mine"
        self.foot((f"⏎ next, and make it · {other} · esc cancel", "$muted"))
        self._judge()

    def _about(self) -> list[Content]:
        first = "The key stays on this machine" if self._importing else "A new key, made here"
        return [
            line((f"{first}, encrypted under your password, in", "$muted")),
            line((self._wallet.file, "$bright")),
            line(("Nobody can restore file or password: keep a copy of both.", "$warning")),
        ]

    # -- what is typed

    def _value(self, name: str) -> str:
        return self.query_one(f"#new-{name}", Input).value

    def _problem(self) -> str:
        password, shortest = self._value("password"), self._wallet.shortest_password
        if self._importing and not self._value("key").strip():
            return "The private key: 64 hex digits."
        if not password:
            return "Choose a password; it is asked for when you pay."
        if len(password) < shortest:
            missing = shortest - len(password)
            return f"Real money: at least {shortest} characters; {missing} to go."
        if password != self._value("again"):
            return "Type the same password once more."
        return ""

    def on_input_changed(self) -> None:
        self._judge()

    def _judge(self) -> None:
        problem = self._problem()
        if problem:
            self._say(f"○ {problem}", "$muted")
        else:
            self._say("✓ Good. ⏎ makes the wallet.", "$success")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        names = [name for name in FIELDS if name != "key" or self._importing]
        here = names.index(str(event.input.id).removeprefix("new-"))
        if here + 1 < len(names):
            self.query_one(f"#new-{names[here + 1]}").focus()
        elif problem := self._problem():
            self._say(f"✗ {problem}", "$error")
        elif not self._busy:
            self._busy = True
            self.run_worker(self._make(), group="wallet", exit_on_error=False)

    async def _make(self) -> None:
        key, password = self._value("key").strip(), self._value("password")
        self._fields(disabled=True)
        self._say("◌ Encrypting the key… (slow on purpose)", "$muted")
        try:
            if self._importing:
                await self._door.import_key(key, password)
            else:
                await self._door.create(password)
        except ComputeSwarmError as error:
            self._busy = False
            self._fields(disabled=False)
            self._say(f"✗ {error.detail}", "$error")
            return
        self._say("◌ Opening it for paying…", "$muted")
        await self._open(password)
        self._clear()
        self.dismiss(True)

    async def _open(self, password: str) -> None:
        """Let the buyer pay from it, without another start. There is a wallet either way."""
        try:
            await self._buyer.unlock(password)
        except RealMoneyRefused as error:
            self.swarm.say(error.detail, title="Made, but not for paying yet", severity="warning")
        except ComputeSwarmError as error:
            self.swarm.say(error.detail, title=error.title, severity="error")

    def action_leave(self) -> None:
        if self._busy:  # the file is on its way to the disk
            return
        self._clear()
        self.dismiss(False)

    # -- the fields

    def _fields(self, *, disabled: bool) -> None:
        for field in self.query(Input):
            field.disabled = disabled
        if not disabled:
            self.query_one("#new-again").focus()

    def _clear(self) -> None:
        with self.prevent(Input.Changed):
            for field in self.query(Input):
                field.value = ""

    def _say(self, text: str, tone: str) -> None:
        self.query_one("#new-note", Static).update(line((text, tone)))
