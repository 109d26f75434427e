"""The official x402 packages pay our sellers and verify our buyers, in both versions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from payments_shop import PRICE, Shop

from computeswarm.chain.devnet import Devnet
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.errors import BadRequest, ComputeSwarmError, PaymentRequired
from computeswarm.core.imports import import_late
from computeswarm.core.x402 import (
    HEADER_PAYMENT_V1,
    HEADER_PAYMENT_V2,
    HEADER_RESPONSE_V1,
    HEADER_RESPONSE_V2,
    Reason,
    decode_header,
    encode_header,
)
from computeswarm.payments.challenge import parse_402
from computeswarm.payments.guard import Purpose, SpendingPolicy
from computeswarm.payments.journal import PaymentJournal
from computeswarm.payments.payer import Payer
from computeswarm.payments.present import read_payment
from computeswarm.payments.settlement import request_binding
from computeswarm.payments.terms import payment_required
from computeswarm.payments.transfer_proof import Challenges

VERSIONS = web.AppKey("versions", list)
POLICY = SpendingPolicy(10**6, 10**6, 10**6)


@pytest_asyncio.fixture
async def seller(shop: Shop) -> AsyncIterator[TestServer]:
    """A bare x402 server on our parts; ``?v1`` leaves version 2's header out."""

    versions: list[int] = []

    async def execute(request: web.Request) -> web.Response:
        body = await request.read()
        try:
            presented = read_payment(request.headers, shop.terms)
            if presented is None:
                raise PaymentRequired("Pay first.")
            versions.append(presented.version)
            binding = request_binding("POST", shop.terms.resource_url, body)
            claim = await shop.settle(presented, binding=binding)
        except PaymentRequired as error:
            headers, document = payment_required(
                shop.terms, error=error.detail, reason=error.extra.get("reason")
            )
            if "v1" in request.query:
                headers = {k: v for k, v in headers.items() if k.startswith("X-")}
            return web.json_response(document, status=402, headers=headers)
        except ComputeSwarmError as error:
            return web.json_response(error.to_problem(), status=error.status)
        return web.Response(status=202, body=b"started", headers=claim.receipt_headers())

    app = web.Application()
    app[VERSIONS] = versions
    app.router.add_post("/execute", execute)
    async with TestServer(app) as server:
        yield server


@pytest.mark.parametrize("version", [1, 2])
async def test_the_official_client_buys_from_us(
    devnet: Devnet, shop: Shop, seller: TestServer, version: int
) -> None:
    clients = import_late("x402.http.clients.httpx")
    client = import_late("x402.client").x402Client()
    account = import_late("eth_account").Account.from_key(devnet.keys[0].secret)
    import_late("x402.mechanisms.evm.exact.register").register_exact_evm_client(client, account)
    before = await shop.usdc.balance_of(shop.terms.pay_to)
    async with clients.x402HttpxClient(client, timeout=30) as http:
        url = str(seller.make_url("/execute" + ("?v1" if version == 1 else "")))
        reply = await http.post(url, content=b"{}")
    assert (reply.status_code, reply.content) == (202, b"started")
    assert await shop.usdc.balance_of(shop.terms.pay_to) == before + PRICE
    name = HEADER_RESPONSE_V1 if version == 1 else HEADER_RESPONSE_V2
    receipt = decode_header(reply.headers[name])
    assert receipt["success"] is True
    assert receipt["payer"] == devnet.keys[0].address
    assert receipt["transaction"] == shop.started[0].transaction
    assert seller.app[VERSIONS] == [version]


@pytest.mark.parametrize("version", [1, 2])
async def test_the_official_facilitator_takes_our_buyers_payment(
    devnet: Devnet, shop: Shop, tmp_path: Path, version: int
) -> None:
    signers = import_late("x402.mechanisms.evm.signers")
    signer = signers.FacilitatorWeb3Signer(
        private_key="0x" + devnet.keys[3].secret.hex(), rpc_url=devnet.url
    )
    headers, body = payment_required(shop.terms, error="Pay first.")
    journal = PaymentJournal(tmp_path / "payments.db")
    payer = Payer(devnet.keys[0], BASE_SEPOLIA, journal, POLICY, SystemClock())
    document = import_late("json").dumps(body).encode()
    challenge = parse_402(headers if version == 2 else {}, document)
    assert challenge.version == version
    wanted = Purpose("job-a", 0, shop.terms.resource_url, "POST", PRICE, shop.terms.pay_to)
    (header,) = payer.authorize(wanted, challenge).headers().values()
    verdict = _official_verdict(signer, version, decode_header(header), headers, body)
    assert verdict.is_valid, verdict
    assert verdict.payer == devnet.keys[0].address
    name = HEADER_PAYMENT_V1 if version == 1 else HEADER_PAYMENT_V2
    presented = read_payment({name.lower(): header}, shop.terms)
    assert presented is not None
    assert presented.version == version
    await shop.settle(presented)
    journal.close()


def _official_verdict(signer: Any, version: int, payment: Any, headers: Any, body: Any) -> Any:
    if version == 1:
        schemas = import_late("x402.schemas.v1")
        scheme = import_late("x402.mechanisms.evm.exact.v1.facilitator").ExactEvmSchemeV1(signer)
        payload = schemas.PaymentPayloadV1.model_validate(payment)
        wanted = schemas.PaymentRequiredV1.model_validate(body).accepts[0]
    else:
        schemas = import_late("x402.schemas.payments")
        scheme = import_late("x402.mechanisms.evm.exact.facilitator").ExactEvmScheme(signer)
        payload = schemas.PaymentPayload.model_validate(payment)
        required = decode_header(headers["PAYMENT-REQUIRED"])
        wanted = schemas.PaymentRequired.model_validate(required).accepts[0]
        assert payload.accepted == wanted
    return scheme.verify(payload, wanted)


def _v2(shop: Shop, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "x402Version": 2,
        "accepted": shop.terms.requirements_v2().wire(),
        "payload": {
            "signature": "0x" + "11" * 65,
            "authorization": {
                "from": shop.terms.pay_to,
                "to": shop.terms.pay_to,
                "value": str(PRICE),
                "validAfter": "0",
                "validBefore": str(now + 60),
                "nonce": "0x" + "22" * 32,
            },
        },
        **changes,
    }


async def test_payments_for_other_terms_are_refused_by_the_standards_codes(shop: Shop) -> None:
    accepted = shop.terms.requirements_v2().wire()
    v1 = {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"}
    v1["payload"] = _v2(shop)["payload"]
    refused = [
        (HEADER_PAYMENT_V2, _v2(shop, x402Version=3), Reason.INVALID_VERSION),
        (
            HEADER_PAYMENT_V2,
            _v2(shop, accepted=accepted | {"scheme": "upto"}),
            Reason.INVALID_SCHEME,
        ),
        (
            HEADER_PAYMENT_V2,
            _v2(shop, accepted=accepted | {"network": "eip155:8453"}),
            Reason.INVALID_NETWORK,
        ),
        *(
            (HEADER_PAYMENT_V2, _v2(shop, accepted=accepted | change), Reason.INVALID_REQUIREMENTS)
            for change in (
                {"amount": "1"},
                {"maxTimeoutSeconds": 61},
                {"extra": {}},
                {"asset": shop.terms.pay_to},
                {"payTo": BASE_SEPOLIA.usdc.address},
            )
        ),
        (HEADER_PAYMENT_V1, {**v1, "network": "base"}, Reason.INVALID_NETWORK),
        (HEADER_PAYMENT_V1, {**v1, "scheme": "upto"}, Reason.INVALID_SCHEME),
    ]
    for name, document, reason in refused:
        with pytest.raises(PaymentRequired) as caught:
            read_payment({name: encode_header(document)}, shop.terms)
        assert caught.value.extra["reason"] == reason
    assert read_payment({}, shop.terms) is None
    huge = _v2(shop)
    huge["payload"]["authorization"]["validBefore"] = "9" * 78
    for document in (huge, _v2(shop, payload={}), {**v1, "payload": {"signature": "0x"}}):
        name = HEADER_PAYMENT_V2 if document["x402Version"] == 2 else HEADER_PAYMENT_V1
        with pytest.raises(BadRequest):
            read_payment({name: encode_header(document)}, shop.terms)


async def test_the_402_speaks_the_original_protocol_too(shop: Shop) -> None:
    issued = Challenges(b"s" * 32, SystemClock()).issue(shop.terms, "b")
    _, body = payment_required(shop.terms, error="Pay first.", challenge=issued)
    challenge = body["challenge"]
    assert challenge["amount_usdc"] == "4200"
    assert challenge["amount_usd"] == 0.0042
    assert challenge["seller_address"] == shop.terms.pay_to
    assert challenge["payment_details"]["contract"] == BASE_SEPOLIA.usdc.address
    assert "challenge" not in payment_required(shop.terms, error="Pay first.")[1]
    headers, refusal = payment_required(
        shop.terms, error="Too late.", reason=Reason.VALID_BEFORE, payer=shop.terms.pay_to
    )
    assert refusal["error"] == Reason.VALID_BEFORE
    assert decode_header(headers[HEADER_RESPONSE_V2])["errorReason"] == Reason.VALID_BEFORE
    assert decode_header(headers[HEADER_RESPONSE_V1])["network"] == "base-sepolia"
