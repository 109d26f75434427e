"""The owner comes first: while he uses a GPU himself, the job on it stands still and costs nothing.

A job that stands still keeps its graphics memory: there is no way to take it away and give it
back. Whoever needs it evicts the job. What stands still longer than the quote said is ended, and
all that was paid goes back, as the owner broke it off.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from computeswarm.core.durations import format_duration
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.states import JobState
from computeswarm.seller.runner import JobRun, Order

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 0.5
_FREEZE_SECONDS = 10.0
"""A sandbox that takes longer can't; then the job is ended."""
QUIET_SECONDS = 10.0
"""The GPU has to be free of others for so long before the job goes on: a game between two levels
is no end of the game."""


class OwnerUse:
    """Looks twice a second at who uses the GPUs."""

    def __init__(self, agent: SellerAgent) -> None:
        self._agent = agent
        self._seen: dict[int, float] = {}
        """When somebody else was last seen on each GPU, on the monotonic clock."""
        self._frozen_at: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def gpus(self) -> frozenset[int]:
        """Those that take no job now, for their owner uses them."""
        now = self._agent.clock.monotonic()
        if not self._agent.config.pause_when_used:
            return frozenset()
        return frozenset(i for i, at in self._seen.items() if now - at < QUIET_SECONDS)

    def start(self) -> None:
        """Begin to look."""
        if self._agent.config.hardware.gpus:
            self._task = asyncio.create_task(self._look_on(), name="owner-use")

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look_on(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("owner's use")  # the next look may do better
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Pause and resume what has to be."""
        agent, now = self._agent, self._agent.clock.monotonic()
        before, foreign = self.gpus, agent.machine.foreign()
        for index in foreign:
            self._seen[index] = now
        used = self.gpus
        self._tell(used - before, before - used, foreign)
        for job_id, run in list(agent.dispatcher.runs.items()):
            place = agent.slots.place(job_id)
            wanted = bool(place and used.intersection(place.gpus))
            if wanted and not run.frozen:
                await self._freeze(run, now)
            elif run.frozen and not wanted:
                await self._thaw(run)
        for job_id in set(self._frozen_at) - set(agent.dispatcher.runs):
            del self._frozen_at[job_id]
        self._end_late(now)

    def _tell(self, taken: frozenset[int], free: frozenset[int], foreign: dict[int, str]) -> None:
        for index in sorted(taken):
            text = f"GPU {index} is used by {foreign.get(index, 'somebody else')}; its job pauses."
            self._agent.notices.tell(text, "warning")
        for index in sorted(free):
            self._agent.notices.tell(f"GPU {index} is free again.", "good")
        if taken or free:
            self._agent.market.refresh()
        if free:
            self._agent.dispatcher.schedule()

    async def _freeze(self, run: JobRun, now: float) -> None:
        limit = self._agent.config.pause_seconds
        try:
            async with asyncio.timeout(_FREEZE_SECONDS):
                if not await run.freeze():
                    return  # it is not up yet, or it ends
        except (ComputeSwarmError, TimeoutError) as error:
            why = error.detail if isinstance(error, ComputeSwarmError) else "it does not stop"
            run.end(_order(f"The owner uses the GPU, and the job can't pause: {why}"))
            return
        self._frozen_at[run.job_id] = now
        self._agent.desk.say(
            run.job_id,
            "Paused while the owner uses the GPU; this time costs nothing. After "
            f"{format_duration(limit)} the job would end and all that was paid go back.",
            paused=True,
        )

    async def _thaw(self, run: JobRun) -> None:
        try:
            async with asyncio.timeout(_FREEZE_SECONDS):
                await run.thaw()
        except (ComputeSwarmError, TimeoutError):
            return  # it has ended, or the next look tries again, until it stands still too long
        self._frozen_at.pop(run.job_id, None)
        self._agent.desk.say(run.job_id, "The GPU is free again; the job goes on.")

    def _end_late(self, now: float) -> None:
        for job_id, since in list(self._frozen_at.items()):
            if now - since < self._agent.config.pause_seconds:
                continue
            run = self._agent.dispatcher.runs.get(job_id)
            del self._frozen_at[job_id]
            if run is not None:
                limit = format_duration(self._agent.config.pause_seconds)
                run.end(_order(f"The owner used the GPU for more than {limit}"))


def _order(why: str) -> Order:
    return Order(JobState.SELLER_LOST, f"{why.rstrip('.')}; everything paid goes back.", free=True)
