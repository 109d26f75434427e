"""A sandbox made ahead for the job that will probably come next, where making one takes time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.jobs import JobSpec
from computeswarm.core.nodes import GPUInfo
from computeswarm.seller.executors.base import Executor, Limits
from computeswarm.seller.images import Image


class ReadyImages(Protocol):
    """Where images come from."""

    async def ensure(self, name: str, tell: Callable[[str], None]) -> Image: ...

    def using(self, name: str) -> AbstractContextManager[None]: ...

    async def look(self) -> None: ...


class Warmth:
    """Guesses that the next job is like the last one; before the first, a plain one of the image
    ``python``."""

    def __init__(self, executor: Executor, images: ReadyImages, cpus: float) -> None:
        plain = JobSpec(command=("python",))
        limits = Limits(cpus, plain.memory_bytes, disk_bytes=plain.disk_bytes)
        self._executor = executor
        self._images = images
        self._next: tuple[str, Limits, tuple[GPUInfo, ...]] = (plain.image, limits, ())
        self._task: asyncio.Task[None] | None = None

    def note(self, image: str, limits: Limits, gpus: tuple[GPUInfo, ...]) -> None:
        """A job of this kind is started."""
        self._next = (image, limits, gpus)

    def prepare(self) -> None:
        """Make one in the background, unless that goes on already."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._make(), name="warm-sandbox")

    async def close(self) -> None:
        """Give up on it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _make(self) -> None:
        name, limits, gpus = self._next
        await self._images.look()
        # a job that can't be started says why itself
        with contextlib.suppress(ComputeSwarmError):
            image = await self._images.ensure(name, lambda _: None)
            await self._executor.expect(image, limits, gpus)
