"""The seller's price: what it is, what it becomes for new jobs."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Input, Static

from computeswarm.core.errors import BadRequest
from computeswarm.core.money import parse_usdc
from computeswarm.tui.format import money, price
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import AdviceItem
from computeswarm.tui.widgets.pane import line


class PriceModal(Dialog[int]):
    """Dismissed with the new price in atoms an hour."""

    def __init__(self, now: int, unit: str, advice: AdviceItem | None = None) -> None:
        super().__init__("Your price")
        self._now, self._unit, self._advice = now, unit, advice

    def content(self) -> ComposeResult:
        yield Static(line((f"USDC per {self._unit}; jobs that run keep theirs", "$muted")))
        yield Input(price(self._now), compact=True, max_length=16)
        yield Static("", id="price-note", markup=False)
        if self._advice is not None:
            yield Static(self._advice.sentence, id="price-advice", markup=False)

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        up = "↑ suggested · " if self._advice is not None and self._advice.suggested else ""
        self.foot((f"{up}⏎ set · esc cancel", "$muted"))

    def key_up(self) -> None:
        """Write the suggestion into the field; only Enter sets it."""
        if self._advice is not None and self._advice.suggested:
            self.query_one(Input).value = price(self._advice.suggested)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._check(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        atoms = self._check(event.value)
        if atoms is not None:
            self.dismiss(atoms)

    def _check(self, text: str) -> int | None:
        note = self.query_one("#price-note", Static)
        try:
            atoms = parse_usdc(text)
        except BadRequest as error:
            note.update(line((error.detail, "$error")))
            return None
        note.update(line((f"{money(atoms * 24)} USDC for a full day", "$muted")))
        return atoms
