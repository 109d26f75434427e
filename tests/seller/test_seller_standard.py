"""The standard's extensions and error codes at the seller's door, with the official package."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from seller_rig import Reply, Rig, spec
from test_seller_payments import official_client

from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.imports import import_late
from computeswarm.core.x402 import Reason, decode_header, encode_header
from computeswarm.payments.channels.reasons import ChannelReason

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
BARE = json.dumps({"spec": spec("import time; time.sleep(30)")})
_SPECIFIED = {  # section 9 of version 2's specification
    "insufficient_funds",
    "invalid_exact_evm_payload_authorization_valid_after",
    "invalid_exact_evm_payload_authorization_valid_before",
    "invalid_exact_evm_payload_authorization_value",
    "invalid_exact_evm_payload_signature",
    "invalid_exact_evm_payload_recipient_mismatch",
    "invalid_network",
    "invalid_payload",
    "invalid_payment_requirements",
    "invalid_scheme",
    "unsupported_scheme",
    "invalid_x402_version",
    "invalid_transaction_state",
    "unexpected_verify_error",
    "unexpected_settle_error",
}


async def ask(r: Rig, body: str) -> Any:
    """The 402 as the official package reads it."""
    reply = await post(r, body)
    assert reply.status == 402, reply.body
    required = decode_header(reply.headers["PAYMENT-REQUIRED"])
    return import_late("x402.schemas").PaymentRequired.model_validate(required)


async def paid(r: Rig, body: str, identifier: str | None = None) -> dict[str, Any]:
    """A payment that the official client made for it, with an id or without."""
    required = await ask(r, body)
    client = official_client(r.buyer, version=2)
    if identifier is not None:
        required.extensions["payment-identifier"]["info"]["id"] = identifier
    payload = await client.create_payment_payload(required)
    return dict(payload.model_dump(mode="json", by_alias=True, exclude_none=True))


async def post(r: Rig, body: str, payment: dict[str, Any] | None = None) -> Reply:
    headers = {"Content-Type": "application/json"}
    if payment is not None:
        name = "PAYMENT-SIGNATURE" if payment.get("x402Version") == 2 else "X-PAYMENT"
        headers[name] = encode_header(payment)
    return await r.call("POST", "/execute", data=body, headers=headers)


async def test_an_id_names_one_payment_for_good(rig: OpenRig) -> None:
    name = "pay_" + "7" * 32
    async with rig() as r:
        first, second = await paid(r, BARE, name), await paid(r, BARE, name)
        assert first["extensions"]["payment-identifier"]["info"]["id"] == name
        replies = await asyncio.gather(*(post(r, BARE, first) for _ in range(5)))
        assert {reply.status for reply in replies} == {202}
        assert len({reply.body for reply in replies}) == 1
        before = await r.balance()
        assert (await post(r, BARE, second)).status == 409  # same id, other payment
        assert (await post(r, json.dumps({"spec": spec()}), first)).status == 409  # other request
        assert await r.balance() == before
    async with rig() as r:
        assert (await post(r, BARE, second)).status == 409
        with_own = copy.deepcopy(second)
        with_own["extensions"]["payment-identifier"]["info"]["id"] = "x" * 15
        assert (await post(r, BARE, with_own)).status == 400
        with_own["extensions"]["payment-identifier"]["info"]["id"] = "y" * 16
        # made for the address before the restart; so much for its id
        assert (await post(r, BARE, with_own)).status in (202, 402)


async def test_ids_raced_and_given_up(rig: OpenRig, devnet: Devnet) -> None:
    name, poor = "pay_" + "8" * 32, PrivateKey.generate()
    async with rig(trusted=[poor.address, devnet.keys[0].address]) as r:
        payments = [await paid(r, BARE, name) for _ in range(4)]
        replies = await asyncio.gather(*(post(r, BARE, payment) for payment in payments))
        assert sorted(reply.status for reply in replies) == [202, 409, 409, 409]
        rich, r.buyer = r.buyer, poor  # another's ids are his own
        empty = await paid(r, BARE, name)
        assert (await post(r, BARE, empty)).status == 402
        await devnet.fund(poor.address, usdc_atoms=10_000)
        # a payment that never paid keeps no id from the next
        assert (await post(r, BARE, await paid(r, BARE, name))).status == 202
        r.buyer = rich


async def test_who_only_reads_the_chain_can_not_repeat_a_payment(rig: OpenRig) -> None:
    async with rig() as r:
        payment = await paid(r, BARE)
        first = await post(r, BARE, payment)
        assert first.status == 202
        assert (await post(r, BARE, payment)).body == first.body
        # what the chain shows is the signature and the authorization; and the body was guessed
        v1 = {"x402Version": 1, "scheme": "exact", "network": "base-sepolia"}
        without = {k: v for k, v in payment.items() if k != "extensions"}
        fresh = await ask(r, BARE)
        guessed = without | {"extensions": fresh.extensions}
        spelled = copy.deepcopy(without)
        given = spelled["payload"]["authorization"]
        given["from"], given["nonce"] = given["from"].lower(), "0x" + given["nonce"][2:].upper()
        for stolen in (v1 | {"payload": payment["payload"]}, without, guessed, spelled):
            reply = await post(r, BARE, stolen)
            assert reply.status == 409, reply.body
            assert b"access_key" not in reply.body


async def test_every_refusal_has_the_standards_code(rig: OpenRig, devnet: Devnet) -> None:
    stranger = devnet.keys[2]
    async with rig(trusted=[stranger.address, devnet.keys[0].address]) as r:
        good = await paid(r, BARE)
        now_used = await paid(r, BARE)
        given = good["payload"]["authorization"]

        def changed(**members: Any) -> dict[str, Any]:
            made = copy.deepcopy(good)
            made["payload"]["authorization"] |= members
            return made

        def accepting(**members: Any) -> dict[str, Any]:
            return good | {"accepted": good["accepted"] | members}

        refusals = {
            Reason.BAD_SIGNATURE: changed(nonce="0x" + "11" * 32),
            Reason.RECIPIENT_MISMATCH: changed(to=stranger.address),
            Reason.VALUE_MISMATCH: changed(value=str(int(given["value"]) - 1)),
            Reason.VALID_BEFORE: changed(validBefore="1000"),
            Reason.VALID_AFTER: changed(validAfter=str(int(given["validBefore"]) - 1)),
            Reason.INVALID_NETWORK: accepting(network="eip155:8453"),
            Reason.INVALID_SCHEME: accepting(scheme="upto"),
            Reason.INVALID_REQUIREMENTS: accepting(amount="1"),
        }
        for reason, payment in refusals.items():
            reply = await post(r, BARE, payment)
            assert reply.status == 402, (reason, reply.body)
            v2, v1 = (decode_header(reply.headers[h]) for h in ("PAYMENT-RESPONSE",
                                                               "X-PAYMENT-RESPONSE"))  # fmt: skip
            assert v2["errorReason"] == v1["errorReason"] == reply.json["error"] == reason
            assert (v2["success"], v2["transaction"]) == (False, "")
            assert (v2["network"], v1["network"]) == ("eip155:84532", "base-sepolia")
            assert decode_header(reply.headers["PAYMENT-REQUIRED"])["error"] == reason
            assert reply.json["accepts"] and reply.json["challenge"]
        elsewhere = json.dumps({"spec": spec("print('elsewhere')")})
        assert (await post(r, elsewhere, now_used)).status == 202
        assert (await post(r, BARE, now_used)).status == 409
        for malformed in (
            good | {"payload": {"signature": "0x"}},
            changed(value="1e3"),
            changed(nonce="0x11"),
            {"x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": []},
        ):
            reply = await post(r, BARE, malformed)
            assert (reply.status, reply.json["reason"]) == (400, Reason.INVALID_PAYLOAD)
        for header in ("PAYMENT-SIGNATURE", "X-PAYMENT"):
            reply = await r.call("POST", "/execute", data=BARE, headers={header: "???"})
            assert (reply.status, reply.json["reason"]) == (400, Reason.INVALID_PAYLOAD)


def test_our_codes_are_the_standards_or_the_packages() -> None:
    evm = import_late("x402.mechanisms.evm.constants")
    channel = import_late("x402.mechanisms.evm.batch_settlement.errors")
    known = _SPECIFIED | {
        value
        for module in (evm, channel)
        for name, value in vars(module).items()
        if name.startswith("ERR_") and isinstance(value, str)
    }
    ours = {
        value
        for table in (Reason, ChannelReason)
        for name, value in vars(table).items()
        if name.isupper() and isinstance(value, str)
    }
    assert ours - known == set()
