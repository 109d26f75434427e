"""A job's outputs to a folder: how far it is, and no file of the buyer's overwritten unasked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from computeswarm.core.durations import format_duration

if TYPE_CHECKING:
    import argparse

    from computeswarm.buyer.client import Buyer
    from computeswarm.buyer.progress import Progress
    from computeswarm.cli.context import Context

_MIB = 2**20
_LARGE_BYTES = 8 * _MIB
"""Less than that is there before anybody could read how far it is."""


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """The flag that answers the question beforehand."""
    parser.add_argument(
        "--overwrite", action="store_true", help="replace other files of the outputs' names"
    )


async def fetch(
    context: Context,
    buyer: Buyer,
    job_id: str,
    dest: Path,
    *,
    ours: dict[str, str] | None = None,
) -> list[Path]:
    """All outputs of a job below ``dest``; asks, where somebody sits, before it overwrites.

    Raises:
        WouldOverwrite: nobody agreed; nothing was changed.
        what ``Buyer.outputs`` raises.
    """
    from computeswarm.buyer.folder import WouldOverwrite

    def report(progress: Progress) -> None:
        show_flow(context, progress)

    agreed: bool = context.args.overwrite
    try:
        return await buyer.outputs(job_id, dest, report, overwrite=agreed, ours=ours)
    except WouldOverwrite as error:
        if not context.interactive:
            raise
        context.note(f"computeswarm: {error.detail}")
        if not context.agrees("Overwrite them?"):
            raise
    return await buyer.outputs(job_id, dest, report, overwrite=True, ours=ours)


def show_flow(context: Context, progress: Progress) -> None:
    """How a large transfer goes: a line that a terminal overwrites, elsewhere nothing."""
    if progress.total < _LARGE_BYTES or context.json or not sys.stderr.isatty():
        return
    done, total = progress.done // _MIB, progress.total // _MIB
    left = "" if progress.eta is None else f", {format_duration(int(progress.eta) + 1)} left"
    there = f", {progress.there} more are there already" if progress.there else ""
    line = f"  {done} of {total} MiB, {progress.rate / _MIB:.0f} MiB/s{left}{there}"
    end = "\n" if progress.done >= progress.total else ""
    sys.stderr.write(f"\r{line:<79.79}{end}")
    sys.stderr.flush()
