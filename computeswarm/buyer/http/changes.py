"""The market's stream of changes, as a buyer follows it: connected again by itself, with its place.

What it says of a node counts no more than what a search says: a record that its wallet didn't sign
shows nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from pydantic import ValidationError

from computeswarm.buyer.http.base import Peer
from computeswarm.core.changes import (
    CHANGE,
    EVENT_STREAM,
    KEEP_ALIVE_SECONDS,
    MAX_CURSOR,
    Change,
    NodeGone,
    NodeListed,
    Topic,
)
from computeswarm.core.errors import ComputeSwarmError, TooManyRequests, Unavailable
from computeswarm.core.nodes import ComputeNode
from computeswarm.core.sessions import PERMIT_HEADER

MAX_EVENT = 512 * 1024
_SILENT_SECONDS = 3 * KEEP_ALIVE_SECONDS
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 30.0
_LONGEST_WAIT = 120.0


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream is there. Where it doesn't go on from a place, all that is shown is loaded now,
    after this: what changes from here on will come."""

    resumed: bool


@dataclass(frozen=True, slots=True)
class Broken:
    """It is not; another try comes by itself after ``seconds``."""

    error: ComputeSwarmError
    seconds: float


@dataclass(frozen=True, slots=True)
class _Event:
    data: bytes
    cursor: str | None


async def follow_changes(
    peer: Peer,
    *,
    check: Callable[[ComputeNode], bool],
    topics: frozenset[Topic],
    query: str = "",
    permit: Callable[[], str] | None = None,
    spread: Callable[[float, float], float] = random.uniform,
) -> AsyncGenerator[Change | Opened | Broken, None]:
    """Changes as they come, until closed.

    Args:
        check: whether a node's wallet has signed its record; one that fails is out of view.
        query: only nodes that a search for it finds.
        permit: makes the permit of the wallet whose jobs are followed, anew for each connection.

    Raises:
        InvalidQuery, Unauthorized, NotFound: the market won't, and asking again helps nothing.
    """
    cursor, failures = "", 0
    params = {"topics": ",".join(sorted(topics)), **({"q": query} if query else {})}
    while True:
        error: ComputeSwarmError = Unavailable("The market ended the stream.")
        headers = {"Accept": EVENT_STREAM, **({"Last-Event-ID": cursor} if cursor else {})}
        if permit is not None:
            headers[PERMIT_HEADER] = permit()
        try:
            async with peer.stream(
                "/api/v1/changes", params=params, headers=headers, silent_seconds=_SILENT_SECONDS
            ) as chunks:
                yield Opened(resumed=bool(cursor))
                async with aclosing(_events(chunks)) as events:
                    async for event in events:
                        failures = 0
                        change = _read(event.data, check) if event.data else None
                        if change is not None:
                            yield change
                        if event.cursor is not None:
                            cursor = event.cursor
        except (Unavailable, TooManyRequests) as failure:
            error = failure
        pause = spread(0.5, 1.0) * min(_LAST_PAUSE, _FIRST_PAUSE * 2**failures)
        pause = max(pause, _asked_pause(error))
        failures = min(failures + 1, 10)
        yield Broken(error, pause)
        await asyncio.sleep(pause)


def _asked_pause(error: ComputeSwarmError) -> float:
    asked = error.extra.get("retry_after")
    return min(float(asked), _LONGEST_WAIT) if isinstance(asked, (int, float)) else 0.0


async def _events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[_Event, None]:
    """Server-sent events by their blocks; one without data may still move the cursor.

    Raises:
        Unavailable: a block of more than ``MAX_EVENT`` bytes.
    """
    rest = b""
    async for chunk in chunks:
        *blocks, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        if len(rest) > MAX_EVENT:
            raise Unavailable("The market's stream can't be read; an event is too large.")
        for block in blocks:
            data, cursor = [], None
            for line in block.split(b"\n"):
                name, _, value = line.partition(b":")
                if name == b"data":
                    data.append(value.removeprefix(b" "))
                elif name == b"id" and len(value) <= MAX_CURSOR + 1:
                    cursor = value.decode("ascii", "ignore").strip()
            yield _Event(b"\n".join(data), cursor)


def _read(data: bytes, check: Callable[[ComputeNode], bool]) -> Change | None:
    """The change, or None for one of a kind that we don't know."""
    try:
        change = CHANGE.validate_json(data)
    except ValidationError:
        return None
    if isinstance(change, NodeListed) and not check(change.node):
        return NodeGone(type="hidden", node_id=change.node.node_id)
    return change
