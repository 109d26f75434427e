"""The market's changes as server-sent events: one long answer a reader, with its place as a cursor.

Whatever is wrong with a request is answered before the stream starts. It ends when the market
closes, and its reader goes on with its cursor elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from aiohttp import hdrs, web

from computeswarm.core.addresses import address_key
from computeswarm.core.chains import ChainInfo
from computeswarm.core.changes import EVENT_STREAM, KEEP_ALIVE_SECONDS, Topic
from computeswarm.core.clock import Clock
from computeswarm.core.errors import BadRequest, Unauthorized, Unavailable, Unprocessable
from computeswarm.core.query import PLAIN, Query, parse, plain_words
from computeswarm.core.sessions import PERMIT_HEADER, read_permit
from computeswarm.core.text import clean_line
from computeswarm.market.identity import check_permit
from computeswarm.market.live import LiveFeed, Subscription
from computeswarm.server.routes import Parameter, Route

RETRY_MS = 1_000
"""When a browser connects again; it spreads that by itself no more than our own clients do."""
STUCK_SECONDS = 60.0
"""A reader who takes nothing for so long is gone."""
_HEADERS = {
    hdrs.CONTENT_TYPE: f"{EVENT_STREAM}; charset=utf-8",
    hdrs.CACHE_CONTROL: "no-store, no-transform",
    "X-Accel-Buffering": "no",  # or nginx would keep the events until there are many
    "X-Content-Type-Options": "nosniff",
    hdrs.SERVER: "computeswarm",
    hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",  # here, as a stream's head is out before others see it
}
_LAST_EVENT = "Last-Event-ID"
_QUERY = {
    "topics": "nodes, prices, jobs (with a permit), stats, separated by commas; all by default",
    "q": "only nodes that a search would find; without it all of them, offline ones too",
    "since": f"a cursor, where a client can't send {_LAST_EVENT}",
    **PLAIN,
}
_ASKED = {
    _LAST_EVENT: Parameter("The cursor of the last event: what changed since then comes first."),
    PERMIT_HEADER: Parameter("Of the wallet whose jobs are told of."),
}


class Watched(Protocol):
    """What is read of a market."""

    live: LiveFeed
    chain: ChainInfo
    clock: Clock
    names: frozenset[str]


def watch_routes(
    market: Watched, address: Callable[[web.Request], str] = lambda request: request.remote or ""
) -> list[Route]:
    """``GET /api/v1/changes``; ``address`` says where a request really comes from."""
    handlers = _Handlers(market, address)
    return [
        Route(
            "GET",
            "/api/v1/changes",
            handlers.changes,
            "What changes, as server-sent events that can be resumed",
            replies={200: EVENT_STREAM},
            query=_QUERY,
            headers=_ASKED,
            limit="stream",
            public=True,
            errors=(Unauthorized, Unprocessable, Unavailable),
        )
    ]


class _Handlers:
    def __init__(self, market: Watched, address: Callable[[web.Request], str]) -> None:
        self._market, self._address = market, address

    async def changes(self, request: web.Request) -> web.StreamResponse:
        market = self._market
        wallet, until = self._permit(request)
        topics = _topics(request.query.get("topics", ""), wallet)
        query = _query(request)
        if request.method == hdrs.METH_HEAD:
            return web.Response(headers=_HEADERS)
        stream = await market.live.subscribe(
            topics,
            query,
            since=request.headers.get(_LAST_EVENT) or request.query.get("since", ""),
            wallet=wallet,
            address=address_key(self._address(request)),
        )
        try:
            return await self._send(request, stream, until)
        finally:
            market.live.unsubscribe(stream)

    async def _send(
        self, request: web.Request, stream: Subscription, until: float
    ) -> web.StreamResponse:
        reply = web.StreamResponse(headers=_HEADERS)
        with suppress(ConnectionError, TimeoutError):  # the reader left, or takes nothing
            await reply.prepare(request)
            await reply.write(b"retry: %d\n\n" % RETRY_MS)
            while (left := until - self._market.clock.now()) > 0:
                frame = await stream.next(min(KEEP_ALIVE_SECONDS, left))
                if frame is None:
                    break
                async with asyncio.timeout(STUCK_SECONDS):
                    await reply.write(frame)
            await reply.write_eof()
            return reply
        if request.transport is not None:
            request.transport.abort()
        return reply

    def _permit(self, request: web.Request) -> tuple[str, float]:
        """The wallet whose permit came along, and how long that is good; none is for ever."""
        text = request.headers.get(PERMIT_HEADER, "")
        if not text:
            return "", float("inf")
        wallet = str(read_permit(text).document.get("wallet", ""))
        market = self._market
        permit = check_permit(
            text,
            wallet,
            chain=market.chain,
            names=market.names,
            now=market.clock.now(),
        )
        return permit.wallet, permit.expires_at


def _topics(text: str, wallet: str) -> frozenset[Topic]:
    if not text:
        return frozenset(Topic) if wallet else frozenset(Topic) - {Topic.JOBS}
    known = {str(topic): topic for topic in Topic}
    topics = set()
    for word in text[:200].split(","):
        if word.strip() not in known:
            sentence = f"{clean_line(word, limit=40)!r} is no topic; use {', '.join(known)}."
            raise BadRequest(sentence)
        topics.add(known[word.strip()])
    if Topic.JOBS in topics and not wallet:
        raise Unauthorized(f"Jobs are told to their wallets only; send {PERMIT_HEADER}.")
    return frozenset(topics)


def _query(request: web.Request) -> Query | None:
    words = plain_words(request.query)
    return parse(words) if words.strip() else None
