"""Real jobs, paid both ways: the books of both sides agree with each other and with the chain."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from cli_program import run
from ledger_hands import buying, funded, node_of, planned
from seller_rig import open_rig

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import SCHEME
from computeswarm.core.events import EndEvent
from computeswarm.core.settings import Paths
from computeswarm.payments.ledger.audit import Audit, Auditor
from computeswarm.payments.ledger.books import Books
from computeswarm.payments.ledger.entries import Entry, Kind, Role, Standing, total

BUDGET = 60_000
CODE = "import time\nprint('up', flush=True)\ntime.sleep(1.5)"


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
        live = await audited(devnet, seller_home)  # beside the seller, who still runs
        earned = rig.agent.status().earnings
    assert live.clean, live.reports
    for paths in (seller_home, buyer_home):
        found = await audited(devnet, paths)
        assert found.clean, [one.text for r in found.reports for one in r.differences]
        assert len(found.reports) == 1
    sold, bought = entries(seller_home), entries(buyer_home)
    assert total(sold).net == -total(bought).net == record.cost > 0
    # the owner's page shows the same sums
    assert earned.today - earned.refunded_month == record.cost
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
