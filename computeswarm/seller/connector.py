"""The seller's line to the market: registration, heartbeats, and how its jobs stand.

The market is a shop window. Nothing here stops a job: when the market is down the seller goes on,
tries again with growing pauses, and says so to its owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from typing import Any

import httpx

from computeswarm.core.clock import Clock
from computeswarm.core.errors import (
    ComputeSwarmError,
    Conflict,
    MarketUnavailable,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    from_problem,
)
from computeswarm.core.jobs import JobUpdate
from computeswarm.core.market_auth import headers as auth_headers
from computeswarm.core.nodes import Heartbeat, HeartbeatReply, Registration
from computeswarm.core.signing import Signed, parse_json
from computeswarm.core.text import clean_line
from computeswarm.seller.notices import Notices
from computeswarm.seller.owner import MarketLink

_TIMEOUT_SECONDS = 10.0
_REPLY_BYTES = 1024 * 1024
_FIRST_PAUSE, _LAST_PAUSE = 0.5, 60.0
_JITTER = 0.1
_LEAVE_SECONDS = 3.0


class MarketConnector:
    """Keeps one node listed.

    Args:
        record: makes the signed record, with a new number each time.
        pulse: what the next heartbeat says.
    """

    def __init__(
        self,
        url: str,
        node_id: str,
        *,
        record: Callable[[], Signed],
        pulse: Callable[[], Heartbeat],
        clock: Clock,
        notices: Notices,
    ) -> None:
        self._url = url.rstrip("/")
        self._node_id = node_id
        self._record = record
        self._pulse = pulse
        self._clock = clock
        self._notices = notices
        self._http = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False)
        self._session_key = ""
        self._counter = 0
        self._every = 30.0
        self._last_ok: float | None = None
        self._problem = ""
        self._stale = True
        self._wake = asyncio.Event()
        self._tried = asyncio.Event()
        self._updates: dict[str, JobUpdate] = {}
        self._updated = asyncio.Event()
        self._told = asyncio.Event()
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def link(self) -> MarketLink:
        """How things stand."""
        return MarketLink(
            url=self._url,
            connected=bool(self._session_key) and not self._problem,
            last_ok=self._last_ok,
            problem=self._problem,
        )

    def start(self) -> None:
        """Begin to register, to beat and to report."""
        self._tasks = [
            asyncio.create_task(self._beat_loop(), name="market-heartbeat"),
            asyncio.create_task(self._report_loop(), name="market-reports"),
        ]

    async def first_try(self) -> None:
        """Wait until the market took the node, or was found not to."""
        await self._tried.wait()

    def refresh(self, *, record: bool = False) -> None:
        """Send a heartbeat now; with ``record`` register anew, since what we sell has changed."""
        self._stale |= record
        self._wake.set()

    async def settled(self) -> None:
        """Wait until the market has heard all there is to say."""
        while self._updates:
            self._told.clear()
            await self._told.wait()

    def report(self, job_id: str, update: JobUpdate) -> None:
        """Tell the market how a job stands; only the latest state of each is kept for it."""
        self._updates.pop(job_id, None)
        self._updates[job_id] = update
        self._updated.set()

    async def close(self, *, leave: bool = True) -> None:
        """Send what is left to say, take the node off the market, and stop; in a few seconds."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            if leave and self._session_key and not self._problem:
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._send_reports()
                    await self._signed_call("DELETE", f"/api/v1/nodes/{self._node_id}", b"")
        except (ComputeSwarmError, TimeoutError) as error:
            self._notices.tell(f"The market was not told that we leave: {error}", "warning")
        finally:
            await self._http.aclose()

    async def _beat_loop(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            self._wake.clear()
            try:
                if self._stale or not self._session_key:
                    await self._register()
                else:
                    await self._beat()
            except (Unauthorized, NotFound):
                if self._stale or not self._session_key:  # a registration that is refused
                    pause = await self._trouble("The market refuses the registration.", pause)
                self._stale = True
                continue
            except ComputeSwarmError as error:
                pause = await self._trouble(error.detail, pause)
                continue
            pause = _FIRST_PAUSE
            self._well()
            spread = self._every * random.uniform(1 - _JITTER, 1)  # noqa: S311 - spreads the load
            await self._rest(spread)

    async def _register(self) -> None:
        body = self._record().model_dump_json().encode()
        reply = parse_json(Registration, await self._call("POST", "/api/v1/nodes/register", body))
        async with self._lock:
            self._session_key, self._counter = reply.session_key, 0
        self._stale = False
        self._every = float(reply.heartbeat_seconds)
        self._notices.tell(f"Listed at the market {self._url}.", "good")

    async def _beat(self) -> None:
        body = self._pulse().model_dump_json().encode()
        path = f"/api/v1/nodes/{self._node_id}/heartbeat"
        reply = parse_json(HeartbeatReply, await self._signed_call("POST", path, body))
        self._every = float(reply.heartbeat_seconds)

    def _well(self) -> None:
        if self._problem:
            self._notices.tell("The market answers again.", "good")
        self._problem = ""
        self._last_ok = self._clock.now()
        self._tried.set()
        self._updated.set()

    async def _trouble(self, why: str, pause: float) -> float:
        self._problem = clean_line(why, limit=300)
        self._notices.tell(f"{self._problem} Jobs go on; trying again.", "warning")
        self._tried.set()
        await self._rest(pause)
        return min(pause * 2, _LAST_PAUSE)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    async def _report_loop(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            await self._updated.wait()
            self._updated.clear()
            if not self._session_key:
                continue  # the next good registration sets the event again
            try:
                await self._send_reports()
                pause = _FIRST_PAUSE
            except Unauthorized:
                self.refresh(record=True)
            except (Unavailable, TooManyRequests):
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE)
                self._updated.set()

    async def _send_reports(self) -> None:
        while self._updates:
            job_id, update = next(iter(self._updates.items()))
            body = update.model_dump_json(exclude_none=True).encode()
            try:
                await self._signed_call("PATCH", f"/api/v1/jobs/{job_id}", body)
            except NotFound:
                pass  # the buyer did not tell the market of it, which is his choice
            except (Unauthorized, Unavailable, TooManyRequests):
                raise
            except ComputeSwarmError as error:
                self._notices.tell(f"The market did not take the state of {job_id}: {error}")
            if self._updates.get(job_id) is update:
                del self._updates[job_id]
                self._told.set()

    async def _signed_call(self, method: str, path: str, body: bytes) -> bytes:
        async with self._lock:  # the counter has to arrive in order
            self._counter += 1
            signed = auth_headers(
                self._node_id,
                self._session_key,
                method=method,
                path=path,
                counter=self._counter,
                body=body,
            )
            return await self._call(method, path, body, signed)

    async def _call(
        self, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> bytes:
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            async with self._http.stream(
                method, self._url + path, content=body, headers=sent
            ) as reply:
                content = b""
                async for chunk in reply.aiter_bytes():
                    content += chunk
                    if len(content) > _REPLY_BYTES:
                        raise MarketUnavailable("The market's answer is too large.")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MarketUnavailable(
                f"The market at {self._url} does not answer ({type(error).__name__})."
            ) from None
        if reply.status_code < 400:
            return content
        raise _refusal(content, reply.status_code)


def _refusal(content: bytes, status: int) -> ComputeSwarmError:
    """The market's no, as an error of the right kind."""
    document: Any
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    kinds: dict[int, type[ComputeSwarmError]] = {401: Unauthorized, 404: NotFound, 409: Conflict}
    fallback = kinds.get(status, MarketUnavailable if status >= 500 else ComputeSwarmError)
    error = from_problem(document, status=status, fallback=fallback)
    error.detail = clean_line(error.detail, limit=300)
    return error
