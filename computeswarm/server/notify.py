"""Telling systemd how a service stands, by its notification protocol (sd_notify(3)).

Nothing is said, and nothing needed, where no service manager asked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager


class ServiceManager:
    """Whoever started us and wants to know: the socket and the watchdog of ``NOTIFY_SOCKET``."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # a leading @ stands for the abstract namespace
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_seconds = _watchdog(environ)

    def ready(self) -> None:
        """The service is up (again, after ``reloading``)."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """Settings are being read anew; ``ready`` follows."""
        # the clock that systemd compares with its own
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """The end has begun, and may take as long as jobs are allowed to finish."""
        self._tell("STOPPING=1")

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Within it the watchdog is fed: an event loop that hangs gets the service restarted."""
        if not self._watchdog_seconds:
            yield
            return
        task = asyncio.create_task(self._feed(self._watchdog_seconds / 2), name="watchdog")
        try:
            yield
        finally:
            task.cancel()

    async def _feed(self, seconds: float) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(seconds)

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        # a manager that is gone or slow must not harm the service
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)
            line.sendto(message.encode(), self._address)


def _watchdog(environ: Mapping[str, str]) -> float:
    """Seconds within which systemd wants to hear of us; 0 for never."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    text = environ.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isdecimal() else 0.0
