"""The market's nodes over HTTP: registering, signs of life, finding, leaving."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from computeswarm.core.errors import (
    Conflict,
    InvalidQuery,
    NodeNotFound,
    NodeRevoked,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from computeswarm.core.ids import NODE_ID_PATTERN
from computeswarm.core.nodes import ComputeNode, Heartbeat, HeartbeatReply, Registration
from computeswarm.core.pages import Facets, NodeList
from computeswarm.core.query import MAX_LENGTH, SORTABLE, plain_words
from computeswarm.core.sessions import Enrolment
from computeswarm.core.signing import Signed
from computeswarm.market.index import MAX_PAGE
from computeswarm.market.market import Market
from computeswarm.server.caching import Shared
from computeswarm.server.hot import ReadyReply
from computeswarm.server.logs import get_logger
from computeswarm.server.market_calls import call_of
from computeswarm.server.openapi import CALL
from computeswarm.server.routes import Parameter, Parameters, Route, read_whole, whole
from computeswarm.server.web import json_reply, read_body, read_model

LIST_SECONDS = 1
_log = get_logger("market")
_NUMBER = {"type": "string", "pattern": r"^\$?[0-9]{1,12}(\.[0-9]{1,6})?$"}
_PLAIN: Parameters = {
    "q": Parameter(
        "a query",
        {"type": "string", "maxLength": MAX_LENGTH},
        example="gpu:4090|a100 vram>=24 price<2 online",
    ),
    "gpu_type": Parameter("part of the GPU's name", example="RTX 4090"),
    "min_vram_gb": Parameter("least GiB of one GPU", _NUMBER, example="24"),
    "max_price": Parameter("most USDC per GPU and hour", _NUMBER, example="1.50"),
    "available": Parameter("true shows idle nodes only", example="true"),
}
_LIMIT = whole("nodes a page", 1, MAX_PAGE, default=50)
_SEARCH: Parameters = {
    **_PLAIN,
    "sort": Parameter(
        "- turns it round",
        {"type": "string", "pattern": f"^(-?({'|'.join(SORTABLE)}))?$"},
        example="price",
    ),
    "cursor": "`next` of the page before; it stays right while nodes come and go",
    "limit": _LIMIT,
}
_ID: Parameters = {
    "node_id": Parameter("the node's id", {"type": "string", "pattern": f"^{NODE_ID_PATTERN}$"})
}


def node_routes(market: Market, client: Callable[[web.Request], str]) -> list[Route]:
    """The busiest comes first, since routes are tried in order.

    Args:
        client: says where a request really comes from.
    """
    handlers = _Handlers(market, client)
    node = "/api/v1/nodes/{node_id:(?!(?:register|facets)$)[^/]+}"
    return [
        Route(
            "POST",
            f"{node}/heartbeat",
            handlers.heartbeat,
            "A sign of life; the reply says when the next is due",
            body=Heartbeat,
            replies={200: HeartbeatReply},
            path_parameters=_ID,
            security=CALL,
            limit="auth",
            errors=(NodeNotFound, NodeRevoked),
            example={"status": "busy", "queued": 0, "running": 1},
            hot=True,
        ),
        Route(
            "POST",
            "/api/v1/nodes/register",
            handlers.register,
            "Register a node: its record and a session, both signed by its wallet",
            body=Enrolment,
            replies={201: Registration},
            limit="register",
            errors=(Unauthorized, Conflict, NodeRevoked, Unprocessable, Unavailable),
        ),
        Route(
            "GET",
            "/api/v1/nodes",
            handlers.nodes,
            "Find nodes",
            replies={200: NodeList, 304: None},
            query=_SEARCH,
            limit="read",
            public=True,
            errors=(InvalidQuery, Unavailable),
        ),
        Route(
            "GET",
            "/api/v1/nodes/facets",
            handlers.facets,
            "Count nodes by what they are",
            replies={200: Facets, 304: None},
            query=_PLAIN,
            limit="read",
            public=True,
            errors=(InvalidQuery, Unavailable),
        ),
        Route(
            "GET",
            node,
            handlers.node,
            "One node, with its record as its wallet signed it",
            replies={200: ComputeNode, 304: None},
            path_parameters=_ID,
            limit="read",
            public=True,
            errors=(NodeNotFound,),
        ),
        Route(
            "POST",
            f"{node}/revoke",
            handlers.revoke,
            "Revoke a node by its wallet's signature: it leaves, and its session ends",
            body=Signed,
            replies={204: None},
            path_parameters=_ID,
            limit="register",
            errors=(Unauthorized, NodeNotFound, Conflict, Unprocessable, Unavailable),
        ),
        Route(
            "DELETE",
            node,
            handlers.leave,
            "Leave",
            replies={204: None},
            path_parameters=_ID,
            security=CALL,
            limit="auth",
            errors=(NodeNotFound, NodeRevoked, Unavailable, TooManyRequests),
        ),
    ]


class _Handlers:
    def __init__(self, market: Market, client: Callable[[web.Request], str]) -> None:
        self._market = market
        self._client = client
        self._lists = Shared(LIST_SECONDS)

    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        call = call_of(request, body)
        node_id = request.path.split("/")[4]  # a hot route has no match_info
        return ReadyReply(await self._market.heartbeat(node_id, call))

    async def register(self, request: web.Request) -> web.StreamResponse:
        enrolment = await read_model(request, Enrolment)
        registration = await self._market.register(enrolment, address=self._client(request))
        _log.info("node_registered", node_id=registration.node.node_id)
        return json_reply(registration, status=201, headers={"Cache-Control": "no-store"})

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        market = self._market
        key = request.rel_url.raw_query_string
        page = market.cached_page(key)
        if page is None:
            given = request.query
            page = await market.page(
                key,
                plain_words(given),
                sort=given.get("sort", ""),
                cursor=given.get("cursor", ""),
                limit=read_whole(given, "limit", _LIMIT),
            )
        return await self._reply(request, page.body, page.etag)

    async def facets(self, request: web.Request) -> web.StreamResponse:
        return await self._reply(request, await self._market.facets(plain_words(request.query)))

    async def node(self, request: web.Request) -> web.StreamResponse:
        node = self._market.node(request.match_info["node_id"])
        return await self._reply(request, node.model_dump_json().encode())

    async def _reply(self, request: web.Request, body: bytes, etag: str = "") -> web.Response:
        market = self._market
        return await self._lists.reply(
            request, body, etag, stale=market.stale_seconds, held=market.leases.held
        )

    async def leave(self, request: web.Request) -> web.StreamResponse:
        node_id = request.match_info["node_id"]
        await self._market.unregister(node_id, call_of(request, await read_body(request)))
        _log.info("node_left", node_id=node_id)
        return web.Response(status=204)

    async def revoke(self, request: web.Request) -> web.StreamResponse:
        node_id = request.match_info["node_id"]
        await self._market.revoke(node_id, await read_model(request, Signed))
        _log.info("node_revoked", node_id=node_id)
        return web.Response(status=204)
