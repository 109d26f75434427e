"""The queue's order, and that no job starts later than its buyer was told: against a simulation."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from computeswarm.core.jobs import JobSpec, Phases
from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.estimate import Room, Work, starts_in
from computeswarm.seller.job import Job
from computeswarm.seller.queue import AGE_SECONDS, MAX_DOUBLINGS, JobQueue, priority_seconds
from computeswarm.seller.slots import Slots

GIB = 2**30


def waiting(job_id: str, queued_ms: int, priority: int = 0, created: int = 0) -> Job:
    """As much of a job as its place depends on."""
    made = SimpleNamespace(
        job_id=job_id,
        phases=Phases(created=created, queued=queued_ms),
        quote=SimpleNamespace(priority_seconds=priority),
    )
    return cast(Job, made)


def test_price_moves_a_job_up_and_age_keeps_it_there() -> None:
    assert priority_seconds(100, 100) == priority_seconds(50, 100) == 0
    assert priority_seconds(200, 100) == AGE_SECONDS
    assert priority_seconds(10**15, 1) == MAX_DOUBLINGS * AGE_SECONDS  # money alone buys no more
    queue, twice = JobQueue(), priority_seconds(200, 100)
    for minute in range(3):
        assert queue.add(waiting(f"plain{minute}", minute * 60_000))
    assert queue.place_of(4 * 60_000, twice) == 1
    queue.add(waiting("rich", 4 * 60_000, twice))
    assert list(queue) == ["rich", "plain0", "plain1", "plain2"]
    # a quarter of an hour later the same money buys no place before those who waited so long
    assert queue.place_of(2 * 60_000 + AGE_SECONDS * 1000, twice) == 5
    longest = priority_seconds(10**9, 1)
    assert queue.place_of(longest * 1000, longest) > queue.position("plain0")  # type: ignore[operator]
    assert not queue.add(waiting("rich", 9**9, 0))  # a repetition moves nothing
    queue.remove("plain0")
    assert [queue.position(job_id) for job_id in queue] == [1, 2, 3]
    assert queue.position("plain0") is None and "plain0" not in queue and len(queue) == 3


def test_equal_ranks_keep_the_order_in_which_they_were_bought() -> None:
    queue = JobQueue()
    for created in (3, 1, 2):
        queue.add(waiting(f"job{created}", 10, created=created))
    assert list(queue) == ["job1", "job2", "job3"]


@dataclass
class Simulated:
    """One job: what its buyer and the estimate know, and what comes out."""

    number: int
    spec: JobSpec
    lasts: float
    ready_at: float = 0.0
    promise: float = float("inf")
    started: float | None = None


@dataclass
class Machine:
    """The dispatcher's rules on the real slots, in simulated time."""

    slots: Slots
    now: float = 0.0
    queue: list[Simulated] = field(default_factory=list)
    running: dict[int, tuple[Simulated, float]] = field(default_factory=dict)

    def schedule(self) -> None:
        for job in list(self.queue):
            if job.ready_at > self.now:
                continue
            place = self.slots.take(str(job.number), job.spec)
            if place is None and not self.slots.possible(job.spec):
                continue
            if place is None:
                return
            self.queue.remove(job)
            job.started = self.now
            self.running[job.number] = (job, self.now + job.lasts)

    def promise(self) -> None:
        """Tell every waiting buyer what he would be told now; the first word counts."""
        running = [
            Work(
                job.spec.max_seconds - (self.now - (job.started or 0)),
                job.spec.memory_bytes,
                job.spec.gpu_count,
                held=frozenset(self.slots.place(str(job.number)).gpus),  # type: ignore[union-attr]
            )
            for job, _ in self.running.values()
        ]
        works = [self._work(job) for job in self.queue]
        room = Room(self.slots.count, self.slots.memory_bytes)
        for index, job in enumerate(self.queue):
            told = starts_in(running, works[:index], works[index], room)
            if told is not None:
                job.promise = min(job.promise, self.now + told)

    def _work(self, job: Simulated) -> Work:
        fits = frozenset(self.slots._fitting(job.spec))
        ready = job.ready_at <= self.now
        spec = job.spec
        return Work(spec.max_seconds, spec.memory_bytes, spec.gpu_count, fits, ready=ready)

    def step(self, until: float) -> None:
        """To the next end, the next upload, or ``until``."""
        ends = [end for _, end in self.running.values()]
        uploads = [job.ready_at for job in self.queue if job.ready_at > self.now]
        self.now = min([*ends, *uploads, until])
        for number, (_, end) in list(self.running.items()):
            if end <= self.now:
                del self.running[number]
                self.slots.release(str(number))
        self.schedule()


def _spec(dice: random.Random, sizes: list[int]) -> JobSpec:
    gpus = dice.choice((0, 0, 1, 1, 2)) if sizes else 0
    return JobSpec(
        command=("x",),
        gpu_count=min(gpus, len(sizes)),
        min_vram_bytes=dice.choice([0, *sizes]) if gpus == 1 else 0,
        memory_bytes=dice.choice((1, 2, 4)) * GIB,
        max_seconds=dice.randrange(10, 400),
    )


@pytest.mark.parametrize("kind", ["cpu", "alike", "mixed"])
def test_nobody_starts_later_than_he_was_told(kind: str) -> None:
    promises = kept_early = 0
    for seed in range(150):
        dice = random.Random(f"{kind}{seed}")
        sizes = {
            "cpu": [],
            "alike": [24 * GIB] * dice.randrange(1, 4),
            "mixed": [dice.choice((8, 16, 24)) * GIB for _ in range(dice.randrange(2, 4))],
        }[kind]
        cards = [GPUInfo(vendor="nvidia", model="X", memory_bytes=size) for size in sizes]
        machine = Machine(Slots(dice.randrange(1, 4), cards, 8 * GIB))
        jobs: list[Simulated] = []
        while len(jobs) < 25 or machine.queue or machine.running:
            if len(jobs) < 25 and dice.random() < 0.5:
                spec = _spec(dice, sizes)
                late = dice.random() < 0.2
                job = Simulated(
                    len(jobs),
                    spec,
                    lasts=spec.max_seconds * dice.choice((0.05, 0.5, 1.0)),
                    ready_at=machine.now + (dice.randrange(1, 500) if late else 0),
                )
                jobs.append(job)
                machine.queue.append(job)
                machine.schedule()
            machine.promise()
            machine.step(machine.now + dice.randrange(1, 200))
        for job in jobs:
            assert job.started is not None, (kind, seed, job)
            assert job.started <= job.promise + 1e-6, (kind, seed, job)
            promises += job.promise < float("inf")
            kept_early += job.promise - job.started < 300
    assert promises > 1000  # the others started at once, or lacked inputs
    assert kept_early > promises / 2  # and what was promised was worth something


def test_what_nobody_knows_is_not_guessed() -> None:
    room, memory = Room(1, 4 * GIB), GIB
    job, other = Work(60, memory), Work(60, memory)
    frozen = Work(None, memory)
    assert starts_in([], [], job, room) == 0
    assert starts_in([other], [other], job, room) == 120
    assert starts_in([frozen], [], job, room) is None  # it stands still, as long as the owner plays
    assert starts_in([frozen], [], job, Room(2, 4 * GIB)) == 0
    assert starts_in([], [], Work(60, memory, ready=False), room) is None
    assert starts_in([], [], Work(60, memory, gpus=1), room) is None  # its GPU is lost
    assert starts_in([], [], Work(60, 5 * GIB), room) is None
    lost: Any = Work(60, memory, gpus=1)
    assert starts_in([other], [lost], job, room) == 120  # it may be well again, and first
