"""The owner's document, put together from all that the seller knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from computeswarm.seller.holding import HELD
from computeswarm.seller.job import Job
from computeswarm.seller.owner import (
    OwnerGpu,
    OwnerJob,
    OwnerStatus,
)

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_ENDED_SHOWN = 50


class StatusPage:
    """Makes ``OwnerStatus``."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self._started = agent.clock.now()

    def make(self) -> OwnerStatus:
        """The seller now."""
        agent, config = self._agent, self._agent.config
        mood = agent.acceptance.mood()
        return OwnerStatus(
            node_id=agent.node_id,
            name=config.name,
            wallet=agent.wallet,
            endpoint=agent.offers.endpoint,
            chain=config.chain.title,
            real_money=config.chain.real_money,
            started_at=self._started,
            accepting=mood == "taking",
            paused=agent.paused,
            draining=agent.acceptance.choices.draining,
            mood=mood,
            mood_reason=agent.acceptance.why(),
            asks_owner=config.asks_owner,
            stopping=agent.stopping,
            market=agent.market.link,
            price_per_hour=agent.offers.price_per_hour,
            slice_seconds=config.slice_seconds,
            executor=agent.executor.name,
            isolation=agent.executor.isolation,
            images=agent.offers.images.names(),
            trusted=tuple(sorted(config.trusted)) if agent.executor.owner_only else (),
            slots=agent.slots.count,
            running=agent.running,
            queued=len(agent.queue),
            host=agent.machine.host().model_copy(update={"held": agent.holds.machine}),
            gpus=tuple(self._gpu(index) for index in range(len(config.hardware.gpus))),
            earnings=agent.bookkeeper.summary(),
            advice=agent.bookkeeper.advisor.advice,
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
            held=index in agent.holds.gpus,
            trouble=self._trouble(index),
            samples=tuple(agent.machine.samples(index)),
        )

    def _trouble(self, index: int) -> str:
        machine = self._agent.machine
        if fault := machine.reading(index).fault:
            return fault
        if index in self._agent.holds.gpus:
            return HELD
        if index in self._agent.owner_use.gpus:
            return f"Used by {machine.foreign().get(index) or 'its owner until just now'}."
        if index in self._agent.unwell_gpus():
            return "What the last job left in its memory is not overwritten yet."
        return ""

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
            starts_in_seconds=view.starts_in_seconds,
            paused=view.paused,
            waits_for_owner=view.owner_decides_by_ms is not None,
            decide_by_ms=view.owner_decides_by_ms,
            priority_seconds=job.quote.priority_seconds,
        )
