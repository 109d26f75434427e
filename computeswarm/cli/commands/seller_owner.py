"""``computeswarm seller status|pause|…``: the owner's word to a seller that runs already."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import TYPE_CHECKING

from computeswarm.core.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from computeswarm.cli.context import Context
    from computeswarm.seller.owner import OwnerJob, OwnerStatus
    from computeswarm.seller.owner_client import OwnerClient

ACTIONS = """\
Without an action the seller starts. With one, it speaks to the seller that runs here:
  status        how it stands: jobs, queue, hours, price
  pause         take no new jobs; those that are paid go on (--reason is shown to buyers)
  drain         take no new jobs, finish those that are paid; with --then-stop, stop after them
  resume        take jobs again, after a pause or a drain
  price USDC    ask another price an hour from now on
  evict JOB     end a job; its buyer gets everything back (the start of its id is enough)
  stop          hand running and waiting jobs back with a refund, and end
  revoke [NODE] take a node of this wallet off the market (its name or id; this machine's by
                default), whether or not its seller runs here; starting it again lists it anew

A pause, a drain and a price are kept over restarts; a price until the setting itself changes.
Exit codes: 0 done; 125 no seller runs here, or it refused.
"""
_NAMES = ("status", "pause", "resume", "drain", "price", "evict", "stop", "revoke")
_WITH_VALUE = {"price": "a price in USDC an hour", "evict": "the start of a job's id"}
_HEAD = ("JOB", "NAME", "STATE", ">PLACE", ">STARTS IN", ">LEFT", ">PAID", ">COST")
_SHORT = 12


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments beside those that start a seller."""
    parser.epilog = ACTIONS
    parser.add_argument("action", nargs="?", choices=_NAMES, help="speak to the one that runs")
    parser.add_argument("value", nargs="?", metavar="VALUE", help="of price, evict and revoke")
    parser.add_argument("--reason", default="", metavar="TEXT", help="pause, drain: why")
    parser.add_argument("--yes", action="store_true", help="revoke: without asking")
    parser.add_argument("--then-stop", action="store_true", help="drain: stop once no job is left")


def act(context: Context) -> int:
    """One action.

    Raises:
        UsageError: it lacks its value, or has one too many.
        SellerUnavailable: no seller runs here.
    """
    args = context.args
    if (args.action in _WITH_VALUE) != (args.value is not None):
        wants = _WITH_VALUE.get(args.action, "nothing more")
        raise UsageError(f"`seller {args.action}` takes {wants}.")
    if args.then_stop and args.action != "drain":
        raise UsageError("--then-stop goes with `seller drain`.")
    return asyncio.run(_act(context))


async def _act(context: Context) -> int:
    from computeswarm.seller.owner_client import OwnerClient

    async with OwnerClient.find(context.paths.seller) as owner:
        done = await _obey(context, owner)
        if context.args.action == "stop":
            if context.json:
                context.document({"stopping": True})
            context.text(done)
            return ExitCode.OK
        status = await owner.status()
    if context.json:
        context.document(status.model_dump(mode="json"))
    elif done:
        context.text(done)
    else:
        _show(context, status)
    return ExitCode.OK


async def _obey(context: Context, owner: OwnerClient) -> str:
    """Do it, and say what was done; nothing for ``status``."""
    from computeswarm.core.money import format_usdc, parse_usdc

    args = context.args
    if args.action == "pause":
        await owner.pause(args.reason)
        return "Paused: no new jobs; those that are paid go on."
    if args.action == "drain":
        await owner.drain(args.reason, then_stop=args.then_stop)
        return "Draining: no new jobs; " + (
            "the seller stops after the last one." if args.then_stop else "the rest is finished."
        )
    if args.action == "resume":
        await owner.resume()
        return "Taking jobs again."
    if args.action == "price":
        atoms = parse_usdc(args.value)
        await owner.set_price(atoms)
        return f"The price is {format_usdc(atoms)} USDC an hour now."
    if args.action == "evict":
        job_id = await _job(owner, args.value)
        await owner.evict(job_id)
        return f"{job_id} is ended; everything paid goes back."
    if args.action == "stop":
        await owner.stop()
        return "The seller stops: what runs and waits is handed back with a refund."
    return ""


async def _job(owner: OwnerClient, start: str) -> str:
    """The one living job whose id begins so; a whole id is passed on as it is."""
    wanted = start if start.startswith("job-") else f"job-{start}"
    jobs = [job.job_id for job in (await owner.status()).jobs if job.state.live]
    found = [job_id for job_id in jobs if job_id.startswith(wanted)]
    if len(found) > 1:
        raise UsageError(f"{len(found)} jobs begin with {start[:40]!r}; write more of the id.")
    return found[0] if found else wanted


def _show(context: Context, status: OwnerStatus) -> None:
    from computeswarm.core.durations import format_duration
    from computeswarm.core.money import format_usdc
    from computeswarm.core.text import clean_line

    mood = status.mood_reason or "takes jobs"
    up = format_duration(int(time.time() - status.started_at))
    market = "listed" if status.market.connected else clean_line(status.market.problem)
    context.text(f"Seller   {clean_line(status.name)} ({status.node_id}) at {status.endpoint}")
    context.text(f"State    {clean_line(mood)}; up {up}; market: {market}")
    context.text(
        f"Price    {format_usdc(status.price_per_hour)} USDC an hour, isolation: "
        f"{status.isolation}, on {status.chain}"
    )
    context.text(f"Jobs     {status.running} of {status.slots} running, {status.queued} waiting")
    live = [job for job in status.jobs if job.state.live]
    if live:
        context.table(_HEAD, [_row(job) for job in live])
    for note in status.notes:
        context.note(clean_line(note, limit=200))


def _row(job: OwnerJob) -> tuple[str, ...]:
    from computeswarm.core.durations import format_duration
    from computeswarm.core.money import format_usdc
    from computeswarm.core.text import clean_line

    starts = job.starts_in_seconds
    return (
        job.job_id[:_SHORT],
        clean_line(job.name, limit=24) or "-",
        "paused" if job.paused else str(job.state),
        str(job.queue_position or "-"),
        "-" if starts is None else f"<{format_duration(starts)}",
        "-" if job.left_ms is None else format_duration(job.left_ms // 1000),
        format_usdc(job.paid),
        format_usdc(job.cost),
    )
