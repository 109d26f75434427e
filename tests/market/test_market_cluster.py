"""Three markets, one PostgreSQL, a balancer that asks another one each time."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
import pytest
from cli_program import free_port, run, serving
from market_cluster import Cluster, cluster, until
from market_fixtures import MarketClient, Reply, Seller, submission
from postgres_server import Postgres

from computeswarm.core.crypto import PrivateKey

BUYER = PrivateKey(bytes(31) + b"\x05")
ASSERTED_STALENESS = 1.0


@pytest.fixture
async def three(postgres_url: str, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with cluster(postgres_url, tmp_path) as made:
        yield made


def seller_at(client: MarketClient, name: str = "rig") -> Seller:
    return Seller(client, name=name, issued_at=int(time.time()))


async def submit(client: MarketClient, seller: Seller) -> Reply:
    signed = submission(seller.node_id, BUYER, issued_at=seller.issued_at)
    return await client.call("POST", "/api/v1/jobs/submit", data=signed.model_dump_json())


async def test_any_instance_takes_any_call(three: Cluster) -> None:
    a, b, c = three.clients
    seller = seller_at(a)
    assert (await seller.register()).status == 201
    seller.client = b  # it has not heard of the node yet, or just now
    assert (await seller.beat("busy")).status == 200

    async def shown_at_all() -> bool:
        return all([await one.ids("busy") == [seller.node_id] for one in three.clients])

    await until(shown_at_all)
    seller.client = c
    job = (await submit(c, seller)).json["job_id"]
    seller.client = a
    assert (await seller.patch(job, "running")).status == 200
    seller.client = b
    assert (await seller.patch(job, "succeeded", metered_ms=5, paid=7)).status == 200

    async def counted_at_all() -> bool:
        nodes = [(await one.get(f"/api/v1/nodes/{seller.node_id}")).json for one in three.clients]
        stats = [(await one.get("/api/v1/stats")).json for one in three.clients]
        return all(node["jobs_succeeded"] == 1 for node in nodes) and all(
            figures["jobs"] == {"succeeded": 1} and figures["paid"] == 7 for figures in stats
        )

    await until(counted_at_all)
    seller.client = c
    assert (await seller.leave()).status == 204

    async def gone_at_all() -> bool:
        return not any([await one.ids("offline") for one in three.clients])

    await until(gone_at_all)
    assert (await seller.beat()).status == 404


async def test_a_search_is_nowhere_staler_than_a_second(three: Cluster) -> None:
    sellers = [seller_at(three.any, f"rig-{n}") for n in range(6)]
    assert {(await seller.register()).status for seller in sellers} == {201}
    worst = 0.0
    for turn in range(4):
        for seller in sellers:
            status = ("busy", "idle")[turn % 2]
            assert (await seller.beat(status)).status == 200
        wanted = {seller.node_id for seller in sellers}

        async def shown(status: str = status, wanted: set[str] = wanted) -> bool:
            return all([set(await one.ids(status)) == wanted for one in three.clients])

        worst = max(worst, await until(shown))
    # half a second until a lease is written, a moment until it is read; the rest is the machine
    assert worst < 3 * ASSERTED_STALENESS


async def test_a_call_that_is_repeated_elsewhere_does_no_harm(three: Cluster) -> None:
    a, b, c = three.clients
    seller = seller_at(a)
    enrolment = seller.enrolment()
    assert (await seller.register(enrolment)).status == 201
    job = (await submit(a, seller)).json["job_id"]
    path, body = f"/api/v1/jobs/{job}", b'{"state":"running"}'
    made = seller.auth("PATCH", path, body)
    assert (await a.call("PATCH", path, data=body, headers=made)).status == 200
    assert (await seller.patch(job, "succeeded")).status == 200
    for one in (a, b, c):
        again = await one.call("PATCH", path, data=body, headers=made)
        assert again.status in (401, 409), again.body
        # the registration, word for word, begins no session and ends none
        copied = await one.call("POST", "/api/v1/nodes/register", data=enrolment.model_dump_json())
        assert copied.status == 409
    assert (await c.get(path)).json["state"] == "succeeded"
    beat_path, beat = f"/api/v1/nodes/{seller.node_id}/heartbeat", b'{"status":"busy"}'
    made = seller.auth("POST", beat_path, beat)
    assert (await b.call("POST", beat_path, data=beat, headers=made)).status == 200

    async def refused_at_all() -> bool:
        return all(
            [
                (await one.call("POST", beat_path, data=beat, headers=made)).status == 401
                for one in three.clients
            ]
        )

    await until(refused_at_all)
    # whatever the copies renewed meanwhile, the node's own next call is taken anywhere
    for one in (c, a, b):
        seller.client = one
        assert (await seller.beat()).status == 200


async def test_one_node_registers_at_two_instances_at_once(three: Cluster) -> None:
    a, b, c = three.clients
    seller = seller_at(a)
    for _ in range(5):
        low, high = seller.enrolment(), seller.enrolment()
        replies = await asyncio.gather(
            a.call("POST", "/api/v1/nodes/register", data=low.model_dump_json()),
            b.call("POST", "/api/v1/nodes/register", data=high.model_dump_json()),
        )
        assert replies[1].status == 201
        assert replies[0].status in (201, 409)
        key = seller.pending[high.record.document["seq"]].mac_key(replies[1].json["market_key"])
        seller.session_key = key
        for number, one in enumerate((c, a, b), start=1):
            seller.client = one
            assert (await seller.beat(counter=number)).status == 200
        if replies[0].status == 201:  # its session was ended by the higher one
            pending = seller.pending[low.record.document["seq"]]
            dead = pending.mac_key(replies[0].json["market_key"])
            for one in three.clients:
                seller.client = one
                assert (await seller.beat(counter=9, session_key=dead)).status == 401


async def test_one_job_is_updated_at_two_instances_at_once(three: Cluster) -> None:
    a, b, c = three.clients
    seller = seller_at(a)
    assert (await seller.register()).status == 201
    for _ in range(5):
        job = (await submit(c, seller)).json["job_id"]
        path = f"/api/v1/jobs/{job}"
        bodies = (b'{"state":"succeeded"}', b'{"state":"seller_lost"}')
        calls = [
            (one, body, seller.auth("PATCH", path, body))
            for one, body in zip((a, b), bodies, strict=True)
        ]
        replies = await asyncio.gather(
            *(one.call("PATCH", path, data=body, headers=made) for one, body, made in calls)
        )
        assert sorted(reply.status for reply in replies)[0] == 200
        (won,) = [reply for reply in replies if reply.status == 200]
        for one in three.clients:
            assert (await one.get(path)).json["state"] == won.json["state"]

    async def each_counted_once() -> bool:
        nodes = [(await one.get(f"/api/v1/nodes/{seller.node_id}")).json for one in three.clients]
        return all(node["jobs_succeeded"] + node["jobs_failed"] == 5 for node in nodes)

    await until(each_counted_once)


async def test_kill_9_of_one_in_mid_traffic_loses_nothing_acknowledged(three: Cluster) -> None:
    listed: set[str] = set()
    jobs: dict[str, str] = {}
    enough, over = asyncio.Event(), asyncio.Event()

    async def again(call: object) -> Reply:
        """As a seller does: a broken line says nothing, so the same is asked once more."""
        while True:
            try:
                return await call()  # type: ignore[operator, no-any-return]
            except aiohttp.ClientError:
                await asyncio.sleep(0.05)

    async def traffic(number: int) -> None:
        round_ = 0
        while not over.is_set():
            round_ += 1
            seller = seller_at(three.any, f"rig-{number}-{round_}")
            reply = await again(seller.register)
            assert reply.status == 201, reply.body
            listed.add(seller.node_id)
            assert (await again(seller.beat)).status == 200
            signed = submission(seller.node_id, BUYER, issued_at=seller.issued_at)
            body = signed.model_dump_json()
            reply = await again(lambda: three.any.call("POST", "/api/v1/jobs/submit", data=body))  # noqa: B023
            assert reply.status in (200, 201), reply.body
            job = reply.json["job_id"]
            jobs[job] = "created"
            reply = await again(lambda: seller.patch(job, "running"))  # noqa: B023
            assert reply.status == 200, reply.body
            jobs[job] = "running"
            if len(jobs) >= 20:
                enough.set()

    async def killer() -> None:
        await asyncio.wait_for(enough.wait(), 60)
        await three.instances[1].end()
        killed_at = len(jobs)

        async def went_on() -> bool:
            return len(jobs) >= killed_at + 20

        await until(went_on)
        over.set()

    await asyncio.gather(*map(traffic, range(4)), killer())
    await three.instances[1].start()
    for client in three.clients:

        async def all_there(client: MarketClient = client) -> bool:
            found: set[str] = set()
            cursor = ""
            while True:
                given = {"limit": 200, "cursor": cursor}
                page = (await client.get("/api/v1/nodes", params=given)).json
                found |= {node["node_id"] for node in page["nodes"]}
                if not (cursor := page["next"] or ""):
                    return listed <= found

        await until(all_there)
        for job, state in jobs.items():
            assert (await client.get(f"/api/v1/jobs/{job}")).json["state"] == state


@pytest.mark.parametrize("how", ["stall", "cut"])
async def test_one_that_is_cut_off_says_so_reads_on_and_heals(three: Cluster, how: str) -> None:
    a, b, _ = three.clients
    away, home = three.instances[1], seller_at(a, "home")
    far = seller_at(b, "far")
    for seller in (home, far):
        assert (await seller.register()).status == 201

    async def both_at_b() -> bool:
        return len(await b.ids()) == 2

    await until(both_at_b)
    getattr(away.line, how)()

    async def refuses() -> bool:
        reply = await seller_at(b, "new").register()
        assert reply.status in (201, 503), reply.body
        if reply.status == 503:
            assert reply.json["code"] == "unavailable"
            assert int(reply.headers["Retry-After"]) >= 1
        return reply.status == 503

    await until(refuses, pause=0.3)
    # a sign of life is taken, and so is one of a node that is known to be elsewhere
    assert (await far.beat("busy")).status == 200
    assert await b.ids("busy") == [far.node_id]
    home.client = b
    assert (await home.beat("draining")).status == 200
    home.client = a
    # what only the others know is not refused for good
    later = seller_at(a, "later")
    assert (await later.register()).status == 201
    later.client = b
    assert (await later.beat()).status == 503

    async def says_so() -> bool:
        return bool((await b.get("/api/v1/stats")).json["stale_seconds"] >= 1)

    await until(says_so)
    assert int((await b.get("/api/v1/nodes")).headers["ComputeSwarm-Stale"]) >= 1
    assert "ComputeSwarm-Stale" not in (await a.get("/api/v1/nodes")).headers
    assert (await b.get("/health/ready")).status == 200
    assert (await a.get("/api/v1/stats")).json["stale_seconds"] == 0
    away.line.heal()

    async def healed() -> bool:
        stats = (await b.get("/api/v1/stats")).json
        return (
            stats["stale_seconds"] == 0
            and (await later.beat()).status == 200
            and set(await a.ids("busy")) == {far.node_id}
            and set(await a.ids("draining")) == {home.node_id}
        )

    await until(healed)
    assert (await far.register()).status == 201


async def test_all_of_them_outlive_a_restart_of_the_database(
    lone_postgres: Postgres, tmp_path: Path
) -> None:
    async with cluster(lone_postgres.url(), tmp_path) as three:
        a, b, _ = three.clients
        seller = seller_at(a)
        assert (await seller.register()).status == 201
        job = (await submit(b, seller)).json["job_id"]
        lone_postgres.kill()

        async def degraded() -> bool:
            replies = [await submit(one, seller) for one in three.clients]
            assert all(reply.status in (201, 503) for reply in replies), replies
            return {reply.status for reply in replies} == {503}

        await until(degraded, pause=0.3)
        seller.client = b
        assert (await seller.beat("busy")).status == 200
        assert await b.ids("busy") == [seller.node_id]
        lone_postgres.start()

        async def healed() -> bool:
            return all([await one.ids("busy") == [seller.node_id] for one in three.clients]) and {
                (await submit(one, seller)).status for one in three.clients
            } == {201}

        await until(healed, pause=0.3)
        for one in three.clients:
            assert (await one.get(f"/api/v1/jobs/{job}")).json["state"] == "created"


async def test_a_password_shows_nowhere(postgres_url: str, tmp_path: Path) -> None:
    given = postgres_url.partition("://")[2].rpartition("@")[0].partition(":")[2]
    assert given and unquote(given) != given, "the fixture's password has to be a hard one"
    async with cluster(postgres_url, tmp_path, count=1) as one:
        (instance,) = one.instances
        await instance.end()
        await instance.start("--database", instance.database)
        assert instance.process is not None
        arguments = Path(f"/proc/{instance.process.pid}/cmdline").read_bytes().decode()
        assert "--database" in arguments
        shown = [instance.told.decode(), arguments]
        shown += [(await one.any.get(path)).body.decode() for path in ("/health", "/metrics", "/")]
        instance.line.cut()

        async def degraded() -> bool:
            reply = await seller_at(one.any).register()
            assert reply.status in (201, 503), reply
            shown.append(reply.body.decode())
            return reply.status == 503

        await until(degraded, pause=0.3)
        ended = time.monotonic()
        await instance.end(signal.SIGTERM)
        assert time.monotonic() - ended < 20, "it waited for a database that is away"
        shown.append(instance.log)
        assert "Traceback" not in instance.log
        assert not any(secret in text for text in shown for secret in (given, unquote(given)))


async def test_the_usual_variables_and_files_say_where_the_database_is(
    postgres_url: str, tmp_path: Path
) -> None:
    parts = urlsplit(postgres_url)
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:*:{unquote(parts.password or '')}\n")
    passwords.chmod(0o600)
    environ = {
        "COMPUTESWARM_DATABASE": "postgresql://",
        "PGHOST": str(parts.hostname),
        "PGPORT": str(parts.port),
        "PGUSER": str(parts.username),
        "PGDATABASE": parts.path.removeprefix("/"),
        "PGPASSFILE": str(passwords),
    }
    with serving("market", "--port", free_port(), "--json", home=tmp_path, **environ) as (told, _):
        async with aiohttp.ClientSession() as session:
            client = MarketClient(session, told["market"])
            assert (await seller_at(client).register()).status == 201
    assert not (tmp_path / "market").exists(), "it is a file after all"


@pytest.mark.parametrize(
    ("database", "words"),
    [
        ("postgresql://market:s3cr3t@127.0.0.1:1/market", "127.0.0.1:1"),
        ("postgresql://market:s3cr3t@127.0.0.1:x/market", "port"),
        ("mysql://market:s3cr3t@127.0.0.1/market", "mysql"),
    ],
)
def test_a_database_that_can_not_be_had_is_one_sentence(
    tmp_path: Path, database: str, words: str
) -> None:
    done = run("market", "--port", free_port(), "--database", database, home=tmp_path)
    assert done.code == 125
    sentence = done.one_sentence()
    assert words in sentence and "s3cr3t" not in done.err + done.out
