"""What instances tell each other through PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import asyncpg
import numpy as np
import pytest
from postgres_server import ask
from store_hands import KEY, job, job_id, leases, node_id, row, soon

from computeswarm.core.errors import Conflict
from computeswarm.core.states import JobState
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Change, Count, Kind, Position, Store

Pair = tuple[Store, Store]


async def follow(store: Store, after: Position, until: int, limit: int = 7) -> list[Change]:
    """Read the log page by page until so many changes came."""
    deadline = soon()
    seen: list[Change] = []
    while len(seen) < until:
        assert time.monotonic() < deadline, f"{len(seen)} of {until}"
        page = await store.changes(after, limit)
        assert page is not None
        if page:
            seen += page
            after = seen[-1].position
        else:
            await store.wait(0.2)
    return seen


def about(changes: Sequence[Change], kind: Kind) -> list[Change]:
    return [change for change in changes if change.kind is kind]


async def test_each_kind_of_change_reaches_the_other_instance(pair: Pair) -> None:
    a, b = pair
    start = await b.position()
    saved = await a.save_node(row(1))
    await a.add_job(job(1), "{}")
    done = job(1, state=JobState.SUCCEEDED)
    assert await a.change_job(job(1), done, session_key=KEY, counter=1, succeeded=1, failed=0)
    batch = leases((saved.number, 1, 2, 1_100.0), status=1)
    a.touch(batch)
    await a.flush()
    assert await a.remove_node(node_id(1), session_key=KEY, counter=3)

    seen = await follow(b, start, 6)
    kinds = [Kind.NODE, Kind.JOB, Kind.JOB, Kind.NODE, Kind.LEASES, Kind.NODE]
    assert [change.kind for change in seen] == kinds
    assert {change.instance for change in seen} == {a.instance}
    assert [change.job for change in about(seen, Kind.JOB)] == [job(1), done]
    (written,) = about(seen, Kind.LEASES)
    assert written.leases is not None
    assert np.array_equal(written.leases, batch)
    now = await b.node(node_id(1))
    assert now is not None
    assert now.gone
    assert [change.row for change in about(seen, Kind.NODE)] == [now] * 3
    assert await b.changes(seen[-1].position) == []


async def test_nothing_is_missed_or_out_of_order_under_concurrent_commits(pair: Pair) -> None:
    a, b = pair
    jobs, steps = 12, 15
    for n in range(jobs):
        await a.save_node(row(n))
        await a.add_job(job(n, node=n), "{}")
    start = await a.position()
    dice = random.Random(5)

    async def walk(n: int) -> None:
        # each step by either instance: the log must show them in the order they happened
        old = job(n, node=n)
        for step in range(1, steps + 1):
            new = old.model_copy(update={"metered_ms": step})
            store = dice.choice(pair)
            changed = await store.change_job(
                old, new, session_key=KEY, counter=step, succeeded=0, failed=0
            )
            assert changed
            old = new

    wanted = jobs * steps
    *_, first, second = await asyncio.gather(
        *map(walk, range(jobs)), follow(a, start, wanted), follow(b, start, wanted, limit=100)
    )
    assert [c.position for c in first] == [c.position for c in second]
    for n in range(jobs):
        metered = [c.job.metered_ms for c in first if c.job and c.job.job_id == job_id(n)]
        assert metered == list(range(1, steps + 1))


async def test_a_late_commit_is_not_missed(pair: Pair, postgres_url: str) -> None:
    a, b = pair
    await a.save_node(row(1))
    await a.save_node(row(2))
    start = await b.position()
    # somebody holds node 1: the write to it commits long after the one to node 2
    holder = await asyncpg.connect(postgres_url)
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT 1 FROM nodes WHERE node_id=$1 FOR UPDATE", node_id(1))
        late = asyncio.create_task(a.revoke_node(node_id(1), seq=1))
        await _until_blocked(postgres_url)
        assert await b.revoke_node(node_id(2), seq=1)
        (early,) = await follow(b, start, 1)
        assert early.key == node_id(2)
        assert not late.done()
        await transaction.rollback()
    finally:
        await holder.close()
    assert await late
    (after,) = await follow(b, early.position, 1)
    assert after.key == node_id(1)


async def test_other_peoples_long_transactions_hold_nothing_up(
    pair: Pair, postgres_url: str
) -> None:
    a, b = pair
    start = await b.position()
    writer = await asyncpg.connect(postgres_url)
    try:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute(
            "CREATE TABLE elsewhere (n int)"
        )  # it has a transaction id, and keeps it
        await a.save_node(row(1))
        assert len(await follow(b, start, 1)) == 1
        await transaction.rollback()
    finally:
        await writer.close()


async def test_a_lost_notice_loses_nothing(pair: Pair, postgres_url: str) -> None:
    a, b = pair
    start = await b.position()
    await follow(b, start, 0)
    await ask(
        postgres_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'",
    )
    await a.save_node(row(1))
    (first,) = await follow(b, start, 1)
    # the bell is hung up again: a wait of a minute ends with the next commit
    for n in range(2, 5):
        began = time.monotonic()
        waiting = asyncio.create_task(b.wait(60))
        await a.save_node(row(n))
        await waiting
        assert time.monotonic() - began < 30
        (first,) = await follow(b, first.position, 1)
        assert first.key == node_id(n)


async def test_what_was_pruned_is_said_to_be_gone(pair: Pair, postgres_url: str) -> None:
    from computeswarm.market.stores.postgres import log

    a, b = pair
    start = await b.position()
    first = await a.save_node(row(1))
    a.touch(leases((first.number, 1, 1, 1_010.0)))
    await a.flush()
    middle = await b.position()
    connection = await asyncpg.connect(postgres_url)
    try:
        # six minutes later leases are gone, and nothing else
        await connection.execute("UPDATE changes SET at = at - interval '6 minutes'")
        await log.prune(connection)
        assert [c.kind for c in await b.changes(start) or []] == [Kind.NODE]
        await connection.execute("UPDATE changes SET at = at - interval '10 minutes'")
        await log.prune(connection)
    finally:
        await connection.close()
    assert await b.changes(start) is None
    await a.save_node(row(2))
    assert await b.changes(start) is None
    assert [c.key for c in await b.changes(middle) or []] == [node_id(2)]
    assert await b.position() != middle


@pytest.mark.parametrize("position", ["", "x", "-1", "1 or 1", "9" * 30, "١", "999999"])
async def test_a_position_that_never_was_is_said_to_be_gone(pair: Pair, position: str) -> None:
    assert await pair[0].changes(Position(position)) is None


async def test_a_node_is_registered_by_one_of_two_instances(pair: Pair) -> None:
    results = await asyncio.gather(
        *(pair[n % 2].save_node(row(n // 2, words=str(n % 2))) for n in range(60)),
        return_exceptions=True,
    )
    assert all(isinstance(r, Conflict) for r in results if isinstance(r, BaseException))
    winners = [r for r in results if not isinstance(r, BaseException)]
    assert sorted(r.node_id for r in winners) == [node_id(n) for n in range(30)]
    for winner in winners:
        assert await pair[0].node(winner.node_id) == winner


async def test_two_instances_change_the_same_nodes_without_waiting_for_each_other(
    pair: Pair,
) -> None:
    count = 300
    saved = await asyncio.gather(*(pair[0].save_node(row(n)) for n in range(count)))
    numbers = [r.number for r in saved]
    for counter in range(1, 6):
        for store in pair:
            random.Random(counter).shuffle(numbers)
            store.touch(leases(*((n, 1, counter, 1_000.0 + counter) for n in numbers)))
    renewals = (pair[n % 2].save_node(row(n, seq=2)) for n in reversed(range(0, count, 3)))
    await asyncio.gather(pair[0].flush(), pair[1].flush(), *renewals)
    kept = {r.node_id: r async for batch in pair[0].load_nodes() for r in batch.rows()}
    assert {r.lease.counter for n, r in kept.items() if r.seq == 1} == {5}
    assert {r.lease.counter for n, r in kept.items() if r.seq == 2} == {0}


async def test_counters_are_shared(pair: Pair) -> None:
    later = time.time() + 600
    adds = [pair[n % 2].share({"a": Count(1, later), "b": Count(2, later)}) for n in range(20)]
    await asyncio.gather(*adds)
    assert await pair[0].share({"a": Count(0, later), "b": Count(0, later)}) == {"a": 20, "b": 40}


async def test_keeping_house_changes_nothing_that_is_read(pair: Pair, postgres_url: str) -> None:
    from computeswarm.market.stores.postgres.store import tidy

    a, b = pair
    await a.save_node(row(1))
    for n in range(1, 6):
        await pair[n % 2].add_job(job(n), "{}")
        done = job(n, state=JobState.SUCCEEDED, paid=10**15, metered_ms=n)
        assert await a.change_job(job(n), done, session_key=KEY, counter=n, succeeded=1, failed=0)
    await a.share({"old": Count(7, time.time() - 5), "new": Count(7, time.time() + 600)})
    before, log = await b.job_totals(), await b.changes(Position("0"))
    connection = await asyncpg.connect(postgres_url)
    try:
        kept = "SELECT (SELECT count(*) FROM totals), (SELECT count(*) FROM counts)"
        assert tuple(await connection.fetchrow(kept)) == (15, 2)
        async with connection.transaction():
            await tidy(connection)
        assert tuple(await connection.fetchrow(kept)) == (2, 1)
    finally:
        await connection.close()
    assert await b.job_totals() == before
    assert await b.changes(Position("0")) == log
    assert before.paid == 5 * 10**15


async def test_two_instances_bring_up_one_schema(postgres_url: str) -> None:
    stores = [open_store(postgres_url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.save_node(row(n)) for n, store in enumerate(stores)))
    assert len({store.instance for store in stores}) == 4
    for store in stores:
        await store.close()


async def _until_blocked(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        deadline = soon()
        sql = "SELECT count(*) FROM pg_stat_activity WHERE cardinality(pg_blocking_pids(pid)) > 0"
        while not await connection.fetchval(sql):
            assert time.monotonic() < deadline
    finally:
        await connection.close()
