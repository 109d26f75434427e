"""Workers that only fetch and post. Each keeps trying by itself and says when it can't."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from textual.message import Message

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.backend import BuyerBackend
from computeswarm.tui.messages import (
    FeedFailed,
    FollowFailed,
    JobEnded,
    Logged,
    MarketAlive,
    Metered,
)
from computeswarm.tui.views import JobItem, LogLine, Meter

Post = Callable[[Message], object]

LONGEST_WAIT = 10.0
BATCH_SECONDS = 0.1
QUIET_SECONDS = 15.0
"""Even where news come by themselves, times and shares on the screen get older."""
AGAIN_SECONDS = 60.0


class Poll:
    """Fetches every ``period`` seconds and posts what came; waits longer after each failure.

    While somebody tells when there are news (``followed``), it fetches when there are, at most once
    a period, and every ``QUIET_SECONDS``.
    """

    def __init__(
        self, name: str, fetch: Callable[[], Awaitable[Message]], post: Post, period: float
    ) -> None:
        self.name = name
        self._fetch = fetch
        self._post = post
        self.period = period
        """Seconds; may be changed while it runs."""
        self._kicked = asyncio.Event()
        self._news = asyncio.Event()
        self._followed = False

    @property
    def followed(self) -> bool:
        """Whether somebody tells when there are news."""
        return self._followed

    @followed.setter
    def followed(self, value: bool) -> None:
        if value is not self._followed:
            self._followed = value
            self._news.set()  # what happened in between, nobody told

    def kick(self) -> None:
        """Fetch now rather than at the next turn."""
        self._kicked.set()
        self._news.set()

    def tell(self) -> None:
        """There are news: fetch at the next turn."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            self._kicked.clear()
            self._news.clear()
            try:
                message: Message = await self._fetch()
                failures = 0
            except ComputeSwarmError as error:
                message = FeedFailed(self.name, error)
                failures += 1
            self._post(message)
            wait = min(LONGEST_WAIT, self.period * 2**failures) if failures else self.period
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._kicked.wait()
            if self._followed and not failures:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, QUIET_SECONDS - wait)):
                        await self._news.wait()


async def watch(backend: BuyerBackend, query: str, poll: Poll, post: Post) -> None:
    """Have ``poll`` fetch when the market says that something among these nodes is another.

    Where it can't say so, the poll goes on by the clock, and it is asked again after a while.
    """
    while True:
        with suppress(ComputeSwarmError):
            async for news in backend.watch(query):
                poll.followed = True
                if news:
                    poll.tell()
                else:
                    post(MarketAlive())
        poll.followed = False
        await asyncio.sleep(AGAIN_SECONDS)


class Batcher:
    """Gathers lines and hands them on at most ten times a second, the last ones too."""

    def __init__(self, emit: Callable[[list[LogLine]], object]) -> None:
        self._emit = emit
        self._lines: list[LogLine] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, line: LogLine) -> None:
        self._lines.append(line)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(BATCH_SECONDS, self.flush)

    def flush(self) -> None:
        """Hand on what is there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            self._emit(lines)


async def follow(backend: BuyerBackend, job_id: str, post: Post) -> None:
    """One job from its first line to its end; while this runs, its next slices get paid."""
    batch = Batcher(lambda lines: post(Logged(job_id, lines)))
    try:
        async for item in backend.follow(job_id):
            match item:
                case LogLine():
                    batch.add(item)
                case Meter():
                    post(Metered(job_id, item))
                case JobItem():
                    batch.flush()
                    post(JobEnded(item))
    except ComputeSwarmError as error:
        batch.flush()
        post(FollowFailed(job_id, error))
    finally:
        batch.flush()
