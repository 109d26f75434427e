from __future__ import annotations

import json
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from market_fixtures import START, MarketClient, Seller

from computeswarm.core.crypto import PrivateKey
from computeswarm.core.nodes import NodeStatus
from computeswarm.core.query import parse
from computeswarm.market.directory import Node
from computeswarm.market.search import Search

KEY = PrivateKey(bytes(31) + b"\x03")
ASK = Seller(MarketClient(None, ""), key=KEY)  # type: ignore[arg-type]
SIGNED = ASK.signed()


def make_node(number: int, price: int) -> Node:
    record = ASK.record(name=f"n{number}", price_per_hour=price)
    return Node(
        record.node_id, SIGNED, record, "{}", 1, bytes(32), START + 90, 0, START, START, 0.0,
        START + 90, NodeStatus.IDLE,
    )  # fmt: skip


@dataclass
class Walk:
    """One reader who pages through the list while it changes under him."""

    sort: str
    limit: int
    search: Search = field(default_factory=Search)
    seen: list[str] = field(default_factory=list)
    cursor: str = ""

    def step(self, nodes: list[Node], version: int) -> bool:
        query = parse("", sort=self.sort)
        page = self.search.page(
            (self.sort, self.cursor),
            query,
            nodes=nodes,
            version=version,
            now=START,
            cursor=self.cursor,
            limit=self.limit,
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
    nodes = {number: make_node(number, number % 4) for number in range(count)}
    stayed = {node.node_id for node in nodes.values()}
    walk = Walk(sort, limit)
    version = 0
    for changes in churn:
        if not walk.step(list(nodes.values()), version):
            break
        for comes, number, price in changes:
            version += 1
            if comes:
                nodes.setdefault(number + 100, make_node(number + 100, price))
            elif number in nodes:
                stayed.discard(nodes.pop(number).node_id)
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
