"""A PostgreSQL that is stopped, killed, restarted, full or refuses: bounded waits, and it heals."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from postgres_server import Postgres, ask
from store_hands import KEY, all_nodes, job, leases, node_id, row, soon

from computeswarm.core.errors import ComputeSwarmError, ConfigError, StorageFull, Unavailable
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Count, Store

BOUND = 30.0
"""Seconds no call may exceed, whatever the server does; the slowest gives up after 12."""


@pytest.fixture
async def store(lone_postgres: Postgres) -> AsyncIterator[Store]:
    made = open_store(lone_postgres.url())
    await made.open()
    yield made
    if lone_postgres.process is None:
        lone_postgres.start()
    lone_postgres.cont()
    await eventually(made.ping)
    await made.close()


async def eventually(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat it until the server is found to be back."""
    deadline = soon()
    while True:
        try:
            return await call()
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def refused(store: Store, n: int) -> None:
    """Every call says that the server is away, and when to come back."""
    calls = (
        store.save_node(row(n)),
        store.remove_node(node_id(1), session_key=KEY, counter=900),
        store.add_job(job(n), "{}"),
        store.node(node_id(1)),
        store.position(),
        store.job_totals(),
        store.share({"a": Count(1, 2e9)}),
        store.flush(),
        store.ping(),
    )
    began = time.monotonic()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - began < BOUND
    for result in results:
        assert isinstance(result, Unavailable), result
        assert result.extra["retry_after"] > 0
        assert "a%b" not in result.detail
    assert store.unavailable_since is not None
    assert abs(time.time() - store.unavailable_since) < 2 * BOUND


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_away_and_back(how: str, store: Store, lone_postgres: Postgres) -> None:
    saved = await store.save_node(row(1))
    start = await store.position()
    if how == "killed":
        lone_postgres.kill()
    else:
        lone_postgres.stop()
    for counter in range(1, 6):
        store.touch(leases((saved.number, 1, counter, 1_000.0 + counter)))
    await refused(store, 2)
    assert store.backlog > 0

    if how == "killed":
        lone_postgres.start()
    else:
        lone_postgres.cont()
    await eventually(lambda: store.save_node(row(3)))
    await eventually(store.flush)
    kept = await all_nodes(store)
    assert kept[node_id(1)].lease.counter == 5
    assert node_id(3) in kept
    assert store.unavailable_since is None
    # and it is told to others
    changes = await store.changes(start)
    assert changes is not None
    assert [change.leases["counter"][0] for change in changes if change.leases is not None] == [5]
    waiting = asyncio.create_task(store.wait(60))
    await asyncio.sleep(0)
    await eventually(lambda: store.save_node(row(4)))
    await asyncio.wait_for(waiting, BOUND)


async def test_it_closes_in_time_while_the_server_hangs(
    store: Store, lone_postgres: Postgres
) -> None:
    saved = await store.save_node(row(1))
    await store.node(node_id(1))
    lone_postgres.stop()
    store.touch(leases((saved.number, 1, 1, 1_001.0)))
    began = time.monotonic()
    await store.close()
    assert time.monotonic() - began < BOUND
    lone_postgres.cont()


async def test_nothing_acknowledged_is_lost_over_restarts(
    store: Store, lone_postgres: Postgres
) -> None:
    acknowledged: list[str] = []
    running = True

    async def register(lane: int) -> None:
        n = lane
        while running:
            n += 10
            try:
                acknowledged.append((await store.save_node(row(n))).node_id)
            except Unavailable:
                await asyncio.sleep(0.02)

    lanes = [asyncio.create_task(register(lane)) for lane in range(10)]
    for end in (lone_postgres.kill, lone_postgres.end):
        before = len(acknowledged)
        deadline = soon()
        while len(acknowledged) < before + 100:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        end()
        lone_postgres.start()
    before = len(acknowledged)
    deadline = soon()
    while len(acknowledged) < before + 100:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    running = False
    await asyncio.gather(*lanes)
    assert set(acknowledged) <= set(await all_nodes(store))
    assert len(acknowledged) == len(set(acknowledged))


async def test_a_caller_who_goes_away_breaks_no_connection(store: Store) -> None:
    for _ in range(20):
        call = asyncio.create_task(store.node(node_id(1)))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    write = asyncio.create_task(store.save_node(row(1)))
    await asyncio.sleep(0)
    write.cancel()
    await asyncio.gather(write, return_exceptions=True)
    await store.save_node(row(2))
    assert set(await all_nodes(store)) == {node_id(1), node_id(2)}


async def test_a_full_disk_is_called_that(store: Store, lone_postgres: Postgres) -> None:
    # what the server says where it can't extend a file, said by a trigger
    await ask(
        lone_postgres.url(),
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON nodes EXECUTE FUNCTION full_disk()",
    )
    for n in range(3):
        with pytest.raises(StorageFull):
            await store.save_node(row(n))
    assert await store.node(node_id(1)) is None
    assert store.unavailable_since is None
    await ask(lone_postgres.url(), "DROP TRIGGER full_disk ON nodes")
    await store.save_node(row(1))


async def test_what_the_operator_has_to_put_right_is_said_at_the_start(
    lone_postgres: Postgres,
) -> None:
    good = lone_postgres.url()
    wrong: dict[str, type[ComputeSwarmError]] = {
        good.replace("a%25b", "hunter2"): ConfigError,
        lone_postgres.url("nowhere"): ConfigError,
        good.replace(f":{lone_postgres.port}/", ":1/"): Unavailable,
        good + "?sslmode=bogus": ConfigError,
    }
    for url, expected in wrong.items():
        store = open_store(url)
        with pytest.raises(expected) as told:
            await store.open()
        assert "hunter2" not in str(told.value)
        assert lone_postgres.password not in str(told.value)
        await store.close()
    await ask(
        good, "CREATE TABLE market_schema (version int)", "INSERT INTO market_schema VALUES (99)"
    )
    store = open_store(good)
    with pytest.raises(ConfigError, match="later version"):
        await store.open()
    await store.close()
    lone_postgres.kill()
    store = open_store(good)
    with pytest.raises(Unavailable):
        await store.open()
    await store.close()


async def test_a_clock_that_differs_from_the_databases_is_noticed(
    lone_postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances tell each other times, so one whose clock is off sees others' nodes offline."""
    for off in (0.0, 300.0, -300.0):
        store = open_store(lone_postgres.url())
        with monkeypatch.context() as patched:
            right = time.time
            patched.setattr(time, "time", lambda right=right, off=off: right() + off)
            await store.open()
        assert abs(store.clock_ahead - off) < 30
        await store.close()
