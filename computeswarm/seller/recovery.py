"""After a crash: every job that had not ended goes on, starts anew, or is paid back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from computeswarm.core.errors import StorageFull
from computeswarm.core.states import JobState
from computeswarm.seller.job import Job

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

MAX_RESTARTS = 2
"""A job that was starting at so many crashes may be their cause: the next one ends it."""
_CRASHED = "The seller was interrupted while the job ran; everything paid goes back."
_TOO_OFTEN = "The seller was interrupted each time the job started; everything paid goes back."
_AGAIN = "The seller was interrupted before the job began; it waits at its old place."


async def recover(agent: SellerAgent) -> None:
    """Call it when nothing of the old processes is left, and before anything else moves."""
    live = agent.desk.store.live()
    for job in live:
        agent.takings.recount(job)
        if job.state is JobState.RUNNING:
            await agent.desk.end(job.job_id, JobState.SELLER_LOST, reason=_CRASHED)
            agent.notices.tell(f"{job.job_id} was running at the crash; refunded.", "warning")
        elif job.state is JobState.STARTING:
            await _start_anew(agent, job)
        elif job.state is JobState.QUEUED:
            agent.dispatcher.enqueue(job)
        with contextlib.suppress(StorageFull):  # it is paid for: there has to be room
            agent.inputs.promise(job.job_id, job.spec)


async def _start_anew(agent: SellerAgent, job: Job) -> None:
    """It had printed nothing and cost nothing. One with a network may have done something all the
    same in the moment before its start was written down, and nobody wants that twice."""
    if job.spec.network:
        await agent.desk.end(job.job_id, JobState.SELLER_LOST, reason=_CRASHED)
        return
    if agent.desk.store.restarts(job.job_id) >= MAX_RESTARTS:
        await agent.desk.end(job.job_id, JobState.SELLER_LOST, reason=_TOO_OFTEN)
        agent.notices.tell(f"{job.job_id} was starting at each crash; refunded.", "warning")
        return
    agent.dispatcher.enqueue(agent.desk.step_back(job.job_id, _AGAIN))
    agent.notices.tell(f"{job.job_id} was starting at the crash; it waits again.", "warning")
