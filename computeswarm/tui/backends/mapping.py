"""From models to what the screens show. Here every stranger's text is cleaned, once."""

from __future__ import annotations

from collections.abc import Sequence

from computeswarm.core.events import (
    EndEvent,
    JobEvent,
    MeterEvent,
    OutputEvent,
    PaymentEvent,
    StateEvent,
)
from computeswarm.core.jobs import JobView, Phases
from computeswarm.core.money import format_usdc
from computeswarm.core.nodes import ComputeNode
from computeswarm.core.text import StreamDecoder, clean_line
from computeswarm.seller.earnings import EarningsRow
from computeswarm.seller.owner import Earnings, OwnerGpu, OwnerJob, OwnerStatus
from computeswarm.tui.views import (
    EarningsItem,
    EventItem,
    GpuEarned,
    GpuItem,
    HostItem,
    LogKind,
    LogLine,
    Meter,
    NodeItem,
    SellerItem,
    SellerJob,
    Transfer,
)


def node_item(node: ComputeNode) -> NodeItem:
    """A listed node whose record has been opened, so its signature holds.

    Raises:
        BadRequest, Unauthorized: as ``ComputeNode.info``.
    """
    record, hardware = node.info, node.info.hardware
    first = hardware.gpus[0] if hardware.gpus else None
    return NodeItem(
        node_id=node.node_id,
        name=clean_line(record.name, limit=60),
        title=clean_line(hardware.title, limit=80),
        gpu_count=len(hardware.gpus),
        vram_bytes=hardware.vram_bytes,
        price=record.price_per_hour,
        status=str(node.status),
        isolation=str(record.isolation),
        region=clean_line(record.region, limit=40),
        wallet=record.wallet,
        endpoint=clean_line(record.endpoint),
        cpu_model=clean_line(hardware.cpu_model, limit=80),
        cpu_cores=hardware.cpu_cores,
        memory_bytes=hardware.memory_bytes,
        disk_bytes=hardware.disk_bytes,
        driver=clean_line(first.driver, limit=40) if first else "",
        runtime=clean_line(first.runtime, limit=40) if first else "",
        images=tuple(clean_line(image, limit=64) for image in record.images),
        network=record.network,
        slice_seconds=record.slice_seconds,
        max_job_seconds=record.max_job_seconds,
        queued=node.queued,
        running=node.running,
        jobs_succeeded=node.jobs_succeeded,
        jobs_failed=node.jobs_failed,
        uptime_permille=node.uptime_permille,
        registered_at=node.registered_at,
        last_seen=node.last_seen,
        version=clean_line(record.version, limit=40),
    )


def phases(times: Phases) -> tuple[tuple[str, int], ...]:
    """The phases that began, in order."""
    named = times.model_dump()
    return tuple((name, at) for name, at in named.items() if at is not None)


def payments(view: JobView) -> tuple[Transfer, ...]:
    return tuple(Transfer(p.amount, clean_line(p.transaction, limit=66)) for p in view.payments)


def deposit(view: JobView) -> Transfer | None:
    made = view.channel
    return None if made is None else Transfer(made.deposit, clean_line(made.transaction, limit=66))


def refund(view: JobView) -> Transfer | None:
    back = view.refund
    return None if back is None else Transfer(back.amount, clean_line(back.transaction, limit=66))


class EventReader:
    """A job's events to lines and meters; holds unfinished lines of both streams."""

    def __init__(self) -> None:
        self._decoders = {"stdout": StreamDecoder(), "stderr": StreamDecoder()}

    def read(self, event: JobEvent) -> list[LogLine | Meter]:
        """What a screen shows of one event."""
        match event:
            case OutputEvent():
                lines = self._decoders[event.stream].feed(event.raw())
                return [LogLine(line, event.stream, event.at) for line in lines]
            case StateEvent() if event.state.terminal:
                return []  # the end event that follows says it with the sums
            case StateEvent():
                reason = f": {clean_line(event.reason, limit=500)}" if event.reason else ""
                return [LogLine(f"{event.state}{reason}".replace("_", " "), "note", event.at)]
            case PaymentEvent():
                return [_payment_line(event)]
            case MeterEvent():
                return [
                    Meter(
                        event.metered_ms,
                        event.cost,
                        event.paid,
                        event.utilization_pct,
                        event.memory_used_bytes,
                    )
                ]
            case EndEvent():
                return [*self.rest(event.at), _end_line(event)]

    def rest(self, at: int) -> list[LogLine | Meter]:
        """The last lines, where they had no newline."""
        found: list[LogLine | Meter] = []
        for stream, decoder in self._decoders.items():
            kind: LogKind = "stderr" if stream == "stderr" else "stdout"
            found += [LogLine(line, kind, at) for line in decoder.flush()]
        return found


def _payment_line(event: PaymentEvent) -> LogLine:
    amount = f"{format_usdc(event.amount)} USDC"
    tx = clean_line(event.transaction, limit=66)
    proof = f", tx {tx[:10]}…" if tx else ""
    if event.direction == "refunded":
        return LogLine(f"{amount} came back{proof}", "good", event.at)
    which = "" if event.slice is None else f" for slice {event.slice + 1}"
    return LogLine(f"paid {amount}{which}{proof}", "good", event.at)


def _end_line(event: EndEvent) -> LogLine:
    job = event.job
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    text = f"{job.state}{code} · cost {format_usdc(job.cost)} of {format_usdc(job.paid)} USDC paid"
    good = job.state == "succeeded"
    return LogLine(text.replace("_", " "), "good" if good else "bad", event.at)


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
        paused=status.paused or status.stopping,
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
        ),
        network=clean_line(status.chain, limit=40),
        real_money=status.real_money,
        note=notes[0] if notes else "",
        gpus=tuple(_gpu(gpu) for gpu in status.gpus),
        earnings=_earned(earned),
        jobs=tuple(_seller_job(job) for job in status.jobs),
        events=tuple(
            EventItem(event.at, event.level, clean_line(event.text, limit=500))
            for event in status.events
        ),
    )


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
        gpus=tuple(
            GpuEarned(clean_line(gpu.label, limit=60), gpu.kept, gpu.net, _share((gpu,)))
            for gpu in earned.gpus
        ),
    )


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
    )
