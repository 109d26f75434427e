"""What sellers make and sign beside a 402, and that nobody can change a byte of it."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from computeswarm.core.chains import BASE, BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey, personal_digest
from computeswarm.core.errors import BadRequest, Conflict, PaymentRequired
from computeswarm.core.x402 import PaymentProof
from computeswarm.payments.extensions.offer_receipt import (
    offer_of,
    receipt_of,
    signed_offers,
    signed_receipt,
)
from computeswarm.payments.extensions.payment_identifier import Holder, Mark, Marks
from computeswarm.payments.terms import OFFER_RECEIPT, Terms
from computeswarm.payments.transfer_proof import Challenges, body_without_proof, proof_text

SELLER, BUYER = PrivateKey(b"\x41" * 32), PrivateKey(b"\x42" * 32)
URL, TX = "https://seller.example/execute", "0x" + "cd" * 32
TERMS = Terms(BASE_SEPOLIA, SELLER.address, 4_200, URL, challenge_job_id="job-1")


def proof(challenge_id: str, key: PrivateKey = BUYER, **changes: str) -> PaymentProof:
    at = "2026-11-25T19:00:00+00:00"
    digest = personal_digest(proof_text(challenge_id, TX, at))
    members = {
        "challenge_id": challenge_id,
        "transaction_hash": TX,
        "timestamp": at,
        "signature": "0x" + key.sign_digest(digest).hex(),
    }
    return PaymentProof.model_validate(members | changes)


def test_only_the_seller_makes_challenges_and_each_for_one_request() -> None:
    challenges = Challenges(b"s" * 32, SystemClock())
    made = challenges.issue(TERMS, "body").challenge_id
    read = Challenges(b"s" * 32, SystemClock()).read(proof(made), TERMS, "body")  # restarted
    assert (read.payer, read.amount, read.transaction_hash) == (BUYER.address, 4_200, TX)
    assert read.expires_at - read.issued_at == 300
    # the price is the challenge's own; what it was for is not to be changed
    assert challenges.read(proof(made), replace(TERMS, amount=1), "body").amount == 4_200
    others = [
        (Challenges(b"t" * 32, SystemClock()), TERMS, "body"),
        (challenges, TERMS, "another body"),
        (challenges, replace(TERMS, challenge_job_id="job-2"), "body"),
        (challenges, replace(TERMS, pay_to=BUYER.address), "body"),
        (challenges, replace(TERMS, chain=BASE), "body"),
    ]
    for challenger, terms, body in others:
        with pytest.raises(PaymentRequired):
            challenger.read(proof(made), terms, body)
    for place in range(4, len(made), 2):  # each byte of it
        byte = int(made[place : place + 2], 16) ^ 1
        with pytest.raises(PaymentRequired):
            changed = f"{made[:place]}{byte:02x}{made[place + 2 :]}"
            challenges.read(proof(changed), TERMS, "body")
    for odd in ("chg_", "chg_zz", made[4:], made + "00", "x"):
        with pytest.raises(PaymentRequired):
            challenges.read(proof(odd), TERMS, "body")


def test_a_proof_is_bound_to_what_the_body_says() -> None:
    bound = body_without_proof(b'{"a": [1, 2.5], "spec": {"x": "\\u00e9"}}')
    same = b'{"payment_proof": {"a": 1}, "spec":{"x":"\xc3\xa9"},"a":[1,2.5]}'
    assert body_without_proof(same) == bound
    assert body_without_proof(b'{"a": [1, 2.5], "spec": {"x": "e"}}') != bound
    for odd in (b"[]", b"", b"{", b"[" * 100_000, b"\xff"):
        with pytest.raises(BadRequest):
            body_without_proof(odd)


def test_no_member_of_a_signed_offer_or_receipt_can_be_changed() -> None:
    way = TERMS.requirements_v2()
    offers = {OFFER_RECEIPT: signed_offers(SELLER, URL, [way], issued_at=1_000)}
    wire = way.wire()
    assert offer_of(offers, URL, wire, now=1_000) is not None
    assert offer_of(offers, URL, wire, now=1_061) is None  # over
    assert offer_of(offers, URL + "2", wire, now=1_000) is None
    assert offer_of(offers, URL, wire | {"amount": "4199"}, now=1_000) is None
    (offer,) = offers[OFFER_RECEIPT]["info"]["offers"]
    for name, value in offer["payload"].items():
        changed = copy.deepcopy(offers)
        payload = changed[OFFER_RECEIPT]["info"]["offers"][0]["payload"]
        payload[name] = value + 1 if isinstance(value, int) else value + "0"
        assert offer_of(changed, URL, wire | payload, now=1_000) is None, name

    about: dict[str, Any] = {"network": way.network, "resource_url": URL, "payer": BUYER.address}
    made = signed_receipt(SELLER, **about, transaction=TX, issued_at=5)
    assert receipt_of({OFFER_RECEIPT: made}, **about, pay_to=SELLER.address) is not None
    assert receipt_of({OFFER_RECEIPT: made}, **about, pay_to=BUYER.address) is None
    for name, value in made["info"]["receipt"]["payload"].items():
        changed = copy.deepcopy({OFFER_RECEIPT: made})
        changed[OFFER_RECEIPT]["info"]["receipt"]["payload"][name] = (
            value + 1 if isinstance(value, int) else value + "0"
        )
        assert receipt_of(changed, **about, pay_to=SELLER.address) is None, name
    for odd in (None, {}, {OFFER_RECEIPT: 1}, {OFFER_RECEIPT: {"info": {"offers": [1, None]}}}):
        assert offer_of(odd, URL, wire, now=0) is None  # type: ignore[arg-type]
        assert receipt_of(odd, **about, pay_to=SELLER.address) is None  # type: ignore[arg-type]


def test_marks_are_kept_for_thirty_days_and_no_longer(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks.db")

    def never(_: Holder) -> bool:
        return False

    old, mark = 1_000.0, Mark("an-id-of-16-chars", "echo")
    marks.keep(BUYER.address, "old", mark, "job-0", now=old, failed=never)
    with pytest.raises(Conflict):
        marks.check(BUYER.address, "new", mark, failed=never)
    marks.check(BUYER.address, "new", mark, failed=lambda held: held == Holder("old", "job-0"))
    marks.check(SELLER.address, "new", mark, failed=never)  # another payer's ids are his own
    with pytest.raises(Conflict):
        marks.check(BUYER.address, "old", Mark(mark.id, "another echo"), failed=never)
    for n in range(256):
        each = Mark(f"{n:020}", "")
        marks.keep(BUYER.address, f"p{n}", each, "job-1", now=old + 31 * 86_400, failed=never)
    marks.check(BUYER.address, "new", mark, failed=never)
    marks.close()
