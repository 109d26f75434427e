"""Money that comes in for jobs, and what it buys.

Each of these is called again after a crash, so a repetition changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from computeswarm.core.errors import StorageFull
from computeswarm.core.jobs import Payment
from computeswarm.core.money import format_usdc
from computeswarm.core.states import JobState
from computeswarm.payments.channels.seller import Charge, JobAccount
from computeswarm.payments.claims import Claim
from computeswarm.payments.refunds import RefundRow
from computeswarm.seller.job import Job
from computeswarm.seller.runner import Order

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_log = logging.getLogger(__name__)
_DISK_SECONDS = 2.0


class Takings:
    """The seller's side of settlements and channels: what they call when money has moved."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self._back = asyncio.Event()

    async def settled(self, claim: Claim) -> None:
        """A slice is paid by a transfer."""
        while True:
            try:
                return await self._take_over(claim)
            except StorageFull as error:  # the money is here, so what it bought has to be kept
                await self._wait_for_room(error)

    async def charged(self, charge: Charge) -> None:
        """A deposit has arrived, or a voucher is signed."""
        while True:
            try:
                return self._take_charge(charge)
            except StorageFull as error:
                await self._wait_for_room(error)

    async def lost(self, claim: Claim) -> None:
        """The chain took a transfer back for good."""
        agent, desk = self._agent, self._agent.desk
        job_id, index = _slice_of(claim.subject)
        amount = format_usdc(claim.amount)
        agent.notices.tell(
            f"A reorganisation took back {amount} USDC for {job_id}, slice {index + 1}.", "error"
        )
        job, payment = desk.store.find(job_id), desk.store.payment(job_id, index)
        paid_anew = any(c.state.paid for c in agent.settlements.claims_for(claim.subject))
        if job is None or payment is None or paid_anew or job.state.terminal:
            return
        newest = index == job.slices_paid - 1
        job = desk.unpaid(job_id, payment)
        run = agent.run_of(job_id)
        if newest and job.slices_paid and run is not None:
            run.paid()  # it looks at its funds anew: unpaid time is grace, and then the end
            return
        state = JobState.OUT_OF_FUNDS if job.state is JobState.RUNNING else JobState.FAILED
        order = Order(state, "The chain took back what was paid for the job.")
        await agent.dispatcher.end_queued(job_id, order)
        if run is not None:
            run.end(order)

    async def closed(self, account: JobAccount) -> None:
        """The money of an ended job's channel has moved."""
        claimed, back = format_usdc(account.claimed), format_usdc(account.refunded)
        self._agent.notices.tell(f"Claimed {claimed} USDC for {account.job_id}, {back} went back.")
        self._back.set()

    async def refunded(self, row: RefundRow) -> None:
        """A refund is proven."""
        self._agent.notices.tell(f"Refunded {format_usdc(row.amount)} USDC for {row.subject}.")
        self._back.set()

    async def gone_back(self) -> None:
        """Wait until some money has gone back from now on."""
        self._back.clear()
        await self._back.wait()

    def recount(self, job: Job) -> None:
        """A channel's vouchers are on the disk, the count of them may not be."""
        agent = self._agent
        account = agent.channels.account(job.job_id) if job.channel else None
        if account is not None and account.ticks > job.slices_paid:
            agent.desk.store.tick(job.job_id, account.ticks - 1)

    async def _take_over(self, claim: Claim) -> None:
        agent, desk = self._agent, self._agent.desk
        job_id, index = _slice_of(claim.subject)
        job = desk.store.find(job_id)
        if job is None:
            _log.error("a payment for %s without a job goes back", claim.subject)
            await agent.settlements.refund(claim.subject, claim.payer, claim.amount)
            return
        payment = Payment(
            slice=index, amount=claim.amount, transaction=claim.transaction, payer=claim.payer
        )
        recorded = desk.store.payment(job_id, index)
        if recorded is None and not job.state.terminal:
            job = desk.paid(job_id, payment)
            amount = format_usdc(claim.amount)
            agent.notices.tell(f"{amount} USDC for {job_id}, slice {index + 1}.", "good")
            self._tell_run(job_id)
        elif recorded is None or recorded.transaction != payment.transaction:
            await desk.pay_back_late(job, payment)
        if job.state is JobState.AWAITING_PAYMENT:
            agent.queue_up(job_id)

    def _take_charge(self, charge: Charge) -> None:
        agent, desk = self._agent, self._agent.desk
        job_id, index = _slice_of(charge.subject)
        job = desk.store.find(job_id)
        if job is None:
            _log.error("a deposit for %s without a job goes back", charge.subject)
            agent.channels.finish(job_id, 0)
        elif job.state is JobState.AWAITING_PAYMENT:
            desk.deposited(job_id, charge)
            amount = format_usdc(charge.balance)
            agent.notices.tell(f"{amount} USDC in a channel for {job_id}.", "good")
            agent.queue_up(job_id)
        elif index >= job.slices_paid and not job.state.terminal:
            desk.ticked(job_id, index)
            self._tell_run(job_id)

    def _tell_run(self, job_id: str) -> None:
        if (run := self._agent.run_of(job_id)) is not None:
            run.paid()

    async def _wait_for_room(self, error: StorageFull) -> None:
        self._agent.notices.tell(error.detail, "error")
        await asyncio.sleep(_DISK_SECONDS)


def _slice_of(subject: str) -> tuple[str, int]:
    """Job and slice that a payment is for: ``job``, or ``job#n``."""
    job_id, _, number = subject.partition("#")
    return job_id, int(number or 0)
