from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from market_fixtures import FakeClock, MarketClient, Seller, running_market, submission

from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ConfigError, StorageFull, Unavailable
from computeswarm.core.ids import new_job_id
from computeswarm.core.jobs import MarketJob
from computeswarm.market import open_market
from computeswarm.market.stores import open_store

BUYER = PrivateKey(bytes(31) + b"\x05")
PROGRAM = """
import contextlib, sys
from pathlib import Path
from typing import Any
from computeswarm.market import open_market
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server, run, run_until_signal

@contextlib.asynccontextmanager
async def service():
    async with Server(build_market_app(open_market(Path(sys.argv[1])))) as server:
        yield await server.start("127.0.0.1", 0)

run(run_until_signal(service(), ready=lambda url: print(url, flush=True)))
"""


async def test_a_restart_forgets_nothing(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "market.db"
    async with running_market(path, clock) as client:
        seller, left = Seller(client), Seller(client, name="left")
        assert (await seller.register()).status == 201
        assert (await left.register()).status == 201
        old = left.enrolment()
        assert (await left.register()).status == 201
        assert (await left.leave()).status == 204
        signed = submission(seller.node_id, BUYER)
        await client.call("POST", "/api/v1/jobs/submit", data=signed.model_dump_json())
        job_id = str(signed.document["job_id"])
        assert (await seller.patch(job_id, "succeeded", metered_ms=500)).status == 200
        clock.time += 10
        assert (await seller.beat("busy", counter=70)).status == 200
        before = [(await client.get(p)).body for p in ("/api/v1/nodes", "/api/v1/stats")]
    async with running_market(path, clock) as client:
        seller.client = client
        after = [(await client.get(p)).body for p in ("/api/v1/nodes", "/api/v1/stats")]
        assert after == before
        assert (await client.get(f"/api/v1/jobs/{job_id}")).json["metered_ms"] == 500
        assert (await seller.beat(counter=70)).status == 401
        assert (await seller.beat(counter=71)).status == 200
        left.client = client
        assert (await left.register(old)).status == 409


async def test_after_an_hour_down_everybody_gets_the_chance_of_a_beat_and_no_more(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "market.db"
    async with running_market(path, clock) as client:
        gone, there, dead = (Seller(client, name=name) for name in ("gone", "there", "dead"))
        assert (await gone.register()).status == 201
        clock.time += 91
        for seller in (there, dead):
            assert (await seller.register()).status == 201
        assert set(await client.ids()) == {there.node_id, dead.node_id}
    clock.time += 3_600
    async with running_market(path, clock) as client:
        gone.client = there.client = client
        assert set(await client.ids()) == {there.node_id, dead.node_id}
        assert (await there.beat()).status == 200
        clock.time += 60
        assert await client.ids() == [there.node_id]
        assert (await gone.beat()).status == 200
        assert set(await client.ids()) == {there.node_id, gone.node_id}
        # the hour counts as absence: 60 s waited, the lease of 90 s before, of 3,660 s
        (node,) = (await client.get("/api/v1/nodes", params={"q": "there"})).json["nodes"]
        assert node["uptime_permille"] == round(1000 * 150 / 3_660)


@asynccontextmanager
async def market_process(
    path: Path,
) -> AsyncIterator[tuple[asyncio.subprocess.Process, MarketClient]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        url = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
        async with aiohttp.ClientSession() as session:
            yield process, MarketClient(session, url)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_kill_9_in_mid_traffic_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "market.db"
    now = int(SystemClock().now())
    registered: set[str] = set()
    enough = asyncio.Event()
    submitted: dict[str, str] = {}
    async with market_process(path) as (process, client):

        async def traffic(number: int) -> None:
            seller = Seller(client, name=f"rig-{number}", issued_at=now)
            for _ in range(1_000):
                assert (await seller.register()).status == 201
                registered.add(seller.node_id)
                signed = submission(seller.node_id, BUYER)
                body = signed.model_dump_json()
                reply = await client.call("POST", "/api/v1/jobs/submit", data=body)
                assert reply.status == 201
                submitted[reply.json["job_id"]] = "created"
                assert (await seller.patch(reply.json["job_id"], "running")).status == 200
                submitted[reply.json["job_id"]] = "running"
                if len(submitted) >= 40:
                    enough.set()

        async def killer() -> None:
            await asyncio.wait_for(enough.wait(), 60)
            process.send_signal(signal.SIGKILL)

        results = await asyncio.gather(*map(traffic, range(4)), killer(), return_exceptions=True)
        assert results[-1] is None
        assert all(isinstance(r, aiohttp.ClientError) for r in results[:-1]), results
    async with market_process(path) as (_, client):
        assert set(await client.ids()) == registered
        for job_id, state in submitted.items():
            found = (await client.get(f"/api/v1/jobs/{job_id}")).json["state"]
            assert found in (state, "running")  # an answer may have been lost after the commit


async def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "market.db"
    sqlite3.connect(path).execute("PRAGMA user_version=999").connection.close()
    with pytest.raises(ConfigError, match="later version"):
        await open_market(path).start()
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(ConfigError, match=r"market\.db"):
        await open_market(path).start()


async def test_only_the_owner_reads_the_session_keys(tmp_path: Path) -> None:
    store = open_store(tmp_path / "market.db")
    await store.open()
    await store.close()
    assert (tmp_path / "market.db").stat().st_mode & 0o077 == 0


async def test_a_full_disk_refuses_and_heals(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "market.db"
    market = open_market(path, clock=clock)
    await market.start()
    seller = Seller(MarketClient(None, ""))  # type: ignore[arg-type]
    room = market.store._writer._db  # type: ignore[attr-defined]
    room.execute("PRAGMA max_page_count=1")
    big: dict[str, Any] = {"images": tuple("x" * 100 + str(n) for n in range(60))}
    with pytest.raises((StorageFull, Unavailable)):
        for _ in range(50):
            await market.register(seller.enrolment(name="n" + str(next(seller.seq)), **big))
    known = market.table.live()
    assert known == rows(path)
    room.execute("PRAGMA max_page_count=1000000")
    await market.register(seller.enrolment(name="healed"))
    assert market.table.live() == known + 1 == rows(path)
    await market.close()


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM nodes").fetchone()[0])


async def test_absurd_numbers_of_a_seller_do_not_keep_the_market_from_starting(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "market.db"
    most = 2**53 - 1
    async with running_market(path, clock) as client:
        seller = Seller(client)
        assert (await seller.register()).status == 201
        signed = submission(seller.node_id, PrivateKey.generate())
        body = signed.model_dump_json()
        job_id = signed.document["job_id"]
        assert (await client.call("POST", "/api/v1/jobs/submit", data=body)).status == 201
        assert (await seller.patch(job_id, "succeeded", metered_ms=most, paid=7)).status == 200
        job = MarketJob.model_validate((await client.get(f"/api/v1/jobs/{job_id}")).json)
    store = open_store(path)
    await store.open()
    # 2,000 more such jobs: their plain sum is past 63 bits
    more = [job.model_copy(update={"job_id": new_job_id()}) for _ in range(2_000)]
    await asyncio.gather(*(store.add_job(each, "{}") for each in more))
    await store.close()
    async with running_market(path, clock) as client:
        stats = (await client.get("/api/v1/stats")).json
    assert stats["jobs"] == {"succeeded": 2001}
    assert stats["paid"] == 7 * 2001
    assert stats["mean_job_ms"] == most


async def test_a_record_that_an_earlier_version_took_stops_no_start(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "market.db"
    async with running_market(path, clock) as client:
        odd, good = Seller(client, "odd"), Seller(client, "good")
        for seller in (odd, good):
            assert (await seller.register()).status == 201
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "UPDATE nodes SET facts=x'', record=CAST(replace(CAST(record AS TEXT),"
            """ '"slice_seconds":60', '"slice_seconds":0') AS BLOB) WHERE node_id=?""",
            (odd.node_id,),
        )
        database.commit()
    async with running_market(path, clock) as client:
        assert await client.ids("") == [good.node_id]
        assert (await client.get(f"/api/v1/nodes/{odd.node_id}")).status == 404
        odd.client = good.client = client
        assert (await odd.beat()).status == 404
        assert (await good.beat()).status == 200
        assert (await odd.register()).status == 201
        assert sorted(await client.ids("")) == sorted([odd.node_id, good.node_id])
