"""What watches over a seller: liveness and readiness for everybody, figures for its owner.

The figures tell what it earns, so they need a token: ``metrics_token`` from the settings, or on the
machine itself the owner's own.
"""

from __future__ import annotations

import hmac

from aiohttp import hdrs, web

from computeswarm.core.metrics import CONTENT_TYPE
from computeswarm.seller.agent import SellerAgent
from computeswarm.seller.metrics import metrics
from computeswarm.server.routes import Route
from computeswarm.server.seller_app_owner import check_owner
from computeswarm.server.web import JSON_CONTENT_TYPE, json_reply

_NO_STORE = {"Cache-Control": "no-store"}


def watch_routes(agent: SellerAgent, token: str) -> list[Route]:
    """``/health``, ``/health/live`` and ``/metrics``."""
    handlers = _WatchHandlers(agent, token)
    return [
        Route(
            "GET",
            "/health",
            handlers.ready,
            "Whether it can take and finish jobs; 503 and why, if not",
            replies={200: JSON_CONTENT_TYPE, 503: JSON_CONTENT_TYPE},
        ),
        Route("GET", "/health/live", handlers.live, "Alive?", replies={200: JSON_CONTENT_TYPE}),
        Route(
            "GET",
            "/metrics",
            handlers.metrics,
            "Figures for Prometheus",
            replies={200: "text/plain"},
            headers={"Authorization": "Bearer and metrics_token, or the owner's token"},
        ),
    ]


class _WatchHandlers:
    def __init__(self, agent: SellerAgent, token: str) -> None:
        self._agent = agent
        self._token = token

    async def live(self, _: web.Request) -> web.StreamResponse:
        return json_reply({"status": "ok"}, headers=_NO_STORE)

    async def ready(self, _: web.Request) -> web.StreamResponse:
        agent = self._agent
        reasons = agent.health.reasons()
        value = {
            "status": "stopping" if agent.stopping else "degraded" if reasons else "ok",
            "reasons": reasons,
            "running": agent.running,
            "queued": len(agent.queue),
        }
        return json_reply(value, status=503 if reasons else 200, headers=_NO_STORE)

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        if not self._scraper(request):
            check_owner(request, self._token)
        headers = {hdrs.CONTENT_TYPE: CONTENT_TYPE, **_NO_STORE}
        return web.Response(body=metrics(self._agent).encode(), headers=headers)

    def _scraper(self, request: web.Request) -> bool:
        """Whether the request has the token of the settings."""
        settings = self._agent.settings
        wanted = settings.metrics_token if settings else ""
        scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
        given = token.strip().encode("utf-8", "replace")
        return (
            bool(wanted)
            and scheme.lower() == "bearer"
            and hmac.compare_digest(given, wanted.encode())
        )
