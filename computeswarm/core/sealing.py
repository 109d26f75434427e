"""A job's secrets, sealed by the buyer so that only the seller of one node can open them.

The node's signed record names a public key of the seller's. The buyer seals to it before anything
leaves his process, so that it doesn't matter who carries the request, writes it down or copies the
disk it lies on: the buyer's journal, the wire (also plain http), the seller's database and all
backups hold the same box, and a lost reply is answered by presenting that very box again. The
seller opens it in memory as he starts the job, and removes it.

ECIES as in SEC 1, section 5.1, on secp256k1: a fresh key of the sender's, ECDH, HKDF-SHA256 (RFC
5869) and AES-256-GCM. The key of the recipient is derived from his wallet's and is used for nothing
else. What a box is for (job, spec and buyer) is authenticated: a copied box opens for no other job,
and for nobody who buys the same job with other commands or from another wallet.

What it does not give: the seller himself reads the secrets, as he runs the job; and whoever gets
hold of his wallet's key later can open boxes that he recorded earlier (no forward secrecy).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping

from coincurve import PrivateKey as _Secp
from coincurve import PublicKey as _SecpPublic

from computeswarm.core.crypto import PrivateKey, hkdf_sha256
from computeswarm.core.errors import BadRequest

MAX_SECRETS = 64
MAX_SECRET_BYTES = 32 * 1024
MAX_SECRETS_BYTES = 64 * 1024
"""Names and values of one job together."""
MAX_SEALED_CHARS = 128 * 1024
"""Of a box in base64: twice that many bytes of JSON, where every byte is escaped, don't fit."""
PUBLIC_KEY = r"^(0[23][0-9a-f]{64})?$"
"""A compressed point in hex; empty where a node takes no secrets."""

_VERSION = 1
_POINT, _TAG, _BLOCK = 33, 16, 256
_DERIVE = b"computeswarm secrets key v1"
_BOX = b"computeswarm secrets box v1"
_UNREADABLE = (
    "The job's secrets were not sealed for this node, job and wallet; look the node up again, and "
    "buy the job anew."
)


def opening_key(wallet: PrivateKey) -> PrivateKey:
    """The key that opens what was sealed for the seller with this wallet."""
    derived, counter = b"", 0
    while not derived:
        candidate = hkdf_sha256(wallet.secret, b"", _DERIVE + bytes([counter]))
        try:
            PrivateKey.from_hex(candidate.hex())
            derived = candidate
        except ValueError:  # not below the group's order: one in 2^128
            counter += 1
    return PrivateKey(derived)


def public_key(wallet: PrivateKey) -> str:
    """What the node's record says: the public half of ``opening_key``, in hex."""
    return _Secp(opening_key(wallet).secret).public_key.format(compressed=True).hex()


def purpose(job_id: str, spec_hash: str, buyer: str) -> bytes:
    """What a box is for; part of what is authenticated."""
    return f"{job_id}|{spec_hash}|{buyer.lower()}".encode()


def check_secret(name: str, value: str) -> None:
    """See that a value can be an environment variable. The sentence never repeats it.

    Raises:
        BadRequest: empty, too long, or no text that a variable can hold.
    """
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise BadRequest(f"The secret {name} is no valid text; give it in UTF-8.") from None
    if not size:
        raise BadRequest(f"The secret {name} is empty; give it a value.")
    if size > MAX_SECRET_BYTES:
        raise BadRequest(f"The secret {name} is longer than 32 KiB; send less of it.")
    if "\0" in value:
        raise BadRequest(f"The secret {name} holds a NUL, which no variable can.")


def seal(values: Mapping[str, str], recipient: str, what_for: bytes) -> str:
    """The box, in base64. Its length tells the secrets' length to 256 bytes only.

    Args:
        recipient: ``secrets_key`` of the node's record.

    Raises:
        BadRequest: a value that can't be a secret, too many, or a recipient that is no key.
    """
    from Crypto.Cipher import AES

    for name, value in values.items():
        check_secret(name, value)
    clear = json.dumps(dict(values), ensure_ascii=False).encode()
    if len(values) > MAX_SECRETS or len(clear) > MAX_SECRETS_BYTES:
        raise BadRequest("A job takes 64 secrets of 64 KiB together at most; send fewer.")
    clear += b" " * (-len(clear) % _BLOCK)
    try:
        public = bytes.fromhex(recipient)
        other = _SecpPublic(public)
    except ValueError:
        raise BadRequest("The node names no key for secrets; choose another node.") from None
    mine = _Secp()
    point = mine.public_key.format(compressed=True)
    key = hkdf_sha256(mine.ecdh(other.format()), point + public, _BOX)
    head = bytes([_VERSION]) + point
    cipher = AES.new(key, AES.MODE_GCM, nonce=bytes(12))  # the key is used for one box
    cipher.update(head + what_for)
    sealed, tag = cipher.encrypt_and_digest(clear)
    return base64.b64encode(head + sealed + tag).decode()


def unseal(box: str, wallet: PrivateKey, what_for: bytes) -> dict[str, str]:
    """What a box holds.

    Raises:
        BadRequest: it was sealed for another seller, job, spec or buyer, or is none at all.
    """
    from Crypto.Cipher import AES

    try:
        raw = base64.b64decode(box, validate=True)
        head, body = raw[: 1 + _POINT], raw[1 + _POINT :]
        if len(raw) < 1 + _POINT + _TAG or head[0] != _VERSION:
            raise BadRequest(_UNREADABLE)
        other = _SecpPublic(head[1:])
        mine = _Secp(opening_key(wallet).secret)
        key = hkdf_sha256(mine.ecdh(other.format()), head[1:] + mine.public_key.format(), _BOX)
        cipher = AES.new(key, AES.MODE_GCM, nonce=bytes(12))
        cipher.update(head + what_for)
        found = json.loads(cipher.decrypt_and_verify(body[:-_TAG], body[-_TAG:]))
    except (ValueError, binascii.Error):
        raise BadRequest(_UNREADABLE) from None
    if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
        raise BadRequest(_UNREADABLE)
    for name, value in found.items():
        check_secret(name, value)
    return found
