"""From the owner's document to what Seller mode shows. Strangers' text in it is cleaned here."""

from __future__ import annotations

from collections.abc import Sequence

from computeswarm.core.text import clean_line
from computeswarm.seller.earnings_rows import EarningsRow
from computeswarm.seller.owner import Earnings, OwnerGpu, OwnerJob, OwnerStatus
from computeswarm.seller.usage import CPU
from computeswarm.tui.views import (
    AdviceItem,
    EarningsItem,
    EventItem,
    GpuEarned,
    GpuItem,
    HostItem,
    SellerItem,
    SellerJob,
)


def seller_item(status: OwnerStatus) -> SellerItem:
    """The owner's document."""
    host, earned, market = status.host, status.earnings, status.market
    told = {event.text for event in status.events}
    notes = [clean_line(note) for note in status.notes if note not in told]
    if not market.connected and market.problem:
        notes.insert(0, clean_line(market.problem))
    return SellerItem(
        node_id=status.node_id,
        name=clean_line(status.name, limit=60),
        wallet=status.wallet,
        endpoint=clean_line(status.endpoint),
        price=status.price_per_hour,
        paused=status.paused or status.draining or status.stopping,
        listed=market.connected,
        market=clean_line(market.url),
        executor=clean_line(status.executor, limit=40),
        isolation=str(status.isolation),
        slots=status.slots,
        host=HostItem(
            cpu_model=clean_line(host.cpu_model, limit=80),
            cpu_cores=host.cpu_cores,
            cpu_pct=host.cpu_pct,
            memory_used=host.memory_used_bytes,
            memory_total=host.memory_bytes,
            held=host.held,
        ),
        network=clean_line(status.chain, limit=40),
        real_money=status.real_money,
        note=notes[0] if notes else "",
        mood=clean_line(status.mood, limit=20),
        mood_reason=clean_line(status.mood_reason),
        asks_owner=status.asks_owner,
        advice=_advice(status),
        gpus=tuple(_gpu(gpu) for gpu in status.gpus),
        earnings=_earned(earned),
        jobs=tuple(_seller_job(job) for job in status.jobs),
        events=tuple(
            EventItem(event.at, event.level, clean_line(event.text, limit=500))
            for event in status.events
        ),
    )


def _advice(status: OwnerStatus) -> AdviceItem | None:
    advice = status.advice
    if advice is None:
        return None
    return AdviceItem(advice.suggested, clean_line(advice.sentence(status.price_per_hour)))


def _earned(earned: Earnings) -> EarningsItem:
    days = earned.days
    return EarningsItem(
        today=sum(day.kept for day in days[-1:]),
        week=sum(day.kept for day in days[-7:]),
        month=earned.total.kept,
        refunded=earned.total.refunded,
        owed=earned.total.owed,
        vouched=earned.vouched,
        by_day=tuple((day.key, day.kept) for day in days),
        nets=tuple(_net(rows) for rows in (days[-1:], days[-7:], days)),
        sold=_share(days[-7:]),
        electricity_price=earned.electricity_price,
        gpus=tuple(GpuEarned(_unit(gpu), gpu.kept, gpu.net, _share((gpu,))) for gpu in earned.gpus),
    )


def _unit(row: EarningsRow) -> str:
    """A short name: the number says which GPU it is, the panel above which model."""
    if row.label.startswith("#"):
        return f"GPU {clean_line(row.label[1:].split(' ')[0], limit=3)}"
    return "cpu" if row.key == CPU else "no GPU"


def _net(rows: Sequence[EarningsRow]) -> int | None:
    """Less gas and current; None where no current was measured."""
    known = [row for row in rows if row.net is not None]
    gone = sum((row.electricity or 0) + row.gas for row in rows)
    return sum(row.kept for row in rows) - gone if known else None


def _share(rows: Sequence[EarningsRow]) -> float | None:
    """How much of the offered time was sold."""
    offered = sum(row.offered_seconds for row in rows)
    return sum(row.sold_seconds for row in rows) / offered if offered else None


def _gpu(gpu: OwnerGpu) -> GpuItem:
    last = gpu.samples[-1] if gpu.samples else None
    limit = gpu.power_limit_mw
    return GpuItem(
        index=gpu.index,
        model=clean_line(gpu.model, limit=60),
        utilization_pct=last.utilization_pct if last else None,
        memory_used=last.memory_used_bytes if last else None,
        memory_total=gpu.memory_bytes,
        past=tuple(sample.utilization_pct for sample in gpu.samples),
        temperature_c=last.temperature_c if last else None,
        power_w=last.power_mw / 1000 if last and last.power_mw is not None else None,
        power_limit_w=limit / 1000 if limit is not None else None,
        job_id=gpu.job_id,
        held=gpu.held,
        trouble=clean_line(gpu.trouble),
        is_slice=gpu.uuid.startswith("MIG-"),
    )


def _seller_job(job: OwnerJob) -> SellerJob:
    return SellerJob(
        job_id=job.job_id,
        buyer=job.buyer,
        name=clean_line(job.name, limit=80),
        state=job.state,
        image=clean_line(job.image, limit=64),
        gpu_count=job.gpu_count,
        price=job.price_per_hour,
        paid=job.paid,
        cost=job.cost,
        metered_ms=job.metered_ms,
        max_seconds=job.max_seconds,
        started_ms=job.started_ms,
        queue_position=job.queue_position,
        starts_in=job.starts_in_seconds,
        paused=job.paused,
        decide_by=None if job.decide_by_ms is None else job.decide_by_ms / 1000,
    )
