"""A purchase from the quote to a job with its inputs in place, each step durable before the next.

``quoted → paying → paid → ended``, or ``abandoned`` where nothing was paid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from computeswarm.buyer.cashier import Cashier
from computeswarm.buyer.http.base import Answer
from computeswarm.buyer.http.seller import Access, SellerClient, execute_body
from computeswarm.buyer.journal import JobJournal, JobRecord, Stage
from computeswarm.buyer.offer import Offer
from computeswarm.buyer.progress import Progress, Report
from computeswarm.buyer.uploads import send_inputs, uploads_of
from computeswarm.core.clock import Clock
from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    Conflict,
    PaymentPending,
    Unavailable,
)
from computeswarm.core.jobs import ExecuteReply, ExecuteRequest, JobView
from computeswarm.core.sealing import purpose, seal
from computeswarm.core.signing import parse_json
from computeswarm.payments.guard import Purpose
from computeswarm.payments.journal import Fate, SignedPayment

_LOOKS = 5


def access(record: JobRecord) -> Access:
    """What opens the job at its seller."""
    return Access(record.job_id, record.access_key)


def slice_purpose(record: JobRecord, index: int) -> Purpose:
    """What paying slice ``index`` may cost, and whom it pays: from the quote that was checked."""
    path = "/execute" if index == 0 else f"/jobs/{record.job_id}/payments"
    return Purpose(
        job_id=record.job_id,
        slice=index,
        url=record.endpoint.rstrip("/") + path,
        method="POST",
        expected_amount=record.quote.slice_amount(index),
        pay_to=record.seller,
        job_budget=record.budget,
    )


def check_view(record: JobRecord, view: JobView) -> JobView:
    """A seller's word on a job, held against what was bought.

    Raises:
        BadRequest: it is another job, or other terms.
    """
    if view.job_id != record.job_id or view.node_id != record.node_id:
        raise BadRequest("The seller answers for another job than the one that was bought.")
    if view.price_per_hour != record.price_per_hour:
        raise BadRequest("The seller shows another price than the one he quoted.")
    return view


class Purchases:
    """Buys jobs with one wallet, and carries on with those that a crash interrupted.

    Args:
        buyer: the wallet.
        cashier_of: who pays for the first slice of a job.
    """

    def __init__(
        self,
        buyer: str,
        journal: JobJournal,
        cashier_of: Callable[[JobRecord], Cashier],
        clock: Clock,
    ) -> None:
        self._buyer = buyer
        self._journal = journal
        self._cashier_of = cashier_of
        self._clock = clock

    def open(self, offer: Offer, budget: int) -> JobRecord:
        """Write the purchase down, its secrets sealed for the seller; nothing is signed yet.

        Raises:
            BadRequest: the node takes no secrets.
        """
        sealed = ""
        if offer.secrets:
            what_for = purpose(offer.job_id, offer.spec.digest(), self._buyer)
            sealed = seal(offer.secrets, offer.node.info.secrets_key, what_for)
        request = ExecuteRequest(
            spec=offer.spec, quote=offer.signed, job_id=offer.job_id, sealed_secrets=sealed
        )
        return self._journal.add(offer, request, budget=budget, now=self._clock.now())

    def signed(self, record: JobRecord) -> bool:
        """Whether money may be on its way for it."""
        return record.stage is Stage.PAYING and self._signed(record)

    def refused(self, record: JobRecord) -> SignedPayment | None:
        """The payment that the seller refused, while it may be, or was, taken all the same."""
        return self._cashier_of(record).refused(slice_purpose(record, 0))

    def _signed(self, record: JobRecord) -> bool:
        return self._cashier_of(record).signed(slice_purpose(record, 0))

    async def pay(
        self, record: JobRecord, seller: SellerClient, beside: Coroutine[Any, Any, object] | None
    ) -> JobRecord:
        """Pay the first slice, or the deposit, and take over the job.

        Args:
            beside: runs while the seller is asked for the price, and ends before the payment is
                presented (telling the market, looking at the balance). What it raises stops the
                purchase.

        Raises:
            PaymentPending: the payment's fate is not known.
            InsufficientFunds, PaymentRequired: refused; the same payment is presented next time.
            ComputeSwarmError: nothing was bought; the purchase is abandoned.
        """
        body = execute_body(self._journal.request(record.job_id))
        other = asyncio.ensure_future(beside) if beside is not None else None

        async def ask(payment: Any) -> Answer:
            if payment is None:
                answer = await seller.execute(body)
                if other is not None:
                    await other
                return answer
            return await seller.execute(body, payment)

        def before_signing() -> None:
            if self._journal.step(record.job_id, Stage.PAYING).stage is not Stage.PAYING:
                raise Conflict("The purchase was given up elsewhere meanwhile; nothing was signed.")

        try:
            answer = await self._cashier_of(record).pay(
                slice_purpose(record, 0), ask, before_signing=before_signing
            )
            if answer.status != 202:
                raise BadRequest("The seller's answer is no job; choose another seller.")
        except PaymentPending:
            raise
        except (ComputeSwarmError, asyncio.CancelledError) as error:
            gone = self.refused(record)
            taken = gone is not None and gone.state is Fate.SPENT
            if taken or not self._signed(record):
                why = error.detail if isinstance(error, ComputeSwarmError) else "Interrupted."
                self._journal.step(record.job_id, Stage.ABANDONED, reason=why)
            raise
        finally:
            if other is not None:  # also where it has ended: what it raised was said or is stale
                other.cancel()
                await asyncio.wait({other})
                if not other.cancelled():
                    other.exception()
        # whatever the answer holds, the money is gone: that comes first
        self._journal.step(record.job_id, Stage.PAID, now=self._clock.now())
        reply = parse_json(ExecuteReply, answer.body)
        return self._journal.see(check_view(record, reply.job))

    async def upload(self, record: JobRecord, seller: SellerClient, report: Report) -> JobRecord:
        """Send the inputs that the seller misses; what is there already is not sent again.

        Raises:
            BadRequest: a local file is gone or has changed since the job was planned.
            SellerUnavailable: he takes none.
        """
        spec = self._journal.request(record.job_id).spec
        sizes = {f.sha256: f.size for f in spec.inputs if f.content is None}
        if record.view is not None and not record.view.missing_inputs:
            if sizes:
                report(Progress("uploading", there=len(sizes)))
            return record
        # asked afresh: the reply to a repeated payment is as old as its first
        record = await self._look(record, seller)
        if record.view is None or not record.view.missing_inputs or record.state.terminal:
            return record
        uploads = uploads_of(
            record.view.missing_inputs, sizes, self._journal.sources(record.job_id)
        )
        there = len(sizes) - len(record.view.missing_inputs)
        await send_inputs(seller, access(record), uploads, report, there=max(0, there))
        return await self._look(record, seller)

    async def _look(self, record: JobRecord, seller: SellerClient) -> JobRecord:
        for attempt in range(_LOOKS):
            try:
                view = await seller.job(access(record))
            except Unavailable:
                if attempt == _LOOKS - 1:
                    raise
                await asyncio.sleep(min(0.25 * 2**attempt, 2))
            else:
                return self._journal.see(check_view(record, view))
        raise AssertionError("not reached")
