"""Connections that take too much: too many of them, heads that trickle, readers that don't read."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from aiohttp import web
from raw_http import Wire, get

from computeswarm.core.errors import BadRequest
from computeswarm.server import serving as serving_module
from computeswarm.server.assembly import build_app
from computeswarm.server.connections import (
    MAX_FIELD,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_LINE,
    ConnectionLimits,
    Connections,
)
from computeswarm.server.routes import Route
from computeswarm.server.serving import Server
from computeswarm.server.web import bytes_reply, json_reply

BIG = 64 * 1024 * 1024
SMALL = get("/small")


class Raw:
    """A server and raw connections to it."""

    def __init__(self, connections: Connections, port: int, stack: AsyncExitStack) -> None:
        self.connections, self._port, self._stack = connections, port, stack

    async def wire(self, address: str = "127.0.0.1") -> Wire:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self._port, limit=2**20, local_addr=(address, 0)
        )
        self._stack.callback(writer.close)
        return Wire(reader, writer)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not true():  # noqa: ASYNC110  # what is waited for happens in the server
                await asyncio.sleep(0.02)


async def _small(_: web.Request) -> web.StreamResponse:
    return json_reply({})


async def _big(_: web.Request) -> web.StreamResponse:
    return bytes_reply(bytes(BIG))


async def _refuse(_: web.Request) -> web.StreamResponse:
    raise BadRequest("No.")


ROUTES = [
    Route("GET", "/small", _small, "Small"),
    Route("GET", "/big", _big, "Big"),
    Route("POST", "/refuse", _refuse, "Refuse"),
]


@asynccontextmanager
async def serving(
    limits: ConnectionLimits, trusts: Callable[[str], bool] = lambda _: False
) -> AsyncIterator[Raw]:
    connections = Connections(limits, trusts=trusts)
    app = build_app(ROUTES, title="t", description="d")
    async with Server(app, connections=connections) as server, AsyncExitStack() as stack:
        url = await server.start("127.0.0.1", 0)
        yield Raw(connections, int(url.rpartition(":")[2]), stack)


@pytest.mark.parametrize(
    ("limits", "status", "code"),
    [
        (ConnectionLimits(total=5, per_address=50), 503, "unavailable"),
        (ConnectionLimits(total=50, per_address=5), 429, "too_many_requests"),
    ],
)
async def test_no_more_connections_than_that(
    limits: ConnectionLimits, status: int, code: str
) -> None:
    async with serving(limits) as raw:
        held = [await raw.wire() for _ in range(5)]
        assert [await wire.ask(SMALL) for wire in held] == [200] * 5
        refused = await raw.wire()
        answered, headers, body = await refused.answer()
        assert answered == status and int(headers["retry-after"]) > 0
        assert headers["content-type"] == "application/problem+json"
        assert json.loads(body)["code"] == code
        assert await refused.ended() == b""
        assert raw.connections.open == 5
        # those that are in are served on, and one that leaves makes room
        assert await held[1].ask(SMALL) == 200
        held[0].writer.close()
        await raw.until(lambda: raw.connections.open == 4)
        assert await (await raw.wire()).ask(SMALL) == 200
        assert sum(raw.connections.refused.values()) == 1


async def test_a_proxy_of_ours_may_have_all_of_them() -> None:
    limits = ConnectionLimits(total=20, per_address=2)
    async with serving(limits, trusts=lambda address: address == "127.0.0.1") as raw:
        wires = [await raw.wire() for _ in range(10)]
        assert [await wire.ask(SMALL) for wire in wires] == [200] * 10


async def test_no_more_than_the_machine_lets_it_have(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, serving_module.OWN_FILES + 3))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    async with serving(ConnectionLimits(total=5_000, per_address=50)) as raw:
        assert asked == [(serving_module.OWN_FILES + 3,) * 2]
        held = [await raw.wire() for _ in range(3)]
        assert [await wire.ask(SMALL) for wire in held] == [200] * 3
        assert (await (await raw.wire()).answer())[0] == 503


async def test_ended_connections_leave_nothing_behind() -> None:
    async with serving(ConnectionLimits(total=3, per_address=3)) as raw:
        for _ in range(10):
            wire = await raw.wire()
            assert await wire.ask(SMALL) == 200
            wire.writer.close()
            await raw.until(lambda: raw.connections.open == 0)
        assert raw.connections._by_address == {}


async def test_a_head_that_trickles_is_cut_and_told_why() -> None:
    async with serving(ConnectionLimits(head_seconds=0.4)) as raw:
        first, later, silent, good = [await raw.wire() for _ in range(4)]
        assert await later.ask(SMALL) == 200 and await good.ask(SMALL) == 200

        async def trickle(wire: Wire) -> tuple[int, dict[str, str], bytes]:
            answer = asyncio.create_task(wire.answer())
            wire.writer.write(b"GET /small HTTP/1.1\r\nX: ")
            while not answer.done():
                wire.writer.write(b"y")
                await asyncio.sleep(0.02)
            return answer.result()

        answers = await asyncio.gather(trickle(first), trickle(later), silent.ended())
        assert answers[2] == b"", "who never said a word is told nothing"
        for status, headers, body in answers[:2]:
            assert (status, json.loads(body)["code"]) == (408, "request_timeout")
            assert headers["connection"] == "close"
        # idle between requests is no crime
        assert await good.ask(SMALL) == 200
        assert raw.connections.refused == {"request_timeout": 3}


async def test_a_reader_who_takes_nothing_is_cut_and_a_slow_one_is_not() -> None:
    limits = ConnectionLimits(send_seconds=1.0, send_bytes=64 * 1024)
    async with serving(limits) as raw:
        stuck, slow = await raw.wire(), await raw.wire()
        for wire in (stuck, slow):
            wire.writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")

        async def read_slowly() -> int:
            got = 0
            while got < BIG and (block := await slow.reader.read(1_500_000)):
                got += len(block)
                await asyncio.sleep(0.05)
            return got

        assert await read_slowly() >= BIG
        await raw.until(lambda: raw.connections.refused == {"slow_reader": 1})
        assert await slow.ask(SMALL) == 200


async def test_when_it_is_crowded_the_idle_make_room() -> None:
    limits = ConnectionLimits(total=10, per_address=10, head_seconds=5, crowded_idle_seconds=0.1)
    async with serving(limits) as raw:
        wires = [await raw.wire() for _ in range(9)]
        assert [await wire.ask(SMALL) for wire in wires] == [200] * 9
        await raw.until(lambda: raw.connections.open == 0)
        assert raw.connections.refused == {"idle": 9}
        assert await (await raw.wire()).ask(SMALL) == 200


async def test_idle_connections_end_in_time() -> None:
    async with serving(ConnectionLimits(idle_seconds=0.3)) as raw:
        wire = await raw.wire()
        assert await wire.ask(SMALL) == 200
        assert await wire.ended() == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/" + "a" * MAX_LINE), 414),
        (get("/small", "X: " + "a" * 2 * MAX_FIELD), 431),
        (get("/small", *(f"X-{n}: 1" for n in range(MAX_FIELDS + 1))), 431),
        (get("/small", *(f"X-{n}: 1" for n in range(MAX_FIELDS - 2))), 200),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS on a plain port
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", 400),
        (b"GET /small HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (get("/small", "Bad Header: 1"), 400),
        (get("/small", "X: a\x00b"), 400),
        (get("/small", "Content-Length: -1"), 400),
        (get("/small", "Content-Length: 5", "Content-Length: 6"), 400),
        (get("/small", "Content-Length: 5", "Transfer-Encoding: chunked"), 400),
        (get("/small", "Transfer-Encoding: chunked, identity"), 400),
        (get("/small", "Expect: a miracle"), 417),
        (b"POST /refuse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
    ],
    ids=lambda value: str(value[:40]) if isinstance(value, bytes) else None,
)
async def test_what_is_no_request_gets_a_problem_document(
    request_bytes: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(ConnectionLimits()) as raw:
        wire = await raw.wire()
        wire.writer.write(request_bytes)
        answered, headers, body = await wire.answer()
        assert answered == status
        if status != 200:
            assert headers["content-type"] == "application/problem+json"
            assert json.loads(body)["status"] == status
        assert await (await raw.wire()).ask(SMALL) == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_long_head_in_pieces_is_refused_before_it_is_all_here() -> None:
    async with serving(ConnectionLimits()) as raw:
        wire = await raw.wire()
        wire.writer.write(b"GET /small HTTP/1.1\r\nHost: x\r\n")
        answer = asyncio.create_task(wire.answer())
        sent = 0
        while not answer.done() and sent < 4 * MAX_HEAD:
            line = b"X-Same: " + b"a" * 8_000 + b"\r\n"
            wire.writer.write(line)
            sent += len(line)
            await asyncio.sleep(0.01)
        assert (await answer)[0] == 431


async def test_a_flood_of_pipelined_requests_is_answered_in_turn() -> None:
    async with serving(ConnectionLimits()) as raw:
        wire = await raw.wire()
        wire.writer.write(SMALL * 3_000)
        for _ in range(3_000):
            assert (await wire.answer())[0] == 200


async def test_continue_is_said_where_it_is_waited_for() -> None:
    async with serving(ConnectionLimits()) as raw:
        wire = await raw.wire()
        wire.writer.write(
            b"POST /refuse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert (await wire.answer())[0] == 100
        wire.writer.write(b"{}")
        assert (await wire.answer())[0] == 400


async def test_a_few_addresses_do_not_keep_all_others_out() -> None:
    async with serving(ConnectionLimits(total=16, per_address=8)) as raw:
        greedy = [await raw.wire(f"127.0.0.{n % 2 + 2}") for n in range(16)]
        for wire in greedy:
            assert await wire.ask(SMALL) == 200
        assert raw.connections.open == 16
        others = [await raw.wire("127.0.0.9") for _ in range(2)]
        assert [await wire.ask(SMALL) for wire in others] == [200, 200]
        assert raw.connections.open == 16
        assert raw.connections.refused["made_room"] == 2
        # who is refused has a quarter of what the fullest has, and that one is not worse off yet
        third = await raw.wire("127.0.0.9")
        assert (await third.answer())[0] == 503
        assert [await wire.ask(SMALL) for wire in others] == [200, 200]
