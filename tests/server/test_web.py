from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from computeswarm.core.errors import BadRequest, ConfigError, PortInUse
from computeswarm.core.nodes import Heartbeat
from computeswarm.server import web as server_web
from computeswarm.server.assembly import build_app
from computeswarm.server.connections import ConnectionLimits, Connections
from computeswarm.server.routes import Route
from computeswarm.server.serving import Server
from computeswarm.server.web import json_reply, read_model, stream_body


async def _beat(request: web.Request) -> web.StreamResponse:
    return json_reply(await read_model(request, Heartbeat))


async def _stream(request: web.Request) -> web.StreamResponse:
    size = 0
    async for chunk in stream_body(request, limit=1_000_000, idle_seconds=0.2):
        size += len(chunk)
    return json_reply({"size": size})


async def _broken(_: web.Request) -> web.StreamResponse:
    raise RuntimeError("the secret is swordfish")


async def _half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"x" * 100)
    raise BadRequest("too late")


ROUTES = [
    Route("POST", "/beat", _beat, "Beat", body=Heartbeat, replies={200: Heartbeat}),
    Route("PUT", "/stream/{tail:.+}", _stream, "Stream", replies={200: "application/json"}),
    Route("GET", "/broken", _broken, "Broken"),
    Route("GET", "/half", _half, "Half"),
]


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with Server(build_app(ROUTES, title="test", description="")) as server:
        yield await server.start("127.0.0.1", 0)


@pytest.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url) as session:
        yield session


async def problem(response: aiohttp.ClientResponse) -> dict[str, object]:
    assert response.content_type == "application/problem+json"
    document = await response.json(content_type=None)
    assert document["status"] == response.status
    assert document["code"]
    assert document["detail"].endswith(".")
    return dict(document)


async def test_a_good_body_comes_back(http: aiohttp.ClientSession) -> None:
    async with http.post("/beat", json={"status": "idle"}) as response:
        assert response.status == 200
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "aiohttp" not in response.headers["Server"]
        assert (await response.json())["queued"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("GET", "/nowhere", b"", 404, "/openapi.json"),
        ("GET", "/beat", b"", 405, "POST"),
        ("POST", "/beat", b"{", 400, "JSON"),
        ("POST", "/beat", b'{"status": "asleep"}', 400, "status"),
        ("POST", "/beat", b'{"status": "idle", "queued": -1}', 400, "queued"),
        ("POST", "/beat", b"x" * 70_000, 413, "65536"),
        ("GET", "/broken", b"", 500, "operator"),
    ],
)
async def test_every_error_is_a_problem_document(
    http: aiohttp.ClientSession, method: str, path: str, body: bytes, status: int, word: str
) -> None:
    async with http.request(method, path, data=body) as response:
        assert response.status == status
        assert word in str((await problem(response))["detail"])


async def test_a_405_names_what_is_allowed(http: aiohttp.ClientSession) -> None:
    async with http.get("/beat") as response:
        assert response.headers["Allow"] == "OPTIONS, POST"


async def test_the_inside_stays_in_the_log(
    http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async with http.get("/broken") as response:
        assert "swordfish" not in await response.text()
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "swordfish" in str(record.exc_info)


async def test_an_error_after_the_answer_began_cuts_the_line(http: aiohttp.ClientSession) -> None:
    with pytest.raises(aiohttp.ClientError):
        async with http.get("/half") as response:
            await response.read()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_compressed_bomb_is_refused(http: aiohttp.ClientSession, chunked: bool) -> None:
    bomb = gzip.compress(bytes(100_000_000), 6)  # 97 kB on the wire, 100 MB behind
    for part in (bomb, gzip.compress(bytes(10_000_000), 6)):
        data: object = _pieces(part) if chunked else part
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        async with http.post("/beat", data=data, headers=headers) as response:
            assert response.status == 413
            await problem(response)


@pytest.mark.parametrize("path", ["/beat", "/broken", "/nothing"])
async def test_a_compressed_bomb_holds_up_nobody(http: aiohttp.ClientSession, path: str) -> None:
    """300 MB in 290 kB: nothing of it is unpacked that nobody wants."""
    bomb, headers = gzip.compress(bytes(300_000_000), 6), {"Content-Encoding": "gzip"}
    async with http.post("/beat", data=bomb[:60_000], headers=headers) as response:
        assert response.status == 413  # within what a body may have before it is unpacked
    began = time.process_time()
    async with http.post(path, data=bomb, headers=headers) as response:
        assert response.status in (413, 404, 405)
    assert time.process_time() - began < 0.2


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 5_000):
        yield data[start : start + 5_000]


async def test_a_compressed_body_within_the_limit_is_read(http: aiohttp.ClientSession) -> None:
    body = gzip.compress(b'{"status": "idle"}')
    async with http.post("/beat", data=body, headers={"Content-Encoding": "gzip"}) as response:
        assert response.status == 200


async def test_a_broken_compression_is_a_bad_request(http: aiohttp.ClientSession) -> None:
    headers = {"Content-Encoding": "gzip"}
    whole = gzip.compress(b'{"status": "idle"}')
    for body in (b"not gzip at all", whole[:-9], whole + b"more"):
        async with http.post("/beat", data=body, headers=headers) as response:
            assert response.status == 400, body
    async with http.post("/beat", data=b"x", headers={"Content-Encoding": "br"}) as response:
        assert response.status == 415


async def test_a_slow_body_is_cut(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(server_web.read_body.__kwdefaults__, "seconds", 0.3)
    reader, writer = await _connect(url)
    writer.write(b"POST /beat HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n{")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
    assert b" 408 " in head
    await asyncio.wait_for(reader.read(), 20)  # and the connection ends
    writer.close()


async def test_a_trickle_does_not_hold_a_body_open(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(server_web.read_body.__kwdefaults__, "seconds", 0.5)
    reader, writer = await _connect(url)
    writer.write(b"POST /beat HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
    answer = asyncio.create_task(reader.readuntil(b"\r\n"))
    async with asyncio.timeout(20):
        while not answer.done():
            writer.write(b" ")
            await asyncio.sleep(0.05)
    assert b" 408 " in answer.result()
    writer.close()


async def test_a_stalled_upload_is_cut(url: str) -> None:
    reader, writer = await _connect(url)
    writer.write(b"PUT /stream/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\nabc")
    assert b" 408 " in await asyncio.wait_for(reader.readuntil(b"\r\n"), 20)
    writer.close()


async def test_a_trickled_upload_is_cut_and_a_steady_one_is_not(url: str) -> None:
    async def send(piece: bytes, pieces: int) -> bytes:
        reader, writer = await _connect(url)
        head = f"PUT /stream/a HTTP/1.1\r\nHost: x\r\nContent-Length: {len(piece) * pieces}\r\n\r\n"
        writer.write(head.encode())
        answer = asyncio.create_task(reader.readuntil(b"\r\n"))
        async with asyncio.timeout(20):
            for _ in range(pieces):
                if answer.done():
                    break
                writer.write(piece)
                await asyncio.sleep(0.02)
            return await answer

    # never silent for long; all of it would take two seconds
    assert b" 408 " in await send(b"x", 100)
    assert b" 200 " in await send(b"x" * 1_000, 40)


async def test_a_head_that_never_ends_is_cut() -> None:
    app = build_app(ROUTES, title="test", description="")
    quick = Connections(ConnectionLimits(head_seconds=0.3))
    async with Server(app, connections=quick) as server:
        reader, writer = await _connect(await server.start("127.0.0.1", 0))
        writer.write(b"GET /beat HTTP/1.1\r\nHost: x")
        await asyncio.wait_for(reader.read(), 20)
        writer.close()


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def test_a_taken_port_and_a_strange_host_say_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Server(build_app(ROUTES, title="test", description=""))
        with pytest.raises(PortInUse, match=str(port)):
            await server.start("127.0.0.1", port)
    with pytest.raises(ConfigError):
        await server.start("203.0.113.7", 0)
    with pytest.raises(ConfigError):
        await server.start("127.0.0.1", 70_000)


async def test_the_document_lists_exactly_the_routes(http: aiohttp.ClientSession) -> None:
    async with http.get("/openapi.json") as response:
        document = await response.json()
    listed = {(m.upper(), path) for path, item in document["paths"].items() for m in item}
    assert listed == {
        ("POST", "/beat"),
        ("PUT", "/stream/{tail}"),
        ("GET", "/broken"),
        ("GET", "/half"),
        ("GET", "/openapi.json"),
    }
    schema = document["paths"]["/beat"]["post"]["requestBody"]["content"]["application/json"]
    name = schema["schema"]["$ref"].rpartition("/")[2]
    assert "status" in document["components"]["schemas"][name]["properties"]
    assert json.dumps(document).count("None") == 0
