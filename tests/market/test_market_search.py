from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import START, MarketClient, Seller

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.query import parse
from computeswarm.market.facts import pack
from computeswarm.market.index import Search
from computeswarm.market.rows import Lease, NodeRow
from computeswarm.market.table import NodeTable

KEY = PrivateKey(bytes(31) + b"\x03")
ASK = Seller(MarketClient(None, ""), key=KEY)  # type: ignore[arg-type]


def make_node(number: int, price: int) -> NodeRow:
    record = ASK.record(name=f"n{number}", price_per_hour=price)
    facts, words = pack(record.node_id, record)
    return NodeRow(
        record.node_id, record.wallet, b"{}", facts, words, 1, bytes(32), START + 60, START,
        Lease(last_seen=START, lease_until=START + 90),
    )  # fmt: skip


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

    async def step(self) -> bool:
        query = parse("", sort=self.sort)
        page = await self.search.page(
            (self.sort, self.cursor), query, now=START, cursor=self.cursor, limit=self.limit
        )
        document = json.loads(page.body)
        self.seen += [node["node_id"] for node in document["nodes"]]
        self.cursor = document["next"] or ""
        return bool(self.cursor)


CHURN = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 5)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 25),
    st.lists(CHURN, min_size=30, max_size=30),
    st.sampled_from(["price", "-price", "name", "-name", "rel", "vram"]),
    st.integers(1, 5),
)
def test_pages_stay_right_while_nodes_come_and_go(
    count: int, churn: list[list[tuple[bool, int, int]]], sort: str, limit: int
) -> None:
    async def walk_through() -> None:
        numbers = {number: make_node(number, number % 4).node_id for number in range(count)}
        stayed.update(numbers.values())
        for number in range(count):
            walk.table.put(make_node(number, number % 4))
        for changes in churn:
            if not await walk.step():
                break
            for comes, number, price in changes:
                if comes and number + 100 not in numbers:
                    row = make_node(number + 100, price)
                    numbers[number + 100] = row.node_id
                    walk.table.put(row)
                elif not comes and number in numbers:
                    stayed.discard(left := numbers.pop(number))
                    slot = walk.table.slot(left)
                    assert slot is not None
                    walk.table.remove(slot)
        await walk.search.close()

    walk, stayed = Walk(sort, limit), set[str]()
    asyncio.run(walk_through())
    assert len(walk.seen) == len(set(walk.seen)), "a node was shown twice"
    assert stayed <= set(walk.seen), "a node that stayed was left out"


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
