"""The list of nodes in Buyer mode: pages as somebody looks at them, its end, what is news."""

from __future__ import annotations

import asyncio

from textual import on

from computeswarm.core.errors import BadRequest, InvalidQuery
from computeswarm.tui import messages as m
from computeswarm.tui.backend import BuyerBackend
from computeswarm.tui.feeds import Poll, watch
from computeswarm.tui.marks import compare
from computeswarm.tui.ordering import LOCAL, ordered, ordered_gently
from computeswarm.tui.roster import Ask, Roster
from computeswarm.tui.screens.buyer_trends import BuyerTrends
from computeswarm.tui.searching import queries, split, without_sort
from computeswarm.tui.views import NodeItem
from computeswarm.tui.widgets.node_pane import NodePane
from computeswarm.tui.widgets.table import Table

NODES_EVERY = 2.0
PAGE_NODES = 100
NEAR = 20
"""The next page is fetched when the cursor is so close to where the list breaks off."""
MANY = 2_000
"""Nodes from which on they are compared beside the loop."""


class BuyerPages(BuyerTrends):
    """Subclasses say what is asked for: ``query_text``, ``sort``, ``descending``."""

    def __init__(self) -> None:
        super().__init__()
        self.query_text = ""
        self.sort = "price"
        self.descending = False
        self.roster = Roster()
        self._polls: dict[str, Poll] = {}
        self._list = 0
        """Counts the lists that were asked for: an answer for an earlier one is dropped."""
        self._to_end = False

    def listed_nodes(self) -> list[NodeItem]:
        return [row for row in self.roster.rows if isinstance(row, NodeItem)]

    @property
    def selected_node(self) -> NodeItem | None:
        row = self.query_one(NodePane).table.current
        return row if isinstance(row, NodeItem) else None

    @property
    def order(self) -> str:
        """The order of the list: the filter's own ``sort:`` comes before the keys'."""
        from computeswarm.core.query import parse  # after the first frame: brings the models

        given = f"{'-' * self.descending}{self.sort}"
        try:
            return parse(split(self.query_text)[0], sort=given).sort
        except InvalidQuery:
            return given

    # -- fetching

    async def fetch_nodes(self, buyer: BuyerBackend) -> m.NodesLoaded:
        """What is in view, what is wanted beyond that, and how many there are."""
        asked, order = self._list, self.order
        query, marked = split(self.query_text)
        if marked:
            await self._fetch_favourites(buyer, query, order)
            return m.NodesLoaded(asked)
        plain = without_sort(query)
        for ask in self.roster.due(*self.query_one(NodePane).table.in_view):
            if not await self._fetch(buyer, plain, order, ask, asked):
                return m.NodesLoaded(asked)
        while (more := self.roster.lacking()) is not None:
            if not await self._fetch(buyer, plain, order, more, asked):
                return m.NodesLoaded(asked)
        self.roster.arrange()
        await self._compare()
        return m.NodesLoaded(asked)

    async def _fetch(
        self, buyer: BuyerBackend, query: str, order: str, ask: Ask, asked: int
    ) -> bool:
        """One page; whether it is still wanted."""
        flipped = order[1:] if order.startswith("-") else f"-{order}"
        sort = order if ask.end == "top" else flipped
        try:
            page = await buyer.nodes(query.strip(), sort=sort, limit=PAGE_NODES, cursor=ask.cursor)
        except BadRequest:
            if not ask.cursor:
                raise
            self.roster.clear()  # the market no longer knows where we were
            return False
        if asked != self._list:
            return False
        self.roster.take(ask, page)
        return True

    async def _fetch_favourites(self, buyer: BuyerBackend, query: str, order: str) -> None:
        asked = self._list
        found: dict[str, NodeItem] = {}
        rejected = 0
        for part in queries(without_sort(query), self.swarm.memory.favourites):
            page = await buyer.nodes(part, sort=order, limit=PAGE_NODES)
            found |= {node.node_id: node for node in page.nodes}
            rejected += page.rejected
        nodes = list(found.values())
        if order.removeprefix("-") in LOCAL:
            nodes = await ordered_gently(nodes, order)
        if asked == self._list:
            self.roster.hold(nodes, rejected)
            await self._compare()

    async def _compare(self) -> None:
        nodes = self.listed_nodes()
        many = len(nodes) > MANY
        self.marks = await asyncio.to_thread(compare, nodes) if many else compare(nodes)

    def on_nodes_loaded(self, event: m.NodesLoaded) -> None:
        self.link_good()
        if event.asked != self._list:
            return
        self._show_nodes()
        if self._to_end and self.roster.ends:
            self._to_end = False
            table = self.query_one(NodePane).table
            table.cursor = len(table.rows) - 1
        self.refresh_footer()

    def _show_nodes(self) -> None:
        pane = self.query_one(NodePane)
        pane.marks, pane.favourites = self.marks, self.swarm.memory.favourites
        pane.load(self.roster, self.query_text)

    def on_market_alive(self) -> None:
        self.link_good()

    def watch_nodes(self) -> None:
        """Follow the market's changes to what the filter finds."""
        poll = self._polls.get("nodes")
        if poll is None or self.swarm.backends is None:
            return
        query, marked = split(self.query_text)
        if marked:
            parts = queries(without_sort(query), self.swarm.memory.favourites)
            query = parts[0] if len(parts) == 1 else query
        poll.followed = False
        work = watch(self.swarm.backends.buyer, query.strip(), poll, self.post_message)
        self.run_worker(work, group="watch", exclusive=True, exit_on_error=False)

    # -- the cursor

    @on(Table.Moved, "#nodes")
    def _node_moved(self) -> None:
        table = self.query_one(NodePane).table
        if self._to_end and table.cursor != self._edge():
            self._to_end = False  # somebody went elsewhere meanwhile
        near = abs(self._edge() - table.cursor) <= NEAR
        if near and table.rows and not self.roster.whole and not self._to_end:
            below = self.roster.gap is not None and table.cursor > self.roster.gap
            if self.roster.grow("bottom" if below else "top"):
                self.kick("nodes")
        self._show_place()
        self.show_node()

    @on(Table.End, "#nodes")
    def _end_wanted(self) -> None:
        """The last node of all, however many lie between."""
        if not self.roster.ends and self.roster.grow("bottom"):
            self._to_end = True
            self._show_place()
            self.kick("nodes")

    def _edge(self) -> int:
        """The row where the list breaks off."""
        gap = self.roster.gap
        return len(self.query_one(NodePane).table.rows) - 1 if gap is None else gap

    def _show_place(self) -> None:
        pane = self.query_one(NodePane)
        pane.place("fetching the end…" if self._to_end else "")

    # -- another list

    def _from_the_top(self, *, same: bool = False) -> None:
        """Another list, or the same nodes in another order: only the beginning is asked for."""
        self._list += 1
        self._to_end = False
        self._show_order()
        if not self.roster.whole:
            self.query_one(NodePane).table.cursor = 0  # down there the new one has nothing yet
        self.roster.clear(same=same)
        if same:
            self._turn()
        self.kick("nodes")

    def _turn(self) -> None:
        """What is all here takes the new order at once; the market's answer comes after it."""
        nodes = self.listed_nodes()
        if self.roster.whole and self.order.removeprefix("-") in LOCAL and len(nodes) <= MANY:
            self.roster.rows = list(ordered(nodes, self.order))
            self._show_nodes()

    def _show_order(self) -> None:
        """Mark the column of the order."""
        order = self.order
        table = self.query_one(NodePane).table
        table.sort_key, table.descending = order.removeprefix("-"), order.startswith("-")
        table.refresh()
