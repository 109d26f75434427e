"""Registrations by an attacker: what he wrote, took, changed or kept of somebody else's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from market_fixtures import (
    CHAIN_ID,
    START,
    FakeClock,
    MarketClient,
    Seller,
    running_market,
)

from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import SECP256K1_N, PrivateKey
from computeswarm.core.eip712 import statement_digest
from computeswarm.core.errors import (
    BadRequest,
    ComputeSwarmError,
    Conflict,
    Unauthorized,
    Unprocessable,
)
from computeswarm.core.nodes import RECORD_KIND, ComputeNode, Registration
from computeswarm.core.pages import NodeList
from computeswarm.core.sessions import (
    MAX_SESSION_SECONDS,
    SESSION_KIND,
    Enrolment,
    NodeSession,
    PendingSession,
    answer_session,
    enrol,
)
from computeswarm.core.signing import Signed, canonical_json
from computeswarm.market.identity import (
    MAX_CLOCK_SKEW,
    MAX_RECORD_AGE,
    Enrolled,
    check_enrolment,
    check_successor,
)

HERE = "https://market.test"
OWNER = Seller(MarketClient(None, HERE))  # type: ignore[arg-type]
THIEF = PrivateKey(b"\x07" * 32)


def check(enrolment: Enrolment, *, now: float = START, names: set[str] | None = None) -> Enrolled:
    return check_enrolment(
        enrolment, chain=BASE_SEPOLIA, names={HERE} if names is None else names, now=now
    )


def session(key: PrivateKey, record: Signed, *, chain_id: int = CHAIN_ID, **changes: Any) -> Signed:
    """A session for ``record`` with ``changes``, signed by ``key``."""
    _, pending = enrol(key, record, HERE, START)
    values = pending.session.model_dump() | changes
    return Signed.make(key, SESSION_KIND, chain_id, NodeSession.model_validate(values))


def test_what_its_wallet_signed_for_this_market_is_taken() -> None:
    enrolled = check(OWNER.enrolment())
    assert enrolled.record.node_id == enrolled.session.node_id == OWNER.node_id
    assert json.loads(enrolled.record_json)["document"]["wallet"] == OWNER.key.address


@pytest.mark.parametrize(
    "forge",
    [
        lambda record: (record, session(THIEF, record)),
        lambda record: (Signed.make(THIEF, RECORD_KIND, CHAIN_ID, OWNER.record()),) * 2,
        lambda record: (
            Signed.make(THIEF, RECORD_KIND, CHAIN_ID, OWNER.record(wallet=THIEF.address)),
            session(OWNER.key, record),
        ),
        lambda record: (record, session(OWNER.key, OWNER.signed())),
        lambda record: (record, session(OWNER.key, record, record_hash="0x" + "ab" * 32)),
        lambda record: (record, session(OWNER.key, record, seq=10**6)),
        lambda record: (record, session(OWNER.key, record, node_id="nd-" + "0" * 12)),
    ],
    ids=["session", "record", "both", "older", "hash", "seq", "node"],
)
def test_record_and_session_are_one_wallets_and_made_for_each_other(
    forge: Callable[[Signed], tuple[Signed, Signed]],
) -> None:
    record, made = forge(OWNER.signed())
    with pytest.raises((Unauthorized, BadRequest)):
        check(Enrolment(record=record, session=made))


def test_nothing_may_be_changed_on_the_way() -> None:
    """Above all not the key: whoever carries a registration would have its session."""
    good = OWNER.enrolment()
    _, other = enrol(THIEF, good.record, HERE, START)
    for part, member, value in (
        ("session", "session_key", other.session.session_key),
        ("session", "expires_at", START + 5),
        ("record", "endpoint", "http://127.0.0.1:6666/"),
        ("record", "price_per_hour", 1),
        ("record", "unheard_of", 1),
    ):
        document = good.model_dump(mode="json")
        document[part]["document"][member] = value
        with pytest.raises(Unauthorized):
            check(Enrolment.model_validate(document))


def malleable(signed: Signed) -> list[Signed]:
    """The same signature in other spellings: the other s, other recovery numbers, other length."""
    raw = bytes.fromhex(signed.signature[2:])
    r, s, v = raw[:32], int.from_bytes(raw[32:64]), raw[64]
    high = (SECP256K1_N - s).to_bytes(32)
    spellings = [r + high + bytes([55 - v]), r + high + bytes([v])]
    spellings += [raw[:64] + bytes([n]) for n in (v - 27, 55 - v, v + 2, 0)]
    return [signed.model_copy(update={"signature": "0x" + text.hex()}) for text in spellings]


def test_a_signature_has_one_spelling() -> None:
    good = OWNER.enrolment()
    for record in malleable(good.record):
        with pytest.raises(Unauthorized):
            check(Enrolment(record=record, session=good.session))
    for made in malleable(good.session):
        with pytest.raises(Unauthorized):
            check(Enrolment(record=good.record, session=made))


@pytest.mark.parametrize("other", ["record", "session"])
def test_a_signature_for_another_chain_counts_for_nothing(other: str) -> None:
    record = OWNER.signed()
    foreign = Signed.make(OWNER.key, RECORD_KIND, 8453, OWNER.record())
    made = session(OWNER.key, record, chain_id=8453)
    wrong = {
        "record": Enrolment(record=foreign, session=session(OWNER.key, foreign)),
        "session": Enrolment(record=record, session=made),
    }[other]
    with pytest.raises(Unprocessable, match="sign for that chain"):
        check(wrong)


@pytest.mark.parametrize("off", [MAX_CLOCK_SKEW, -MAX_CLOCK_SKEW])
def test_a_clock_may_be_ten_minutes_off_and_no_more(off: int) -> None:
    fresh = OWNER.enrolment()
    check(fresh, now=START - off)
    one = 1 if off > 0 else -1
    with pytest.raises(Unprocessable, match="clock"):
        check(fresh, now=START - off - one)
    # a record is older where only its session is new
    old = OWNER.signed(issued_at=START - MAX_RECORD_AGE)
    check(Enrolment(record=old, session=session(OWNER.key, old)))
    for wrong in (START - MAX_RECORD_AGE - 1, START + MAX_CLOCK_SKEW + 1):
        record = OWNER.signed(issued_at=wrong)
        with pytest.raises(Unprocessable, match="too old or from the future"):
            check(Enrolment(record=record, session=session(OWNER.key, record)))


def test_a_session_ends_within_a_day_and_in_the_future() -> None:
    record = OWNER.signed()
    made = session(OWNER.key, record, expires_at=START + 60)
    check(Enrolment(record=record, session=made), now=START + 59)
    with pytest.raises(Unprocessable, match="over already"):
        check(Enrolment(record=record, session=made), now=START + 60)
    _, pending = enrol(OWNER.key, record, HERE, START)
    for lasts in (0, -1, MAX_SESSION_SECONDS + 1):
        values = {**pending.session.model_dump(), "expires_at": START + lasts}
        document = NodeSession.model_construct(**values)
        endless = Signed.make(OWNER.key, SESSION_KIND, CHAIN_ID, document)
        with pytest.raises(BadRequest, match="ends after it begins"):
            check(Enrolment(record=record, session=endless))


def test_a_session_is_for_one_market_under_any_of_its_names() -> None:
    enrolment = OWNER.enrolment()
    check(enrolment, names={"https://m2.test", HERE})
    check(enrolment, names=set())
    with pytest.raises(Unprocessable, match=r"this one is https://m2\.test"):
        check(enrolment, names={"https://m2.test"})


def test_a_statement_of_another_kind_is_no_record_and_no_session() -> None:
    good = OWNER.enrolment()
    for wrong in (
        Enrolment(record=good.session, session=good.session),
        Enrolment(record=good.record, session=good.record),
        # the same document, but signed as something else
        Enrolment(record=good.record.model_copy(update={"kind": "quote"}), session=good.session),
    ):
        with pytest.raises(BadRequest, match="Expected a signed"):
            check(wrong)


def test_a_known_node_stays_its_wallets_and_goes_forward_only() -> None:
    enrolled = check(OWNER.enrolment(OWNER.signed(seq=7)))
    wallet = OWNER.key.address.lower()
    check_successor(enrolled, wallet=wallet, seq=6, revoked=False)
    check_successor(enrolled, wallet=wallet, seq=6, revoked=True)
    for known in (7, 8):
        with pytest.raises(Conflict) as caught:
            check_successor(enrolled, wallet=wallet, seq=known, revoked=False)
        assert caught.value.extra == {"seq": known}
        with pytest.raises(ComputeSwarmError) as revoked:
            check_successor(enrolled, wallet=wallet, seq=known, revoked=True)
        assert (revoked.value.code, revoked.value.extra) == ("node_revoked", {"seq": known})
    for revoked_before in (False, True):
        with pytest.raises(Conflict, match="Another wallet"):
            check_successor(enrolled, wallet=THIEF.address, seq=1, revoked=revoked_before)


LOOKALIKES = ["rig\u200b", "r\u0456g", "\uff52\uff49\uff47", "rig\u202e", " rig ", "rig\u0301"]


@pytest.mark.parametrize("name", LOOKALIKES)
async def test_a_name_that_only_looks_the_same_takes_nothing(
    client: MarketClient, seller: Seller, name: str
) -> None:
    thief = Seller(client, name=name)
    reply = await thief.register()
    assert reply.status == 201
    assert thief.node_id != seller.node_id
    assert set(await client.ids()) == {seller.node_id, thief.node_id}
    assert (await seller.beat()).status == 200
    # and what is listed is what the thief's own wallet signed
    assert ComputeNode.model_validate(reply.json["node"]).info.wallet == thief.key.address


@pytest.mark.parametrize(
    "spelling",
    [lambda a: "0X" + a[2:], lambda a: "0x" + chr(0xFF10) + a[3:], lambda a: a + "\u200b"],
)
async def test_a_wallet_has_its_own_digits_only(
    client: MarketClient, seller: Seller, spelling: Callable[[str], str]
) -> None:
    record = seller.record()
    strange = record.model_copy(update={"wallet": spelling(seller.key.address)})
    signed = Signed.make(seller.key, RECORD_KIND, CHAIN_ID, strange)
    plain = Signed.make(seller.key, RECORD_KIND, CHAIN_ID, record)
    made = session(seller.key, plain, record_hash="0x" + signed.digest().hex())
    reply = await seller.register(Enrolment(record=signed, session=made))
    assert reply.status in (400, 401)
    assert (await seller.beat()).status == 200


async def test_what_is_listed_is_what_was_checked(client: MarketClient) -> None:
    """A member that is there twice, of which one reader takes the first and another the last."""
    seller = Seller(client)
    enrolment = seller.enrolment()
    twice = enrolment.model_dump_json().replace(
        '"price_per_hour":360000', '"price_per_hour":1,"price_per_hour":360000'
    )
    assert (await client.call("POST", "/api/v1/nodes/register", data=twice)).status == 201
    page = (await client.get("/api/v1/nodes")).body
    assert page.count(b'"price_per_hour"') == 1
    (node,) = json.loads(page)["nodes"]
    assert ComputeNode.model_validate(node).info.price_per_hour == 360_000
    other = twice.replace('"price_per_hour":1,"price_per_hour":360000', '"price_per_hour":1')
    assert (await client.call("POST", "/api/v1/nodes/register", data=other)).status == 401


@pytest.mark.parametrize("deep", [190, 197])
async def test_no_record_makes_a_page_unreadable(
    client: MarketClient, seller: Seller, deep: int
) -> None:
    """A reader of JSON gives up at some depth, and a record lies deeper in a page than in what
    registered it."""
    nested: Any = 1
    for _ in range(deep):
        nested = [nested]
    document = seller.signed().document | {"more": nested}
    digest = statement_digest(CHAIN_ID, RECORD_KIND, canonical_json(document))
    record = Signed(
        kind=RECORD_KIND,
        chain_id=CHAIN_ID,
        document=document,
        signature="0x" + seller.key.sign_digest(digest).hex(),
    )
    assert (await seller.register(seller.enrolment(record))).status == 422
    page = NodeList.model_validate_json((await client.get("/api/v1/nodes")).body)
    assert [node.record for node in page.nodes] != [record]


async def test_a_registration_sent_again_changes_nothing(
    client: MarketClient, seller: Seller
) -> None:
    enrolment = seller.enrolment()
    assert (await seller.register(enrolment)).status == 201
    key = seller.session_key
    reply = await client.call("POST", "/api/v1/nodes/register", data=enrolment.model_dump_json())
    assert (reply.status, reply.json["code"]) == (409, "conflict")
    assert (await seller.beat(session_key=key)).status == 200


async def test_a_registration_taken_to_another_market_gives_no_power_there(
    tmp_path: Path, clock: FakeClock, client: MarketClient, seller: Seller
) -> None:
    enrolment = seller.enrolment()
    assert (await seller.register(enrolment)).status == 201
    body = enrolment.model_dump_json()
    async with running_market(tmp_path / "named.db", clock, names={HERE}) as named:
        reply = await named.call("POST", "/api/v1/nodes/register", data=body)
        assert reply.status == 422 and HERE in reply.json["detail"]
        assert await named.ids() == []
    async with running_market(tmp_path / "other.db", clock) as other:
        reply = await other.call("POST", "/api/v1/nodes/register", data=body)
        assert reply.status == 201
        taken = Registration.model_validate_json(reply.body)
        # all that the carrier has: both public keys, his own secrets, and every key he saw
        guesses = [bytes(32), bytes.fromhex(taken.market_key)[1:], seller.session_key]
        guesses += [answer_session(own(enrolment))[1], guess_with_own_secret(enrolment, taken)]
        carrier = Seller(other, key=seller.key)
        for guess in guesses:
            assert (await carrier.beat(session_key=guess)).status == 401
        assert (await carrier.leave()).status == 401
        clock.time += 90
        assert await other.ids() == []  # it is gone with its first lease
    assert (await seller.beat()).status == 200


def own(enrolment: Enrolment) -> NodeSession:
    return NodeSession.model_validate(enrolment.session.document)


def guess_with_own_secret(enrolment: Enrolment, taken: Registration) -> bytes:
    _, mine = enrol(THIEF, enrolment.record, HERE, START)
    return PendingSession(own(enrolment), mine._secret).mac_key(taken.market_key)


async def test_whoever_sits_between_gets_no_session_by_his_own_keys(
    client: MarketClient,
) -> None:
    seller = Seller(client)
    enrolment = seller.enrolment()
    pending = seller.pending[enrolment.record.document["seq"]]
    body = enrolment.model_dump_json()
    assert (await client.call("POST", "/api/v1/nodes/register", data=body)).status == 201
    # he answers the seller with a key of his own, and so knows what the seller makes of it
    his_key, known_to_him = answer_session(pending.session)
    assert pending.mac_key(his_key) == known_to_him
    assert (await seller.beat(session_key=known_to_him)).status == 401
