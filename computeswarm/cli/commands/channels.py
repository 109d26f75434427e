"""``computeswarm channels``: deposits that are locked for jobs, and how they come home."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Any

from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from computeswarm.buyer.channels import MoneyBack
    from computeswarm.cli.context import Context
    from computeswarm.payments.channels.withdraw import OpenChannel

_ACTIONS = """\
  list         every channel: what was put in, vouched for, claimed by the seller, and came back
  refund ID    have the seller give back the rest of a deposit
  withdraw ID  take it back without him: once to announce it, and again when its delay is over
               (needs some ETH for gas)

ID is the start of a channel's id or of its job's.
"""
_HEAD = ("CHANNEL", "JOB", "STATE", ">DEPOSIT", ">VOUCHED", ">CLAIMED", ">BACK", ">LOCKED")
_SHORT = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """The command's own arguments."""
    parser.epilog = _ACTIONS
    parser.add_argument("action", nargs="?", default="list", choices=("list", "refund", "withdraw"))
    parser.add_argument("channel", nargs="?", metavar="ID", help="the start of a channel's id")


async def run(context: Context) -> int:
    """List, or bring one home."""
    from computeswarm.cli.buying import buyer_of, unlock

    action, wanted = context.args.action, context.args.channel
    if (action == "list") != (wanted is None):
        raise UsageError("Write `channels list`, `channels refund ID` or `channels withdraw ID`.")
    if action == "list":
        async with buyer_of(context) as buyer:
            _list(context, await buyer.channels.look())
        return ExitCode.OK
    async with buyer_of(context, unlock(context)) as buyer:
        if action == "refund":
            back = await buyer.channels.refund(wanted)
        else:
            back = await buyer.channels.withdraw(wanted)
    _tell(context, back)
    return ExitCode.OK


def _list(context: Context, channels: list[OpenChannel]) -> None:
    from dataclasses import asdict

    if context.json:
        found = [asdict(channel) for channel in channels]
        context.document({"channels": found, **context.settings.chain.document()})
    elif channels:
        context.table(_HEAD, [_row(channel) for channel in channels])
    else:
        context.text("No channels yet; `computeswarm run --pay channel SCRIPT` opens the first.")


def _row(channel: OpenChannel) -> tuple[str, ...]:
    from computeswarm.core.money import format_usdc

    closed = channel.state == "closed"
    locked = channel.deposited - channel.claimed - channel.returned
    state = channel.state
    if channel.withdraw_at is not None and not closed:
        state = f"withdraw {time.strftime('%H:%M', time.localtime(channel.withdraw_at))}"
    return (
        channel.channel_id[:_SHORT],
        channel.job_id[:_SHORT],
        state,
        format_usdc(channel.deposited),
        format_usdc(channel.vouched),
        format_usdc(channel.claimed),
        format_usdc(channel.returned),
        "-" if closed else format_usdc(max(0, locked)),
    )


def _tell(context: Context, back: MoneyBack) -> None:
    from computeswarm.core.money import format_usdc

    if context.json:
        document: dict[str, Any] = {
            "channel_id": back.channel_id,
            "step": back.kind,
            "amount": back.amount,
            "transaction": back.transaction,
            "ready_at": back.ready_at,
        }
        context.document(document)
        return
    if back.kind == "returned":
        context.text(f"Back     {format_usdc(back.amount)} USDC, transaction {back.transaction}")
        return
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(back.ready_at or 0))
    context.text(f"Announced, transaction {back.transaction}")
    context.text(
        f"From {when} on, `computeswarm channels withdraw {back.channel_id[:_SHORT]}` brings back "
        f"{format_usdc(back.amount)} USDC or more."
    )
