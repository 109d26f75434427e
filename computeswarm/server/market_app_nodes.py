"""The market's nodes over HTTP: registering, signs of life, finding, leaving."""

from __future__ import annotations

import re

from aiohttp import web
from pydantic import Field

from computeswarm.core.errors import BadRequest
from computeswarm.core.nodes import ComputeNode, Heartbeat, HeartbeatReply, Registration
from computeswarm.core.query import squeeze
from computeswarm.core.sessions import Enrolment
from computeswarm.core.signing import Document, Signed
from computeswarm.market.index import MAX_PAGE
from computeswarm.market.market import Market
from computeswarm.server.logs import get_logger
from computeswarm.server.market_calls import AUTH, call_of
from computeswarm.server.routes import Route
from computeswarm.server.web import bytes_reply, json_reply, read_body, read_model

DEFAULT_PAGE = 50
_NUMBER = re.compile(r"\$?[0-9]{1,12}(\.[0-9]{1,6})?\Z", re.ASCII)
_log = get_logger("market")
_SEARCH = {
    "q": "a query, such as gpu:4090 vram>=24 price<2",
    "sort": "price, cost, vram, gpus, cores, ram, rel, queue, name or region; - turns it round",
    "cursor": "`next` of the page before",
    "limit": f"nodes a page, 1 to {MAX_PAGE}",
    "gpu_type": "part of the GPU's name",
    "min_vram_gb": "least GiB of one GPU",
    "max_price": "most USDC per GPU and hour",
    "available": "true shows idle nodes only",
}


class NodeList(Document):
    """A page of nodes."""

    nodes: tuple[ComputeNode, ...]
    next: str | None = Field(description="cursor of the next page")
    total: int = Field(description="nodes that match, on all pages")


def node_routes(market: Market) -> list[Route]:
    """The busiest comes first, since routes are tried in order."""
    handlers = _Handlers(market)
    node = "/api/v1/nodes/{node_id}"
    return [
        Route(
            "POST",
            f"{node}/heartbeat",
            handlers.heartbeat,
            "A sign of life",
            body=Heartbeat,
            replies={200: HeartbeatReply},
            headers=AUTH,
        ),
        Route(
            "POST",
            "/api/v1/nodes/register",
            handlers.register,
            "Register a node: its record and a session, both signed by its wallet",
            body=Enrolment,
            replies={201: Registration},
        ),
        Route(
            "GET",
            "/api/v1/nodes",
            handlers.nodes,
            "Find nodes",
            replies={200: NodeList, 304: None},
            query=_SEARCH,
        ),
        Route("GET", node, handlers.node, "One node", replies={200: ComputeNode}),
        Route(
            "POST",
            f"{node}/revoke",
            handlers.revoke,
            "Revoke a node by its wallet's signature",
            body=Signed,
            replies={204: None},
        ),
        Route("DELETE", node, handlers.leave, "Leave", replies={204: None}, headers=AUTH),
    ]


class _Handlers:
    def __init__(self, market: Market) -> None:
        self._market = market

    async def heartbeat(self, request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        call = call_of(request, body)
        return bytes_reply(await self._market.heartbeat(request.match_info["node_id"], call))

    async def register(self, request: web.Request) -> web.StreamResponse:
        registration = await self._market.register(await read_model(request, Enrolment))
        _log.info("node_registered", node_id=registration.node.node_id)
        return json_reply(registration, status=201, headers={"Cache-Control": "no-store"})

    async def nodes(self, request: web.Request) -> web.StreamResponse:
        key = request.rel_url.raw_query_string
        page = self._market.cached_page(key)
        if page is None:
            given = request.query
            page = await self._market.page(
                key,
                _words(request),
                sort=given.get("sort", ""),
                cursor=given.get("cursor", ""),
                limit=_limit(given.get("limit", "")),
            )
        headers = {"ETag": page.etag, "Cache-Control": "public, max-age=1"}
        if page.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        return bytes_reply(page.body, headers=headers)

    async def node(self, request: web.Request) -> web.StreamResponse:
        return json_reply(self._market.node(request.match_info["node_id"]))

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


def _words(request: web.Request) -> str:
    """The query, with the original protocol's plain parameters as further words behind it."""
    given = request.query
    words = [given.get("q", "")]
    if gpu := squeeze(given.get("gpu_type", "")):
        words.append(f"gpu:{gpu}")
    for name, prefix in (("min_vram_gb", "vram>="), ("max_price", "price<=")):
        if name in given:
            if not _NUMBER.match(given[name]):
                raise BadRequest(f"{name} is a number such as 24.")
            words.append(prefix + given[name])
    if given.get("available", "").lower() in ("1", "true", "yes"):
        words.append("available")
    return " ".join(words)


def _limit(text: str) -> int:
    if not text:
        return DEFAULT_PAGE
    if not re.fullmatch(r"[0-9]{1,6}", text, re.ASCII):
        raise BadRequest(f"limit is a number from 1 to {MAX_PAGE}.")
    return int(text)
