"""One reader of the stream, and the queue that a slow one can't make long."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from computeswarm.core.changes import Reset, Topic
from computeswarm.core.query import Query

MAX_FRAMES = 64
"""A quarter of a minute, where each moment has its frame."""
MAX_BYTES = 16 * 2**20
MAX_HELD = 256 * 2**20
"""Bytes that wait for all readers of a feed together, as a thousand slow ones may come at once."""

SLOW = "You read more slowly than the market changes."


@dataclass(frozen=True, slots=True)
class Interest:
    """What a reader wants to be told of."""

    topics: frozenset[Topic]
    query: Query | None = None
    """Only nodes that it finds; None for all of them, offline ones too."""
    wallet: str = ""
    """Whose jobs, in lower case; empty for nobody's."""


def event(name: str, document: bytes) -> bytes:
    """One server-sent event; JSON has no line breaks that would end it early."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), document)


def mark(cursor: str) -> bytes:
    """A block that only moves the reader's cursor: what has no data is no event to it."""
    return b"id: %b\n\n" % cursor.encode()


def reset(reason: str) -> bytes:
    return event("reset", Reset(reason=reason).model_dump_json().encode())


@dataclass(slots=True)
class Held:
    """What waits for all readers of a feed together."""

    bytes: int = 0


class Subscription:
    """Frames for one reader. They end when the market closes or the reader's time is over."""

    def __init__(self, interest: Interest, address: str, cursor: str, held: Held) -> None:
        self.interest = interest
        self.address = address
        self.cursor = cursor
        """All that happened before it was put here."""
        self.resets = 0
        self._opening: AsyncIterator[bytes] | None = None
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._held = held
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    def put(self, frame: bytes) -> None:
        """Add a frame, or where too much waits already put a ``reset`` in place of all of it."""
        if self._closed:
            return
        full = self._bytes > 0 and self._held.bytes + len(frame) > MAX_HELD
        if full or len(self._frames) >= MAX_FRAMES or self._bytes + len(frame) > MAX_BYTES:
            self.reset(SLOW)
            return
        self._add(frame)

    def reset(self, reason: str) -> None:
        """Drop what waits and tell the reader to load anew."""
        self.resets += 1
        self._drop()
        self._add(reset(reason) + mark(self.cursor))

    def begin(self, opening: AsyncIterator[bytes]) -> None:
        """What a reader is told before all else. It is made as it is read, since it may be longer
        than what may wait."""
        self._opening = opening
        self._wake()

    def close(self) -> None:
        """End the stream once what waits was read."""
        self._closed = True
        self._wake()

    def end(self) -> None:
        """The reader is gone: let go of what waits, and take no more."""
        self._closed = True
        self._drop()

    async def next(self, seconds: float) -> bytes | None:
        """The next frame; the cursor alone after so many seconds without; None at the end."""
        if (opening := self._opening) is not None:
            frame = await anext(opening, None)
            if frame is not None:
                return frame
            if self._opening is opening:
                self._opening = None
        if not self._frames and not self._closed:
            loop = asyncio.get_running_loop()
            waiter = self._waiter = loop.create_future()
            timer = loop.call_later(seconds, self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._frames:
            frame = self._frames.popleft()
            self._count(-len(frame))
            return frame
        return None if self._closed else b": still here\n" + mark(self.cursor)

    def _add(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._count(len(frame))
        self._wake()

    def _drop(self) -> None:
        self._opening = None
        self._frames.clear()
        self._count(-self._bytes)

    def _count(self, more: int) -> None:
        self._bytes += more
        self._held.bytes += more

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
