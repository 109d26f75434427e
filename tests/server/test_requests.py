"""What is measured of requests, how they are named, and that an attack fills no log."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from metric_rules import broken_rules, families, value

from computeswarm.core.errors import Unauthorized
from computeswarm.core.logs import get_logger
from computeswarm.core.metrics import Exposition
from computeswarm.server.assembly import build_app
from computeswarm.server.logs import setup_logging
from computeswarm.server.requests import RequestMeter
from computeswarm.server.routes import Route
from computeswarm.server.serving import Server
from computeswarm.server.web import json_reply

log = get_logger("test")


@pytest.fixture
def lines() -> io.StringIO:
    stream = io.StringIO()
    setup_logging("info", stream, log_format="json")
    return stream


@pytest.fixture
def meter() -> RequestMeter:
    return RequestMeter(slow_seconds=0.0)


@pytest.fixture
async def url(meter: RequestMeter) -> AsyncIterator[str]:
    async def thing(request: web.Request) -> web.StreamResponse:
        if request.match_info["name"] == "closed":
            raise Unauthorized("Not for you.")
        log.info("thing_shown", name=request.match_info["name"])
        return json_reply({})

    async def quiet(_: web.Request) -> web.StreamResponse:
        return json_reply({})

    routes = [
        Route("GET", "/things/{name}", thing, "A thing", replies={200: None}),
        Route("GET", "/quiet", quiet, "Nothing", replies={200: None}),
    ]
    app = build_app(routes, title="t", description="d", requests=meter)
    async with Server(app) as server:
        yield await server.start("127.0.0.1", 0)


def events(lines: io.StringIO, name: str) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in lines.getvalue().splitlines()]
    return [event for event in read if event["event"] == name]


async def test_routes_are_measured_by_their_pattern(url: str, meter: RequestMeter) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/things/a", "/things/b", "/things/closed", "/nowhere/1", "/nowhere/2"):
            async with session.get(url + path) as reply:
                await reply.read()
    out = Exposition("x_")
    meter.expose(out)
    assert broken_rules(out.text()) == []
    found = families(out.text(), "x_")
    thing = {"method": "GET", "route": "/things/{name}"}
    answers = found["http_responses"]
    assert value(found, "http_responses", **thing, **{"class": "2xx"}) == 2
    assert value(found, "http_responses", **thing, **{"class": "4xx"}) == 1
    # made-up paths are one route: they can't make the labels grow
    assert {s.labels["route"] for s in answers.samples} == {"/things/{name}", "other"}
    counts = [s for s in found["http_request_duration_seconds"].samples if s.name.endswith("count")]
    assert {(s.labels["route"], s.value) for s in counts} == {("/things/{name}", 3), ("other", 2)}
    assert value(found, "http_requests_in_flight") == 0


async def test_a_request_keeps_its_name(url: str, lines: io.StringIO) -> None:
    async with aiohttp.ClientSession() as session:

        async def name(path: str, given: str | None = None) -> str | None:
            headers = {} if given is None else {"X-Request-Id": given}
            async with session.get(url + path, headers=headers) as reply:
                return reply.headers.get("X-Request-Id")

        assert await name("/things/a", "abc-1.2_3") == "abc-1.2_3"
        assert events(lines, "thing_shown")[-1]["request_id"] == "abc-1.2_3"
        made = await name("/things/a")  # named by the event it logged
        assert made == events(lines, "thing_shown")[-1]["request_id"] and len(made or "") == 16
        for evil in ("x" * 65, 'a"b', "a b", "ä"):
            replaced = await name("/things/a", evil)
            assert replaced is not None and replaced != evil and len(replaced) == 16
        refused = await name("/things/closed")
        assert refused is not None  # what somebody may report has a name


async def test_refusals_are_told_together(
    url: str, meter: RequestMeter, lines: io.StringIO
) -> None:
    async with aiohttp.ClientSession() as session:
        for _ in range(50):
            async with session.get(url + "/things/closed") as reply:
                assert reply.status == 401
    assert events(lines, "requests_refused") == []
    meter.report()
    (told,) = events(lines, "requests_refused")
    assert told["count"] == 50 and told["by"] == {"401 GET /things/{name}": 50}
    assert told["addresses"] == {"127.0.0.1": 50}
    # nor do fifty slow ones make fifty lines
    assert len(events(lines, "request_slow")) == 10
    assert events(lines, "requests_slow")[0]["count"] == 50
    meter.report()
    assert len(events(lines, "requests_refused")) == 1
