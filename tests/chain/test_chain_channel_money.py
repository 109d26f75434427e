"""Whatever anybody does in whatever order: the contract holds what its books say, atom by atom.

Each step is done on the chain and in a small model of the specification, which have to agree on
whether it goes through and on every number afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from channel_rig import CHAIN, DELAY, ChannelRig

from computeswarm.chain.batch_settlement import (
    ChannelState,
    finalize_withdraw_calldata,
    initiate_withdraw_calldata,
    refund_calldata,
    settle_calldata,
)
from computeswarm.core.channels import BATCH_SETTLEMENT, ChannelConfig, channel_id
from computeswarm.core.crypto import PrivateKey

_CHANNELS = 3
_STEPS = 70
_KINDS = ("deposit", "claim", "claim", "relay", "settle", "refund", "initiate", "wait", "finalize")


@dataclass
class Model:
    """The specification in as few lines as it takes."""

    channels: list[ChannelState]
    matured: set[int] = field(default_factory=set)
    claimed: int = 0
    settled: int = 0

    def step(self, kind: str, index: int, amount: int, ceiling: int) -> bool:
        """Do one step; whether the contract has to let it happen."""
        now = self.channels[index]
        match kind:
            case "deposit":
                done = replace(now, balance=now.balance + amount) if amount else None
            case "claim" | "relay":
                done = None
                if amount <= min(ceiling, now.balance):
                    done = replace(now, total_claimed=max(now.total_claimed, amount))
                    self.claimed += done.total_claimed - now.total_claimed
            case "settle":
                self.settled = self.claimed
                done = now
            case "refund":
                done = self._refund(now, amount) if amount else None
            case "initiate":
                free = 0 < amount <= now.available and not now.withdraw_amount
                done = replace(now, withdraw_amount=amount) if free else None
                if free:
                    self.matured.discard(index)
            case "wait":
                self.matured = set(range(_CHANNELS))
                done = now
            case _:
                done = None
                if now.withdraw_amount and index in self.matured:
                    paid = min(now.withdraw_amount, now.available)
                    done = replace(now, balance=now.balance - paid, withdraw_amount=0)
        if done is not None:
            self.channels[index] = done
        return done is not None

    @staticmethod
    def _refund(now: ChannelState, amount: int) -> ChannelState:
        paid = min(amount, now.available)
        return replace(
            now,
            balance=now.balance - paid,
            withdraw_amount=max(0, now.withdraw_amount - paid),
            refund_nonce=now.refund_nonce + 1,
        )


def _steps(rng: random.Random, model: Model) -> Iterator[tuple[str, int, int, int]]:
    """(kind, channel, amount, voucher), mostly near what is allowed and now and then beyond."""
    for index in range(_CHANNELS):
        yield "deposit", index, rng.randint(50, 150), 0
    for _ in range(_STEPS):
        kind, index = rng.choice(_KINDS), rng.randrange(_CHANNELS)
        now = model.channels[index]
        amount = rng.randint(0, now.available + 10)
        if kind in ("claim", "relay"):
            amount = max(0, now.total_claimed + rng.randint(-5, now.available // 2 + 10))
        elif kind in ("refund", "initiate"):
            amount //= rng.randint(1, 3)
        yield kind, index, amount, max(0, amount + rng.randint(-2, 20))


@pytest.mark.parametrize("seed", [0, 1])
async def test_the_contract_holds_what_its_books_say(rig: ChannelRig, seed: int) -> None:
    configs = [rig.config() for _ in range(_CHANNELS)]
    names = [channel_id(config, CHAIN) for config in configs]
    model = Model([ChannelState(0, 0, 0, 0, 0)] * _CHANNELS)
    others = await rig.usdc.balance_of(BATCH_SETTLEMENT)
    seen: set[tuple[str, bool]] = set()
    for step in _steps(random.Random(seed), model):
        kind, index, amount, ceiling = step
        expected = model.step(*step)
        seen.add((kind, expected))
        if kind == "wait":
            await rig.devnet.advance_time(DELAY + 1)
        else:
            key, data = await _call(rig, configs[index], kind, amount, ceiling)
            assert (await rig.send(key, data)).succeeded == expected, step
        found = [replace(s, withdraw_requested_at=0) for s in await rig.contract.states(names)]
        assert found == model.channels, step
        totals = await rig.contract.receiver_totals(rig.receiver.address, CHAIN.usdc.address)
        assert totals == (model.claimed, model.settled)
        assert all(0 <= state.total_claimed <= state.balance for state in found)
        held = await rig.usdc.balance_of(BATCH_SETTLEMENT) - others
        assert held == sum(state.balance for state in found) - model.settled
        assert await rig.usdc.balance_of(rig.receiver.address) == model.settled
    assert {(kind, True) for kind in _KINDS} <= seen
    assert {("claim", False), ("finalize", False)} <= seen


async def _call(
    rig: ChannelRig, config: ChannelConfig, kind: str, amount: int, ceiling: int
) -> tuple[PrivateKey, bytes]:
    match kind:
        case "deposit":
            return rig.relayer, await rig.deposit_call(config, amount)
        case "claim":
            return rig.receiver, rig.claim(rig.row(config, ceiling, amount))
        case "relay":
            return rig.relayer, rig.signed_claim([rig.row(config, ceiling, amount)])
        case "settle":
            return rig.relayer, settle_calldata(config.receiver, config.token)
        case "refund":
            return rig.receiver, refund_calldata(config, amount)
        case "initiate":
            return rig.payer, initiate_withdraw_calldata(config, amount)
        case _:
            return rig.payer, finalize_withdraw_calldata(config)
