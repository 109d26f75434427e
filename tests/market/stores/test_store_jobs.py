"""Jobs, sums, samples and shared counters, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from store_hands import KEY, OTHER, WALLET, job, job_id, leases, node_id, row

from computeswarm.core.jobs import MarketJob
from computeswarm.core.money import MAX_ATOMS
from computeswarm.core.states import JobState
from computeswarm.market.stores.protocol import Count, Store


async def changed(store: Store, old: MarketJob, counter: int, **changes: Any) -> bool:
    """One step of a job, which speaks for its node."""
    new = old.model_copy(update=changes)
    return await store.change_job(old, new, session_key=KEY, counter=counter, succeeded=1, failed=0)


async def test_a_job_is_added_once(store: Store) -> None:
    assert await store.job(job_id(1)) is None
    results = await asyncio.gather(*(store.add_job(job(1), f"by {n}") for n in range(4)))
    assert [new for _, _, new in results] == [True, False, False, False]
    assert {(text, made.job_id) for made, text, _ in results} == {("by 0", job_id(1))}
    assert await store.job(job_id(1)) == (job(1), "by 0")


async def test_a_job_changes_only_from_where_it_was_read(store: Store) -> None:
    await store.save_node(row(1))
    await store.add_job(job(1), "{}")
    results = await asyncio.gather(
        *(changed(store, job(1), 1 + n, state=JobState.QUEUED, updated_at=n) for n in range(5))
    )
    assert results == [True, False, False, False, False]
    kept = await store.job(job_id(1))
    assert kept == (job(1, state=JobState.QUEUED, updated_at=0), "{}")
    node = await store.node(node_id(1))
    assert node is not None
    assert (node.succeeded, node.failed, node.lease.counter) == (1, 0, 1)
    assert not await changed(store, job(9), 50, state=JobState.QUEUED)


async def test_a_job_changes_only_under_the_nodes_session(store: Store) -> None:
    saved = await store.save_node(row(1))
    await store.add_job(job(1), "{}")
    queued = job(1, state=JobState.QUEUED)

    async def change(old: MarketJob, new: MarketJob, key: bytes, counter: int) -> bool:
        return await store.change_job(
            old, new, session_key=key, counter=counter, succeeded=0, failed=1
        )

    assert not await change(job(1), queued, bytes(32), 5)
    store.touch(leases((saved.number, 1, 40, 1_010.0)))
    await store.flush()
    assert await change(job(1), queued, KEY, 5)
    # the same call again, seen by another instance
    assert not await change(queued, job(1, state=JobState.RUNNING), KEY, 5)
    assert await store.job(job_id(1)) == (queued, "{}")
    node = await store.node(node_id(1))
    assert node is not None
    assert (node.failed, node.lease.counter) == (1, 40)
    await store.revoke_node(node_id(1), seq=1)
    assert not await change(queued, job(1, state=JobState.RUNNING), KEY, 99)


async def test_counts_survive_a_registration_in_the_same_breath(store: Store) -> None:
    await store.save_node(row(1))
    await store.add_job(job(1), "{}")
    ok, again = await asyncio.gather(
        changed(store, job(1), 1, state=JobState.SUCCEEDED), store.save_node(row(1, seq=2))
    )
    assert ok
    assert again.succeeded == 1
    assert await store.node(node_id(1)) == again


async def test_sums_of_jobs_need_no_scan_and_do_not_overflow(store: Store) -> None:
    await store.save_node(row(1))
    for n in range(1, 4):
        await store.add_job(job(n), "{}")
    big = {"metered_ms": 2**53 - 1, "paid": MAX_ATOMS, "refunded": 7}
    assert await changed(store, job(1), 1, state=JobState.SUCCEEDED, **big)
    assert await changed(store, job(2), 2, state=JobState.FAILED, paid=5, refunded=9)
    assert await changed(store, job(3), 3, state=JobState.RUNNING, metered_ms=8, paid=100)
    sums = await store.job_totals()
    assert sums.by_state == {"succeeded": 1, "failed": 1, "running": 1}
    assert (sums.ended, sums.settled) == (2, 1)
    assert sums.metered_ms == 2**53 - 1
    assert sums.paid == MAX_ATOMS - 7 - 4 + 100


async def test_a_wallets_jobs_come_newest_first_page_by_page(store: Store) -> None:
    ours = [job(n, created_at=1_000 + n // 2) for n in range(1, 8)]
    other = "0x" + "11" * 20
    both = job(50, created_at=1_003, buyer=WALLET, seller=WALLET)
    strangers = job(60, buyer=other, seller=OTHER, created_at=5_000)
    for made in (*ours, both, strangers):
        await store.add_job(made, "{}")
    wanted = sorted([*ours, both], key=lambda j: (j.created_at, j.job_id), reverse=True)
    seen: list[MarketJob] = []
    before = None
    while page := await store.jobs_of(WALLET.lower(), before=before, limit=3):
        assert len(page) <= 3
        seen += page
        before = seen[-1].created_at, seen[-1].job_id
    assert seen == wanted
    assert await store.jobs_of(OTHER, before=None, limit=1) == [strangers]
    assert await store.jobs_of("0x" + "22" * 20, before=None, limit=5) == []


async def test_samples_are_kept_once_and_pruned_by_their_name(store: Store) -> None:
    for at in (100, 200, 300):
        await store.add_samples(at, {"price/300/a100": {"p50": at}, "price/3600/a100": {"n": 1}})
    await store.add_samples(200, {"price/300/a100": {"p50": "another instance's"}})
    wanted = [(100, {"p50": 100}), (200, {"p50": 200})]
    assert await store.samples("price/300/a100", since=100, until=200) == wanted
    await store.prune_samples(300, prefix="price/300/")
    assert await store.samples("price/300/a100", since=0, until=999) == [(300, {"p50": 300})]
    assert len(await store.samples("price/3600/a100", since=0, until=999)) == 3
    await store.prune_samples(1_000)
    assert await store.samples("price/3600/a100", since=0, until=999) == []


async def test_shared_counters_add_up_until_their_time(store: Store) -> None:
    later = time.time() + 600
    assert await store.share({"a": Count(2, later), "b": Count(1, later)}) == {"a": 2, "b": 1}
    assert await store.share({"a": Count(3, later)}) == {"a": 5}
    assert await store.share({"b": Count(4, time.time() - 1)}) == {"b": 5}
    assert await store.share({"b": Count(4, later)}) == {"b": 4}  # what was before is over
    assert await store.share({}) == {}


async def test_it_answers(store: Store) -> None:
    await store.ping()
    assert store.unavailable_since is None
    assert store.kind in ("sqlite", "postgresql")
