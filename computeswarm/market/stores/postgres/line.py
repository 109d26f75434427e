"""Connections that are made when needed, and again when they were lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from computeswarm.market.stores.postgres.errors import (
    ANSWERS,
    AWAY,
    LOST,
    Unsure,
    meaning,
    unavailable,
)

CONNECT_SECONDS = 4.0
_PAUSE_SECONDS = 0.5
_CLOSE_SECONDS = 2.0
_SERVER_SETTINGS = {
    "application_name": "computeswarm market",
    "statement_timeout": "15s",
    # above what an instance may hold locks that was stopped in the middle of a transaction
    "lock_timeout": "8s",
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30s",
    "jit": "off",
}
T = TypeVar("T")
Connection = Any
Work = Callable[[Connection], Awaitable[T]]


class Health:
    """Whether the server answers, for all lines to it. Times in seconds."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._retry_at = 0.0

    def check(self) -> None:
        """Refuse at once what would only wait for a server that was just found away.

        Raises:
            Unavailable: it was, less than half a second ago.
        """
        if time.monotonic() < self._retry_at:
            raise unavailable("it was away a moment ago")

    def lost(self) -> None:
        """It did not answer."""
        self._retry_at = time.monotonic() + _PAUSE_SECONDS
        if self.since is None:
            self.since = time.time()

    def well(self) -> None:
        """It answered."""
        self.since = None


class Line:
    """One connection, used by one at a time."""

    def __init__(self, url: str, health: Health) -> None:
        self._url = url
        self._health = health
        self._lock = asyncio.Lock()
        self._connection: Connection = None

    @property
    def busy(self) -> bool:
        """Whether somebody uses it."""
        return self._lock.locked()

    async def use(self, work: Work[T], *, seconds: float) -> T:
        """Do something with the connection, within a time that includes waiting for it.

        Where a connection kept from before turns out to be lost, it is done again on a new one.

        Raises:
            StorageFull, Unavailable: the server's or the line's trouble. ``asyncpg`` errors that
                are about the statement come through.
        """
        self._health.check()
        try:
            async with asyncio.timeout(seconds), self._lock:
                kept = self._connection is not None
                try:
                    result = await self._attempt(work)
                except LOST:
                    if not kept:
                        raise
                    result = await self._attempt(work)
        except (Unsure, asyncpg.PostgresError, *LOST) as error:
            if isinstance(error, (Unsure, *AWAY)) and not isinstance(error, ANSWERS):
                self._health.lost()
            meant = meaning(error)
            if meant is None:
                raise
            raise meant from None
        self._health.well()
        return result

    async def close(self) -> None:
        """Let go of it."""
        connection, self._connection = self._connection, None
        if connection is not None and self._health.since is not None:
            connection.terminate()  # nobody there to say goodbye to
        elif connection is not None:
            with suppress(*LOST, asyncpg.PostgresError):
                await connection.close(timeout=_CLOSE_SECONDS)

    async def _attempt(self, work: Work[T]) -> T:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url)
        try:
            return await work(self._connection)
        except asyncpg.PostgresError as error:
            if isinstance(error, LOST):
                self._drop()
            raise
        except BaseException:
            self._drop()  # nobody knows what is still going on there
            raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


class Lines:
    """A few lines for reading; whoever waits gets the first that is free."""

    def __init__(self, url: str, health: Health, count: int) -> None:
        self._all = [Line(url, health) for _ in range(count)]
        self._next = 0

    async def use(self, work: Work[T], *, seconds: float) -> T:
        """As ``Line.use``; a caller who is cancelled meanwhile takes no connection with him."""
        free = next((line for line in self._all if not line.busy), None)
        if free is None:
            self._next = (self._next + 1) % len(self._all)
            free = self._all[self._next]
        task = asyncio.ensure_future(free.use(work, seconds=seconds))
        task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Let go of all."""
        await asyncio.gather(*(line.close() for line in self._all))


async def connect(url: str) -> Connection:
    """A new connection; every wait on it ends, on either side."""
    return await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings=_SERVER_SETTINGS)


async def clock_ahead(connection: Connection) -> float:
    """See ``Store.clock_ahead``; right to half the time of a round trip."""
    asked_at = time.time()
    theirs = await connection.fetchval("SELECT extract(epoch FROM clock_timestamp())::float8")
    return (asked_at + time.time()) / 2 - float(theirs)


async def transact(connection: Connection, work: Work[T]) -> T:
    """Do it in a transaction.

    Raises:
        Unsure: the connection was lost in the commit.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        result = await work(connection)
    except Exception as error:
        if not isinstance(error, LOST):
            await transaction.rollback()
        raise
    try:
        await transaction.commit()
    except LOST as error:
        raise Unsure from error
    return result


def place(url: str) -> str:
    """Host and database of a URL, without user and password."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2] or "the local socket"
    return f"{host}{parts.path}"


def _seen(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()  # its caller may have gone
