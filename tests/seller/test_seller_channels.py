"""Jobs paid by a channel: a deposit starts them, vouchers keep them running, the rest goes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from channel_hands import DEPOSIT, Hands, Ticking, accepts, buy_by_channel, quoted
from lone_seller import seller_process
from seller_rig import Rig, output_of, spec

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.devnet import Devnet
from computeswarm.core.channels import SCHEME
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.events import PaymentEvent, StateEvent
from computeswarm.core.jobs import JobView
from computeswarm.core.states import JobState

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"
SAVES = (
    "import signal,sys,time\n"
    "def bye(*_):\n open('outputs/saved','w').write('y'); sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, bye)\nprint('up')\ntime.sleep(60)"
)


async def closed(job: Ticking) -> JobView:
    """The job once its channel is closed on chain."""
    return await job.until(
        lambda view: view.refund is not None and view.refund.transaction and view.channel
    )


async def test_ticks_keep_a_job_running_and_the_rest_of_the_deposit_comes_back(
    rig: OpenRig,
) -> None:
    async with rig(tick_seconds=2) as r:
        before, mine = await r.balance(), await r.usdc.balance_of(r.agent.wallet)
        job = await buy_by_channel(r, spec("import time;print(1,flush=True);time.sleep(5)"))
        assert job.quote is not None
        assert (job.quote.scheme, job.quote.slice_seconds) == (SCHEME, 2)
        assert before - await r.balance() == DEPOSIT
        for index in (1, 2, 3):
            paid = await job.tick(index)
            assert paid.status == 200, paid.body
            again = await job.tick(index)
            assert again.status == 200
            assert again.json["slices_paid"] == paid.json["slices_paid"] == index + 1
        events = [event async for event in job.follow()]
        view = await closed(job)

        assert output_of(events) == b"1\n"
        assert view.state is JobState.SUCCEEDED
        assert (view.scheme, view.slices_paid, view.paid, view.payments) == (SCHEME, 4, 8_000, ())
        assert 5_000 <= view.cost == view.metered_ms < 8_000  # a ms costs an atom
        assert view.channel is not None
        assert (view.channel.channel_id, view.channel.deposit) == (job.hands.channel_id, DEPOSIT)  # type: ignore[union-attr]
        assert view.refund is not None
        assert view.refund.amount == DEPOSIT - view.cost
        assert view.refund.transaction == view.channel.claim_transaction
        assert before - await r.balance() == view.cost
        assert await r.usdc.balance_of(r.agent.wallet) - mine == view.cost
        moved = [e for e in events if isinstance(e, PaymentEvent)]
        assert [(e.direction, e.amount) for e in moved] == [
            ("paid", 2_000),
            ("refunded", view.refund.amount),
        ]


async def test_a_buyer_who_vanishes_pays_what_was_vouched_for_and_keeps_his_outputs(
    rig: OpenRig,
) -> None:
    async with rig(tick_seconds=1) as r:
        before = await r.balance()
        job = await buy_by_channel(r, spec(SAVES))
        assert (await job.tick(1)).status == 200
        await job.until(lambda _: r.agent.status().earnings.vouched == 2_000)
        events = [event async for event in job.follow()]
        said = [e.reason for e in events if isinstance(e, StateEvent) and e.reason]
        assert said[0] == "The paid time is used up; the job ends in 1 s."
        view = await closed(job)
        assert view.state is JobState.OUT_OF_FUNDS
        assert view.cost == view.paid == 2_000
        assert view.metered_ms >= 4_000  # two ticks of grace
        assert before - await r.balance() == 2_000
        await job.until(lambda _: r.agent.status().earnings.vouched == 0)
        await job.until(lambda _: r.agent.status().earnings.total.kept >= 2_000)
        assert (await job.call("GET", "/outputs/saved")).body == b"y"


async def test_cancel_charges_what_ran(rig: OpenRig) -> None:
    async with rig(tick_seconds=5) as r:
        before = await r.balance()
        job = await buy_by_channel(r, spec(ENDLESS))
        await job.first_output()
        reply = await job.call("POST", "/cancel")
        assert reply.json["state"] == "cancelled"
        assert (await job.tick(1)).status == 409
        view = await closed(job)
        assert 0 < view.cost < 5_000
        assert before - await r.balance() == view.cost


async def test_a_seller_who_is_killed_gives_everything_back_at_his_next_start(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with seller_process(devnet, tmp_path) as (process, r):
        before = await r.balance()
        job = await buy_by_channel(r, spec(ENDLESS))
        await job.first_output()
        assert (await job.tick(1)).status == 200
        waiting = await buy_by_channel(r, spec("print('at last')"))
        for index in (1, 2):  # paid ahead of its start
            assert (await waiting.tick(index)).status == 200
        process.kill()
        await process.wait()
    async with seller_process(devnet, tmp_path) as (_, r):
        ran = await closed(Ticking(r, waiting.job_id, waiting.key, waiting.quote, waiting.hands))
        assert (ran.state, ran.slices_paid) == (JobState.SUCCEEDED, 3)
        view = await closed(Ticking(r, job.job_id, job.key, job.quote, job.hands))
        assert view.state is JobState.SELLER_LOST
        assert (view.cost, view.paid) == (0, 4_000)
        assert view.refund is not None
        assert view.refund.amount == DEPOSIT
        assert await r.balance() == before - ran.cost


async def test_what_is_no_voucher_for_the_next_slice_pays_for_nothing(rig: OpenRig) -> None:
    async with rig(tick_seconds=5) as r:
        job = await buy_by_channel(r, spec(ENDLESS))
        other = await buy_by_channel(r, spec(ENDLESS))
        assert job.hands is not None
        stranger = Hands(r, PrivateKey.generate(), job.hands.accepted)

        ahead = await job.tick(2)
        assert ahead.status == 409
        short = await job.tick(1, total=9_999)
        assert short.status == 402
        corrected = accepts(short)["extra"]
        assert corrected["channelState"]["chargedCumulativeAmount"] == "5000"
        assert corrected["voucherState"]["signedMaxClaimable"] == "5000"
        foreign = await job.tick(1, hands=other.hands)
        assert foreign.status == 409, foreign.body
        forged = await job.tick(1, hands=stranger)
        assert forged.status in (402, 403)
        plain = r.payment(5_000)
        by_transfer = await job.call("POST", "/payments", json={"slice": 1}, headers=plain)
        assert by_transfer.status == 402
        assert by_transfer.json["error"] == "invalid_scheme"
        assert (await job.view()).slices_paid == 1
        assert (await job.tick(1)).json["slices_paid"] == 2
        for each in (job, other):
            await each.call("POST", "/cancel")


async def test_a_quote_for_ticks_is_paid_by_a_channel_only_and_a_bare_job_by_either(
    rig: OpenRig,
) -> None:
    async with rig() as r:
        job = spec()
        signed = await quoted(r, job)
        body: dict[str, Any] = {"spec": job, "quote": signed.model_dump(mode="json")}
        asked = await r.call("POST", "/execute", json=body)
        assert accepts(asked)["amount"] == "2000"
        with pytest.raises(StopIteration):
            accepts(asked, "exact")
        refused = await r.call("POST", "/execute", json=body, headers=r.payment(2_000))
        assert refused.status == 402

        bare = await r.call("POST", "/execute", json={"spec": job})
        exact, channel = accepts(bare, "exact"), accepts(bare)
        assert exact["amount"] == channel["amount"] == "10000"
        hands = Hands(r, r.buyer, channel)
        paid = await r.call(
            "POST", "/execute", json={"spec": job}, headers=hands.deposit(10_000, 25_000)
        )
        assert paid.status == 202, paid.body
        bought = Ticking(r, paid.json["job"]["job_id"], paid.json["access_key"], None, hands)
        view = await bought.ended()
        assert view.state is JobState.SUCCEEDED
        assert view.refund is None  # the channel stays his, for the next job
        # the unused seconds are credited, so the next job goes on from what this one cost
        second = await r.call(
            "POST", "/execute", json={"spec": job}, headers=hands.voucher(view.cost + 10_000)
        )
        assert second.status == 202, second.body


async def test_where_the_chain_has_no_contract_jobs_are_paid_by_slices_only(
    rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nowhere(_: BatchSettlement) -> bool:
        return False

    monkeypatch.setattr(BatchSettlement, "deployed", nowhere)
    async with rig() as r:
        reply = await r.call("POST", "/quotes", json={"spec": spec(), "scheme": SCHEME})
        assert reply.status == 422
        assert "slices" in reply.json["detail"]
        bare = await r.call("POST", "/execute", json={"spec": spec()})
        with pytest.raises(StopIteration):
            accepts(bare)


async def test_a_thousand_ticks_leave_a_thousand_rows_nowhere(rig: OpenRig) -> None:
    async with rig(tick_seconds=1) as r:
        job = await buy_by_channel(
            r, spec("import time;time.sleep(600)", max_seconds=1_200), deposit=1_200_000
        )
        await job.until(lambda view: view.state is JobState.RUNNING)
        sizes, times = [], []
        for index in range(1, 1_001):
            began = time.perf_counter()
            paid = await job.tick(index)
            times.append(time.perf_counter() - began)
            assert paid.status == 200, paid.body
            sizes.append(len(paid.body))
        view = await job.view()
        assert (view.slices_paid, view.paid) == (1_001, 1_001_000)
        assert max(sizes) - min(sizes) < 40  # the numbers grow, the view doesn't
        rows = r.agent.desk.store._db.execute("SELECT COUNT(*) FROM payments").fetchone()[0]
        assert rows == 0
        assert view.last_seq < 20
        # the quickest of each, since a busy disk makes the others wait
        early, late = sorted(times[:300])[15], sorted(times[-300:])[15]
        assert late < early * 3, (early, late)
        await job.call("POST", "/cancel")
        view = await closed(job)
        assert view.cost == view.metered_ms


async def test_ticks_paid_by_many_jobs_at_once_are_each_their_own(rig: OpenRig) -> None:
    async with rig(tick_seconds=5, slots=4) as r:
        before = await r.balance()
        jobs = await asyncio.gather(*(buy_by_channel(r, spec(ENDLESS)) for _ in range(4)))
        for index in (1, 2):
            replies = await asyncio.gather(*(job.tick(index) for job in jobs))
            assert [reply.status for reply in replies] == [200] * 4
        await asyncio.gather(*(job.call("POST", "/cancel") for job in jobs))
        views = await asyncio.gather(*(closed(job) for job in jobs))
        assert before - await r.balance() == sum(view.cost for view in views)
