"""Paging through a market's list, an honest one's and one that never ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from buyer_fakes import FakeSeller

from computeswarm.buyer.browse import candidates, find_node
from computeswarm.buyer.http.market import MarketClient
from computeswarm.core.errors import BadRequest, InvalidQuery, MarketUnavailable, NodeNotFound
from computeswarm.core.query import facts_of, parse

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeMarket:
    """Pages through its sellers' nodes as a market does; remembers what it was asked."""

    def __init__(self, count: int, *, size: int) -> None:
        self.sellers = [FakeSeller(price=1_000 - number) for number in range(count)]
        for seller in self.sellers:
            seller.url = "http://127.0.0.1:9"
        self.size = size
        self.asked: list[dict[str, str]] = []
        self.answer: dict[str, object] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        given = dict(request.query)
        self.asked.append(given)
        query = parse(given.get("q", ""), sort=given.get("sort", ""))
        nodes = [seller.node for seller in self.sellers]
        found = sorted(filter(query.matches, nodes), key=lambda n: query.sort_key(facts_of(n)))
        start = int(given.get("cursor", 0))
        end = start + min(self.size, int(given["limit"]))
        return web.json_response(
            {
                "nodes": [node.model_dump(mode="json") for node in found[start:end]],
                "next": str(end) if end < len(found) else None,
                "total": len(found),
                **self.answer,
            }
        )


@asynccontextmanager
async def client(handler: Handler) -> AsyncIterator[MarketClient]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    market = MarketClient(str(server.make_url("")), chain_id=84532)
    try:
        yield market
    finally:
        await market.close()
        await server.close()


async def test_all_pages_come_and_each_node_once() -> None:
    fake = FakeMarket(7, size=3)
    async with client(fake.handle) as market:
        pages = [page async for page in market.find_all("cpu", sort="-price")]
        assert [len(page.nodes) for page in pages] == [3, 3, 1]
        prices = [node.info.price_per_hour for page in pages for node in page.nodes]
        assert prices == sorted(prices, reverse=True)
        assert pages[-1].next is None
        some = [page async for page in market.find_all(most=4)]
        assert [len(page.nodes) for page in some] == [3, 1]
        assert some[-1].next is not None
        # a node that became dearer between two pages stands in both
        fake.size, fake.answer = 5, {"total_exact": False}
        moved: list[str] = []
        async for page in market.find_all():
            moved += [node.node_id for node in page.nodes]
            assert not page.exact
            fake.sellers[-1].price = 5_000
        assert len(moved) == len(set(moved))


@pytest.mark.parametrize("nodes", [True, False])
async def test_a_list_without_an_end_is_left(nodes: bool) -> None:
    fake = FakeMarket(2, size=1)
    fake.answer = {"next": "1"} if nodes else {"next": "1", "nodes": []}
    async with client(fake.handle) as market:
        with pytest.raises(MarketUnavailable, match="no end"):
            _ = [page async for page in market.find_all()]
    assert len(fake.asked) <= 3


async def test_the_market_is_asked_for_what_fits_and_in_the_querys_order() -> None:
    fake = FakeMarket(5, size=2)
    fit = {"image": "python", "gpu_count": 0, "max_seconds": 60}
    async with client(fake.handle) as market:
        cheap = await candidates(market, "", **fit)  # type: ignore[arg-type]
        assert [node.info.price_per_hour for node in cheap] == [996, 997, 998, 999, 1_000]
        assert fake.asked[0]["q"] == "idle max_time>=60 image:python"
        turned = await candidates(market, "sort:-price", **fit)  # type: ignore[arg-type]
        assert [node.info.price_per_hour for node in turned][:2] == [1_000, 999]
        for unfit in ({"gpu_count": 1}, {"max_seconds": 86_401}, {"network": True}):
            assert await candidates(market, "", **{**fit, **unfit}) == []  # type: ignore[arg-type]
        with pytest.raises(InvalidQuery, match="nothing after"):
            await candidates(market, "not", **fit)  # type: ignore[arg-type]


async def test_nodes_are_counted_or_it_is_said_that_they_are_not() -> None:
    counts = {"total": 3, "model": [{"value": "\x1b[2Jx", "nodes": 3}], "later": 1}
    asked: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.path_qs)
        if request.query.get("q") == "old":
            body = {"code": "node_not_found", "status": 404, "detail": "no"}
            return web.json_response(body, status=404)
        return web.json_response(counts)

    async with client(handler) as market:
        facets = await market.facets("region:eu")
        assert (facets.total, facets.model[0].nodes, facets.region) == (3, 3, ())
        assert asked == ["/api/v1/nodes/facets?q=region%3Aeu"]
        with pytest.raises(MarketUnavailable, match="doesn't count"):
            await market.facets("old")
        counts["total"] = -1
        with pytest.raises(BadRequest, match="total"):
            await market.facets()


async def test_a_known_record_is_checked_once_and_a_changed_one_again() -> None:
    fake = FakeMarket(1, size=1)
    async with client(fake.handle) as market:
        (first,) = (await market.nodes()).nodes
        (again,) = (await market.nodes()).nodes
        assert again.info is first.info
        record = fake.sellers[0].node.model_dump(mode="json")
        record["record"]["document"]["price_per_hour"] = 1
        fake.answer = {"nodes": [record]}
        page = await market.nodes()
        assert (page.nodes, page.rejected) == ([], 1)


async def test_a_node_by_the_beginning_of_its_id() -> None:
    fake = FakeMarket(4, size=50)
    async with client(fake.handle) as market:
        wanted = fake.sellers[2].record.node_id
        assert (await find_node(market, wanted[:11])).node_id == wanted
        assert fake.asked[-1]["q"] == f"id:{wanted[:11]}"
        twin = fake.sellers[2].node.model_dump(mode="json")
        fake.answer = {"nodes": [twin, twin]}
        with pytest.raises(NodeNotFound, match="Several"):
            await find_node(market, wanted[:6])
