"""Paying for time while a job runs: the next slice shortly before the last one ends.

Apart from the job's stream, so that nobody who reads slowly lets a job run out of funds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from computeswarm.buyer.http.base import Answer
from computeswarm.buyer.http.seller import SellerClient
from computeswarm.buyer.journal import JobJournal, JobRecord
from computeswarm.buyer.purchase import access, check_view
from computeswarm.core.clock import Clock
from computeswarm.core.errors import ComputeSwarmError, Conflict, Unavailable
from computeswarm.core.jobs import JobView
from computeswarm.core.money import format_usdc
from computeswarm.core.signing import parse_json
from computeswarm.core.states import JobState

Note = Callable[[str], None]
_SHORTEST_WAIT = 0.2


class SlicePayer:
    """Keeps one job paid, within its budget; ``pay`` buys one slice, by whatever means.

    The seller's meter says when a slice is due, and our own clock has to agree: he can't call for
    slices faster than time passes.
    """

    def __init__(
        self,
        record: JobRecord,
        seller: SellerClient,
        pay: Callable[[int], Awaitable[Answer]],
        journal: JobJournal,
        clock: Clock,
        note: Note,
    ) -> None:
        self._record = record
        self._quote = record.quote
        self._lead = record.quote.lead_seconds
        self._seller = seller
        self._pay_slice = pay
        self._journal = journal
        self._clock = clock
        self._note = note
        self._idle_until = record.paid_at or record.created_at
        self._begun: float | None = None

    async def run(self) -> None:
        """Until the job has ended, is wholly paid, or may not be paid any further."""
        view = self._record.view
        while view is None or not self._finished(view):
            wait = self._wait(view) if view is not None else 0.0
            await asyncio.sleep(max(wait, _SHORTEST_WAIT))
            try:
                view = check_view(self._record, await self._seller.job(access(self._record)))
                self._journal.see(view)
                if not self._finished(view) and self._wait(view) <= 0:
                    view = await self._pay(view.slices_paid)
            except (Unavailable, Conflict):
                # unknown, or just ended: ask again; a signed slice is presented again as it is
                await asyncio.sleep(min(1.0, self._lead / 2))
            except ComputeSwarmError as error:
                self._note(f"The next slice is not paid: {error.detail}")
                return

    def _finished(self, view: JobView) -> bool:
        if view.state.terminal or view.slices_paid >= self._quote.slice_count:
            return True
        index = view.slices_paid
        total = self._quote.slice_amount(0) * index + self._quote.slice_amount(index)
        if total <= self._record.budget:
            return False
        self._note(
            f"The budget of {format_usdc(self._record.budget)} USDC pays for no further slice; "
            "the job stops when its paid time ends."
        )
        return True

    def _wait(self, view: JobView) -> float:
        """Seconds until the next slice is due: metered time never runs faster than the clock."""
        now = self._clock.now()
        if view.state is not JobState.RUNNING or view.next_payment_due_ms is None:
            if self._begun is None:
                self._idle_until = now
            return self._lead / 2
        due, paid = view.next_payment_due_ms / 1000, view.slices_paid * self._quote.slice_seconds
        if self._begun is None:
            # the meter tells when it began, but not before we last knew that it didn't run
            self._begun = max(self._idle_until, now - max(0.0, paid - due))
        return max(due - self._lead, self._begun + paid - self._lead - now)

    async def _pay(self, index: int) -> JobView:
        answer = await self._pay_slice(index)
        view = check_view(self._record, parse_json(JobView, answer.body))
        self._journal.see(view)
        return view
