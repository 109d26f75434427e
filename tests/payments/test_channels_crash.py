"""A seller killed at any step of a channel's money: in the end all of it is where it belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from channels_rig import (
    DEPOSIT,
    TICK,
    Opener,
    Till,
    funded,
)
from payments_shop import until

from computeswarm.chain.abi import selector
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.sender import TxSender
from computeswarm.payments.channels.commits import TickCommits
from computeswarm.payments.channels.deposit_store import DepositStore
from computeswarm.payments.channels.payout_store import PayoutStore
from computeswarm.payments.channels.store import ChannelStore

_BLACKLIST = selector("blacklist(address)")


class Killed(BaseException):
    """The process ends here."""


def crashing(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, when: str, nth: int = 1
) -> None:
    """The process dies before or after the nth call of a method."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth and when == "before":
            raise Killed
        result = original(*args, **kwargs)
        if calls != nth:
            return result
        if not asyncio.iscoroutine(result):
            raise Killed

        async def then_die() -> None:
            await result
            raise Killed

        return then_die()

    monkeypatch.setattr(owner, name, wrapped)


POINTS = [
    (DepositStore, "insert", "after", 1),
    (DepositStore, "broadcast", "before", 1),
    (DepositStore, "broadcast", "after", 1),
    (TxSender, "broadcast", "after", 1),
    (DepositStore, "settle", "before", 1),
    (DepositStore, "settle", "after", 1),
    (DepositStore, "consume", "before", 1),
    (TickCommits, "charge", "before", 1),
    (TickCommits, "charge", "after", 1),
    (TickCommits, "charge", "after", 2),
    (ChannelStore, "finish", "before", 1),
    (ChannelStore, "finish", "after", 1),
    (PayoutStore, "plan", "after", 1),
    (PayoutStore, "broadcast", "before", 1),
    (PayoutStore, "broadcast", "after", 1),
    (TxSender, "broadcast", "after", 2),
    (PayoutStore, "mined", "before", 1),
    (PayoutStore, "mined", "after", 1),
    (ChannelStore, "tell", "before", 1),
]


@pytest.mark.parametrize(
    ("owner", "name", "when", "nth"),
    POINTS,
    ids=[f"{when}-{owner.__name__}.{name}-{nth}" for owner, name, when, nth in POINTS],
)
async def test_killed_anywhere_all_of_it_comes_out_the_same(
    open_till: Opener,
    devnet: Devnet,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    when: str,
    nth: int,
) -> None:
    till = await open_till()
    buyer = await funded(devnet, till.seller.address)
    before = await till.usdc.balance_of(till.seller.address)
    payments = [(buyer.deposit(), "job-1")]
    payments += [(buyer.voucher((n + 1) * TICK), f"job-1#{n}") for n in (1, 2)]
    served: set[str] = set()
    with monkeypatch.context() as patches:
        crashing(patches, owner, name, when, nth)
        try:
            for payment, subject in payments:
                await till.pay(payment, subject=subject)
                served.add(subject)
            till.channels.finish("job-1", 2_500)
            await until(lambda: bool(till.closed) or died(till))
            assert died(till)
        except Killed:
            pass
    told = list(till.closed)
    await till.channels.close(claim_seconds=0)

    again = await open_till()
    for payment, subject in payments:
        if subject not in served:
            charge = await again.pay(payment, subject=subject)
            assert charge.subject == subject
    again.channels.finish("job-1", 2_500)
    await until(lambda: bool(again.closed or told))
    account = again.channels.account("job-1")
    assert account is not None
    assert (account.ticks, account.charged, account.state) == (3, 2_500, "closed")
    assert (account.claimed, account.refunded) == (2_500, DEPOSIT - 2_500)
    assert await again.usdc.balance_of(till.seller.address) == before + 2_500
    assert await again.usdc.balance_of(buyer.key.address) == DEPOSIT - 2_500
    assert {charge.subject for charge in till.charged + again.charged} == {
        "job-1",
        "job-1#1",
        "job-1#2",
    }
    await again.channels.close()


def died(till: Till) -> bool:
    worker = till.channels._payouts._worker
    return worker is not None and worker.done()
