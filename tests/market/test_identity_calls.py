"""Calls, revocations and permits by an attacker who recorded everything that was sent."""

from __future__ import annotations

import base64
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
    submission,
)

from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import BadRequest, NodeRevoked, Unauthorized, Unprocessable
from computeswarm.core.market_auth import COUNTER_HEADER, NODE_HEADER, mac
from computeswarm.core.sessions import (
    MAX_PERMIT_SECONDS,
    PERMIT_KIND,
    REVOCATION_KIND,
    NodeRevocation,
    WalletRead,
    make_permit,
)
from computeswarm.core.signing import Signed
from computeswarm.market.identity import (
    MAX_CLOCK_SKEW,
    Call,
    check_call,
    check_permit,
    check_revocation,
)

BUYER = PrivateKey(b"\x05" * 32)
THIEF = PrivateKey(b"\x07" * 32)
KEY = b"\xab" * 32
NODE = "nd-" + "1" * 12
PATH, BODY = f"/api/v1/nodes/{NODE}/heartbeat", b'{"status":"idle"}'
HERE = "https://market.test"


def call(number: int = 5, **changes: Any) -> Call:
    right = mac(KEY, method="POST", path=PATH, counter=number, body=BODY)
    return Call(NODE, str(number), right, "POST", PATH, BODY)._replace(**changes)


def check(made: Call, **changes: Any) -> int:
    known: dict[str, Any] = {"node_id": NODE, "key": KEY, "counter": 4, "until": 100.0, "now": 99.0}
    return check_call(made, **(known | changes))


def reason(made: Call, **changes: Any) -> object:
    with pytest.raises(Unauthorized) as caught:
        check(made, **changes)
    return caught.value.extra["reason"]


def test_each_call_counts_once_and_as_it_was_made() -> None:
    assert check(call()) == 5
    assert check(call(), counter=0) == 5
    for change in (
        {"method": "DELETE"},
        {"path": f"/api/v1/nodes/{NODE}"},
        {"body": b'{"status":"busy"}'},
        {"body": b""},
        {"counter": "6"},
        {"node": "nd-" + "2" * 12},
        {"mac": ""},
        {"mac": call().mac.upper()},
        {"mac": "\uff10" * 64},
    ):
        assert reason(call(**change)) == "mac", change
    assert reason(call(), key=b"\xac" * 32) == "mac"
    assert reason(call(), node_id="nd-" + "2" * 12) == "mac"


def test_why_a_call_is_refused_tells_whether_another_session_may_be_known_elsewhere() -> None:
    for used in (5, 6, 2**53):
        assert reason(call(), counter=used) == "counter"
    assert reason(call(), now=100.0) == "over"
    # a call of another session is never mistaken for a repetition
    assert reason(call(), key=b"\xac" * 32, counter=9, now=200.0) == "mac"
    with pytest.raises(NodeRevoked):
        check(call(), key=b"")


WRITTEN_ODDLY = ["+5", " 5", "5 ", "5.0", "5_0", "0x5", "٥", "²", "⑤", "0" * 5_000 + "5"]


@pytest.mark.parametrize("counter", ["", "x", "-5", "9" * 5_000, *WRITTEN_ODDLY])
def test_a_counter_is_written_in_plain_digits(counter: str) -> None:
    for number in (0, 2, 5, 50):  # whatever it might be taken for
        assert reason(call(number, counter=counter), counter=-1) == "mac"


@pytest.mark.parametrize("number", [0, -5, 2**53, 2**64 + 5])
def test_a_counter_is_above_0_and_below_2_to_the_53(number: int) -> None:
    assert reason(call(number), counter=-10) == "mac"


def test_the_last_counter_is_taken() -> None:
    assert check(call(2**53 - 1)) == 2**53 - 1


async def test_nothing_recorded_can_be_sent_again(client: MarketClient, seller: Seller) -> None:
    signed = submission(seller.node_id, BUYER)
    await client.call("POST", "/api/v1/jobs/submit", data=signed.model_dump_json())
    job = f"/api/v1/jobs/{signed.document['job_id']}"
    node = f"/api/v1/nodes/{seller.node_id}"
    recorded = []
    for method, path, body, status in (
        ("POST", f"{node}/heartbeat", b'{"status":"busy","running":1}', 200),
        ("PATCH", job, b'{"state":"running"}', 200),
        ("PATCH", job, b'{"state":"succeeded","metered_ms":5}', 200),
        ("DELETE", node, b"", 204),
    ):
        made = seller.auth(method, path, body)
        recorded.append((method, path, body, made))
        assert (await client.call(method, path, data=body, headers=made)).status == status
    for method, path, body, made in recorded:
        again = await client.call(method, path, data=body, headers=made)
        assert again.status in (401, 404), path
    assert (await seller.register()).status == 201
    for method, path, body, made in recorded:
        again = await client.call(method, path, data=body, headers=made)
        assert (again.status, again.json["reason"]) == (401, "mac")
    assert await client.ids("idle") == [seller.node_id]
    assert (await client.get(job)).json["state"] == "succeeded"


async def test_a_repetition_is_refused_while_the_session_lives(
    client: MarketClient, seller: Seller
) -> None:
    path, body = f"/api/v1/nodes/{seller.node_id}/heartbeat", b'{"status":"busy"}'
    made = seller.auth("POST", path, body)
    assert (await client.call("POST", path, data=body, headers=made)).status == 200
    again = await client.call("POST", path, data=body, headers=made)
    assert (again.status, again.json["reason"]) == (401, "counter")
    for name, value in ((NODE_HEADER, "nd-" + "0" * 12), (COUNTER_HEADER, "99")):
        changed = await client.call("POST", path, data=body, headers=made | {name: value})
        assert (changed.status, changed.json["reason"]) == (401, "mac")
    # a heartbeat's MAC takes no node off the list
    leave = await client.call("DELETE", path.rpartition("/")[0], data=body, headers=made)
    assert (leave.status, leave.json["reason"]) == (401, "mac")


async def test_a_new_session_ends_the_one_before_at_once(seller: Seller) -> None:
    old = seller.session_key
    assert (await seller.register()).status == 201
    reply = await seller.beat(session_key=old, counter=10**6)
    assert (reply.status, reply.json["reason"]) == (401, "mac")
    assert (await seller.beat()).status == 200
    assert old != seller.session_key


async def test_a_session_ends_with_its_day(seller: Seller, clock: FakeClock) -> None:
    clock.time = START + 86_399
    assert (await seller.beat()).status == 200
    clock.time = START + 86_400
    for reply in (await seller.beat(), await seller.leave()):
        assert (reply.status, reply.json["reason"]) == (401, "over")
        assert "register again" in reply.json["detail"]
    seller.issued_at = START + 86_400
    assert (await seller.register()).status == 201
    assert (await seller.beat()).status == 200


# revocation


async def test_a_revoked_node_stays_off_until_its_wallet_signs_a_higher_number(
    client: MarketClient, seller: Seller
) -> None:
    kept = [seller.enrolment() for _ in range(3)]
    assert (await seller.revoke()).status == 204
    assert await client.ids() == await client.ids("offline") == []
    assert (await client.get(f"/api/v1/nodes/{seller.node_id}")).status == 404
    for reply in (
        await seller.beat(),
        await seller.leave(),
        *[await seller.register(e) for e in kept],
    ):
        assert (reply.status, reply.json["code"]) == (410, "node_revoked"), reply.json
        assert "Starting the seller anew" in reply.json["detail"]
    assert (await seller.register()).status == 201
    assert await client.ids() == [seller.node_id]
    assert (await seller.beat()).status == 200


async def test_a_revocation_sent_again_does_not_undo_the_return(
    client: MarketClient, seller: Seller
) -> None:
    number = next(seller.seq)
    assert (await seller.revoke(seq=number)).status == 204
    assert (await seller.revoke(seq=number)).status == 204  # while it lasts it is no news
    assert (await seller.register()).status == 201
    again = await seller.revoke(seq=number)
    assert again.status == 409 and again.json["seq"] > number
    assert await client.ids() == [seller.node_id]
    assert (await seller.beat()).status == 200


async def test_only_its_own_wallet_revokes_a_node(client: MarketClient, seller: Seller) -> None:
    other, second = Seller(client, name="other"), Seller(client, name="second", key=seller.key)
    assert (await other.register()).status == (await second.register()).status == 201
    path = f"/api/v1/nodes/{seller.node_id}/revoke"
    word = NodeRevocation(
        wallet=seller.key.address, node_id=seller.node_id, seq=10**9, issued_at=START
    )
    by_thief = Signed.make(THIEF, REVOCATION_KIND, CHAIN_ID, word)
    elsewhere = Signed.make(seller.key, REVOCATION_KIND, 8453, word)
    of_other = Signed.make(
        other.key,
        REVOCATION_KIND,
        CHAIN_ID,
        word.model_copy(update={"wallet": other.key.address, "node_id": other.node_id}),
    )
    of_second = Signed.make(
        seller.key, REVOCATION_KIND, CHAIN_ID, word.model_copy(update={"node_id": second.node_id})
    )
    for signed, status in (
        (of_second, 401),
        (by_thief, 401),
        (elsewhere, 422),
        (of_other, 401),
        (seller.signed(), 400),
    ):
        reply = await client.call("POST", path, data=signed.model_dump_json())
        assert reply.status == status, reply.json
    assert (await seller.revoke(key=THIEF, seq=10**9)).status == 401
    assert (await seller.revoke(seq=10**9, issued_at=START + MAX_CLOCK_SKEW + 1)).status == 422
    assert (await Seller(client, name="never").revoke()).status == 404
    assert set(await client.ids()) == {seller.node_id, other.node_id, second.node_id}
    assert (await seller.beat()).status == 200


def test_a_revocation_does_not_age() -> None:
    owner = Seller(MarketClient(None, ""))  # type: ignore[arg-type]
    word = NodeRevocation(wallet=owner.key.address, node_id=owner.node_id, seq=1, issued_at=START)
    signed = Signed.make(owner.key, REVOCATION_KIND, CHAIN_ID, word)
    for now in (START - MAX_CLOCK_SKEW, START + 10**9):
        assert check_revocation(signed, owner.node_id, chain=BASE_SEPOLIA, now=now) == word


async def test_a_node_that_left_can_still_be_revoked_and_a_restart_forgets_it_not(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "market.db"
    async with running_market(path, clock) as client:
        seller = Seller(client)
        kept = [seller.enrolment() for _ in range(2)]
        assert (await seller.register(kept[0])).status == 201
        assert (await seller.leave()).status == 204
        assert (await seller.revoke()).status == 204
    async with running_market(path, clock) as client:
        seller.client = client
        for reply in (await seller.register(kept[1]), await seller.beat()):
            assert (reply.status, reply.json["code"]) == (410, "node_revoked")
        assert await client.ids("offline") == []
        assert (await seller.register()).status == 201


# permits


def permit(text: str, wallet: str = BUYER.address, now: float = START) -> WalletRead:
    return check_permit(text, wallet, chain=BASE_SEPOLIA, names={HERE}, now=now)


def test_a_permit_opens_one_wallet_at_one_market_for_a_day() -> None:
    good = make_permit(BUYER, CHAIN_ID, HERE, START)
    for now in (START - MAX_CLOCK_SKEW, START, START + MAX_PERMIT_SECONDS - 1):
        assert permit(good, BUYER.address.lower(), now).wallet == BUYER.address
    for text, wallet in (
        ("", BUYER.address),
        (good, THIEF.address),
        (make_permit(THIEF, CHAIN_ID, HERE, START), BUYER.address),
        (make_permit(BUYER, CHAIN_ID, HERE, START - MAX_PERMIT_SECONDS), BUYER.address),
    ):
        with pytest.raises(Unauthorized):
            permit(text, wallet)
    for wrong in (
        make_permit(BUYER, CHAIN_ID, "https://other.test", START),
        make_permit(BUYER, 8453, HERE, START),
        make_permit(BUYER, CHAIN_ID, HERE, START + MAX_CLOCK_SKEW + 1),
    ):
        with pytest.raises(Unprocessable):
            permit(wrong)


def test_a_permit_can_not_be_made_of_anything_else() -> None:
    stolen = WalletRead(wallet=BUYER.address, market=HERE, issued_at=START, expires_at=START + 60)
    by_thief = Signed.make(THIEF, PERMIT_KIND, CHAIN_ID, stolen)
    in_his_name = Signed.make(BUYER, "job-submission", CHAIN_ID, stolen)
    # signed by the wallet that asks, but speaking of another
    of_another = Signed.make(THIEF, PERMIT_KIND, CHAIN_ID, stolen)
    endless = Signed.make(
        BUYER,
        PERMIT_KIND,
        CHAIN_ID,
        WalletRead.model_construct(**{**stolen.model_dump(), "expires_at": START + 10**8}),
    )
    for signed, wallet, error in (
        (by_thief, BUYER.address, Unauthorized),
        (in_his_name, BUYER.address, BadRequest),
        (of_another, THIEF.address, Unauthorized),
        (endless, BUYER.address, BadRequest),
    ):
        text = base64.b64encode(signed.model_dump_json().encode()).decode()
        with pytest.raises(error):
            permit(text, wallet)
