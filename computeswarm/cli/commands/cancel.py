"""``computeswarm cancel``: stop a job."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode

if TYPE_CHECKING:
    from computeswarm.cli.context import Context


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("job", metavar="JOB", help="the job, by the start of its id")


async def run(context: Context) -> int:
    """Stop it, and show what comes back."""
    from computeswarm.buyer.journal import Stage
    from computeswarm.cli.buying import buyer_of, unlock
    from computeswarm.cli.output import job_document, receipt_lines
    from computeswarm.core.errors import ComputeSwarmError

    async with buyer_of(context) as looking:
        unpaid = looking.job(context.args.job).stage in (Stage.QUOTED, Stage.PAYING)
    # a payment in the balance is presented again first: only then is there a job to stop
    async with buyer_of(context, unlock(context) if unpaid else None) as buyer:
        record = await buyer.cancel(context.args.job)
        if record.by_channel:  # a whole deposit is on its way home: worth a moment
            with suppress(ComputeSwarmError):
                record = await buyer.money_back(record.job_id)
    if context.json:
        context.document(job_document(record))
    for line in receipt_lines(record):
        context.text(line)
    return ExitCode.OK
