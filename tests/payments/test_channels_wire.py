"""Channel payments off the wire, and the tables of their states: nothing malformed gets further."""

from __future__ import annotations

import copy
from enum import StrEnum
from typing import Any

import pytest
from channels_rig import DELAY, DEPOSIT, TICK, URL, HandBuyer

from computeswarm.core.chains import BASE, BASE_SEPOLIA
from computeswarm.core.channels import ZERO_ADDRESS
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import BadRequest, ComputeSwarmError, InvalidTransition
from computeswarm.core.x402 import HEADER_PAYMENT_V2, Reason, encode_header
from computeswarm.payments.channels import states
from computeswarm.payments.channels.present import PresentedChannel, read_channel_payment
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.terms import ChannelOffer, channel_requirements
from computeswarm.payments.terms import Terms

SELLER = PrivateKey.generate()
TERMS = Terms(BASE_SEPOLIA, SELLER.address, TICK, URL)
OFFER = ChannelOffer(SELLER.address, DELAY, min_deposit=10 * TICK)
OTHER = PrivateKey(b"\x07" * 32).address


def read(document: Any) -> PresentedChannel | None:
    return read_channel_payment({HEADER_PAYMENT_V2: encode_header(document)}, TERMS, OFFER)


def document(buyer: HandBuyer, kind: str = "deposit", **more: Any) -> dict[str, Any]:
    made = buyer.deposit() if kind == "deposit" else buyer.voucher(TICK)
    payload: dict[str, Any] = {
        "type": kind,
        "channelConfig": buyer.config.wire(),
        "voucher": {
            "channelId": made.channel_id,
            "maxClaimableAmount": str(TICK),
            "signature": "0x" + made.signature.hex(),
        },
        **more,
    }
    if made.deposit is not None:
        authorization = {
            "validAfter": str(made.deposit.valid_after),
            "validBefore": str(made.deposit.valid_before),
            "salt": hex(made.deposit.salt),
            "signature": "0x" + made.deposit.signature.hex(),
        }
        payload["deposit"] = {
            "amount": str(DEPOSIT),
            "authorization": {"erc3009Authorization": authorization},
        }
    accepted = channel_requirements(TERMS, OFFER).wire()
    return {"x402Version": 2, "accepted": accepted, "payload": payload}


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[name]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return document


VOUCHER, CONFIG = "payload.voucher", "payload.channelConfig"
AUTHORIZATION = "payload.deposit.authorization.erc3009Authorization"
WRONG = [
    ("accepted.network", BASE.caip2, ChannelReason.NETWORK_MISMATCH),
    ("accepted.amount", str(TICK + 1), Reason.INVALID_REQUIREMENTS),
    ("accepted.payTo", OTHER, Reason.INVALID_REQUIREMENTS),
    ("accepted.extra.withdrawDelay", DELAY + 1, Reason.INVALID_REQUIREMENTS),
    ("accepted", ..., None),
    ("payload.type", "gift", ChannelReason.PAYLOAD_TYPE),
    ("payload.type", ["deposit"], ChannelReason.PAYLOAD_TYPE),
    ("payload", [], ChannelReason.PAYLOAD_TYPE),
    (f"{VOUCHER}.channelId", "0x" + 64 * "1", ChannelReason.CHANNEL_ID_MISMATCH),
    (f"{VOUCHER}.channelId", "0x12", ChannelReason.DEPOSIT_PAYLOAD),
    (f"{VOUCHER}.maxClaimableAmount", "-1", ChannelReason.DEPOSIT_PAYLOAD),
    (f"{VOUCHER}.maxClaimableAmount", str(2**128), ChannelReason.DEPOSIT_PAYLOAD),
    (f"{VOUCHER}.signature", "0x" + 128 * "1", ChannelReason.DEPOSIT_PAYLOAD),
    (VOUCHER, None, ChannelReason.DEPOSIT_PAYLOAD),
    (f"{CONFIG}.salt", "0x" + 64 * "2", ChannelReason.CHANNEL_ID_MISMATCH),
    (f"{CONFIG}.payer", "0x12", ChannelReason.DEPOSIT_PAYLOAD),
    (f"{CONFIG}.withdrawDelay", 899, ChannelReason.WITHDRAW_DELAY_OUT_OF_RANGE),
    (f"{CONFIG}.withdrawDelay", "900", ChannelReason.DEPOSIT_PAYLOAD),
    ("payload.deposit", ..., ChannelReason.DEPOSIT_PAYLOAD),
    ("payload.deposit.amount", "0", ChannelReason.DEPOSIT_PAYLOAD),
    ("payload.deposit.amount", str(2**100), ChannelReason.DEPOSIT_PAYLOAD),
    ("payload.deposit.authorization", {}, ChannelReason.ERC3009_REQUIRED),
    (f"{AUTHORIZATION}.salt", "0x", ChannelReason.DEPOSIT_PAYLOAD),
    (f"{AUTHORIZATION}.validBefore", str(2**256), ChannelReason.DEPOSIT_PAYLOAD),
    (f"{AUTHORIZATION}.signature", "0x", ChannelReason.DEPOSIT_PAYLOAD),
]


@pytest.mark.parametrize(("path", "value", "reason"), WRONG)
def test_each_member_is_checked(path: str, value: Any, reason: str | None) -> None:
    good = document(HandBuyer.of(PrivateKey.generate(), SELLER.address))
    assert read(good) is not None
    if reason is None:
        assert read(changed(good, path, value)) is None
        return
    with pytest.raises(ComputeSwarmError) as caught:
        read(changed(good, path, value))
    assert caught.value.extra["reason"] == reason
    assert caught.value.status in (400, 402)


@pytest.mark.parametrize(
    ("member", "value", "reason"),
    [
        ("receiver", OTHER, ChannelReason.RECEIVER_MISMATCH),
        ("receiver_authorizer", OTHER, ChannelReason.RECEIVER_AUTHORIZER_MISMATCH),
        ("token", OTHER, ChannelReason.TOKEN_MISMATCH),
        ("withdraw_delay", DELAY + 1, ChannelReason.WITHDRAW_DELAY_MISMATCH),
        ("payer_authorizer", ZERO_ADDRESS, ChannelReason.VOUCHER_SIGNATURE),
    ],
)
def test_another_channel_than_ours_is_refused(member: str, value: Any, reason: str) -> None:
    buyer = HandBuyer.of(PrivateKey.generate(), SELLER.address, **{member: value})
    with pytest.raises(ComputeSwarmError) as caught:
        read(document(buyer, "voucher"))
    assert caught.value.extra["reason"] == reason


def document_kinds(buyer: HandBuyer) -> list[dict[str, Any]]:
    return [document(buyer, "voucher"), document(buyer, "refund", amount="5")]


def test_what_a_corrective_402_added_may_be_echoed() -> None:
    buyer = HandBuyer.of(PrivateKey.generate(), SELLER.address)
    for made in document_kinds(buyer):
        made["accepted"]["extra"] |= {"channelState": {"a": 1}, "voucherState": None}
        found = read(made)
        assert found is not None
        assert found.refund_amount == (5 if found.kind == "refund" else None)
        assert found.name == f"{buyer.channel_id}:{TICK}"
    for amount in ("0", "-1", "1e3", "٣", str(10**30)):
        with pytest.raises(ComputeSwarmError) as caught:
            read(document(buyer, "refund", amount=amount))
        assert caught.value.extra["reason"] == ChannelReason.REFUND_AMOUNT
    assert read({"x402Version": 1, "scheme": "exact"}) is None
    with pytest.raises(BadRequest):
        read_channel_payment({HEADER_PAYMENT_V2: "?"}, TERMS, OFFER)


@pytest.mark.parametrize(
    ("table", "check"),
    [
        (states.CHANNEL_TRANSITIONS, states.check_channel),
        (states.DEPOSIT_TRANSITIONS, states.check_deposit),
        (states.PAYOUT_TRANSITIONS, states.check_payout),
    ],
)
def test_only_the_steps_of_the_tables_are_possible(table: dict[StrEnum, Any], check: Any) -> None:
    assert set(table) == set(type(next(iter(table))))
    for old, allowed in table.items():
        for new in table:
            if new in allowed:
                check(old, new)
            else:
                with pytest.raises(InvalidTransition):
                    check(old, new)
