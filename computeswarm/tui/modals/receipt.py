"""What a job did, how long each phase took, and where the money went."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.backend import BuyerBackend
from computeswarm.tui.format import millis, money, short_job
from computeswarm.tui.modals.dialog import Dialog
from computeswarm.tui.views import JobItem
from computeswarm.tui.widgets.job_pane import state_of
from computeswarm.tui.widgets.pane import line, lines

REFUND_EVERY = 2.0
PHASE_WORDS = {
    "created": "order and payment",
    "queued": "queue",
    "starting": "sandbox start",
    "running": "start, free",
    "metered": "run, paid by time",
}


class ReceiptModal(Dialog[None]):
    """Asks the seller again while a refund is on its way, so that its transaction shows up."""

    def __init__(self, job: JobItem, backend: BuyerBackend) -> None:
        super().__init__(f"Receipt · {short_job(job.job_id)}")
        self._job, self._backend = job, backend

    def content(self) -> ComposeResult:
        yield Static(receipt(self._job), id="receipt-text")

    def on_mount(self) -> None:
        outputs = "d fetches the outputs · " if self._job.outputs_ready else ""
        self.foot((f"{outputs}y copies the job id · esc closes", "$muted"))

        if self._job.refund is not None and not self._job.refund.transaction:
            self.run_worker(self._await_refund(), group="receipt", exit_on_error=False)

    async def _await_refund(self) -> None:
        while self._job.refund is not None and not self._job.refund.transaction:
            with suppress(ComputeSwarmError):  # the seller may be gone; the receipt stays as it is
                self._job = await self._backend.refresh(self._job.job_id)
                self.query_one("#receipt-text", Static).update(receipt(self._job))
            await asyncio.sleep(REFUND_EVERY)

    def key_y(self) -> None:
        self.swarm.copy(self._job.job_id, "job id")

    def key_r(self) -> None:
        self.dismiss(None)

    def key_enter(self) -> None:
        self.dismiss(None)

    async def key_d(self) -> None:
        if self._job.outputs_ready:
            self.dismiss(None)
            screen = self.app.screen_stack[0]
            self.app.call_later(self.app.run_action, "download", screen)


def receipt(job: JobItem) -> Content:
    """The receipt as it stands so far."""
    state, tone = state_of(job)
    rows = [
        line((job.name or job.job_id, "bold $bright"), "  ", (state, f"${tone}")),
        line((f"on {job.node_name or job.node_id} · {job.job_id}", "$muted")),
    ]
    if job.reason:
        rows.append(line((job.reason, f"${tone}")))
    rows.append(line(""))
    rows += _phases(job)
    rows += [
        line(""),
        _row("price", f"{money(job.price)} USDC an hour", ""),
        _row("run", millis(job.metered_ms), f"= {money(job.cost)} USDC"),
    ]
    rows += _paid(job)
    if job.refund is not None:
        word = "refund" if job.refund.transaction else "owed"
        rows.append(_row(word, f"{money(job.refund.amount)} USDC", job.refund.transaction))
    rows.append(
        line(
            (f"{'cost':<20}", "bold"),
            (f"{money(job.cost)} USDC", "bold $primary"),
            (f"  of at most {money(job.budget)}", "$muted"),
        )
    )
    return lines(*rows)


def _paid(job: JobItem) -> list[Content]:
    if job.deposit is not None:
        by = "1 voucher" if job.slices == 1 else f"{job.slices} vouchers"
        return [
            _row("deposit", f"{money(job.deposit.amount)} USDC", job.deposit.transaction),
            _row("paid", f"{money(job.paid)} USDC", f"by {by}"),
        ]
    rows = []
    earlier = max(0, job.slices - len(job.payments))
    if earlier:
        sum_ = job.paid - sum(payment.amount for payment in job.payments)
        rows.append(_row(f"paid 1–{earlier}", f"{money(sum_)} USDC", ""))
    for number, payment in enumerate(job.payments, earlier + 1):
        rows.append(_row(f"paid {number}", f"{money(payment.amount)} USDC", payment.transaction))
    return rows


def _phases(job: JobItem) -> list[Content]:
    return [
        _row(PHASE_WORDS.get(name, name), millis(max(0, later - began)), "")
        for (name, began), (_, later) in pairwise(job.phases)
    ]


def _row(name: str, value: str, more: str) -> Content:
    if more.startswith("0x") and len(more) > 24:
        more = f"tx {more[:10]}…{more[-6:]}"
    return line((f"{name:<20}", "$muted"), f"{value:<16}", (more, "$faint"))
