"""The request that comes more often than all others together, without the long way round.

Looking for its route and making the head of its answer cost a heartbeat more than checking who
sends it. So the hot route is looked for before all others, and the head is made once a second.
"""

from __future__ import annotations

import time
from email.utils import formatdate

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11
from aiohttp.typedefs import Handler

from computeswarm.server.routes import PARAMETER, Route
from computeswarm.server.web import COMMON_HEADERS, JSON_CONTENT_TYPE


class HotRoute:
    """A route whose path has one parameter, and its handler with all that stands round it."""

    def __init__(self, route: Route, handler: Handler) -> None:
        self._method = route.method
        self._prefix, _, self._suffix = PARAMETER.split(route.path)
        self._handler = handler

    def before(self, others: Handler) -> Handler:
        """A handler that takes what is for this route, and leaves the rest to ``others``.

        There is no ``match_info`` in such a request: its handler reads the path.
        """
        method, prefix, suffix, handler = self._method, self._prefix, self._suffix, self._handler

        async def handle(request: web.Request) -> web.StreamResponse:
            if (
                request.method == method
                and (path := request.path).endswith(suffix)
                and path.startswith(prefix)
                and (middle := path[len(prefix) : -len(suffix)])
                and "/" not in middle
                and hdrs.EXPECT not in request.headers
            ):
                return await handler(request)
            return await others(request)

        return handle


HOT = web.AppKey("hot", HotRoute)
"""Where an application keeps its hot route."""


class ReadyReply(web.Response):
    """200 with JSON, to whom the connection stays open; others get the same the usual way."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self._ready = body
        self._sent = False

    @property
    def keep_alive(self) -> bool | None:
        return True if self._sent else super().keep_alive

    @property
    def prepared(self) -> bool:
        return self._sent or super().prepared

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it, at once and whole."""
        if self._sent or super().prepared:
            return None
        if self.headers or request.version != HttpVersion11 or not request.keep_alive:
            self.headers.extend(COMMON_HEADERS)
            self.headers[hdrs.CONTENT_TYPE] = JSON_CONTENT_TYPE
            self.body = self._ready
            return await super().prepare(request)
        self._sent = True
        await request.writer.write(_head(len(self._ready)) + self._ready)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        if not self._sent:
            await super().write_eof(data)


_heads: dict[int, bytes] = {}
_made_at = 0


def _head(length: int) -> bytes:
    """The head of an answer of ``length`` bytes, with the present second as its date."""
    global _made_at
    now = int(time.time())
    if now != _made_at:
        _heads.clear()
        _made_at = now
    head = _heads.get(length)
    if head is None:
        fields = {
            **COMMON_HEADERS,
            hdrs.CONTENT_TYPE: JSON_CONTENT_TYPE,
            hdrs.CONTENT_LENGTH: str(length),
            hdrs.DATE: formatdate(now, usegmt=True),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = _heads[length] = f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode()
    return head
