"""A job's events as they come: over a WebSocket, or by polling where there is none."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator

import aiohttp

from computeswarm.buyer.http.base import CONNECT_SECONDS, tls
from computeswarm.buyer.http.seller import Access, SellerClient, check_events
from computeswarm.core.errors import BadRequest, SellerUnavailable, Unavailable
from computeswarm.core.events import EndEvent, JobEvent, MeterEvent

LOST_SECONDS = 30.0
MAX_FRAME = 8 * 1024 * 1024
_HEARTBEAT_SECONDS = 10.0
_STEADY_SECONDS = 5.0
_POLL_SECONDS = 0.5
_PAUSES = (0.1, 0.25, 0.5, 1.0, 2.0)


class _NoStreamError(Exception):
    """There is a server, but no WebSocket: a proxy in between, say."""


async def follow_events(
    seller: SellerClient, access: Access, since: int = 0, *, lost_seconds: float = LOST_SECONDS
) -> AsyncGenerator[JobEvent, None]:
    """Every event after ``since`` once and in order, to the end event; meters as they come.

    Reconnects by itself and carries on after the last event seen.

    Raises:
        SellerUnavailable: no sign of life for ``lost_seconds``.
        ComputeSwarmError: the seller refuses (an unknown job, a wrong key).
    """
    last, streaming, failures = since, True, 0
    alive = time.monotonic()
    while True:
        opened, delivered = time.monotonic(), False
        source = _frames(seller, access, last) if streaming else _polled(seller, access, last)
        try:
            async for event in source:
                if not isinstance(event, MeterEvent):
                    if event.seq <= last:
                        continue
                    last = event.seq
                delivered = True
                yield event
                if isinstance(event, EndEvent):
                    return
        except _NoStreamError:
            streaming = False
        except (aiohttp.ClientError, OSError, TimeoutError, Unavailable):
            pass  # a broken connection is like one that ended: both are made again below
        finally:
            await source.aclose()
        now = time.monotonic()
        # a server that takes connections only to drop them shows no sign of life
        if delivered or now - opened > _STEADY_SECONDS:
            alive, failures = now, 0
        if now - alive > lost_seconds:
            raise SellerUnavailable(
                f"The seller has not answered for {lost_seconds:.0f} s.", since=last
            )
        await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
        failures += 1


async def _frames(
    seller: SellerClient, access: Access, since: int
) -> AsyncGenerator[JobEvent, None]:
    url = f"{seller.url}/jobs/{access.job_id}/stream"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
    connector = aiohttp.TCPConnector(ssl=tls() if url.startswith("https:") else False)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        try:
            opening = session.ws_connect(
                url,
                params={"since": str(since), "follow": "1"},
                headers=access.headers,
                heartbeat=_HEARTBEAT_SECONDS,
                max_msg_size=MAX_FRAME,
                compress=0,
            )
            async with asyncio.timeout(2 * CONNECT_SECONDS):
                socket = await opening
        except aiohttp.WSServerHandshakeError:
            raise _NoStreamError from None
        async with socket:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                for event in _read(message.data):
                    yield event


def _read(text: str) -> list[JobEvent]:
    try:
        return check_events(json.loads(text))
    except (ValueError, RecursionError):
        raise BadRequest("The seller's stream of events can't be read.") from None


async def _polled(
    seller: SellerClient, access: Access, since: int
) -> AsyncGenerator[JobEvent, None]:
    while True:
        events = await seller.events(access, since)
        for event in events:
            since = max(since, event.seq)
            yield event
        if not events:
            await asyncio.sleep(_POLL_SECONDS)
