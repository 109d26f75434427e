"""``computeswarm prices``: what sellers ask, now and over time."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from computeswarm.cli.context import Context
    from computeswarm.core.prices import PriceSeries

_MOST_DAYS = 90
_BARS = 32
_HEAD = ("GPU", ">NODES", ">SELLERS", ">P25", ">USDC/h", ">P75", "OVER TIME", ">LOWEST", ">HIGHEST")
_EPILOG = """\
USDC per GPU and hour: what a quarter (P25), half and three quarters of the sellers ask at most,
each counted once with its lowest price. Where enough sellers of a model have finished a job, only
those are counted. OVER TIME, LOWEST and HIGHEST are of the middle price.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "gpu", nargs="?", default="", metavar="GPU", help="such as 4090, or a100|h100"
    )
    parser.add_argument(
        "--days", type=int, default=7, metavar="N", help=f"how far back (7; up to {_MOST_DAYS})"
    )


async def run(context: Context) -> int:
    """Show prices."""
    from computeswarm.cli.buying import buyer_of

    gpu, days = context.args.gpu, context.args.days
    if not 1 <= days <= _MOST_DAYS:
        raise UsageError(f"--days is a number from 1 to {_MOST_DAYS}.")
    since = int(time.time()) - days * 86_400
    async with buyer_of(context) as buyer:
        history = await buyer.prices(gpu, since=since)
    if context.json:
        context.document(history.model_dump(mode="json"))
        return ExitCode.OK
    known = [series for series in history.series if series.points]
    if known:
        span = (history.since, history.until)
        context.table(_HEAD, [_row(series, *span) for series in known])
        context.note(f"The last {days} days." if days > 1 else "The last day.")
    else:
        asked = "such a GPU" if gpu else "anything"
        context.text(f"Nobody has offered {asked} here in that time.")
    return ExitCode.OK


def _row(series: PriceSeries, since: int, until: int) -> tuple[str, ...]:
    from computeswarm.core.money import format_usdc

    last = series.points[-1]
    middle = [point.p50 for point in series.points]
    return (
        series.model,
        str(last.nodes),
        str(last.sellers),
        format_usdc(last.p25),
        format_usdc(last.p50),
        format_usdc(last.p75),
        _line(series, since, until),
        format_usdc(min(middle)),
        format_usdc(max(middle)),
    )


def _line(series: PriceSeries, since: int, until: int) -> str:
    """The middle price in bars from lowest to highest; a gap where nobody offered the model."""
    from computeswarm.tui.format import sparkline

    slots: list[float | None] = [None] * _BARS
    for point in series.points:
        place = (point.at - since) * _BARS // max(1, until - since)
        slots[max(0, min(_BARS - 1, place))] = point.p50
    known = [value for value in slots if value is not None]
    low, high = min(known), max(known)
    if low == high:
        return sparkline([None if value is None else 1 for value in slots], _BARS, 2)
    # the lowest gets a bar too, so that it is no gap
    span = high - low
    scaled = [None if value is None else 1 + 7 * (value - low) / span for value in slots]
    return sparkline(scaled, _BARS, 8)
