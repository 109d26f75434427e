"""Signed EIP-1559 transactions, by hand: RLP, keccak and one signature.

A tenth of what ``eth_account`` takes, and without its half second of import; the tests hold the
bytes of the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

from computeswarm.core.crypto import PrivateKey, keccak256

_TYPE = b"\x02"


@dataclass(frozen=True, slots=True)
class SignedTx:
    """What is broadcast, and the names by which it is known: its hash, and its sender's nonce."""

    raw: bytes
    hash: str
    nonce: int


def sign_transaction(
    key: PrivateKey,
    *,
    chain_id: int,
    nonce: int,
    to: str,
    data: bytes,
    value: int,
    gas: int,
    max_fee: int,
    priority_fee: int,
) -> SignedTx:
    """Sign a call of a contract or a transfer of ``value`` wei; fees in wei per gas."""
    fields = [
        _integer(chain_id),
        _integer(nonce),
        _integer(priority_fee),
        _integer(max_fee),
        _integer(gas),
        _string(bytes.fromhex(to.removeprefix("0x"))),
        _integer(value),
        _string(data),
        _list([]),  # no access list
    ]
    signature = key.sign_digest(keccak256(_TYPE + _list(fields)))
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:64])
    raw = _TYPE + _list([*fields, _integer(signature[64] - 27), _integer(r), _integer(s)])
    return SignedTx(raw, "0x" + keccak256(raw).hex(), nonce)


def _prefixed(short: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 56:
        return bytes([short + size]) + payload
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([short + 55 + len(length)]) + length + payload


def _string(value: bytes) -> bytes:
    if len(value) == 1 and value[0] < 0x80:
        return value
    return _prefixed(0x80, value)


def _integer(value: int) -> bytes:
    return _string(value.to_bytes((value.bit_length() + 7) // 8))


def _list(items: list[bytes]) -> bytes:
    return _prefixed(0xC0, b"".join(items))
