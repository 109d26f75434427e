"""The market over HTTP: its routes put together, and its life with the application's."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from computeswarm.market.market import Market
from computeswarm.server.assembly import build_app
from computeswarm.server.limiting import limiting
from computeswarm.server.market_app_jobs import job_routes
from computeswarm.server.market_app_nodes import node_routes
from computeswarm.server.market_app_ops import ops_routes
from computeswarm.server.market_app_watch import watch_routes
from computeswarm.server.proxies import Clients
from computeswarm.server.requests import RequestMeter

_DESCRIPTION = """\
Finds compute nodes and keeps jobs' metadata. Never touches money or scripts.

**Errors** are problem documents (RFC 9457). `code` is for programs and stays; `detail` is one
sentence for people and may change. 429 and 503 say with `Retry-After` when to ask again.

**Versions.** Within `/api/v1`, members, parameters, error codes, event types and values of open
enumerations may be added; clients ignore what they don't know. Nothing is renamed, removed or given
another meaning, and nothing that was optional becomes required. What can't be done so comes as
`/api/v2` beside it; then `Deprecation` and `Sunset` (RFC 9745, RFC 8594) announce the old one's end
at least a year ahead. An unknown version is 404 with `versions`, those that are served.

**Caching.** Lists carry an `ETag`; `If-None-Match` answers 304. `ComputeSwarm-Stale` tells how many
seconds old an answer may be while the market's database is away, `ComputeSwarm-Held` how many nodes
stay listed though nothing was heard of them, since too many fell silent at once to believe it.
"""


def build_market_app(market: Market, *, clients: Clients | None = None) -> web.Application:
    """The market's application. Starting it starts the market, and cleaning it up closes it.

    Args:
        clients: who asks, where proxies stand before the market.
    """
    clients = clients or Clients()
    meter = RequestMeter(client=clients.address)
    app = build_app(
        [
            *node_routes(market, clients.address),
            *job_routes(market),
            *watch_routes(market, clients.address),
            *ops_routes(market, meter),
        ],
        title="ComputeSwarm market",
        description=_DESCRIPTION,
        requests=meter,
        limiting=limiting(market.limits, clients),
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
