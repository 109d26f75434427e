"""Nodes and leases, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest
from store_hands import KEY, OTHER, WALLET, all_nodes, leases, node_id, row, soon

from computeswarm.core.errors import Conflict, Unprocessable
from computeswarm.market.rows import Lease
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import Store

NEW_KEY = bytes(32)


async def test_a_node_comes_back_as_it_was_saved(store: Store) -> None:
    saved = await store.save_node(row(1))
    assert saved == row(1, number=saved.number)
    assert saved.number > 0
    assert await store.node(node_id(1)) == saved
    assert await store.node(node_id(2)) is None


async def test_numbers_are_small_and_stay(store: Store) -> None:
    first = await asyncio.gather(*(store.save_node(row(n)) for n in range(1, 21)))
    assert sorted(saved.number for saved in first) == list(range(1, 21))
    again = await store.save_node(row(7, seq=2))
    assert again.number == first[6].number
    assert (await store.save_node(row(21))).number == 21


async def test_a_registration_needs_a_higher_seq(store: Store) -> None:
    await store.save_node(row(1, seq=5))
    for seq in (4, 5):
        with pytest.raises(Conflict) as refused:
            await store.save_node(row(1, seq=seq, words="other"))
        assert refused.value.extra == {"seq": 5}
    kept = await store.node(node_id(1))
    assert kept is not None
    assert kept.words == row().words


async def test_nobody_takes_another_wallets_node(store: Store) -> None:
    await store.save_node(row(1))
    with pytest.raises(Conflict) as refused:
        await store.save_node(row(1, seq=9, wallet=OTHER))
    assert refused.value.extra == {}
    # the same wallet in another spelling is the same wallet
    assert (await store.save_node(row(1, seq=2, wallet=WALLET.lower()))).seq == 2


async def test_a_new_registration_keeps_what_the_market_has_seen(store: Store) -> None:
    saved = await store.save_node(row(1, succeeded=3, failed=1))
    store.touch(leases((saved.number, 1, 9, 1_400.0)))
    await store.flush()
    lease = Lease(last_seen=2_000.0, lease_until=2_090.0, alive_seconds=5.0)
    again = await store.save_node(
        row(1, seq=2, session_key=NEW_KEY, registered_at=2_000.0, lease=lease, words="new")
    )
    assert (again.succeeded, again.failed, again.registered_at) == (3, 1, 1_000.0)
    assert again.lease == replace(lease, alive_seconds=400.0)
    assert (again.session_key, again.words) == (NEW_KEY, "new")
    assert await store.node(node_id(1)) == again


async def test_of_many_registrations_at_once_the_highest_stands(store: Store) -> None:
    results = await asyncio.gather(
        *(store.save_node(row(1, seq=seq, words=str(seq))) for seq in (3, 9, 4, 9, 2)),
        return_exceptions=True,
    )
    assert [isinstance(r, Conflict) for r in results] == [False, False, True, True, True]
    kept = await store.node(node_id(1))
    assert kept is not None
    assert (kept.seq, kept.words) == (9, "9")


async def test_a_conflict_takes_no_other_write_with_it(store: Store) -> None:
    await store.save_node(row(1, seq=5))
    writes = [row(2), row(1, seq=5), row(3)]
    results = await asyncio.gather(*map(store.save_node, writes), return_exceptions=True)
    assert isinstance(results[1], Conflict)
    assert set(await all_nodes(store)) == {node_id(1), node_id(2), node_id(3)}


async def test_what_cannot_be_stored_takes_no_other_write_with_it(store: Store) -> None:
    writes = [row(1), row(2, words="\ud800"), row(3)]
    results = await asyncio.gather(*map(store.save_node, writes), return_exceptions=True)
    assert [isinstance(r, Unprocessable) for r in results] == [False, True, False]
    assert set(await all_nodes(store)) == {node_id(1), node_id(3)}


async def test_leaving_needs_the_session_and_a_fresh_counter(store: Store) -> None:
    await store.save_node(row(1))
    assert not await store.remove_node(node_id(9), session_key=KEY, counter=1)
    assert not await store.remove_node(node_id(1), session_key=NEW_KEY, counter=1)
    assert not await store.remove_node(node_id(1), session_key=b"", counter=1)
    assert await store.remove_node(node_id(1), session_key=KEY, counter=7)
    gone = await store.node(node_id(1))
    assert gone is not None
    assert gone.gone
    assert gone.lease.counter == 7
    assert not await store.remove_node(node_id(1), session_key=KEY, counter=8)
    # a heartbeat's counter was written behind and overtook: no reason to refuse
    back = await store.save_node(row(1, seq=2))
    assert not back.gone
    store.touch(leases((back.number, 2, 30, 1_100.0)))
    await store.flush()
    assert await store.remove_node(node_id(1), session_key=KEY, counter=29)


async def test_a_revocation_ends_the_session_and_all_older_records(store: Store) -> None:
    await store.save_node(row(1, seq=5))
    assert not await store.revoke_node(node_id(9), seq=5)
    assert not await store.revoke_node(node_id(1), seq=4)
    assert await store.revoke_node(node_id(1), seq=8)
    kept = await store.node(node_id(1))
    assert kept is not None
    assert (kept.gone, kept.session_key, kept.seq) == (True, b"", 8)
    assert not await store.remove_node(node_id(1), session_key=KEY, counter=1)
    with pytest.raises(Conflict):
        await store.save_node(row(1, seq=8))
    assert not (await store.save_node(row(1, seq=9))).gone


async def test_leases_are_written_behind(store: Store) -> None:
    numbers = [(await store.save_node(row(n))).number for n in (1, 2, 3)]
    store.touch(leases((numbers[0], 1, 4, 1_030.0), (numbers[1], 1, 2, 1_031.0)))
    store.touch(leases((numbers[0], 1, 5, 1_060.0), status=1, queued=2))
    await store.flush()
    assert store.backlog == 0
    first, second, third = (await all_nodes(store)).values()
    assert first.lease == Lease(5, 1_060.0, 1_150.0, 60.0, queued=2, status=1)
    assert second.lease == Lease(2, 1_031.0, 1_121.0, 31.0)
    assert third.lease == row().lease


async def test_a_late_lease_gives_no_new_registration_the_old_ones_counter(store: Store) -> None:
    number = (await store.save_node(row(1))).number
    fresh = await store.save_node(row(1, seq=2, lease=Lease(last_seen=1_500.0)))
    store.touch(leases((number, 1, 99, 1_600.0)))
    await store.flush()
    assert await store.node(node_id(1)) == fresh


async def test_of_two_leases_the_newer_stands_and_no_counter_falls(store: Store) -> None:
    number = (await store.save_node(row(1))).number
    store.touch(leases((number, 1, 6, 1_060.0), queued=6))
    await store.flush()
    store.touch(leases((number, 1, 5, 1_030.0), status=2, queued=5))
    await store.flush()
    kept = await store.node(node_id(1))
    assert kept is not None
    assert kept.lease == Lease(6, 1_060.0, 1_150.0, 60.0, queued=6)


async def test_touch_alone_is_enough(store: Store) -> None:
    number = (await store.save_node(row(1))).number
    many = leases(*((number, 1, counter, 1_000.0 + counter) for counter in range(1, 200)))
    for at in range(0, 199, 7):
        store.touch(many[at : at + 7])
    deadline = soon()
    while store.backlog or not store.flush_seconds.count:
        assert time.monotonic() < deadline
        await store.ping()
    kept = await store.node(node_id(1))
    assert kept is not None
    assert kept.lease.counter == 199


async def test_all_is_there_after_a_restart(where: Path | str) -> None:
    first = open_store(where)
    await first.open()
    saved = await asyncio.gather(*(first.save_node(row(n)) for n in range(1, 8)))
    assert await first.remove_node(node_id(3), session_key=KEY, counter=1)
    first.touch(leases((saved[4].number, 1, 7, 1_200.0)))
    await first.close()

    second = open_store(where)
    await second.open()
    loaded = await all_nodes(second, batch=3)
    await second.close()
    assert len(loaded) == 7
    assert [r.number for r in loaded.values()] == sorted(r.number for r in saved)
    assert loaded[node_id(3)].gone
    assert loaded[node_id(5)].lease.counter == 7
    assert loaded[node_id(1)] == saved[0]


async def test_who_went_long_ago_is_forgotten_and_nobody_else(store: Store) -> None:
    for n, seen, succeeded in ((1, 100.0, 0), (2, 100.0, 1), (3, 900.0, 0), (4, 10.0, 1)):
        await store.save_node(row(n, lease=Lease(last_seen=seen), succeeded=succeeded))
    last = await store.save_node(row(5, lease=Lease(last_seen=900.0)))
    assert await store.forget_nodes(before=500.0, proven_before=50.0, limit=1) != []
    rest = await store.forget_nodes(before=500.0, proven_before=50.0)
    assert len(rest) == 1
    assert await store.forget_nodes(before=500.0, proven_before=50.0) == []
    assert set(await all_nodes(store)) == {node_id(2), node_id(3), node_id(5)}
    assert await store.node(node_id(1)) is None
    again = await store.save_node(row(1))
    assert again.number > last.number, "numbers are never given twice"


async def test_who_comes_back_meanwhile_stays(store: Store) -> None:
    saved = await store.save_node(row(1, lease=Lease(last_seen=100.0)))
    await store.save_node(row(2, lease=Lease(last_seen=900.0)))
    store.touch(leases((saved.number, 1, 5, 800.0)))
    await store.flush()
    assert await store.forget_nodes(before=500.0, proven_before=500.0) == []
    assert await store.node(node_id(1)) is not None
