"""``computeswarm earnings``: what renting this machine out brought, cost and left."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from computeswarm.cli.context import Context
    from computeswarm.seller.earnings_rows import EarningsReport
    from computeswarm.seller.pricing import PriceAdvice

    Found = tuple[EarningsReport, PriceAdvice, int]

_MAX_DAYS = 3_650
_ABOUT = """\
Kept is what buyers paid, less what went back and what still has to. Power is that of the GPUs while
they are sold or on offer, at electricity_price; the rest of the machine is not measured. Gas counts
at eth_price where it is real money. Days are this machine's own. The seller that runs is asked;
where none does, its books are.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.epilog = _ABOUT
    parser.add_argument("--days", metavar="N", type=_days, default=7, help="so many days (7)")
    parser.add_argument("--by", choices=("day", "gpu", "job"), default="day", help="rows (day)")
    parser.add_argument("--csv", action="store_true", help="comma-separated, for a spreadsheet")


async def run(context: Context) -> int:
    """Show earnings."""
    from computeswarm.seller.earnings_export import HEAD, summary, table_row, to_csv

    args = context.args
    if args.csv and context.json:
        raise UsageError("Choose one of --csv and --json.")
    context.warn_of_real_money()
    report, advice, price = await _asked(context) or await _read(context)
    if context.json:
        found = {"price_per_hour": price, "advice": advice.model_dump(mode="json")}
        context.document(report.model_dump(mode="json") | found)
    elif args.csv:
        sys.stdout.write(to_csv(report))
    else:
        context.table(HEAD[args.by], [table_row(args.by, row) for row in report.rows])
        for line in (*summary(report), *textwrap.wrap(advice.sentence(price), 80)):
            context.text(line)
    return ExitCode.OK


async def _asked(context: Context) -> Found | None:
    """From the seller that runs; None where none does."""
    from computeswarm.core.errors import SellerUnavailable, Unauthorized
    from computeswarm.seller.owner_client import OwnerClient
    from computeswarm.seller.pricing import PriceAdvice

    args = context.args
    try:
        async with OwnerClient.find(context.paths.seller) as owner:
            status = await owner.status()
            report = await owner.earnings(args.days, args.by)
    except (SellerUnavailable, Unauthorized):
        return None
    return report, status.advice or PriceAdvice(model="cpu"), status.price_per_hour


async def _read(context: Context) -> Found:
    """From what it left on the disk, and what the market says now."""
    from computeswarm.core.errors import ComputeSwarmError
    from computeswarm.core.money import parse_usdc
    from computeswarm.seller.bookkeeping import prices_of
    from computeswarm.seller.earnings import report, sold_model
    from computeswarm.seller.pricing import advise, fetch_stats

    args, settings, folder = context.args, context.settings, context.paths.seller
    found = report(
        folder,
        settings.chain.chain_id,
        settings.chain.name,
        days=args.days,
        by=args.by,
        now=time.time(),
        prices=prices_of(settings),
    )
    try:
        stats = await fetch_stats(settings.market, timeout=2.0)
    except ComputeSwarmError:
        stats = None
    advice = advise(stats, sold_model(folder), break_even=0, sold=found.total.utilisation)
    return found, advice, parse_usdc(settings.price)


def _days(text: str) -> int:
    fits = text.isascii() and text.isdigit() and len(text) <= len(str(_MAX_DAYS))
    if not (fits and 1 <= int(text) <= _MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no count of days; write 1 to 3650")
    return int(text)
