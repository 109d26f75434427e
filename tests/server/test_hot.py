"""The hot route: the same answers as on the long way round."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime

import aiohttp
import pytest
from aiohttp import web

from computeswarm.core.errors import Unauthorized
from computeswarm.server.assembly import build_app
from computeswarm.server.hot import ReadyReply
from computeswarm.server.requests import RequestMeter
from computeswarm.server.routes import Route
from computeswarm.server.serving import Server
from computeswarm.server.web import read_body

BODY = b'{"said":"yes"}'


async def said(request: web.Request) -> web.StreamResponse:
    if await read_body(request) == b"no":
        raise Unauthorized("That is not yours.")
    return ReadyReply(BODY)


async def other(request: web.Request) -> web.StreamResponse:
    return web.Response(text=f"other {request.match_info['name']}")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    routes = [
        Route("POST", "/things/{name}/say", said, "Say", hot=True),
        Route("GET", "/things/{name}/say", other, "Hear"),
    ]
    app = build_app(routes, title="t", description="t", requests=RequestMeter())
    async with Server(app) as server:
        yield await server.start("127.0.0.1", 0)


async def raw(url: str, text: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(text.encode())
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


async def test_many_on_one_connection_are_answered_in_turn(url: str) -> None:
    one = "POST /things/a/say HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
    last = one.replace("Host: x", "Host: x\r\nConnection: close")
    answer = await raw(url, one * 3 + last)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert answer.count(BODY) == 4
    assert answer.count(b"Connection: close") == 1


async def test_the_short_and_the_long_way_give_the_same(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        heads = []
        for more in ({}, {"X-Request-Id": "abc"}, {"Expect": "100-continue"}):
            async with session.post(f"{url}/things/a/say", headers=more, data=b"hi") as reply:
                assert (reply.status, await reply.read()) == (200, BODY)
                parsedate_to_datetime(reply.headers["Date"])
                named = {name.lower(): value for name, value in reply.headers.items()}
                heads.append({name: value for name, value in named.items() if name != "date"})
        assert heads[1].pop("x-request-id") == "abc"
        assert heads[0] == heads[1] == heads[2]
        assert heads[0]["content-length"] == str(len(BODY))
    old = await raw(url, "POST /things/a/say HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
    assert old.startswith(b"HTTP/1.0 200 OK\r\n") and old.endswith(BODY)


async def test_what_is_not_for_it_goes_the_usual_way(url: str) -> None:
    async with aiohttp.ClientSession() as session:
        for method, path, status in (
            ("GET", "/things/a/say", 200),
            ("PUT", "/things/a/say", 405),
            ("POST", "/things/a/b/say", 404),
            ("POST", "/things//say", 404),
            ("POST", "/say", 404),
        ):
            async with session.request(method, url + path) as r:
                assert r.status == status, path
        async with session.post(f"{url}/things/a/say", data=b"no") as reply:
            assert reply.status == 401
            assert (await reply.json())["detail"] == "That is not yours."
