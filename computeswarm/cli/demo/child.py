"""The demo's other process: the terminal app is on the screen while it starts, and it ends with it.

The app's own process imports nothing of a chain, a market or a seller, so its first frame is as
early as without a demo.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

from computeswarm.core.errors import ComputeSwarmError, Unavailable

_PR_SET_PDEATHSIG = 1
_STOP_SECONDS = 15.0
_LINE_LIMIT = 64 * 1024
_POLL_SECONDS = 1.0


class HeadlessChild:
    """``demo --headless`` (or ``seller --headless``) as a child, and the one line it says."""

    def __init__(self, command: str, *flags: str, environ: Mapping[str, str] | None = None) -> None:
        argv = [sys.executable, "-m", "computeswarm", command, "--headless", "--json"]
        self._process = subprocess.Popen(
            [*argv, "--parent", str(os.getpid()), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(environ or {})},
            # a Ctrl+C in the terminal is the app's to handle
            start_new_session=True,
        )
        self._said: dict[str, Any] | None = None

    async def ready(self) -> dict[str, Any]:
        """What it said when it was ready; asked again, the same.

        Raises:
            ComputeSwarmError: it could not start, and why.
        """
        if self._said is None:
            self._said = await asyncio.to_thread(self._read)
        if "error" in self._said:
            raise ComputeSwarmError(str(self._said["error"].get("detail", "")))
        return self._said

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline(_LINE_LIMIT)
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise Unavailable("What should run beside the terminal app has ended; start it again.")
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # asked once it lets running jobs finish, asked twice it hands them back at once
        for ask in (self._process.terminate, self._process.terminate, self._process.kill):
            ask()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
                break
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextlib.asynccontextmanager
async def ending_with(parent: int | None) -> AsyncIterator[None]:
    """Have ourselves terminated once when ``parent`` ends, however it ends. None: nobody."""
    if parent is None:
        yield
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before the kernel was asked to tell
            os.kill(os.getpid(), signal.SIGTERM)
        yield
        return
    task = asyncio.create_task(_watch(parent))
    try:
        yield
    finally:
        task.cancel()


async def _watch(parent: int) -> None:
    """For kernels that don't tell."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody sets an event when a parent dies
        await asyncio.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
