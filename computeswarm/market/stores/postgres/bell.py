"""LISTEN on a connection of its own, made again when it is lost. It wakes; it carries nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import asyncpg

from computeswarm.market.stores.postgres.errors import LOST
from computeswarm.market.stores.postgres.line import CONNECT_SECONDS, Connection, Health, connect
from computeswarm.market.stores.postgres.log import CHANNEL

_PING_SECONDS = 5.0
_AGAIN_SECONDS = 1.0


class Bell:
    """Rung by every instance's commits, ours too."""

    def __init__(self, url: str, health: Health) -> None:
        self._url = url
        self._health = health
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hush(self) -> None:
        """Somebody is about to read the log: what rang before this is no news any more."""
        self._rung.clear()

    async def wait(self, seconds: float) -> None:
        """Until it rings, or has rung since the log was last read; at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)

    def _ring(self, *_: Any) -> None:
        self._rung.set()

    async def _listen(self) -> None:
        while True:
            lost = asyncio.Event()
            connection: Connection = None
            try:
                connection = await connect(self._url)
                connection.add_termination_listener(lambda _, lost=lost: lost.set())
                await connection.add_listener(CHANNEL, self._ring)
            except (*LOST, asyncpg.PostgresError):
                self._health.lost()
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self._health.well()
                self._ring()  # what was committed meanwhile rang at nobody's
                await _hold(connection, lost)
            finally:
                if connection is not None:
                    connection.terminate()


async def _hold(connection: Connection, lost: asyncio.Event) -> None:
    """Return when the connection is no good any more, were it that nobody says so."""
    while not lost.is_set():
        try:
            await asyncio.wait_for(lost.wait(), _PING_SECONDS)
        except TimeoutError:
            try:
                await connection.fetchval("SELECT 1", timeout=CONNECT_SECONDS)
            except (*LOST, asyncpg.PostgresError):
                return
