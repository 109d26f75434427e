"""Following a job to its end: its events as they come, and its next slices paid meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable

from computeswarm.buyer.cashier import Cashier
from computeswarm.buyer.channels import ChannelPurse
from computeswarm.buyer.http.base import Answer
from computeswarm.buyer.http.seller import SellerClient
from computeswarm.buyer.http.stream import follow_events
from computeswarm.buyer.journal import JobJournal, JobRecord, Stage
from computeswarm.buyer.purchase import access, check_view, slice_purpose
from computeswarm.buyer.slices import Note, SlicePayer
from computeswarm.core.clock import Clock
from computeswarm.core.errors import SellerUnavailable
from computeswarm.core.events import EndEvent, JobEvent, StateEvent
from computeswarm.core.money import format_usdc
from computeswarm.core.text import clean_line
from computeswarm.payments.journal import PaymentJournal


class Follower:
    """Follows jobs; without a cashier it looks on and pays nothing.

    Args:
        lost_seconds: how long a seller may be silent before he counts as gone.
    """

    def __init__(
        self,
        journal: JobJournal,
        payments: PaymentJournal,
        cashier: Cashier | None,
        purse: ChannelPurse | None,
        clock: Clock,
        *,
        lost_seconds: float,
    ) -> None:
        self._journal = journal
        self._payments = payments
        self._cashier = cashier
        self._purse = purse
        self._clock = clock
        self._lost_seconds = lost_seconds

    async def follow(
        self, record: JobRecord, seller: SellerClient, since: int, note: Note
    ) -> AsyncGenerator[JobEvent, None]:
        """Every event after ``since``, to the end event.

        Raises:
            SellerUnavailable: he is gone; the sentence says what may be lost.
        """
        paying = None
        if self._cashier is not None and record.stage is Stage.PAID:
            pay = self._slices_of(record, seller)
            slices = SlicePayer(record, seller, pay, self._journal, self._clock, note)
            paying = asyncio.create_task(slices.run())
        stream = follow_events(seller, access(record), since, lost_seconds=self._lost_seconds)
        try:
            async for event in stream:
                self._keep(record, event)
                yield event
        except SellerUnavailable as error:
            raise self._lost(record, error) from None
        finally:
            await stream.aclose()
            if paying is not None:
                paying.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await paying

    def _slices_of(
        self, record: JobRecord, seller: SellerClient
    ) -> Callable[[int], Awaitable[Answer]]:
        """What buys one further slice of a job."""
        purse, cashier = self._purse, self._cashier
        assert purse is not None
        assert cashier is not None
        if record.by_channel:
            return lambda index: purse.tick(record, seller, index)
        return lambda index: cashier.pay(
            slice_purpose(record, index),
            lambda payment: seller.pay_slice(access(record), index, payment),
            before_signing=lambda: None,
        )

    def _keep(self, record: JobRecord, event: JobEvent) -> None:
        if isinstance(event, EndEvent):
            self._journal.see(check_view(record, event.job))
        elif isinstance(event, StateEvent):
            known = self._journal.get(record.job_id).view
            if known is not None and not event.state.terminal:
                update = {
                    "state": event.state,
                    "reason": clean_line(event.reason),
                    "paused": event.paused,
                }
                self._journal.see(known.model_copy(update=update))

    def _lost(self, record: JobRecord, error: SellerUnavailable) -> SellerUnavailable:
        record = self._journal.get(record.job_id)
        channel = self._purse.of_job(record.job_id) if self._purse else None
        given = channel.vouched if channel else self._payments.spent_job(record.job_id)
        at_risk = max(0, given - record.cost)
        back = ""
        if channel is not None:
            back = (
                f" The rest of the deposit of {format_usdc(channel.deposited)} USDC comes back by "
                f"itself when he is, or without him by `computeswarm channels withdraw "
                f"{record.job_id}`."
            )
        return SellerUnavailable(
            f"{error.detail} At most {format_usdc(at_risk)} USDC paid ahead may be lost; no "
            f"more is paid. `computeswarm logs {record.job_id} -f` carries on when he is back."
            f"{back}",
            job_id=record.job_id,
            at_risk=at_risk,
        )
