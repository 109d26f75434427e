"""Real jobs, paid both ways: the books of both sides agree with each other and with the chain."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import time
from pathlib import Path

import pytest
from cli_program import run
from ledger_hands import buying, funded, node_of, planned
from seller_rig import open_rig

from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import SCHEME
from computeswarm.core.clock import SystemClock
from computeswarm.core.events import EndEvent
from computeswarm.core.settings import Paths
from computeswarm.payments.ledger.audit import Audit, Auditor
from computeswarm.payments.ledger.books import Books
from computeswarm.payments.ledger.entries import Entry, Kind, Role, Standing, total

BUDGET = 60_000
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"
CODE = "import time\nprint('up', flush=True)\ntime.sleep(1.5)"


class LateClock(SystemClock):
    """A clock that can be put forward."""

    late = 0.0

    def now(self) -> float:
        return super().now() + self.late


async def audited(devnet: Devnet, paths: Paths) -> Audit:
    async with RpcClient(devnet.url) as rpc:
        return await Auditor(paths, BASE_SEPOLIA, rpc).run()


def entries(paths: Paths) -> list[Entry]:
    with Books(paths, BASE_SEPOLIA.chain_id) as books:
        return list(books.entries())


@pytest.mark.parametrize("scheme", ["exact", SCHEME])
async def test_a_job_leaves_clean_books_on_both_sides(
    devnet: Devnet, tmp_path: Path, scheme: str
) -> None:
    seller, buyer_key = await funded(devnet), await funded(devnet)
    async with open_rig(
        devnet, tmp_path, key=seller, trusted=[buyer_key.address], slice_seconds=2, tick_seconds=1
    ) as rig:
        async with buying(devnet, tmp_path / "b", rig.market_url, buyer_key) as buyer:
            offer = await buyer.quote(await node_of(rig), planned(tmp_path, CODE), scheme=scheme)
            record = await buyer.start(offer, budget=BUDGET)
            events = [event async for event in buyer.follow(record.job_id)]
            assert isinstance(events[-1], EndEvent)
            record = await buyer.money_back(record.job_id)
            deadline = time.monotonic() + 30
            while scheme == "exact" and not (record.view and record.view.refund.transaction):
                assert time.monotonic() < deadline
                record = await buyer.refresh(record.job_id)
            seller_home, buyer_home = rig.paths, buyer.paths
            spent = buyer.spent_today()
        live = await audited(devnet, seller_home)  # beside the seller, who still runs
        earned = await rig.agent.bookkeeper.report(1, "day")
    assert live.clean, live.reports
    for paths in (seller_home, buyer_home):
        found = await audited(devnet, paths)
        assert found.clean, [one.text for r in found.reports for one in r.differences]
        assert len(found.reports) == 1
    sold, bought = entries(seller_home), entries(buyer_home)
    assert total(sold).net == -total(bought).net == record.cost > 0
    # the owner's page shows the same sums
    assert earned.total.kept == record.cost
    # and the buyer's cap counts what his books count, but what a seller sends back later
    assert spent == (total(bought).sent if scheme == "exact" else record.cost)
    back = [one for one in bought if one.signed > 0]
    assert [one.state for one in back] == [Standing.DONE]
    assert back[0].transaction == record.view.refund.transaction
    if scheme == SCHEME:
        kinds = {one.kind for one in sold}
        assert kinds == {Kind.DEPOSIT, Kind.CLAIM, Kind.SETTLE, Kind.CHANNEL_REFUND}
        assert back[0].kind is Kind.CHANNEL_REFUND
    else:
        assert back[0].block is not None  # looked up, not only told
        assert {one.role for one in bought} == {Role.BUYER}


TAMPERINGS = {
    "claim": ("seller/channels", "UPDATE payout_items SET claimed = claimed + 1", ["channel"]),
    "refund": (
        "seller/channels",
        "UPDATE payout_items SET refunded = refunded - 1",
        ["channel", "not_paid"],
    ),
    "settle": ("seller/channels", "UPDATE payouts SET settled = settled + 1", ["amount"]),
    "their deposit": (
        "seller/channels",
        "UPDATE deposits SET amount = amount + 1",
        ["channel", "not_paid"],
    ),
    "not read yet": (
        "seller/channels",
        "UPDATE payouts SET state = 'broadcast', settled = 0",
        [],  # a seller who was killed in between reads it at his next start
    ),
    "hash": (
        "seller/channels",
        "UPDATE payouts SET tx = (SELECT tx FROM deposits)",
        ["not_paid", "not_paid", "unknown_in"],
    ),
    "our deposit": (
        "buyer/payments",
        "UPDATE payments SET amount = amount + 1",
        ["amount", "amount"],  # what came back is reckoned from what went in
    ),
    "seen too much": (
        "buyer/payments",
        "UPDATE channels SET balance = balance + 1",
        ["amount", "channel"],
    ),
}


async def test_a_tampered_channel_is_named(devnet: Devnet, tmp_path: Path) -> None:
    seller, buyer_key = await funded(devnet), await funded(devnet)
    async with (
        open_rig(devnet, tmp_path, key=seller, trusted=[buyer_key.address], tick_seconds=1) as rig,
        buying(devnet, tmp_path / "b", rig.market_url, buyer_key) as buyer,
    ):
        offer = await buyer.quote(await node_of(rig), planned(tmp_path, CODE), scheme=SCHEME)
        record = await buyer.start(offer, budget=BUDGET)
        async for _ in buyer.follow(record.job_id):
            pass
        await buyer.money_back(record.job_id)
        homes = {"seller": rig.paths, "buyer": buyer.paths}
    for name, (file, statement, expected) in TAMPERINGS.items():
        side = file.partition("/")[0]
        copy = tmp_path / "copies" / name
        shutil.copytree(homes[side].state, copy)
        with contextlib.closing(sqlite3.connect(copy / f"{file}.db")) as db, db:
            db.execute(statement)
        found = await audited(devnet, Paths.find({"COMPUTESWARM_HOME": str(copy)}))
        differences = [one for report in found.reports for one in report.differences]
        codes = sorted(one.code for one in differences)
        assert codes == expected, (name, [one.text for one in differences])


async def test_a_timed_withdrawal_is_in_the_books(tmp_path: Path) -> None:
    """The seller is gone, and the whole deposit comes back without him."""
    clock = LateClock()
    async with await start_devnet() as devnet:
        seller, buyer_key = await funded(devnet), await funded(devnet)
        async with open_rig(
            devnet, tmp_path, key=seller, trusted=[buyer_key.address], tick_seconds=1
        ) as rig:
            node = await node_of(rig)
            async with buying(
                devnet, tmp_path / "b", rig.market_url, buyer_key, clock=clock, lost_seconds=1
            ) as buyer:
                offer = await buyer.quote(node, planned(tmp_path, ENDLESS), scheme=SCHEME)
                record = await buyer.start(offer, budget=BUDGET)
                # the rig hands the job back at its end; so the buyer withdraws before
                step = await buyer.channels.withdraw(record.job_id)
                assert (await audited(devnet, buyer.paths)).clean
                delay = (step.ready_at or 0) - int(clock.now()) + 60
                await devnet.advance_time(delay)
                clock.late = delay
                step = await buyer.channels.withdraw(step.channel_id)
                home = buyer.paths
        found = await audited(devnet, home)
        assert found.clean, found.reports
        # and his seller's books don't call what he took back a fault
        sellers = await audited(devnet, rig.paths)
        assert sellers.clean, sellers.reports
        back = [one for one in entries(home) if one.kind is Kind.WITHDRAWAL]
        assert [one.signed for one in back] == [step.amount]
        assert found.reports[0].received >= step.amount


async def test_a_refund_outlives_its_seller(devnet: Devnet, tmp_path: Path) -> None:
    """He pays it back and is never heard of again: the chain tells what he could not."""
    seller, buyer_key = await funded(devnet), await funded(devnet)
    async with (
        open_rig(devnet, tmp_path, key=seller, trusted=[buyer_key.address]) as rig,
        buying(devnet, tmp_path / "b", rig.market_url, buyer_key) as buyer,
    ):
        offer = await buyer.quote(await node_of(rig), planned(tmp_path, CODE))
        record = await buyer.start(offer, budget=BUDGET)
        async for _ in buyer.follow(record.job_id):
            pass
        home = buyer.paths
        # he tells the debt with the end of the job, its transaction only to who asks again
        if (owed := buyer.owed_jobs()) != []:
            assert owed == [record.job_id]
    name = {"home": home.state, "COMPUTESWARM_RPC": devnet.url}
    listed = run("ledger", "--json", **name)
    lines = [json.loads(line) for line in listed.out.splitlines()]
    assert lines[-1]["type"] == "totals"
    done = run("ledger", "--audit", "--json", **name)
    assert done.code == 0, done.out + done.err
    report = json.loads(done.out.splitlines()[0])
    assert report["clean"] is True
    assert report["received"] == sum(one.amount for one in entries(home) if one.kind is Kind.REFUND)
    assert [one.state for one in entries(home) if one.kind is Kind.REFUND] == [Standing.DONE]
    assert run("ledger", "--audit", **name).code == 0
