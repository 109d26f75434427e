"""The owner's document, put together from all that the seller knows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from computeswarm.seller.job import Job
from computeswarm.seller.owner import (
    DayEarnings,
    Earnings,
    OwnerGpu,
    OwnerJob,
    OwnerStatus,
)

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_ENDED_SHOWN = 50
_DAYS = 30
_FRESH_SECONDS = 2.0
_DAY = 86400


class StatusPage:
    """Makes ``OwnerStatus``; sums over the ledger are kept for two seconds."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self._started = agent.clock.now()
        self._earnings = Earnings()
        self._earnings_at = float("-inf")

    def make(self) -> OwnerStatus:
        """The seller now."""
        agent, config = self._agent, self._agent.config
        blocked = agent.paused or agent.stopping or agent.gas_wei == 0
        return OwnerStatus(
            node_id=agent.node_id,
            name=config.name,
            wallet=agent.wallet,
            endpoint=agent.offers.endpoint,
            chain=config.chain.title,
            real_money=config.chain.real_money,
            started_at=self._started,
            accepting=not blocked,
            paused=agent.paused,
            stopping=agent.stopping,
            market=agent.market.link,
            price_per_hour=agent.offers.price_per_hour,
            slice_seconds=config.slice_seconds,
            executor=agent.executor.name,
            isolation=agent.executor.isolation,
            images=agent.offers.images.names(),
            trusted=tuple(sorted(config.trusted)) if agent.executor.owner_only else (),
            slots=config.slots,
            running=agent.running,
            queued=len(agent.queue),
            host=agent.machine.host(),
            gpus=tuple(self._gpu(index) for index in range(len(config.hardware.gpus))),
            earnings=self._earned(),
            gas_wei="" if agent.gas_wei is None else str(agent.gas_wei),
            jobs=self._jobs(),
            events=agent.notices.recent(),
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        notes = list(self._agent.notes)
        if self._agent.gas_wei == 0:
            notes.insert(0, "No ETH for gas: payments can't be settled. Send some to the wallet.")
        return tuple(notes)

    def _gpu(self, index: int) -> OwnerGpu:
        agent = self._agent
        gpu = agent.config.hardware.gpus[index]
        return OwnerGpu(
            index=index,
            model=gpu.model,
            uuid=gpu.uuid,
            memory_bytes=gpu.memory_bytes,
            power_limit_mw=agent.machine.reading(index).power_limit_mw,
            job_id=agent.slots.holder(index),
            samples=tuple(agent.machine.samples(index)),
        )

    def _jobs(self) -> tuple[OwnerJob, ...]:
        """Those that live in their order, then those that ended last."""
        store = self._agent.desk.store
        live = [job for job in store.live() if job.state.live]
        ended = [job for job in store.recent(_ENDED_SHOWN) if job.state.terminal]
        return tuple(self._job(job) for job in (*live, *ended))

    def _job(self, job: Job) -> OwnerJob:
        view = self._agent.desk.view(job)
        return OwnerJob(
            job_id=job.job_id,
            buyer=job.buyer,
            name=view.name,
            state=job.state,
            reason=job.reason,
            image=view.image,
            gpu_count=view.gpu_count,
            price_per_hour=view.price_per_hour,
            paid=view.paid,
            cost=view.cost,
            metered_ms=view.metered_ms,
            left_ms=view.next_payment_due_ms,
            max_seconds=view.max_seconds,
            created_ms=job.phases.created or 0,
            started_ms=job.phases.starting,
            ended_ms=job.phases.ended,
            queue_position=view.queue_position,
        )

    def _earned(self) -> Earnings:
        clock = self._agent.clock
        if clock.monotonic() - self._earnings_at < _FRESH_SECONDS:
            return self._earnings
        today = datetime.fromtimestamp(clock.now(), UTC).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        first = today - timedelta(days=_DAYS - 1)
        days = self._days(first)
        self._earnings = Earnings(
            today=days[-1].gross,
            week=sum(day.gross for day in days[-7:]),
            month=sum(day.gross for day in days),
            refunded_month=sum(day.refunded for day in days),
            owed=self._agent.settlements.earned(clock.now()).owed,
            vouched=self._agent.channels.unclaimed(),
            by_day=tuple(days),
        )
        self._earnings_at = clock.monotonic()
        return self._earnings

    def _days(self, first: datetime) -> list[DayEarnings]:
        """Sums for each of the days from ``first`` on (UTC): transfers, and what channels paid."""
        days = self._agent.settlements.by_day(first.timestamp(), _DAYS)
        settled, begun = [0] * _DAYS, [0] * _DAYS
        for step in self._agent.channels.movements(first.timestamp()):
            index = int((step.at - first.timestamp()) // _DAY)
            if 0 <= index < _DAYS:
                settled[index] += step.amount if step.kind == "settle" else 0
                begun[index] += step.kind == "deposit"
        return [
            DayEarnings(
                day=(first + timedelta(days=index)).date().isoformat(),
                gross=day.received + settled[index],
                refunded=day.refunded,
                jobs=day.jobs + begun[index],
            )
            for index, day in enumerate(days)
        ]
