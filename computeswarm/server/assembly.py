"""An application of routes: what stands round every handler, and the answers nobody else gives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from computeswarm.core.errors import NotFound
from computeswarm.core.text import clean_line
from computeswarm.server.hot import HOT, HotRoute
from computeswarm.server.openapi import from_routes
from computeswarm.server.requests import RequestMeter
from computeswarm.server.routes import Route
from computeswarm.server.web import (
    JSON_CONTENT_TYPE,
    ExpectationFailed,
    MethodNotAllowed,
    answering,
    bytes_reply,
    problem_reply,
)

PREFLIGHT_SECONDS = 86_400
_VERSIONED = re.compile(r"/api/(v[0-9]{1,6})(/|\Z)", re.ASCII)
_READ = ("GET", "HEAD")
_SHARED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": ", ".join(
        ("ETag", "Retry-After", "ComputeSwarm-Stale", "ComputeSwarm-Held", "X-Request-Id")
    ),
}
"""For what everybody may read: pages of other sites too. Never with credentials."""

Limiting = Callable[[str, Handler], Handler]


def build_app(
    routes: Sequence[Route],
    *,
    title: str,
    description: str,
    requests: RequestMeter | None = None,
    limiting: Limiting | None = None,
) -> web.Application:
    """An application with these routes, ``GET /openapi.json``, HEAD, OPTIONS and problem documents.

    Args:
        requests: what measures every request, if anything does.
        limiting: what stands round the handlers of routes that name a limit.
    """
    app = web.Application()
    table = list(routes)

    def watched(method: str, path: str, handler: Handler) -> Handler:
        safe = answering(handler)
        return safe if requests is None else requests.timed(method, path, safe)

    async def openapi(_: web.Request) -> web.StreamResponse:
        return bytes_reply(document, headers={"Cache-Control": "public, max-age=300"})

    table.append(
        Route(
            "GET",
            "/openapi.json",
            openapi,
            "This document",
            replies={200: JSON_CONTENT_TYPE},
            public=True,
        )
    )
    described = from_routes(table, title=title, description=description)
    document = json.dumps(described, separators=(",", ":")).encode()
    for route in table:
        handler = route.handler
        if limiting is not None and route.limit:
            handler = limiting(route.limit, handler)
        handler = watched(route.method, route.public_path, handler)
        if route.public:
            handler = _shared(handler)
        if route.hot:
            app[HOT] = HotRoute(route, handler)
        if route.method == "GET":
            app.router.add_get(route.path, handler, expect_handler=_expect)  # and HEAD
        else:
            app.router.add_route(route.method, route.path, handler, expect_handler=_expect)
    others = watched("any", "other", _Others(table).answer)
    app.router.add_route("*", "/{path:.*}", others, expect_handler=_expect)
    return app


def _shared(handler: Handler) -> Handler:
    async def shared(request: web.Request) -> web.StreamResponse:
        reply = await handler(request)
        if not reply.prepared:
            reply.headers.update(_SHARED)
        return reply

    return shared


class _Others:
    """What no route takes: OPTIONS, methods that a path doesn't have, and paths that aren't."""

    def __init__(self, table: Sequence[Route]) -> None:
        self._public = {route.public_path for route in table if route.public}
        found = (_VERSIONED.match(route.path) for route in table)
        self._versions = sorted({match[1] for match in found if match})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer, or say what is wrong with the path or the method.

        Raises:
            MethodNotAllowed: the path is there for other methods.
            NotFound: the path is not there.
        """
        allowed: set[str] = set()
        public = False
        for resource in request.app.router.resources():
            match, methods = await resource.resolve(request)
            if match is None and methods:  # else it is the route that led here
                allowed |= methods
                public = public or resource.canonical in self._public
        if not allowed:
            raise self._not_found(request)
        listed = sorted({*allowed, hdrs.METH_OPTIONS})
        if request.method == hdrs.METH_OPTIONS:
            return _options(listed, public=public)
        sentence = (
            f"{clean_line(request.path)} does not take {clean_line(request.method)}; use"
            f" {', '.join(listed)}."
        )
        raise MethodNotAllowed(sentence, allowed=listed)

    def _not_found(self, request: web.Request) -> NotFound:
        asked = _VERSIONED.match(request.path)
        if asked is not None and self._versions and asked[1] not in self._versions:
            return NotFound(
                f"This server has no API {asked[1]}; it serves {', '.join(self._versions)}.",
                versions=self._versions,
            )
        path = clean_line(request.path, limit=200)
        return NotFound(f"Nothing is at {path}; see /openapi.json for what is.")


def _options(allowed: Sequence[str], *, public: bool) -> web.Response:
    """What a path takes; browsers hear of it for pages of other sites where those may read it."""
    headers = {"Allow": ", ".join(allowed), "Cache-Control": f"max-age={PREFLIGHT_SECONDS}"}
    if public:
        headers |= {
            **_SHARED,
            "Access-Control-Allow-Methods": ", ".join(_READ),
            "Access-Control-Allow-Headers": "If-None-Match, Last-Event-ID",
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }
    return web.Response(status=204, headers=headers)


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """``Expect: 100-continue`` is answered, anything else refused."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return problem_reply(ExpectationFailed("Of Expect, only 100-continue is understood."))
    if request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # or the answer would be taken for begun
    return None
