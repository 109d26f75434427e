"""One live container: made and started ahead, given one order, followed to its end."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from computeswarm.core.errors import ExecutorError
from computeswarm.seller.executors import seccomp
from computeswarm.seller.executors.base import Exit, Stream, Usage
from computeswarm.seller.executors.cgroups import group_of
from computeswarm.seller.executors.docker.engine import Engine, quietly, saying
from computeswarm.seller.executors.running import Kept

if TYPE_CHECKING:
    from aiodocker.containers import DockerContainer
    from aiodocker.stream import Stream as AttachedStream

_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_LAST_SIGNAL = 64
_MEASURE_SECONDS = 0.5
_DRAIN_SECONDS = 1.0
"""For the output of a killed job to be read by whoever still follows it."""
_GONE = "Docker's engine ended or lost the job."


class Container:
    """A container whose process 1 waits for its order. ``open`` makes one.

    The attached connection is its life line: when it ends, so does the job.
    """

    def __init__(self, engine: Engine, inner: DockerContainer, line: AttachedStream) -> None:
        self._engine = engine
        self._inner = inner
        self._line = line
        self.pid = 0
        self._process = -1

    @property
    def id(self) -> str:
        """The engine's id."""
        return str(self._inner.id)

    @classmethod
    async def open(cls, engine: Engine, body: Mapping[str, Any]) -> Container:
        """Create a container, attach to it and start it.

        Raises:
            ExecutorError: the engine refuses, and why.
        """
        async with saying("The job's container can't be made"):
            inner = await engine.client.containers.create(dict(body))
            line = inner.attach(stdin=True, stdout=True, stderr=True)
            made = cls(engine, inner, line)
            try:
                await line.__aenter__()
                await inner.start()
                made.pid = int((await inner.show())["State"]["Pid"])
                made._hold()
            except BaseException:
                await asyncio.shield(made.remove())
                raise
        return made

    def _hold(self) -> None:
        """Name process 1 to the kernel too: an engine that is killed keeps a job's stdin open."""
        # the engine's machine may number processes otherwise, or the seller may not be root
        with contextlib.suppress(OSError):
            self._process = os.pidfd_open(self.pid)

    def strike(self) -> None:
        """Kill process 1, and with it everything inside, without the engine."""
        with contextlib.suppress(OSError):
            if self._process >= 0:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    async def lives(self) -> bool:
        """Whether process 1 still waits for its order."""
        try:
            return bool((await self._state()).get("Running"))
        except ExecutorError:
            return False

    async def order(self, argv: Sequence[str], env: Mapping[str, str]) -> None:
        """Tell process 1 what to run.

        Raises:
            ExecutorError: the container has ended.
        """
        rules = base64.b64encode(seccomp.build_filter()).decode()
        text = json.dumps({"argv": list(argv), "env": dict(env), "filter": rules}).encode()
        try:
            await self._line.write_in(b"%d\n%s" % (len(text), text))
        except (OSError, RuntimeError, AssertionError) as error:
            raise ExecutorError(_GONE) from error

    async def chunks(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Output as it comes, with the engine's back-pressure; an engine that dies ends it."""
        import aiohttp

        while True:
            try:
                message = await self._line.read_out()
            except (aiohttp.ClientError, OSError):
                return
            if message is None:
                return
            yield _STREAMS.get(message.stream, "stdout"), message.data

    async def ended(self) -> Exit:
        """Wait for the end.

        Raises:
            ExecutorError: the engine went away.
        """
        async with saying(_GONE.rstrip(".")):
            result = await self._inner.wait()
            state = (await self._inner.show())["State"]
        code = int(result.get("StatusCode", -1))
        oom = bool(state.get("OOMKilled"))
        if 128 < code <= 128 + _LAST_SIGNAL:
            return Exit(None, code - 128, oom)
        return Exit(code, None, oom)

    async def signal(self, number: int) -> None:
        """Send a signal to process 1, which hands SIGTERM on."""
        async with quietly():
            await self._inner.kill(signal=signal.Signals(number).name)

    async def pause(self) -> None:
        """Have all of it stand still.

        Raises:
            ExecutorError: the engine refuses.
        """
        if not (await self._state()).get("Paused"):
            async with saying("The job can't be paused"):
                await self._inner.pause()

    async def unpause(self) -> None:
        """Have it go on."""
        if (await self._state()).get("Paused"):
            async with saying("The job can't go on"):
                await self._inner.unpause()

    async def _state(self) -> dict[str, Any]:
        async with saying("The engine doesn't know the job"):
            return dict((await self._inner.show())["State"])

    async def remove(self) -> None:
        """Kill what is left, and remove it. May be called twice."""
        await self.hang_up()
        self.strike()
        async with quietly():
            await self._inner.delete(force=True, v=True)
        if self._process >= 0:
            os.close(self._process)
            self._process = -1

    async def hang_up(self) -> None:
        """Let go of the life line. The engine calls no container ended whose output it still has
        to hand to somebody, and nobody reads what a killed job has written.
        """
        # the connection may be half made or gone
        with contextlib.suppress(OSError, RuntimeError, AssertionError):
            await self._line.close()


class DockerRunning:
    """A started job, see the protocol ``Running``."""

    def __init__(
        self, container: Container, output_bytes: int, finish: Callable[[], None] = lambda: None
    ) -> None:
        self._container = container
        self._kept = Kept(output_bytes)
        self._finish = finish
        self._usage = Usage()
        self._end = asyncio.create_task(self._wait(), name=f"container-{container.id[:12]}")

    @property
    def pid(self) -> int:
        return self._container.pid

    @property
    def truncated(self) -> bool:
        return self._kept.truncated

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        async for name, chunk in self._container.chunks():
            if kept := self._kept.of(chunk):
                yield name, kept

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    async def terminate(self, grace: float) -> Exit:
        if not self._end.done():
            await self.thaw()
            await self._container.signal(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    return await self.wait()
        return await self.kill()

    async def kill(self) -> Exit:
        if not self._end.done():
            with contextlib.suppress(ExecutorError):
                await self._container.unpause()  # some engines kill nothing that is paused
            # the engine answers only when the container has ended
            killing = asyncio.create_task(self._container.signal(signal.SIGKILL))
            await asyncio.wait({self._end}, timeout=_DRAIN_SECONDS)
            if not self._end.done():
                await self._container.hang_up()
            await killing
        return await self.wait()

    async def freeze(self) -> None:
        if not self._end.done():
            await self._container.pause()

    async def thaw(self) -> None:
        if not self._end.done():
            await self._container.unpause()

    async def _wait(self) -> Exit:
        measuring = asyncio.create_task(self._measure(), name="container-usage")
        try:
            return replace(await self._container.ended(), usage=self._usage)
        except ExecutorError:
            self._container.strike()
            raise
        finally:
            measuring.cancel()
            self._finish()

    async def _measure(self) -> None:
        """The container's groups go with it, so what it used is looked at while it runs."""
        group = group_of(self.pid)
        while group is not None:
            now = group.usage()
            self._usage = Usage(
                max(self._usage.cpu_seconds, now.cpu_seconds),
                max(self._usage.max_memory_bytes, now.max_memory_bytes),
            )
            await asyncio.sleep(_MEASURE_SECONDS)
