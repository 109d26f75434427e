"""The seller's figures in Prometheus' text format 0.0.4: base units, and labels that are bounded.

Money figures are gauges over windows of days, as a refund or a reorganisation takes some back;
what only ever rises is a counter, kept over restarts. What is not measured has no sample at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import computeswarm
from computeswarm.core.metrics import Exposition
from computeswarm.core.money import ATOMS_PER_USDC
from computeswarm.core.text import clean_line
from computeswarm.seller.accepting import NodeMood
from computeswarm.seller.earnings_rows import EarningsRow
from computeswarm.seller.owner import OwnerGpu, OwnerStatus
from computeswarm.seller.usage import CPU

if TYPE_CHECKING:
    from computeswarm.seller.agent import SellerAgent

_PREFIX = "computeswarm_seller_"
_WINDOWS = {"1d": 1, "7d": 7, "30d": 30}
_WEI = 10**18


def metrics(agent: SellerAgent) -> str:
    """All figures of a seller now."""
    status, out = agent.status(), Exposition(_PREFIX)
    _state(out, agent, status)
    _jobs(out, agent, status)
    _gpus(out, agent, status)
    _money(out, status)
    return out.text()


def _state(out: Exposition, agent: SellerAgent, status: OwnerStatus) -> None:
    version = {"version": computeswarm.__version__, "node_id": status.node_id}
    out.add("info", "gauge", "What runs here.", (version, 1))
    started = round(status.started_at, 3)
    out.add("start_time_seconds", "gauge", "Unix time of the start.", ({}, started))
    ready = int(not agent.health.reasons())
    out.add("ready", "gauge", "Whether it can take and finish jobs.", ({}, ready))
    moods = [({"mood": mood}, int(mood == status.mood)) for mood in get_args(NodeMood)]
    out.add("mood", "gauge", "1 for how it feels about new jobs.", *moods)
    linked = int(status.market.connected)
    out.add("market_connected", "gauge", "Whether the market lists it.", ({}, linked))
    gas = int(status.gas_wei) / _WEI if status.gas_wei else None
    out.add("gas_balance_ether", "gauge", "What pays for transactions.", ({}, gas))
    out.add("slots", "gauge", "Jobs at a time.", ({}, status.slots))


def _jobs(out: Exposition, agent: SellerAgent, status: OwnerStatus) -> None:
    out.add("jobs_running", "gauge", "Jobs that have a place.", ({}, status.running))
    out.add("jobs_queued", "gauge", "Paid jobs that wait.", ({}, status.queued))
    ended = [({"state": str(s)}, n) for s, n in agent.desk.store.ended_by_state().items()]
    out.add("jobs_ended_total", "counter", "Jobs that ended, by how.", *ended)


def _gpus(out: Exposition, agent: SellerAgent, status: OwnerStatus) -> None:
    def each(of: str) -> list[tuple[dict[str, str], float | None]]:
        return [(_labels(gpu), _last(gpu, of)) for gpu in status.gpus]

    out.add("gpu_utilization_ratio", "gauge", "How busy it is.", *each("utilization_pct"))
    out.add("gpu_memory_used_bytes", "gauge", "Memory in use.", *each("memory_used_bytes"))
    memory = [(_labels(gpu), gpu.memory_bytes) for gpu in status.gpus]
    out.add("gpu_memory_bytes", "gauge", "Memory it has.", *memory)
    out.add("gpu_temperature_celsius", "gauge", "How hot it is.", *each("temperature_c"))
    out.add("gpu_power_watts", "gauge", "What it draws.", *each("power_mw"))
    limits = [
        (_labels(gpu), None if gpu.power_limit_mw is None else gpu.power_limit_mw / 1000)
        for gpu in status.gpus
    ]
    out.add("gpu_power_limit_watts", "gauge", "What it may draw.", *limits)
    unwell = agent.unwell_gpus()
    faults = [(_labels(gpu), int(gpu.index in unwell)) for gpu in status.gpus]
    out.add("gpu_unavailable", "gauge", "Lost, or used by its owner.", *faults)
    _ever(out, agent)


def _ever(out: Exposition, agent: SellerAgent) -> None:
    """By unit, since the first start: a GPU by its number, or the processor."""
    used = [
        ({"unit": "cpu" if one.unit.key == CPU else str(one.unit.place)}, one)
        for one in agent.bookkeeper.ever
    ]
    sold = [(labels, one.sold_ms / 1000) for labels, one in used]
    out.add("sold_seconds_total", "counter", "Time that jobs held it.", *sold)
    offered = [(labels, one.offered_ms / 1000) for labels, one in used]
    out.add("offered_seconds_total", "counter", "Time that was sold, or free to be.", *offered)
    energy = [(labels, one.millijoules / 1000 if one.measured_ms else None) for labels, one in used]
    out.add("energy_joules_total", "counter", "Energy that was measured.", *energy)


def _money(out: Exposition, status: OwnerStatus) -> None:
    def over(of: str) -> list[tuple[dict[str, str], float | None]]:
        return [
            ({"window": name}, _sum(status.earnings.days[-days:], of))
            for name, days in _WINDOWS.items()
        ]

    price = status.price_per_hour / ATOMS_PER_USDC
    out.add("price_usdc", "gauge", "Asked for an hour.", ({}, price))
    out.add("received_usdc", "gauge", "Paid by buyers.", *over("received"))
    out.add("refunded_usdc", "gauge", "Paid back.", *over("refunded"))
    out.add("kept_usdc", "gauge", "Kept of what buyers paid.", *over("kept"))
    out.add("electricity_usdc", "gauge", "What the measured current cost.", *over("electricity"))
    out.add("net_usdc", "gauge", "Kept, less gas and current.", *over("net"))
    owed = status.earnings.total.owed / ATOMS_PER_USDC
    out.add("owed_usdc", "gauge", "Still to go back to buyers.", ({}, owed))
    vouched = status.earnings.vouched / ATOMS_PER_USDC
    out.add("vouched_usdc", "gauge", "Signed on channels, not claimed yet.", ({}, vouched))


def _sum(rows: tuple[EarningsRow, ...], of: str) -> float | None:
    known = [value for row in rows if (value := getattr(row, of)) is not None]
    return sum(known) / ATOMS_PER_USDC if known else None


def _labels(gpu: OwnerGpu) -> dict[str, str]:
    return {"gpu": str(gpu.index), "model": clean_line(gpu.model, limit=60)}


def _last(gpu: OwnerGpu, of: str) -> float | None:
    value = getattr(gpu.samples[-1], of) if gpu.samples else None
    if value is None:
        return None
    return float(value) / {"utilization_pct": 100, "power_mw": 1000}.get(of, 1)
