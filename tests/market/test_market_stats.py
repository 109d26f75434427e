"""Counting nodes in columns, and the history of what sellers ask."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median_low

import numpy as np
import pytest
from market_fixtures import START, FakeClock

from benchmarks.fleet.model import Fleet
from benchmarks.fleet.rows import RowMaker, read
from computeswarm.core.errors import BadRequest
from computeswarm.core.prices import MAX_POINTS, PriceHistory
from computeswarm.core.stats import MarketStats, PricePercentiles
from computeswarm.market import stats as stats_module
from computeswarm.market.prices import DAY, TIERS, Prices
from computeswarm.market.rows import STATUSES, Lease, NodeRow
from computeswarm.market.stats import Statistics
from computeswarm.market.stores import open_store
from computeswarm.market.stores.protocol import JobTotals, Store
from computeswarm.market.table import NodeTable
from computeswarm.market.tally import MAX_MODELS, Columns, tally

CENT = 10_000
NO_JOBS = JobTotals({}, 0, 0, 0, 0)


def columns(
    prices: list[int], wallets: list[int], *, sold: list[int] | None = None, gpu: int = 0
) -> Columns:
    return Columns(
        status=np.zeros(len(prices), np.uint8),
        gpu=np.full(len(prices), gpu, np.int32),
        price=np.array(prices, np.int64),
        wallet=np.array(wallets, np.uint64),
        succeeded=np.array(sold or [0] * len(prices), np.int32),
    )


def asked(prices: list[int], wallets: list[int], sold: list[int] | None = None) -> PricePercentiles:
    made = tally(columns(prices, wallets, sold=sold), ["RTX 4090"]).gpus[0].asked
    assert made is not None
    return made


def test_percentiles_are_of_wallets() -> None:
    prices, wallets = [(30 + n) * CENT for n in range(21)], list(range(1, 22))
    fair = asked(prices, wallets)
    assert (fair.sellers, fair.p25, fair.p50, fair.p75) == (21, 35 * CENT, 40 * CENT, 45 * CENT)
    assert fair.p10 <= fair.p25 and fair.p75 <= fair.p90
    # one wallet that lists a thousand nodes counts once, and no price breaks the figures
    flooded = asked(prices + [10**30 % 2**62] * 1000, wallets + [99] * 1000)
    assert flooded.sellers == 22 and abs(flooded.p50 - 40 * CENT) <= CENT


def test_strangers_who_never_sold_move_nothing() -> None:
    proven, cheap = [40 * CENT] * 3, [1] * 50
    wallets = list(range(1, 54))
    shown = asked(proven + cheap, wallets, [1, 1, 1] + [0] * 50)
    assert (shown.sellers, shown.p10, shown.p50) == (3, 40 * CENT, 40 * CENT)
    # with too few that have sold there is nobody else to ask
    assert asked(proven + cheap, wallets, [1, 1, 0] + [0] * 50).sellers == 53


def fleet_table(nodes: int) -> tuple[NodeTable, list[NodeRow]]:
    rows = []
    for number, row in enumerate(next(RowMaker(Fleet(nodes), START).batches(nodes))):
        lease = replace(row.lease, status=number % 4)
        rows.append(replace(row, lease=lease, gone=number % 10 == 9))
    table = NodeTable()
    table.put_many(rows)
    return table, rows


def by_hand(rows: list[NodeRow]) -> dict[str, tuple[int, int, int, int]]:
    """Nodes online, busy ones, the least and the median price by model."""
    prices: dict[str, list[int]] = {}
    busy: Counter[str] = Counter()
    for row in rows:
        if row.gone or row.lease.status == 3:
            continue
        record = read(row)
        model = record.hardware.gpus[0].model if record.hardware.gpus else "cpu"
        prices.setdefault(model, []).append(record.price_per_hour)
        busy[model] += row.lease.status == 1
    return {m: (len(p), busy[m], min(p), median_low(p)) for m, p in prices.items()}


@pytest.mark.parametrize("nodes", [500, 5_000])
async def test_a_count_by_columns_is_that_by_hand(nodes: int) -> None:
    table, rows = fleet_table(nodes)
    jobs = JobTotals({"succeeded": 6, "failed": 2, "running": 1}, 8, 6, 8_000, 123)
    made = await Statistics(table, clock=FakeClock(), totals=lambda: jobs).get()
    shown = {g.model: (g.nodes, g.busy, g.min_price, g.median_price) for g in made.gpus}
    assert shown == by_hand(rows) and len(shown) > 10
    assert [g.nodes for g in made.gpus] == sorted((g.nodes for g in made.gpus), reverse=True)
    listed = Counter(STATUSES[row.lease.status] for row in rows if not row.gone)
    assert made.nodes_total == listed.total() and made.nodes_idle == listed["idle"]
    assert made.nodes_online == listed.total() - listed["offline"]
    assert (made.jobs_total, made.jobs_ended, made.jobs_completed) == (9, 8, 6)
    assert (made.mean_job_ms, made.payment_success_permille) == (1000, 750)
    assert MarketStats.model_validate_json(made.model_dump_json()) == made


def test_models_made_up_by_the_thousand_leave_the_common_ones() -> None:
    labels = ["RTX 4090", "RTX 4090\x1eRTX 3090"] + [f"Fake {n}" for n in range(3_000)]
    gpu = [0] * 50 + [1] * 50 + list(range(2, 3_002))
    nodes = columns([CENT] * len(gpu), list(range(len(gpu))))
    made = tally(replace(nodes, gpu=np.array(gpu, np.int32)), labels)
    assert len(made.gpus) == MAX_MODELS
    assert (made.gpus[0].model, made.gpus[0].nodes) == ("RTX 4090", 100)  # by their first GPU


async def test_a_large_market_is_counted_once_for_all_who_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, _ = fleet_table(3_000)
    clock, threads = FakeClock(), []

    def counted(nodes: Columns, labels: list[str]) -> object:
        threads.append(threading.current_thread())
        return tally(nodes, labels)

    monkeypatch.setattr(stats_module, "tally", counted)
    stats = Statistics(table, clock=clock, totals=lambda: NO_JOBS)
    first = await asyncio.gather(*(stats.get() for _ in range(50)))
    assert len({made.nodes_idle for made in first}) == 1
    assert len(threads) == 1 and threads[0] is not threading.main_thread()
    table.expire(np.arange(100))
    clock.time += 0.5
    assert (await stats.get()).nodes_idle == first[0].nodes_idle  # not a second old
    clock.time += 0.5
    assert (await stats.get()).nodes_idle < first[0].nodes_idle
    assert len(threads) == 2
    clock.time += 60
    await stats.get()
    assert len(threads) == 2  # nothing changed
    table.expire(np.arange(200))
    stats.recent()  # never waits, but sees to it that the next one is right
    await stats.close()
    assert len(threads) == 3


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = open_store(tmp_path / "market.db")
    await made.open()
    yield made
    await made.close()


def offer(table: NodeTable, prices: dict[str, int]) -> None:
    """One idle node for each model, at a price."""
    fleet, wanted = Fleet(400), dict(prices)
    for row in next(RowMaker(fleet, START).batches(400)):
        record = read(row)
        model = record.hardware.gpus[0].model if record.hardware.gpus else "cpu"
        if model in wanted:
            table.put(replace(row, lease=Lease(last_seen=START, lease_until=START * 2.0)))
            table.columns.price[table.slot(row.node_id)] = wanted.pop(model)
    assert not wanted


def price_history(store: Store, clock: FakeClock, prices: dict[str, int]) -> Prices:
    table = NodeTable()
    offer(table, prices)
    return Prices(store, Statistics(table, clock=clock, totals=lambda: NO_JOBS), clock=clock)


async def test_before_the_first_sample_there_is_the_present(store: Store) -> None:
    clock = FakeClock()
    prices = price_history(store, clock, {"RTX 4090": 34 * CENT, "RTX 3090": 18 * CENT})
    made = await prices.history("4090")
    assert [(s.model, [p.p50 for p in s.points]) for s in made.series] == [
        ("RTX 4090", [34 * CENT])
    ]
    assert made.series[0].points[0].at == START
    assert {s.model for s in (await prices.history()).series} == {"RTX 4090", "RTX 3090"}
    # a model nobody offers is an empty line, not an error
    assert [(s.model, s.points) for s in (await prices.history("GTX 970")).series] == [
        ("GTX 970", ())
    ]
    with pytest.raises(BadRequest):
        await prices.history("4090", since=START, until=START)


async def test_two_instances_keep_each_moment_once(store: Store) -> None:
    clock = FakeClock(START + 7)
    one = price_history(store, clock, {"RTX 4090": 30 * CENT})
    two = price_history(store, clock, {"RTX 4090": 31 * CENT})
    for _ in range(3):
        await one.sample()
        await two.sample()
        clock.time += 300
    points = (await two.history("RTX 4090", step=300)).series[0].points
    assert [(p.at, p.p50) for p in points[:-1]] == [(START + 300 * n, 30 * CENT) for n in range(3)]
    assert (points[-1].at, points[-1].p50) == (int(clock.time), 31 * CENT)


async def test_older_times_are_coarser_and_end_at_ninety_days(store: Store) -> None:
    clock = FakeClock()
    prices = price_history(store, clock, {"RTX 4090": 30 * CENT})
    for _ in range(100):  # a sample a day, for a hundred days
        await prices.sample()
        clock.time += DAY
    now = int(clock.time)
    for tier in TIERS:
        kept = await store.samples(f"price/{tier.step}/RTX 4090", since=0, until=now)
        # what has just run out goes with the next sample
        assert abs(len(kept) - tier.keep // DAY) <= 1, tier
    day = await prices.history("RTX 4090")
    assert day.step == 900 and len(day.series[0].points) >= 2
    long = await prices.history("RTX 4090", since=0, step=1)
    assert long.since == now - 90 * DAY and long.step >= 21_600
    assert 85 <= len(long.series[0].points) <= 92


async def test_no_question_gets_too_many_points(store: Store) -> None:
    clock = FakeClock()
    prices = price_history(store, clock, {"RTX 4090": 30 * CENT})
    figures = {"nodes": 1, "idle": 1, "sellers": 1} | dict.fromkeys(
        ("p10", "p25", "p50", "p75", "p90"), CENT
    )
    for at in range(START - 3 * DAY + 300, START, 300):
        await store.add_samples(at, {"price/300/RTX 4090": figures})
    made = await prices.history("RTX 4090", since=START - 3 * DAY + 1, step=1)
    points = made.series[0].points
    assert made.step == 600 and MAX_POINTS - 100 < len(points) <= MAX_POINTS + 1
    assert all(b.at - a.at == 600 for a, b in pairwise(points[1:-1]))


async def test_many_models_share_the_points(store: Store) -> None:
    clock = FakeClock()
    fleet = {"RTX 4090": CENT, "RTX 3090": CENT, "RTX 5090": CENT, "RTX 3060": CENT, "cpu": CENT}
    prices = price_history(store, clock, fleet)
    figures = {"nodes": 1, "idle": 1, "sellers": 1} | dict.fromkeys(
        ("p10", "p25", "p50", "p75", "p90"), CENT
    )
    for at in range(START - 3 * DAY + 300, START, 300):
        await store.add_samples(at, {f"price/300/{model}": figures for model in fleet})
    made = await prices.history(since=START - 3 * DAY + 1, step=1)
    counts = [len(series.points) for series in made.series]
    assert len(counts) == 5 and 800 < sum(counts) <= 1_205
    assert PriceHistory.model_validate_json(made.model_dump_json()) == made
