"""Calls of sellers to the market: what authenticates them, as headers carry it."""

from __future__ import annotations

from aiohttp import web

from computeswarm.core.market_auth import COUNTER_HEADER, MAC_HEADER, NODE_HEADER
from computeswarm.market.identity import Call

AUTH = {
    NODE_HEADER: "the node's id",
    COUNTER_HEADER: "higher than in every call before under this session",
    MAC_HEADER: "HMAC-SHA256 in hex under the session's key: method, path, counter, body",
}
"""For the description of a route that wants them."""


def call_of(request: web.Request, body: bytes) -> Call:
    """A call as it came; nothing of it is checked yet."""
    headers = request.headers
    return Call(
        headers.get(NODE_HEADER, ""),
        headers.get(COUNTER_HEADER, ""),
        headers.get(MAC_HEADER, ""),
        request.method,
        request.path,
        body,
    )
