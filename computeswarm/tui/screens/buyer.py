"""Buyer mode: find a node, rent it, watch the job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.containers import Container
from textual.message import Message
from textual.widget import Widget

from computeswarm.core.errors import InvalidQuery
from computeswarm.core.states import JobState
from computeswarm.tui import messages as m
from computeswarm.tui.backend import Backends, BuyerBackend
from computeswarm.tui.feeds import Poll, follow
from computeswarm.tui.format import money, short_address, short_job
from computeswarm.tui.keymap import bindings
from computeswarm.tui.logbuffer import LogBuffer
from computeswarm.tui.screens.buyer_browse import BuyerBrowse
from computeswarm.tui.screens.buyer_pages import NODES_EVERY
from computeswarm.tui.views import REFUSED, Identity, JobItem, LogLine, Meter
from computeswarm.tui.widgets.filter_bar import FilterBar
from computeswarm.tui.widgets.header import Header, real_money
from computeswarm.tui.widgets.job_pane import JobPane
from computeswarm.tui.widgets.log_pane import LogPane
from computeswarm.tui.widgets.log_view import LogView
from computeswarm.tui.widgets.node_detail import NodeDetail
from computeswarm.tui.widgets.node_pane import NodePane
from computeswarm.tui.widgets.pane import Part
from computeswarm.tui.widgets.table import Table

JOBS_EVERY, BALANCE_EVERY = 1.0, 8.0
ADOPT_AFTER = 120.0
"""Seconds after which an unfinished purchase is surely nobody else's any more."""


class BuyerScreen(BuyerBrowse):
    mode = "buyer"
    BINDINGS: ClassVar = bindings("app", "buyer")
    CSS_PATH: ClassVar = ["../styles/panes.tcss", "../styles/buyer.tcss"]
    AUTO_FOCUS = "#nodes"

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[JobItem] = []
        self._meters: dict[str, Meter] = {}
        self._followed: set[str] = set()

    def body(self) -> list[Widget]:
        example = self.swarm.example
        jobs = JobPane(example.script.name if example else "", id="job-pane")
        middle = Container(NodeDetail(id="detail-pane"), jobs, id="middle")
        return [Container(NodePane(id="node-pane"), middle, LogPane(id="log-pane"), id="buyer")]

    def on_mount(self) -> None:
        table = self.query_one(NodePane).table
        table.sort_key, table.descending = self.sort, self.descending
        if self.swarm.backends is not None:
            self._begin(self.swarm.backends)

    # -- connection and feeds

    def on_connected(self, event: m.Connected) -> None:
        if not self._polls:
            self._begin(event.backends)

    def on_connect_failed(self, event: m.ConnectFailed) -> None:
        self.query_one(NodePane).fail(event.error)
        self.link_broken(event.error)

    def _begin(self, backends: Backends) -> None:
        buyer = backends.buyer
        self._facts(buyer.identity)

        async def nodes() -> m.NodesLoaded:
            return await self.fetch_nodes(buyer)

        async def jobs() -> m.JobsLoaded:
            return m.JobsLoaded(await buyer.jobs())

        self._poll("nodes", nodes, NODES_EVERY)
        self.watch_nodes()
        self._poll("jobs", jobs, JOBS_EVERY)
        if buyer.identity.address:
            self._watch_balance(buyer)

    def _watch_balance(self, buyer: BuyerBackend) -> None:
        async def balance() -> m.BalanceLoaded:
            return m.BalanceLoaded(await buyer.balance())

        self._poll("balance", balance, BALANCE_EVERY)

    def on_wallet_opened(self) -> None:
        """There is a wallet now; what it holds is shown."""
        if self.swarm.backends is not None:
            self._facts(self.swarm.backends.buyer.identity)
            self._watch_balance(self.swarm.backends.buyer)

    def _poll(self, name: str, fetch: Callable[[], Awaitable[Message]], period: float) -> None:
        poll = self._polls[name] = Poll(name, fetch, self.post_message, period)
        self.run_worker(poll.run(), group=name, exclusive=True, exit_on_error=False)

    def kick(self, *names: str) -> None:
        """Fetch now what has surely changed."""
        for name in names:
            if name in self._polls:
                self._polls[name].kick()

    def _facts(self, who: Identity) -> None:
        facts: list[Part] = [
            (who.market.removeprefix("http://").removeprefix("https://"), "$faint"),
            (who.network, "bold $error" if who.real_money else "$muted"),
        ]
        if who.address:
            facts.append((short_address(who.address), "$muted"))
        else:
            facts.append(("no wallet", "$warning"))
        if self.balance is not None:
            facts.append((f"{money(self.balance, 4)} USDC", "bold $bright"))
        header = self.query_one(Header)
        header.alarm, header.facts = real_money(who.real_money), tuple(facts)

    # -- what arrives

    def on_balance_loaded(self, event: m.BalanceLoaded) -> None:
        self.balance = event.balance.usdc
        if self.swarm.backends is not None:
            self._facts(self.swarm.backends.buyer.identity)

    def on_jobs_loaded(self, event: m.JobsLoaded) -> None:
        self.jobs = [self._metered(job) for job in event.jobs]
        self._show_jobs()
        for job in self.jobs:
            if self._ours(job):
                self._follow(job.job_id)

    def _ours(self, job: JobItem) -> bool:
        """Whether to follow and pay a job: not while another program may still be buying it."""
        if job.ended or job.step == REFUSED:  # going on by itself would buy what was given up
            return False
        bought = job.state not in (JobState.CREATED, JobState.AWAITING_PAYMENT)
        return bought or self.now - job.created_at > ADOPT_AFTER

    def on_feed_failed(self, event: m.FeedFailed) -> None:
        if isinstance(event.error, InvalidQuery):
            self.query_one(FilterBar).blame(event.error)
        elif event.feed == "nodes":
            self.query_one(NodePane).fail(event.error)
            self.link_broken(event.error)

    def on_logged(self, event: m.Logged) -> None:
        self._logs.setdefault(event.job_id, LogBuffer()).extend(event.lines)
        job = self.selected_job
        if job is not None and job.job_id == event.job_id:
            pane = self.query_one(LogPane)
            pane.view.grew()
            pane.show_body()

    def on_metered(self, event: m.Metered) -> None:
        self._meters[event.job_id] = event.meter
        self.jobs = [self._metered(job) for job in self.jobs]
        self._show_jobs()

    def on_job_ended(self, event: m.JobEnded) -> None:
        known = {job.job_id: job for job in self.jobs}.get(event.job.job_id)
        was_live = known is None or not known.ended
        self._meters.pop(event.job.job_id, None)
        self.jobs = [event.job if j.job_id == event.job.job_id else j for j in self.jobs]
        self._show_jobs()
        self.kick("jobs", "balance", "nodes")
        if was_live:
            self._tell_end(event.job)

    def on_follow_failed(self, event: m.FollowFailed) -> None:
        line = LogLine(event.error.detail, "bad", int(self.now * 1000))
        self.post_message(m.Logged(event.job_id, [line]))
        # the next list of jobs starts it again, while the job is live
        if any(job.job_id == event.job_id and not job.ended for job in self.jobs):
            self.set_timer(5.0, lambda: self._followed.discard(event.job_id))

    def _tell_end(self, job: JobItem) -> None:
        back = f", {money(job.refund.amount)} back" if job.refund else ""
        good = job.state == "succeeded"
        self.swarm.alert(
            f"cost {money(job.cost)} USDC{back} · r shows the receipt",
            title=f"{job.name or short_job(job.job_id)} {'is done' if good else job.state}",
            severity="information" if good else "warning",
        )

    def _metered(self, job: JobItem) -> JobItem:
        meter = self._meters.get(job.job_id)
        if meter is None or job.ended or meter.metered_ms < job.metered_ms:
            return job
        return replace(job, metered_ms=meter.metered_ms, cost=meter.cost, paid=meter.paid)

    def _follow(self, job_id: str) -> None:
        if job_id not in self._followed and self.swarm.backends is not None:
            self._followed.add(job_id)
            self._logs[job_id] = LogBuffer()
            work = follow(self.swarm.backends.buyer, job_id, self.post_message)
            self.run_worker(work, group=f"follow {short_job(job_id)}", exit_on_error=False)

    # -- what is shown

    def live_jobs(self) -> list[str]:
        """Names of the jobs that haven't ended."""
        return [job.name or short_job(job.job_id) for job in self.jobs if not job.ended]

    def _show_jobs(self) -> None:
        self.query_one(JobPane).load(self.jobs)
        if any(job.job_id == self._bought_job for job in self.jobs):
            self.query_one(JobPane).table.select(self._bought_job)
            self._bought_job = ""
        self.refresh_footer()

    def _show_log(self) -> None:
        job = self.selected_job
        if job is None:
            self.query_one(LogPane).show(None, LogBuffer(), None)
            return
        if job.ended or self._ours(job):  # an ended job's lines are fetched when somebody looks
            self._follow(job.job_id)
        buffer = self._logs.setdefault(job.job_id, LogBuffer())
        self.query_one(LogPane).show(job, buffer, self._meters.get(job.job_id))

    @on(Table.Moved, "#jobs")
    def _job_moved(self) -> None:
        self._show_log()
        self.query_one(JobPane).place()
        self.refresh_footer()

    @on(Table.Chosen, "#nodes")
    def _node_chosen(self) -> None:
        self.action_rent()

    # -- keys

    def action_back(self) -> None:
        """One step back: zoom, find, filter, then to the nodes."""
        pane, log = self.query_one(NodePane), self.query_one(LogPane)
        if log.finding or log.view.needle:
            log.close_find(keep=False)
        elif self.has_class("-zoomed"):
            self.unzoom()
        else:
            if pane.has_focus_within:
                pane.query_one(FilterBar).clear()
            pane.table.focus()

    def action_filter(self) -> None:
        if isinstance(self.focused, LogView):
            self.query_one(LogPane).open_find()
        else:
            self.query_one("#filter-input").focus()
