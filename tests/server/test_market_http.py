"""The market's HTTP manners: limits, caches, other sites' pages, versions, methods."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from market_fixtures import FakeClock, MarketClient, Reply, Seller, submission

from computeswarm.core.crypto import PrivateKey
from computeswarm.market import open_market
from computeswarm.market.limits import Kind, Limit
from computeswarm.server.market_app import build_market_app
from computeswarm.server.proxies import Clients, read_networks
from computeswarm.server.serving import Server

NODES = "/api/v1/nodes"
LIST = f"{NODES}?limit=50"


@asynccontextmanager
async def market(
    path: Path, clock: FakeClock, limits: dict[Kind, Limit], *, trusted: str = ""
) -> AsyncIterator[MarketClient]:
    made = open_market(path / "market.db", clock=clock, limits=limits)
    app = build_market_app(made, clients=Clients(read_networks(trusted)))
    async with Server(app) as server, aiohttp.ClientSession() as session:
        yield MarketClient(session, await server.start("127.0.0.1", 0))


def refused(reply: Reply, limit: str) -> int:
    """Seconds to wait."""
    assert reply.status == 429, reply.body
    assert reply.headers["Content-Type"] == "application/problem+json"
    told = reply.json
    assert (told["code"], told["limit"]) == ("too_many_requests", limit)
    assert str(told["retry_after"]) == reply.headers["Retry-After"]
    return int(told["retry_after"])


async def test_reading_is_limited_by_address_and_heartbeats_are_not(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with market(tmp_path, clock, {Kind.READ: Limit(5, 10)}) as client:
        seller = Seller(client)
        assert (await seller.register()).status == 201
        replies = [await client.get(LIST) for _ in range(8)]
        assert [reply.status for reply in replies] == [200] * 5 + [429] * 3
        wait = refused(replies[-1], "read per address")
        for _ in range(30):
            assert (await seller.beat()).status == 200
        assert (await client.get("/health")).status == 200
        clock.time += wait
        assert (await client.get(LIST)).status == 200


async def test_who_fails_to_show_who_he_is_stands_in_nobody_elses_way(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with market(tmp_path, clock, {Kind.AUTH: Limit(4, 60)}) as client:
        honest, thief = Seller(client), Seller(client, name="thief")
        assert (await honest.register()).status == 201
        thief.session_key = bytes(32)
        statuses = []
        for _ in range(6):
            statuses.append((await thief.beat(node=honest.node_id)).status)
            last = await client.call(
                "POST", f"{NODES}/{honest.node_id}/heartbeat", data=b'{"status":"idle"}'
            )
            assert (await honest.beat()).status == 200, "from the same address"
        assert statuses[0] in (401, 404) and statuses[-1] == 429
        refused(last, "auth per address")


async def test_a_wallet_is_limited_wherever_it_asks_from_and_by_its_own_word_only(
    tmp_path: Path, clock: FakeClock
) -> None:
    limits = {Kind.SUBMIT: Limit(3, 60), Kind.REGISTER: Limit(3, 60)}
    async with market(tmp_path, clock, limits, trusted="127.0.0.1") as client:
        addresses = iter(range(1, 200))

        async def call(path: str, body: str) -> Reply:
            headers = {
                "X-Forwarded-For": f"198.51.100.{next(addresses)}",
                "Content-Type": "application/json",
            }
            return await client.call("POST", path, data=body, headers=headers)

        seller = Seller(client)
        assert (await seller.register()).status == 201
        buyer, forger = PrivateKey.generate(), PrivateKey.generate()

        async def submit(key: PrivateKey, signer: PrivateKey | None = None) -> Reply:
            signed = submission(seller.node_id, key)
            if signer is not None:
                forged = "0x" + signer.sign_digest(signed.digest()).hex()
                signed = signed.model_copy(update={"signature": forged})
            return await call("/api/v1/jobs/submit", signed.model_dump_json())

        for _ in range(5):  # in the buyer's name, but not with his key
            assert (await submit(buyer, signer=forger)).status == 401
        for _ in range(3):
            assert (await submit(buyer)).status == 201
        refused(await submit(buyer), "submit per wallet")
        assert (await submit(forger)).status == 201
        for _ in range(2):
            body = seller.enrolment().model_dump_json()
            assert (await call(f"{NODES}/register", body)).status == 201
        body = seller.enrolment().model_dump_json()
        refused(await call(f"{NODES}/register", body), "register per wallet")


@pytest.mark.parametrize(
    ("trusted", "counted_apart"), [("", False), ("127.0.0.0/8", True), ("10.0.0.0/8", False)]
)
async def test_a_proxy_is_believed_only_where_it_is_ours(
    tmp_path: Path, clock: FakeClock, trusted: str, counted_apart: bool
) -> None:
    async with market(tmp_path, clock, {Kind.READ: Limit(1, 60)}, trusted=trusted) as client:

        async def status(forwarded: str) -> int:
            return (await client.get(LIST, headers={"X-Forwarded-For": forwarded})).status

        assert await status("198.51.100.1") == 200
        assert await status("198.51.100.2") == (200 if counted_apart else 429)
        assert await status("198.51.100.1") == 429
        # what the client itself put before doesn't help him
        assert await status("203.0.113.77, 198.51.100.1") == 429
        # all of a customer's IPv6 addresses are one
        first = await status("2001:db8:5:5::1")
        assert first == (200 if counted_apart else 429)
        assert await status("2001:db8:5:5:ffff::2") == 429


async def test_lists_are_kept_by_whoever_stands_between(client: MarketClient) -> None:
    for number in range(8):
        assert (await Seller(client, name=f"rig{number}").register()).status == 201
    first = await client.get(LIST)
    etag, control = first.headers["ETag"], first.headers["Cache-Control"]
    assert "public" in control and "s-maxage=1" in control and "stale-while-revalidate" in control
    assert first.headers["Vary"] == "Accept-Encoding"
    strong = etag.removeprefix("W/")
    for given in (etag, f"W/{strong}", f'"a", {strong} , "b"', "*"):
        reply = await client.get(LIST, headers={"If-None-Match": given})
        assert (reply.status, reply.body) == (304, b""), given
        assert reply.headers["ETag"].removeprefix("W/") == strong
        assert "Cache-Control" in reply.headers
    for given in ('"a"', strong[:-2] + '"', strong.strip('"'), '""', "W/"):
        assert (await client.get(LIST, headers={"If-None-Match": given})).status == 200, given
    assert (await Seller(client, name="more").register()).status == 201
    assert (await client.get(LIST, headers={"If-None-Match": etag})).status == 200
    manifest = await client.get("/x402.json")
    assert "max-age=30" in manifest.headers["Cache-Control"]
    known = {"If-None-Match": manifest.headers["ETag"]}
    assert (await client.get("/x402.json", headers=known)).status == 304


async def test_what_is_asked_for_again_comes_compressed_where_that_is_wanted(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with market(tmp_path, clock, {}) as client:
        for number in range(8):
            assert (await Seller(client, name=f"rig{number}").register()).status == 201
        url = client.url
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            raw = MarketClient(session, url)
            plain = (await raw.get(LIST, headers={"Accept-Encoding": "identity"})).body
            wanted = {"Accept-Encoding": "br, gzip;q=0.8"}
            await raw.get(LIST, headers=wanted)
            packed = await raw.get(LIST, headers=wanted)
            assert packed.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(packed.body) == plain and len(packed.body) < len(plain) / 3
            assert packed.headers["ETag"].startswith("W/"), "not the same bytes"
            again = {"If-None-Match": packed.headers["ETag"], **wanted}
            assert (await raw.get(LIST, headers=again)).status == 304
            for refused_coding in ("gzip;q=0", "identity", "", "br"):
                reply = await raw.get(LIST, headers={"Accept-Encoding": refused_coding})
                assert "Content-Encoding" not in reply.headers and reply.body == plain


async def test_other_sites_pages_may_read_what_is_public_and_nothing_else(
    client: MarketClient, seller: Seller
) -> None:
    origin = {"Origin": "https://prices.example"}
    node = f"{NODES}/{seller.node_id}"
    for path in (LIST, f"{NODES}/facets", node, "/api/v1/stats", "/x402.json", "/openapi.json"):
        reply = await client.get(path, headers=origin)
        assert reply.headers["Access-Control-Allow-Origin"] == "*", path
        assert "Access-Control-Allow-Credentials" not in reply.headers
    missing = await client.get(f"{NODES}/nd-000000000000", headers=origin)
    assert missing.status == 404 and missing.headers["Access-Control-Allow-Origin"] == "*"
    asked = origin | {"Access-Control-Request-Method": "GET"}
    preflight = await client.call("OPTIONS", node, headers=asked)
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET, HEAD"
    assert set(preflight.headers["Allow"].split(", ")) == {"GET", "HEAD", "DELETE", "OPTIONS"}
    wallet = f"/api/v1/jobs?wallet={seller.key.address}"
    for method, path in (
        ("GET", wallet),
        ("OPTIONS", "/api/v1/jobs"),
        ("GET", "/metrics"),
        ("POST", f"{node}/heartbeat"),
        ("OPTIONS", f"{node}/heartbeat"),
    ):
        reply = await client.call(method, path, headers=origin)
        assert "Access-Control-Allow-Origin" not in reply.headers, path


async def test_heads_methods_and_versions(client: MarketClient) -> None:
    head, got = await client.call("HEAD", LIST), await client.get(LIST)
    assert (head.status, head.body) == (200, b"")
    for name in ("ETag", "Content-Length", "Content-Type", "Cache-Control"):
        assert head.headers[name] == got.headers[name]
    wrong = await client.call("PUT", NODES)
    assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
    other = await client.get("/api/v7/nodes")
    assert (other.status, other.json["versions"]) == (404, ["v1"])


async def test_the_document_says_what_can_go_wrong(client: MarketClient) -> None:
    document = (await client.get("/openapi.json")).json
    paths = document["paths"]
    for path, item in paths.items():
        for method, operation in item.items():
            answers = operation["responses"]
            problems = {status for status in answers if not status.isdigit() or int(status) >= 400}
            assert "default" in problems, (method, path)
            if "429" in problems:
                assert "Retry-After" in answers["429"]["headers"]
            if operation.get("security"):
                assert "401" in problems, (method, path)
            if operation.get("requestBody"):
                assert {"400", "413", "415"} <= problems, (method, path)
    beat = paths[f"{NODES}/{{node_id}}/heartbeat"]["post"]
    assert set(beat["security"][0]) == {"node", "counter", "mac"}
    assert {"node", "counter", "mac", "permit"} <= set(document["components"]["securitySchemes"])
    limit = next(p for p in paths[NODES]["get"]["parameters"] if p["name"] == "limit")
    assert limit["schema"]["type"] == "integer" and limit["schema"]["minimum"] == 1
    assert "Within `/api/v1`" in document["info"]["description"]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def client(tmp_path: Path, clock: FakeClock) -> AsyncIterator[MarketClient]:
    async with market(tmp_path, clock, {}) as made:
        yield made


@pytest.fixture
async def seller(client: MarketClient) -> Seller:
    made = Seller(client)
    assert (await made.register()).status == 201
    return made
