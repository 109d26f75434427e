"""Keccak, addresses and secp256k1 signatures, on coincurve and pycryptodome.

``eth_account`` does the same at 40 times the cost and 0.5 s of import; it stays where it is
needed (transactions, keystores) and the tests hold the two against each other.
"""

from __future__ import annotations

import hmac
import re
from functools import lru_cache
from secrets import token_bytes
from typing import Self

from coincurve import PrivateKey as _SecpPrivateKey
from coincurve import PublicKey as _SecpPublicKey
from Crypto.Hash import keccak

SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
POINT_PATTERN = r"^0[23][0-9a-f]{64}$"
"""A public key as documents carry it: a compressed point in hex."""
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}\Z")


def keccak256(data: bytes) -> bytes:
    """The 32-byte Keccak-256 hash (Ethereum's, not NIST's SHA-3)."""
    return keccak.new(digest_bits=256, data=data).digest()


def hkdf_sha256(secret: bytes, salt: bytes, context: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 (RFC 5869): its one block is all that is ever needed here."""
    extracted = hmac.digest(salt, secret, "sha256")
    return hmac.digest(extracted, context + b"\x01", "sha256")


def is_address(text: str) -> bool:
    """Whether ``text`` is 0x and 40 hex digits, whatever their case."""
    return bool(_ADDRESS.match(text))


@lru_cache(maxsize=8192)
def to_checksum(address: str) -> str:
    """The EIP-55 spelling of an address.

    Raises:
        ValueError: not an address.
    """
    if not is_address(address):
        raise ValueError(f"not an address: {address[:60]!r}")
    lower = address[2:].lower()
    nibbles = keccak256(lower.encode()).hex()
    return "0x" + "".join(
        c.upper() if n >= "8" else c for c, n in zip(lower, nibbles, strict=False)
    )


def same_address(a: str, b: str) -> bool:
    """Whether two spellings name one address."""
    return a.lower() == b.lower()


def _address_of(public: _SecpPublicKey) -> str:
    return to_checksum("0x" + keccak256(public.format(compressed=False)[1:])[-20:].hex())


class PrivateKey:
    """A secp256k1 key. Its ``repr`` never shows the secret."""

    __slots__ = ("_key", "address")

    def __init__(self, secret: bytes) -> None:
        self._key = _SecpPrivateKey(secret)
        self.address: str = _address_of(self._key.public_key)

    @classmethod
    def generate(cls) -> Self:
        """A new random key."""
        return cls(_SecpPrivateKey(None).secret or token_bytes(32))

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """Read 64 hex digits, with or without 0x.

        Raises:
            ValueError: not a key. The message never repeats the text.
        """
        bare = text.strip().removeprefix("0x")
        if not re.fullmatch(r"[0-9a-fA-F]{64}", bare):
            raise ValueError("a private key is 64 hex digits")
        if not 0 < int(bare, 16) < SECP256K1_N:
            raise ValueError("that number is no private key")
        return cls(bytes.fromhex(bare))

    @property
    def secret(self) -> bytes:
        """The 32 bytes themselves: only for keystores and transaction signing."""
        return self._key.secret

    def sign_digest(self, digest: bytes) -> bytes:
        """A 65-byte r‖s‖v signature over a 32-byte digest, low-s, v ∈ {27, 28}."""
        raw = self._key.sign_recoverable(digest, hasher=None)
        return raw[:64] + bytes([raw[64] + 27])

    def __repr__(self) -> str:
        return f"PrivateKey({self.address})"


def personal_digest(text: str) -> bytes:
    """What a wallet signs when it is asked to sign a text (EIP-191, version 0x45)."""
    data = text.encode()
    return keccak256(b"\x19Ethereum Signed Message:\n%d" % len(data) + data)


def recover_address(digest: bytes, signature: bytes) -> str | None:
    """The address that signed, or None for a signature USDC itself would refuse.

    Strict as USDC's ECRecover: 65 bytes, low s, v ∈ {27, 28}. Anything else would be malleable.
    """
    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:64])
    if not (0 < r < SECP256K1_N and 0 < s <= SECP256K1_N // 2):
        return None
    try:
        public = _SecpPublicKey.from_signature_and_message(
            signature[:64] + bytes([signature[64] - 27]), digest, hasher=None
        )
    except ValueError:
        return None
    except Exception as error:  # coincurve raises bare Exception for a point not on the curve
        if type(error) is Exception:
            return None
        raise
    return _address_of(public)
