"""An HTTP line between a buyer and a seller that loses, doubles, cuts and garbles replies.

Streams are refused, so that a buyer asks for events and every byte passes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self

import aiohttp
from aiohttp import web

Reply = tuple[int, dict[str, str], bytes]
Fault = Callable[["Post"], Awaitable[web.StreamResponse]]
_KEPT = ("content-type", "payment-required", "payment-response", "x-payment-response")


class Post:
    """One request on its way."""

    def __init__(self, line: FaultyLine, request: web.Request, body: bytes) -> None:
        self.line = line
        self.request = request
        self.body = body

    async def forward(self) -> Reply:
        """The seller's answer."""
        return await self.line.ask(self.request, self.body)

    def drop(self) -> web.Response:
        """No answer."""
        assert self.request.transport is not None
        self.request.transport.abort()
        return web.Response()


def whole(reply: Reply) -> web.Response:
    """An answer as it was given."""
    status, headers, body = reply
    return web.Response(status=status, headers=headers, body=body)


async def honest(post: Post) -> web.StreamResponse:
    """Through and back."""
    return whole(await post.forward())


async def lost_request(post: Post) -> web.StreamResponse:
    """The seller hears nothing."""
    return post.drop()


async def lost_reply(post: Post) -> web.StreamResponse:
    """The seller did it, and the buyer hears nothing."""
    await post.forward()
    return post.drop()


async def doubled(post: Post) -> web.StreamResponse:
    """It arrives three times at once; one of the answers comes back."""
    replies = await asyncio.gather(*(post.forward() for _ in range(3)))
    return whole(replies[-1])


async def cut(post: Post) -> web.StreamResponse:
    """Half of the answer."""
    status, headers, body = await post.forward()
    reply = web.StreamResponse(status=status, headers=headers)
    reply.content_length = len(body)
    await reply.prepare(post.request)
    await reply.write(body[: len(body) // 2])
    return post.drop()


async def bad_gateway(post: Post) -> web.StreamResponse:
    """The seller did it, and a proxy says that it failed."""
    await post.forward()
    return web.Response(status=502, text="<html>Bad Gateway</html>")


class FaultyLine:
    """The line. ``faults`` are those of the next paid posts, in order; then it is honest."""

    def __init__(self) -> None:
        self.url = ""
        self.target = ""
        self.faults: list[Fault] = []
        self.paid_posts = 0
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None and self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def ask(self, request: web.Request, body: bytes) -> Reply:
        """The seller's answer to a request."""
        assert self._session is not None
        headers = {k: v for k, v in request.headers.items() if k.lower() != "host"}
        url = self.target + request.path_qs
        asking = self._session.request(request.method, url, data=body or None, headers=headers)
        async with asking as reply:
            kept = {k: v for k, v in reply.headers.items() if k.lower() in _KEPT}
            return reply.status, kept, await reply.read()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/stream"):
            raise web.HTTPForbidden
        fault = honest
        if "PAYMENT-SIGNATURE" in request.headers or "X-PAYMENT" in request.headers:
            self.paid_posts += 1
            fault = self.faults.pop(0) if self.faults else honest
        return await fault(Post(self, request, await request.read()))
