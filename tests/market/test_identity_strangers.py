"""A seller written from docs/market.md alone: none of our code signs, agrees on a key or beats."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from pathlib import Path
from typing import Any

from Crypto.Hash import SHA256, keccak
from Crypto.Protocol.KDF import HKDF
from market_fixtures import MarketClient, running_market

from computeswarm.core.clock import SystemClock
from computeswarm.core.imports import import_late
from computeswarm.core.nodes import ComputeNode

P = 2**256 - 2**32 - 977
G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
Point = tuple[int, int]


def added(a: Point | None, b: Point) -> Point:
    if a is None:
        return b
    if a == b:
        slope = 3 * a[0] * a[0] * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def times(number: int, point: Point) -> Point:
    result: Point | None = None
    while number:
        if number & 1:
            result = added(result, point)
        point, number = added(point, point), number >> 1
    assert result is not None
    return result


def packed(point: Point) -> bytes:
    return bytes([2 + (point[1] & 1)]) + point[0].to_bytes(32)


def unpacked(data: bytes) -> Point:
    x = int.from_bytes(data[1:])
    y = pow(x**3 + 7, (P + 1) // 4, P)
    return x, y if y & 1 == data[0] & 1 else P - y


def keccak256(data: bytes) -> bytes:
    return keccak.new(digest_bits=256, data=data).digest()


class Stranger:
    """One node of a wallet that only a common Ethereum library holds."""

    def __init__(self) -> None:
        self.account = import_late("eth_account").Account.create()
        name = "elsewhere"
        self.node_id = (
            f"nd-{keccak256(f'{self.account.address.lower()}/{name}'.encode())[:6].hex()}"
        )
        self.record = {
            "wallet": self.account.address,
            "name": name,
            "endpoint": "https://gpu.example:8403",
            "hardware": {"cpu_model": "x", "cpu_cores": 4, "memory_bytes": 2**34},
            "isolation": "container",
            "price_per_hour": 360_000,
            "slice_seconds": 60,
            "max_job_seconds": 600,
            "seq": 1,
            "issued_at": int(time.time()),
            "colour": "members that nobody knows are signed too: \u00fc",
        }

    def signed(self, kind: str, document: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The statement, and the digest that was signed."""
        canonical = json.dumps(
            document, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()
        typed = import_late("eth_account.messages").encode_typed_data(
            {"name": "ComputeSwarm", "version": "1", "chainId": 84532},
            {
                "Statement": [
                    {"name": "kind", "type": "string"},
                    {"name": "contentHash", "type": "bytes32"},
                ]
            },
            {"kind": kind, "contentHash": keccak256(canonical)},
        )
        made = self.account.sign_message(typed)
        digest = keccak256(b"\x19" + typed.version + typed.header + typed.body)
        statement = {
            "kind": kind,
            "chain_id": 84532,
            "document": document,
            "signature": "0x" + made.signature.hex().removeprefix("0x"),
        }
        return statement, digest

    def registration(self, market: str) -> bytes:
        self.secret = secrets.randbelow(2**255) + 1
        self.public = packed(times(self.secret, G))
        record, digest = self.signed("node-record", self.record)
        now = int(time.time())
        session, _ = self.signed(
            "node-session",
            {
                "market": market,
                "node_id": self.node_id,
                "record_hash": "0x" + digest.hex(),
                "session_key": self.public.hex(),
                "seq": 1,
                "issued_at": now,
                "expires_at": now + 3600,
            },
        )
        return json.dumps({"record": record, "session": session}).encode()

    def agree(self, market_key: str) -> None:
        theirs = bytes.fromhex(market_key)
        shared = hashlib.sha256(packed(times(self.secret, unpacked(theirs)))).digest()
        context = self.node_id.encode() + (1).to_bytes(8) + self.public + theirs
        key = HKDF(shared, 32, b"computeswarm node session v1", SHA256, 1, context)
        assert isinstance(key, bytes)
        self.key = key

    def headers(self, method: str, path: str, counter: int, body: bytes) -> dict[str, str]:
        said = f"{method} {path}\n{counter}\n".encode() + body
        return {
            "Content-Type": "application/json",
            "ComputeSwarm-Node": self.node_id,
            "ComputeSwarm-Counter": str(counter),
            "ComputeSwarm-Mac": hmac.digest(self.key, said, "sha256").hex(),
        }


async def test_whoever_reads_the_document_can_sell(tmp_path: Path) -> None:
    stranger = Stranger()
    async with running_market(tmp_path / "market.db", SystemClock()) as client:
        reply = await client.call(
            "POST", "/api/v1/nodes/register", data=stranger.registration(client.url)
        )
        assert reply.status == 201, reply.body
        stranger.agree(reply.json["market_key"])
        node = f"/api/v1/nodes/{stranger.node_id}"
        await says(client, stranger, "POST", f"{node}/heartbeat", 1, b'{"status":"busy"}', 200)
        (listed,) = (await client.get("/api/v1/nodes", params={"q": "busy"})).json["nodes"]
        assert listed["record"]["document"] == stranger.record
        assert ComputeNode.model_validate(listed).info.wallet == stranger.account.address
        word = {
            "wallet": stranger.account.address,
            "node_id": stranger.node_id,
            "seq": 5,
            "issued_at": int(time.time()),
        }
        body = json.dumps(stranger.signed("node-revocation", word)[0]).encode()
        assert (await client.call("POST", f"{node}/revoke", data=body)).status == 204
        await says(client, stranger, "DELETE", node, 2, b"", 410)


async def says(
    client: MarketClient, who: Stranger, method: str, path: str, counter: int, body: bytes, to: int
) -> None:
    made = who.headers(method, path, counter, body)
    assert (await client.call(method, path, data=body, headers=made)).status == to
