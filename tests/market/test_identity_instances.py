"""Sessions and revocations between two instances on one database, without waiting for either."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
from market_cluster import until
from market_fixtures import MarketClient, Seller, running_market

from computeswarm.core.clock import SystemClock

Two = tuple[MarketClient, MarketClient]


@pytest.fixture
async def two(postgres_url: str) -> AsyncIterator[Two]:
    clock = SystemClock()
    async with running_market(postgres_url, clock) as a, running_market(postgres_url, clock) as b:
        yield a, b


@pytest.fixture
async def listed(two: Two) -> Seller:
    """A seller that both know."""
    seller = Seller(two[0], issued_at=int(time.time()))
    assert (await seller.register()).status == 201

    async def known() -> bool:
        return await two[1].ids() == [seller.node_id]

    await until(known)
    return seller


async def test_a_revocation_holds_where_it_is_not_known_yet(two: Two, listed: Seller) -> None:
    a, b = two
    kept = listed.enrolment()
    assert (await listed.revoke()).status == 204
    listed.client = b
    reply = await listed.register(kept)
    assert (reply.status, reply.json["code"]) == (410, "node_revoked")

    async def dead() -> bool:
        reply = await listed.beat()
        assert reply.status in (200, 410)  # a lease may be renewed once more until b has heard
        return reply.status == 410

    await until(dead)
    assert await a.ids("offline") == await b.ids("offline") == []
    assert (await listed.register()).status == 201
    listed.client = a
    assert (await listed.beat()).status == 200


async def test_a_new_session_counts_at_once_and_the_old_one_ends(two: Two, listed: Seller) -> None:
    _, b = two
    assert (await listed.beat(counter=90)).status == 200
    old = listed.session_key
    assert (await listed.register()).status == 201
    listed.client = b
    assert (await listed.beat()).status == 200  # its counter begins anew
    for replayed in (91, 10**9):
        reply = await listed.beat(session_key=old, counter=replayed)
        assert (reply.status, reply.json["reason"]) == (401, "mac")
    assert (await listed.beat()).status == 200
