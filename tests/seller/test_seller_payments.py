"""Who is served, for which payment, and how often."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
from eth_account import Account
from seller_rig import PRICE, Bought, Rig, output_of, spec
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm import EthAccountSigner
from x402.mechanisms.evm.exact import ExactEvmScheme
from x402.mechanisms.evm.exact.v1 import ExactEvmSchemeV1

from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.jobs import ExecuteReply, JobView
from computeswarm.core.states import JobState
from computeswarm.core.x402 import decode_header

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]


def official_client(key: PrivateKey, *, version: int) -> x402Client:
    """The published client with one wallet, for one version of the protocol."""
    signer = EthAccountSigner(Account.from_key(key.secret))
    client = x402Client()
    if version == 2:
        client.register("eip155:84532", ExactEvmScheme(signer))
    else:
        client.register_v1("base-sepolia", ExactEvmSchemeV1(signer))
    return client


class OnlyBody(httpx.AsyncHTTPTransport):
    """Hides version 2's header, so that the client sees a server of version 1."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        reply = await super().handle_async_request(request)
        if "PAYMENT-REQUIRED" in reply.headers:
            del reply.headers["PAYMENT-REQUIRED"]
        return reply


@pytest.mark.parametrize("version", [1, 2])
async def test_the_official_client_buys_a_job(rig: OpenRig, version: int) -> None:
    async with rig() as r:
        before = await r.balance()
        below = httpx.AsyncHTTPTransport() if version == 2 else OnlyBody()
        paying = x402AsyncTransport(official_client(r.buyer, version=version), below)
        async with httpx.AsyncClient(transport=paying, timeout=30) as http:
            reply = await http.post(f"{r.url}/execute", json={"spec": spec("print('paid')")})
        assert reply.status_code == 202, reply.text
        receipt = decode_header(
            reply.headers["PAYMENT-RESPONSE" if version == 2 else "X-PAYMENT-RESPONSE"]
        )
        assert receipt["success"] and receipt["transaction"].startswith("0x")
        made = ExecuteReply.model_validate_json(reply.content)
        bought = Bought(r, made.job.job_id, made.access_key)
        events = [event async for event in bought.follow()]
        assert output_of(events) == b"paid\n"
        view = await r.refunded(bought)
        assert before - await r.balance() == view.cost


async def test_the_price_is_named_in_every_dialect(rig: OpenRig) -> None:
    async with rig() as r:
        body = {"spec": spec(), "job_id": "job-" + "1" * 20}
        reply = await r.call("POST", "/execute", json=body)
        assert reply.status == 402
        v2 = decode_header(reply.headers["PAYMENT-REQUIRED"])
        assert v2["accepts"][0]["amount"] == str(PRICE * 10 // 3600)
        assert v2["resource"]["url"] == f"{r.url}/execute"
        assert reply.json["accepts"][0]["network"] == "base-sepolia"
        challenge = reply.json["challenge"]
        assert challenge["job_id"] == body["job_id"]
        assert challenge["seller_address"] == r.agent.wallet
        again = await r.call("POST", "/execute", json=body)
        repeated = decode_header(again.headers["PAYMENT-REQUIRED"])
        assert repeated["accepts"] == v2["accepts"]


async def test_one_payment_posted_fifty_times_starts_one_job(rig: OpenRig) -> None:
    async with rig() as r:
        before = await r.balance()
        body = json.dumps({"spec": spec("print('once')")})
        payment = r.payment(10_000)

        async def post() -> tuple[int, bytes]:
            reply = await r.call("POST", "/execute", data=body, headers=payment)
            return reply.status, reply.body

        replies = set(await asyncio.gather(*(post() for _ in range(50))))
        assert len(replies) == 1
        status, content = replies.pop()
        assert status == 202
        made = ExecuteReply.model_validate_json(content)
        bought = Bought(r, made.job.job_id, made.access_key)
        await bought.ended()
        await r.refunded(bought)
        assert await post() == (202, content)  # also when the job has long ended
        assert len(r.agent.desk.store.recent(100)) == 1
        assert before - await r.balance() == (await bought.view()).cost


async def test_a_payment_buys_only_what_it_was_made_for(rig: OpenRig) -> None:
    async with rig() as r:
        payment = r.payment(10_000)
        body = {"spec": spec("print(1)")}
        first = await r.call("POST", "/execute", json=body, headers=payment)
        assert first.status == 202
        other = await r.call("POST", "/execute", json={"spec": spec("print(2)")}, headers=payment)
        assert other.status in (402, 409)
        bought = await r.buy(spec("import time;time.sleep(60)"))
        elsewhere = await bought.call("POST", "/payments", json={"slice": 1}, headers=payment)
        assert elsewhere.status in (402, 409)
        assert len((await bought.view()).payments) == 1
        assert len(r.agent.desk.store.recent(100)) == 2


async def test_bad_payments_start_nothing_and_say_why(rig: OpenRig, devnet: Devnet) -> None:
    poor = PrivateKey.generate()
    async with rig() as r:
        body = {"spec": spec()}
        for payment, reason in (
            (r.payment(9_999), "value_mismatch"),
            (r.payment(10_000, to=devnet.keys[3].address), "recipient_mismatch"),
        ):
            reply = await r.call("POST", "/execute", json=body, headers=payment)
            assert reply.status == 402, reply.body
            refusal = decode_header(reply.headers["PAYMENT-RESPONSE"])
            assert not refusal["success"] and reason in refusal["errorReason"]
        broken = await r.call("POST", "/execute", json=body, headers={"X-PAYMENT": "?"})
        assert broken.status == 400
        foreign = await r.call("POST", "/execute", json=body, headers=r.payment(10_000, key=poor))
        assert foreign.status == 403 and "sandbox" in foreign.json["detail"]
        assert r.agent.desk.store.recent(10) == []


async def test_an_empty_wallet_leaves_no_job_behind(rig: OpenRig, devnet: Devnet) -> None:
    poor = PrivateKey.generate()
    async with rig(trusted=[poor.address]) as r:
        body = {"spec": spec(), "job_id": "job-" + "2" * 20}
        payment = r.payment(10_000, key=poor)
        reply = await r.call("POST", "/execute", json=body, headers=payment)
        assert reply.status == 402
        assert decode_header(reply.headers["PAYMENT-RESPONSE"])["errorReason"] == (
            "insufficient_funds"
        )
        assert r.agent.desk.store.find(body["job_id"]) is None
        await devnet.fund(poor.address, usdc_atoms=10_000)
        again = await r.call("POST", "/execute", json=body, headers=payment)
        assert again.status == 202, again.body


async def test_what_can_not_run_is_refused_before_any_payment(rig: OpenRig) -> None:
    async with rig() as r:
        for changes, word in (
            ({"image": "windows"}, "python"),
            ({"gpu_count": 1}, "0 GPUs"),
            ({"memory_bytes": 2**50}, "memory"),
            ({"disk_bytes": 2**50}, "disk"),
            ({"max_seconds": 7200}, "3600 s"),
            ({"network": True}, "network"),
            ({"env": {"LD_PRELOAD": "x"}}, "LD_PRELOAD"),
        ):
            job = spec() | changes
            for path in ("/quotes", "/execute"):
                reply = await r.call("POST", path, json={"spec": job})
                assert reply.status == 422, (changes, reply.body)
                assert word in reply.json["detail"]


async def test_quotes_hold_their_price_and_only_for_their_job(rig: OpenRig) -> None:
    async with rig() as r:
        job = spec()
        signed = (await r.quote(job)).model_dump(mode="json")
        r.agent.set_price(2 * PRICE)
        kept = await r.call("POST", "/execute", json={"spec": job, "quote": signed})
        assert kept.json["accepts"][0]["maxAmountRequired"] == "10000"
        bare = await r.call("POST", "/execute", json={"spec": job})
        assert bare.json["accepts"][0]["maxAmountRequired"] == "20000"
        other = await r.call("POST", "/execute", json={"spec": spec("2"), "quote": signed})
        assert other.status == 400
        forged = signed | {"document": signed["document"] | {"price_per_hour": 1}}
        reply = await r.call("POST", "/execute", json={"spec": job, "quote": forged})
        assert reply.status == 401
        bad = await r.call("POST", "/execute", json={"spec": job, "quote": {"kind": "quote"}})
        assert bad.status == 400


async def test_slices_are_bought_in_order_once_and_by_the_same_wallet(
    rig: OpenRig, devnet: Devnet
) -> None:
    both = [devnet.keys[0].address, devnet.keys[4].address]
    async with rig(trusted=both) as r:
        bought = await r.buy(spec("import time;print(1);time.sleep(60)"))
        skipped = await bought.pay(2)
        assert skipped.status == 409
        beyond = await bought.call("POST", "/payments", json={"slice": 6})
        assert beyond.status == 409
        stranger = await bought.pay(1, key=devnet.keys[4])
        assert stranger.status == 403
        assert bought.quote is not None
        payment = r.payment(bought.quote.slice_amount(1))

        async def post() -> JobView:
            reply = await bought.call("POST", "/payments", json={"slice": 1}, headers=payment)
            assert reply.status == 200, reply.body
            return JobView.model_validate_json(reply.body)

        views = await asyncio.gather(*(post() for _ in range(10)))
        assert {view.slices_paid for view in views} == {2}
        rivals = await asyncio.gather(bought.pay(2), bought.pay(2))
        assert sorted(reply.status for reply in rivals) == [200, 409]
        assert (await post()).slices_paid == 3  # a repetition changes nothing
        await bought.call("POST", "/cancel")
        view = await r.refunded(bought)
        assert view.refund is not None and view.paid == 30_000 == view.cost + view.refund.amount


async def test_a_job_id_belongs_to_its_first_buyer(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(spec())
        before = await r.balance()
        body = {"spec": spec(), "job_id": bought.job_id, "access_key": secrets.token_hex(32)}
        asked = await r.call("POST", "/execute", json=body)
        assert asked.status == 409
        paid = await r.call("POST", "/execute", json=body, headers=r.payment(10_000))
        assert paid.status == 409
        view = await bought.ended()
        assert view.state is JobState.SUCCEEDED
        await r.refunded(bought)
        assert await r.balance() >= before  # nothing more was taken


async def test_nothing_of_a_job_but_its_result_stays_on_the_disk(
    rig: OpenRig, tmp_path: Path
) -> None:
    async with rig() as r:
        job = spec("import os;print(len(os.environ['TOKEN']))", env={"TOKEN": "s3cr3t-t0ken"})
        bought = await r.buy(job)
        await bought.ended()
        kept = r.agent.desk.store.get(bought.job_id)
        assert kept.spec.env == {}
        for path in (r.paths.seller / "events").iterdir():
            assert b"s3cr3t-t0ken" not in path.read_bytes()
