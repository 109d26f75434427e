"""``computeswarm jobs``: what was bought, and how it stands."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode

if TYPE_CHECKING:
    from computeswarm.buyer.client import Buyer
    from computeswarm.buyer.journal import JobRecord
    from computeswarm.cli.context import Context

_ASK_SECONDS = 3.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("job", nargs="?", metavar="JOB", help="one job, by the start of its id")


async def run(context: Context) -> int:
    """List jobs, or show one."""
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
