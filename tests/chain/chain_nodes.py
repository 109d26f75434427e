"""Nodes that answer as a test says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
FakeNode = Callable[[Answer], Awaitable[str]]


class FakeNodes:
    """HTTP servers on free ports, until they are closed."""

    def __init__(self) -> None:
        self._runners: list[web.AppRunner] = []

    async def start(self, answer: Answer) -> str:
        """Start one; its address."""
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        self._runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}/"

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()


def replying(**members: Any) -> Answer:
    """A node that answers every request with these members."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], **members})

    return answer


def by_method(**results: Any) -> Answer:
    """A node that answers each method with a result, or with an error where that is an object with
    a ``code``; what it does not know it refuses."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        result = results.get(asked["method"], {"code": -32601, "message": "no such method"})
        error = isinstance(result, dict) and "code" in result
        member = {"error" if error else "result": result}
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], **member})

    return answer


def plain(text: str, status: int = 200, **headers: str) -> Answer:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status, headers=headers)

    return answer


async def never(_request: web.Request) -> web.StreamResponse:
    """A node that takes a request and says nothing."""
    await asyncio.sleep(3600)
    return web.Response()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
