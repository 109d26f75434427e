"""Where a job's money goes once it has ended: refunds of slices, and the rest of a deposit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from computeswarm.core.jobs import ChannelView, Payment, Refund
from computeswarm.payments.refunds import RefundRow
from computeswarm.seller.job import Job

if TYPE_CHECKING:
    from computeswarm.payments.channels.seller import JobAccount


class Refunder(Protocol):
    """The part of the settlements that pays back."""

    async def refund(self, subject: str, to: str, amount: int) -> RefundRow: ...

    def refunds(self, subject: str) -> list[RefundRow]: ...


class Channels(Protocol):
    """The part of the payment channels that closes them."""

    def finish(self, job_id: str, used: int, *, refund: bool = True) -> int: ...

    def account(self, job_id: str) -> JobAccount | None: ...


class JobAccounts:
    """The accounts of all jobs, whichever way they are paid."""

    def __init__(self, refunder: Refunder, channels: Channels) -> None:
        self._refunder = refunder
        self._channels = channels

    async def close(self, job: Job) -> None:
        """Charge what an ended job cost, and give back the rest; again changes nothing."""
        if not job.channel:
            await self._refunder.refund(job.job_id, job.buyer, job.refund)
            return
        owed = self._channels.finish(job.job_id, job.cost, refund=not job.bare)
        if owed:  # claimed already, while his withdrawal threatened
            await self._refunder.refund(job.job_id, job.buyer, owed)

    async def pay_back(self, job: Job, payment: Payment) -> None:
        """Give back a whole slice that bought nothing."""
        await self._refunder.refund(f"{job.job_id}#{payment.slice}", job.buyer, payment.amount)

    def refund(self, job: Job) -> Refund | None:
        """What goes back, and in which transaction; None while it runs, or where nothing does."""
        if job.channel:
            account = self._account(job)
            return None if account is None else _rest(job, account)
        if not job.refund:
            return None
        rows = self._refunder.refunds(job.job_id)
        if not rows and job.payments:
            rows = self._refunder.refunds(f"{job.job_id}#{job.payments[-1].slice}")
        return Refund(amount=job.refund, transaction=rows[0].transaction if rows else "")

    def channel(self, job: Job) -> ChannelView | None:
        """The channel that pays it, if one does."""
        if not job.channel:
            return None
        account = self._account(job)
        return ChannelView(
            channel_id=job.channel,
            deposit=job.deposit if account is None else account.deposited,
            transaction=job.deposit_tx if account is None else account.deposit_transaction,
            claim_transaction="" if account is None else account.claim_transaction,
        )

    def _account(self, job: Job) -> JobAccount | None:
        """Asked for ended jobs only: while one runs, each tick looks at its view."""
        return self._channels.account(job.job_id) if job.state.terminal else None


def _rest(job: Job, account: JobAccount) -> Refund | None:
    """What goes back of a deposit: all but what the job cost. A bare client's stays in his channel,
    for his next job; what a buyer has taken back himself is not ours to give."""
    withdrawn = account.state == "closed" and not account.refund_transaction
    if job.bare or withdrawn or account.deposited <= job.cost:
        return None
    return Refund(amount=account.deposited - job.cost, transaction=account.refund_transaction)
