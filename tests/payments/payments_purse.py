"""A wallet for the tests: fixed keys, a clock to set, our own 402s, a chain that answers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from computeswarm.chain.wire import Block
from computeswarm.core.chains import BASE_SEPOLIA, ChainInfo
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.x402 import HEADER_REQUIRED_V2, encode_header
from computeswarm.payments.challenge import Challenge, parse_402
from computeswarm.payments.guard import Purpose, SpendingPolicy
from computeswarm.payments.terms import Terms, payment_required

KEY = PrivateKey(b"\x07" * 32)
SELLER = PrivateKey(b"\x08" * 32).address
POLICY = SpendingPolicy(max_payment=1_000, max_job=2_500, max_day=4_000)
NOW = 1_800_000_000.0


@dataclass
class Clock:
    """Stands where it is set."""

    time: float = NOW

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


def purpose(**changes: Any) -> Purpose:
    """Slice 0 of a job at 1,000 atoms."""
    base = Purpose("job-a", 0, "http://s.test/execute", "POST", 1_000, SELLER)
    return replace(base, **changes)


def challenge(
    amount: int = 700, version: int = 2, chain: ChainInfo = BASE_SEPOLIA, **changes: Any
) -> Challenge:
    """Our own 402, with members of its requirements changed."""
    terms = Terms(chain, SELLER, amount, "http://s.test/execute", "slice")
    headers, body = payment_required(terms, error="Pay first.")
    if version == 1:
        body["accepts"][0].update(changes)
        return parse_402({}, json.dumps(body).encode())
    document = {"x402Version": 2, "resource": {"url": terms.resource_url}}
    document["accepts"] = [terms.requirements_v2().wire() | changes]
    assert HEADER_REQUIRED_V2 in headers
    return parse_402({HEADER_REQUIRED_V2.lower(): encode_header(document)}, b"")


@dataclass
class ChainSays:
    """The chain as ``Payer.reconcile`` asks it, with a time and used nonces to set."""

    time: float
    used: set[str] = field(default_factory=set)
    asked: int = 0

    async def head(self) -> Block:
        return Block(int(self.time) // 2, "0x" + "0" * 64, int(self.time), 1)

    async def authorization_state(self, payer: str, nonce: str, *, block: str) -> bool:
        assert payer == KEY.address
        assert block == hex(int(self.time) // 2)  # the block whose time was looked at, no other
        self.asked += 1
        return nonce in self.used
