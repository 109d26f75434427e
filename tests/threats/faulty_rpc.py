"""A JSON-RPC proxy that lies, stalls, loses and doubles, method by method.

It stands between a seller (or a buyer) and the real chain, so what is tested is the whole client
above the socket. A fault is a coroutine function from a ``Call`` to what is answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Self

import aiohttp
from aiohttp import web

HUGE_BYTES = 17 * 1024 * 1024


@dataclass(frozen=True)
class Call:
    """One request, and the ways to answer it."""

    proxy: FaultyRpc
    request: web.Request
    method: str
    params: list[Any]
    id: Any

    async def forward(self, params: list[Any] | None = None) -> dict[str, Any]:
        """The real chain's whole answer."""
        given = self.params if params is None else params
        return await self.proxy.ask(self.method, given, self.id)

    def result(self, value: Any) -> web.Response:
        """Any answer we like."""
        return web.json_response({"jsonrpc": "2.0", "id": self.id, "result": value})

    def drop(self) -> web.Response:
        """No answer: the connection breaks."""
        assert self.request.transport is not None
        self.request.transport.abort()
        return web.Response()


Fault = Callable[[Call], Awaitable[web.StreamResponse]]


async def honest(call: Call) -> web.StreamResponse:
    """The chain's own answer."""
    return web.json_response(await call.forward())


async def stall(call: Call) -> web.StreamResponse:
    """Nothing at all, until the asker gives up; the chain hears nothing of it."""
    await call.proxy.closing.wait()
    return call.drop()


async def accept_then_stall(call: Call) -> web.StreamResponse:
    """The chain took it, but the answer never comes."""
    await call.forward()
    return await stall(call)


async def drop_before(call: Call) -> web.StreamResponse:
    """The connection breaks and the chain heard nothing."""
    return call.drop()


async def drop_after(call: Call) -> web.StreamResponse:
    """The chain took it and the connection breaks: the timeout after acceptance."""
    await call.forward()
    return call.drop()


async def twice(call: Call) -> web.StreamResponse:
    """The request reaches the chain two times; the second answer comes back."""
    await call.forward()
    return web.json_response(await call.forward())


async def malformed(_: Call) -> web.StreamResponse:
    """No JSON."""
    return web.Response(body=b'{"jsonrpc": "2.0", "id": 1, "resu', content_type="application/json")


async def foreign_id(call: Call) -> web.StreamResponse:
    """The answer to another question."""
    return web.json_response({**await call.forward(), "id": -1})


async def huge(call: Call) -> web.StreamResponse:
    """More than anybody wants in memory."""
    body = b'{"jsonrpc":"2.0","id":%d,"result":"0x%s"}' % (call.id, b"00" * (HUGE_BYTES // 2))
    return web.Response(body=body, content_type="application/json")


async def trickle(call: Call) -> web.StreamResponse:
    """The right answer, a byte now and then, for longer than anybody should wait."""
    body = json.dumps(await call.forward()).encode()
    reply = web.StreamResponse(headers={"Content-Type": "application/json"})
    reply.content_length = len(body)
    await reply.prepare(call.request)
    for byte in body:
        await reply.write(bytes([byte]))
        await asyncio.sleep(0.2)
    return reply


async def nothing_yet(call: Call) -> web.StreamResponse:
    """``null``, as for what is not mined."""
    return call.result(None)


def http(status: int) -> Fault:
    """An HTTP error of the node's."""

    async def fault(_: Call) -> web.StreamResponse:
        return web.Response(status=status, text="<html>Bad Gateway</html>")

    return fault


def error(message: str, code: int = -32000) -> Fault:
    """A JSON-RPC error; the chain hears nothing of the request."""

    async def fault(call: Call) -> web.StreamResponse:
        said = {"code": code, "message": message}
        return web.json_response({"jsonrpc": "2.0", "id": call.id, "error": said})

    return fault


def forged(change: Callable[[Any], Any]) -> Fault:
    """The chain's result, changed; errors stay errors."""

    async def fault(call: Call) -> web.StreamResponse:
        answer = await call.forward()
        if "result" in answer:
            answer["result"] = change(answer["result"])
        return web.json_response(answer)

    return fault


def instead(value: Any) -> Fault:
    """This result, without asking the chain."""

    async def fault(call: Call) -> web.StreamResponse:
        return call.result(value)

    return fault


def for_calls(start: bytes, other: Fault) -> Fault:
    """``other`` for calls of one contract function, by its selector; the rest is honest."""

    async def fault(call: Call) -> web.StreamResponse:
        data = call.params[0].get("data", "")
        chosen = other if data.startswith("0x" + start.hex()) else honest
        return await chosen(call)

    return fault


def stale(block: int) -> Fault:
    """A node that stopped at ``block``: it knows nothing newer, and takes no note of it."""

    async def fault(call: Call) -> web.StreamResponse:
        if call.method == "eth_blockNumber":
            return call.result(hex(block))
        if call.method in ("eth_getTransactionReceipt", "eth_getTransactionByHash"):
            answer = await call.forward()
            found = answer["result"]
            if found is not None and int(found["blockNumber"], 16) > block:
                answer["result"] = None
            return web.json_response(answer)
        if call.method == "eth_getLogs":
            return call.result([])
        old = [hex(block) if p in ("latest", "pending") else p for p in call.params]
        return web.json_response(await call.forward(old))

    return fault


class FaultyRpc:
    """The proxy. Everything is honest until ``set`` says otherwise.

    ``calls`` are the requests so far, each (method, params).
    """

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._faults: dict[str, tuple[Fault, int | None]] = {}
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self.calls: list[tuple[str, list[Any]]] = []
        self.closing = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_post("/", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.closing.set()
        assert self._runner is not None and self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    def set(self, *methods: str, to: Fault, times: int | None = None) -> None:
        """Answer these methods (``*``: all) with a fault, so many times or until ``heal``."""
        for method in methods:
            self._faults[method] = (to, times)

    def heal(self) -> None:
        """Be honest again."""
        self._faults.clear()

    def count(self, method: str) -> int:
        """How often a method was asked."""
        return sum(name == method for name, _ in self.calls)

    def sent(self) -> list[str]:
        """The raw transactions that were to be broadcast, in order, as hex."""
        return [params[0] for name, params in self.calls if name == "eth_sendRawTransaction"]

    async def asked(self, method: str, times: int = 1) -> None:
        """Until a method was asked so often."""
        async with asyncio.timeout(30):
            while self.count(method) < times:  # noqa: ASYNC110 - the requests come from elsewhere
                await asyncio.sleep(0.005)

    async def ask(self, method: str, params: list[Any], id_: Any = 1) -> dict[str, Any]:
        """The real chain's whole answer."""
        assert self._session is not None
        document = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
        async with self._session.post(self._upstream, json=document) as reply:
            answer: dict[str, Any] = await reply.json()
            return answer

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        document = await request.json()
        method, params = document["method"], list(document.get("params") or [])
        self.calls.append((method, params))
        return await self._take(method)(Call(self, request, method, params, document["id"]))

    def _take(self, method: str) -> Fault:
        name = method if method in self._faults else "*"
        fault, times = self._faults.get(name, (honest, None))
        if times is not None:
            if times <= 1:
                del self._faults[name]
            else:
                self._faults[name] = (fault, times - 1)
        return fault
