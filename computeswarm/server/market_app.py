"""The market over HTTP: its routes put together, and its life with the application's."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from computeswarm.market.market import Market
from computeswarm.server.market_app_jobs import job_routes
from computeswarm.server.market_app_nodes import node_routes
from computeswarm.server.market_app_ops import ops_routes
from computeswarm.server.openapi import build_app
from computeswarm.server.requests import RequestMeter


def build_market_app(market: Market) -> web.Application:
    """The market's application. Starting it starts the market, and cleaning it up closes it."""
    meter = RequestMeter()
    app = build_app(
        [*node_routes(market), *job_routes(market), *ops_routes(market, meter)],
        title="ComputeSwarm market",
        description="Finds compute nodes and keeps jobs' metadata. Never touches money or scripts.",
        requests=meter,
    )

    async def life(_: web.Application) -> AsyncIterator[None]:
        await market.start()
        yield
        await market.close()

    async def end_streams(_: web.Application) -> None:
        await market.live.close()  # or shutting down would wait for whoever watches

    app.cleanup_ctx.append(life)
    app.on_shutdown.append(end_streams)
    return app
