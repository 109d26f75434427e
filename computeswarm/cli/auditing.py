"""``computeswarm ledger --audit``: news of open refunds first, then books against chain."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from computeswarm.core.errors import ComputeSwarmError, ConfigError, ExitCode, WalletError
from computeswarm.core.money import format_usdc

if TYPE_CHECKING:
    from computeswarm.cli.context import Context
    from computeswarm.payments.ledger.audit import Audit
    from computeswarm.payments.ledger.findings import Report

_ASK_SECONDS = 3.0


async def audit(context: Context, since: float | None) -> int:
    """Compare, say what differs, and give the exit code."""
    from computeswarm.chain.rpc import RpcClient
    from computeswarm.payments.ledger.audit import Auditor

    settings = context.settings
    if not settings.rpc_urls:
        raise ConfigError("An audit needs the chain; give --rpc or COMPUTESWARM_RPC its address.")
    await _hear_of_refunds(context)
    first, *others = settings.rpc_urls
    other = settings.rpc_confirm or next(iter(others), "")
    chain = settings.chain
    async with contextlib.AsyncExitStack() as stack:
        # one node at a time: answers of two that are not equally far would look like differences
        rpc = await stack.enter_async_context(RpcClient(first))
        witness = await stack.enter_async_context(RpcClient(other)) if other else None
        auditor = Auditor(context.paths, chain, rpc, wallet=_wallet(context), witness=witness)
        found = await auditor.run(since)
    _keep_arrivals(context, found)
    _tell(context, found)
    if found.different:
        return ExitCode.DIFFERENT
    return ExitCode.OK if found.clean else ExitCode.OWN_ERROR


def _wallet(context: Context) -> str:
    from computeswarm.payments.wallet import wallet_address

    try:
        return wallet_address(context.paths.wallet)
    except WalletError:
        return ""  # the books name the wallets that were used


async def _hear_of_refunds(context: Context) -> None:
    """Ask sellers that may owe something, and look for what they say they sent."""
    from computeswarm.cli.buying import buyer_of

    if not (context.paths.buyer / "jobs.db").exists():
        return
    async with buyer_of(context) as buyer:

        async def ask(job_id: str) -> None:
            with contextlib.suppress(ComputeSwarmError, TimeoutError):
                async with asyncio.timeout(_ASK_SECONDS):
                    await buyer.refresh(job_id)

        running = [record.job_id for record in buyer.jobs() if not record.state.terminal]
        await asyncio.gather(*map(ask, {*running, *buyer.owed_jobs()}))
        with contextlib.suppress(ComputeSwarmError, TimeoutError):
            await buyer.channels.sync()


def _keep_arrivals(context: Context, found: Audit) -> None:
    """What came although nobody named its transaction is no debt any more."""
    from computeswarm.payments.ledger.refunds import RefundBook

    arrivals = [one for report in found.reports for one in report.arrivals]
    if not arrivals:
        return
    book = RefundBook(context.paths.buyer / "payments.db")
    try:
        for one in arrivals:
            ids = [int(entry.row.rpartition(" ")[2]) for entry in one.entries]
            book.arrived(ids, one.transaction, one.block, time.time())
    finally:
        book.close()


def _tell(context: Context, found: Audit) -> None:
    for report in found.reports:
        if context.json:
            context.document(report.document())
        for line in _lines(report):
            context.text(line)
    if not found.reports:
        context.text("The books have nothing on this chain; there is nothing to compare.")
    if found.elsewhere:
        context.note(
            f"{found.elsewhere} entries are on other chains; audit them with --network and --rpc."
        )


def _lines(report: Report) -> list[str]:
    """One wallet's audit for a person."""
    before = "unknown" if report.opening is None else format_usdc(report.opening)
    checked = "1 entry" if report.checked == 1 else f"{report.checked} entries"
    lines = [
        f"Wallet   {report.wallet} on {report.chain.title}",
        f"Blocks   {report.first} to {report.last}, {checked} checked"
        + (f", {report.pending} still open" if report.pending else ""),
        f"Balance  {before} + {format_usdc(report.received)} in - {format_usdc(report.sent)} out"
        f" = {format_usdc(report.closing)} USDC",
    ]
    lines += [
        f"Found    {format_usdc(entry.amount)} USDC, owed for {entry.job_id}: {one.transaction}"
        for one in report.arrivals
        for entry in one.entries
    ]
    if report.returned:
        lines.append(f"Back     {format_usdc(report.returned)} USDC from servers paid by `pay`")
    if report.books.owed:
        lines.append(f"Owed     {format_usdc(report.books.owed)} USDC, not paid back yet")
    lines += [f"Differs  {one.text}" for one in report.differences]
    if any(one.code.startswith("unknown") for one in report.differences):
        lines.append("         What you moved yourself is unknown to the books, and no fault.")
    if report.clean:
        lines.append("Clean: books and chain agree to the atom.")
    elif not report.differences:
        lines.append(
            "The balance before the first block can't be had from this RPC, which keeps no state so"
            " old; everything else agrees. Give --rpc an archive node, or a later --since."
        )
    return lines
