"""The market as the browser wants it: pages of nodes, counts, changes, prices. It never pays."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from computeswarm.buyer.http.changes import Broken
from computeswarm.buyer.visitor import Visitor
from computeswarm.core.changes import StatsChanged, Topic
from computeswarm.core.nodes import ComputeNode
from computeswarm.tui.backends.market_mapping import facet_items, node_item, price_trend
from computeswarm.tui.views import FacetItem, NodeItem, NodePage, PriceTrend

LIVELY = 100
"""Changes between two statistics; what is livelier is looked at now and then."""
PAGE = 100
"""Nodes in one answer at most."""
TREND_SECONDS = 30 * 86_400
_REMEMBERED = 2_000


class LiveMarket:
    """What a visitor sees.

    Args:
        visitor: who looks now; unlocking a wallet brings another.
    """

    def __init__(self, visitor: Callable[[], Visitor]) -> None:
        self._visitor = visitor
        self._seen: OrderedDict[str, tuple[ComputeNode, NodeItem]] = OrderedDict()
        """The last nodes that were listed."""

    def seen(self, node_id: str) -> ComputeNode | None:
        """A node as it was last listed."""
        held = self._seen.get(node_id)
        return held[0] if held else None

    async def nodes(self, query: str, *, sort: str, limit: int, cursor: str = "") -> NodePage:
        """A page of the nodes that match."""
        page = await self._visitor().nodes(
            query, sort=sort, limit=min(limit, PAGE), cursor=cursor or None
        )
        items = tuple(map(self._item, page.nodes))
        return NodePage(items, page.total, page.rejected, page.next or "", page.exact)

    def _item(self, node: ComputeNode) -> NodeItem:
        held = self._seen.pop(node.node_id, None)
        # most are as they were a moment ago; then the screen's own value is the same one, too
        item = held[1] if held and held[0] == node else node_item(node)
        self._seen[node.node_id] = (node, item)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return item

    async def facets(self, query: str) -> list[FacetItem]:
        """How many nodes match, by what they are."""
        return facet_items(await self._visitor().facets(query))

    async def watch(self, query: str) -> AsyncIterator[bool]:
        """Whether something is another, as ``BuyerBackend.watch``."""
        topics = (Topic.NODES, Topic.STATS)
        told = 0
        # as a search: a stream without a query shows who is offline, too
        async with aclosing(self._visitor().changes(topics, query or "online")) as changes:
            async for change in changes:
                if isinstance(change, Broken):
                    raise change.error
                if isinstance(change, StatsChanged):  # every other second
                    told = 0
                    yield False
                else:
                    told += 1
                    yield True
                if told > LIVELY:
                    return

    async def prices(self, model: str) -> PriceTrend:
        """Thirty days of a model's prices."""
        since = int(time.time()) - TREND_SECONDS
        return price_trend(model, await self._visitor().prices(model, since=since))
