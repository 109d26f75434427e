"""Seller mode: the machine, what it earns, who runs on it."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.containers import Container
from textual.content import Content
from textual.widget import Widget

from computeswarm.core.errors import ComputeSwarmError
from computeswarm.tui import messages as m
from computeswarm.tui.backend import Backends, SellerBackend
from computeswarm.tui.feeds import Poll
from computeswarm.tui.format import money, price, short_address
from computeswarm.tui.keymap import bindings
from computeswarm.tui.screens.seller_orders import SellerOrders
from computeswarm.tui.views import SellerItem
from computeswarm.tui.widgets.earnings import EarningsPane
from computeswarm.tui.widgets.event_pane import EventPane
from computeswarm.tui.widgets.gpu_panel import GpuPanel
from computeswarm.tui.widgets.header import Header, Link, real_money
from computeswarm.tui.widgets.log_view import LogView
from computeswarm.tui.widgets.pane import Notice, Part, line, lines
from computeswarm.tui.widgets.queue_pane import QueuePane

STATUS_EVERY, ATTACH_EVERY = 1.0, 2.0


class SellerScreen(SellerOrders):
    mode = "seller"
    BINDINGS: ClassVar = bindings("app", "seller")
    CSS_PATH: ClassVar = ["../styles/panes.tcss", "../styles/seller.tcss"]
    AUTO_FOCUS = "#queue"

    def body(self) -> list[Widget]:
        middle = Container(
            EarningsPane(id="earnings-pane"), QueuePane(id="queue-pane"), id="seller-middle"
        )
        panes = Container(GpuPanel(id="gpu-pane"), middle, EventPane(id="event-pane"), id="seller")
        return [Notice(id="no-seller"), panes]

    def on_mount(self) -> None:
        if self.swarm.backends is not None:
            self._begin(self.swarm.backends)

    # -- connection

    def on_connected(self, event: m.Connected) -> None:
        if self._poll is None:
            self._begin(event.backends)

    def on_connect_failed(self, event: m.ConnectFailed) -> None:
        self.link_broken(event.error)

    def _begin(self, backends: Backends) -> None:
        self._seller = backends.seller
        header = self.query_one(Header)
        header.alarm = real_money(backends.buyer.identity.real_money)  # until the seller says it
        self.set_class(self._seller is None, "-no-seller")
        if self._seller is None:
            header.link = Link("none")
            self.query_one("#no-seller", Notice).update(_how_to_sell())
            self.refresh_footer()
            self.set_timer(ATTACH_EVERY, lambda: self._look_again(backends))
            return
        seller = self._seller

        async def status() -> m.SellerLoaded:
            return m.SellerLoaded(await seller.status())

        self._poll = Poll("seller", status, self.post_message, STATUS_EVERY)
        self.run_worker(self._poll.run(), group="seller", exclusive=True, exit_on_error=False)

    def _look_again(self, backends: Backends) -> None:
        """Look again for a seller: it may have been started meanwhile."""
        self._begin(replace(backends, seller=backends.attach()))

    # -- what arrives

    def on_seller_loaded(self, event: m.SellerLoaded) -> None:
        self.link_good()
        self._gone = ""
        status = self.status = event.status
        self.query_one(GpuPanel).load(status)
        self.query_one(EarningsPane).load(status.earnings)
        self.query_one(QueuePane).load(status, self.now)
        self.tell_of_questions(status)
        self.query_one(EventPane).load(status.events)
        header = self.query_one(Header)
        header.alarm = real_money(status.real_money)
        header.facts = (
            *([(status.network, "bold $error")] if status.real_money else []),
            (short_address(status.wallet), "$muted"),
            (status.name, ""),
            (f"{price(status.price)} USDC/h", "$muted"),
            _state(status),
            (f"today {money(status.earnings.today, 4)}", "bold $bright"),
        )
        self.query_one(EventPane).foot((status.note or status.mood_reason, "$warning"))
        self.refresh_footer()

    def on_feed_failed(self, event: m.FeedFailed) -> None:
        self.link_broken(event.error)
        self._gone = event.error.detail
        self.query_one(EventPane).foot(
            (f"✗ {event.error.detail} Attaches by itself when it is back.", "$error")
        )
        self.refresh_footer()
        if self.status is None:
            panel = self.query_one(GpuPanel)
            panel.notice("✗", event.error.title, event.error.detail, tone="$error")

    @on(LogView.SaveAsked)
    def _save_events(self) -> None:
        from pathlib import Path

        from computeswarm.tui.modals.save import SaveModal

        text = self.query_one("#events", LogView).buffer.text()
        self.app.push_screen(SaveModal(Path("seller-events.log"), text))

    # -- keys; what is said to the seller about its jobs stands in SellerOrders

    def refusal(self, action: str) -> str:
        return self.unreachable() if action in ("price", "export") else super().refusal(action)

    def action_back(self) -> None:
        self.unzoom()
        self.query_one(QueuePane).table.focus()

    def action_copy(self) -> None:
        job = self.selected
        if job is not None and self.query_one(QueuePane).table.has_focus:
            self.swarm.copy(job.job_id, "job id")
        elif self.status is not None:
            self.swarm.copy(self.status.node_id, "node id")

    def action_price(self) -> None:
        if self.refused("price") or self.status is None:
            return
        from computeswarm.tui.modals.price import PriceModal

        unit = "GPU and hour" if self.status.gpus else "hour"
        self.app.push_screen(PriceModal(self.status.price, unit, self.status.advice), self._priced)

    def _priced(self, atoms: int | None) -> None:
        if atoms is not None and self._seller is not None:
            self._do(self._seller.set_price(atoms), f"New jobs cost {money(atoms)} USDC an hour.")

    def action_export(self) -> None:
        if self.refused("export") or self._seller is None:
            return
        self.run_worker(self._export(self._seller), group="owner", exit_on_error=False)

    async def _export(self, seller: SellerBackend) -> None:
        from datetime import datetime
        from pathlib import Path

        from computeswarm.tui.modals.save import SaveModal

        try:
            text = await seller.earnings_csv()
        except ComputeSwarmError as error:
            self.swarm.say(error.detail, title=error.title, severity="error")
            return
        today = datetime.fromtimestamp(self.now).date().isoformat()
        self.app.push_screen(SaveModal(Path(f"earnings-{today}.csv"), text, "Save the earnings"))


_MOODS = {
    "paused": "◫ paused",
    "draining": "↓ draining",
    "drained": "↓ drained",
    "closed": "◷ closed",
    "held": "◼ held",
    "in_use": "◼ in use",
    "no_gas": "✗ no gas",
    "stopping": "■ stopping",
    "starting": "◌ starting",
}


def _state(status: SellerItem) -> Part:
    if (mood := _MOODS.get(status.mood)) is not None:
        return (mood, "bold $warning")
    if status.paused:
        return (_MOODS["paused"], "bold $warning")
    return ("✓ listed", "$success") if status.listed else ("✗ not listed", "bold $error")


def _how_to_sell() -> Content:
    return lines(
        line(("◇", "$primary")),
        line(("No seller runs on this machine", "bold $bright")),
        line(""),
        line("Offer its idle seconds, paid per second in USDC:"),
        line(""),
        line(("computeswarm seller --price 0.40", "bold $primary")),
        line(""),
        line(("It finds your GPUs, lists them at the market, and shows up here.", "$muted")),
        line(("Already running headless? Open this app as the same user.", "$muted")),
        line(""),
        line(("1 goes back to buying", "$muted")),
    )
