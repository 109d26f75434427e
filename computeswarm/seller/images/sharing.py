"""Work that several jobs wait for is done once, and goes on while one of them still waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Tell = Callable[[str], None]
T = TypeVar("T")


class _Work(Generic[T]):
    def __init__(self) -> None:
        self.listeners: list[Tell] = []
        self.last = ""
        self.task: asyncio.Task[T] | None = None

    def tell(self, text: str) -> None:
        self.last = text
        for listener in self.listeners:
            listener(text)


class Shared(Generic[T]):
    """Keeps what is being done, by key."""

    def __init__(self) -> None:
        self._going: dict[str, _Work[T]] = {}

    async def do(self, key: str, work: Callable[[Tell], Coroutine[Any, Any, T]], tell: Tell) -> T:
        """What ``work`` gives, which is begun unless somebody waits for the same already.

        Whoever is cancelled leaves the others alone; when the last one is, so is the work.

        Args:
            tell: told how it goes; who comes late is told the last word first.
        """
        going = self._going.get(key)
        if going is None:
            going = self._going[key] = _Work()
            going.task = asyncio.create_task(work(going.tell), name=f"image-{key[:60]}")
        elif going.last:
            tell(going.last)
        assert going.task is not None
        going.listeners.append(tell)
        try:
            return await asyncio.shield(going.task)
        finally:
            going.listeners.remove(tell)
            if self._going.get(key) is going and (going.task.done() or not going.listeners):
                del self._going[key]  # who comes now begins anew
            if not going.listeners and not going.task.done():
                going.task.cancel()
                await asyncio.gather(going.task, return_exceptions=True)
