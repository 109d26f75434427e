"""The claims' table of states, and that the store goes by it."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from computeswarm.chain.tx import SignedTx
from computeswarm.chain.usdc import Authorization
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.errors import InvalidTransition
from computeswarm.payments import claims
from computeswarm.payments.claims import (
    CLAIM_TRANSITIONS,
    Claim,
    ClaimState,
    ClaimStore,
    check_claim,
)

S = ClaimState
ADDRESS = "0x" + "ab" * 20


def test_the_table_is_whole_and_money_never_turns_back() -> None:
    assert set(CLAIM_TRANSITIONS) == set(ClaimState)
    for old, new in itertools.product(ClaimState, ClaimState):
        if new in CLAIM_TRANSITIONS[old]:
            check_claim(old, new)
            assert new.paid or not old.paid or new is S.REVERTED, "only a reorg takes money back"
        else:
            with pytest.raises(InvalidTransition):
                check_claim(old, new)
    reached = {S.RESERVED}
    while (more := reached.union(*(CLAIM_TRANSITIONS[state] for state in reached))) != reached:
        reached = more
    assert reached == set(ClaimState)


def test_the_store_takes_no_step_that_the_table_lacks(tmp_path: Path) -> None:
    store = ClaimStore(tmp_path / "claims.db")
    tx = SignedTx(b"raw", "0x" + "11" * 32, 0)
    steps = {
        S.RESERVED: lambda claim: store.retry(claim, b"", subject="job"),
        S.BROADCAST: lambda claim: store.broadcast(claim, tx),
        S.SETTLED: lambda claim: store.settle(claim, tx.hash, 1.0),
        S.CONSUMED: lambda claim: store.consume(claim),
        S.REFUNDED: lambda claim: refunded(store, claim),
        S.FAILED: lambda claim: store.fail(claim, "why"),
        S.REVERTED: lambda claim: store.revert(claim, 2.0),
    }
    path_to = {
        S.RESERVED: [],
        S.BROADCAST: [S.BROADCAST],
        S.SETTLED: [S.SETTLED],
        S.CONSUMED: [S.SETTLED, S.CONSUMED],
        S.REFUNDED: [S.SETTLED, S.REFUNDED],
        S.FAILED: [S.FAILED],
        S.REVERTED: [S.SETTLED, S.REVERTED],
    }
    assert set(steps) == set(path_to) == set(ClaimState)
    for number, (old, new) in enumerate(itertools.product(path_to, steps)):
        authorization = Authorization(ADDRESS, ADDRESS, 1, 0, 9, f"0x{number:064x}")
        claim: Claim = store.insert(
            BASE_SEPOLIA, authorization, b"", binding="b", subject=f"job-{number}", now=0.0
        )
        for state in path_to[old]:
            claim = steps[state](claim)
        assert claim.state is old
        if new in CLAIM_TRANSITIONS[old] or old is new is S.RESERVED:
            assert steps[new](claim).state is new
        else:
            with pytest.raises(InvalidTransition):
                steps[new](claim)
            assert store.get(claim.id) == claim
    store.close()


def refunded(store: ClaimStore, claim: Claim) -> Claim:
    with store.write() as db:
        store.refund_job(db, claim.subject)
    if store.get(claim.id) == claim:
        raise InvalidTransition("it was left as it is")
    return store.get(claim.id)


def test_a_reply_is_kept_and_the_first_one_stays(tmp_path: Path) -> None:
    store = ClaimStore(tmp_path / "claims.db")
    authorization = Authorization(ADDRESS, ADDRESS, 1, 0, 9, "0x" + "22" * 32)
    claim = store.insert(BASE_SEPOLIA, authorization, b"", binding="b", subject="j", now=0.0)
    store.set_reply(claim, b"first")
    assert store.set_reply(claim, b"second").reply == b"first"
    store.close()
    store = ClaimStore(tmp_path / "claims.db")
    found = store.find(BASE_SEPOLIA, authorization)
    assert found is not None
    assert found.reply == b"first"
    store.close()


def test_what_costs_nothing_to_make_does_not_fill_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed claims go a day after their window, or as the oldest of too many; all others stay."""
    store, day = ClaimStore(tmp_path / "claims.db"), 86_400
    tx = SignedTx(b"raw", "0x" + "11" * 32, 0)
    numbers = itertools.count()

    def new(valid_before: int) -> Claim:
        given = Authorization(ADDRESS, ADDRESS, 1, 0, valid_before, f"0x{next(numbers):064x}")
        return store.insert(
            BASE_SEPOLIA, given, b"", binding="b", subject=str(valid_before), now=0.0
        )

    def left() -> list[int]:
        return [claim.id for claim in store.in_state(*ClaimState)]

    closed, recent, endless = (store.fail(new(until), "poor") for until in (9, day, 2**256 - 1))
    sent = store.fail(store.broadcast(new(9), tx), "reverted")
    paid = store.settle(new(9), tx.hash, 1.0)
    reserved = new(9)
    store.prune(10.0 + day)
    assert left() == sorted(c.id for c in (recent, endless, sent, paid, reserved))
    assert closed.id not in left()
    monkeypatch.setattr(claims, "MAX_UNSENT", 1)
    store.prune(10.0 + day)
    assert left() == [endless.id, sent.id, paid.id, reserved.id]
    store.close()
