"""What the market says of itself: what it is, whether it works, its figures, what is for sale."""

from __future__ import annotations

from aiohttp import web

import computeswarm
from computeswarm.core.errors import BadRequest
from computeswarm.core.health import MarketHealth
from computeswarm.core.metrics import CONTENT_TYPE, Exposition
from computeswarm.core.prices import PriceHistory
from computeswarm.core.stats import MarketStats
from computeswarm.market.health import market_health
from computeswarm.market.manifest import MAX_PAGE, Wanted
from computeswarm.market.market import Market
from computeswarm.market.metrics import PREFIX, market_metrics
from computeswarm.market.prices import MAX_GPU
from computeswarm.server.requests import RequestMeter
from computeswarm.server.routes import Route
from computeswarm.server.web import JSON_CONTENT_TYPE, bytes_reply, json_reply

MAX_OFFSET = 10**8
_MAX_TIME = 2**40
_DISCOVERY = {
    "type": "http, or anything else for nothing",
    "payTo": "the wallet that is paid",
    "scheme": "exact",
    "network": "as in eip155:84532",
    "limit": f"at most so many (20; up to {MAX_PAGE})",
    "offset": "how many to leave out",
}
_PRICES = {
    "gpu": "part of a model's name, several parted by |; the commonest models without it",
    "since": "unix seconds; a day ago without it",
    "until": "unix seconds; now without it",
    "step": "seconds between points at least",
}
_NO_STORE = {"Cache-Control": "no-store"}


def ops_routes(market: Market, requests: RequestMeter) -> list[Route]:
    """``/``, health, metrics, statistics, and what x402 clients ask for."""
    handlers = _Handlers(market, requests)
    document = {200: JSON_CONTENT_TYPE}
    health = {200: MarketHealth, 503: MarketHealth}
    return [
        Route("GET", "/", handlers.root, "What this is", replies=dict(document)),
        Route(
            "GET", "/health", handlers.health, "What is right and what isn't", replies=dict(health)
        ),
        Route(
            "GET",
            "/health/ready",
            handlers.health,
            "Whether reads are answered; 503 before that, and while it closes",
            replies=dict(health),
        ),
        Route("GET", "/health/live", handlers.live, "Alive?", replies=dict(document)),
        Route("GET", "/x402.json", handlers.x402, "x402 manifest", replies=dict(document)),
        Route(
            "GET",
            "/discovery/resources",
            handlers.resources,
            "What x402 clients can buy, a page of it",
            replies=dict(document),
            query=_DISCOVERY,
        ),
        Route(
            "GET", "/metrics", handlers.metrics, "Prometheus metrics", replies={200: CONTENT_TYPE}
        ),
        Route("GET", "/api/v1/stats", handlers.stats, "Statistics", replies={200: MarketStats}),
        Route(
            "GET",
            "/api/v1/stats/prices",
            handlers.prices,
            "What sellers asked over time",
            replies={200: PriceHistory},
            query=_PRICES,
        ),
    ]


class _Handlers:
    def __init__(self, market: Market, requests: RequestMeter) -> None:
        self._market = market
        self._requests = requests

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

    async def x402(self, _: web.Request) -> web.StreamResponse:
        body = await self._market.manifest()
        return bytes_reply(body, headers={"Cache-Control": "public, max-age=30"})

    async def resources(self, request: web.Request) -> web.StreamResponse:
        given = request.query
        wanted = Wanted(
            *(given.get(name, "")[:100] for name in ("type", "payTo", "scheme", "network"))
        )
        body = await self._market.resources(
            wanted,
            limit=_count(given.get("limit", "20"), 1, MAX_PAGE, "limit"),
            offset=_count(given.get("offset", "0"), 0, MAX_OFFSET, "offset"),
        )
        return bytes_reply(body, headers={"Cache-Control": "public, max-age=30"})

    async def metrics(self, _: web.Request) -> web.StreamResponse:
        out = Exposition(PREFIX)
        market_metrics(out, self._market, await self._market.stats())
        self._requests.expose(out)
        return bytes_reply(out.text().encode(), content_type=CONTENT_TYPE, headers=_NO_STORE)

    async def stats(self, _: web.Request) -> web.StreamResponse:
        stats = await self._market.stats()
        return json_reply(stats, headers={"Cache-Control": "public, max-age=1"})

    async def prices(self, request: web.Request) -> web.StreamResponse:
        given = request.query
        since, until, step = (
            _count(given[name], least, _MAX_TIME, name) if given.get(name) else None
            for name, least in (("since", 0), ("until", 0), ("step", 1))
        )
        gpu = given.get("gpu", "")[:MAX_GPU]
        history = await self._market.prices.history(gpu, since=since, until=until, step=step)
        return json_reply(history, headers={"Cache-Control": "public, max-age=60"})


def _count(text: str, least: int, most: int, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 14 and least <= int(text) <= most):
        raise BadRequest(f"{name} is a whole number from {least} to {most}.")
    return int(text)
