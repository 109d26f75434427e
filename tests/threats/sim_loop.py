"""Simulated time and simulated processes: one loop, where seconds cost nothing and ``kill -9`` is
a call.

A process is a context: whatever tasks and database connections are made in it belong to it. When
it is killed, its connections are closed (what was not committed is rolled back), its tasks are
cancelled, and whatever they still try in their ``finally`` blocks finds neither disk nor network.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = 1_800_000_000.0
PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class _Jump(selectors.SelectSelector):
    """Waits for nothing: time jumps to the next timer."""

    loop: SimLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits, and nothing will ever happen")
            self.loop.seconds += max(0.0, timeout)
        return ready


class SimLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is a number."""

    def __init__(self) -> None:
        self.seconds = 1_000.0
        selector = _Jump()
        selector.loop = self
        super().__init__(selector)
        self.set_task_factory(_task)

    def time(self) -> float:
        return self.seconds

    def wall(self) -> float:
        """Unix seconds."""
        return EPOCH + self.seconds

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        """At once, in place: threads would bring real time in."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


def _task(loop: Any, coro: Any, context: contextvars.Context | None = None) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context)
    process = (context or contextvars.copy_context()).get(PROCESS)
    if process is not None:
        process.adopt(task)
    return task


class Process:
    """One simulated process. ``skew`` seconds are what its wall clock is off."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.alive = True
        self.skew = 0.0
        self.fuse: int | None = None
        """So many inputs and outputs from now it dies."""
        self.loop = loop
        self.context = contextvars.copy_context()
        self.context.run(PROCESS.set, self)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._files: list[SimConnection] = []

    def now(self) -> float:
        """The wall clock as this process sees it."""
        return self.loop.wall() + self.skew

    def monotonic(self) -> float:
        """The monotonic clock."""
        return self.loop.seconds

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """A task of ours."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def opened(self, file: SimConnection) -> None:
        """A database of ours."""
        self._files.append(file)

    def io(self) -> None:
        """Something is about to leave this process, or just came in: the place to die."""
        if not self.alive:
            raise asyncio.CancelledError
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.kill()
                raise asyncio.CancelledError

    def kill(self) -> None:
        """``kill -9``."""
        self.alive = False
        for file in self._files:
            file.close()
        for task in list(self._tasks):
            task.cancel()

    def run(self, steps: Coroutine[Any, Any, T], *, seconds: float = 900.0) -> T | None:
        """Run in this process to the end; None where it was killed meanwhile."""

        async def bounded() -> T:
            async with asyncio.timeout(seconds):
                return await steps

        async def in_context() -> T:
            return await self.loop.create_task(bounded(), context=self.context)

        try:
            return self.loop.run_until_complete(in_context())
        except (Exception, asyncio.CancelledError):
            if self.alive:
                raise
            return None  # what a dead process met is nobody's

    def tidy(self) -> None:
        """After a kill: nothing of it moves any more, however often a task takes no notice."""
        for _ in range(100):
            if not self._tasks:
                return
            for task in list(self._tasks):
                task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0.1))
        raise AssertionError(f"tasks outlive their process: {self._tasks}")


class SimConnection(sqlite3.Connection):
    """A database that dies with its process, before or after a commit."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.process = PROCESS.get()
        if self.process is not None:
            self.process.opened(self)

    def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:  # type: ignore[override]
        process = self.process
        if process is not None and sql == "COMMIT":
            process.io()
            done = super().execute(sql, *args)
            process.io()
            return done
        return super().execute(sql, *args)


def connect_in_process(real: Callable[..., Any]) -> Callable[..., Any]:
    """``sqlite3.connect`` that makes such connections."""

    def connect(*args: Any, **options: Any) -> Any:
        options.setdefault("factory", SimConnection)
        return real(*args, **options)

    return connect
