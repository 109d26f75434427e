"""What those who wait, or think of it, may expect: place and latest start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from computeswarm.core.jobs import JobSpec
from computeswarm.core.states import JobState
from computeswarm.seller.estimate import TURNOVER_SECONDS, Room, Work, latest_starts, starts_in
from computeswarm.seller.job import Job
from computeswarm.seller.slots import fits

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent
    from computeswarm.seller.dispatch import Dispatcher

_FRESH_SECONDS = 0.25
"""All places are estimated at once, and not anew for each job of a page."""


class Outlook:
    """Estimates from the queue as it is."""

    def __init__(self, agent: SellerAgent, dispatcher: Dispatcher) -> None:
        self._agent = agent
        self._dispatcher = dispatcher
        self._told: dict[str, float | None] = {}
        self._stand: object = None
        self._made_at = float("-inf")

    def starts_in(self, job_id: str) -> int | None:
        """Seconds until a waiting job starts, at most; None where nobody can say."""
        if not self._open():
            return None
        now, queue = self._agent.clock.monotonic(), self._dispatcher.queue
        stand = self._standing()
        if self._stand != stand or not 0 <= now - self._made_at < _FRESH_SECONDS:
            ids = list(queue)
            told = latest_starts(self._running(), [self._waiting(i) for i in ids], self._room)
            self._told = dict(zip(ids, told, strict=True))
            self._stand, self._made_at = stand, now
        return _whole(self._told.get(job_id))

    def _standing(self) -> object:
        """What an estimate depends on but time."""
        runs = self._dispatcher.runs
        frozen = frozenset(job_id for job_id, run in runs.items() if run.frozen)
        unwell = frozenset(self._agent.unwell_gpus())
        slots = self._dispatcher.slots.count
        asking = self._agent.asking.jobs
        return self._dispatcher.queue.version, frozenset(runs), frozen, unwell, slots, asking

    def of_offer(self, spec: JobSpec, priority: int) -> tuple[int, int | None]:
        """For a job that would come now, its inputs with it: how many stand before it, and the
        seconds until it starts, at most."""
        queue = self._dispatcher.queue
        before = list(queue)[: queue.place_of(self._agent.desk.now_ms(), priority) - 1]
        if not self._open():
            return len(before), None
        ahead, job = [self._waiting(i) for i in before], self._work(spec, spec.max_seconds)
        if self._agent.config.asks_owner:  # who comes later may be let in earlier
            return len(before), None
        return len(before), _whole(starts_in(self._running(), ahead, job, self._room))

    def _open(self) -> bool:
        return self._agent.acceptance.may_start()

    @property
    def _room(self) -> Room:
        slots = self._dispatcher.slots
        return Room(slots.count, slots.memory_bytes, slots.disk_bytes)

    def _job(self, job_id: str) -> Job:
        return self._agent.desk.store.get(job_id)

    def _waiting(self, job_id: str) -> Work:
        job = self._job(job_id)
        asks = job_id in self._agent.asking.jobs
        ready = not asks and not self._agent.inputs.missing(job.job_id, job.spec)
        return self._work(job.spec, job.quote.max_seconds, ready=ready)

    def _work(self, spec: JobSpec, seconds: float, *, ready: bool = True) -> Work:
        unwell = self._agent.unwell_gpus()
        gpus = self._agent.config.hardware.gpus
        usable = frozenset(
            index for index, gpu in enumerate(gpus) if index not in unwell and fits(gpu, spec)
        )
        return Work(
            seconds + self._turnover,
            spec.memory_bytes,
            spec.gpu_count,
            usable,
            ready=ready,
            disk_bytes=spec.disk_bytes,
        )

    def _running(self) -> list[Work]:
        return [self._of_run(job_id) for job_id in self._dispatcher.runs]

    def _of_run(self, job_id: str) -> Work:
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
        spec = job.spec
        return Work(
            seconds, spec.memory_bytes, spec.gpu_count, held=held, disk_bytes=spec.disk_bytes
        )

    @property
    def _turnover(self) -> float:
        config = self._agent.config
        return config.silent_start + config.term_seconds + TURNOVER_SECONDS


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)
