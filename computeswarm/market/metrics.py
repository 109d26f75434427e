"""A market's figures for Prometheus. Every label has few values, whatever strangers send.

Counters of one instance begin at 0 with its start; those of jobs are the database's, so every
instance shows the same: take their ``max``, not their ``sum``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import computeswarm
from computeswarm.core.metrics import Exposition, Histogram
from computeswarm.core.money import ATOMS_PER_USDC
from computeswarm.core.states import JobState
from computeswarm.core.stats import MarketStats
from computeswarm.market.limits import Kind

if TYPE_CHECKING:
    from computeswarm.market.market import Market

PREFIX = "computeswarm_market_"
_MODELS = 50
"""Models that are shown by name; the others are one."""
_PERCENTILES = ("p10", "p25", "p50", "p75", "p90")


def market_metrics(out: Exposition, market: Market, stats: MarketStats) -> None:
    """Add all figures of a market."""
    _what_runs(out, market)
    _nodes(out, stats)
    _jobs(out, market, stats)
    _leases(out, market)
    _memory(out, market, stats)
    _store(out, market)
    _stream(out, market)


def _what_runs(out: Exposition, market: Market) -> None:
    labels = {
        "version": computeswarm.__version__,
        "chain": market.chain.slug,
        "database": market.store.kind,
        "instance_id": market.store.instance,
    }
    out.add("info", "gauge", "What runs here.", (labels, 1))
    out.gauge("start_time_seconds", "Unix time of the start.", round(market.started_at, 3))
    out.gauge("loaded", "Whether the nodes are in memory.", int(market.loaded))


def _nodes(out: Exposition, stats: MarketStats) -> None:
    offline = stats.nodes_total - stats.nodes_online
    by_status = {
        "idle": stats.nodes_idle,
        "busy": stats.nodes_busy,
        "draining": stats.nodes_draining,
        "offline": offline,
    }
    out.add(
        "nodes",
        "gauge",
        "Nodes that did not leave, by status.",
        *[({"status": status}, count) for status, count in by_status.items()],
    )
    shown, rest = stats.gpus[:_MODELS], stats.gpus[_MODELS:]
    active = [({"model": gpu.model}, gpu.nodes) for gpu in shown]
    if rest:
        active.append(({"model": "others"}, sum(gpu.nodes for gpu in rest)))
    out.add("nodes_active", "gauge", "Nodes online by their first GPU.", *active)
    idle = [({"model": gpu.model}, gpu.idle) for gpu in shown]
    out.add("nodes_idle", "gauge", "Nodes that wait for work, by their first GPU.", *idle)
    prices = [
        ({"model": gpu.model, "percentile": name}, getattr(gpu.asked, name) / ATOMS_PER_USDC)
        for gpu in shown
        if gpu.asked
        for name in _PERCENTILES
    ]
    out.add("price_usdc", "gauge", "What sellers ask for a GPU and hour.", *prices)


def _jobs(out: Exposition, market: Market, stats: MarketStats) -> None:
    totals = market.jobs.totals
    states = [({"state": state}, stats.jobs.get(state, 0)) for state in map(str, JobState)]
    out.add("jobs", "gauge", "Jobs by the state they are in.", *states)
    out.counter("jobs_submitted_total", "Jobs that buyers told of.", stats.jobs_total)
    ended = [({"state": str(s)}, stats.jobs.get(s, 0)) for s in JobState if s.terminal]
    out.add("jobs_ended_total", "counter", "Jobs that ended, by how.", *ended)
    out.counter("jobs_completed_total", "Jobs that succeeded.", stats.jobs_completed)
    out.counter("jobs_paid_total", "Ended jobs that were paid for.", stats.jobs_paid)
    out.summary(
        "job_duration_seconds",
        "Metered time of the jobs that ended.",
        total=totals.metered_ms / 1000,
        count=totals.ended,
    )
    mean = stats.mean_job_ms / 1000 if stats.jobs_ended else None
    out.gauge("job_mean_duration_seconds", "Mean metered time of the jobs that ended.", mean)
    success = stats.payment_success_permille
    out.gauge(
        "payment_success_ratio",
        "Share of the ended jobs that were paid for and not refunded in full.",
        None if success is None else success / 1000,
    )
    out.gauge("paid_usdc", "Paid for jobs, refunds taken off.", stats.paid / ATOMS_PER_USDC)


def _leases(out: Exposition, market: Market) -> None:
    leases = market.leases
    out.counter("heartbeats_total", "Heartbeats that were taken.", market.heartbeats)
    out.counter("auth_failures_total", "Calls whose MAC did not hold.", market.refused_calls)
    limited = dict.fromkeys((f"{kind} per address" for kind in Kind), 0) | market.limits.refused
    refused = [({"limit": name}, count) for name, count in limited.items()]
    out.add("rate_limited_total", "counter", "Calls over a limit, by which.", *refused)
    out.counter("lease_expiries_total", "Nodes that went offline.", leases.expired)
    out.gauge("heartbeat_interval_seconds", "What nodes are told.", leases.interval_seconds)
    out.gauge("lease_brake", "Whether nobody is taken for offline now.", int(leases.braked))
    out.gauge("nodes_held", "Nodes that the brake keeps listed.", leases.held)


def _memory(out: Exposition, market: Market, stats: MarketStats) -> None:
    table, search = market.table, market.search
    held = table.memory_bytes
    out.gauge("nodes_memory_bytes", "Memory of all nodes.", held)
    known = table.live()
    each = held / known if known else None
    out.gauge("node_memory_bytes", "Memory of one node.", each)
    out.gauge("index_memory_bytes", "Memory of the orders that searches use.", search.memory_bytes)
    out.histogram("search_scan_seconds", "Time of a search.", [({}, search.scan_seconds)])
    out.histogram(
        "index_rebuild_seconds", "Time to build an order anew.", [({}, search.rebuild_seconds)]
    )
    counted = market.statistics.seconds
    out.histogram("statistics_seconds", "Time to count all nodes.", [({}, counted)])


def _store(out: Exposition, market: Market) -> None:
    store = market.store
    up = int(store.unavailable_since is None)
    out.gauge("database_up", "Whether the database answered last.", up)
    out.gauge("stale_seconds", "Age of what is shown while it does not.", market.stale_seconds)
    out.gauge("write_behind_nodes", "Nodes whose lease waits to be written.", store.backlog)
    flushes: list[tuple[dict[str, str], Histogram]] = [({}, store.flush_seconds)]
    out.histogram("write_behind_flush_seconds", "Time to write a batch of leases.", flushes)
    if store.shared:
        replica = market.replica
        lag, age = replica.lag_seconds, replica.position_age_seconds
        out.gauge("replication_lag_seconds", "Since the log's end was reached.", lag)
        out.gauge("replication_position_age_seconds", "Since anything came by the log.", age)
        out.counter("replication_reloads_total", "Times all was read anew.", replica.reloads)


def _stream(out: Exposition, market: Market) -> None:
    live = market.live
    out.gauge("stream_subscribers", "Who listens to changes.", live.subscribers)
    out.counter("stream_turned_away_total", "Who found no room to listen.", live.dropped)
    out.counter("stream_resets_total", "Times a listener had to load anew.", live.resets)
