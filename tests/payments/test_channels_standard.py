"""The official package pays our channels, and its server and facilitator take our payments."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from channels_rig import DELAY, DEPOSIT, TICK, Till

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ComputeSwarmError, PaymentRequired
from computeswarm.core.imports import import_late
from computeswarm.core.x402 import HEADER_REQUIRED_V2, SettleResponse, decode_header
from computeswarm.payments.challenge import parse_402
from computeswarm.payments.channels.payer import ChannelPayer
from computeswarm.payments.channels.present import read_channel_payment
from computeswarm.payments.channels.terms import channel_required
from computeswarm.payments.guard import Purpose, SpendingPolicy
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.payer import Payer
from computeswarm.payments.settlement import request_binding

BATCH = "x402.mechanisms.evm.batch_settlement"
NETWORK = BASE_SEPOLIA.caip2
POLICY = SpendingPolicy(10**6, 10**6, 10**6)


@pytest_asyncio.fixture
async def till(devnet: Devnet, rpc: RpcClient, tmp_path: Path) -> AsyncIterator[Till]:
    till = await Till.open(devnet, rpc, tmp_path / "channels.db")
    yield till
    await till.channels.close()


@pytest_asyncio.fixture
async def seller(till: Till) -> AsyncIterator[TestServer]:
    """A bare x402 server on our parts that is paid by channels."""

    async def execute(request: web.Request) -> web.Response:
        body = await request.read()
        terms, offer = till.terms(), till.channels.offer
        try:
            payment = read_channel_payment(request.headers, terms, offer)
            if payment is None:
                raise PaymentRequired("Pay first.")
            if payment.kind == "refund":
                refund = await till.channels.refund(payment)
                return web.Response(headers=refund.receipt_headers())
            charge = await till.channels.pay(
                payment,
                terms,
                binding=request_binding("POST", terms.resource_url, body),
                subject="job-" + body.decode(),
                before_broadcast=lambda: None,
            )
        except PaymentRequired as error:
            failure = error if error.extra else None
            headers, document = channel_required(
                terms, offer, error=error.detail, failure=failure, exact=False
            )
            return web.json_response(document, status=402, headers=headers)
        except ComputeSwarmError as error:
            return web.json_response(error.to_problem(), status=error.status)
        return web.Response(body=b"served " + body, headers=charge.receipt_headers())

    app = web.Application()
    app.router.add_post("/execute", execute)
    async with TestServer(app) as server:
        yield server


async def test_the_official_client_pays_recovers_and_is_refunded(
    devnet: Devnet, till: Till, seller: TestServer
) -> None:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=DEPOSIT)
    clients = import_late("x402.http.clients.httpx")
    schemes = import_late(BATCH + ".client")
    signers = import_late("x402.mechanisms.evm.signers")
    account = import_late("eth_account").Account.from_key(key.secret)
    signer = signers.EthAccountSignerWithRPC(account, devnet.url)
    url = str(seller.make_url("/execute"))

    def new_client() -> tuple[Any, Any]:
        scheme = schemes.BatchSettlementEvmScheme(signer)
        return import_late("x402.client").x402Client().register(NETWORK, scheme), scheme

    async def buy(client: Any, body: bytes) -> dict[str, Any]:
        async with clients.x402HttpxClient(client, timeout=30) as http:
            response = await http.post(url, content=body)
        assert (response.status_code, response.content) == (200, b"served " + body)
        return decode_header(response.headers["PAYMENT-RESPONSE"])

    client, scheme = new_client()
    first = await buy(client, b"1")
    assert (first["amount"], first["extra"]["chargedAmount"]) == (str(5 * TICK), str(TICK))
    for body in (b"2", b"3"):
        receipt = await buy(client, body)
        assert receipt["transaction"] == receipt["amount"] == ""
    assert receipt["extra"]["channelState"]["chargedCumulativeAmount"] == str(3 * TICK)

    forgetful, scheme = new_client()  # knows nothing but what chain and corrective 402 tell
    receipt = await buy(forgetful, b"4")
    assert receipt["extra"]["channelState"]["chargedCumulativeAmount"] == str(4 * TICK)
    # the deposit is used up after the next: it tops up by itself
    await buy(forgetful, b"5")
    assert (await buy(forgetful, b"6"))["transaction"]
    assert {charge.subject for charge in till.charged} == {f"job-{n}" for n in range(1, 7)}

    def fetch(target: str, headers: dict[str, str]) -> Any:
        response = import_late("httpx").post(target, headers=headers, content=b"refund")
        made = import_late(BATCH + ".client.refund")._RefundResponse
        return made(response.status_code, dict(response.headers))

    options = schemes.RefundOptions(fetch=fetch)
    refund = await asyncio.to_thread(scheme.refund, url, options)
    assert refund.success
    for number in range(1, 7):
        till.channels.finish(f"job-{number}", TICK)
    async with asyncio.timeout(30):
        while await till.usdc.balance_of(key.address) != DEPOSIT - 6 * TICK:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


class OfficialSeller:
    """The package's resource server and facilitator; synchronous, so off the loop."""

    def __init__(self, devnet: Devnet) -> None:
        signers = import_late("x402.mechanisms.evm.signers")
        facilitators = import_late(BATCH + ".facilitator")
        servers = import_late(BATCH + ".server")
        authorizers = import_late(BATCH + ".authorizer_signer")
        secret = "0x" + devnet.keys[2].secret.hex()
        self.address = devnet.keys[2].address
        signer = signers.FacilitatorWeb3Signer(private_key=secret, rpc_url=devnet.url)
        facilitator = import_late("x402.facilitator").x402FacilitatorSync()
        facilitator.register([NETWORK], facilitators.BatchSettlementEvmFacilitator(signer))
        config = servers.BatchSettlementEvmSchemeServerConfig(
            receiver_authorizer_signer=authorizers.LocalAuthorizerSigner(secret),
            withdraw_delay=DELAY,
        )
        self.scheme = servers.BatchSettlementEvmScheme(self.address, config)
        self.server = import_late("x402.server").x402ResourceServerSync(facilitator)
        self.server.register(NETWORK, self.scheme)
        self.server.initialize()
        self.facilitator = facilitator
        configs = import_late("x402.schemas").ResourceConfig(
            scheme="batch-settlement",
            pay_to=self.address,
            price={"amount": str(TICK), "asset": BASE_SEPOLIA.usdc.address},
            network=NETWORK,
        )
        self.requirements = self.server.build_payment_requirements(configs)

    def challenge(self, error: str = "Payment required", payload: Any = None) -> Any:
        resource = import_late("x402.schemas").ResourceInfo(url="http://shop.test/x")
        made = self.server.create_payment_required_response(
            [r.model_copy(deep=True) for r in self.requirements],
            resource=resource,
            error=error,
            payment_payload=payload,
        )
        utils = import_late("x402.http.utils")
        return parse_402({HEADER_REQUIRED_V2: utils.encode_payment_required_header(made)}, b"")

    def pay(self, headers: dict[str, str]) -> tuple[SettleResponse | None, Any]:
        """(receipt, None), or (None, the corrective 402)."""
        utils = import_late("x402.http.utils")
        payload = utils.decode_payment_signature_header(headers["PAYMENT-SIGNATURE"])
        found = self.server.find_matching_requirements(self.requirements, payload)
        assert found is not None
        try:
            self.server.verify_payment(payload, found)
        except import_late("x402.schemas.errors").PaymentAbortedError as error:
            return None, self.challenge(error.reason, payload)
        settled = self.server.settle_payment(payload, found)
        assert settled.success, settled.error_reason
        return SettleResponse.model_validate(settled.model_dump(by_alias=True)), None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_our_buyer_pays_the_official_server(
    devnet: Devnet, rpc: RpcClient, tmp_path: Path
) -> None:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=DEPOSIT)
    shop = await asyncio.to_thread(OfficialSeller, devnet)
    journal = PaymentJournal(tmp_path / "payments.db")
    payer = ChannelPayer(
        Payer(key, BASE_SEPOLIA, journal, POLICY, SystemClock()),
        key,
        BASE_SEPOLIA,
        journal,
        SystemClock(),
    )

    def purpose(index: int) -> Purpose:
        return Purpose("job-1", index, "http://shop.test/x", "GET", TICK, shop.address)

    first = payer.open(purpose(0), await asyncio.to_thread(shop.challenge), deposit=20 * TICK)
    receipt, _ = await asyncio.to_thread(shop.pay, first.headers())
    payer.settled(purpose(0), receipt)
    for index in (1, 2):
        receipt, _ = await asyncio.to_thread(shop.pay, payer.voucher(purpose(index)).headers())
        payer.settled(purpose(index), receipt)
    lost = payer.voucher(purpose(3))
    await asyncio.to_thread(shop.pay, lost.headers())
    payer.settled(purpose(3), None)  # an answer without a receipt: he may have charged nothing
    tick = purpose(4)
    receipt, corrective = await asyncio.to_thread(shop.pay, payer.voucher(tick).headers())
    assert receipt is None
    contract = BatchSettlement(rpc, BASE_SEPOLIA)
    state = await contract.state(lost.channel_id)
    again = payer.correct(tick, corrective, state)
    assert again.cumulative == 5 * TICK
    receipt, _ = await asyncio.to_thread(shop.pay, again.headers())
    payer.settled(tick, receipt)

    headers = payer.refund_headers(lost.channel_id, await asyncio.to_thread(shop.challenge))
    receipt, _ = await asyncio.to_thread(shop.pay, headers)
    assert receipt is not None
    assert receipt.amount == str(15 * TICK)
    state = await contract.state(lost.channel_id)
    assert (state.balance, state.total_claimed) == (5 * TICK, 5 * TICK)
    journal.close()
