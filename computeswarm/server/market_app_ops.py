"""What the market says of itself: what it is, whether it works, its figures, what is for sale."""

from __future__ import annotations

from aiohttp import web

import computeswarm
from computeswarm.core.errors import BadRequest
from computeswarm.core.stats import MarketStats
from computeswarm.market.manifest import MAX_PAGE, Wanted
from computeswarm.market.market import Market
from computeswarm.market.stats import prometheus
from computeswarm.server.openapi import Route
from computeswarm.server.web import JSON_CONTENT_TYPE, bytes_reply, json_reply

MAX_OFFSET = 10**8
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_DISCOVERY = {
    "type": "http, or anything else for nothing",
    "payTo": "the wallet that is paid",
    "scheme": "exact",
    "network": "as in eip155:84532",
    "limit": f"at most so many (20; up to {MAX_PAGE})",
    "offset": "how many to leave out",
}


def ops_routes(market: Market) -> list[Route]:
    handlers = _Handlers(market)
    document = {200: JSON_CONTENT_TYPE}
    return [
        Route("GET", "/", handlers.root, "What this is", replies=dict(document)),
        Route("GET", "/health", handlers.health, "Whether it works", replies=dict(document)),
        Route("GET", "/x402.json", handlers.x402, "x402 manifest", replies=dict(document)),
        Route(
            "GET",
            "/discovery/resources",
            handlers.resources,
            "What x402 clients can buy, a page of it",
            replies=dict(document),
            query=_DISCOVERY,
        ),
        Route("GET", "/metrics", handlers.metrics, "Prometheus metrics", replies={200: _TEXT}),
        Route("GET", "/api/v1/stats", handlers.stats, "Statistics", replies={200: MarketStats}),
    ]


class _Handlers:
    def __init__(self, market: Market) -> None:
        self._market = market

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
        return json_reply({"status": "ok", "version": computeswarm.__version__})

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
        market = self._market
        text = prometheus(
            await market.stats(), heartbeats=market.heartbeats, refused=market.refused_calls
        )
        return bytes_reply(text.encode(), content_type=_TEXT)

    async def stats(self, _: web.Request) -> web.StreamResponse:
        stats = await self._market.stats()
        return json_reply(stats, headers={"Cache-Control": "public, max-age=1"})


def _count(text: str, least: int, most: int, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise BadRequest(f"{name} is a whole number from {least} to {most}.")
    return int(text)
