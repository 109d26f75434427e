from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import MarketClient, Seller
from market_rows import START, make_record, make_row

from computeswarm.core.query import SORTABLE, parse
from computeswarm.market.index import Search, orders, pages, shelf
from computeswarm.market.rows import Lease
from computeswarm.market.table import NodeTable


@dataclass
class Walk:
    """One reader who pages through the list while it changes under him."""

    sort: str
    limit: int
    table: NodeTable = field(default_factory=NodeTable)
    seen: list[str] = field(default_factory=list)
    cursor: str = ""

    def __post_init__(self) -> None:
        self.search = Search(self.table)

    def put(self, number: int, price: int, *, region: str = "") -> str:
        """A node comes, or changes its price and region."""
        record = make_record(number, price_per_hour=price, region=region)
        lease = Lease(last_seen=START, lease_until=START + 60.0, queued=price)
        self.table.put(make_row(record, number=number + 1, lease=lease))
        return record.node_id

    async def step(self) -> bool:
        query = parse("", sort=self.sort)
        page = await self.search.page(None, query, now=START, cursor=self.cursor, limit=self.limit)
        document = json.loads(page.body)
        self.seen += [node["node_id"] for node in document["nodes"]]
        assert document["total"] == self.table.live() or not document["total_exact"]
        self.cursor = document["next"] or ""
        return bool(self.cursor)


CHURN = st.lists(
    st.tuples(st.sampled_from(["come", "go", "busy"]), st.integers(0, 30), st.integers(0, 5)),
    max_size=6,
)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 25),
    st.lists(CHURN, min_size=30, max_size=30),
    st.tuples(st.sampled_from(["", "-"]), st.sampled_from(SORTABLE)).map("".join),
    st.integers(1, 5),
    st.sampled_from(["sorted", "ordered", "walked"]),
)
def test_pages_stay_right_while_nodes_come_and_go(
    count: int,
    churn: list[list[tuple[str, int, int]]],
    sort: str,
    limit: int,
    way: str,
) -> None:
    """Whether nodes are sorted on the spot, found in an order that was made before, or are the
    first in it that match."""
    walk = Walk(sort, limit)
    moves = sort.removeprefix("-") in ("queue", "status")

    async def run() -> None:
        there = {number: walk.put(number, number % 4) for number in range(count)}
        stayed = set(there.values())
        for changes in churn:
            if not (more := await walk.step()):
                break
            for what, number, value in changes:
                if what == "come" and number + 100 not in there:  # a new price would move it
                    there[number + 100] = walk.put(number + 100, value)
                elif what == "go" and number in there:
                    node_id = there.pop(number)
                    stayed.discard(node_id)
                    walk.table.remove(walk.table.slot(node_id))  # type: ignore[arg-type]
                elif what == "busy" and number in there and not moves:
                    slot = walk.table.slot(there[number])
                    assert slot is not None
                    walk.table.beat(
                        slot,
                        counter=1,
                        now=START,
                        lease_until=START + 60.0,
                        status=value % 3,
                        queued=value,
                        running=1,
                    )
        while more and await walk.step():
            pass
        assert len(walk.seen) == len(set(walk.seen)), "a node was shown twice"
        assert stayed <= set(walk.seen), "a node that stayed was left out"
        await walk.search.close()

    with pytest.MonkeyPatch.context() as patch:
        if way == "walked":
            patch.setattr("computeswarm.market.index.search._COUNTED", 0)
        if way != "sorted":
            patch.setattr(pages, "_FEW_NUMBERS", 1)
            patch.setattr(pages, "_FEW_TEXTS", 1)
        asyncio.run(run())


async def test_a_page_of_a_large_market_is_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("computeswarm.market.index.search._COUNTED", 0)
    monkeypatch.setattr(pages, "_FEW_NUMBERS", 1)
    walk = Walk("price", 5)
    for number in range(30):
        walk.put(number, 10 + number)
    await walk.step()
    cheapest = walk.put(99, 1)
    walk.put(0, 50)  # the first one asks more now
    again = Walk("price", 5, table=walk.table)
    again.search = walk.search
    await again.step()
    assert again.seen == [cheapest, *walk.seen[1:]]


async def test_an_order_is_made_anew_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large market: orders are made in a thread, and what changes meanwhile is not lost."""
    monkeypatch.setattr("computeswarm.market.index.search._AT_ONCE", 10)
    monkeypatch.setattr("computeswarm.market.index.search._SORTED_AT_ONCE", 10)
    for module, name in ((pages, "_FEW_NUMBERS"), (pages, "_FEW_TEXTS"), (shelf, "_LEAST_ASIDE")):
        monkeypatch.setattr(module, name, 5)
    walk = Walk("price", 7)
    for number in range(300):
        walk.put(number, number * 7 % 50)
    built, build = [], orders.Order.build

    def and_change(self: orders.Order, *given: object) -> None:
        build(self, *given)  # type: ignore[arg-type]
        if len(built) < 2:
            for number in range(5):  # the loop waits here, so this is safe
                built.append(walk.put(number, 60 + number))

    monkeypatch.setattr(orders.Order, "build", and_change)
    while await walk.step():
        pass
    assert walk.seen[-5:] == built[:5]
    assert len(walk.seen) == len(set(walk.seen)) == 300
    clock = iter(range(START, START + 10**6))
    walk.search.start(lambda: next(clock))
    made = walk.search.rebuild_seconds.count
    for number in range(100):
        walk.put(number, 7)
    async with asyncio.timeout(30):
        while walk.search.rebuild_seconds.count == made:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    again = Walk("price", 50, table=walk.table)
    while await again.step():
        pass
    assert len(set(again.seen)) == 300
    await walk.search.close()


async def test_pages_over_http(client: MarketClient) -> None:
    wanted = []
    for number in range(5):
        seller = Seller(client, name=f"rig-{number}")
        assert (await seller.register(price_per_hour=number // 2)).status == 201
        wanted.append((number // 2, seller.node_id))
    found: list[str] = []
    cursor = ""
    while True:
        page = (await client.get("/api/v1/nodes", params={"limit": 2, "cursor": cursor})).json
        assert page["total"] == 5
        found += [node["node_id"] for node in page["nodes"]]
        if not (cursor := page["next"] or ""):
            break
    assert found == [node_id for _, node_id in sorted(wanted)]


async def test_a_cursor_that_is_not_ours_is_refused(client: MarketClient) -> None:
    for name in ("one", "two"):
        assert (await Seller(client, name=name).register()).status == 201
    cursor = (await client.get("/api/v1/nodes", params={"limit": 1})).json["next"]
    bad = ["x", "AAAA", "[" * 50, "é", cursor + "AAAA", "A" * 4_000]
    for text in bad:
        assert (await client.get("/api/v1/nodes", params={"cursor": text})).status == 400, text
    other = {"cursor": cursor, "sort": "name"}
    assert (await client.get("/api/v1/nodes", params=other)).status == 400
    for limit in ("x", "-1", "9" * 30):
        assert (await client.get("/api/v1/nodes", params={"limit": limit})).status == 400


async def test_a_list_is_never_staler_than_the_lease(client: MarketClient, clock: object) -> None:
    seller = Seller(client)
    assert (await seller.register()).status == 201
    clock.time += 89.5  # type: ignore[attr-defined]
    assert await client.ids() == [seller.node_id]
    clock.time += 0.5  # type: ignore[attr-defined]
    assert await client.ids() == []
