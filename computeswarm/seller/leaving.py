"""The seller leaves: nothing new, what may finish finishes, and the rest is paid back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from computeswarm.core.errors import JobNotFound
from computeswarm.core.states import JobState
from computeswarm.seller.runner import Order

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_REFUND_WAIT_SECONDS = 10.0
_STOPPED = "The seller stopped; everything paid goes back."


async def hand_back(agent: SellerAgent, grace: float) -> None:
    """End what waits at once and what runs after ``grace`` seconds, and see the refunds off."""
    order = Order(JobState.SELLER_LOST, _STOPPED, free=True)
    handed_back: list[str] = []
    for job_id in list(agent.queue):
        await agent.dispatcher.end_queued(job_id, order)
        handed_back.append(job_id)
    if agent.dispatcher.runs and grace > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await agent.dispatcher.idle()
    for run in agent.dispatcher.runs.values():
        run.end(order)
        handed_back.append(run.job_id)
    await agent.dispatcher.idle()
    await _see_refunds(agent, handed_back)


async def _see_refunds(agent: SellerAgent, job_ids: list[str]) -> None:
    """Give the refunds of jobs handed back some seconds to reach the chain."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REFUND_WAIT_SECONDS):
            while any(_refund_open(agent, job_id) for job_id in job_ids):
                await agent.takings.gone_back()


def _refund_open(agent: SellerAgent, job_id: str) -> bool:
    try:
        job = agent.desk.store.get(job_id)
    except JobNotFound:
        return False
    if job.channel:
        account = agent.channels.account(job_id)
        return account is not None and account.state == "closing"
    rows = agent.settlements.refunds(job_id)
    return job.refund >= agent.config.dust and any(row.state != "done" for row in rows)
