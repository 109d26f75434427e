"""``computeswarm jobs``: what was bought, and how it stands."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer
    from computeswarm.buyer.journal import JobRecord
    from computeswarm.cli.context import Context
    from computeswarm.core.jobs import MarketJob

_ASK_SECONDS = 3.0
_PAGE, _MOST = 200, 10_000


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("job", nargs="?", metavar="JOB", help="one job, by the start of its id")
    parser.add_argument(
        "--history",
        action="store_true",
        help="all that the wallet bought and sold, as the market keeps it, from any machine",
    )


async def run(context: Context) -> int:
    """List jobs, or show one."""
    if context.args.history:
        return await _history(context)
    from computeswarm.cli.buying import buyer_of
    from computeswarm.cli.output import JOB_HEAD, job_document, job_lines, job_row

    async with buyer_of(context) as buyer:
        if context.args.job:
            record = buyer.job(context.args.job)
            await _refresh(buyer, [record.job_id])
            record = buyer.job(record.job_id)
            if context.json:
                context.document(job_document(record))
            for line in job_lines(record):
                context.text(line)
            return ExitCode.OK
        await _refresh(buyer, [r.job_id for r in buyer.jobs() if _open(r)])
        records = buyer.jobs()
    if context.json:
        jobs = [job_document(record) for record in records]
        context.document({"jobs": jobs, **context.settings.chain.document()})
    elif records:
        now = time.time()
        context.table(JOB_HEAD, [job_row(record, now=now) for record in records])
    else:
        context.text("No jobs yet; `computeswarm run SCRIPT` buys the first.")
    return ExitCode.OK


async def _history(context: Context) -> int:
    from computeswarm.cli.buying import buyer_of, unlock
    from computeswarm.cli.output import MARKET_JOB_HEAD, market_job_row

    if context.args.job:
        raise UsageError("--history lists all jobs; leave the JOB out.")
    key = unlock(context)
    jobs: list[MarketJob] = []
    async with buyer_of(context, key) as buyer:
        cursor: str | None = None
        while len(jobs) < _MOST:
            page = await buyer.history(cursor=cursor, limit=_PAGE)
            jobs += page.jobs
            if page.next is None or page.next == cursor or not page.jobs:
                break
            cursor = page.next
        wallet = buyer.address
    if context.json:
        documents = [job.model_dump(mode="json") for job in jobs]
        context.document({"wallet": wallet, "jobs": documents, **context.settings.chain.document()})
    elif jobs:
        now = time.time()
        context.table(MARKET_JOB_HEAD, [market_job_row(job, wallet, now=now) for job in jobs])
    else:
        context.text("The market knows of no job of this wallet.")
    return ExitCode.OK


def _open(record: JobRecord) -> bool:
    """Whether its seller may have news: it has not ended, or money is still to come back."""
    refund = record.view.refund if record.view else None
    return not record.state.terminal or (refund is not None and not refund.transaction)


async def _refresh(buyer: Buyer, job_ids: list[str]) -> None:
    """Ask the sellers how their jobs stand; those who don't answer leave what is known."""
    import asyncio

    from computeswarm.core.errors import ComputeSwarmError

    async def one(job_id: str) -> None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await buyer.refresh(job_id)
        except (ComputeSwarmError, TimeoutError):
            return

    await asyncio.gather(*map(one, job_ids))
