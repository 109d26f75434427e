"""Money that comes when nothing is sold for it, and money that the chain takes back for good."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from aiohttp import web
from aiohttp.test_utils import TestServer
from seller_rig import Rig, spec

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import authorization_calldata
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.states import JobState
from computeswarm.core.x402 import decode_header
from computeswarm.payments.claims import ClaimState

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]


async def test_a_job_whose_payment_is_lost_runs_out_of_funds(rig: OpenRig) -> None:
    async with rig() as r:
        bought = await r.buy(spec("import time; print('on', flush=True); time.sleep(60)"))
        await bought.first_output()
        assert (await bought.pay(1)).status == 200
        claims = {claim.subject: claim for claim in r.agent.settlements.claims(bought.job_id)}

        async def lose(subject: str) -> None:
            store = r.agent.settlements._store
            lost = store.revert(claims[subject], 1.0)
            await r.agent.takings.lost(lost)
            await r.agent.takings.lost(lost)

        await lose(f"{bought.job_id}#1")
        view = await bought.view()
        assert (view.state, len(view.payments)) == (JobState.RUNNING, 1)
        assert r.agent.desk.meters[bought.job_id].paid_slices == 1
        assert (await bought.pay(1)).status == 200, "it may be paid anew"
        await lose(bought.job_id)
        view = await bought.ended()
        assert view.state is JobState.OUT_OF_FUNDS
        assert view.cost <= claims[f"{bought.job_id}#1"].amount
        assert any("took back" in event.text for event in r.agent.notices.recent())


async def test_a_job_that_waits_is_dropped_when_its_payment_is_lost(rig: OpenRig) -> None:
    async with rig(slots=1) as r:
        first = await r.buy(spec("import time; print('on', flush=True); time.sleep(60)"))
        await first.first_output()
        second = await r.buy(spec())
        (claim,) = r.agent.settlements.claims(second.job_id)
        await r.agent.takings.lost(r.agent.settlements._store.revert(claim, 1.0))
        view = await second.view()
        assert (view.state, view.cost) == (JobState.FAILED, 0)
        assert r.agent.settlements.refunds(second.job_id) == []


async def test_money_that_came_by_itself_goes_back_though_nothing_is_sold_any_more(
    rig: OpenRig, devnet: Devnet
) -> None:
    """Refused for want of funds, then brought by a third party, while the seller has paused."""
    poor = PrivateKey.generate()
    async with rig(trusted=[poor.address]) as r, RpcClient(devnet.url) as rpc:
        body = json.dumps({"spec": spec()})
        payment = r.payment(10_000, key=poor)
        assert (await r.call("POST", "/execute", data=body, headers=payment)).status == 402
        await devnet.fund(poor.address, usdc_atoms=10_000)
        nonce = decode_header(payment["X-PAYMENT"])["payload"]["authorization"]["nonce"]
        (claim,) = [
            claim
            for claim in r.agent.settlements._store.in_state(ClaimState.FAILED)
            if claim.authorization.nonce == nonce
        ]
        sender = TxSender(rpc, devnet.keys[4], devnet.chain_id)
        data = authorization_calldata(claim.authorization, claim.signature)
        signed = await sender.prepare(devnet.usdc, data, gas=200_000)
        await sender.broadcast(signed)
        assert (await sender.wait_receipt(signed.hash)).succeeded
        r.agent.pause(True)
        reply = await r.call("POST", "/execute", data=body, headers=payment)
        assert (reply.status, reply.json["code"]) == (503, "unavailable")
        assert r.agent.desk.store.recent(10) == []
        async with asyncio.timeout(30):
            while await r.usdc.balance_of(poor.address) < 10_000:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_job_starts_when_its_payment_is_as_safe_as_the_settings_ask(
    rig: OpenRig, devnet: Devnet
) -> None:
    async with (
        rig(rpc_confirm=devnet.url, confirm_safe_above="0.005") as r,
        RpcClient(devnet.url) as rpc,
    ):
        bought = await r.buy(spec("print('safe')"))
        (claim,) = r.agent.settlements.claims(bought.job_id)
        receipt = await rpc.receipt(claim.transaction)
        assert claim.amount > 5_000
        assert receipt is not None
        assert (await rpc.head("safe")).number >= receipt.block_number
        assert (await bought.ended()).state is JobState.SUCCEEDED


async def test_the_facilitator_in_the_settings_settles(rig: OpenRig) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        kind = {"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}
        said = {"/supported": {"kinds": [kind]}, "/verify": {"isValid": False}}
        return web.json_response(said[request.path])

    app = web.Application()
    app.router.add_route("*", "/{path}", answer)
    async with TestServer(app) as server, rig(facilitator=str(server.make_url(""))) as r:
        body = json.dumps({"spec": spec()})
        reply = await r.call("POST", "/execute", data=body, headers=r.payment(10_000))
        assert reply.status == 402
        assert asked == ["/supported", "/verify"]
