"""What the market says of itself: what it is, whether it works, its figures, what is for sale."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

import computeswarm
from computeswarm.core.errors import Unavailable
from computeswarm.core.health import MarketHealth
from computeswarm.core.metrics import CONTENT_TYPE, Exposition
from computeswarm.core.prices import PriceHistory
from computeswarm.core.stats import MarketStats
from computeswarm.market.health import market_health
from computeswarm.market.manifest import MAX_PAGE, Wanted
from computeswarm.market.market import Market
from computeswarm.market.metrics import PREFIX, market_metrics
from computeswarm.market.prices import MAX_GPU
from computeswarm.server.caching import Shared
from computeswarm.server.connections import Connections
from computeswarm.server.requests import RequestMeter
from computeswarm.server.routes import Parameter, Parameters, Route, read_whole, whole
from computeswarm.server.serving import CONNECTIONS
from computeswarm.server.web import JSON_CONTENT_TYPE, bytes_reply, json_reply

MAX_OFFSET = 10**8
_MAX_TIME = 2**40 - 1
_LIMIT = whole("at most so many", 1, MAX_PAGE, default=20)
_OFFSET = whole("how many to leave out", 0, MAX_OFFSET, default=0)
_DISCOVERY: Parameters = {
    "type": Parameter("http, or anything else for nothing", example="http"),
    "payTo": "the wallet that is paid",
    "scheme": Parameter("how it is paid", example="exact"),
    "network": Parameter("as x402 names it", example="eip155:84532"),
    "limit": _LIMIT,
    "offset": _OFFSET,
}
_TIMES = {
    "since": whole("unix seconds; a day ago without it", 0, _MAX_TIME),
    "until": whole("unix seconds; now without it", 0, _MAX_TIME),
    "step": whole("seconds between points at least", 1, _MAX_TIME),
}
_PRICES: Parameters = {
    "gpu": Parameter(
        "part of a model's name, several parted by |; the commonest models without it",
        example="4090|h100",
    ),
    **_TIMES,
}
_NO_STORE = {"Cache-Control": "no-store"}


def ops_routes(market: Market, requests: RequestMeter) -> list[Route]:
    """``/``, health, metrics, statistics, and what x402 clients ask for."""
    handlers = _Handlers(market, requests)
    document = {200: JSON_CONTENT_TYPE, 304: None}
    health = {200: MarketHealth, 503: MarketHealth}

    def shown(path: str, handler: Handler, summary: str, **more: Any) -> Route:
        return Route("GET", path, handler, summary, limit="read", public=True, **more)

    return [
        shown("/", handlers.root, "What this is", replies={200: JSON_CONTENT_TYPE}),
        Route("GET", "/health", handlers.health, "What is right and what isn't", replies=health),
        Route(
            "GET",
            "/health/ready",
            handlers.health,
            "Whether reads are answered; 503 before that, and while it closes",
            replies=health,
        ),
        Route("GET", "/health/live", handlers.live, "Alive?", replies={200: JSON_CONTENT_TYPE}),
        shown("/x402.json", handlers.x402, "x402 manifest", replies=document),
        shown(
            "/discovery/resources",
            handlers.resources,
            "What x402 clients can buy, a page of it",
            replies=document,
            query=_DISCOVERY,
        ),
        Route(
            "GET",
            "/metrics",
            handlers.metrics,
            "Prometheus metrics",
            replies={200: CONTENT_TYPE},
            limit="read",
        ),
        shown(
            "/api/v1/stats",
            handlers.stats,
            "Statistics",
            replies={200: MarketStats, 304: None},
            errors=(Unavailable,),
        ),
        shown(
            "/api/v1/stats/prices",
            handlers.prices,
            "What sellers asked over time",
            replies={200: PriceHistory, 304: None},
            query=_PRICES,
            errors=(Unavailable,),
        ),
    ]


class _Handlers:
    def __init__(self, market: Market, requests: RequestMeter) -> None:
        self._market = market
        self._requests = requests
        self._figures, self._manifest, self._history = Shared(1), Shared(30), Shared(60)

    async def root(self, _: web.Request) -> web.StreamResponse:
        chain = self._market.chain
        return json_reply(
            {
                "name": "ComputeSwarm market",
                "version": computeswarm.__version__,
                "chain_id": chain.chain_id,
                "openapi": "/openapi.json",
                "nodes": "/api/v1/nodes",
                "x402": "/x402.json",
            }
        )

    async def health(self, _: web.Request) -> web.StreamResponse:
        health = market_health(self._market)
        return json_reply(health, status=200 if health.ready else 503, headers=_NO_STORE)

    async def live(self, _: web.Request) -> web.StreamResponse:
        return json_reply({"status": "ok"}, headers=_NO_STORE)

    async def x402(self, request: web.Request) -> web.StreamResponse:
        return await self._manifest.reply(request, await self._market.manifest())

    async def resources(self, request: web.Request) -> web.StreamResponse:
        given = request.query
        wanted = Wanted(
            *(given.get(name, "")[:100] for name in ("type", "payTo", "scheme", "network"))
        )
        body = await self._market.resources(
            wanted,
            limit=read_whole(given, "limit", _LIMIT),
            offset=read_whole(given, "offset", _OFFSET),
        )
        return await self._manifest.reply(request, body)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        out = Exposition(PREFIX)
        market_metrics(out, self._market, await self._market.stats())
        self._requests.expose(out)
        _connections(out, request.app[CONNECTIONS])
        return bytes_reply(out.text().encode(), content_type=CONTENT_TYPE, headers=_NO_STORE)

    async def stats(self, request: web.Request) -> web.StreamResponse:
        body = (await self._market.stats()).model_dump_json().encode()
        return await self._figures.reply(request, body, stale=self._market.stale_seconds)

    async def prices(self, request: web.Request) -> web.StreamResponse:
        given = request.query
        since, until, step = (
            read_whole(given, name, parameter) if given.get(name) else None
            for name, parameter in _TIMES.items()
        )
        gpu = given.get("gpu", "")[:MAX_GPU]
        history = await self._market.prices.history(gpu, since=since, until=until, step=step)
        return await self._history.reply(request, history.model_dump_json().encode())


def _connections(out: Exposition, connections: Connections) -> None:
    out.gauge("http_connections", "Connections that are open.", connections.open)
    refused = dict.fromkeys(("too_many", "too_many_of_address"), 0) | connections.refused
    samples = [({"reason": reason}, count) for reason, count in refused.items()]
    out.add(
        "http_connections_refused_total", "counter", "Connections refused or cut, by why.", *samples
    )
