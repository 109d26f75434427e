"""What is told of the node under the cursor, its model's prices fetched once the cursor rests."""

from __future__ import annotations

from textual.timer import Timer

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui.backend import BuyerBackend
from computeswarm.tui.marks import Marks
from computeswarm.tui.screens.buyer_orders import BuyerOrders
from computeswarm.tui.trends import LOADING, Told, Trends
from computeswarm.tui.views import NodeItem, PriceTrend
from computeswarm.tui.widgets.node_detail import Insight, NodeDetail

REST_SECONDS = 0.3


class BuyerTrends(BuyerOrders):
    """The detail pane of Buyer mode."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = Marks()
        self._trends: Trends | None = None
        self._resting: Timer | None = None

    @property
    def trends(self) -> Trends:
        """What was fetched of prices so far."""
        if self._trends is None:
            self._trends = Trends(self.swarm.clock.monotonic)
        return self._trends

    def insight(self, node: NodeItem) -> Insight:
        """What is known of a node beyond what it says itself."""
        told: Told = self.trends.told(node.model) if self.swarm.backends else LOADING
        return Insight(self.marks, node.node_id in self.swarm.memory.favourites, told)

    def action_detail(self) -> None:
        """All of it, in a dialog."""
        node = self.selected_node
        if not self.refused("detail") and node is not None:
            from computeswarm.tui.modals.detail import DetailModal

            self.app.push_screen(DetailModal(node, self.now, self.insight(node)))

    def show_node(self) -> None:
        """The node under the cursor; its prices as soon as the cursor rests."""
        node = self.selected_node
        pane = self.query_one(NodeDetail)
        pane.show(node, self.now, self.insight(node) if node else None)
        if node is None or self.trends.fresh(node.model):
            return
        if self._resting is not None:
            self._resting.stop()
        self._resting = self.set_timer(REST_SECONDS, self._rested)

    def _rested(self) -> None:
        node, backends = self.selected_node, self.swarm.backends
        if node is not None and backends is not None and not self.trends.fresh(node.model):
            work = self._learn_prices(backends.buyer, node.model)
            self.run_worker(work, group="prices", exclusive=True, exit_on_error=False)

    async def _learn_prices(self, buyer: BuyerBackend, model: str) -> None:
        answer: PriceTrend | ComputeSwarmError
        try:
            answer = await buyer.prices(model)
        except ComputeSwarmError as error:
            answer = error
        self.trends.keep(model, answer)
        node = self.selected_node
        if node is not None and node.model == model:
            self.query_one(NodeDetail).show(node, self.now, self.insight(node))
