"""Questions to the owner through any order of answers, silence, crashes and changed settings: the
real store and the real questions, with a dispatcher that starts whatever it may."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from computeswarm.core.errors import Conflict
from computeswarm.core.jobs import JobSpec, Payment, Phases
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState
from computeswarm.seller.asking import Asking
from computeswarm.seller.job import Job
from computeswarm.seller.queue import JobQueue
from computeswarm.seller.runner import Order
from computeswarm.seller.store import JobStore

ADDRESS = "0x" + "11" * 20
ASK_SECONDS = 60
PAID = 10_000
QUOTE = Quote(
    quote_id="qt-" + "0" * 20, node_id="nd-" + "0" * 12, seller=ADDRESS,
    spec_hash="0x" + "0" * 64, chain_id=84532, asset=ADDRESS, pay_to=ADDRESS,
    price_per_hour=3_600_000, slice_seconds=10, max_seconds=60, issued_at=1, expires_at=2,
)  # fmt: skip


@dataclass
class Known:
    """What the test expects of one job."""

    until_ms: int | None
    """Until then its owner may answer; None where it may start."""
    yes: bool = False
    """He has said so, which no setting takes back."""


@dataclass
class Life:
    """One process of the seller, over a store that outlives it."""

    folder: Path
    clock: list[int]
    asks: bool
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = JobStore(self.folder / "jobs.db")
        self.queue = JobQueue()
        agent: Any = SimpleNamespace(
            config=SimpleNamespace(asks_owner=self.asks, ask_seconds=ASK_SECONDS),
            desk=SimpleNamespace(
                store=self.store,
                now_ms=lambda: self.clock[0],
                say=lambda job_id, _: self.told.append(job_id),
            ),
            notices=SimpleNamespace(tell=lambda *_: None),
            queue=self.queue,
            dispatcher=SimpleNamespace(end_queued=self.end_queued, schedule=lambda: None),
        )
        self.config = agent.config
        self.asking = Asking(agent)
        for job in self.store.live():
            if job.state is JobState.QUEUED:
                self.enqueue(job)

    def enqueue(self, job: Job) -> None:
        self.queue.add(job)
        self.asking.enter(job)

    async def end_queued(self, job_id: str, order: Order) -> None:
        self.leave(job_id)
        assert order.free
        self.store.advance(
            job_id, order.state, at_ms=self.clock[0], refund=PAID, reason=order.reason
        )

    def leave(self, job_id: str) -> None:
        self.queue.remove(job_id)
        self.asking.leave(job_id)


class Questions(RuleBasedStateMachine):
    @initialize(asks=st.booleans())
    def begin(self, asks: bool) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.clock = [1_000_000]
        self.jobs: dict[str, Known] = {}
        self.started: list[str] = []
        self.life = Life(Path(self._folder.name), self.clock, asks)

    def teardown(self) -> None:
        self.life.store.close()
        self._folder.cleanup()

    def _buy(self) -> str:
        job_id = f"job-{len(self.jobs):020x}"
        job = Job(
            job_id, f"{ADDRESS}:{job_id}", JobState.AWAITING_PAYMENT,
            JobSpec(command=("true",)), QUOTE, ADDRESS, "k", Phases(created=self.clock[0]),
        )  # fmt: skip
        self.life.store.add(job)
        self.life.store.pay(
            job_id, Payment(slice=0, amount=PAID, transaction="0x" + "1" * 64, payer=ADDRESS)
        )
        self.life.asking.write_down(job_id)
        until = self.clock[0] + ASK_SECONDS * 1000 if self.life.config.asks_owner else None
        self.jobs[job_id] = Known(until)
        return job_id

    def _queue_up(self, job_id: str) -> None:
        self.life.enqueue(self.life.store.advance(job_id, JobState.QUEUED, at_ms=self.clock[0]))

    @rule()
    def buy(self) -> None:
        self._queue_up(self._buy())

    @rule()
    def buy_with_a_crash_before_the_queue(self) -> None:
        job_id = self._buy()
        self.crash(asks=self.life.config.asks_owner)
        self.clock[0] += 5_000
        self.life.asking.write_down(job_id)  # the payment is handed over once more
        self._queue_up(job_id)

    def _pick(self, data: st.DataObject) -> str | None:
        waiting = list(self.life.queue)
        return data.draw(st.sampled_from(waiting)) if waiting else None

    @rule(data=st.data(), crashes=st.booleans())
    def accept(self, data: st.DataObject, crashes: bool) -> None:
        job_id = self._pick(data)
        if job_id is None:
            return
        known = self.jobs[job_id]
        try:
            self.life.asking.accept(job_id)
        except Conflict:
            assert known.until_ms is None or known.until_ms <= self.clock[0]
            return
        assert known.until_ms is not None and known.until_ms > self.clock[0]
        known.yes, known.until_ms = True, None
        if crashes:
            self.crash(asks=self.life.config.asks_owner)

    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        job_id = self._pick(data)
        if job_id is None:
            return
        known = self.jobs[job_id]
        try:
            ended = asyncio.run(self.life.asking.reject(job_id, "no"))
        except Conflict:
            assert known.until_ms is None or known.until_ms <= self.clock[0]
            return
        assert known.until_ms is not None and known.until_ms > self.clock[0]
        assert ended.state is JobState.SELLER_LOST and ended.refund == PAID

    @rule(seconds=st.sampled_from([1, 20, ASK_SECONDS]))
    def time_passes(self, seconds: int) -> None:
        self.clock[0] += seconds * 1000

    @rule()
    def look(self) -> None:
        late = {
            job_id
            for job_id in self.life.queue
            if (until := self.jobs[job_id].until_ms) is not None and until <= self.clock[0]
        }
        before = set(self.life.queue)
        asyncio.run(self.life.asking.look())
        assert before - set(self.life.queue) == late
        for job_id in late:
            job = self.life.store.get(job_id)
            assert job.refund == PAID and "did not answer within" in job.reason

    @rule()
    def start_what_may(self) -> None:
        """As the dispatcher does."""
        asking = self.life.asking.jobs
        for job_id in self.life.queue:
            if job_id not in asking:
                self.life.leave(job_id)
                self.life.store.advance(job_id, JobState.STARTING, at_ms=self.clock[0])
                self.started.append(job_id)

    @rule(asks=st.booleans())
    def reload(self, asks: bool) -> None:
        if asks != self.life.config.asks_owner:
            self.life.config.asks_owner = asks
            self._expect_setting(asks)
            self.life.asking.follow_setting()

    @rule(asks=st.booleans())
    def crash(self, asks: bool) -> None:
        """kill -9, and a start with the same or the other setting."""
        self.life.store.close()
        if asks != self.life.config.asks_owner:
            self._expect_setting(asks)
        self.life = Life(Path(self._folder.name), self.clock, asks)

    def _expect_setting(self, asks: bool) -> None:
        for job_id in self.life.queue:
            known = self.jobs[job_id]
            if not asks:
                known.until_ms = None
            elif not known.yes:
                known.until_ms = self.clock[0] + ASK_SECONDS * 1000

    @invariant()
    def nothing_starts_without_a_yes(self) -> None:
        assert all(self.jobs[job_id].until_ms is None for job_id in self.started)
        asking = self.life.asking.jobs
        assert asking <= set(self.life.queue)
        for job_id in self.life.queue:
            assert self.life.asking.decide_by(job_id) == self.jobs[job_id].until_ms

    @invariant()
    def what_has_ended_leaves_no_question(self) -> None:
        for job_id in self.jobs:
            if self.life.store.get(job_id).state.terminal:
                assert self.life.store.answers.of(job_id) is None


TestQuestions = Questions.TestCase
TestQuestions.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
