"""Who runs: takes jobs from the queue as places come free, and ends those that have to end."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from computeswarm.core.durations import format_duration
from computeswarm.core.errors import Conflict
from computeswarm.core.money import format_usdc
from computeswarm.core.states import JobState
from computeswarm.seller.gpus.keeper import GpuKeeper
from computeswarm.seller.inputs import uploaded_bytes
from computeswarm.seller.job import Job
from computeswarm.seller.outlook import Outlook
from computeswarm.seller.owner import EventLevel
from computeswarm.seller.queue import JobQueue
from computeswarm.seller.runner import JobRun, Order, Tools
from computeswarm.seller.slots import Slots

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_SLOWEST_UPLOAD = 64 * 1024
"""Bytes a second."""
_CLEAN_AGAIN_SECONDS = 60.0
_TELL_SECONDS = 10.0
"""A buyer hears of his place no more often."""


class Dispatcher:
    """The queue, the places and the runs."""

    def __init__(self, agent: SellerAgent, slots: Slots, tools: Tools) -> None:
        self.queue = JobQueue()
        self.slots = slots
        self.runs: dict[str, JobRun] = {}
        self.upload_seen: dict[str, float] = {}
        """When something of a waiting job's inputs came last, on the monotonic clock."""
        self.upload_until: dict[str, float] = {}
        """When all of them have to be there, or a trickle would hold a place for ever."""
        self.outlook = Outlook(agent, self)
        self.keeper = GpuKeeper()
        gpus = range(len(agent.config.hardware.gpus))
        self.unclean: set[int] = {i for i in gpus if agent.config.hardware.gpus[i].uuid}
        """GPUs in which something of a job may be left: at the start all, for what a killed seller,
        or one that could not clean them, left is not known."""
        self._clean_later: dict[int, float] = dict.fromkeys(self.unclean, float("-inf"))
        """When to try it, on the monotonic clock."""
        self._uncleanable: set[int] = set()
        """Those of which their owner has been told."""
        self._agent = agent
        self._tools = tools
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._told: dict[str, tuple[int, float]] = {}
        """The place that a waiting job's buyer knows, and since when."""
        self._idle = asyncio.Event()
        self._idle.set()

    def pids(self) -> list[int]:
        """The processes that stand for the running jobs, and for ourselves."""
        return [os.getpid(), *(run.pid for run in self.runs.values() if run.pid is not None)]

    async def idle(self) -> None:
        """Wait until nothing runs."""
        await self._idle.wait()

    async def close(self) -> None:
        """Give up on what still runs."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def enqueue(self, job: Job) -> None:
        """A job is paid for: its place in the queue."""
        if self.queue.add(job):
            patience = self._agent.config.inputs_seconds
            patience += uploaded_bytes(job.spec) / _SLOWEST_UPLOAD
            self.upload_until[job.job_id] = self._agent.clock.monotonic() + patience
        self.uploaded(job.job_id)
        self._agent.asking.enter(job)

    def uploaded(self, job_id: str) -> None:
        """An input came in whole, or a part of one.

        Raises:
            Conflict: the job takes none any more.
        """
        state = self._agent.desk.store.get(job_id).state
        if state not in (JobState.AWAITING_PAYMENT, JobState.QUEUED):
            raise Conflict(f"The job is {state}; it takes no inputs any more.")
        self.upload_seen[job_id] = self._agent.clock.monotonic()

    async def end(self, job_id: str, order: Order) -> Job:
        """End a job wherever it stands; returns once it has ended.

        Raises:
            Conflict: its payment is being settled.
        """
        store = self._agent.desk.store
        if store.get(job_id).state is JobState.AWAITING_PAYMENT:
            raise Conflict("The job's payment is being settled; try again in a moment.")
        if job_id in self.queue:
            await self.end_queued(job_id, order)
        elif job_id in self.runs:
            self.runs[job_id].end(order)
            await asyncio.wait({self._tasks[job_id]})
        return store.get(job_id)

    async def end_queued(self, job_id: str, order: Order) -> None:
        """End a job that waits; everything paid for it goes back."""
        if job_id not in self.queue:
            return  # somebody else ended it
        self._leave_queue(job_id)
        await self._agent.desk.end(job_id, order.state, reason=order.reason)
        self.schedule()

    def _leave_queue(self, job_id: str) -> None:
        self.queue.remove(job_id)
        self._agent.asking.leave(job_id)
        self.upload_seen.pop(job_id, None)
        self.upload_until.pop(job_id, None)
        self._told.pop(job_id, None)

    def schedule(self) -> None:
        """Give places to the first in the queue that have all their inputs."""
        agent = self._agent
        if not agent.acceptance.may_start():
            return
        started = False
        agent.bookkeeper.tick()
        self.slots.faulty = agent.unwell_gpus()
        asking = agent.asking.jobs
        for job_id in self.queue:
            job = agent.desk.store.get(job_id)
            if job_id in asking or agent.inputs.missing(job_id, job.spec):
                continue
            place = self.slots.take(job_id, job.spec)
            if place is None and not self.slots.possible(job.spec):
                continue  # it waits for a GPU to be well again, which may never be
            if place is None:
                break  # nobody overtakes, or a job for many GPUs would wait for ever
            self._leave_queue(job_id)
            self._start(job, place.gpus)
            started = True
        if started:
            agent.market.refresh()
        self._tell_places()

    def _start(self, job: Job, indexes: tuple[int, ...]) -> None:
        hardware = self._agent.config.hardware
        gpus = tuple(hardware.gpus[index] for index in indexes)
        cpus = self._agent.config.job_cpus
        run = self.runs[job.job_id] = JobRun(self._tools, job, gpus, cpus)
        self._idle.clear()
        self._tasks[job.job_id] = asyncio.create_task(self._run(run), name=job.job_id)

    async def _run(self, run: JobRun) -> None:
        agent = self._agent
        place = self.slots.place(run.job_id)
        dirty = set(place.gpus if place else ())
        try:
            await run.run()
            await self._clean(set(dirty))
            dirty.clear()
        finally:
            self._keep_back(dirty)  # it was interrupted
            agent.bookkeeper.tick()
            self.slots.release(run.job_id)
            self.runs.pop(run.job_id, None)
            self._tasks.pop(run.job_id, None)
            if not self.runs:
                self._idle.set()
        job = agent.desk.store.get(run.job_id)
        level: EventLevel = "good" if job.state is JobState.SUCCEEDED else "info"
        agent.notices.tell(
            f"{run.job_id} {job.state}: earned {format_usdc(job.cost)} USDC.".replace("_", " "),
            level,
        )
        self.schedule()
        agent.warmth.prepare()
        agent.market.refresh()
        agent.acceptance.look_if_drained()

    async def _clean(self, indexes: set[int]) -> None:
        """Before the next buyer's job gets them, nothing of this one may be left in its GPUs."""
        # it takes all memory that is free, which would end what their owner does there
        later = indexes & set(self._agent.machine.foreign())
        self._keep_back(later)
        await self._clean_now(indexes - later)

    def _keep_back(self, indexes: set[int], seconds: float = 0.0) -> None:
        self.unclean |= indexes
        at = self._agent.clock.monotonic() + seconds
        self._clean_later.update(dict.fromkeys(indexes, at))

    async def clean_late(self) -> None:
        """Clean those that could not be when their job ended: their owner used them, the driver
        was not well, or the seller was killed."""
        now = self._agent.clock.monotonic()
        agent = self._agent
        unfit = set(agent.machine.foreign()) | agent.machine.faulty() | agent.owner_use.gpus
        due = {index for index, at in self._clean_later.items() if at <= now} - unfit
        await self._clean_now(due)

    async def _clean_now(self, indexes: set[int]) -> None:
        gpus = self._agent.config.hardware.gpus
        for index in sorted(indexes):
            if not (problems := await self.keeper.clean([gpus[index]])):
                self.unclean.discard(index)
                self._clean_later.pop(index, None)
                self._uncleanable.discard(index)
                continue
            self._keep_back({index}, _CLEAN_AGAIN_SECONDS)
            if index not in self._uncleanable:
                self._uncleanable.add(index)
                text = f"GPU {index} takes no more jobs until its memory can be overwritten. "
                self._agent.notices.tell(text + " ".join(problems), "error")

    def _tell_places(self) -> None:
        """Say to each buyer who waits which place he has, when it has changed."""
        now, asking = self._agent.clock.monotonic(), self._agent.asking.jobs
        for place, job_id in enumerate(self.queue, 1):
            known, since = self._told.get(job_id, (0, float("-inf")))
            if place == known or now - since < _TELL_SECONDS or job_id in asking:
                continue
            self._told[job_id] = (place, now)
            why = "A job that pays more came before it. " if 0 < known < place else ""
            at_most = self.outlook.starts_in(job_id)
            when = (
                "when it starts can't be said yet"
                if at_most is None
                else f"starts in {format_duration(at_most)} at most"
            )
            self._agent.desk.say(job_id, f"{why}Place {place} in the queue; {when}.")
