"""A job as its buyer and its owner see it, from what is on disk and what its meter says now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from computeswarm.core.jobs import JobView
from computeswarm.core.states import JobState
from computeswarm.seller.accounts import JobAccounts
from computeswarm.seller.inputs import InputStore
from computeswarm.seller.job import Job
from computeswarm.seller.meter import Meter

_TAKES_INPUTS = (JobState.AWAITING_PAYMENT, JobState.QUEUED)


@dataclass(frozen=True, slots=True)
class JobViews:
    """Makes them.

    Args:
        expect: a waiting job's place, and the seconds until it starts at most.
        asks: what the buyer of a job is told that waits for the owner's yes, and until when.
    """

    node_id: str
    inputs: InputStore
    accounts: JobAccounts
    expect: Callable[[str], tuple[int | None, int | None]]
    asks: Callable[[str], tuple[str, int | None]]

    def make(
        self, job: Job, meter: Meter | None, *, now: float, metered_at: int | None, last_seq: int
    ) -> JobView:
        """The job now.

        Args:
            now: on the monotonic clock.
            metered_at: when its time began to cost, in unix milliseconds.
        """
        quote = job.quote
        metered_ms, cost, due = job.metered_ms, job.cost, None
        if meter is not None:
            metered_ms, cost, due = meter.milliseconds(now), meter.cost(now), meter.left_ms(now)
        elif not job.state.terminal:
            due = min(job.slices_paid * quote.slice_seconds, quote.max_seconds) * 1000
        waits = job.state is JobState.QUEUED
        position, starts_in = self.expect(job.job_id) if waits else (None, None)
        asks, decide_by = self.asks(job.job_id) if waits else ("", None)
        wants = job.state in _TAKES_INPUTS
        return JobView(
            job_id=job.job_id,
            node_id=self.node_id,
            state=job.state,
            reason=job.reason or asks,
            name=job.spec.name,
            buyer=job.buyer,
            image=job.spec.image,
            gpu_count=job.spec.gpu_count,
            scheme=quote.scheme,
            price_per_hour=quote.price_per_hour,
            slice_seconds=quote.slice_seconds,
            max_seconds=quote.max_seconds,
            queue_position=position,
            starts_in_seconds=starts_in,
            owner_decides_by_ms=decide_by,
            paused=meter is not None and meter.paused,
            missing_inputs=self.inputs.missing(job.job_id, job.spec) if wants else (),
            exit_code=job.exit_code,
            metered_ms=metered_ms,
            paid=job.paid,
            cost=cost,
            payments=job.payments,
            channel=self.accounts.channel(job),
            refund=self.accounts.refund(job),
            slices_paid=job.slices_paid,
            next_payment_due_ms=due,
            outputs_ready=bool(job.outputs),
            outputs_until=job.outputs_until if job.outputs else None,
            phases=job.phases.model_copy(update={"metered": metered_at}),
            last_seq=last_seq,
        )
