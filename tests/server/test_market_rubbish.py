"""What a hostile stranger sends to a market: each answer is a problem document, and it lives on."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from market_fixtures import CHAIN_ID, FakeClock, MarketClient, Reply, Seller, running_market
from raw_http import Wire, get

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.eip712 import statement_digest
from computeswarm.core.jobs import SUBMISSION_KIND
from computeswarm.core.market_auth import COUNTER_HEADER, MAC_HEADER, NODE_HEADER
from computeswarm.core.nodes import RECORD_KIND
from computeswarm.core.sessions import PERMIT_HEADER, REVOCATION_KIND, SESSION_KIND, enrol
from computeswarm.core.signing import Signed, canonical_json

NODE = "/api/v1/nodes/nd-0123456789ab"
JOB = "/api/v1/jobs/job-0123456789abcdef0123"
BODIES = [
    ("POST", "/api/v1/nodes/register"),
    ("POST", f"{NODE}/heartbeat"),
    ("POST", f"{NODE}/revoke"),
    ("POST", "/api/v1/jobs/submit"),
    ("PATCH", JOB),
]
JSON = {"Content-Type": "application/json"}
KEY = PrivateKey(bytes(31) + b"\x07")


@pytest.fixture
async def market(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[tuple[MarketClient, Seller]]:
    """A market with one honest seller, who is served as well afterwards, with nothing logged."""
    async with running_market(tmp_path / "market.db", FakeClock()) as client:
        seller = Seller(client)
        assert (await seller.register()).status == 201
        yield client, seller
        assert (await seller.beat()).status == 200
        assert await client.ids() == [seller.node_id]
        health = (await client.get("/health")).json
        assert health["status"] == "ok"
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def refused(reply: Reply, *, status: int | None = None) -> None:
    assert 400 <= reply.status < 500, (reply.status, reply.body[:200])
    assert status in (None, reply.status), reply.body[:300]
    assert reply.headers["Content-Type"] == "application/problem+json"
    told = reply.json
    assert told["status"] == reply.status
    assert told["code"] and told["detail"].endswith(".") and len(told["detail"]) < 1_000
    assert "Traceback" not in told["detail"]


def _nested(depth: int, opening: str, closing: str) -> bytes:
    return (opening * depth + closing * depth).encode()


NOT_JSON = {
    "nothing": b"",
    "a brace": b"{",
    "garbage behind": b"{} x",
    "single quotes": b"{'kind': 1}",
    "a comment": b'{} // "kind"',
    "NUL": b"\x00",
    "NUL in a text": b'{"kind": "a\x00b"}',
    "UTF-16": '{"kind": "x"}'.encode("utf-16"),
    "broken UTF-8": b'{"kind": "\xff\xfe"}',
    "overlong UTF-8": b'{"kind": "\xc0\x80"}',
    "NaN": b'{"chain_id": NaN}',
    "Infinity": b'{"chain_id": -Infinity}',
    "lone surrogate": b'{"kind": "\\ud800", "chain_id": 1, "document": {}, "signature": ""}',
    "arrays deep": _nested(30_000, "[", "]"),
    "objects deep": b'{"document":' * 4_000 + b"1" + b"}" * 4_000,
    "null": b"null",
    "a list": b"[]",
    "a text": b'"record"',
    "a number": b"1e400",
    "an object": b"{}",
    "a giant number": b'{"chain_id": ' + b"9" * 60_000 + b"}",
    "a long text": json.dumps({"kind": "x" * 60_000}).encode(),
    "members by the thousand": json.dumps({str(n): n for n in range(4_000)}).encode(),
    "the same member twice": b'{"status": "idle", "status": {"a": 1}, "record": 1, "record": 2}',
    "prototype": b'{"__proto__": {"status": "idle"}, "constructor": 1}',
}


@pytest.mark.parametrize("name", NOT_JSON)
async def test_bodies_that_are_nothing(market: tuple[MarketClient, Seller], name: str) -> None:
    client, seller = market
    for method, path in BODIES:
        refused(await client.call(method, path, data=NOT_JSON[name], headers=JSON))
    # under a good MAC too: a seller may be as hostile
    refused(
        await seller.call("POST", f"/api/v1/nodes/{seller.node_id}/heartbeat", NOT_JSON[name]),
        status=400,
    )


async def test_bodies_that_are_too_large_or_in_the_wrong_form(
    market: tuple[MarketClient, Seller],
) -> None:
    client, _ = market
    bomb = gzip.compress(bytes(50_000_000), 9)
    for method, path in BODIES:
        refused(await client.call(method, path, data=b" " * 70_000), status=413)
        packed = JSON | {"Content-Encoding": "gzip"}
        refused(await client.call(method, path, data=bomb, headers=packed), status=413)
        refused(await client.call(method, path, data=b"no gzip", headers=packed), status=400)
        deflated = zlib.compress(b" " * 10_000_000)
        squeezed = JSON | {"Content-Encoding": "deflate"}
        refused(await client.call(method, path, data=deflated, headers=squeezed), status=413)
    for path in ("/api/v1/nodes/register", "/api/v1/jobs/submit", f"{NODE}/revoke"):
        for kind in (
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "text/html",
            "application/xml",
            "application/jsonp",
            "nonsense",
        ):
            reply = await client.call("POST", path, data=b"{}", headers={"Content-Type": kind})
            refused(reply, status=415)
        odd = JSON | {"Content-Encoding": "compress"}
        refused(await client.call("POST", path, data=b"{}", headers=odd), status=415)


def _paths() -> Iterator[tuple[str, int]]:
    yield from (
        ("/api/v1/nodes/../../../etc/passwd", 404),
        ("/api/v1/nodes/..%2f..%2fetc%2fpasswd", 404),
        ("/api/v1/nodes/%2e%2e/%2e%2e/", 404),
        ("/..%5c..%5cwindows", 404),
        ("//api//v1//nodes", 404),
        ("/api/v1/nodes/%00", 404),
        ("/api/v1/nodes/%ff%fe", 404),
        ("/api/v1/nodes/nd-0123456789ab%0d%0aSet-Cookie:%20x=1", 404),
        ("/api/v1/jobs/%00", 404),
        ("/api/v1/jobs/' OR 1=1 --".replace(" ", "%20"), 404),
        ("/api/v1/jobs/job-" + "a" * 4_000, 404),
        ("/api/v2/nodes", 404),
        ("/api/v1", 404),
        ("/api/v1/nodes/", 404),
        ("/.git/config", 404),
        ("/api/v1/nodes?limit=0", 400),
        ("/api/v1/nodes?limit=-1", 400),
        ("/api/v1/nodes?limit=1e3", 400),
        ("/api/v1/nodes?limit=%D9%A1%D9%A2", 400),  # Arabic digits
        ("/api/v1/nodes?limit=" + "9" * 5_000, 400),
        ("/api/v1/nodes?limit=", 400),
        ("/api/v1/nodes?cursor=x", 400),
        ("/api/v1/nodes?cursor=" + "A" * 5_000, 400),
        ("/api/v1/nodes?cursor=%00%ff", 400),
        ("/api/v1/nodes?sort=__class__", 400),
        ("/api/v1/nodes?sort=price;drop", 400),
        ("/api/v1/nodes?q=" + "a+" * 3_000, 400),
        ("/api/v1/nodes?q=vram>=" + "9" * 400, 400),
        ("/api/v1/nodes?q=price<1e999", 400),
        ("/api/v1/nodes?q=price<nan", 400),
        ("/api/v1/nodes?q=gpu:", 400),
        ("/api/v1/nodes?q=%22", 400),
        ("/api/v1/nodes?q=nosuch:1", 400),
        ("/api/v1/nodes?min_vram_gb=1e9", 400),
        ("/api/v1/nodes?max_price=0x10", 400),
        ("/api/v1/nodes/facets?q=vram>>1", 400),
        ("/discovery/resources?limit=0", 400),
        ("/discovery/resources?offset=-1", 400),
        ("/discovery/resources?offset=" + "1" * 300, 400),
        ("/api/v1/stats/prices?since=x", 400),
        ("/api/v1/stats/prices?step=0", 400),
        ("/api/v1/jobs", 400),
        ("/api/v1/jobs?wallet=me", 400),
        ("/api/v1/changes?topics=secrets", 400),
        ("/api/v1/changes?topics=jobs", 401),
        ("/api/v1/changes?q=nosuch:1", 400),
        ("/api/v1/" + "x" * 9_000, 414),
    )


@pytest.mark.parametrize(("path", "status"), list(_paths()), ids=lambda v: str(v)[:50])
async def test_paths_and_queries(
    market: tuple[MarketClient, Seller], path: str, status: int
) -> None:
    client, _ = market
    async with _wire(client) as wire:
        wire.writer.write(get(path))
        answered, headers, body = await wire.answer()
    assert answered == status, body[:300]
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == status
    assert "set-cookie" not in headers


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/nodes?q=%00",
        "/api/v1/nodes?q=%ed%a0%80",  # a lone surrogate
        "/api/v1/nodes?q=%F0%9F%92%A9",
        "/api/v1/nodes?gpu_type=%27%20OR%201%3D1",
        "/api/v1/nodes?limit=1&limit=999999999",
        "/api/v1/nodes?" + "&".join(f"x{n}=1" for n in range(500)),
        "/api/v1/nodes?q[]=1&q[$ne]=2",
        "/discovery/resources?payTo=%00&network=" + "9" * 3_000,
        "/api/v1/stats/prices?gpu=%00|" + "x" * 3_000,
        "/api/v1/stats/prices?since=99999999999&until=1",
    ],
    ids=lambda path: str(path)[:40],
)
async def test_odd_words_find_something_or_are_refused(
    market: tuple[MarketClient, Seller], path: str
) -> None:
    client, _ = market
    async with _wire(client) as wire:
        wire.writer.write(get(path))
        status, headers, _ = await wire.answer()
    assert status in (200, 400)
    problem = status == 400
    assert headers["content-type"] == ("application/problem+json" if problem else JSON_TYPE)


JSON_TYPE = "application/json"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("DELETE", "/api/v1/nodes", 405),
        ("PUT", "/api/v1/stats", 405),
        ("POST", "/api/v1/nodes/facets", 405),
        ("TRACE", "/health", 405),
        ("PROPFIND", "/api/v1/nodes", 405),
        ("GET", "http://evil.example/api/v2", 404),
        ("OPTIONS", "*", 404),
        ("CONNECT", "evil.example:443", 404),
        ("get", "/api/v1/nodes", 400),
        ("FROBNICATE", "/api/v1/nodes", 400),
    ],
)
async def test_methods(
    market: tuple[MarketClient, Seller], method: str, target: str, status: int
) -> None:
    client, _ = market
    async with _wire(client) as wire:
        wire.writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answered, headers, body = await wire.answer()
    assert answered == status, body
    assert headers["content-type"] == "application/problem+json"
    if status == 405:
        assert headers["allow"]


ODD_HEADERS: list[tuple[str, str]] = [
    (COUNTER_HEADER, "-1"),
    (COUNTER_HEADER, "1e3"),
    (COUNTER_HEADER, "9" * 5_000),
    (COUNTER_HEADER, "\xb9"),
    (COUNTER_HEADER, ""),
    (MAC_HEADER, ""),
    (MAC_HEADER, "zz" * 32),
    (MAC_HEADER, "ab" * 3_000),
    (MAC_HEADER, "\xff" * 64),
    (NODE_HEADER, "../../etc"),
    (NODE_HEADER, "\xff" * 12),
    (NODE_HEADER, "x" * 7_000),
]


@pytest.mark.parametrize(("name", "value"), ODD_HEADERS, ids=lambda value: str(value)[:20])
async def test_calls_with_odd_credentials(
    market: tuple[MarketClient, Seller], name: str, value: str
) -> None:
    client, seller = market
    path, body = f"/api/v1/nodes/{seller.node_id}/heartbeat", b'{"status":"idle"}'
    given = seller.auth("POST", path, body) | {name: value}
    head = "".join(f"{key}: {text}\r\n" for key, text in given.items())
    start = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{head}\r\n"
    async with _wire(client) as wire:
        wire.writer.write(start.encode("latin-1") + body)
        status, headers, _ = await wire.answer()
    assert 400 <= status < 500
    assert headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "permit",
    [
        "",
        "x",
        "====",
        "A" * 7_000,
        base64.b64encode(b"null").decode(),
        base64.b64encode(b"[" * 5_000).decode(),
        base64.b64encode(b'{"document": {"wallet": {"a": 1}}}').decode(),
        base64.b64encode(b"\xff" * 300).decode(),
    ],
    ids=lambda text: str(text)[:12] or "none",
)
async def test_odd_permits(market: tuple[MarketClient, Seller], permit: str) -> None:
    client, _ = market
    headers = {PERMIT_HEADER: permit}
    for path in (f"/api/v1/jobs?wallet={KEY.address}", "/api/v1/changes?topics=jobs"):
        refused(await client.get(path, headers=headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"If-None-Match": '"' * 3_000},
        {"If-None-Match": 'W/"\xff", *, ""'},
        {"Accept-Encoding": "gzip;q=,;;,deflate;q=9" * 50},
        {"Accept": "text/nonsense;q=x"},
        {"Range": "bytes=0-1,5-2,-99999999999"},
        {"X-Forwarded-For": ", " * 2_000 + "\xff"},
        {"X-Request-Id": "a\tb" * 500},
        {"Origin": "null", "Access-Control-Request-Method": "DELETE"},
        {"Cookie": "a=" + "b" * 5_000},
        {"Connection": "Upgrade", "Upgrade": "websocket"},
        {"Content-Length": "0"},
        {"Host": "evil.example"},
    ],
    ids=lambda given: next(iter(given)),
)
async def test_headers_that_mean_nothing_here(
    market: tuple[MarketClient, Seller], headers: dict[str, str]
) -> None:
    client, _ = market
    lines = [f"{name}: {value}" for name, value in headers.items()]
    request = "\r\n".join(["GET /api/v1/nodes HTTP/1.1", *lines, "", ""])
    if "Host" not in headers:
        request = request.replace("HTTP/1.1", "HTTP/1.1\r\nHost: x", 1)
    async with _wire(client) as wire:
        status = await wire.ask(request.encode("latin-1"))
        assert status in (200, 304)
        assert await wire.ask(get("/health")) == 200, "the line goes on"


@pytest.mark.parametrize(
    "chunks",
    [
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-1\r\n{}\r\n0\r\n\r\n",
        b"FFFFFFFFFFFFFFFFFF\r\n{}",
        b"2\r\n{}X\r\n0\r\n\r\n",
        b"2;" + b"x" * 20_000 + b"\r\n{}\r\n0\r\n\r\n",
        b"11170\r\n" + b" " * 70_000 + b"\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nContent-Length: 5\r\n\r\n",
        b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    ],
    ids=lambda chunks: str(chunks[:20]),
)
async def test_chunks_that_are_none(market: tuple[MarketClient, Seller], chunks: bytes) -> None:
    client, _ = market
    head = b"POST /api/v1/nodes/register HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with _wire(client) as wire:
        wire.writer.write(head + chunks)
        status, headers, _ = await wire.answer()
    assert 400 <= status < 500
    assert headers["content-type"] == "application/problem+json"


def _signed(kind: str, document: dict[str, Any], chain_id: int = CHAIN_ID) -> Signed:
    """Well signed, whatever it says."""
    digest = statement_digest(chain_id, kind, canonical_json(document))
    signature = "0x" + KEY.sign_digest(digest).hex()
    return Signed(kind=kind, chain_id=chain_id, document=document, signature=signature)


EVIL_VALUES: list[Any] = [
    None,
    -1,
    2**63,
    10**300,
    "",
    "x" * 20_000,
    "a\x00b",
    "\ud800",
    "\x1b[31m\r\nSet-Cookie: a=b",
    "\u202egpj.exe",
    [],
    [[[[[[]]]]]],
    {"a": {"b": 1}},
    True,
    "javascript:alert(1)",
    "http://user:pass@127.0.0.1:1/\r\nX: y",
]
RECORD_MEMBERS = (
    "wallet",
    "name",
    "endpoint",
    "hardware",
    "isolation",
    "price_per_hour",
    "slice_seconds",
    "seq",
    "issued_at",
    "images",
    "region",
)


@pytest.mark.parametrize("member", RECORD_MEMBERS)
async def test_signed_records_with_evil_members(
    market: tuple[MarketClient, Seller], member: str
) -> None:
    client, seller = market
    evil = Seller(client, name="evil", key=KEY)
    good = evil.record().model_dump(mode="json")
    for number, value in enumerate(EVIL_VALUES):
        record = _signed(RECORD_KIND, good | {member: value})
        made, _ = enrol(KEY, evil.signed(), client.url, seller.issued_at)
        session = made.session.document | {"record_hash": "0x" + record.digest().hex()}
        if member == "seq":
            session["seq"] = value
        enrolment = {"record": record, "session": _signed(SESSION_KIND, session)}
        body = json.dumps({k: v.model_dump(mode="json") for k, v in enrolment.items()}).encode()
        reply = await client.call("POST", "/api/v1/nodes/register", data=body, headers=JSON)
        if reply.status == 201:  # an unusual one, but it can be read: true is 1, "" is no region
            assert member in ("seq", "region", "name") and value in (True, ""), (number, value)
            assert (await evil.revoke(seq=2**52)).status == 204
            evil.name = f"evil{number}"
            good = evil.record().model_dump(mode="json")
        else:
            refused(reply)


@pytest.mark.parametrize("member", ["job_id", "node_id", "buyer", "spec_hash", "max_seconds"])
async def test_signed_submissions_and_revocations_with_evil_members(
    market: tuple[MarketClient, Seller], member: str
) -> None:
    client, seller = market
    job = {
        "job_id": "job-0123456789abcdef0123",
        "node_id": seller.node_id,
        "buyer": KEY.address,
        "spec_hash": "0x" + "ab" * 32,
        "price_per_hour": 360_000,
        "max_seconds": 600,
        "issued_at": seller.issued_at,
    }
    for value in [*EVIL_VALUES, "; rm -rf /"]:
        signed = _signed(SUBMISSION_KIND, job | {member: value})
        body = json.dumps(signed.model_dump(mode="json")).encode()
        reply = await client.call("POST", "/api/v1/jobs/submit", data=body, headers=JSON)
        if (member, value) == ("max_seconds", True):
            assert reply.status == 201  # which is 1
        else:
            refused(reply)
        taken = {"wallet": KEY.address, "node_id": seller.node_id, "seq": value, "issued_at": value}
        revoked = _signed(REVOCATION_KIND, taken)
        body = json.dumps(revoked.model_dump(mode="json")).encode()
        path = f"/api/v1/nodes/{seller.node_id}/revoke"
        refused(await client.call("POST", path, data=body, headers=JSON))


class _wire:  # used as a function
    """A raw connection to a market."""

    def __init__(self, client: MarketClient) -> None:
        self._address = urlsplit(client.url)

    async def __aenter__(self) -> Wire:
        host, port = self._address.hostname, self._address.port
        reader, self._writer = await asyncio.open_connection(host, port, limit=2**20)
        return Wire(reader, self._writer)

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
