"""A running job's meter, and what its GPUs do meanwhile, as its buyer sees them each second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from computeswarm.core.events import MeterEvent

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent


def meter_event(agent: SellerAgent, job_id: str) -> MeterEvent | None:
    """Where a job's meter stands; None when it does not run."""
    meter, place = agent.desk.meters.get(job_id), agent.slots.place(job_id)
    if meter is None or place is None:
        return None
    now = agent.clock.monotonic()
    readings = [agent.machine.reading(index) for index in place.gpus]
    loads = [r.utilization_pct for r in readings if r.utilization_pct is not None]
    used = [r.memory_used_bytes for r in readings if r.memory_used_bytes is not None]
    return MeterEvent(
        seq=max(1, agent.desk.log(job_id).last_seq),
        at=agent.desk.now_ms(),
        metered_ms=meter.milliseconds(now),
        cost=meter.cost(now),
        paid=meter.paid,
        slices_paid=meter.paid_slices,
        next_payment_due_ms=meter.left_ms(now),
        utilization_pct=round(sum(loads) / len(loads)) if loads else None,
        memory_used_bytes=sum(used) if used else None,
    )
