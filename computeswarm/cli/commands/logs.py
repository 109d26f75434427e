"""``computeswarm logs``: what a job printed; with ``-f`` what it goes on to print."""

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
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help="wait for more, and pay its next slices within its budget",
    )


async def run(context: Context) -> int:
    """Print, or follow to the end."""
    from computeswarm.buyer.journal import Stage
    from computeswarm.cli.buying import buyer_of, unlock
    from computeswarm.cli.following import Printer
    from computeswarm.cli.output import receipt_lines
    from computeswarm.core.errors import ComputeSwarmError

    printer = Printer(context)
    async with buyer_of(context) as looking:
        record = looking.job(context.args.job)
        if not context.args.follow:
            async for event in looking.events(record.job_id):
                await printer.show(event)
            await printer.finish()
            return ExitCode.OK
    running = record.stage not in (Stage.ENDED, Stage.ABANDONED)
    async with buyer_of(context, unlock(context) if running else None) as buyer:
        stream = buyer.follow(
            record.job_id, note=lambda line: context.note(f"computeswarm: {line}")
        )
        async for event in stream:
            await printer.show(event)
        await printer.finish()
        if record.by_channel:
            with suppress(ComputeSwarmError):
                await buyer.money_back(record.job_id)
        for line in receipt_lines(buyer.job(record.job_id)):
            context.note(line)
    return ExitCode.OK
