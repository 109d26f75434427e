"""Asking the owner: where he decides by hand, a paid job waits in the queue for his yes.

Nothing starts without it. A no, or silence until the time is over, ends the job as an eviction
does: everything paid goes back. The question is on disk before the job is in the queue, and a yes
before anything starts, so a crash takes neither; the time that the owner has goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from computeswarm.core.durations import format_duration
from computeswarm.core.errors import Conflict
from computeswarm.core.states import JobState
from computeswarm.core.text import clean_line
from computeswarm.seller.job import Job
from computeswarm.seller.runner import Order

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
"""At least so often, for the clock of the wall may be set."""
REASON_LIMIT = 200
_BACK = "everything paid goes back."


class Asking:
    """The questions that are out."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self._until: dict[str, int] = {}
        """Of each job that waits for an answer, unix milliseconds."""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch the time."""
        self._task = asyncio.create_task(self._watch(), name="asking")

    async def close(self) -> None:
        """Watch it no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def jobs(self) -> frozenset[str]:
        """Those that wait for an answer."""
        return frozenset(self._until)

    def decide_by(self, job_id: str) -> int | None:
        """Until when a job waits for an answer, in unix milliseconds; None where it does not."""
        return self._until.get(job_id)

    def said(self, job_id: str) -> str:
        """What a buyer is told while his job waits for an answer; empty where it does not."""
        until = self._until.get(job_id)
        if until is None:
            return ""
        left = max(0, until - self._agent.desk.now_ms()) / 1000
        return f"Waiting for the owner's yes (at most {format_duration(round(left))})."

    def write_down(self, job_id: str) -> None:
        """Before a paid job is in the queue: a crash in between must not let it start unasked."""
        if self._agent.config.asks_owner:
            now = self._agent.desk.now_ms()
            until = now + self._agent.config.ask_seconds * 1000
            self._agent.desk.store.answers.ask(job_id, now, until)

    def enter(self, job: Job) -> None:
        """A job came into the queue, or is found there after a restart."""
        answers = self._agent.desk.store.answers
        if not self._agent.config.asks_owner:
            if answers.of(job.job_id) is not None:  # as found after a restart
                answers.withdraw(job.job_id)
            return
        if job.job_id in self._until:
            return
        self.write_down(job.job_id)  # it may have come before the owner wished to be asked
        found = answers.of(job.job_id)
        if found is None or found.accepted:
            return
        self._until[job.job_id] = found.until_ms
        self._changed.set()
        self._agent.desk.say(job.job_id, f"{self.said(job.job_id)} Without it {_BACK}")
        left = format_duration(max(0, round((found.until_ms - self._agent.desk.now_ms()) / 1000)))
        self._agent.notices.tell(f"{job.job_id} asks to run; decide within {left}.", "warning")

    def leave(self, job_id: str) -> None:
        """A job is in the queue no more."""
        self._until.pop(job_id, None)

    def accept(self, job_id: str) -> None:
        """The owner says yes: the job keeps its place, and starts once it is its turn.

        Raises:
            JobNotFound, Conflict: it does not wait for him, and why.
        """
        self._check(job_id)
        self._agent.desk.store.answers.accept(job_id)
        del self._until[job_id]
        self._agent.desk.say(job_id, "The owner let the job in.")
        self._agent.notices.tell(f"{job_id} is let in.", "good")
        self._agent.dispatcher.schedule()

    async def reject(self, job_id: str, reason: str = "") -> Job:
        """The owner says no; returns once the job has ended.

        Raises:
            JobNotFound, Conflict: it does not wait for him, and why.
        """
        self._check(job_id)
        given = clean_line(reason, limit=REASON_LIMIT).rstrip(".")
        why = f"The owner turned the job away{': ' if given else ''}{given}; {_BACK}"
        await self._turn_away(job_id, why)
        self._agent.notices.tell(f"{job_id} is turned away; {_BACK}")
        return self._agent.desk.store.get(job_id)

    async def look(self) -> None:
        """Turn away those whose time is over."""
        now = self._agent.desk.now_ms()
        for job_id, until in list(self._until.items()):
            if until > now or job_id not in self._until:
                continue
            found = self._agent.desk.store.answers.of(job_id)
            given = (
                format_duration((found.until_ms - found.since_ms) / 1000) if found else "his time"
            )
            await self._turn_away(job_id, f"The owner did not answer within {given}; {_BACK}")
            text = f"{job_id} had no answer within {given}; {_BACK}"
            self._agent.notices.tell(text, "warning")

    def follow_setting(self) -> None:
        """The owner wishes to be asked from now on, or no more: also of those that wait already."""
        store = self._agent.desk.store
        if self._agent.config.asks_owner:
            for job_id in self._agent.queue:
                self.enter(store.get(job_id))
            return
        for job_id in list(self._until):
            store.answers.withdraw(job_id)
            del self._until[job_id]
            self._agent.desk.say(job_id, "The owner lets jobs in without being asked now.")

    async def _turn_away(self, job_id: str, reason: str) -> None:
        order = Order(JobState.SELLER_LOST, reason, free=True)
        await self._agent.dispatcher.end_queued(job_id, order)

    def _check(self, job_id: str) -> None:
        job = self._agent.desk.store.get(job_id)
        if job.state.terminal:
            raise Conflict("The job has ended already.")
        if job.state is JobState.AWAITING_PAYMENT:
            raise Conflict("The job's payment is being settled; try again in a moment.")
        if job.state is not JobState.QUEUED:
            raise Conflict(f"The job is {job.state} already; evict ends it.")
        until = self._until.get(job_id)
        if until is None:
            waits = job_id in self._agent.queue
            raise Conflict(
                "The job waits for its place, not for your yes; evict ends it."
                if waits
                else "The job ends just now."
            )
        if until <= self._agent.desk.now_ms():
            raise Conflict("The time to answer is over; the job goes back.")

    async def _watch(self) -> None:
        while True:
            self._changed.clear()
            due = min(self._until.values(), default=None)
            wait = None
            if due is not None:
                left = (due - self._agent.desk.now_ms()) / 1000
                wait = max(0.0, min(_LOOK_SECONDS, left))
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                await self._try_to_look()

    async def _try_to_look(self) -> None:
        try:
            await self.look()
        except Exception:
            _log.exception("asking")
            await asyncio.sleep(_LOOK_SECONDS)  # the next look may do better
