"""Looking through the market: the filter, the order, counts, and a list without an end."""

from __future__ import annotations

from textual import on

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui import messages as m
from computeswarm.tui.backend import BuyerBackend
from computeswarm.tui.feeds import Poll, watch
from computeswarm.tui.screens.buyer_orders import BuyerOrders
from computeswarm.tui.views import FacetItem
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.node_detail import NodeDetail
from computeswarm.tui.widgets.node_pane import NodePane
from computeswarm.tui.widgets.table import Table

NODES_EVERY = 2.0
PAGE_NODES = 100
"""So many are asked for at first, and so many more each time the cursor comes near the end."""
NEAR = 20
MOST_NODES = 10_000
FACETS_FOR = 60.0


class BuyerBrowse(BuyerOrders):
    """The nodes of Buyer mode."""

    def __init__(self) -> None:
        super().__init__()
        self.query_text = ""
        self.sort = "price"
        self.descending = False
        self.wanted = PAGE_NODES
        self._more = False
        """Whether the last answer left nodes out that were not asked for yet."""
        self._polls: dict[str, Poll] = {}
        self._facets_at = float("-inf")

    # -- the list

    async def fetch_nodes(self, buyer: BuyerBackend) -> m.NodesLoaded:
        """What the filter finds, as far as somebody has looked."""
        order = f"-{self.sort}" if self.descending else self.sort
        asked = self.wanted
        page = await buyer.nodes(self.query_text, sort=order, limit=asked)
        return m.NodesLoaded(page, asked)

    def on_nodes_loaded(self, event: m.NodesLoaded) -> None:
        self.link_good()
        self._more = event.page.more and event.asked == self.wanted
        self.query_one(NodePane).load(event.page, self.query_text)
        self.refresh_footer()

    def on_market_alive(self) -> None:
        self.link_good()

    def watch_nodes(self) -> None:
        """Follow the market's changes to what the filter finds."""
        poll = self._polls.get("nodes")
        if poll is not None and self.swarm.backends is not None:
            poll.followed = False
            work = watch(self.swarm.backends.buyer, self.query_text, poll, self.post_message)
            self.run_worker(work, group="watch", exclusive=True, exit_on_error=False)

    @on(Table.Moved, "#nodes")
    def _node_moved(self) -> None:
        pane = self.query_one(NodePane)
        table = pane.table
        if self._more and self.wanted < MOST_NODES and len(table.rows) - table.cursor <= NEAR:
            self._more = False
            self._want(self.wanted + PAGE_NODES)
        pane.place()
        self.query_one(NodeDetail).show(self.selected_node, self.now)

    def _want(self, count: int) -> None:
        """Ask for so many nodes from now on; long lists are asked for less often."""
        self.wanted = count
        if poll := self._polls.get("nodes"):
            poll.period = NODES_EVERY * (count / PAGE_NODES)
        self.kick("nodes")

    # -- the filter and the order

    @on(FilterBar.Asked)
    def _asked(self, event: FilterBar.Asked) -> None:
        if event.query != self.query_text:
            self.query_text = event.query
            self._from_the_top()
            self.watch_nodes()

    @on(FilterBar.Left)
    def _left_filter(self) -> None:
        self.query_one(NodePane).table.focus()

    @on(FilterBar.Entered)
    def _entered_filter(self) -> None:
        if self.now - self._facets_at >= FACETS_FOR:
            self._facets_at = self.now
            self.run_worker(self._learn(), group="facets", exclusive=True, exit_on_error=False)

    async def _learn(self) -> None:
        """The values there are, for completing what is typed."""
        if self.swarm.backends is None:
            return
        try:
            items = await self.swarm.backends.buyer.facets("")
        except ComputeSwarmError:
            return  # completion knows the language without them
        known: dict[str, list[str]] = {}
        for item in items:
            known.setdefault(item.field, []).append(item.label)
        self.query_one(FilterBar).known = known

    def action_sort(self) -> None:
        """By the next column that is in view, so that the arrow says by which."""
        sorts = self.query_one(NodePane).table.sorts
        at = sorts.index(self.sort) + 1 if self.sort in sorts else 0
        self._sort(sorts[at % len(sorts)], self.descending)

    def action_sort_flip(self) -> None:
        self._sort(self.sort, not self.descending)

    def _sort(self, key: str, descending: bool) -> None:
        self.sort, self.descending = key, descending
        self._from_the_top()

    def _from_the_top(self) -> None:
        """Another list: only its beginning is asked for."""
        self._show_order()
        self._more = False
        if self.wanted > PAGE_NODES:
            self.query_one(NodePane).table.cursor = 0  # down there the new one has nothing yet
        self._want(PAGE_NODES)

    def _show_order(self) -> None:
        """Mark the column of the order; the filter's own ``sort:`` comes before the keys'."""
        from computeswarm.core.query import parse  # after the first frame: brings the models

        order = parse(self.query_text, sort=f"{'-' * self.descending}{self.sort}").sort
        table = self.query_one(NodePane).table
        table.sort_key, table.descending = order.removeprefix("-"), order.startswith("-")
        table.refresh()

    # -- counts

    def action_facets(self) -> None:
        """How many nodes match, by what they are."""
        if not self.refused("facets"):
            self.run_worker(self._count(), group="facets", exclusive=True, exit_on_error=False)

    async def _count(self) -> None:
        assert self.swarm.backends is not None  # or it was refused
        try:
            items = await self.swarm.backends.buyer.facets(self.query_text)
        except ComputeSwarmError as error:
            self.swarm.say(error.detail, title=error.title, severity="error")
            return
        if not items:
            self.swarm.say("No node matches, so there is nothing to count.", severity="warning")
            return
        self._choose(items)

    def _choose(self, items: list[FacetItem]) -> None:
        from computeswarm.core.query import with_word
        from computeswarm.tui.modals.facets import FacetsModal

        def narrow(word: str | None) -> None:
            if word:
                self.query_one(FilterBar).fill(with_word(self.query_text, word))

        self.app.push_screen(FacetsModal(items, self.query_text), narrow)
