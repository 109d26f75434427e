"""A buyer who pays a seller's jobs by a channel with his own hands: the wire only, over HTTP."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from seller_rig import Bought, Reply, Rig

from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import (
    SCHEME,
    ChannelConfig,
    channel_id,
    deposit_digest,
    voucher_digest,
)
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.jobs import ExecuteReply
from computeswarm.core.quotes import Quote
from computeswarm.core.signing import Signed
from computeswarm.core.x402 import decode_header, encode_header

DEPOSIT = 50_000


@dataclass
class Hands:
    """One channel. ``accepted`` is what the seller's 402 said of the last request."""

    rig: Rig
    key: PrivateKey
    accepted: dict[str, Any]
    salt: str = field(default_factory=lambda: "0x" + secrets.token_hex(32))

    @property
    def config(self) -> ChannelConfig:
        return ChannelConfig(
            payer=self.key.address,
            payer_authorizer=self.key.address,
            receiver=self.accepted["payTo"],
            receiver_authorizer=self.accepted["extra"]["receiverAuthorizer"],
            token=self.accepted["asset"],
            withdraw_delay=self.accepted["extra"]["withdrawDelay"],
            salt=self.salt,
        )

    @property
    def channel_id(self) -> str:
        return channel_id(self.config, BASE_SEPOLIA)

    def voucher(self, total: int, **changes: Any) -> dict[str, str]:
        """Headers: all that may be claimed up to now is ``total`` atoms."""
        signature = self.key.sign_digest(voucher_digest(self.channel_id, total, BASE_SEPOLIA))
        payload = {
            "type": "voucher",
            "channelConfig": self.config.wire(),
            "voucher": {
                "channelId": self.channel_id,
                "maxClaimableAmount": str(total),
                "signature": "0x" + signature.hex(),
            },
        }
        document = {"x402Version": 2, "accepted": self.accepted, "payload": payload | changes}
        return {"PAYMENT-SIGNATURE": encode_header(document)}

    def deposit(self, total: int, amount: int = DEPOSIT) -> dict[str, str]:
        """Headers: put ``amount`` in, and pay the first ``total`` of it."""
        now, salt = int(time.time()), secrets.randbits(256)
        signature = self.key.sign_digest(
            deposit_digest(
                self.config,
                BASE_SEPOLIA,
                amount=amount,
                valid_after=now - 60,
                valid_before=now + 60,
                salt=salt,
            )
        )
        authorization = {
            "validAfter": str(now - 60),
            "validBefore": str(now + 60),
            "salt": f"0x{salt:064x}",
            "signature": "0x" + signature.hex(),
        }
        given = {"amount": str(amount), "authorization": {"erc3009Authorization": authorization}}
        return self.voucher(total, type="deposit", deposit=given)


@dataclass
class Ticking(Bought):
    """A job that was bought by a deposit."""

    hands: Hands | None = None

    async def tick(self, index: int, *, hands: Hands | None = None, total: int = 0) -> Reply:
        """Post the voucher for slice ``index``."""
        assert self.quote is not None
        hands = hands or self.hands
        assert hands is not None
        hands.accepted = {**hands.accepted, "amount": str(self.quote.slice_amount(index))}
        headers = hands.voucher(total or self.quote.paid_through(index))
        return await self.call("POST", "/payments", json={"slice": index}, headers=headers)


def accepts(reply: Reply, scheme: str = SCHEME) -> dict[str, Any]:
    """The entry of a 402 for one scheme."""
    document = decode_header(reply.headers["PAYMENT-REQUIRED"])
    found: dict[str, Any] = next(e for e in document["accepts"] if e["scheme"] == scheme)
    return found


async def quoted(rig: Rig, job: dict[str, Any]) -> Signed:
    """The seller's offer for a job paid by ticks."""
    reply = await rig.call("POST", "/quotes", json={"spec": job, "scheme": SCHEME})
    assert reply.status == 200, reply.body
    return Signed.model_validate_json(reply.body)


async def buy_by_channel(
    rig: Rig, job: dict[str, Any], *, deposit: int = DEPOSIT, key: PrivateKey | None = None
) -> Ticking:
    """A job with its deposit made and its first tick paid."""
    signed = await quoted(rig, job)
    quote = Quote.model_validate(signed.document)
    body = {
        "spec": job,
        "quote": signed.model_dump(mode="json"),
        "job_id": f"job-{secrets.token_hex(10)}",
        "access_key": secrets.token_hex(32),
    }
    asked = await rig.call("POST", "/execute", json=body)
    assert asked.status == 402, asked.body
    hands = Hands(rig, key or rig.buyer, accepts(asked))
    headers = hands.deposit(quote.slice_amount(0), deposit)
    reply = await rig.call("POST", "/execute", json=body, headers=headers)
    assert reply.status == 202, reply.body
    again = await rig.call("POST", "/execute", json=body, headers=headers)
    assert again.body == reply.body
    made = ExecuteReply.model_validate_json(reply.body)
    return Ticking(rig, made.job.job_id, made.access_key, quote, hands)
