"""A fleet's line to a market: real sockets, everything timed, patience where it is asked for."""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import NamedTuple, Self

import aiohttp

from benchmarks.fleet.report import Report

_CONNECTIONS = 100
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_LONGEST_WAIT = 30.0


class Reply(NamedTuple):
    """``status`` is 0 where nobody answered; ``wait`` is what the answer asked for, in seconds."""

    status: int
    body: bytes
    wait: float = 0.0

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


class Line:
    """Calls one market."""

    def __init__(self, url: str, report: Report) -> None:
        self.url = url.rstrip("/")
        self.report = report
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        await self._session.close()

    async def call(
        self,
        kind: str,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> Reply:
        """One request, counted under ``kind``."""
        assert self._session is not None
        started = perf_counter()
        try:
            async with self._session.request(
                method, self.url + path, data=body or None, headers=headers, params=params
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.report.took(kind, perf_counter() - started, type(error).__name__)
            return Reply(0, b"", 1.0)
        good = answer.status < 400
        self.report.took(kind, perf_counter() - started, "" if good else str(answer.status))
        return Reply(answer.status, content, _wait(answer.headers.get("Retry-After", "")))

    async def patient(self, kind: str, method: str, path: str, body: bytes) -> Reply:
        """The same until it is taken or refused for good: 429, 503 and silence are waited out."""
        while True:
            reply = await self.call(kind, method, path, body)
            if reply.status not in (0, 429, 503):
                return reply
            await asyncio.sleep(reply.wait or 1.0)


def _wait(text: str) -> float:
    return min(float(text), _LONGEST_WAIT) if text.isascii() and text.isdigit() else 0.0
