"""Looking through the market: the filter, the order, favourites, saved searches, counts."""

from __future__ import annotations

from textual import on

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.memory import SavedSearch
from computeswarm.tui.screens.buyer_pages import BuyerPages
from computeswarm.tui.searching import WORD, split
from computeswarm.tui.views import FacetItem
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.node_pane import NodePane

FACETS_FOR = 60.0


class BuyerBrowse(BuyerPages):
    """The keys that change what is listed."""

    def __init__(self) -> None:
        super().__init__()
        self._facets_at = float("-inf")

    def refusal(self, action: str) -> str:
        if action == "favourite":
            return "" if self.selected_node else "No node is under the cursor."
        return super().refusal(action)

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
        self._from_the_top(same=True)

    # -- favourites and saved searches

    def action_favourite(self) -> None:
        """Mark the node under the cursor, or take the mark off."""
        node = self.selected_node
        if self.refused("favourite") or node is None:
            return
        memory = self.swarm.memory
        marked = node.node_id not in memory.favourites
        memory.mark(node.node_id, marked)
        self._tell_trouble()
        if split(self.query_text)[1]:
            self.kick("nodes")
            self.watch_nodes()
        self._show_nodes()
        self.show_node()
        if marked and len(memory.favourites) == 1:
            self.swarm.say(f"{WORD} in the filter, or v, lists your favourites.", title="♥ Marked")

    def action_searches(self) -> None:
        """Choose a saved search, or save the present one."""
        from computeswarm.tui.modals.searches import SearchesModal

        present = SavedSearch("", self.query_text, f"{'-' * self.descending}{self.sort}")

        def chosen(search: SavedSearch | None) -> None:
            self._tell_trouble()
            if search is not None:
                self._apply(search)

        self.app.push_screen(SearchesModal(present, self.swarm.memory), chosen)

    def action_apply_search(self, name: str) -> None:
        """The saved search of that name; the palette calls it."""
        for search in self.swarm.memory.searches:
            if search.name == name:
                self._apply(search)

    def _apply(self, search: SavedSearch) -> None:
        from computeswarm.core.query import SORTABLE

        name = search.sort.removeprefix("-")
        if name in SORTABLE:
            self.sort, self.descending = name, search.sort.startswith("-")
        bar = self.query_one(FilterBar)
        if search.query == self.query_text == bar.text:
            self._from_the_top(same=True)
        else:
            bar.ask(search.query)
        self.query_one(NodePane).table.focus()

    def _tell_trouble(self) -> None:
        if trouble := self.swarm.memory.trouble:
            self.swarm.say(trouble, title="Not kept for next time", severity="warning")

    # -- counts

    def action_facets(self) -> None:
        """How many nodes match, by what they are."""
        if not self.refused("facets"):
            self.run_worker(self._count(), group="facets", exclusive=True, exit_on_error=False)

    async def _count(self) -> None:
        assert self.swarm.backends is not None  # or it was refused
        try:
            items = await self.swarm.backends.buyer.facets(split(self.query_text)[0].strip())
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
