"""A seller that is attacked over HTTP, and the books that must balance afterwards.

Buyer and seller get wallets of their own with known balances, so that sums are exact: what left
the buyer is what the seller has, job by job, to the atom.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seller_rig import Bought, Reply, Rig, open_rig, spec

from computeswarm.chain.abi import address_word, bytes32_word, selector, uint_word
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import AUTHORIZATION_USED_TOPIC, TRANSFER_TOPIC, Authorization, Usdc
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey, keccak256
from computeswarm.core.eip712 import digest, token_domain, transfer_authorization_digest
from computeswarm.core.jobs import ExecuteReply, JobView
from computeswarm.core.x402 import encode_header
from computeswarm.payments.refunds import DUST_ATOMS

FUNDS = 1_000_000
"""Atoms in a new buyer's wallet."""
SLICE = 10_000
"""Atoms for the first slice of the rig's usual job: 10 s at 1,000 a second."""
ENDPOINT = "http://seller.test"
"""What payments are bound to; the same before and after a restart."""
GAS_WEI = 10**18
_CANCEL = selector("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)")
_CANCEL_TYPE = keccak256(b"CancelAuthorization(address authorizer,bytes32 nonce)")


async def new_wallet(devnet: Devnet, *, atoms: int = 0, wei: int = 0) -> PrivateKey:
    """A fresh key with money."""
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=atoms, wei=wei)
    return key


async def mine(rpc: RpcClient, key: PrivateKey, to: str, data: bytes) -> None:
    """A transaction of somebody else's, that succeeds."""
    sender = TxSender(rpc, key, BASE_SEPOLIA.chain_id)
    signed = await sender.prepare(to, data, gas=200_000)
    await sender.broadcast(signed)
    assert (await sender.wait_receipt(signed.hash)).succeeded


def cancellation(key: PrivateKey, nonce: str) -> bytes:
    """``cancelAuthorization`` by its signer."""
    struct = keccak256(_CANCEL_TYPE + address_word(key.address) + bytes32_word(nonce))
    made = key.sign_digest(digest(token_domain(BASE_SEPOLIA.chain_id, BASE_SEPOLIA.usdc), struct))
    return (
        _CANCEL + address_word(key.address) + bytes32_word(nonce) + uint_word(made[64]) + made[:64]
    )


@dataclass(frozen=True)
class Signed:
    """A payment as it goes over the wire, in one version or the other."""

    authorization: Authorization
    signature: bytes
    version: int = 1
    accepted: dict[str, Any] = field(default_factory=dict)
    envelope: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        key: PrivateKey,
        to: str,
        value: int = SLICE,
        *,
        chain: Any = BASE_SEPOLIA,
        now: float | None = None,
        **changes: Any,
    ) -> Signed:
        """A good one; ``changes`` replace members of the authorization before it is signed."""
        at = int(time.time() if now is None else now)
        members: dict[str, Any] = {
            "from_": key.address,
            "to": to,
            "value": value,
            "valid_after": at - 60,
            "valid_before": at + 60,
            "nonce": "0x" + secrets.token_hex(32),
            **changes,
        }
        given = Authorization(**members)
        return cls(given, key.sign_digest(transfer_authorization_digest(chain, **members)))

    def forged(self, **changes: Any) -> Signed:
        """The same signature below another authorization."""
        return replace(self, authorization=replace(self.authorization, **changes))

    @property
    def headers(self) -> dict[str, str]:
        """The payment header."""
        given = self.authorization
        payload = {
            "signature": "0x" + self.signature.hex(),
            "authorization": {
                "from": given.from_,
                "to": given.to,
                "value": str(given.value),
                "validAfter": str(given.valid_after),
                "validBefore": str(given.valid_before),
                "nonce": given.nonce,
            },
        }
        document: dict[str, Any] = {"x402Version": self.version, "payload": payload}
        if self.version == 2:
            document |= {"accepted": self.accepted} | self.envelope
            return {"PAYMENT-SIGNATURE": encode_header(document)}
        document |= {"scheme": "exact", "network": "base-sepolia"} | self.envelope
        return {"X-PAYMENT": encode_header(document)}


@dataclass
class Attack:
    """A seller under attack: the usual rig, a rich buyer of its own, and the chain's own books."""

    rig: Rig
    devnet: Devnet
    rpc: RpcClient
    usdc: Usdc
    buyer: PrivateKey
    seller: str
    funds: int = FUNDS
    """Atoms that the two wallets had together."""

    def sign(self, value: int = SLICE, **changes: Any) -> Signed:
        """A good payment to this seller."""
        return Signed.make(self.buyer, self.seller, value, **changes)

    def body(self, code: str = "print('hello')", **changes: Any) -> str:
        """A purchase, as it is posted again and again."""
        return purchase(code, **changes)

    async def post(self, body: str, payment: Signed | dict[str, str]) -> Reply:
        """``POST /execute``."""
        headers = payment if isinstance(payment, dict) else payment.headers
        headers = {"Content-Type": "application/json", **headers}
        return await self.rig.call("POST", "/execute", data=body, headers=headers)

    def bought(self, reply: Reply) -> Bought:
        """The job that a reply hands over."""
        assert reply.status == 202, (reply.status, reply.body)
        made = ExecuteReply.model_validate_json(reply.body)
        return Bought(self.rig, made.job.job_id, made.access_key)

    async def presented(self, body: str, payment: Signed | dict[str, str]) -> Reply:
        """Present the same again, as a buyer does, until the answer is not "not yet"."""
        async with asyncio.timeout(60):
            while True:
                reply = await self.post(body, payment)
                late = reply.status == 402 and "settlement_pending" in _reason(reply)
                if reply.status not in (429, 503) and not late:
                    return reply
                await asyncio.sleep(0.05)

    async def uses(self, payer: str) -> int:
        """How many authorizations of a payer the chain has seen used for this seller."""
        logs = await self._logs(AUTHORIZATION_USED_TOPIC, payer)
        return len(logs)

    async def moved(self, from_: str, to: str) -> list[int]:
        """The transfers between two, in atoms, oldest first."""
        logs = await self._logs(TRANSFER_TOPIC, from_, to)
        return [int(log["data"], 16) for log in logs]

    async def balances(self) -> tuple[int, int]:
        """(buyer, seller), in atoms."""
        buyer = await self.usdc.balance_of(self.buyer.address)
        return buyer, await self.usdc.balance_of(self.seller)

    async def settled_books(self) -> list[JobView]:
        """Wait until nothing moves any more, then hold the books against the chain.

        Every job has ended, every payment is done, refunded or owed as dust, and the two wallets
        add up to what they had.

        Returns:
            the seller's jobs.
        """
        async with asyncio.timeout(45):
            while (why := await self._unsettled()) is not None:
                try:
                    await asyncio.sleep(0.02)
                except asyncio.CancelledError:
                    raise AssertionError(f"the books don't settle: {why}") from None
        return self.jobs()

    def jobs(self) -> list[JobView]:
        """All jobs of the seller, as their buyers see them."""
        desk = self.rig.agent.desk
        return [desk.view(job) for job in desk.store.recent(1_000)]

    async def _unsettled(self) -> str | None:
        jobs = self.jobs()
        if running := [job.state for job in jobs if not job.state.terminal]:
            return f"jobs are {running}"
        open_refunds = [job.refund for job in jobs if job.refund and not job.refund.transaction]
        owed = sum(refund.amount for refund in open_refunds)
        if owed >= DUST_ATOMS:
            return f"{owed} atoms of refunds are on their way"
        buyer, seller = await self.balances()
        costs = sum(job.cost for job in jobs)
        if buyer + seller != self.funds:
            return f"{buyer} + {seller} atoms are not {self.funds}"
        if seller != costs + owed:
            return f"the seller has {seller}, costs are {costs}, owed {owed}"
        return None

    async def _logs(self, *topics: str) -> list[dict[str, Any]]:
        words = [topics[0], *("0x" + address_word(t).hex() for t in topics[1:])]
        query = {"address": self.usdc.address, "topics": words, "fromBlock": "0x0"}
        logs: list[dict[str, Any]] = await self.rpc.call("eth_getLogs", [query])
        return logs


def purchase(code: str = "print('hello')", **changes: Any) -> str:
    """The body of a purchase with an id and a key of the buyer's, as our own buyer sends it."""
    made = {
        "spec": spec(code),
        "job_id": f"job-{secrets.token_hex(10)}",
        "access_key": secrets.token_hex(32),
    }
    return json.dumps(made | changes)


def _reason(reply: Reply) -> str:
    try:
        return str(reply.json.get("error"))
    except ValueError:
        return ""


@asynccontextmanager
async def open_attack(
    devnet: Devnet,
    folder: Path,
    *,
    buyer: PrivateKey | None = None,
    seller: PrivateKey | None = None,
    trusted: tuple[str, ...] = (),
    **changes: Any,
) -> AsyncIterator[Attack]:
    """A seller with a wallet of his own; the same folder and keys again are a restart."""
    buyer = buyer or await new_wallet(devnet, atoms=FUNDS, wei=GAS_WEI)
    seller = seller or await new_wallet(devnet, wei=GAS_WEI)
    wallets = [buyer.address, *trusted]
    changes = {"endpoint": ENDPOINT, "market_url": "http://127.0.0.1:9", **changes}
    async with (
        open_rig(devnet, folder, key=seller, trusted=wallets, **changes) as rig,
        RpcClient(devnet.url) as rpc,
    ):
        rig.buyer = buyer
        yield Attack(rig, devnet, rpc, Usdc(rpc, BASE_SEPOLIA), buyer, seller.address)
