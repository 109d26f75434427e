"""``computeswarm outputs``: fetch the files a job wrote."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from computeswarm.cli.fetching import add_overwrite, fetch
from computeswarm.core.errors import ExitCode

if TYPE_CHECKING:
    from computeswarm.cli.context import Context


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.add_argument("job", metavar="JOB", help="the job, by the start of its id")
    parser.add_argument(
        "--output", metavar="DIR", help="folder for the files (a new one named after the job)"
    )
    add_overwrite(parser)


async def run(context: Context) -> int:
    """Fetch them, digests checked."""
    from computeswarm.cli.buying import buyer_of
    from computeswarm.core.text import clean_line

    async with buyer_of(context) as buyer:
        record = buyer.job(context.args.job)
        dest = Path(context.args.output or record.job_id)
        paths = await fetch(context, buyer, record.job_id, dest)
    if context.json:
        files = [{"path": str(path), "size": path.stat().st_size} for path in paths]
        context.document({"job_id": record.job_id, "files": files})
    for path in paths:
        context.text(clean_line(str(path), limit=1000))
    if not paths:
        context.note("The job left no files.")
    return ExitCode.OK
