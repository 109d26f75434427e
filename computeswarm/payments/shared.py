"""One piece of work for all who want the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class Shared(Generic[_T]):
    """Runs each work once per name, as long as it is under way. A caller that goes away leaves it
    to the others."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[_T]] = {}

    async def get(self, name: str, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """What the work of that name returns, or raises."""
        task = self._running.get(name)
        if task is None:
            task = self._running[name] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._ended(name, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End it all."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, name: str, task: asyncio.Task[_T]) -> None:
        del self._running[name]
        if not task.cancelled():
            task.exception()  # whoever waits gets it; nobody may be left who does
