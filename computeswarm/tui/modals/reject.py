"""Turning a job away that asks: what it means, and why, in the owner's words."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Button, Input, Static

from computeswarm.tui.format import money, short_job
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import SellerJob
from computeswarm.tui.widgets.pane import line, lines

REASON_CELLS = 120


class RejectModal(Dialog[str]):
    """Dismissed with the reason, which may be empty; with None where the job is to wait on."""

    def __init__(self, job: SellerJob) -> None:
        super().__init__(f"Turn {short_job(job.job_id)} away?")
        self._job = job

    def content(self) -> ComposeResult:
        paid = money(self._job.paid)
        yield Static(
            lines(
                line(f"It never started; the buyer gets back {paid} USDC, all of it."),
                line(("Why? He reads it; it may stay empty.", "$muted")),
            )
        )
        yield Input(id="reason", compact=True, max_length=REASON_CELLS, placeholder="no reason")
        with Horizontal(classes="buttons"):
            yield Button(Content("Let it wait (esc)"), id="no", compact=True)
            yield Button(Content("Turn it away"), id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self.foot(("⏎ goes on · tab moves · esc lets it wait", "$muted"))

    def on_input_submitted(self) -> None:
        self.query_one("#yes").focus()  # one more Enter, so that none is too many

    def on_button_pressed(self, event: Button.Pressed) -> None:
        sure = event.button.id == "yes"
        self.dismiss(self.query_one(Input).value.strip() if sure else None)
