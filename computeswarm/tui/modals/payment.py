"""The one dialog that spends money. Every value in it is frozen; Cancel is the default.

The quote is fetched first. The button is dead from its first press on, and the offer's key names
the purchase, so no way of pressing pays twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Button, Static

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.draft import JobDraft
from computeswarm.tui.format import (
    clock,
    duration,
    file_size,
    money,
    price,
    short_address,
    time_of_day,
)
from computeswarm.tui.keymap import bindings
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import OfferItem
from computeswarm.tui.widgets.pane import line, lines


class PaymentModal(Dialog[str]):
    """Dismissed with the job's id once it is paid and taken, or with None."""

    SPENDS = True

    BINDINGS: ClassVar = bindings("pay")

    def __init__(
        self,
        draft: JobDraft,
        balance: int | None,
        bought: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``bought`` is called with the job's id, also when nobody waited for it here."""
        super().__init__("Confirm payment")
        self._draft, self._balance, self._told = draft, balance, bought
        self._offer: OfferItem | None = None
        self._pressed = False
        self._over = False

    def content(self) -> ComposeResult:
        with VerticalScroll(id="pay-scroll", can_focus=False):  # the buttons stay in sight
            yield Static(line(("◌ Asking for a signed quote…", "$muted")), id="pay-text")
        yield Static("", id="pay-status", markup=False)
        with Horizontal(classes="buttons"):
            yield Button(Content("Cancel (esc)"), id="cancel", compact=True)
            yield Button(
                Content("Pay (p)"), id="pay", variant="primary", compact=True, disabled=True
            )

    def on_mount(self) -> None:
        self.query_one("#cancel").focus()
        self.set_interval(1.0, self._tick)
        self.run_worker(self._quote(), group="quote", exit_on_error=False)

    async def _quote(self) -> None:
        backends = self.swarm.backends
        assert backends is not None
        try:
            self._offer = await backends.buyer.offer(self._draft)
        except ComputeSwarmError as error:
            self._over = True
            self.query_one("#pay-text", Static).update(
                lines(line((error.title, "bold $error")), line(error.detail))
            )
            self.query_one("#pay").display = False
            self.query_one("#cancel", Button).label = Content("Close (esc)")
            self.foot(("nothing was paid", "$muted"))
            return
        self.query_one("#pay-text", Static).update(terms(self._offer, self._balance))
        button = self.query_one("#pay", Button)
        word = "Deposit" if self._offer.deposit else "Pay"
        worth = " of REAL MONEY" if self._offer.real_money else ""
        button.label = Content(f"{word} {money(self._offer.paid_now)} USDC{worth} (p)")
        button.refresh(layout=True)  # a longer label doesn't ask for more room by itself
        button.disabled = self._short
        if self._short:
            what = (
                "the deposit; a smaller budget needs less"
                if self._offer.deposit
                else "the first slice"
            )
            self._status(line((f"Not enough USDC in this wallet for {what}.", "$error")))
        self._tick()

    @property
    def _short(self) -> bool:
        offer, balance = self._offer, self._balance
        return offer is not None and balance is not None and balance < offer.paid_now

    def _tick(self) -> None:
        offer = self._offer
        if offer is None or self._pressed or self._over:
            return
        left = offer.expires_at - self.swarm.clock.now()
        if left > 0:
            self.foot((f"quote expires in {clock(left)}", "$warning" if left < 30 else "$muted"))
            return
        self._over = True
        self.query_one("#pay", Button).disabled = True
        self.foot(("quote expired", "$error"))
        self._status(line(("The quote has expired; close this and ask again.", "$error")))

    def action_pay(self) -> None:
        """Pay, once."""
        button = self.query_one("#pay", Button)
        if self._pressed or self._offer is None or button.disabled:
            return
        self._pressed = True
        button.disabled = True
        cancel = self.query_one("#cancel", Button)
        cancel.label = Content("Wait in the background (esc)")
        cancel.focus()
        self.foot(("paying", "$warning"))
        self._report("signing", 0, 0)
        self.swarm.run_worker(self._buy(self._offer), group="payment", exit_on_error=False)

    async def _buy(self, offer: OfferItem) -> None:
        backends = self.swarm.backends
        assert backends is not None
        try:
            job_id = await backends.buyer.buy(offer, self._report)
        except ComputeSwarmError as error:
            if not self.is_attached:
                self.swarm.say(error.detail, title=error.title, severity="error")
                return
            self._over = True
            self._status(lines(line((error.title, "bold $error")), line(error.detail)))
            self.query_one("#cancel", Button).label = Content("Close (esc)")
            self.foot(("not started", "$error"))
        else:
            self._told(job_id)
            if self.is_attached:
                self.dismiss(job_id)

    def _report(self, word: str, done: int, total: int) -> None:
        if self.is_attached:
            amount = f" {file_size(done)} of {file_size(total)}" if total else ""
            self._status(line(("◌ ", "$primary"), f"{word}…{amount}"))

    def _status(self, text: Content) -> None:
        self.query_one("#pay-status", Static).update(text)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "pay":
            self.action_pay()
        else:
            self.action_leave()

    def key_down(self) -> None:
        self.query_one("#pay-scroll").scroll_down(animate=False)

    def key_up(self) -> None:
        self.query_one("#pay-scroll").scroll_up(animate=False)

    def key_left(self) -> None:
        self.query_one("#cancel").focus()

    def key_right(self) -> None:
        self.query_one("#pay").focus()


def terms(offer: OfferItem, balance: int | None) -> Content:
    """What is bought, for how much, and the most that can be lost."""
    node = offer.node
    signed = ("✓ the wallet that signed this node", "$success")
    if offer.pay_to.lower() != node.wallet.lower():
        signed = ("✗ not the wallet that signed this node", "bold $error")
    rows = [
        _row("Run", (offer.job_name, "bold"), f"  on  {node.name} · {node.title}"),
        _row("Price", f"{price(offer.price_per_hour)} USDC/h, locked by the seller until ",
             time_of_day(offer.expires_at)),
        *_paid_now(offer),
        _row("At most", f"{money(offer.most)} USDC",
             f"  for {duration(offer.max_seconds)}; your budget is {money(offer.budget)}"),
        *(_row(word, text) for word, text in offer.conditions),
        _row("Pay to", f"{short_address(offer.pay_to)}  ", signed),
        _row("Network", *_network(offer), f" · USDC {short_address(offer.usdc)}"),
    ]  # fmt: skip
    if balance is not None:
        after = money(balance - offer.paid_now)
        rows.append(_row("Balance", f"{money(balance)} → {after} USDC"))
    rows += [
        line(""),
        line(
            "Most you can lose if the seller vanishes:  ",
            (f"{money(offer.at_risk)} USDC", "bold $primary"),
        ),
    ]
    if offer.deposit:
        rows += [
            line(("The deposit is locked until the job ends; its rest comes back by", "$muted")),
            line(("itself, or by  computeswarm channels withdraw  if he vanishes.", "$muted")),
        ]
    else:
        rows.append(line(("Unused seconds come back when the job ends.", "$muted")))
    return lines(*rows)


def _network(offer: OfferItem) -> list[tuple[str, str] | str]:
    if not offer.real_money:
        return [offer.network]
    return [(f"{offer.network} · REAL MONEY", "bold $error")]


def _paid_now(offer: OfferItem) -> list[Content]:
    first, each = money(offer.first_amount), duration(offer.slice_seconds)
    if not offer.deposit:
        now = (f"{first} USDC", "bold $primary")
        return [_row("Now", now, f"  for the first {each}   (x402 exact)")]
    return [
        _row("Now", (f"{money(offer.deposit)} USDC", "bold $primary"),
             "  deposit   (x402 batch-settlement)"),
        _row("Then", f"{first} USDC", f"  every {each} by voucher, no transaction"),
    ]  # fmt: skip


def _row(name: str, *parts: tuple[str, str] | str) -> Content:
    return line((f"{name:<10}", "$muted"), *parts)
