"""The made-up fleet: the same from the same seed, and a market bears it."""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from market_fixtures import START
from metric_rules import families, value

from benchmarks.fleet.agent import Settings
from benchmarks.fleet.direct import run_direct, traffic_of
from benchmarks.fleet.model import DAY, Fleet
from benchmarks.fleet.rows import RowMaker, read
from benchmarks.fleet.running import run_fleet
from computeswarm.core.clock import SystemClock
from computeswarm.core.metrics import Exposition
from computeswarm.market import open_market
from computeswarm.market.facts import pack
from computeswarm.market.metrics import PREFIX, market_metrics
from computeswarm.market.table import NodeTable
from computeswarm.server.market_app import build_market_app
from computeswarm.server.serving import Server


def test_a_seed_makes_a_fleet() -> None:
    small, large = Fleet(30, seed=7), Fleet(3_000, seed=7)
    assert [replace(m, owner=0) for m in small.machines()] == [
        replace(large.machine(number), owner=0) for number in range(30)
    ]
    assert next(small.machines()) != next(Fleet(30, seed=8).machines())
    machine = small.machine(3)
    prices = [small.price(machine, START + day * DAY) for day in range(14)]
    assert len(set(prices)) > 7 and max(prices) < 1.6 * min(prices)
    models = {m.kind.model for m in large.machines()}
    assert {"RTX 4090", "cpu"} <= models and len(models) > 10


def test_a_row_is_what_its_record_says() -> None:
    fleet = Fleet(200)
    rows = [row for batch in RowMaker(fleet, START).batches(64) for row in batch]
    assert len({row.node_id for row in rows}) == len(rows) == 200
    for row, machine in zip(rows, fleet.machines(), strict=True):
        record = read(row)
        assert record.price_per_hour == fleet.price(machine, START)
        assert pack(row.node_id, record) == (row.facts, row.words)


def test_heartbeats_come_at_their_interval() -> None:
    table = NodeTable()
    table.put_many(next(RowMaker(Fleet(2_000), START).batches(2_000)))
    traffic, now = traffic_of(table, interval=30, speed=60), 0.0
    # its own clock begins now; ten minutes in steps of a second
    begin = float(traffic._next.min())
    for now in np.arange(begin, begin + 600):
        table.apply(traffic.due(float(now)))
    # most are up most of the time, and beat each half minute
    assert 0.6 * 2_000 * 20 < traffic.beats < 1.15 * 2_000 * 20
    assert traffic.crashes > 1_000  # sessions of six minutes on average
    silent = traffic.silence(0.5)
    assert len(silent) and not np.isin(silent, traffic.due(now + 60)["number"]).any()


async def test_a_fleet_lives_on_a_market(tmp_path: Path) -> None:
    market = open_market(tmp_path / "market.db", clock=SystemClock(), heartbeat_seconds=1)
    fleet = Fleet(25, seed=3)
    async with Server(build_market_app(market)) as server:
        url = await server.start("127.0.0.1", 0)
        settings = Settings(speed=3_600.0)  # an hour passes in a second
        report = await run_fleet(
            url, fleet, seconds=8, buyers=4, pause=0.2, arrive_seconds=1, settings=settings
        )
        stats = await market.stats()
        out = Exposition(PREFIX)
        market_metrics(out, market, stats)
    wrong = {kind: row.errors for kind, row in report.kinds.items() if row.errors}
    assert not wrong, wrong
    events = report.events
    assert events["sessions"] > 25 and events["left"] and events["crashed"] + events["restarted"]
    assert events["jobs submitted"] and events["jobs done"]
    assert report.kinds["search"].count > 20 and report.kinds["heartbeat"].count > 50
    assert stats.jobs_total == events["jobs submitted"]
    assert value(families(out.text(), PREFIX), "heartbeats") >= report.kinds["heartbeat"].count - 25


async def test_a_large_fleet_goes_straight_into_a_table(tmp_path: Path) -> None:
    run = run_direct(Fleet(3_000), seconds=1.5, speed=3_600, database=str(tmp_path / "market.db"))
    report = await asyncio.wait_for(run, 60)
    assert report.events["heartbeats"] > 50 and report.events["online at the end"] > 2_000
    assert report.kinds["search"].count > 3 and not report.kinds["search"].errors


async def test_the_benchmark_over_http_runs() -> None:
    few = ("--nodes", "1000", "--requests", "20", "--socket-rate", "200")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.market_http", *few, "--heartbeat-seconds", "1"),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    out = (await asyncio.wait_for(process.communicate(), 100))[0].decode()
    # how fast it was says nothing on a busy machine; that all was there does
    assert re.search(r"beside: [\d,]+ heartbeats/s", out), out
    assert re.search(r"expiry +(\d+) of \1 offline after 1\.", out), out
    assert "refused" not in out
