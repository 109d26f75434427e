"""Earnings agree with the books to the atom, survive a crash, and say what nobody measured."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from channel_hands import buy_by_channel
from cli_program import run
from lone_seller import moved, seller_process
from seller_rig import Rig, spec

from computeswarm.chain.devnet import Devnet
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.errors import BadRequest
from computeswarm.core.nodes import GPUInfo, Hardware
from computeswarm.core.settings import Paths
from computeswarm.payments.channels.records import SCHEMA as CHANNELS
from computeswarm.payments.claim_schema import SCHEMA as CLAIMS
from computeswarm.payments.ledger.books import Books, Selection
from computeswarm.payments.ledger.entries import Role, Totals, total
from computeswarm.payments.storage import connect
from computeswarm.seller.earnings import days_until, report
from computeswarm.seller.earnings_export import CSV_COLUMNS, NOT_MEASURED, to_csv
from computeswarm.seller.earnings_rows import EarningsReport, Prices
from computeswarm.seller.gpus import GpuMonitor, GpuReading
from computeswarm.seller.owner_client import OwnerClient
from computeswarm.seller.usage import Reading, Unit, UsageLog

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
CHAIN = BASE_SEPOLIA.chain_id
NOW = 1_764_072_000.0
PRICES = Prices(electricity=150_000, ether=4_000_000_000)
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"
PAID = ["settled", "consumed", "refunded"]
EVIL = '=HYPERLINK("http://evil")\x1b[31m\r\n'


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.wall, self.mono = NOW, 0.0

    def now(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.mono

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.mono += seconds


@pytest.fixture(autouse=True)
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An owner whose day is not UTC's."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def home(folder: Path) -> Paths:
    return Paths.find({"COMPUTESWARM_HOME": str(folder / "seller-home")})


def earned(folder: Path, **changes: Any) -> EarningsReport:
    asked: dict[str, Any] = {"days": 30, "by": "day", "now": NOW, "prices": PRICES}
    return report(folder, CHAIN, "base-sepolia", **(asked | changes))


def of_ledger(paths: Paths) -> Totals:
    """What the ledger says of the seller's side."""
    with Books(paths, CHAIN) as books:
        entries = books.entries(Selection(role=Role.SELLER))
        return total(entry for entry in entries if entry.chain_id == CHAIN)


def agrees(found: EarningsReport, books: Totals) -> None:
    """The same money on both pages, and rows that add up."""
    sum_ = found.total
    assert (sum_.received, sum_.refunded) == (books.received, books.sent)
    assert int(sum_.gas_wei) == books.gas_wei
    assert sum_.kept == books.net - sum_.owed
    for name in ("received", "refunded", "owed", "kept"):
        assert sum(getattr(row, name) for row in found.rows) == getattr(sum_, name), name
    assert sum(int(row.gas_wei) for row in found.rows) == int(sum_.gas_wei)


async def test_what_is_kept_is_what_the_ledger_and_the_jobs_say(rig: OpenRig) -> None:
    async with rig(tick_seconds=2) as r, OwnerClient.find(r.paths.seller) as owner:
        cut = await r.buy(spec(ENDLESS, name=EVIL.strip()))
        await cut.first_output()
        await cut.call("POST", "/cancel")
        await r.refunded(cut)
        ticking = await buy_by_channel(r, spec("import time;print(1);time.sleep(1)"))
        await ticking.tick(1)
        evicted = await r.buy(spec(ENDLESS))
        await ticking.until(lambda view: view.refund is not None and view.refund.transaction)
        await evicted.first_output()
        await owner.evict(evicted.job_id)
        await r.refunded(evicted)
        views = [await job.view() for job in (cut, ticking, evicted)]

        by = {way: await owner.earnings(1, way) for way in ("day", "gpu", "job")}  # type: ignore[arg-type]
        for found in by.values():
            agrees(found, of_ledger(r.paths))
        kept = {row.key: row for row in by["job"].rows}
        assert all(kept[view.job_id].kept == view.cost for view in views)
        assert kept[evicted.job_id].kept == 0
        cost = sum(view.cost for view in views)
        assert by["day"].total.kept == cost > 0 < int(by["day"].total.gas_wei)
        assert by["day"].total.gas == 0  # test ether is worth nothing
        # the deposit's transaction and the claim's have cost something, too
        assert int(kept[ticking.job_id].gas_wei) > 0
        assert by["day"].total.jobs == 3
        # nobody measures a processor's current: that is not the same as none
        assert by["day"].total.electricity is None and by["day"].total.net is None
        sold = kept[ticking.job_id].sold_seconds
        assert 1 <= sold <= by["day"].total.sold_seconds <= by["day"].total.offered_seconds
        for days in (0, 3_651, "012345", "x"):
            with pytest.raises(BadRequest):
                await owner.earnings(days, "day")  # type: ignore[arg-type]
        with pytest.raises(BadRequest):
            await owner.earnings(7, "week")  # type: ignore[arg-type]
        asked = await asyncio.to_thread(_ask, r.paths, "--json")
    # and from what lies on the disk, where no seller runs any more
    left = await asyncio.to_thread(_ask, r.paths, "--json")
    for name in ("received", "refunded", "kept", "gas_wei", "electricity"):
        assert json.loads(asked)["total"][name] == json.loads(left)["total"][name]
    sheet = await asyncio.to_thread(_ask, r.paths, "--csv")
    rows = list(csv.reader(io.StringIO(sheet, newline="")))
    assert tuple(rows[0]) == CSV_COLUMNS and all(len(row) == len(CSV_COLUMNS) for row in rows)
    named = next(row for row in rows if row[1] == cut.job_id)
    assert named[2].startswith("'=HYPERLINK") and "\x1b" not in sheet
    assert rows[-1][0] == "total" and int(rows[-1][6]) == cost
    assert rows[-1][CSV_COLUMNS.index("net_atoms")] == NOT_MEASURED
    table = await asyncio.to_thread(_ask, r.paths)
    assert "Electricity: not measured." in table
    assert max(map(len, table.splitlines())) <= 80


def _ask(paths: Paths, *flags: str) -> str:
    done = run("earnings", "--days", "1", "--by", "job", *flags, home=paths.state)
    assert done.code == 0, done.err
    return done.out


async def test_a_seller_that_was_killed_counts_nothing_twice(
    devnet: Devnet, tmp_path: Path
) -> None:
    began = time.time()
    async with seller_process(devnet, tmp_path) as (process, rig):
        done = await rig.buy(spec("import time; print(1); time.sleep(1)"))
        await done.ended()
        cut = await rig.buy(spec(ENDLESS))
        await cut.first_output()
        async with OwnerClient.find(rig.paths.seller) as owner:
            before = await owner.earnings(1, "job")  # which writes down what was counted so far
        process.kill()
        await process.wait()
    agrees(earned(rig.paths.seller, by="job", now=time.time(), days=1), of_ledger(rig.paths))
    async with seller_process(devnet, tmp_path) as (_, rig):
        await rig.refunded(moved(cut, rig))
        view = await moved(done, rig).view()
        async with OwnerClient.find(rig.paths.seller) as owner:
            after = await owner.earnings(1, "job")
        agrees(after, of_ledger(rig.paths))
        kept = {row.key: row.kept for row in after.rows}
        assert (kept[done.job_id], kept[cut.job_id]) == (view.cost, 0)
    assert 1 <= before.total.sold_seconds <= after.total.sold_seconds
    assert after.total.sold_seconds <= time.time() - began


async def test_a_gpus_current_is_its_jobs_while_it_runs(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = GPUInfo(vendor="nvidia", model="RTX 4090", memory_bytes=2**34, uuid="GPU-1")
    hardware = Hardware(cpu_model="X", cpu_cores=2, memory_bytes=2**34, gpus=(card,))
    reading = GpuReading(power_mw=300_000, power_limit_mw=450_000)

    async def sample(_: GpuMonitor) -> list[GpuReading]:
        return [reading]

    monkeypatch.setattr(GpuMonitor, "sample", sample)
    async with (
        rig(config={"hardware": hardware}, electricity_price="0.30") as r,
        OwnerClient.find(r.paths.seller) as owner,
    ):
        await asyncio.sleep(1.2)  # a while on offer
        job = await r.buy(spec("import time; print(1); time.sleep(2)", gpu_count=1))
        await job.ended()
        await r.refunded(job)
        rows = {row.key: row for row in (await owner.earnings(1, "job")).rows}
        mine, idle = rows[job.job_id], rows["idle"]
        assert mine.joules is not None and mine.electricity is not None and idle.joules
        assert 300 * 2 * 0.9 <= mine.joules <= 300 * (mine.sold_seconds + 1)
        assert abs(mine.electricity - mine.joules / 3.6e6 * 300_000) <= 1
        assert mine.net == mine.kept - mine.electricity
        gpu = (await owner.earnings(1, "gpu")).rows[0]
        assert (gpu.key, gpu.label, gpu.kept) == ("GPU-1", "#0 RTX 4090", mine.kept)
        # what an hour at its limit costs, as it has not worked long enough to tell
        assert r.agent.bookkeeper._break_even() == 450 * 300_000 // 1000
        # a driver that hangs: what was read last is no measurement of now
        later = r.agent.clock.now() + 60
        monkeypatch.setattr(r.agent.clock, "now", lambda: later, raising=False)
        assert r.agent.bookkeeper._watts(0) is None


@pytest.mark.parametrize("seed", range(6))
def test_any_books_add_up(tmp_path: Path, seed: int) -> None:
    """Whatever states payments, refunds, batches and channels are in, on whichever chain."""
    paths = home(tmp_path)
    _write_books(paths, random.Random(seed))
    books = of_ledger(paths)
    assert books.received > 0 < books.sent
    for by in ("day", "gpu", "job"):
        agrees(earned(paths.seller, by=by), books)


def test_a_payment_that_the_chain_took_back_is_not_earned(tmp_path: Path) -> None:
    paths = home(tmp_path)
    _write_books(paths, random.Random(1))
    before = earned(paths.seller).total
    db = sqlite3.connect(paths.seller / "payments.db")
    one = "state = 'settled' AND reorged_at IS NULL AND chain_id = ?"
    lost = db.execute(f"SELECT id, amount FROM claims WHERE {one} LIMIT 1", (CHAIN,)).fetchone()
    db.execute("UPDATE claims SET reorged_at = ? WHERE id = ?", (NOW, lost[0]))
    db.commit()
    assert earned(paths.seller).total.received == before.received - lost[1]
    agrees(earned(paths.seller), of_ledger(paths))
    db.execute("UPDATE claims SET reorged_at = NULL WHERE id = ?", (lost[0],))
    db.commit()
    db.close()
    assert earned(paths.seller).total.received == before.received


def test_a_day_is_the_owners_own(tmp_path: Path) -> None:
    """Money just before and after midnight in Berlin, on a day that has 23 hours."""
    begins = dict(days_until(date(2026, 3, 30), 3))
    assert begins["2026-03-30"] - begins["2026-03-29"] == 23 * 3600
    assert begins["2026-03-29"] - begins["2026-03-28"] == 24 * 3600
    db = connect(home(tmp_path).seller / "payments.db", CLAIMS)
    midnight = begins["2026-03-30"]
    for number, at in enumerate((midnight - 1, midnight)):
        _claim(db, number, f"job-{number}", 1000 + number, "settled", at)
    db.close()
    found = earned(home(tmp_path).seller, days=3, now=midnight + 60)
    assert {row.key: row.kept for row in found.rows} == {
        "2026-03-28": 0,
        "2026-03-29": 1000,
        "2026-03-30": 1001,
    }


def test_time_and_current_go_to_whoever_held_the_gpu(tmp_path: Path) -> None:
    clock = Hands()
    now: list[Reading] = []
    units = [Unit("GPU-a", 0, "RTX 4090"), Unit("cpu", 1, "EPYC")]
    log = UsageLog(tmp_path / "usage.db", units, lambda: now, clock)
    log._last = clock.monotonic()

    def run_for(seconds: float, watts: float | None, *jobs: str, offered: bool = True) -> None:
        now[:] = [Reading(jobs, offered, watts), Reading((), offered, places=0)]
        for _ in range(int(seconds * 4)):
            clock.pass_(0.25)
            log.tick()

    run_for(360, 100.0)  # idle and offered
    run_for(3600, 400.0, "job-a")
    run_for(360, 50.0, offered=False)  # not for sale: no cost of selling
    now[:] = [Reading(("job-a",), offered=True, watts=350.0, owners=True), now[1]]
    clock.pass_(20)  # its owner plays, and the job stands still
    log.tick()
    run_for(360, None, "job-b")  # the driver went silent
    clock.pass_(8 * 3600)  # the machine slept
    log.tick()
    log.write()
    # killed here: nothing is closed, and some seconds of the next job are lost
    run_for(9, 400.0, "job-c")
    again = UsageLog(tmp_path / "usage.db", units, lambda: now, clock)
    again.write()

    found = earned(tmp_path, by="job", now=clock.now(), days=2)
    rows = {row.key: row for row in found.rows}
    assert rows["job-a"].joules == 3600 * 400
    assert rows["job-a"].electricity == 60_000  # 0.4 kWh at 0.15
    assert rows["job-b"].joules is None and rows["job-b"].net is None
    assert rows["idle"].joules == 360 * 100
    assert found.total.idle_electricity == rows["idle"].electricity == 1_500
    assert found.total.net == -61_500  # nothing came in for it
    assert "job-c" not in rows
    assert rows["job-a"].sold_seconds == 3600
    # the sleep counts as thirty seconds at most, and not as nights on offer
    assert 3600 + 360 + 360 <= found.total.offered_seconds <= 3600 + 360 + 360 + 30
    gpu = earned(tmp_path, by="gpu", now=clock.now(), days=2).rows[0]
    assert (gpu.label, gpu.joules) == ("#0 RTX 4090", found.total.joules)
    assert gpu.measured_permille is not None and 900 < gpu.measured_permille < 930
    assert f"{NOT_MEASURED}" in to_csv(found)


def test_usage_is_counted_once_however_often_it_is_written(tmp_path: Path) -> None:
    clock = Hands()
    reading = Reading(("job-a",), offered=True, watts=333.3)
    unit = Unit("GPU-a", 0, "RTX 4090")
    log = UsageLog(tmp_path / "usage.db", [unit], lambda: [reading], clock)
    log._last = clock.monotonic()
    for _ in range(1000):
        clock.pass_(0.0999)
        log.tick()
        log.write()
    row = earned(tmp_path, now=clock.now(), days=1).total
    assert row.sold_seconds == 99
    assert row.joules == pytest.approx(99.9 * 333.3, abs=2)


def _write_books(paths: Paths, dice: random.Random) -> None:
    """Books as no seller would write them, but could."""
    db = connect(paths.seller / "payments.db", CLAIMS)
    jobs = [f"job-{n:020x}" for n in range(12)]
    txs = ["0x" + f"{n:064x}" for n in range(40)]
    for number in range(150):
        job = dice.choice(jobs)
        subject = job if dice.random() < 0.3 else f"{job}#{number}"
        state = dice.choice([*PAID, "broadcast", "failed", "reverted"])
        at = NOW - dice.random() * 20 * 86400
        _claim(db, number, subject, dice.randrange(1, 10**7), state, at,
               tx=dice.choice(txs), reorged=dice.random() < 0.1,
               chain=CHAIN if dice.random() < 0.8 else 8453)  # fmt: skip
    for number in range(20):
        state = dice.choice(["done", "sent", "failed"])
        db.execute(
            "INSERT INTO batches VALUES (?,?,?,?,?,?,?,?)",
            (number, "0xb", 1, b"", "0x" + f"{900 + number:064x}", number, state,
             NOW - dice.random() * 86400 if state == "done" else None),
        )  # fmt: skip
    for number in range(60):
        batch = dice.choice([None, *range(20)])
        subject = f"{dice.choice(jobs)}#{number}"
        db.execute(
            "INSERT INTO refunds VALUES (?,?,?,?,?,?)",
            (number, subject, "0xb", dice.randrange(1, 10**5), batch, NOW - dice.random() * 86400),
        )
    for tx in [*txs, *("0x" + f"{900 + n:064x}" for n in range(20))]:
        if dice.random() < 0.8:
            db.execute(
                "INSERT INTO receipts VALUES (?,1,'',?,?,?,1)",
                (tx, dice.randrange(10**5), dice.randrange(10**9), dice.random() < 0.7),
            )
    db.close()
    _write_channels(paths, dice, jobs)


def _write_channels(paths: Paths, dice: random.Random, jobs: list[str]) -> None:
    db = connect(paths.seller / "channels.db", CHANNELS)
    config = json.dumps({"payer": "0xb", "receiver": "0xa"})
    for number in range(6):
        db.execute(
            "INSERT INTO channels (channel_id, chain_id, config, state, charged, signed_max,"
            " signature, balance, total_claimed, synced_at, created_at)"
            " VALUES (?,?,?,'open',0,0,'',0,0,0,0)",
            (f"c{number}", CHAIN if number else 8453, config),
        )
        for job in dice.sample(jobs, 2):
            db.execute(
                "INSERT INTO channel_jobs (job_id, channel_id, charged, ticks) VALUES (?,?,?,1)",
                (job, f"c{number}", dice.randrange(10**5)),
            )
    for number in range(1, 12):
        state = dice.choice(["mined", "final", "sent", "lost"])
        done = state in ("mined", "final")
        # one payout is of one chain's channels
        items = ["c0"] if number == 1 else dice.sample([f"c{n}" for n in range(1, 6)], 2)
        claims = [dice.randrange(10**5) for _ in items]
        settled = max(0, sum(claims) + dice.choice([0, 0, 500, -300])) if done else 0
        db.execute(
            "INSERT INTO payouts (id, state, tx, settled, created_at, done_at)"
            " VALUES (?,?,?,?,?,?)",
            (number, state, f"0x{number:064x}", settled, NOW - 9000,
             NOW - dice.random() * 86400 if done else None),
        )  # fmt: skip
        if dice.random() < 0.7:
            db.execute("INSERT INTO gas VALUES (?,?)", (f"0x{number:064x}", dice.randrange(10**14)))
        for channel, claim in zip(items, claims, strict=True):
            db.execute(
                "INSERT INTO payout_items VALUES (?,?,0,?,?,0,0)",
                (number, channel, claim, claim if done else 0),
            )
    db.close()


def _claim(
    db: sqlite3.Connection, number: int, subject: str, amount: int, state: str, at: float,
    *, tx: str = "", reorged: bool = False, chain: int = CHAIN,
) -> None:  # fmt: skip
    paid = state in PAID
    db.execute(
        "INSERT INTO claims (id, chain_id, token, payer, nonce, binding, subject, pay_to, amount,"
        " authorization, signature, state, tx, created_at, settled_at, reorged_at)"
        " VALUES (?,?,'u','0xb',?,'',?,'0xa',?,'{}','',?,?,?,?,?)",
        (number, chain, str(number), subject, amount, state, tx, at - 1,
         at if paid else None, at if reorged else None),
    )  # fmt: skip
