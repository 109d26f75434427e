"""The stream over real HTTP: its start, its refusals, its end, and going on elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from market_fixtures import CHAIN_ID, START, FakeClock, MarketClient, Seller, running_market
from market_fixtures import submission as signed_submission
from stream_hands import LIMIT, stream
from yarl import URL

from computeswarm.core.changes import Change, JobChanged, NodeListed, PriceChanged, StatsChanged
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.sessions import PERMIT_HEADER, make_permit
from computeswarm.core.signing import Signed
from computeswarm.market import open_market
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import SHUTDOWN_SECONDS, Server

BUYER = PrivateKey(bytes(31) + b"\x05")
NODES: dict[str, Any] = {"topics": "nodes"}
IMAGES = [f"{n:0110}" for n in range(64)]
"""What makes a record large."""


def permit(client: MarketClient, key: PrivateKey = BUYER, now: float = START) -> dict[str, str]:
    return {PERMIT_HEADER: make_permit(key, CHAIN_ID, client.url, now)}


async def submit(client: MarketClient, signed: Signed) -> str:
    body = signed.model_dump_json()
    reply = await client.call("POST", "/api/v1/jobs/submit", data=body)
    assert reply.status == 201, reply.body
    return str(reply.json["job_id"])


async def test_a_node_is_told_of_from_its_registration_to_its_leaving(client: MarketClient) -> None:
    seller = Seller(client)
    async with stream(client, topics="nodes,prices") as all_nodes:
        async with stream(client, topics="nodes", q="idle") as idle:
            headers = idle.response.headers
            assert headers["Content-Type"] == "text/event-stream; charset=utf-8"
            assert "no-store" in headers["Cache-Control"]
            assert headers["X-Accel-Buffering"] == "no"
            assert headers["Access-Control-Allow-Origin"] == "*"
            assert "Content-Encoding" not in headers
            assert (await seller.register()).status == 201
            (listed,) = await idle.kinds("listed")
            assert isinstance(listed, NodeListed)
            assert listed.node.info.price_per_hour == 360_000
            assert (await seller.beat("busy")).status == 200
            await idle.kinds("listed", "hidden")
            assert (await seller.register(price_per_hour=350_000)).status == 201
            await idle.kinds("listed", "hidden", "listed")
        await all_nodes.kinds("listed", "changed", "listed", "price")
        price = all_nodes.changes[-1]
        assert isinstance(price, PriceChanged)
        assert (price.before, price.price_per_hour, price.at) == (360_000, 350_000, START)
        assert (await seller.leave()).status == 204
        await all_nodes.kinds("price", "left")


async def test_statistics_come_at_once_and_again(client: MarketClient, seller: Seller) -> None:
    async with stream(client, topics="stats") as figures:
        await figures.until(lambda changes: len(changes) >= 2)
        first = figures.changes[0]
        assert isinstance(first, StatsChanged)
        assert first.stats.nodes_total == 1


async def test_jobs_are_told_to_their_wallets(client: MarketClient, seller: Seller) -> None:
    other = PrivateKey.generate()
    async with (
        stream(client, topics="jobs", headers=permit(client)) as mine,
        stream(client, topics="jobs", headers=permit(client, seller.key)) as sold,
        stream(client, topics="jobs", headers=permit(client, other)) as theirs,
        stream(client, topics="nodes") as public,
    ):
        job_id = await submit(client, signed_submission(seller.node_id, BUYER))
        await mine.kinds("job")
        assert (await seller.patch(job_id, "running")).status == 200
        assert (await seller.patch(job_id, "succeeded", exit_code=0)).status == 200
        for reader in (mine, sold):
            await reader.until(
                lambda all_: "succeeded" in [c.job.state for c in all_ if isinstance(c, JobChanged)]
            )
        await public.kinds("changed")  # the node's count
        assert not theirs.changes


async def test_what_is_wrong_is_said_before_the_stream(client: MarketClient) -> None:
    path = "/api/v1/changes"
    for params, headers, status, code in (
        ({"topics": "nodes,weather"}, {}, 400, "bad_request"),
        ({"q": "vram>=many"}, {}, 400, "invalid_query"),
        ({"topics": "jobs"}, {}, 401, "unauthorized"),
        ({"topics": "jobs"}, {PERMIT_HEADER: "x"}, 400, "bad_request"),
        ({"topics": "jobs"}, permit(client, now=START - 200_000), 401, "unauthorized"),
    ):
        async with asyncio.timeout(LIMIT):
            reply = await client.get(path, params=params, headers=headers)
        assert (reply.status, reply.json["code"]) == (status, code)
        assert reply.headers["Content-Type"].startswith("application/problem+json")
    head = await client.call("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Type"].startswith("text/event-stream")
    assert (await client.call("HEAD", path, params={"topics": "?"})).status == 400
    assert (await client.call("POST", path, data="{}")).status == 405


async def test_a_permit_that_runs_out_ends_the_stream(
    client: MarketClient, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("computeswarm.server.market_app_watch.KEEP_ALIVE_SECONDS", 0.05)
    async with stream(client, topics="jobs", headers=permit(client)) as mine:
        clock.time += 86_401
        await mine.end()


async def test_a_reader_goes_on_with_its_cursor(client: MarketClient, seller: Seller) -> None:
    async with stream(client, **NODES) as first:
        assert (await seller.beat("busy")).status == 200
        await first.until(bool)
    missed = Seller(client, name="missed")
    assert (await missed.register()).status == 201
    assert (await seller.leave()).status == 204
    async with stream(client, first.cursor, **NODES) as again:
        await again.until(lambda all_: sorted(c.type for c in all_) == ["left", "listed"])
    async with stream(client, since=first.cursor, **NODES) as by_parameter:
        await by_parameter.until(lambda all_: sorted(c.type for c in all_) == ["left", "listed"])


async def test_a_market_that_closes_ends_its_streams_and_a_restarted_one_resets(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "market.db"
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession() as session:
        server = Server(build_market_app(open_market(path, clock=clock)))
        client = MarketClient(session, await server.start("127.0.0.1", 0))
        async with stream(client, **NODES) as reader:
            began = loop.time()
            closing = asyncio.create_task(server.close())
            await reader.end()
            await closing
    assert loop.time() - began < SHUTDOWN_SECONDS  # nobody had to be cut off
    async with (
        running_market(path, clock) as client,
        stream(client, reader.cursor, **NODES) as again,
    ):
        assert [change.type for change in again.changes] == ["reset"]
        assert (await Seller(client).register()).status == 201
        await again.kinds("reset", "listed")


async def test_the_history_is_its_wallets_alone(client: MarketClient, seller: Seller) -> None:
    jobs = [await submit(client, signed_submission(seller.node_id, BUYER)) for _ in range(5)]
    path = "/api/v1/jobs"
    got: list[str] = []
    cursor = ""
    while True:
        params = {"wallet": BUYER.address.lower(), "limit": "2", "cursor": cursor}
        reply = await client.get(path, params=params, headers=permit(client))
        assert reply.status == 200, reply.body
        assert "no-store" in reply.headers["Cache-Control"]
        got += [job["job_id"] for job in reply.json["jobs"]]
        cursor = reply.json["next"]
        if cursor is None:
            break
    assert sorted(got) == sorted(jobs)
    sold = await client.get(
        path, params={"wallet": seller.key.address}, headers=permit(client, seller.key)
    )
    assert len(sold.json["jobs"]) == 5
    mine = {"wallet": BUYER.address}
    for params, headers, status in (
        (mine, {}, 401),
        (mine, permit(client, seller.key), 401),
        (mine, {PERMIT_HEADER: "AAAA"}, 400),
        ({}, permit(client), 400),
        ({"wallet": "0x12"}, permit(client), 400),
        ({**mine, "limit": "0"}, permit(client), 400),
        ({**mine, "cursor": "nonsense"}, permit(client), 400),
        ({**mine, "cursor": f"{10**13}.{jobs[0]}"}, permit(client), 400),
    ):
        assert (await client.get(path, params=params, headers=headers)).status == status


@pytest.mark.parametrize("cursor", ["x" * 4_000, "-1", "00000000-1", "1.1", "\xff\xfe", "a b, c"])
async def test_a_hostile_cursor_is_a_reset_and_no_error(client: MarketClient, cursor: str) -> None:
    async with stream(client, cursor, **NODES) as reader:
        assert [change.type for change in reader.changes] == ["reset"]
        assert (await Seller(client).register()).status == 201
        await reader.kinds("reset", "listed")


async def test_a_reader_that_takes_nothing_holds_nobody_up(client: MarketClient) -> None:
    sellers = [Seller(client, name=f"rig-{n}", changes={"images": IMAGES}) for n in range(8)]
    url = URL(client.url)
    assert url.host is not None
    assert url.port is not None
    _, writer = await asyncio.open_connection(url.host, url.port, limit=2**10)
    writer.write(b"GET /api/v1/changes?topics=nodes HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()  # and never reads
    async with stream(client, **NODES) as quick:
        for turn in range(12):
            for seller in sellers:
                assert (await seller.register(price_per_hour=turn + 1)).status == 201
            await quick.until(
                lambda all_, turn=turn: sum(_price(c) == turn + 1 for c in all_) >= len(sellers)  # type: ignore[misc]
            )
    writer.close()


def _price(change: Change) -> int:
    return change.node.info.price_per_hour if isinstance(change, NodeListed) else 0
