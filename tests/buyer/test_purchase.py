"""Buying against a seller that loses replies, lies and asks for more than was agreed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from buyer_fakes import CHAIN, FakeJob, FakeSeller, make_buyer, serving
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.journal import Stage
from computeswarm.buyer.progress import Progress
from computeswarm.buyer.spec import JobPlan, plan_job
from computeswarm.core.chains import BASE
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    Conflict,
    InsufficientFunds,
    PaymentPending,
    PolicyRefused,
    QuoteExpired,
    SellerUnavailable,
    Unauthorized,
)
from computeswarm.core.jobs import JobView
from computeswarm.core.states import JobState

BUDGET = 500_000


async def test_a_job_is_bought_and_paid_once(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan
) -> None:
    offer = await buyer.quote(seller.node, plan)
    first = await buyer.start(offer, budget=BUDGET)
    again = await buyer.start(offer, budget=BUDGET)

    assert first.stage is Stage.PAID
    assert first.state is JobState.QUEUED
    assert again.job_id == first.job_id
    assert [(index, atoms) for index, atoms, _ in seller.paid] == [(0, 60_000)]
    assert buyer.spent_today() == 60_000


@pytest.mark.parametrize("fault", ["lose_reply", "busy"])
async def test_a_lost_reply_presents_the_same_payment_again(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, fault: str
) -> None:
    seller.faults[fault] = 2
    record = await buyer.start(await buyer.quote(seller.node, plan), budget=BUDGET)

    assert record.stage is Stage.PAID
    assert list(seller.presented.values()) == [3]
    assert len(seller.paid) == 1


async def test_a_crash_after_signing_carries_on_with_the_same_payment(
    tmp_path: Path, key: PrivateKey, seller: FakeSeller, plan: JobPlan
) -> None:
    seller.faults["lose_reply"] = 10**6
    async with make_buyer(tmp_path, key, present_seconds=0.1) as buyer:
        offer = await buyer.quote(seller.node, plan)
        with pytest.raises(PaymentPending) as pending:
            await buyer.start(offer, budget=BUDGET)
        assert offer.job_id in pending.value.detail
        assert buyer.job(offer.job_id).state is JobState.AWAITING_PAYMENT
    seller.faults.clear()

    async with make_buyer(tmp_path, key) as buyer:
        (record,) = await buyer.resume()

    assert record.stage is Stage.PAID
    assert len(seller.presented) == 1
    assert len(seller.paid) == 1


async def test_a_crash_before_signing_buys_nothing(
    tmp_path: Path, key: PrivateKey, seller: FakeSeller, plan: JobPlan
) -> None:
    async with make_buyer(tmp_path, key) as buyer:
        offer = await buyer.quote(seller.node, plan)
        assert buyer._purchases is not None
        buyer._purchases.open(offer, BUDGET)
    async with make_buyer(tmp_path, key) as buyer:
        (record,) = await buyer.resume()

    assert record.stage is Stage.ABANDONED
    assert not seller.presented


async def test_a_refused_payment_says_why_and_the_same_one_is_tried_again(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan
) -> None:
    seller.faults["refuse"] = 1
    offer = await buyer.quote(seller.node, plan)
    with pytest.raises(InsufficientFunds, match=r"fund it.*Until \d\d:\d\d:\d\d") as refused:
        await buyer.start(offer, budget=BUDGET)
    assert refused.value.extra["live_until"] > 0
    assert buyer.job(offer.job_id).stage is Stage.PAYING
    assert buyer.refused(buyer.job(offer.job_id))
    assert buyer.spent_today() == 60_000
    assert not seller.paid

    record = await buyer.start(offer, budget=BUDGET)  # the wallet is funded by now
    assert record.stage is Stage.PAID
    assert not buyer.refused(record)
    assert list(seller.presented.values()) == [2]
    assert len(seller.paid) == 1
    assert buyer.spent_today() == 60_000


async def test_what_was_refused_is_not_presented_again_to_cancel_it(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan
) -> None:
    seller.faults["refuse"] = 1
    offer = await buyer.quote(seller.node, plan)
    with pytest.raises(InsufficientFunds):
        await buyer.start(offer, budget=BUDGET)
    record = await buyer.cancel(offer.job_id)
    assert (record.stage, record.state) == (Stage.ABANDONED, JobState.CANCELLED)
    assert list(seller.presented.values()) == [1]
    assert buyer.spent_today() == 60_000  # it may be taken all the same


async def test_large_inputs_follow_the_payment_and_survive_drops(
    buyer: Buyer, seller: FakeSeller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.sh").write_text("cat data/*")
    Path("data").mkdir()
    Path("data/big").write_bytes(b"x" * 700_000)
    Path("data/small").write_bytes(b"y")
    plan = plan_job("run.sh", inputs=["data"])
    seller.faults["drop"] = 1
    seen: list[Progress] = []
    record = await buyer.start(
        await buyer.quote(seller.node, plan), budget=BUDGET, report=seen.append
    )

    assert list(seller.jobs[record.job_id].uploads.values()) == [b"x" * 700_000]
    assert Progress("uploading", 700_000, 700_000) in seen
    assert record.view is not None
    assert record.view.missing_inputs == ()


async def test_an_input_that_changed_stops_the_job(
    buyer: Buyer, seller: FakeSeller, tmp_path: Path
) -> None:
    (tmp_path / "job.py").write_text("pass")
    data = tmp_path / "data"
    data.write_bytes(b"x" * 300_000)
    plan = plan_job(tmp_path / "job.py", inputs=[data])
    offer = await buyer.quote(seller.node, plan)
    data.write_bytes(b"x" * 200_000)
    with pytest.raises(ComputeSwarmError, match="changed"):
        await buyer.start(offer, budget=BUDGET)

    assert buyer.job(offer.job_id).state is JobState.CANCELLED


STRANGER = PrivateKey.generate()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"pay_to": STRANGER.address}, PolicyRefused),
        ({"price_per_hour": 3_600_001}, PolicyRefused),
        ({"slice_seconds": 61}, PolicyRefused),
        ({"spec_hash": "0x" + "0" * 64}, BadRequest),
        ({"node_id": "nd-" + "0" * 12}, BadRequest),
        ({"asset": BASE.usdc.address}, BadRequest),
        ({"chain_id": BASE.chain_id}, BadRequest),
        ({"max_seconds": 60}, BadRequest),
        ({"scheme": "batch-settlement"}, BadRequest),
        ({"expires_at": 1}, QuoteExpired),
        ({"expires_at": 2**39}, QuoteExpired),
    ],
)
async def test_a_quote_that_breaks_its_word_is_refused(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, change: dict[str, Any], error: type[Exception]
) -> None:
    seller.quote_changes = change
    with pytest.raises(error):
        await buyer.quote(seller.node, plan)
    assert buyer.jobs() == []


async def test_a_quote_signed_by_another_wallet_is_refused(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan
) -> None:
    seller.quote_key = STRANGER
    with pytest.raises(Unauthorized):
        await buyer.quote(seller.node, plan)


async def test_the_first_slice_has_to_fit_the_budget(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan
) -> None:
    offer = await buyer.quote(seller.node, plan)
    with pytest.raises(PolicyRefused) as refused:
        await buyer.start(offer, budget=59_999)
    assert refused.value.extra["rule"] == "budget"
    assert offer.at_risk(BUDGET) == 75_000
    assert offer.most(BUDGET) == 480_000


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    amount=st.integers(0, 10**14),
    payee=st.sampled_from(["seller", "stranger"]),
    chain=st.sampled_from([CHAIN, BASE]),
    budget=st.integers(60_000, 10**6),
    max_payment=st.sampled_from(["0.05", "0.06", "1"]),
)
def test_no_challenge_makes_the_buyer_sign_beyond_what_was_quoted(
    tmp_path: Path, amount: int, payee: str, chain: Any, budget: int, max_payment: str
) -> None:
    async def attempt() -> None:
        key = PrivateKey.generate()
        async with serving(FakeSeller()) as seller:
            pay_to = seller.key.address if payee == "seller" else STRANGER.address
            seller.terms = {"amount": amount, "pay_to": pay_to, "chain": chain}
            home = tmp_path / key.address
            home.mkdir()
            (home / "job.py").write_text("pass")
            async with make_buyer(home, key, max_payment=max_payment) as buyer:
                offer = await buyer.quote(seller.node, plan_job(home / "job.py"))
                cap = {"0.05": 50_000, "0.06": 60_000, "1": 10**6}[max_payment]
                fair = amount <= min(60_000, budget, cap)
                fair = fair and payee == "seller" and chain is CHAIN
                if fair:
                    await buyer.start(offer, budget=budget)
                    assert buyer.spent_today() == amount
                    return
                with pytest.raises(PolicyRefused):
                    await buyer.start(offer, budget=budget)
                assert buyer.spent_today() == 0
                assert not seller.presented
                assert buyer.job(offer.job_id).stage is Stage.ABANDONED

    asyncio.run(attempt())


async def test_slices_are_paid_while_it_runs_and_a_lost_reply_pays_none_twice(
    tmp_path: Path, key: PrivateKey, plan: JobPlan
) -> None:
    fake = FakeSeller(slice_seconds=1)
    fake.runs = lambda job: job.state(JobState.RUNNING)
    async with serving(fake) as seller, make_buyer(tmp_path, key) as buyer:
        record = await buyer.start(await buyer.quote(seller.node, plan), budget=4_500)
        seller.faults["lose_reply"] = 1
        notes: list[str] = []

        def stop(note: str) -> None:
            notes.append(note)
            seller.jobs[record.job_id].end(JobState.OUT_OF_FUNDS, None)

        events = [event async for event in buyer.follow(record.job_id, note=stop)]

        assert events[-1].type == "end"
        assert [index for index, _, _ in seller.paid] == [0, 1, 2, 3]  # 4 of 1000 atoms fit
        assert max(seller.presented.values()) == 2
        assert "budget" in notes[0]
        assert buyer.job(record.job_id).stage is Stage.ENDED
        assert buyer.spent_today() == 4_000


async def test_a_seller_can_not_call_for_slices_faster_than_time_passes(
    tmp_path: Path, key: PrivateKey, plan: JobPlan
) -> None:
    async with serving(FakeSeller(slice_seconds=60)) as seller, make_buyer(tmp_path, key) as buyer:
        record = await buyer.start(await buyer.quote(seller.node, plan), budget=BUDGET)
        job = seller.jobs[record.job_id]
        job.state(JobState.RUNNING)
        job.started -= 3600  # his meter claims that an hour has gone by
        record = await buyer.refresh(record.job_id)
        assert record.view is not None
        assert record.view.next_payment_due_ms == 0

        stream = buyer.follow(record.job_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                async for _ in stream:
                    pass
        await stream.aclose()
        assert [index for index, _, _ in seller.paid] == [0]


async def test_a_seller_who_vanishes_is_named_with_what_may_be_lost(
    buyer: Buyer, plan: JobPlan
) -> None:
    def speak(job: FakeJob) -> None:
        job.say(b"one\n")

    async with serving(FakeSeller()) as seller:
        seller.runs = speak
        record = await buyer.start(await buyer.quote(seller.node, plan), budget=BUDGET)
        stream = buyer.follow(record.job_id)
        async for event in stream:
            if event.type == "output":
                break
    with pytest.raises(SellerUnavailable) as lost:
        async for _ in stream:
            pass
    assert lost.value.extra["at_risk"] == 60_000
    assert "0.06 USDC" in lost.value.detail
    assert buyer.job(record.job_id).stage is Stage.PAID  # unknown is not failed


async def test_no_word_of_the_seller_takes_back_a_payment_after_a_lost_reply(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seller.faults["lose_reply"] = 1
    settle, calls = seller._settle, itertools.count(1)

    def denying(request: web.Request, index: int, amount: int) -> web.Response | str:
        answer = settle(request, index, amount)
        if isinstance(answer, str) and next(calls) == 2:
            return web.json_response(
                {"code": "not_found", "status": 404, "detail": "No."}, status=404
            )
        return answer

    monkeypatch.setattr(seller, "_settle", denying)
    offer = await buyer.quote(seller.node, plan)
    with pytest.raises(PaymentPending):
        await buyer.start(offer, budget=BUDGET)
    assert buyer.job(offer.job_id).stage is Stage.PAYING

    (record,) = await buyer.resume(offer.job_id)
    assert record.stage is Stage.PAID
    assert len(seller.presented) == len(seller.paid) == 1


async def test_a_purchase_given_up_meanwhile_signs_nothing(
    buyer: Buyer, seller: FakeSeller, plan: JobPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = await buyer.quote(seller.node, plan)
    client = buyer._seller(seller.url)
    execute = client.execute

    async def cancelled_meanwhile(body: bytes, payment: Any = None) -> Any:
        answer = await execute(body, payment)
        if payment is None:
            await buyer.cancel(offer.job_id)
        return answer

    monkeypatch.setattr(client, "execute", cancelled_meanwhile)
    with pytest.raises(Conflict, match="nothing was signed"):
        await buyer.start(offer, budget=BUDGET)

    assert buyer.job(offer.job_id).stage is Stage.ABANDONED
    assert buyer.spent_today() == 0
    assert not seller.presented


async def test_no_further_slice_is_paid_before_the_job_runs(
    tmp_path: Path, key: PrivateKey, plan: JobPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(job: FakeJob) -> JobView:
        return job.view.model_copy(update={"next_payment_due_ms": 0})

    async with serving(FakeSeller(slice_seconds=1)) as seller, make_buyer(tmp_path, key) as buyer:
        record = await buyer.start(await buyer.quote(seller.node, plan), budget=BUDGET)
        monkeypatch.setattr(seller, "meter", hungry)
        stream = buyer.follow(record.job_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2.5):
                async for _ in stream:
                    pass
        await stream.aclose()
        assert seller.jobs[record.job_id].view.state is JobState.QUEUED
        assert [index for index, _, _ in seller.paid] == [0]


async def test_a_conflict_over_a_slice_is_answered_with_the_same_authorization(
    tmp_path: Path, key: PrivateKey, plan: JobPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSeller(slice_seconds=1)
    fake.runs = lambda job: job.state(JobState.RUNNING)
    async with serving(fake) as seller, make_buyer(tmp_path, key) as buyer:
        record = await buyer.start(await buyer.quote(seller.node, plan), budget=BUDGET)
        settle, calls = seller._settle, itertools.count(1)

        def in_conflict(request: web.Request, index: int, amount: int) -> web.Response | str:
            answer = settle(request, index, amount)
            if isinstance(answer, str) and index == 1:
                if next(calls) <= 3:
                    problem = {"code": "conflict", "status": 409, "detail": "Not now."}
                    return web.json_response(problem, status=409)
                seller.jobs[record.job_id].end(JobState.OUT_OF_FUNDS, None)
            return answer

        monkeypatch.setattr(seller, "_settle", in_conflict)
        async with asyncio.timeout(60):
            events = [event async for event in buyer.follow(record.job_id)]

    assert events[-1].type == "end"
    assert next(calls) > 4  # it was presented again until it was taken
    (nonce,) = {nonce for index, _, nonce in seller.paid if index == 1}
    assert seller.presented[nonce] >= 4


async def test_who_may_not_be_paid_is_told_nothing_of_the_job(
    tmp_path: Path, key: PrivateKey, seller: FakeSeller, plan: JobPlan
) -> None:
    for number, (allowed, rule) in enumerate(
        (
            ({"allow_hosts": "elsewhere.test"}, "allow_hosts"),
            ({"allow_payees": STRANGER.address}, "allow_payees"),
        )
    ):
        async with make_buyer(tmp_path / str(number), key, **allowed) as buyer:
            with pytest.raises(PolicyRefused) as refused:
                await buyer.quote(seller.node, plan)
            assert refused.value.extra["rule"] == rule
            assert buyer._payable([]) == []
            with pytest.raises(PolicyRefused):
                buyer._payable([seller.node])
    allowed = {"allow_hosts": "127.0.0.1,elsewhere.test", "allow_payees": seller.key.address}
    async with make_buyer(tmp_path / "b", key, **allowed) as buyer:
        record = await buyer.start(await buyer.quote(seller.node, plan), budget=BUDGET)
        assert record.stage is Stage.PAID
