"""``computeswarm seller status|pause|…``: the owner's word to a seller that runs already."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
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
  price USDC    ask another price an hour from now on; asks again (or wants --yes) where it is
                more than ten times the present one, or what others ask
  accept JOB    let a job in that asks you, where the setting accept is "ask"; the start of its id
                is enough, here and below
  reject JOB    turn it away; its buyer gets everything back (--reason is shown to him)
  evict JOB     end a job; its buyer gets everything back
  hold GPU      keep a GPU (by its number; 0 is a machine that has none) for yourself: no new job
                starts on it, one that runs goes on
  release GPU   sell it again
  stop          hand running and waiting jobs back with a refund, and end
  revoke [NODE] take a node of this wallet off the market (its name or id; this machine's by
                default), whether or not its seller runs here; starting it again lists it anew

A pause, a drain, a hold and a price are kept over restarts; a price until the setting itself
changes.
Exit codes: 0 done; 126 you did not agree; 125 no seller runs here, or it refused.
"""
_NAMES = (
    *("status", "pause", "resume", "drain", "price", "accept", "reject", "evict"),
    *("hold", "release", "stop", "revoke"),
)
_JOB, _GPU = "the start of a job's id", "the number of a GPU"
_WITH_VALUE = {
    "price": "a price in USDC an hour",
    **dict.fromkeys(("accept", "reject", "evict"), _JOB),
    **dict.fromkeys(("hold", "release"), _GPU),
}
_DEAR = 10
_DIGITS = 3
_HEAD = ("JOB", "NAME", "STATE", ">PLACE", ">STARTS IN", ">LEFT", ">PAID", ">COST")
_SHORT = 12


class _NotAgreed(Exception):
    """The owner was asked, and said no."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments beside those that start a seller."""
    parser.epilog = ACTIONS
    parser.add_argument("action", nargs="?", choices=_NAMES, help="speak to the one that runs")
    parser.add_argument("value", nargs="?", metavar="VALUE", help="a price, job, GPU or node")
    parser.add_argument("--reason", default="", metavar="TEXT", help="pause, drain, reject: why")
    parser.add_argument("--yes", action="store_true", help="revoke, price: without asking")
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
        try:
            done = await _obey(context, owner)
        except _NotAgreed:
            return ExitCode.REFUSED
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
    does = _ACTS.get(context.args.action)
    return await does(context, owner) if does is not None else ""


async def _pause(context: Context, owner: OwnerClient) -> str:
    await owner.pause(context.args.reason)
    return "Paused: no new jobs; those that are paid go on."


async def _drain(context: Context, owner: OwnerClient) -> str:
    await owner.drain(context.args.reason, then_stop=context.args.then_stop)
    return "Draining: no new jobs; " + (
        "the seller stops after the last one."
        if context.args.then_stop
        else "the rest is finished."
    )


async def _resume(_: Context, owner: OwnerClient) -> str:
    await owner.resume()
    return "Taking jobs again."


async def _price(context: Context, owner: OwnerClient) -> str:
    from computeswarm.core.money import format_usdc, parse_usdc

    atoms = parse_usdc(context.args.value)
    odd = _much_dearer(await owner.status(), atoms)
    if odd and not context.args.yes:
        if not context.interactive or context.json:
            raise UsageError(f"{odd}; give --yes if you mean it.")
        context.note(f"{odd}.")
        if not context.agrees(f"Ask {format_usdc(atoms)} USDC an hour?"):
            raise _NotAgreed
    await owner.set_price(atoms)
    return f"The price is {format_usdc(atoms)} USDC an hour now."


def _much_dearer(status: OwnerStatus, atoms: int) -> str:
    """A slip of the finger is caught here: what is odd about a price; empty where nothing is."""
    from computeswarm.core.money import format_usdc

    high = status.advice.high if status.advice is not None else 0
    asked = format_usdc(atoms)
    if high and atoms > _DEAR * high:
        return (
            f"{asked} USDC is more than {_DEAR} times what most sellers of such a machine ask at"
            f" most ({format_usdc(high)})"
        )
    if atoms > _DEAR * status.price_per_hour:
        now = format_usdc(status.price_per_hour)
        return f"{asked} USDC is more than {_DEAR} times your price now ({now})"
    return ""


async def _evict(context: Context, owner: OwnerClient) -> str:
    job_id = await _job(owner, context.args.value)
    await owner.evict(job_id)
    return f"{job_id} is ended; everything paid goes back."


async def _accept(context: Context, owner: OwnerClient) -> str:
    job_id = await _job(owner, context.args.value)
    await owner.accept(job_id)
    return f"{job_id} is let in; it starts once it is its turn."


async def _reject(context: Context, owner: OwnerClient) -> str:
    job_id = await _job(owner, context.args.value)
    await owner.reject(job_id, context.args.reason)
    return f"{job_id} is turned away; everything paid goes back."


async def _hold(context: Context, owner: OwnerClient) -> str:
    index, name = await _gpu(context, owner)
    await owner.hold(index, True)
    return f"{name} is yours: no new job; one that runs there goes on."


async def _release(context: Context, owner: OwnerClient) -> str:
    index, name = await _gpu(context, owner)
    await owner.hold(index, False)
    return f"{name} takes jobs again."


async def _gpu(context: Context, owner: OwnerClient) -> tuple[int, str]:
    """The GPU that is meant, and what to call it: 0 is the machine where it has none."""
    value = context.args.value
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS):
        raise UsageError(f"{value[:40]!r} is no GPU's number; write it like 0.")
    has_gpus = bool((await owner.status()).gpus)
    return int(value), f"GPU {int(value)}" if has_gpus else "The machine"


async def _stop(_: Context, owner: OwnerClient) -> str:
    await owner.stop()
    return "The seller stops: what runs and waits is handed back with a refund."


_ACTS: dict[str, Callable[[Context, OwnerClient], Awaitable[str]]] = {
    "pause": _pause,
    "drain": _drain,
    "resume": _resume,
    "price": _price,
    "evict": _evict,
    "accept": _accept,
    "reject": _reject,
    "hold": _hold,
    "release": _release,
    "stop": _stop,
}


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
    held = [f"GPU {gpu.index}" for gpu in status.gpus if gpu.held]
    if held or status.host.held:
        context.text(f"Held     {', '.join(held) or 'the machine'}: no new job there")
    if any(job.decide_by_ms is not None for job in status.jobs):
        context.text("Asking   `seller accept JOB` or `seller reject JOB` answers")
    live = [job for job in status.jobs if job.state.live]
    if live:
        context.table(_HEAD, [_row(job) for job in live])
    for note in status.notes:
        context.note(clean_line(note, limit=200))


def _state(job: OwnerJob) -> str:
    from computeswarm.core.durations import format_duration

    if job.decide_by_ms is not None:
        return f"asks ({format_duration(max(0, round(job.decide_by_ms / 1000 - time.time())))})"
    return "paused" if job.paused else str(job.state)


def _row(job: OwnerJob) -> tuple[str, ...]:
    from computeswarm.core.durations import format_duration
    from computeswarm.core.money import format_usdc
    from computeswarm.core.text import clean_line

    starts = job.starts_in_seconds
    return (
        job.job_id[:_SHORT],
        clean_line(job.name, limit=24) or "-",
        _state(job),
        str(job.queue_position or "-"),
        "-" if starts is None else f"<{format_duration(starts)}",
        "-" if job.left_ms is None else format_duration(job.left_ms // 1000),
        format_usdc(job.paid),
        format_usdc(job.cost),
    )
