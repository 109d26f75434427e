"""The buyer's side: nothing is signed that a rule forbids, and nothing signed is ever forgotten."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
from payments_purse import KEY, NOW, POLICY, SELLER, Clock, challenge, purpose

from computeswarm.core.chains import BASE, BASE_SEPOLIA
from computeswarm.core.crypto import recover_address
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.errors import BadRequest, PolicyRefused, StorageFull
from computeswarm.core.x402 import HEADER_REQUIRED_V2, encode_header
from computeswarm.payments.challenge import parse_402
from computeswarm.payments.journal import Fate, PaymentJournal
from computeswarm.payments.payer import Payer
from computeswarm.payments.terms import Terms


@pytest.fixture
def journal(tmp_path: Path) -> Any:
    journal = PaymentJournal(tmp_path / "payments.db")
    yield journal
    journal.close()


@pytest.fixture
def payer(journal: PaymentJournal) -> Payer:
    return Payer(KEY, BASE_SEPOLIA, journal, POLICY, Clock())


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_signed_is_what_was_asked_and_it_is_stored_first(
    journal: PaymentJournal, payer: Payer, version: int, tmp_path: Path
) -> None:
    payment = payer.authorize(purpose(), challenge(version=version))
    with sqlite3.connect(tmp_path / "payments.db") as other:
        assert other.execute("SELECT nonce FROM payments").fetchall() == [(payment.nonce,)]
    other.close()
    exact = payment.payload["payload"]
    given = exact["authorization"]
    digest = transfer_authorization_digest(
        BASE_SEPOLIA,
        from_=given["from"],
        to=SELLER,
        value=700,
        valid_after=int(given["validAfter"]),
        valid_before=int(given["validBefore"]),
        nonce=given["nonce"],
    )
    assert recover_address(digest, bytes.fromhex(exact["signature"][2:])) == KEY.address
    assert int(given["validBefore"]) - NOW == 60
    assert list(payment.headers()) == ["PAYMENT-SIGNATURE" if version == 2 else "X-PAYMENT"]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("scheme", {"scheme": "upto"}),
        ("network", {"network": "eip155:8453"}),
        ("network", {"network": "base"}),
        ("asset", {"asset": BASE.usdc.address}),
        ("domain", {"extra": {"name": "USD Coin", "version": "2"}}),
        ("domain", {"extra": {"name": "USDC", "version": "1"}}),
        ("transfer_method", {"extra": {"assetTransferMethod": "permit2"}}),
        ("payment_flow", {"extra": {"paymentFlow": "escrow"}}),
        ("payee", {"payTo": KEY.address}),
        ("window", {"maxTimeoutSeconds": 1}),
        ("amount", {"amount": 1001}),
    ],
)
def test_each_rule_refuses_by_name_and_signs_nothing(
    journal: PaymentJournal, payer: Payer, version: int, rule: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(PolicyRefused) as caught:
        payer.authorize(purpose(), challenge(version=version, **changes))
    assert caught.value.extra["rule"] == rule
    assert journal.pending() == []


def test_the_caps_hold_over_payments_jobs_and_days(payer: Payer, journal: PaymentJournal) -> None:
    def rule(amount: int, **changes: Any) -> str:
        with pytest.raises(PolicyRefused) as caught:
            payer.authorize(purpose(expected_amount=9_999, **changes), challenge(amount))
        return str(caught.value.extra["rule"])

    assert rule(1_001) == "max_payment"
    for index in range(2):
        payer.authorize(purpose(slice=index), challenge(1_000))
    assert rule(501, slice=2) == "max_job"
    assert rule(701, job_id="job-b", job_budget=700) == "max_job"
    payer.authorize(purpose(job_id="job-b"), challenge(1_000))
    assert rule(1_000, slice=2, job_budget=2_999) == "max_job"
    payer.authorize(purpose(slice=2, job_budget=3_000), challenge(1_000))
    assert rule(1, job_id="job-c") == "max_day"
    assert payer.spent_today() == 4_000
    later = NOW + 86_401 + 1_200  # however far the clock was set forward meanwhile
    assert journal.spent_day(later - 2, 84532) == 4_000
    assert journal.spent_day(later, 84532) == 0
    assert journal.spent_day(NOW, 8453) == 0


def test_one_purpose_gives_one_payment_until_the_chain_shows_it_unused(
    payer: Payer, journal: PaymentJournal
) -> None:
    first = payer.authorize(purpose(), challenge())
    assert payer.authorize(purpose(), challenge(version=1)) == first
    payer.settled(purpose(), None)
    again = payer.authorize(purpose(), challenge(300))
    assert (again.nonce, again.state) == (first.nonce, Fate.SETTLED)
    payer.refused(purpose(), "too late for that")
    assert payer.authorize(purpose(), challenge()).nonce == first.nonce

    second = payer.authorize(purpose(slice=1), challenge())
    payer.refused(purpose(slice=1), "insufficient_funds")
    third = payer.authorize(purpose(slice=1), challenge(100))
    # a refused one is still in the seller's hand: nothing else is signed, and it counts
    assert (third.nonce, third.state) == (second.nonce, Fate.REFUSED)
    assert payer.spent_today() == 1_400
    payer.settled(purpose(slice=1), None)
    assert [p.state for p in journal.of_job("job-a")] == [Fate.SETTLED] * 2


def test_a_crash_keeps_the_payment_and_a_full_disk_hands_none_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "payments.db"
    journal = PaymentJournal(path)
    first = Payer(KEY, BASE_SEPOLIA, journal, POLICY, Clock()).authorize(purpose(), challenge())
    # no close: the process is gone, and what it handed out has to be there all the same
    journal = PaymentJournal(path)
    payer = Payer(KEY, BASE_SEPOLIA, journal, POLICY, Clock())
    assert payer.authorize(purpose(), challenge()) == first
    assert path.stat().st_mode & 0o777 == 0o600

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(journal, "add", full)
    with pytest.raises(StorageFull):
        payer.authorize(purpose(slice=1), challenge())
    monkeypatch.undo()
    assert [payment.nonce for payment in journal.pending()] == [first.nonce]
    journal.close()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({}, b"[]"),
        ({}, b"[" * 100_000),
        ({}, b'{"x402Version": 1, "accepts": 3}'),
        ({}, b"x" * 300_000),
        ({HEADER_REQUIRED_V2: "%%"}, b""),
        ({HEADER_REQUIRED_V2: "A" * 20_000}, b""),
    ],
    ids=["nothing", "list", "deep", "no-list", "huge", "no-base64", "long"],
)
def test_what_is_no_challenge_is_a_bad_request(headers: dict[str, str], body: bytes) -> None:
    lifted = sys.getrecursionlimit()
    sys.setrecursionlimit(1_000)  # other suites' libraries lift it; this project never does
    try:
        with pytest.raises(BadRequest):
            parse_402(headers, body)
    finally:
        sys.setrecursionlimit(lifted)


def test_other_chains_entries_do_not_hide_ours() -> None:
    solana = {"scheme": "exact", "network": "solana:x", "asset": "So1", "amount": "1"}
    ours = Terms(BASE_SEPOLIA, SELLER, 7, "http://s.test/").requirements_v2().wire()
    document = {"x402Version": 2, "accepts": [solana, "nonsense", ours]}
    found = parse_402({HEADER_REQUIRED_V2: encode_header(document)}, b"")
    assert [option.wire for option in found.options] == [ours]
