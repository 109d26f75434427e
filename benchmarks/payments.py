"""Checking and settling payments, against the official verifier and against bare transactions.

    python -m benchmarks.payments [--rounds 30] [--at-once 100]

What is compared is done turn by turn in one process, so that the ratios hold on a noisy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Authorization, Usdc, authorization_calldata
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.x402 import HEADER_PAYMENT_V2, encode_header
from computeswarm.payments.claims import Claim
from computeswarm.payments.present import (
    Presented,
    check_authorization,
    read_payment,
    signed_by_payer,
)
from computeswarm.payments.settlement import Settlements, request_binding
from computeswarm.payments.terms import Terms
from computeswarm.payments.verify import SETTLEMENT_GAS

PRICE = 4_200
URL = "http://seller.example/execute"
VERIFY_GOAL, SETTLE_GOAL = 10.0, 1.5
PAYMENTS_A_TURN = 40
BASE_BLOCK_SECONDS = 2
RESEND_SECONDS = 10.0


def sign(key: PrivateKey, to: str) -> tuple[Authorization, bytes]:
    """A payment of ``PRICE`` that is good for ten minutes."""
    now, nonce = int(time.time()), "0x" + secrets.token_hex(32)
    fields: dict[str, Any] = {
        "from_": key.address,
        "to": to,
        "value": PRICE,
        "valid_after": now - 60,
        "valid_before": now + 600,
        "nonce": nonce,
    }
    digest = transfer_authorization_digest(BASE_SEPOLIA, **fields)
    return Authorization(**fields), key.sign_digest(digest)


def header(terms: Terms, key: PrivateKey) -> str:
    """The same as it travels: PAYMENT-SIGNATURE of x402 v2."""
    given, signature = sign(key, terms.pay_to)
    authorization = {
        "from": given.from_,
        "to": given.to,
        "value": str(given.value),
        "validAfter": str(given.valid_after),
        "validBefore": str(given.valid_before),
        "nonce": given.nonce,
    }
    payload = {"signature": "0x" + signature.hex(), "authorization": authorization}
    accepted = terms.requirements_v2().wire()
    return encode_header({"x402Version": 2, "accepted": accepted, "payload": payload})


def check(text: str, terms: Terms) -> Presented:
    """Ours, from the header on: form, terms, window, signature."""
    presented = read_payment({HEADER_PAYMENT_V2: text}, terms)
    assert presented is not None
    check_authorization(presented, terms, now=time.time())
    assert signed_by_payer(presented, terms)
    return presented


def official(terms: Terms, rpc_url: str) -> dict[str, Callable[[str], None]]:
    """The official package's verifier, from the header on, in three settings."""
    from x402.http import decode_payment_signature_header
    from x402.mechanisms.evm.exact.facilitator import ExactEvmScheme
    from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
    from x402.schemas import PaymentRequirements

    class Offline(FacilitatorWeb3Signer):
        """What it asks the chain is answered at once: the payer is no contract, USDC is one."""

        def get_code(self, address: str) -> bytes:
            return b"\1" if address.lower() == terms.chain.usdc.address.lower() else b""

        def read_contract(self, *_: Any) -> Any:
            return None

    wanted = PaymentRequirements.model_validate(terms.requirements_v2().wire())

    def verifier(kind: type[FacilitatorWeb3Signer], backend: str) -> Callable[[str], None]:
        scheme = ExactEvmScheme(kind("0x" + "11" * 32, rpc_url))

        def verify(text: str) -> None:
            os.environ["ECC_BACKEND_CLASS"] = f"eth_keys.backends.{backend}ECCBackend"
            verdict = scheme.verify(decode_payment_signature_header(text), wanted)
            assert verdict.is_valid, verdict

        return verify

    return {
        "x402 as installed by pip, no chain": verifier(Offline, "Native"),
        "x402 with coincurve, no chain": verifier(Offline, "CoinCurve"),
        "x402 with coincurve, asking the chain": verifier(FacilitatorWeb3Signer, "CoinCurve"),
    }


def verification(devnet: Devnet, rounds: int) -> None:
    """One payment checked, without a question to the chain on our side."""
    terms = Terms(BASE_SEPOLIA, devnet.keys[1].address, PRICE, URL, "a slice of a job")
    ways: dict[str, Callable[[str], object]] = {
        "computeswarm, no chain": lambda text: check(text, terms),
        **official(terms, devnet.url),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, rounds):
        texts = [header(terms, devnet.keys[2]) for _ in range(PAYMENTS_A_TURN)]
        for name, way in ways.items():
            some = texts if "no chain" in name else texts[:5]
            began = time.perf_counter()
            for text in some:
                way(text)
            if turn >= 0:  # the first turn warms up
                times[name].append((time.perf_counter() - began) / len(some))
    ours, *others = ((name, statistics.median(values)) for name, values in times.items())
    print(f"{ours[0]:40} {ours[1] * 1e6:8.0f} µs a payment")
    for name, seconds in others:
        print(f"{name:40} {seconds * 1e6:8.0f} µs  {seconds / ours[1]:6.1f} x ours")
    print(f"goal: the official verifier takes at least {VERIFY_GOAL:g} x ours")


class Shop:
    """A seller's settlements with one key, and bare transactions with another."""

    def __init__(self, devnet: Devnet, rpc: RpcClient, folder: Path) -> None:
        self._rpc = rpc
        self.usdc = Usdc(rpc, BASE_SEPOLIA)
        self.buyer, seller, bare = devnet.keys[0], devnet.keys[1], devnet.keys[3]
        self.terms = Terms(BASE_SEPOLIA, seller.address, PRICE, URL, "a slice of a job")
        self.bare = TxSender(rpc, bare, devnet.chain_id)
        sender = TxSender(rpc, seller, devnet.chain_id)

        async def take(_: Claim) -> None:
            return None

        self.settlements = Settlements(
            folder / "payments.db", rpc, self.usdc, sender, SystemClock(), on_settled=take
        )

    async def raw(self) -> None:
        """Sign, send, and wait for the receipt of the same call of the token."""
        authorization, signature = sign(self.buyer, self.terms.pay_to)
        data = authorization_calldata(authorization, signature)
        signed = await self.bare.prepare(self.usdc.address, data, gas=SETTLEMENT_GAS)
        await self.bare.broadcast(signed)
        try:
            receipt = await self.bare.wait_receipt(signed.hash, timeout=RESEND_SECONDS)
        except RpcUnavailable:
            # anvil can hold a transaction for ever where the one before it is mined while it is
            # being checked (only a sender with many on their way at once sees that)
            await self._rpc.call("anvil_dropTransaction", [signed.hash])
            await self.bare.broadcast(signed)
            receipt = await self.bare.wait_receipt(signed.hash)
        assert self.usdc.payment_proof(receipt, authorization)

    async def settled(self) -> None:
        """A payment from its header to the proof that it was paid, durably."""
        presented = check(header(self.terms, self.buyer), self.terms)
        subject = secrets.token_hex(8)
        claim = await self.settlements.settle(
            presented,
            self.terms,
            binding=request_binding("POST", URL, subject.encode()),
            subject=subject,
            before_broadcast=lambda: None,
        )
        assert claim.transaction


async def timed(shop: Shop, way: str, count: int) -> float:
    """Seconds for so many at once."""
    began = time.perf_counter()
    await asyncio.gather(*(getattr(shop, way)() for _ in range(count)))
    return time.perf_counter() - began


async def settlement(shop: Shop, engine: str, rounds: int, at_once: int) -> None:
    """One after the other, then many at once from one key."""
    ways = {"raw": "raw transaction to receipt", "settled": "verify + settle"}
    for count, turns in ((1, rounds), (at_once, 3)):
        times: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(-1, turns):
            for way, spent in times.items():
                seconds = await timed(shop, way, count)
                if turn >= 0:
                    spent.append(seconds)
        medians = {way: statistics.median(spent) for way, spent in times.items()}
        many = f"{count} at once, all landed" if count > 1 else "one by one"
        for way, seconds in medians.items():
            ratio = seconds / medians["raw"]
            print(f"{engine:8}{ways[way]:28}{many:28}{seconds * 1000:8.1f} ms  {ratio:5.2f} x")
    print(f"goal: verify + settle takes at most {SETTLE_GOAL:g} x the raw transaction")


async def as_on_base(shop: Shop, devnet: Devnet, rpc: RpcClient, rounds: int) -> None:
    """The same on a chain with a block every two seconds; both begin at the same moments."""
    if devnet.engine != "anvil":
        return
    await rpc.call("evm_setAutomine", [False])
    await rpc.call("evm_setIntervalMining", [BASE_BLOCK_SECONDS])
    times: dict[str, list[float]] = {"raw": [], "settled": []}
    for turn in range(rounds):
        await asyncio.sleep(turn / rounds)  # at another point between two blocks
        pair = await asyncio.gather(timed(shop, "raw", 1), timed(shop, "settled", 1))
        for spent, seconds in zip(times.values(), pair, strict=True):
            spent.append(seconds)
    raw, settled = (statistics.median(spent) for spent in times.values())
    print(
        f"a block every {BASE_BLOCK_SECONDS} s: raw transaction {raw:.2f} s,"
        f" verify + settle {settled:.2f} s, {settled / raw:.2f} x"
    )


async def chains(rounds: int, at_once: int) -> None:
    for engine in ("anvil", "py-evm"):
        with contextlib.suppress(Exception):
            devnet = await start_devnet(engine=engine)  # type: ignore[arg-type]
            break
    else:
        raise SystemExit("no engine for a local chain is installed")
    async with devnet, RpcClient(devnet.url) as rpc:
        await asyncio.to_thread(verification, devnet, max(3, rounds // 3))
        with tempfile.TemporaryDirectory() as folder:
            shop = Shop(devnet, rpc, Path(folder))
            await shop.settlements.start()
            try:
                await settlement(shop, devnet.engine, rounds, at_once)
                await as_on_base(shop, devnet, rpc, 6)
            finally:
                await shop.settlements.close()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--at-once", type=int, default=100)
    given = parser.parse_args()
    asyncio.run(chains(given.rounds, given.at_once))
    return 0


if __name__ == "__main__":
    sys.exit(main())
