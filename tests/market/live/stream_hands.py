"""A stream over real HTTP, read until what is waited for has come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from live_rig import blocks
from market_fixtures import MarketClient

from computeswarm.core.changes import Change

LIMIT = 30.0
"""Seconds for whatever should take a moment."""


@dataclass
class Stream:
    """One open stream; ``cursor`` is where it would go on."""

    response: aiohttp.ClientResponse
    cursor: str = ""
    changes: list[Change] = field(default_factory=list)
    ended: bool = False
    _rest: bytes = b""

    async def until(self, enough: Callable[[list[Change]], bool]) -> list[Change]:
        """Read on until what has come in all is enough, or fail after ``LIMIT``."""
        async with asyncio.timeout(LIMIT):
            while not enough(self.changes):
                assert await self.more(), f"it ended with {self.changes}"
        return self.changes

    async def kinds(self, *wanted: str) -> list[Change]:
        """Read on until the last ones that came are of these types (statistics left out)."""
        return await self.until(
            lambda all_: [c.type for c in all_ if c.type != "stats"][-len(wanted) :] == [*wanted]
        )

    async def more(self) -> bool:
        """Take what comes next; False at the end."""
        data = await self.response.content.readany()
        if not data:
            self.ended = True
            return False
        whole, found, self._rest = (self._rest + data).rpartition(b"\n\n")
        for block in whole.split(b"\n\n") if found else ():
            lines = [line for line in block.split(b"\n") if not line.startswith((b":", b"retry"))]
            if lines:
                for change, cursor in blocks(b"\n".join(lines) + b"\n\n"):
                    self.cursor = cursor or self.cursor
                    if change is not None:
                        self.changes.append(change)
        return True

    async def end(self) -> None:
        async with asyncio.timeout(LIMIT):
            while await self.more():
                pass


@asynccontextmanager
async def stream(
    client: MarketClient, cursor: str = "", *, headers: dict[str, str] | None = None, **params: Any
) -> AsyncIterator[Stream]:
    """``GET /api/v1/changes``, with its first cursor."""
    sent = {"Last-Event-ID": cursor, **(headers or {})} if cursor else headers
    url = f"{client.url}/api/v1/changes"
    async with client.session.get(url, params=params, headers=sent) as response:
        assert response.status == 200, await response.read()
        made = Stream(response)
        async with asyncio.timeout(LIMIT):
            while not made.cursor:
                await made.more()
        yield made
