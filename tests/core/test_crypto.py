"""Our signatures and digests held against eth_account's."""

from __future__ import annotations

from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st

from computeswarm.core.chains import BASE, BASE_SEPOLIA
from computeswarm.core.crypto import (
    SECP256K1_N,
    PrivateKey,
    keccak256,
    recover_address,
    same_address,
    to_checksum,
)
from computeswarm.core.eip712 import statement_digest, transfer_authorization_digest

KEY = PrivateKey(bytes(31) + b"\x07")


def test_keccak_is_ethereums() -> None:
    empty = "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    assert keccak256(b"").hex() == empty


@given(st.binary(min_size=32, max_size=32).filter(lambda b: 0 < int.from_bytes(b) < SECP256K1_N))
@settings(max_examples=25)
def test_addresses_are_eth_accounts(secret: bytes) -> None:
    assert PrivateKey(secret).address == Account.from_key(secret).address


def test_eip55() -> None:
    for address in (BASE.usdc.address, BASE_SEPOLIA.usdc.address):
        assert to_checksum(address.lower()) == address
    assert same_address(BASE.usdc.address, BASE.usdc.address.lower())


@given(st.integers(0, 2**64), st.integers(0, 2**40), st.binary(min_size=32, max_size=32))
@settings(max_examples=25)
def test_the_authorization_digest_is_the_standards(value: int, before: int, nonce: bytes) -> None:
    for chain in (BASE, BASE_SEPOLIA):
        typed = encode_typed_data(
            domain_data={
                "name": chain.usdc.name,
                "version": chain.usdc.version,
                "chainId": chain.chain_id,
                "verifyingContract": chain.usdc.address,
            },
            message_types={
                "TransferWithAuthorization": [
                    {"name": "from", "type": "address"},
                    {"name": "to", "type": "address"},
                    {"name": "value", "type": "uint256"},
                    {"name": "validAfter", "type": "uint256"},
                    {"name": "validBefore", "type": "uint256"},
                    {"name": "nonce", "type": "bytes32"},
                ]
            },
            message_data={
                "from": KEY.address,
                "to": chain.usdc.address,
                "value": value,
                "validAfter": 1,
                "validBefore": before,
                "nonce": nonce,
            },
        )
        theirs = keccak256(b"\x19\x01" + typed.header + typed.body)
        ours = transfer_authorization_digest(
            chain,
            from_=KEY.address,
            to=chain.usdc.address,
            value=value,
            valid_after=1,
            valid_before=before,
            nonce="0x" + nonce.hex(),
        )
        assert ours == theirs


def test_eth_account_recovers_our_signatures() -> None:
    digest = keccak256(b"x")
    signature = KEY.sign_digest(digest)
    assert Account._recover_hash(digest, signature=signature) == KEY.address
    assert recover_address(digest, signature) == KEY.address


def test_a_malleable_or_foreign_signature_recovers_to_nobody() -> None:
    digest = keccak256(b"x")
    good = KEY.sign_digest(digest)
    s = int.from_bytes(good[32:64])
    high_s = good[:32] + (SECP256K1_N - s).to_bytes(32) + bytes([55 - good[64]])
    assert recover_address(digest, high_s) is None
    assert recover_address(digest, good[:64] + bytes([good[64] - 27])) is None
    assert recover_address(digest, good[:-1]) is None
    assert recover_address(digest, good + b"\0") is None
    assert recover_address(digest, bytes(64) + b"\x1b") is None
    assert recover_address(keccak256(b"y"), good) != KEY.address


@given(st.binary(min_size=65, max_size=65))
def test_no_bytes_crash_the_recovery(signature: bytes) -> None:
    assert recover_address(bytes(32), signature) != KEY.address


def test_a_statement_of_one_kind_is_not_one_of_another() -> None:
    digests = {
        statement_digest(84532, "quote", b"{}"),
        statement_digest(84532, "node-record", b"{}"),
        statement_digest(8453, "quote", b"{}"),
        statement_digest(84532, "quote", b"[]"),
    }
    assert len(digests) == 4


def test_a_key_never_shows_itself() -> None:
    assert KEY.secret.hex() not in repr(KEY) + str(KEY)
