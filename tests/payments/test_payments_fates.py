"""What becomes of a signed payment: the seller's word frees nothing, the chain's does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from payments_purse import KEY, NOW, POLICY, ChainSays, Clock, challenge, purpose

from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.payments.journal import Fate, PaymentJournal
from computeswarm.payments.payer import Payer


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[PaymentJournal]:
    journal = PaymentJournal(tmp_path / "payments.db")
    yield journal
    journal.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def payer(journal: PaymentJournal, clock: Clock) -> Payer:
    return Payer(KEY, BASE_SEPOLIA, journal, POLICY, clock)


def chain(*used: str, at: float = NOW) -> Any:
    return ChainSays(at, set(used))


async def test_the_chain_decides_what_became_of_payments_whose_window_closed(
    payer: Payer, journal: PaymentJournal, clock: Clock
) -> None:
    used, unused, stolen = (payer.authorize(purpose(slice=i), challenge(700)) for i in range(3))
    payer.refused(purpose(slice=2), "no")
    assert await payer.reconcile(chain(used.nonce, stolen.nonce)) == []  # nobody can know yet
    clock.time = NOW + 1_000
    gone = await payer.reconcile(chain(used.nonce, stolen.nonce, at=clock.time))
    assert {payment.nonce for payment in gone} == {used.nonce, stolen.nonce}
    fates = {payment.slice: payment.state for payment in journal.of_job("job-a")}
    assert fates == {0: Fate.SETTLED, 1: Fate.EXPIRED, 2: Fate.SPENT}
    assert payer.spent_today() == 1_400
    assert payer.authorize(purpose(slice=1), challenge()).nonce != unused.nonce
    # taken although he refused it: paid is paid, and nothing more is signed for it
    assert payer.authorize(purpose(slice=2), challenge()).nonce == stolen.nonce
    payer.settled(purpose(slice=2), None)
    assert payer.standing(purpose(slice=2)).state is Fate.SETTLED  # type: ignore[union-attr]


async def test_our_clock_alone_expires_nothing(payer: Payer, clock: Clock) -> None:
    """Ten minutes ahead of the chain, an authorization looks dead and is not."""
    first = payer.authorize(purpose(), challenge())
    payer.refused(purpose(), "no")
    clock.time = NOW + 600
    says = chain(at=NOW)
    await payer.reconcile(says)
    assert says.asked == 1
    assert payer.authorize(purpose(), challenge()).nonce == first.nonce
    await payer.reconcile(chain(at=first.valid_before + 59))  # a reorganisation may go back so far
    assert payer.standing(purpose()) is not None
    await payer.reconcile(chain(at=first.valid_before + 60))
    assert payer.authorize(purpose(), challenge()).nonce != first.nonce


async def test_a_clock_ten_minutes_slow_or_fast_signs_what_the_chain_takes(
    payer: Payer, clock: Clock
) -> None:
    for index, off in enumerate((-600, 600)):
        clock.time = NOW + off
        given = payer.authorize(purpose(slice=index), challenge(maxTimeoutSeconds=86_400))
        window = given.payload["payload"]["authorization"]
        assert int(window["validAfter"]) <= NOW
        assert int(window["validBefore"]) - clock.time == 600


@pytest.mark.parametrize("trouble", [RpcUnavailable("down"), RpcError("header not found")])
async def test_a_chain_that_does_not_answer_frees_nothing(
    payer: Payer, clock: Clock, trouble: Exception
) -> None:
    first = payer.authorize(purpose(), challenge())
    payer.refused(purpose(), "no")
    clock.time = NOW + 1_000
    says = chain(at=clock.time)

    async def fails(*_: object, **__: object) -> bool:
        raise trouble

    says.authorization_state = fails
    try:
        await payer.reconcile(says)
    except RpcUnavailable as error:
        assert error is trouble
    assert payer.authorize(purpose(), challenge()).nonce == first.nonce


async def test_without_a_chain_a_refused_one_is_written_off_and_counts(
    payer: Payer, journal: PaymentJournal, clock: Clock
) -> None:
    first = payer.authorize(purpose(), challenge(700))
    payer.refused(purpose(), "no")
    clock.time = first.valid_before + 59
    await payer.reconcile(None)
    assert payer.authorize(purpose(), challenge(700)).nonce == first.nonce
    clock.time += 1
    await payer.reconcile(None)
    second = payer.authorize(purpose(), challenge(700))
    assert second.nonce != first.nonce
    assert payer.spent_today() == journal.spent_job("job-a") == 1_400
    # a chain that is there later still frees it, or shows that it is gone
    await payer.reconcile(chain(at=clock.time + 1_000))
    assert journal.of_job("job-a")[0].state is Fate.EXPIRED
    assert payer.spent_today() == 700


async def test_a_deposit_is_locked_whole_until_the_rest_is_back(
    payer: Payer, journal: PaymentJournal, clock: Clock
) -> None:
    from dataclasses import replace

    given = payer.authorize(purpose(), challenge(500))
    with journal.exclusive():
        for index in (1, 2):
            row = replace(given, slice=index, nonce=f"0x{index:064x}", amount=800, channel="0xc")
            journal.add(row)
    payer.settled(purpose(slice=2), None)
    clock.time = NOW + 3 * 86_400
    assert payer.spent_today() == 1_600  # locked, however long ago
    assert journal.at_risk(84532) == 500
    assert journal.locked(84532) == 1_600
    journal.release("0xc", 600)
    assert journal.locked(84532) == 0
    # the second has landed and bears the claim; the first may land still
    assert journal.spent_job("job-a") == 500 + 800 + 600
    payer.settled(purpose(slice=1), None)
    assert 500 + 600 <= journal.spent_job("job-a") <= 500 + 2 * 600


def test_what_is_settled_or_expired_stays_so(payer: Payer, journal: PaymentJournal) -> None:
    first = payer.authorize(purpose(), challenge())
    payer.settled(purpose(), None)
    for fate in (Fate.REFUSED, Fate.EXPIRED, Fate.SPENT, Fate.WRITTEN_OFF):
        journal.set_fate(first.nonce, fate)
        assert payer.standing(purpose()) is not None
    second = payer.authorize(purpose(slice=1), challenge())
    journal.set_fate(second.nonce, Fate.EXPIRED)
    for fate in (Fate.SETTLED, Fate.REFUSED, Fate.SPENT):
        journal.set_fate(second.nonce, fate)
    assert [p.state for p in journal.of_job("job-a")] == [Fate.SETTLED, Fate.EXPIRED]
