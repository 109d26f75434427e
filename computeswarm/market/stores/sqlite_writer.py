"""One thread that writes to SQLite and commits whatever has gathered, in one go."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

from computeswarm.core.errors import ComputeSwarmError, Unprocessable
from computeswarm.market.stores.sqlite_file import meaning

_BATCH = 2_000
T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]


@dataclass(slots=True)
class _Write:
    work: Work
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    settled: Callable[[bool], None] | None
    result: Any = None
    error: ComputeSwarmError | None = field(default=None)


class Writer:
    """Runs works in the order they came; each is durable before its caller goes on."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="market-store", daemon=True)
        self._thread.start()

    async def write(
        self, work: Callable[[sqlite3.Connection], T], settled: Callable[[bool], None] | None = None
    ) -> T:
        """Do it in a transaction, together with others'.

        A ``work`` that raises a ComputeSwarmError must do so before it changed anything. It may be
        run again where the batch it was in failed. ``settled`` is told in the writer's thread,
        after each run, whether that is on the disk now.

        Raises:
            StorageFull, Unavailable: nothing was written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._queue.put(_Write(work, loop, future, settled))
        return await future

    async def close(self) -> None:
        """Finish what is waiting."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._db.close()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            last = False
            while len(batch) < _BATCH and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    last = True
                    break
                batch.append(following)
            self._commit(batch)
            _tell(batch)
            if last:
                return

    def _commit(self, batch: list[_Write]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for write in batch:
                write.error = None
                try:
                    write.result = write.work(self._db)
                except ComputeSwarmError as error:
                    write.error = error
            self._db.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):  # a failed BEGIN has nothing to undo
                self._db.execute("ROLLBACK")
            _settle(batch, good=False)
            if len(batch) > 1 and not isinstance(error, sqlite3.OperationalError):
                # one of them can't be stored: it must not take the others with it
                for write in batch:
                    self._commit([write])
            else:
                for write in batch:
                    write.error = _refusal(error)
        else:
            _settle(batch, good=True)


def _refusal(error: Exception) -> ComputeSwarmError:
    if isinstance(error, sqlite3.Error):
        return meaning(error)
    return Unprocessable(f"The market can't store this: {error}.")


def _settle(batch: list[_Write], *, good: bool) -> None:
    for write in batch:
        if write.settled is not None:
            write.settled(good)


def _tell(batch: list[_Write]) -> None:
    loops = {id(write.loop): write.loop for write in batch}
    for key, loop in loops.items():
        mine = [write for write in batch if id(write.loop) == key]
        with suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_answer, mine)


def _answer(batch: list[_Write]) -> None:
    for write in batch:
        if write.future.done():
            continue  # its caller was cancelled meanwhile
        if write.error is None:
            write.future.set_result(write.result)
        else:
            write.future.set_exception(write.error)
