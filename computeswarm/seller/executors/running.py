"""A job that is a child process of the agent: its output, its end, its signals."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM

from computeswarm.core.errors import ExecutorError
from computeswarm.seller.executors.base import Exit, Stream

_CHUNK = 65_536


@dataclass(frozen=True)
class Ended:
    """How the child itself ended, as wait4(2) says."""

    status: int
    cpu_seconds: float
    max_memory_bytes: int

    @property
    def code(self) -> int | None:
        return os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else None

    @property
    def signal(self) -> int | None:
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | Path,
    stdin: int = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start a child; return it with the read ends of its stdout and stderr.

    The event loop's own subprocesses are not used: they read ahead without bound until told to
    stop, and their child watcher hides resource usage.

    Raises:
        ExecutorError: the program can't be started.
    """
    out_read, out_write = os.pipe()
    err_read, err_write = os.pipe()
    try:
        process = subprocess.Popen(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=stdin,
            stdout=out_write,
            stderr=err_write,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        os.close(out_read)
        os.close(err_read)
        raise ExecutorError(f"{argv[0]} can't be started: {error.strerror}.") from error
    finally:
        os.close(out_write)
        os.close(err_write)
    os.set_blocking(out_read, False)
    os.set_blocking(err_read, False)
    return process, out_read, err_read


class Kept:
    """How much of a job's output is kept; what comes after it is dropped."""

    def __init__(self, output_bytes: int) -> None:
        self._left = output_bytes
        self.truncated = False

    def of(self, chunk: bytes) -> bytes:
        """The part of the next chunk that is kept."""
        kept = chunk[: self._left]
        self._left -= len(kept)
        self.truncated |= len(kept) < len(chunk)
        return kept


class ChildRunning:
    """A started child; the executor says how to signal its tree and what its end means.

    Args:
        signal_tree: send a signal to all of the job's processes.
        freeze_tree: have all of them stand still, or go on; blocks for milliseconds.
        finish: called once when the child has ended: bury what is left, tell the exit.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stdout: int,
        stderr: int,
        *,
        output_bytes: int,
        signal_tree: Callable[[int], None],
        freeze_tree: Callable[[bool], None],
        finish: Callable[[Ended], Awaitable[Exit]],
    ) -> None:
        self._process = process
        self._streams: dict[int, Stream] = {stdout: "stdout", stderr: "stderr"}
        self._kept = Kept(output_bytes)
        self._signal_tree = signal_tree
        self._freeze_tree = freeze_tree
        self._frozen = False
        self._finish = finish
        self._end = asyncio.create_task(self._wait(), name=f"job-{process.pid}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def truncated(self) -> bool:
        return self._kept.truncated

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        while self._streams:
            for fd in await _readable(self._streams):
                try:
                    chunk = os.read(fd, _CHUNK)
                except BlockingIOError:
                    continue
                name = self._streams[fd]
                if not chunk:
                    os.close(fd)
                    del self._streams[fd]
                    continue
                if kept := self._kept.of(chunk):
                    yield name, kept

    async def wait(self) -> Exit:
        return await asyncio.shield(self._end)

    async def terminate(self, grace: float) -> Exit:
        if not self._end.done():
            self._signal_tree(SIGTERM)
            await self.thaw()
            try:
                return await asyncio.wait_for(self.wait(), grace)
            except TimeoutError:
                pass  # it had its chance
        return await self.kill()

    async def kill(self) -> Exit:
        if not self._end.done():
            self._signal_tree(SIGKILL)
            await self.thaw()
        return await self.wait()

    async def freeze(self) -> None:
        if not self._end.done():
            self._frozen = True
            await asyncio.to_thread(self._freeze_tree, True)

    async def thaw(self) -> None:
        if self._frozen:
            self._frozen = False
            await asyncio.to_thread(self._freeze_tree, False)

    async def _wait(self) -> Exit:
        ended = await _wait_child(self._process.pid)
        self._process.returncode = os.waitstatus_to_exitcode(ended.status)
        return await self._finish(ended)

    def __del__(self) -> None:
        for fd in getattr(self, "_streams", ()):
            os.close(fd)


async def _readable(fds: Mapping[int, Stream]) -> list[int]:
    """Wait until at least one of these can be read."""
    loop = asyncio.get_running_loop()
    ready: list[int] = []
    event = asyncio.Event()

    def note(fd: int) -> None:
        ready.append(fd)
        loop.remove_reader(fd)
        event.set()

    for fd in fds:
        loop.add_reader(fd, note, fd)
    try:
        await event.wait()
    finally:
        for fd in fds:
            loop.remove_reader(fd)
    return ready


async def _wait_child(pid: int) -> Ended:
    if sys.platform == "linux":
        loop = asyncio.get_running_loop()
        fd = os.pidfd_open(pid)
        gone = asyncio.Event()
        loop.add_reader(fd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        _, status, used = os.wait4(pid, 0)  # noqa: ASYNC222 - it has ended
        unit = 1024
    else:
        _, status, used = await asyncio.to_thread(os.wait4, pid, 0)
        unit = 1  # macOS counts bytes
    return Ended(status, used.ru_utime + used.ru_stime, used.ru_maxrss * unit)
