"""USDC on the devnet behaves as Circle's, and only a real payment proves one."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from pathlib import Path

import pytest
from eth_abi import encode

from computeswarm.chain.abi import address_word, bytes32_word, selector, uint_word
from computeswarm.chain.artifacts import load_artifact
from computeswarm.chain.devnet import Devnet, faucet_key
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import (
    Authorization,
    Usdc,
    authorization_calldata,
    transfer_calldata,
)
from computeswarm.chain.wire import Log, Receipt
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.eip712 import (
    digest,
    struct_hash,
    token_domain,
    transfer_authorization_digest,
)

_GAS = 150_000
_TYPES = ["address", "address", "uint256", "uint256", "uint256", "bytes32"]
_PREFIX = "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,"
_WALLET = json.loads((Path(__file__).parent / "artifacts/TestWallet.json").read_text())["bytecode"]


def authorize(payer: str, payee: str, value: int) -> Authorization:
    now = int(time.time())
    return Authorization(payer, payee, value, now - 60, now + 600, "0x" + secrets.token_hex(32))


def digest_of(authorization: Authorization) -> bytes:
    return transfer_authorization_digest(
        BASE_SEPOLIA,
        from_=authorization.from_,
        to=authorization.to,
        value=authorization.value,
        valid_after=authorization.valid_after,
        valid_before=authorization.valid_before,
        nonce=authorization.nonce,
    )


def sign(key: PrivateKey, authorization: Authorization) -> bytes:
    return key.sign_digest(digest_of(authorization))


async def send(sender: TxSender, to: str, data: bytes) -> Receipt:
    """Send without a simulation, so that a revert is mined too."""
    tx = await sender.prepare(to, data, gas=_GAS)
    await sender.broadcast(tx)
    return await sender.wait_receipt(tx.hash)


@pytest.fixture
def owner(chain: Devnet, rpc: RpcClient) -> TxSender:
    return TxSender(rpc, faucet_key(), chain.chain_id)


def test_calldata_is_that_of_eth_abi() -> None:
    payer, payee = PrivateKey.generate().address, PrivateKey.generate().address
    authorization = authorize(payer, payee, 4200)
    values = (
        payer,
        payee,
        4200,
        authorization.valid_after,
        authorization.valid_before,
        bytes.fromhex(authorization.nonce[2:]),
    )
    signature = secrets.token_bytes(64) + b"\x1b"
    assert authorization_calldata(authorization, signature) == selector(
        _PREFIX + "uint8,bytes32,bytes32)"
    ) + encode(
        [*_TYPES, "uint8", "bytes32", "bytes32"], [*values, 27, signature[:32], signature[32:64]]
    )
    for size in (0, 64, 96, 129):
        signature = secrets.token_bytes(size)
        assert authorization_calldata(authorization, signature) == selector(
            _PREFIX + "bytes)"
        ) + encode([*_TYPES, "bytes"], [*values, signature])
    assert transfer_calldata(payee, 7) == selector("transfer(address,uint256)") + encode(
        ["address", "uint256"], [payee, 7]
    )


async def test_it_introduces_itself_as_usdc(rpc: RpcClient, usdc: Usdc) -> None:
    async def ask(function: str) -> bytes:
        return await rpc.eth_call(usdc.address, selector(function))

    assert await ask("name()") == encode(["string"], ["USDC"])
    assert await ask("version()") == encode(["string"], ["2"])
    assert await ask("symbol()") == encode(["string"], ["USDC"])
    assert await ask("decimals()") == uint_word(6)
    assert await ask("DOMAIN_SEPARATOR()") == token_domain(84532, BASE_SEPOLIA.usdc)


async def test_an_authorization_pays_once_and_its_receipt_proves_it(
    chain: Devnet, usdc: Usdc, sender: TxSender
) -> None:
    payer, payee = chain.keys[1], PrivateKey.generate().address
    before = await usdc.balance_of(payer.address)
    paid = authorize(payer.address, payee, 4200)
    data = authorization_calldata(paid, sign(payer, paid))
    await usdc.simulate(data, sender=sender.address)
    receipt = await send(sender, chain.usdc, data)
    assert usdc.payment_proof(receipt, paid)
    assert usdc.transfer_proof(receipt, payer.address, payee, 4200)
    assert await usdc.balance_of(payee) == 4200
    assert await usdc.balance_of(payer.address) == before - 4200
    assert await usdc.authorization_state(payer.address, paid.nonce)

    with pytest.raises(RpcError) as caught:
        await usdc.simulate(data, sender=sender.address)
    assert caught.value.reason == "FiatTokenV2: authorization is used or canceled"
    second = await send(sender, chain.usdc, data)
    assert not second.succeeded
    assert not usdc.payment_proof(second, paid)
    assert await usdc.balance_of(payee) == 4200

    other = "0x" + "ab" * 32
    stranger = PrivateKey.generate().address
    for change in ({"value": 4199}, {"to": stranger}, {"from_": stranger}, {"nonce": other}):
        assert not usdc.payment_proof(receipt, replace(paid, **change)), change
    assert not usdc.transfer_proof(receipt, payer.address, payee, 4201)
    assert not usdc.payment_proof(replace(receipt, succeeded=False), paid)
    assert not usdc.transfer_proof(replace(receipt, succeeded=False), payer.address, payee, 4200)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"valid_before": -5}, "FiatTokenV2: authorization is expired"),
        ({"valid_after": 900}, "FiatTokenV2: authorization is not yet valid"),
        ({"value": 10**20}, "ERC20: transfer amount exceeds balance"),
    ],
)
async def test_what_usdc_refuses(
    chain: Devnet, usdc: Usdc, sender: TxSender, change: dict[str, int], reason: str
) -> None:
    payer = chain.keys[1]
    now = 0 if "value" in change else int(time.time())
    moved = {name: now + amount for name, amount in change.items()}
    bad = replace(authorize(payer.address, chain.keys[2].address, 1), **moved)
    with pytest.raises(RpcError) as caught:
        await usdc.simulate(authorization_calldata(bad, sign(payer, bad)), sender=sender.address)
    assert caught.value.reason == reason


async def test_somebody_elses_signature_is_refused_by_both_overloads(
    chain: Devnet, usdc: Usdc, sender: TxSender
) -> None:
    good = authorize(chain.keys[1].address, chain.keys[2].address, 1)
    forged = sign(chain.keys[2], good)
    for signature in (forged, forged + b"\0", forged[:64]):
        with pytest.raises(RpcError) as caught:
            await usdc.simulate(authorization_calldata(good, signature), sender=sender.address)
        assert caught.value.reason == "FiatTokenV2: invalid signature"
        assert not await usdc.is_valid_signature(good.from_, digest_of(good), signature)
    assert await usdc.is_valid_signature(good.from_, digest_of(good), sign(chain.keys[1], good))


async def test_a_cancelled_authorization_looks_used_but_proves_nothing(
    chain: Devnet, usdc: Usdc, sender: TxSender
) -> None:
    payer = chain.keys[1]
    taken_back = authorize(payer.address, chain.keys[2].address, 9)
    fields = (("authorizer", "address"), ("nonce", "bytes32"))
    values = (payer.address, taken_back.nonce)
    cancel = digest(
        token_domain(84532, BASE_SEPOLIA.usdc), struct_hash("CancelAuthorization", fields, values)
    )
    signature = payer.sign_digest(cancel)
    receipt = await send(
        sender,
        chain.usdc,
        selector("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)")
        + address_word(payer.address)
        + bytes32_word(taken_back.nonce)
        + uint_word(signature[64])
        + signature[:64],
    )
    assert receipt.succeeded
    assert await usdc.authorization_state(payer.address, taken_back.nonce)
    assert not usdc.payment_proof(receipt, taken_back)


async def test_a_contract_wallet_pays_by_erc1271(
    chain: Devnet, rpc: RpcClient, usdc: Usdc, sender: TxSender
) -> None:
    holder, payee = chain.keys[2], PrivateKey.generate().address
    wallet = PrivateKey.generate().address
    await chain.place(wallet, _WALLET + address_word(holder.address).hex())
    await chain.fund(wallet, usdc_atoms=50)
    paid = authorize(wallet, payee, 30)
    signature = sign(holder, paid)
    assert await usdc.is_valid_signature(wallet, digest_of(paid), signature)
    assert not await usdc.is_valid_signature(wallet, digest_of(paid), sign(chain.keys[3], paid))
    assert not await usdc.is_valid_signature(chain.usdc, digest_of(paid), signature)
    receipt = await send(sender, chain.usdc, authorization_calldata(paid, signature))
    assert usdc.payment_proof(receipt, paid)
    assert await usdc.balance_of(payee) == 30


async def test_a_delegated_account_counts_as_having_code(
    chain: Devnet, rpc: RpcClient, usdc: Usdc
) -> None:
    """EIP-7702: its own key's signature is no longer enough, its delegate decides."""
    holder, delegated, wallet = chain.keys[2], PrivateKey.generate(), PrivateKey.generate().address
    await chain.place(wallet, _WALLET + address_word(holder.address).hex())
    delegation = "0xef0100" + wallet[2:]
    await rpc.call("anvil_setCode", [delegated.address, delegation])
    paid = authorize(delegated.address, chain.keys[3].address, 1)
    assert await usdc.is_valid_signature(delegated.address, digest_of(paid), sign(holder, paid))
    own = sign(delegated, paid)
    assert not await usdc.is_valid_signature(delegated.address, digest_of(paid), own)


async def test_the_owner_can_pause_and_blacklist(
    chain: Devnet, usdc: Usdc, owner: TxSender, sender: TxSender
) -> None:
    payer = PrivateKey.generate()
    await chain.fund(payer.address, usdc_atoms=5)
    paid = authorize(payer.address, chain.keys[2].address, 5)
    data = authorization_calldata(paid, sign(payer, paid))
    for lock, unlock, reason in (
        (selector("pause()"), selector("unpause()"), "EnforcedPause"),
        (
            selector("blacklist(address)") + address_word(payer.address),
            selector("unBlacklist(address)") + address_word(payer.address),
            "Blacklistable: account is blacklisted",
        ),
    ):
        assert (await send(owner, chain.usdc, lock)).succeeded
        with pytest.raises(RpcError) as caught:
            await usdc.simulate(data, sender=sender.address)
        assert caught.value.reason == reason
        assert (await send(owner, chain.usdc, unlock)).succeeded
    await usdc.simulate(data, sender=sender.address)
    assert not (await send(sender, chain.usdc, selector("pause()"))).succeeded


async def test_receive_with_authorization_is_for_the_payee_only(
    chain: Devnet, usdc: Usdc, rpc: RpcClient
) -> None:
    payer, payee = chain.keys[1], chain.keys[2]
    paid = authorize(payer.address, payee.address, 2)
    names = ("from", "to", "value", "validAfter", "validBefore", "nonce")
    fields = tuple(zip(names, _TYPES, strict=True))
    values = (
        paid.from_,
        paid.to,
        paid.value,
        paid.valid_after,
        paid.valid_before,
        bytes32_word(paid.nonce),
    )
    struct = struct_hash("ReceiveWithAuthorization", fields, values)
    signature = payer.sign_digest(digest(token_domain(84532, BASE_SEPOLIA.usdc), struct))
    data = selector(_PREFIX.replace("transfer", "receive") + "uint8,bytes32,bytes32)") + encode(
        [*_TYPES, "uint8", "bytes32", "bytes32"],
        [*values, signature[64], signature[:32], signature[32:64]],
    )
    with pytest.raises(RpcError, match="caller must be the payee"):
        await usdc.simulate(data, sender=chain.keys[3].address)
    receipt = await send(TxSender(rpc, payee, chain.chain_id), chain.usdc, data)
    assert usdc.payment_proof(receipt, paid)


async def test_permit_uses_domain_version_2(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    holder, spender = chain.keys[1], chain.keys[2].address
    fields = (
        ("owner", "address"),
        ("spender", "address"),
        ("value", "uint256"),
        ("nonce", "uint256"),
        ("deadline", "uint256"),
    )
    used = await rpc.eth_call(
        chain.usdc, selector("nonces(address)") + address_word(holder.address)
    )
    deadline = int(time.time()) + 600
    values = (holder.address, spender, 77, int.from_bytes(used), deadline)
    domain = token_domain(84532, BASE_SEPOLIA.usdc)
    signature = holder.sign_digest(digest(domain, struct_hash("Permit", fields, values)))
    receipt = await send(
        sender,
        chain.usdc,
        selector("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)")
        + address_word(holder.address)
        + address_word(spender)
        + uint_word(77)
        + uint_word(deadline)
        + uint_word(signature[64])
        + signature[:64],
    )
    assert receipt.succeeded
    allowance = selector("allowance(address,address)")
    words = address_word(holder.address) + address_word(spender)
    assert await rpc.eth_call(chain.usdc, allowance + words) == uint_word(77)


async def test_another_tokens_events_prove_nothing(
    chain: Devnet, rpc: RpcClient, usdc: Usdc, owner: TxSender, sender: TxSender
) -> None:
    """A twin of USDC at another address emits the very same events."""
    twin = PrivateKey.generate().address
    await chain.place(twin, load_artifact("TestUSDC")["bytecode"])
    payer, payee = chain.keys[1], chain.keys[2].address
    mint = selector("mint(address,uint256)") + address_word(payer.address) + uint_word(10)
    assert (await send(owner, twin, mint)).succeeded
    paid = authorize(payer.address, payee, 10)
    other = replace(BASE_SEPOLIA, usdc=replace(BASE_SEPOLIA.usdc, address=twin))
    signed = payer.sign_digest(
        transfer_authorization_digest(
            other,
            from_=paid.from_,
            to=paid.to,
            value=paid.value,
            valid_after=paid.valid_after,
            valid_before=paid.valid_before,
            nonce=paid.nonce,
        )
    )
    receipt = await send(sender, twin, authorization_calldata(paid, signed))
    assert Usdc(rpc, other).payment_proof(receipt, paid)
    assert not usdc.payment_proof(receipt, paid)
    assert not usdc.transfer_proof(receipt, payer.address, payee, 10)


async def test_one_transfer_does_not_vouch_for_two_authorizations(
    chain: Devnet, usdc: Usdc, sender: TxSender
) -> None:
    payer, payee = chain.keys[1], chain.keys[2].address
    paid = authorize(payer.address, payee, 6)
    receipt = await send(sender, chain.usdc, authorization_calldata(paid, sign(payer, paid)))
    used, moved = receipt.logs
    nonce = "0x" + "cd" * 32
    forged = Log(used.address, (*used.topics[:2], nonce), used.data)
    both = replace(receipt, logs=(forged, used, moved))
    assert usdc.payment_proof(both, paid)
    assert not usdc.payment_proof(both, replace(paid, nonce=nonce))


async def test_no_contract_at_the_address_is_said(rpc: RpcClient) -> None:
    nowhere = replace(BASE_SEPOLIA.usdc, address=PrivateKey.generate().address)
    with pytest.raises(RpcUnavailable, match="no USDC"):
        await Usdc(rpc, replace(BASE_SEPOLIA, usdc=nowhere)).balance_of(nowhere.address)
