"""The wallet's password, asked when the key is first needed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Input, Static

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.backend import BuyerBackend
from computeswarm.tui.format import short_address
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.widgets.pane import line


class UnlockModal(Dialog[bool]):
    """Dismissed with True once the wallet is open. The password stays in this dialog."""

    SPENDS = True

    def __init__(self, backend: BuyerBackend) -> None:
        super().__init__("Unlock your wallet")
        self._backend = backend

    def content(self) -> ComposeResult:
        address = short_address(self._backend.identity.address)
        yield Static(line(("The password of ", "$muted"), address))
        yield Input(password=True, compact=True, max_length=1_000, id="unlock-password")
        yield Static("", id="unlock-note", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.foot(("⏎ unlock · esc cancel", "$muted"))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        password, event.input.value = event.input.value, ""
        event.input.disabled = True
        self.query_one("#unlock-note", Static).update(line(("◌ Unlocking…", "$muted")))
        self.run_worker(self._unlock(password), group="unlock", exit_on_error=False)

    async def _unlock(self, password: str) -> None:
        try:
            await self._backend.unlock(password)
        except ComputeSwarmError as error:
            self.query_one("#unlock-note", Static).update(line((error.detail, "$error")))
            field = self.query_one(Input)
            field.disabled = False
            field.focus()
        else:
            self.dismiss(True)
