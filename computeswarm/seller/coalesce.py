"""Fewer, fuller chunks of output: an unbuffered ``print`` writes its text and its newline apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from computeswarm.seller.executors.base import Stream

PATIENCE_SECONDS = 0.002
_ENOUGH_BYTES = 32 * 1024

Chunk = tuple[Stream, bytes]


async def coalesced(source: AsyncIterator[Chunk]) -> AsyncGenerator[Chunk, None]:
    """The same bytes in the same order. A whole line is never held back; the beginning of one
    waits 2 ms for its rest."""
    upcoming = asyncio.ensure_future(_next(source))
    held: Chunk | None = None
    try:
        while True:
            if held is not None:
                if not _complete(held[1]):
                    await asyncio.wait({upcoming}, timeout=PATIENCE_SECONDS)
                if not upcoming.done() or not _joins(held, upcoming.result()):
                    yield held
                    held = None
            chunk = await upcoming
            if chunk is None:
                return
            held = chunk if held is None else (held[0], held[1] + chunk[1])
            upcoming = asyncio.ensure_future(_next(source))
    finally:
        upcoming.cancel()


async def _next(source: AsyncIterator[Chunk]) -> Chunk | None:
    return await anext(source, None)


def _complete(data: bytes) -> bool:
    return data.endswith(b"\n") or len(data) >= _ENOUGH_BYTES


def _joins(held: Chunk, following: Chunk | None) -> bool:
    return following is not None and following[0] == held[0] and not _complete(held[1])
