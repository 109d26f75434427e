"""How nodes, jobs and receipts look: rows and lines for people, documents for programs.

Strangers' text is cleaned here or comes cleaned from its model. The journal's secrets (the access
key, the request) are in no document.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from computeswarm.core.crypto import same_address
from computeswarm.core.durations import format_duration
from computeswarm.core.errors import ExitCode
from computeswarm.core.money import format_usdc
from computeswarm.core.states import JobState
from computeswarm.core.text import clean_line

if TYPE_CHECKING:
    from computeswarm.buyer.journal import JobRecord
    from computeswarm.buyer.offer import Offer
    from computeswarm.core.jobs import JobView, MarketJob
    from computeswarm.core.nodes import ComputeNode

GIB = 2**30
SHORT_ID = 12
NODE_HEAD = (
    "NODE",
    "NAME",
    "HARDWARE",
    ">VRAM",
    ">USDC/h",
    "STATUS",
    "ISOLATION",
    "REGION",
    ">DONE",
)
LOCKED = (
    "The deposit is locked until the job ends; its rest comes back by itself,",
    "or by `computeswarm channels withdraw` if the seller vanishes.",
)
MARKET_JOB_HEAD = ("JOB", "SIDE", "NODE", "STATE", ">PAID", ">TIME", ">AGE")
JOB_HEAD = ("JOB", "NAME", "NODE", "STATE", ">PAID", ">COST", ">TIME", ">AGE")


def node_row(node: ComputeNode) -> tuple[str, ...]:
    """The cells under ``NODE_HEAD``."""
    info = node.info
    vram = info.hardware.vram_bytes
    ended = node.jobs_succeeded + node.jobs_failed
    return (
        node.node_id,
        clean_line(info.name, limit=24),
        clean_line(info.hardware.title, limit=32),
        f"{vram / GIB:.0f} GiB" if vram else "-",
        format_usdc(info.price_per_hour),
        str(node.status),
        str(info.isolation),
        clean_line(info.region, limit=12) or "-",
        f"{node.jobs_succeeded}/{ended}" if ended else "-",
    )


def node_document(node: ComputeNode) -> dict[str, Any]:
    """The market's listing with the checked record, without its signature."""
    listed = node.model_dump(mode="json", exclude={"record"})
    return {**listed, "record": node.info.model_dump(mode="json")}


def job_row(record: JobRecord, *, now: float) -> tuple[str, ...]:
    """The cells under ``JOB_HEAD``."""
    view = record.view
    return (
        record.job_id[:SHORT_ID],
        clean_line(record.name, limit=28) or "-",
        clean_line(record.node_name, limit=20),
        str(record.state),
        format_usdc(record.paid),
        format_usdc(record.cost),
        format_duration(view.metered_ms / 1000) if view else "-",
        format_duration(int(now - record.created_at)),
    )


def market_job_row(job: MarketJob, wallet: str, *, now: float) -> tuple[str, ...]:
    """The cells under ``MARKET_JOB_HEAD``; paid is what did not come back."""
    return (
        job.job_id[:SHORT_ID],
        "bought" if same_address(job.buyer, wallet) else "sold",
        job.node_id,
        str(job.state),
        format_usdc(max(0, job.paid - job.refunded)),
        format_duration(job.metered_ms / 1000) if job.metered_ms else "-",
        format_duration(max(0, int(now - job.created_at))),
    )


def job_document(record: JobRecord) -> dict[str, Any]:
    """All that a program may know of a job; money in atoms, times in unix seconds."""
    return {
        "job_id": record.job_id,
        "stage": str(record.stage),
        "scheme": record.quote.scheme,
        "state": str(record.state),
        "name": record.name,
        "node_id": record.node_id,
        "node_name": record.node_name,
        "seller": record.seller,
        "endpoint": record.endpoint,
        "budget": record.budget,
        "price_per_hour": record.price_per_hour,
        "paid": record.paid,
        "cost": record.cost,
        "exit_code": record.exit_code,
        "reason": clean_line(record.view.reason if record.view else record.reason),
        "created_at": record.created_at,
        "job": record.view.model_dump(mode="json") if record.view else None,
    }


def job_lines(record: JobRecord) -> list[str]:
    """A job in full, for a person."""
    return [
        f"Job      {record.job_id}  {clean_line(record.name)}",
        f"Node     {clean_line(record.node_name)} ({record.node_id})",
        f"Seller   {record.seller} at {clean_line(record.endpoint)}",
        f"Begun    {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(record.created_at))}",
        f"Price    {format_usdc(record.price_per_hour)} USDC an hour, "
        f"budget {format_usdc(record.budget)}",
        *receipt_lines(record),
    ]


def offer_lines(offer: Offer, *, budget: int, chain: str) -> list[str]:
    """What a person agrees to: price, first slice, most, payee, and what can be lost."""
    from computeswarm.buyer.conditions import conditions

    info, quote = offer.node.info, offer.quote
    return [
        f"Node     {clean_line(info.name)} ({offer.node.node_id}), "
        f"{clean_line(info.hardware.title)}, isolation: {info.isolation}",
        f"Price    {format_usdc(quote.price_per_hour)} USDC an hour, by the second",
        *_paid_now(offer, budget),
        f"At most  {format_usdc(offer.most(budget))} USDC "
        f"(budget {format_usdc(budget)}, time limit {format_duration(quote.max_seconds)})",
        *(f"{word:<8} {text}" for word, text in conditions(quote)),
        f"Payee    {quote.pay_to} on {chain}",
        f"The most you can lose: {format_usdc(offer.at_risk(budget))} USDC",
        *(LOCKED if offer.by_channel else ()),
    ]


def _paid_now(offer: Offer, budget: int) -> list[str]:
    each = format_duration(offer.quote.slice_length(0))
    if not offer.by_channel:
        return [
            f"Now      {format_usdc(offer.first_amount)} USDC for the first {each}; "
            "what is not used comes back"
        ]
    return [
        f"Deposit  {format_usdc(offer.paid_now(budget))} USDC now, into a channel with the seller",
        f"Voucher  {format_usdc(offer.first_amount)} USDC every {each} while it runs, "
        "without a transaction",
    ]


def offer_document(offer: Offer, *, budget: int) -> dict[str, Any]:
    """The same for a program; money in atoms."""
    return {
        "type": "offer",
        "job_id": offer.job_id,
        "node_id": offer.node.node_id,
        "pay_to": offer.quote.pay_to,
        "price_per_hour": offer.quote.price_per_hour,
        "slice_seconds": offer.quote.slice_seconds,
        "max_seconds": offer.quote.max_seconds,
        "scheme": offer.quote.scheme,
        "first_amount": offer.first_amount,
        "deposit": offer.most(budget) if offer.by_channel else 0,
        "most": offer.most(budget),
        "at_risk": offer.at_risk(budget),
        "waiting": offer.quote.waiting,
        "starts_in_seconds": offer.quote.starts_in_seconds,
        "minimum_charge": offer.quote.minimum_charge,
        "evicted_at": offer.quote.evicted_at,
        "pause_seconds": offer.quote.pause_seconds,
        "pulls_image": offer.quote.pulls_image,
        "ask_seconds": offer.quote.ask_seconds,
    }


def receipt_lines(record: JobRecord) -> list[str]:
    """How it ended and what it cost."""
    view = record.view
    if view is None:
        return [f"State    {record.state}. {clean_line(record.reason)}".rstrip()]
    code = "" if view.exit_code is None else f", exit code {view.exit_code}"
    why = f": {clean_line(view.reason)}" if view.reason else ""
    lines = [
        f"State    {view.state}{code}{why}",
        f"Metered  {format_duration(view.metered_ms / 1000)}{_waits(record)}",
        *_paid_lines(view),
    ]
    if view.refund is not None and view.refund.amount:
        sent = view.refund.transaction
        how = f"transaction {clean_line(sent, limit=66)}" if sent else "on its way"
        lines.append(f"Back     {format_usdc(view.refund.amount)} USDC, {how}")
    return lines


def _paid_lines(view: JobView) -> list[str]:
    used = f"of it used {format_usdc(view.cost)}"
    if view.channel is None:
        return [f"Paid     {format_usdc(view.paid)} USDC, {used}"]
    sent = clean_line(view.channel.transaction, limit=66)
    by = "1 voucher" if view.slices_paid == 1 else f"{view.slices_paid} vouchers"
    return [
        f"Deposit  {format_usdc(view.channel.deposit)} USDC, transaction {sent}",
        f"Paid     {format_usdc(view.paid)} USDC by {by}, {used}",
    ]


def _waits(record: JobRecord) -> str:
    if record.view is None:
        return ""
    phases = record.view.phases
    marks = [
        ("queued", phases.queued, phases.starting or phases.ended),
        ("starting", phases.starting, phases.running or phases.ended),
        ("running", phases.running, phases.ended),
    ]
    spans = [
        f"{name} {format_duration(round((end - begin) / 1000, 1))}"
        for name, begin, end in marks
        if begin is not None and end is not None and end >= begin
    ]
    return f" ({', '.join(spans)})" if spans else ""


def exit_code(record: JobRecord, *, interrupted: bool) -> int:
    """``run``'s exit code: the job's own, or why it has none."""
    if interrupted:
        return ExitCode.INTERRUPTED
    if record.state in (JobState.TIMED_OUT, JobState.OUT_OF_FUNDS):
        return ExitCode.BUDGET_OR_TIME
    code = record.exit_code
    if record.state is JobState.SUCCEEDED:
        return code or ExitCode.OK
    if record.state is JobState.FAILED and code:
        return code & 0xFF if code > 0 else 128 + (-code & 0x7F)  # a signal, as shells show it
    return ExitCode.OWN_ERROR
