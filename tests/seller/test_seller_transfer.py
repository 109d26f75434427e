"""The original protocol by hand: a transfer that the buyer broadcasts himself, and its proof.

Everything of the buyer's is eth_account's and web3's, as a stranger would write it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

import pytest
from seller_rig import Reply, Rig, script

from computeswarm.chain.artifacts import load_artifact
from computeswarm.chain.devnet import Devnet
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.imports import import_late
from computeswarm.core.x402 import Reason, decode_header

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
SPEC = {"command": script("print('hi')"), "max_seconds": 60, "memory_bytes": 2**27}
BODY: dict[str, Any] = {"spec": SPEC | {"disk_bytes": 2**24}, "access_key": "a" * 64}


class Hand:
    """A wallet, moved by hand."""

    def __init__(self, devnet: Devnet, key: PrivateKey) -> None:
        web3 = import_late("web3")
        self.account = import_late("eth_account").Account.from_key(key.secret)
        self.w3 = web3.Web3(web3.Web3.HTTPProvider(devnet.url))
        self.token = self._contract(devnet.usdc)

    def _contract(self, address: str) -> Any:
        return self.w3.eth.contract(address=address, abi=load_artifact("TestUSDC")["abi"])

    def call(self, function: Any, **options: Any) -> str:
        """The hash of a mined transaction."""
        count = self.w3.eth.get_transaction_count(self.account.address)
        fields = {"from": self.account.address, "nonce": count, "gas": 200_000, **options}
        signed = self.account.sign_transaction(function.build_transaction(fields))
        sent = self.w3.eth.send_raw_transaction(signed.raw_transaction)
        self.w3.eth.wait_for_transaction_receipt(sent, timeout=30, poll_latency=0.05)
        return str(sent.to_0x_hex())

    def pay(self, challenge: Any, **changes: Any) -> str:
        """What the challenge asks for, as a plain transfer."""
        to, amount = challenge["seller_address"], int(challenge["amount_usdc"])
        return self.call(
            self.token.functions.transfer(changes.get("to", to), changes.get("amount", amount))
        )

    def proof(self, challenge: Any, tx: str, **changes: Any) -> dict[str, str]:
        """The proof: the text ``challenge_id|transaction_hash|timestamp``, signed (EIP-191)."""
        made = {
            "challenge_id": challenge["challenge_id"],
            "transaction_hash": tx,
            "timestamp": datetime.now(UTC).isoformat(),
        } | changes
        text = f"{made['challenge_id']}|{made['transaction_hash']}|{made['timestamp']}"
        message = import_late("eth_account.messages").encode_defunct(text=text)
        return made | {"signature": self.account.sign_message(message).signature.to_0x_hex()}


async def ask(r: Rig, body: dict[str, Any]) -> Any:
    reply = await r.call("POST", "/execute", json=body)
    assert reply.status == 402, reply.body
    return reply.json["challenge"]


async def present(r: Rig, body: dict[str, Any], proof: dict[str, str]) -> Reply:
    # other spelling, same content: the challenge is bound to what the body says
    text = json.dumps({"payment_proof": proof, **body}, indent=2)
    return await r.call("POST", "/execute", data=text, headers={"Content-Type": "application/json"})


def refusal(reply: Reply) -> str:
    assert reply.status == 402, reply.body
    return str(decode_header(reply.headers["PAYMENT-RESPONSE"])["errorReason"])


async def test_a_transfer_by_hand_buys_one_job_also_after_a_restart(
    devnet: Devnet, rig: OpenRig
) -> None:
    hand = await asyncio.to_thread(Hand, devnet, devnet.keys[0])
    async with rig() as r:
        challenge = await ask(r, BODY)
        again = await ask(r, BODY)
        tx = await asyncio.to_thread(hand.pay, challenge)
        # nobody who saw the hash gets in the way of the one who paid
        thief = await asyncio.to_thread(Hand, devnet, devnet.keys[2])
        stolen = thief.proof(challenge, tx)
        assert refusal(await present(r, BODY, stolen)) == Reason.SETTLEMENT_FAILED
    proof = hand.proof(challenge, tx)
    async with rig() as r:  # another process, as far as the challenge is concerned
        first = await present(r, BODY, proof)
        assert first.status == 202, first.body
        job = first.json["job"]
        assert job["buyer"] == hand.account.address
        assert job["payments"][0]["transaction"] == tx
        receipt = decode_header(first.headers["PAYMENT-RESPONSE"])
        assert (receipt["success"], receipt["transaction"]) == (True, tx)
        many = await asyncio.gather(*(present(r, BODY, proof) for _ in range(5)))
        assert {reply.body for reply in many} == {first.body}  # the same job, the same reply
        other = BODY | {"access_key": "b" * 64}
        replayed = hand.proof(await ask(r, other), tx)
        assert (await present(r, other, replayed)).status == 409  # spent on another job
        assert (await present(r, other, proof)).status == 402  # a challenge for another body
        assert (await present(r, BODY, hand.proof(again, tx))).body == first.body
    async with rig() as r:
        assert (await present(r, BODY, proof)).body == first.body
        assert (await present(r, other, replayed)).status == 409


async def test_what_is_no_payment_for_the_challenge_is_refused(
    devnet: Devnet, rig: OpenRig
) -> None:
    hand = await asyncio.to_thread(Hand, devnet, devnet.keys[0])
    run = asyncio.to_thread
    async with rig() as r:
        old = await ask(r, BODY)
        earlier = await run(hand.pay, old)
        await asyncio.sleep(6.5)  # beyond the margin for clocks
        await run(hand.call, hand.token.functions.approve(hand.account.address, 1))  # a newer block
        challenge = await ask(r, BODY)
        amount, seller = int(challenge["amount_usdc"]), challenge["seller_address"]
        other_token = hand._contract(hand.account.address)
        settled = await r.call(
            "POST", "/execute", json=BODY | {"access_key": "c" * 64}, headers=r.payment(amount)
        )
        assert settled.status == 202
        payments = {
            "older than the challenge": earlier,
            "another amount": await run(hand.pay, challenge, amount=amount + 1),
            "another payee": await run(hand.pay, challenge, to=devnet.keys[4].address),
            "another token": await run(hand.call, other_token.functions.transfer(seller, amount)),
            "failed": await run(hand.pay, challenge, amount=10**30),
            "an authorization's settlement": settled.json["job"]["payments"][0]["transaction"],
        }
        for what, tx in payments.items():
            reply = await present(r, BODY, hand.proof(challenge, tx))
            assert refusal(reply) == Reason.SETTLEMENT_FAILED, (what, reply.body)
        good = hand.proof(challenge, earlier)
        forged = "chg_" + "0" * 68
        for changes, reason in (
            ({"challenge_id": forged}, Reason.INVALID_REQUIREMENTS),
            ({"signature": "0x" + "11" * 65}, Reason.BAD_SIGNATURE),
        ):
            assert refusal(await present(r, BODY, good | changes)) == reason
        late = hand.proof(challenge, earlier, timestamp="yesterday")
        assert (await present(r, BODY, late)).status == 400
        both = await r.call(
            "POST", "/execute", json=BODY | {"payment_proof": good}, headers=r.payment(amount)
        )
        assert both.status == 400
        # the first one was good for its own challenge all the time
        assert (await present(r, BODY, hand.proof(old, earlier))).status == 202


class NoImages:
    def names(self) -> tuple[str, ...]:
        return ()

    to_pull = names


async def test_a_transfer_that_came_too_late_for_its_price_goes_back(
    devnet: Devnet, rig: OpenRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = await asyncio.to_thread(Hand, devnet, devnet.keys[0])
    async with rig() as r:
        before = await r.balance()
        challenge = await ask(r, BODY)
        tx = await asyncio.to_thread(hand.pay, challenge)
        r.agent.set_price(r.agent.offers.price_per_hour * 2)
        reply = await present(r, BODY, hand.proof(challenge, tx))
        assert (reply.status, "price" in reply.json["detail"]) == (409, True)
        async with asyncio.timeout(30):
            while await r.balance() != before:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        r.agent.set_price(r.agent.offers.price_per_hour // 2)
        assert (await present(r, BODY, hand.proof(challenge, tx))).status == 402  # it went back
        paused = await ask(r, BODY)
        tx = await asyncio.to_thread(hand.pay, paused)
        r.agent.pause(True)
        assert (await present(r, BODY, hand.proof(paused, tx))).status == 503
        r.agent.pause(False)
        asked = await ask(r, BODY)
        tx = await asyncio.to_thread(hand.pay, asked)
        monkeypatch.setattr(r.agent.offers, "images", NoImages())  # what it asked for is gone
        assert (await present(r, BODY, hand.proof(asked, tx))).status == 422
        async with asyncio.timeout(30):
            while await r.balance() != before:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("proved", [True, False])
async def test_a_further_slice_is_paid_by_a_transfer_of_its_own_buyer(
    devnet: Devnet, rig: OpenRig, proved: bool
) -> None:
    async with rig() as r:
        job = await r.buy(SPEC | {"command": script("import time; time.sleep(60)")})
        hand = await asyncio.to_thread(Hand, devnet, devnet.keys[0 if proved else 2])
        asked = await job.call("POST", "/payments", json={"slice": 1})
        challenge = asked.json["challenge"]
        assert challenge["job_id"] == job.job_id
        tx = await asyncio.to_thread(hand.pay, challenge)
        body = {"slice": 1, "payment_proof": hand.proof(challenge, tx)}
        reply = await job.call("POST", "/payments", json=body)
        assert reply.status == (200 if proved else 403), reply.body
        assert (await job.view()).slices_paid == (2 if proved else 1)
        if proved:
            assert (await job.call("POST", "/payments", json=body)).body == reply.body
        await job.call("POST", "/cancel")


async def test_hashes_of_nothing_keep_nobody_waiting(devnet: Devnet, rig: OpenRig) -> None:
    hand = await asyncio.to_thread(Hand, devnet, devnet.keys[0])
    async with rig() as r:
        challenge = await ask(r, BODY)
        made_up = [hand.proof(challenge, f"0x{n:064x}") for n in range(60)]
        waiting = [asyncio.create_task(present(r, BODY, proof)) for proof in made_up]
        done, rest = await asyncio.wait(waiting, timeout=15)
        assert (len(done), len(rest)) == (44, 16)
        assert {task.result().status for task in done} == {503}
        tx = await asyncio.to_thread(hand.pay, challenge)
        assert (await present(r, BODY, hand.proof(challenge, tx))).status == 202
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
