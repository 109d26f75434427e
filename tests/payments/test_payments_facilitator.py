"""Settling through somebody's facilitator: the official one, and some that lie, stall and break."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from payments_engines import module_devnet  # noqa: F401 - a fixture
from payments_shop import PRICE, Shop, pay, until

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import authorization_calldata, transfer_calldata
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ConfigError, PaymentPending, PaymentRequired
from computeswarm.core.imports import import_late
from computeswarm.core.x402 import Reason
from computeswarm.payments import fate
from computeswarm.payments.claims import ClaimState
from computeswarm.payments.facilitators import remote
from computeswarm.payments.policy import SettlementPolicy
from computeswarm.payments.present import Presented

Opener = Callable[..., Awaitable[Shop]]
_SUPPORTED = {"kinds": [{"x402Version": 2, "scheme": "exact", "network": "eip155:84532"}]}


def served(handlers: dict[str, Callable[[Any], Awaitable[web.Response]]]) -> TestServer:
    """A facilitator made of handlers for POST /verify and /settle and GET /supported."""
    app = web.Application()

    async def handle(request: web.Request) -> web.Response:
        document = await request.json() if request.can_read_body else None
        return await handlers[request.path](document)

    app.router.add_route("*", "/{path}", handle)
    return TestServer(app)


@pytest_asyncio.fixture
async def official(devnet: Devnet) -> AsyncIterator[TestServer]:
    """The ``x402`` package's facilitator, with a key of its own, off the loop."""
    package = import_late("x402")
    evm = import_late("x402.mechanisms.evm")
    exact = import_late("x402.mechanisms.evm.exact")
    schemas = import_late("x402.schemas")
    secret = "0x" + devnet.keys[4].secret.hex()
    facilitator = package.x402FacilitatorSync()
    signer = evm.FacilitatorWeb3Signer(secret, devnet.url)
    exact.register_exact_evm_facilitator(facilitator, signer, "eip155:84532")

    def said(answer: Any) -> web.Response:
        return web.json_response(answer.model_dump(by_alias=True, exclude_none=True))

    async def supported(_: Any) -> web.Response:
        return said(facilitator.get_supported())

    def doing(act: Callable[..., Any]) -> Callable[[Any], Awaitable[web.Response]]:
        async def handle(document: Any) -> web.Response:
            payload = schemas.PaymentPayload.model_validate(document["paymentPayload"])
            wanted = schemas.PaymentRequirements.model_validate(document["paymentRequirements"])
            return said(await asyncio.to_thread(act, payload, wanted))

        return handle

    async with served(
        {
            "/supported": supported,
            "/verify": doing(facilitator.verify),
            "/settle": doing(facilitator.settle),
        }
    ) as server:
        yield server


class Fake:
    """A facilitator that does to each payment what ``acts`` says for its nonce."""

    def __init__(self, rpc: RpcClient, devnet: Devnet) -> None:
        self._sender = TxSender(rpc, devnet.keys[5], devnet.chain_id)
        self._usdc = devnet.usdc
        self.acts: dict[str, Callable[[Any], Awaitable[web.Response]]] = {}
        self.verified = True
        self.asked: list[str] = []

    async def supported(self, _: Any) -> web.Response:
        return web.json_response(_SUPPORTED)

    async def verify(self, _: Any) -> web.Response:
        answer = {"isValid": self.verified, "invalidReason": None if self.verified else "sanctions"}
        return web.json_response(answer)

    async def settle(self, document: Any) -> web.Response:
        authorization = document["paymentPayload"]["payload"]["authorization"]
        self.asked.append(authorization["nonce"])
        return await self.acts[authorization["nonce"]](document)

    async def submit(self, payment: Presented) -> str:
        """Settle indeed."""
        data = authorization_calldata(payment.authorization, payment.signature)
        return await self.mine(data)

    async def mine(self, data: bytes) -> str:
        signed = await self._sender.prepare(self._usdc, data, gas=200_000)
        await self._sender.broadcast(signed)
        await self._sender.wait_receipt(signed.hash)
        return signed.hash


@pytest_asyncio.fixture
async def fake(devnet: Devnet, rpc: RpcClient) -> AsyncIterator[tuple[Fake, str]]:
    fake = Fake(rpc, devnet)
    handlers = {"/supported": fake.supported, "/verify": fake.verify, "/settle": fake.settle}
    async with served(handlers) as server:
        yield fake, str(server.make_url(""))


def says(success: bool, transaction: str = "", **more: Any) -> web.Response:
    return web.json_response(
        {"success": success, "transaction": transaction, "network": "eip155:84532", **more}
    )


async def buyers_key(devnet: Devnet, atoms: int = PRICE) -> PrivateKey:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=atoms)
    return key


async def test_the_official_facilitator_settles_for_us(
    devnet: Devnet, rpc: RpcClient, official: TestServer, open_shop: Opener
) -> None:
    policy = SettlementPolicy(facilitator=str(official.make_url("")))
    shop = await open_shop(policy=policy)
    ours = await rpc.nonce(shop.sender.address)
    buyer = await buyers_key(devnet)
    payment = pay(buyer, shop.terms.pay_to)
    claims = await asyncio.gather(*(shop.settle(payment, subject=f"job-{i}") for i in range(5)))
    assert {claim.state for claim in claims} == {ClaimState.CONSUMED}
    assert len(set(claims)) == len(shop.started) == 1
    assert await shop.usdc.balance_of(buyer.address) == 0
    sent = await rpc.call("eth_getTransactionByHash", [claims[0].transaction])
    assert sent["from"].lower() == devnet.keys[4].address.lower()
    assert await rpc.nonce(shop.sender.address) == ours, "it cost us no transaction"
    with pytest.raises(PaymentRequired) as caught:  # empty now
        await shop.settle(pay(buyer, shop.terms.pay_to), subject="job-9")
    assert caught.value.extra["reason"] == Reason.INSUFFICIENT_FUNDS
    await shop.settlements.close()


async def test_no_lie_of_a_facilitator_sells_anything(
    devnet: Devnet,
    fake: tuple[Fake, str],
    open_shop: Opener,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of them: pending while its window is open, refused after, and no atom has moved."""
    monkeypatch.setattr(fate, "EXPIRY_MARGIN_SECONDS", 0)
    monkeypatch.setattr(remote, "_SETTLE_SECONDS", 0.5)
    hostile, url = fake
    shop = await open_shop(policy=SettlementPolicy(facilitator=url), settle_seconds=1.0)
    mine = shop.terms.pay_to
    elsewhere = await hostile.mine(transfer_calldata(devnet.keys[2].address, 1))
    anothers = await hostile.submit(pay(devnet.keys[2], mine))

    async def no_transaction(_: Any) -> web.Response:
        return says(True)

    async def of_something_else(_: Any) -> web.Response:
        return says(True, elsewhere)

    async def of_another_payment(_: Any) -> web.Response:
        return says(True, anothers)

    async def unknown_transaction(_: Any) -> web.Response:
        return says(True, "0x" + "ab" * 32)

    async def stalls(_: Any) -> web.Response:
        await asyncio.sleep(60)
        return says(True)

    async def breaks(_: Any) -> web.Response:
        return web.Response(status=502, text="bad gateway")

    async def twice(_: Any) -> web.Response:
        answer = says(True, anothers).text or ""
        return web.Response(text=answer + answer, content_type="application/json")

    async def endless(_: Any) -> web.Response:
        return web.Response(body=b"[" * (remote._ANSWER_BYTES + 1))

    acts = [no_transaction, of_something_else, of_another_payment, unknown_transaction]
    acts += [stalls, breaks, twice, endless]
    keys = [await buyers_key(devnet) for _ in acts]
    payments = [pay(key, mine, valid_before=int(time.time()) + 9) for key in keys]
    for act, payment in zip(acts, payments, strict=True):
        hostile.acts[payment.authorization.nonce] = act

    async def ends_refused(number: int) -> str:
        for _ in range(60):
            try:
                await shop.settle(payments[number], subject=f"job-{number}")
            except PaymentPending:
                continue
            except PaymentRequired as error:
                return str(error.extra["reason"])
        raise AssertionError("it never ended")

    with pytest.raises(PaymentPending):
        await shop.settle(payments[0], subject="job-0")
    ends = await asyncio.gather(*map(ends_refused, range(len(acts))))
    assert set(ends) == {Reason.VALID_BEFORE}
    assert shop.started == []
    for key in keys:
        assert await shop.usdc.balance_of(key.address) == PRICE
    assert hostile.asked.count(payments[0].authorization.nonce) > 1, "it is asked again meanwhile"
    await shop.settlements.close()


async def test_what_a_facilitator_settled_counts_whatever_it_says(
    devnet: Devnet, fake: tuple[Fake, str], open_shop: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_SETTLE_SECONDS", 0.5)
    hostile, url = fake
    shop = await open_shop(policy=SettlementPolicy(facilitator=url))
    anothers = await hostile.submit(pay(devnet.keys[2], shop.terms.pay_to))
    keys = [await buyers_key(devnet) for _ in range(4)]
    payments = [pay(key, shop.terms.pay_to) for key in keys]
    done: dict[int, str] = {}

    def then(number: int, answer: Callable[[], Awaitable[web.Response]]) -> None:
        async def act(_: Any) -> web.Response:
            if number not in done:
                done[number] = await hostile.submit(payments[number])
            return await answer()

        hostile.acts[payments[number].authorization.nonce] = act

    async def failure() -> web.Response:
        return says(False, errorReason="insufficient_funds")

    async def breaks() -> web.Response:
        return web.Response(status=500)

    async def stalls() -> web.Response:
        await asyncio.sleep(60)
        return says(True)

    async def names_another() -> web.Response:
        return says(True, anothers)

    for number, answer in enumerate([failure, breaks, stalls, names_another]):
        then(number, answer)
    claims = await asyncio.gather(
        *(shop.settle(payment, subject=f"job-{n}") for n, payment in enumerate(payments))
    )
    assert [claim.transaction for claim in claims] == [done[n] for n in range(4)]
    assert sorted(claim.subject for claim in shop.started) == [f"job-{n}" for n in range(4)]
    await shop.settlements.close()


async def test_a_crash_after_the_hand_over_asks_the_chain_and_not_the_facilitator(
    devnet: Devnet, fake: tuple[Fake, str], open_shop: Opener
) -> None:
    hostile, url = fake
    policy = SettlementPolicy(facilitator=url)
    shop = await open_shop(policy=policy, settle_seconds=0.5)
    payment = pay(devnet.keys[0], shop.terms.pay_to)

    async def breaks(_: Any) -> web.Response:
        return web.Response(status=503)

    hostile.acts[payment.authorization.nonce] = breaks
    with pytest.raises(PaymentPending):
        await shop.settle(payment)
    await shop.settlements.close()
    tx = await hostile.submit(payment)
    again = await open_shop(policy=policy)
    await until(lambda: bool(again.started))
    claim = await again.settle(payment)
    assert (claim.transaction, claim.state) == (tx, ClaimState.CONSUMED)
    assert shop.started == []
    await again.settlements.close()


async def test_what_another_shop_of_the_wallet_sold_is_not_sold_again(
    devnet: Devnet, rpc: RpcClient, fake: tuple[Fake, str], open_shop: Opener, tmp_path: Any
) -> None:
    hostile, url = fake
    policy = SettlementPolicy(facilitator=url)
    shop = await open_shop(policy=policy)
    payment = pay(devnet.keys[0], shop.terms.pay_to)

    async def settles(_: Any) -> web.Response:
        return says(True, await hostile.submit(payment))

    hostile.acts[payment.authorization.nonce] = settles
    await shop.settle(payment)
    other = await Shop.open(devnet, rpc, tmp_path / "other.db", policy=policy)
    await asyncio.sleep(1.1)  # times on the chain are whole seconds
    with pytest.raises(PaymentRequired) as caught:
        await other.settle(payment)
    assert caught.value.extra["reason"] == Reason.NONCE_USED
    assert other.started == []
    for one in (shop, other):
        await one.settlements.close()


async def test_what_it_refuses_to_verify_is_not_handed_over(
    devnet: Devnet, fake: tuple[Fake, str], open_shop: Opener
) -> None:
    hostile, url = fake
    hostile.verified = False
    shop = await open_shop(policy=SettlementPolicy(facilitator=url))
    with pytest.raises(PaymentRequired) as caught:
        await shop.settle(pay(devnet.keys[0], shop.terms.pay_to))
    assert caught.value.extra["reason"] == "sanctions"
    assert (shop.asked, hostile.asked) == ([], [])
    await shop.settlements.close()


@pytest.mark.parametrize(
    "answer",
    [
        {"kinds": [{"x402Version": 2, "scheme": "exact", "network": "eip155:8453"}]},
        {"kinds": [{"x402Version": 2, "scheme": "upto", "network": "eip155:84532"}]},
        {"hello": "world"},
        [],
    ],
)
async def test_a_facilitator_for_another_chain_is_refused_at_the_start(
    open_shop: Opener, answer: Any
) -> None:
    async def supported(_: Any) -> web.Response:
        return web.Response(text=json.dumps(answer), content_type="application/json")

    async with served({"/supported": supported}) as server:
        with pytest.raises(ConfigError, match="facilitator"):
            await open_shop(policy=SettlementPolicy(facilitator=str(server.make_url(""))))
