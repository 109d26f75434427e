"""A seller with channels for the tests, and a buyer whose payments to him are made by hand."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import pytest

from computeswarm.chain.batch_settlement import (
    BatchSettlement,
    ChannelState,
    deposit_calldata,
    finalize_withdraw_calldata,
    initiate_withdraw_calldata,
)
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Receipt
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import (
    ChannelConfig,
    channel_id,
    deposit_digest,
    deposit_nonce,
    voucher_digest,
)
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import PaymentRequired
from computeswarm.core.x402 import (
    HEADER_PAYMENT_V2,
    HEADER_RESPONSE_V2,
    SettleResponse,
    decode_header,
    encode_header,
)
from computeswarm.payments.challenge import Challenge, parse_402
from computeswarm.payments.channels.payer import ChannelPayer, SignedVoucher
from computeswarm.payments.channels.payouts import PayoutPolicy
from computeswarm.payments.channels.present import (
    DepositGiven,
    PresentedChannel,
    read_channel_payment,
)
from computeswarm.payments.channels.seller import Charge, JobAccount, SellerChannels
from computeswarm.payments.channels.terms import (
    ChannelOffer,
    channel_requirements,
    corrective_requirements,
)
from computeswarm.payments.guard import Purpose, SpendingPolicy
from computeswarm.payments.journal import PaymentJournal, SignedPayment
from computeswarm.payments.payer import Payer
from computeswarm.payments.settlement import request_binding
from computeswarm.payments.terms import Terms, payment_required

TICK = 1_000
DEPOSIT = 50_000
DELAY = 900
URL = "http://seller.test/execute"


def binding(subject: str) -> str:
    """What a request is bound to; one for each subject."""
    return request_binding("POST", URL, subject.encode())


class FaultyRpc(RpcClient):
    """A node that misbehaves on chosen methods."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.faults: dict[str, str] = {}

    async def call(self, method: str, params: Any = ()) -> Any:
        fault = self.faults.get(method)
        if fault == "down":
            raise RpcUnavailable("down")
        if fault == "refuse":
            raise RpcError("insufficient funds for gas * price + value")
        result = await super().call(method, params)
        if fault == "accept, then time out":
            raise RpcUnavailable("timed out")
        if fault == "forget":
            return None
        return result


@dataclass
class HandBuyer:
    """Signs whatever he is told, so that the seller's own checks show."""

    key: PrivateKey
    config: ChannelConfig

    @classmethod
    def of(cls, key: PrivateKey, seller: str, **changes: Any) -> Self:
        config = ChannelConfig(
            payer=key.address,
            payer_authorizer=key.address,
            receiver=seller,
            receiver_authorizer=seller,
            token=BASE_SEPOLIA.usdc.address,
            withdraw_delay=DELAY,
            salt="0x" + secrets.token_hex(32),
        )
        return cls(key, replace(config, **changes))

    @property
    def channel_id(self) -> str:
        return channel_id(self.config, BASE_SEPOLIA)

    def voucher(self, total: int, **changes: Any) -> PresentedChannel:
        signature = self.key.sign_digest(voucher_digest(self.channel_id, total, BASE_SEPOLIA))
        payment = PresentedChannel("voucher", self.config, self.channel_id, total, signature)
        return replace(payment, **changes)

    def deposit(self, total: int = TICK, amount: int = DEPOSIT, **changes: Any) -> PresentedChannel:
        now, salt = int(time.time()), secrets.randbits(256)
        window = {"valid_after": now - 60, "valid_before": now + 120, **changes}
        signature = self.key.sign_digest(
            deposit_digest(self.config, BASE_SEPOLIA, amount=amount, salt=salt, **window)
        )
        given = DepositGiven(
            amount,
            window["valid_after"],
            window["valid_before"],
            salt,
            deposit_nonce(self.channel_id, salt),
            signature,
        )
        return self.voucher(total, kind="deposit", deposit=given)

    def refund(self, total: int, amount: int | None = None) -> PresentedChannel:
        return self.voucher(total, kind="refund", refund_amount=amount)

    async def transact(self, rpc: RpcClient, data: bytes) -> Receipt:
        """A transaction of the buyer's own to the contract."""
        sender = TxSender(rpc, self.key, BASE_SEPOLIA.chain_id)
        signed = await sender.prepare(BatchSettlement.address, data, gas=400_000)
        await sender.broadcast(signed)
        return await sender.wait_receipt(signed.hash)

    async def initiate(self, rpc: RpcClient, amount: int) -> Receipt:
        return await self.transact(rpc, initiate_withdraw_calldata(self.config, amount))

    async def finalize(self, rpc: RpcClient) -> Receipt:
        return await self.transact(rpc, finalize_withdraw_calldata(self.config))


@dataclass
class Till:
    """Channels of one seller, and what he was told."""

    channels: SellerChannels
    usdc: Usdc
    contract: BatchSettlement
    seller: PrivateKey
    path: Path
    charged: list[Charge] = field(default_factory=list)
    closed: list[JobAccount] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @classmethod
    async def open(
        cls,
        devnet: Devnet,
        rpc: RpcClient,
        path: Path,
        *,
        on_charged: Callable[[Charge], Awaitable[None]] | None = None,
        policy: PayoutPolicy = PayoutPolicy(watch_seconds=0.2),  # noqa: B008
        **options: Any,
    ) -> Self:
        seller = devnet.keys[1]
        usdc = Usdc(rpc, BASE_SEPOLIA)
        contract = BatchSettlement(rpc, BASE_SEPOLIA)

        async def take(charge: Charge) -> None:
            if on_charged is not None:
                await on_charged(charge)
            till.charged.append(charge)

        async def tell(account: JobAccount) -> None:
            till.closed.append(account)

        channels = SellerChannels(
            path,
            rpc,
            contract,
            usdc,
            TxSender(rpc, seller, devnet.chain_id),
            SystemClock(),
            offer=ChannelOffer(seller.address, DELAY),
            on_charged=take,
            on_closed=tell,
            policy=policy,
            **options,
        )
        till = cls(channels, usdc, contract, seller, path)
        await channels.start()
        return till

    def terms(self, price: int = TICK) -> Terms:
        return Terms(BASE_SEPOLIA, self.seller.address, price, URL, "a tick of a job")

    async def pay(
        self,
        payment: PresentedChannel,
        *,
        subject: str = "job-1",
        price: int = TICK,
        bound_to: str | None = None,
    ) -> Charge:
        """Pay as the seller's server does."""
        return await self.channels.pay(
            payment,
            self.terms(price),
            binding=binding(bound_to or subject),
            subject=subject,
            before_broadcast=lambda: self.asked.append(subject),
        )

    async def state(self, buyer: HandBuyer) -> ChannelState:
        """The channel as the chain has it."""
        return await self.contract.state(buyer.channel_id)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """A table of the seller's record."""
        db = self.channels._store.db
        return [dict(row) for row in db.execute(f"SELECT * FROM {table}")]


Opener = Callable[..., Awaitable[Till]]


MAX = SpendingPolicy(max_payment=10_000, max_job=10**6, max_day=10**7)
QUOTED = Purpose("job-1", 0, URL, "POST", TICK, "", None)


@dataclass
class WalletBuyer:
    """The buyer as he is: guard, journal, channels; and a till that he pays over headers."""

    key: PrivateKey
    path: Path
    journal: PaymentJournal
    payer: ChannelPayer
    plain: Payer
    till: Till

    @classmethod
    def at(cls, key: PrivateKey, path: Path, till: Till, policy: SpendingPolicy = MAX) -> Self:
        journal = PaymentJournal(path)
        plain = Payer(key, BASE_SEPOLIA, journal, policy, SystemClock())
        payer = ChannelPayer(plain, key, BASE_SEPOLIA, journal, SystemClock())
        return cls(key, path, journal, payer, plain, till)

    def purpose(self, index: int, *, job_id: str = "job-1", amount: int = TICK) -> Purpose:
        to = self.till.seller.address
        return replace(QUOTED, job_id=job_id, slice=index, expected_amount=amount, pay_to=to)

    def challenge(self, error: PaymentRequired | None = None, *, price: int = TICK) -> Challenge:
        """The seller's 402, as it is read from the wire."""
        terms, offer = self.till.terms(price), self.till.channels.offer
        wanted = channel_requirements(terms, offer)
        if error is not None:
            wanted = corrective_requirements(terms, offer, error)
        reason = None if error is None else str(error.extra["reason"])
        headers, body = payment_required(terms, error="pay", reason=reason, also=(wanted,))
        return parse_402(headers, json.dumps(body).encode())

    def open(self, *, deposit: int = DEPOSIT, job_id: str = "job-1") -> SignedPayment:
        purpose = self.purpose(0, job_id=job_id)
        return self.payer.open(purpose, self.challenge(), deposit=deposit)

    async def present(
        self, signed: SignedPayment | SignedVoucher, purpose: Purpose, *, answered: bool = True
    ) -> Charge:
        """Over the wire and back; without ``answered`` the reply is lost."""
        terms = self.till.terms(purpose.expected_amount)
        payment = read_channel_payment(signed.headers(), terms, self.till.channels.offer)
        assert payment is not None
        subject = f"{purpose.job_id}#{purpose.slice}" if purpose.slice else purpose.job_id
        charge = await self.till.pay(payment, subject=subject, price=purpose.expected_amount)
        if answered:
            receipt = decode_header(charge.receipt_headers()[HEADER_RESPONSE_V2])
            self.payer.settled(purpose, SettleResponse.model_validate(receipt))
        return charge

    async def run(self, ticks: int, *, deposit: int = DEPOSIT, job_id: str = "job-1") -> Charge:
        """A job of so many ticks, all of them answered."""
        first = self.purpose(0, job_id=job_id)
        charge = await self.present(self.open(deposit=deposit, job_id=job_id), first)
        for index in range(1, ticks):
            purpose = self.purpose(index, job_id=job_id)
            charge = await self.present(self.payer.voucher(purpose), purpose)
        return charge

    def close(self) -> None:
        self.journal.close()


def over_the_wire(payment: PresentedChannel, till: Till, **changes: Any) -> PresentedChannel:
    """A payment as a header, read again by the seller; ``changes`` replace members of its payload.

    Raises: as ``read_channel_payment``.
    """
    terms, offer = till.terms(), till.channels.offer
    payload: dict[str, Any] = {
        "type": payment.kind,
        "channelConfig": payment.config.wire(),
        "voucher": {
            "channelId": payment.channel_id,
            "maxClaimableAmount": str(payment.max_claimable),
            "signature": "0x" + payment.signature.hex(),
        },
    }
    if payment.deposit is not None:
        given = payment.deposit
        authorization = {
            "validAfter": str(given.valid_after),
            "validBefore": str(given.valid_before),
            "salt": hex(given.salt),
            "signature": "0x" + given.signature.hex(),
        }
        payload["deposit"] = {
            "amount": str(given.amount),
            "authorization": {"erc3009Authorization": authorization},
        }
    envelope = {
        "x402Version": 2,
        "payload": {**payload, **changes},
        "accepted": channel_requirements(terms, offer).wire(),
    }
    read = read_channel_payment({HEADER_PAYMENT_V2: encode_header(envelope)}, terms, offer)
    assert read is not None
    return read


async def funded(devnet: Devnet, seller: str, **changes: Any) -> HandBuyer:
    key = PrivateKey.generate()
    await devnet.fund(key.address, usdc_atoms=DEPOSIT, wei=10**18)
    return HandBuyer.of(key, seller, **changes)


async def reason_of(paying: Awaitable[Any]) -> str:
    with pytest.raises(PaymentRequired) as caught:
        await paying
    return str(caught.value.extra["reason"])


async def arrived(till: Till, address: str, atoms: int) -> None:
    async with asyncio.timeout(30):
        while await till.usdc.balance_of(address) != atoms:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def mine(devnet: Devnet, key: PrivateKey, to: str, data: bytes) -> None:
    async with RpcClient(devnet.url) as rpc:
        sender = TxSender(rpc, key, devnet.chain_id)
        signed = await sender.prepare(to, data, gas=400_000)
        await sender.broadcast(signed)
        assert (await sender.wait_receipt(signed.hash)).succeeded


async def submit(buyer: HandBuyer, deposit: Any, devnet: Devnet) -> None:
    """A stranger brings a deposit that he has seen."""
    given = deposit.deposit
    data = deposit_calldata(
        buyer.config,
        given.amount,
        valid_after=given.valid_after,
        valid_before=given.valid_before,
        salt=given.salt,
        signature=given.signature,
    )
    await mine(devnet, devnet.keys[3], BatchSettlement.address, data)
