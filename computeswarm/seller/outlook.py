"""What those who wait, or think of it, may expect: place and latest start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from computeswarm.core.jobs import JobSpec
from computeswarm.core.states import JobState
from computeswarm.seller.estimate import TURNOVER_SECONDS, Room, Work, starts_in
from computeswarm.seller.job import Job

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent
    from computeswarm.seller.dispatch import Dispatcher


class Outlook:
    """Estimates from the queue as it is."""

    def __init__(self, agent: SellerAgent, dispatcher: Dispatcher) -> None:
        self._agent = agent
        self._dispatcher = dispatcher

    def starts_in(self, job_id: str) -> int | None:
        """Seconds until a waiting job starts, at most; None where nobody can say."""
        ids = list(self._dispatcher.queue)
        if job_id not in ids or not self._open():
            return None
        before = ids[: ids.index(job_id)]
        return self._estimate(before, self._waiting(self._job(job_id)))

    def of_offer(self, spec: JobSpec, priority: int) -> tuple[int, int | None]:
        """For a job that would come now, its inputs with it: how many stand before it, and the
        seconds until it starts, at most."""
        queue = self._dispatcher.queue
        before = list(queue)[: queue.place_of(self._agent.desk.now_ms(), priority) - 1]
        if not self._open():
            return len(before), None
        return len(before), self._estimate(before, self._work(spec, spec.max_seconds))

    def _open(self) -> bool:
        return self._agent.acceptance.may_start()

    def _estimate(self, before: list[str], job: Work) -> int | None:
        running = [self._running(job_id) for job_id in self._dispatcher.runs]
        ahead = [self._waiting(self._job(job_id)) for job_id in before]
        slots = self._dispatcher.slots
        found = starts_in(running, ahead, job, Room(slots.count, slots.memory_bytes))
        return None if found is None else math.ceil(found)

    def _job(self, job_id: str) -> Job:
        return self._agent.desk.store.get(job_id)

    def _waiting(self, job: Job) -> Work:
        ready = not self._agent.inputs.missing(job.job_id, job.spec)
        return self._work(job.spec, job.quote.max_seconds, ready=ready)

    def _work(self, spec: JobSpec, seconds: float, *, ready: bool = True) -> Work:
        unwell = self._agent.unwell_gpus()
        gpus = self._agent.config.hardware.gpus
        fits = frozenset(
            index
            for index, gpu in enumerate(gpus)
            if index not in unwell and gpu.memory_bytes >= spec.min_vram_bytes
        )
        return Work(seconds + self._turnover, spec.memory_bytes, spec.gpu_count, fits, ready=ready)

    def _running(self, job_id: str) -> Work:
        """How long a job that has a place may keep it; nobody knows of one that stands still."""
        agent, run = self._agent, self._dispatcher.runs[job_id]
        job, place = self._job(job_id), self._dispatcher.slots.place(job_id)
        held = frozenset(place.gpus) if place else frozenset()
        seconds: float | None = job.quote.max_seconds + self._turnover
        meter = agent.desk.meters.get(job_id)
        if run.frozen:
            seconds = None
        elif job.state is JobState.RUNNING and meter is not None and meter.limit_at is not None:
            seconds = max(0.0, meter.limit_at - agent.clock.monotonic()) + self._turnover
        return Work(seconds, job.spec.memory_bytes, job.spec.gpu_count, held=held)

    @property
    def _turnover(self) -> float:
        config = self._agent.config
        return config.silent_start + config.term_seconds + TURNOVER_SECONDS
