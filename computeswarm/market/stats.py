"""Counting nodes and jobs, for people and for Prometheus."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from statistics import median_low

from computeswarm.core.nodes import NodeStatus
from computeswarm.core.stats import GPUStats, MarketStats, PricePercentiles
from computeswarm.market.directory import Node
from computeswarm.market.jobs import Jobs

_MODELS = 200
_ENOUGH = 3
"""Wallets that have finished a job; below that all of them count."""


def market_stats(nodes: Iterable[Node], jobs: Jobs, now: float) -> MarketStats:
    """Statistics at ``now`` (unix seconds)."""
    states: Counter[NodeStatus] = Counter()
    models: defaultdict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        status = node.status_at(now)
        states[status] += 1
        if status is not NodeStatus.OFFLINE:
            gpus = node.record.hardware.gpus
            model = gpus[0].model if gpus else "cpu"
            models[model].append(node)
    shown = sorted(models.items(), key=lambda item: (-len(item[1]), item[0]))[:_MODELS]
    rows = [_of_model(model, found, now) for model, found in shown]
    total = sum(states.values())
    return MarketStats(
        time=int(now),
        nodes_total=total,
        nodes_online=total - states[NodeStatus.OFFLINE],
        nodes_idle=states[NodeStatus.IDLE],
        nodes_busy=states[NodeStatus.BUSY],
        nodes_draining=states[NodeStatus.DRAINING],
        gpus=tuple(rows),
        jobs_total=sum(jobs.by_state.values()),
        jobs={state: count for state, count in sorted(jobs.by_state.items()) if count},
        mean_job_ms=jobs.metered_ms // jobs.ended if jobs.ended else 0,
        paid=max(0, jobs.paid),
    )


def _of_model(model: str, nodes: list[Node], now: float) -> GPUStats:
    prices = [node.record.price_per_hour for node in nodes]
    return GPUStats(
        model=model,
        nodes=len(nodes),
        idle=sum(node.status_at(now) is NodeStatus.IDLE for node in nodes),
        min_price=min(prices),
        median_price=median_low(prices),
        asked=price_percentiles(nodes),
    )


def price_percentiles(nodes: Iterable[Node]) -> PricePercentiles:
    """What the wallets behind these nodes (at least one) ask."""
    lowest: dict[str, int] = {}
    proven: set[str] = set()
    for node in nodes:
        wallet, price = node.record.wallet.lower(), node.record.price_per_hour
        lowest[wallet] = min(price, lowest.get(wallet, price))
        if node.succeeded:
            proven.add(wallet)
    counted = proven if len(proven) >= _ENOUGH else lowest.keys()
    prices = sorted(lowest[wallet] for wallet in counted)

    def at(percent: int) -> int:
        return prices[min(len(prices) - 1, len(prices) * percent // 100)]

    return PricePercentiles(
        sellers=len(prices), p10=at(10), p25=at(25), p50=at(50), p75=at(75), p90=at(90)
    )


def prometheus(stats: MarketStats, *, heartbeats: int, refused: int) -> str:
    """The same in Prometheus' text format 0.0.4."""
    lines: list[str] = []

    def metric(name: str, kind: str, samples: dict[str, int | float]) -> None:
        lines.append(f"# TYPE computeswarm_market_{name} {kind}")
        lines.extend(f"computeswarm_market_{name}{k} {v}" for k, v in samples.items())

    offline = stats.nodes_total - stats.nodes_online
    metric(
        "nodes",
        "gauge",
        {
            '{status="idle"}': stats.nodes_idle,
            '{status="busy"}': stats.nodes_busy,
            '{status="draining"}': stats.nodes_draining,
            '{status="offline"}': offline,
        },
    )
    models = {f'{{model="{_escape(gpu.model)}"}}': gpu.nodes for gpu in stats.gpus}
    metric("nodes_online_by_gpu", "gauge", dict(models))
    metric("jobs", "gauge", {f'{{state="{s}"}}': n for s, n in stats.jobs.items()})
    metric("jobs_submitted_total", "counter", {"": stats.jobs_total})
    metric("job_mean_seconds", "gauge", {"": stats.mean_job_ms / 1000})
    metric("heartbeats_total", "counter", {"": heartbeats})
    metric("calls_refused_total", "counter", {"": refused})
    return "\n".join(lines) + "\n"


def _escape(label: str) -> str:
    return label.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
