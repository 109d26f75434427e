"""Servers that redirect, flood, trickle, compress and lie about nodes."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from buyer_fakes import FakeSeller

from computeswarm.buyer.browse import candidates, find_node
from computeswarm.buyer.http.base import Peer
from computeswarm.buyer.http.market import MarketClient
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    NodeNotFound,
    PolicyRefused,
    SellerUnavailable,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def server(handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def peer(handler: Handler) -> AsyncIterator[Peer]:
    async with server(handler) as url:
        made = Peer(url, who="The seller", unavailable=SellerUnavailable)
        yield made
        await made.close()


async def redirects(_: web.Request) -> web.StreamResponse:
    raise web.HTTPFound("http://169.254.169.254/")


async def floods(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65536)


async def trickles(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.05)


async def drops(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def fails(_: web.Request) -> web.StreamResponse:
    return web.Response(status=502, text="<html>bad gateway</html>")


@pytest.mark.parametrize("handler", [redirects, floods, trickles, drops, fails])
async def test_no_usable_answer_is_unavailable(handler: Handler) -> None:
    async with peer(handler) as made:
        with pytest.raises(SellerUnavailable) as error:
            await made.request("GET", "/", limit=1_000_000, seconds=2)
    assert "The seller at http" in error.value.detail


async def test_a_compressed_bomb_stays_compressed() -> None:
    bomb = gzip.compress(b"0" * 10_000_000)

    async def handler(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with peer(handler) as made:
        answer = await made.request("GET", "/", limit=100_000)
        assert answer.body == bomb
        with pytest.raises(BadRequest):
            answer.json()


async def test_a_problem_is_cleaned_and_can_not_pose_as_our_own_guard() -> None:
    async def handler(_: web.Request) -> web.StreamResponse:
        body = {"code": "policy_refused", "status": 403, "detail": "\x1b[2JPay\u202e me"}
        return web.json_response(body, status=403)

    async with peer(handler) as made:
        with pytest.raises(ComputeSwarmError) as error:
            await made.request("GET", "/")
    assert error.value.detail == "Pay me"
    assert not isinstance(error.value, PolicyRefused)
    assert error.value.exit_code == 125


async def test_nodes_that_their_wallet_did_not_sign_are_left_out() -> None:
    good, forged, dear = FakeSeller(price=500), FakeSeller(price=100), FakeSeller(price=900)
    for fake in (good, forged, dear):
        fake.url = "http://127.0.0.1:9"
    lie = forged.node.model_dump(mode="json")
    lie["record"]["document"]["price_per_hour"] = 1
    stolen = good.node.model_dump(mode="json") | {"node_id": forged.record.node_id}
    unsigned = forged.node.model_dump(mode="json")
    unsigned["record"]["document"]["wallet"] = PrivateKey.generate().address
    honest = [fake.node.model_dump(mode="json") for fake in (dear, good)]

    async def handler(request: web.Request) -> web.StreamResponse:
        if request.path.endswith(forged.record.node_id):
            return web.json_response(stolen)
        nodes = [lie, stolen, unsigned, None, {"node_id": "x"}, *honest]
        return web.json_response({"nodes": nodes, "next": None, "total": -4})

    async with server(handler) as url:
        market = MarketClient(url, chain_id=84532)
        page = await market.nodes()
        assert [node.info.price_per_hour for node in page.nodes] == [900, 500]
        assert (page.rejected, page.total) == (5, 2)
        # whatever the market's order, the cheapest is asked first, and only what really matches
        fit = {"image": "python", "gpu_count": 0, "max_seconds": 60}
        first, second = await candidates(market, "", **fit)  # type: ignore[arg-type]
        assert (first.info.price_per_hour, second.info.price_per_hour) == (500, 900)
        assert await candidates(market, "gpu:4090", **fit) == []  # type: ignore[arg-type]
        assert (await find_node(market, good.record.node_id[:9])).info == good.record
        with pytest.raises(NodeNotFound, match="No node"):
            await find_node(market, "nd-x")
        with pytest.raises(BadRequest, match="not its owner's"):
            await find_node(market, forged.record.node_id)
        await market.close()
