"""Each member of a payment, changed one at a time, over HTTP and in both versions of the wire.

Mitigations: 65 bytes, low s, v 27 or 28; chain, token and domain pinned from our own table;
requirements compared member by member. Nothing that was forged reaches the chain, and nothing of
it stands in the way of the real payment.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from threat_rig import SLICE, Attack, Signed, open_attack

from computeswarm.chain.devnet import Devnet
from computeswarm.core.chains import BASE, BASE_SEPOLIA
from computeswarm.core.crypto import SECP256K1_N, PrivateKey
from computeswarm.core.x402 import decode_header

STRANGER = PrivateKey(b"\x21" * 32)
Forge = Callable[[Signed], Signed]


def _bytes(change: Callable[[bytes], bytes]) -> Forge:
    return lambda good: replace(good, signature=change(good.signature))


def _high_s(signature: bytes) -> bytes:
    s = SECP256K1_N - int.from_bytes(signature[32:64])
    return signature[:32] + s.to_bytes(32) + bytes([55 - signature[64]])


def _v(value: int) -> Forge:
    return _bytes(lambda signature: signature[:64] + bytes([value]))


def _domain(key: PrivateKey, **changes: Any) -> Forge:
    """Signed for a token or a chain that differs in one member of the EIP-712 domain."""
    chain_id = changes.pop("chain_id", BASE_SEPOLIA.chain_id)
    chain = replace(BASE_SEPOLIA, chain_id=chain_id, usdc=replace(BASE_SEPOLIA.usdc, **changes))

    def forge(good: Signed) -> Signed:
        given = good.authorization
        other = Signed.make(
            key,
            given.to,
            given.value,
            chain=chain,
            valid_after=given.valid_after,
            valid_before=given.valid_before,
            nonce=given.nonce,
        )
        return replace(good, signature=other.signature)

    return forge


def _forgeries(key: PrivateKey) -> dict[str, Forge]:
    return {
        "64 bytes": _bytes(lambda s: s[:64]),
        "66 bytes": _bytes(lambda s: s + b"\0"),
        "no bytes": _bytes(lambda s: b""),
        "zeros": _bytes(lambda s: bytes(65)),
        "r is zero": _bytes(lambda s: bytes(32) + s[32:]),
        "s is zero": _bytes(lambda s: s[:32] + bytes(32) + s[64:]),
        "r beyond the order": _bytes(lambda s: b"\xff" * 32 + s[32:]),
        "high s": _bytes(_high_s),
        "the other v": _bytes(lambda s: s[:64] + bytes([55 - s[64]])),
        "v 0": _v(0),
        "v 1": _v(1),
        "v 29": _v(29),
        "v 255": _v(255),
        "compact v": _bytes(lambda s: s[:64] + bytes([s[64] - 27])),
        "one bit": _bytes(lambda s: bytes([s[0] ^ 1]) + s[1:]),
        "another's": lambda good: replace(
            good,
            signature=Signed.make(
                STRANGER, good.authorization.to, nonce=good.authorization.nonce
            ).signature,
        ),
        "from": lambda good: good.forged(from_=STRANGER.address),
        "to": lambda good: good.forged(to=STRANGER.address),
        "value": lambda good: good.forged(value=SLICE - 1),
        "value + 2^256": lambda good: good.forged(value=SLICE + 2**256),
        "valid after": lambda good: good.forged(valid_after=good.authorization.valid_after + 1),
        "valid before": lambda good: good.forged(valid_before=good.authorization.valid_before + 1),
        "nonce": lambda good: good.forged(nonce="0x" + "12" * 32),
        "short nonce": lambda good: good.forged(nonce=good.authorization.nonce[:-2]),
        "domain name": _domain(key, name="USD Coin"),
        "domain version": _domain(key, version="1"),
        "domain token": _domain(key, address=BASE.usdc.address),
        "domain chain": _domain(key, chain_id=BASE.chain_id),
    }


NAMES = list(_forgeries(STRANGER))
ENVELOPES_V1: dict[str, dict[str, Any]] = {
    "network": {"network": "base"},
    "v2's network": {"network": "eip155:84532"},
    "scheme": {"scheme": "upto"},
    "version": {"x402Version": 2},
    "no version": {"x402Version": None},
}
ACCEPTED_V2: dict[str, dict[str, Any]] = {
    "amount": {"amount": "1"},
    "asset": {"asset": BASE.usdc.address},
    "payTo": {"payTo": STRANGER.address},
    "network": {"network": "eip155:8453"},
    "scheme": {"scheme": "upto"},
    "maxTimeoutSeconds": {"maxTimeoutSeconds": 86_400},
    "domain": {"extra": {"name": "USD Coin", "version": "2"}},
    "method": {"extra": {"assetTransferMethod": "permit2"}},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attack(
    module_devnet: Devnet, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Attack]:
    """One seller for all; each test shows that he took nothing but the good payment."""
    folder: Path = tmp_path_factory.mktemp("fields")
    async with open_attack(
        module_devnet, folder, trusted=(STRANGER.address,), config={"queue_limit": 1_000}
    ) as made:
        yield made
    await module_devnet.disconnect()


async def _good(attack: Attack, version: int, body: str) -> Signed:
    payment = attack.sign()
    if version == 1:
        return payment
    asked = await attack.post(body, {})
    (accepted, *_) = decode_header(asked.headers["PAYMENT-REQUIRED"])["accepts"]
    return replace(payment, version=2, accepted=accepted)


async def _refused_but_not_in_the_way(attack: Attack, body: str, good: Signed, bad: Signed) -> None:
    sent, used = await attack.rpc.nonce(attack.seller), await attack.uses(attack.buyer.address)
    jobs = len(attack.jobs())
    reply = await attack.post(body, bad)
    assert reply.status in (400, 402), (reply.status, reply.body)
    if reply.status == 402:
        refusal = decode_header(reply.headers["PAYMENT-RESPONSE"])
        assert not refusal["success"] and refusal["transaction"] == ""
    assert len(attack.jobs()) == jobs
    attack.bought(await attack.post(body, good))
    await attack.settled_books()
    assert await attack.uses(attack.buyer.address) == used + 1
    assert await attack.rpc.nonce(attack.seller) - sent in (1, 2)  # the payment, and its refund


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", NAMES)
async def test_no_member_of_the_authorization_can_be_changed(
    attack: Attack, version: int, name: str
) -> None:
    body = attack.body()
    good = await _good(attack, version, body)
    bad = _forgeries(attack.buyer)[name](good)
    await _refused_but_not_in_the_way(attack, body, good, bad)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ENVELOPES_V1)
async def test_no_member_of_version_1s_envelope_can_be_changed(attack: Attack, name: str) -> None:
    body = attack.body()
    good = await _good(attack, 1, body)
    bad = replace(good, envelope=ENVELOPES_V1[name])
    await _refused_but_not_in_the_way(attack, body, good, bad)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", ACCEPTED_V2)
async def test_no_member_of_version_2s_requirements_can_be_changed(
    attack: Attack, name: str
) -> None:
    body = attack.body()
    good = await _good(attack, 2, body)
    change = ACCEPTED_V2[name]
    extra = good.accepted["extra"] | change.get("extra", {})
    bad = replace(good, accepted={**good.accepted, **change, "extra": extra})
    await _refused_but_not_in_the_way(attack, body, good, bad)
