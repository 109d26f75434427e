"""How a seller's calls to the market are authenticated after registration.

A wallet signature per heartbeat would cost three times the whole request, so the registration
reply hands out a session key, and calls carry an HMAC under it with a rising counter.
"""

from __future__ import annotations

import hmac

NODE_HEADER = "ComputeSwarm-Node"
COUNTER_HEADER = "ComputeSwarm-Counter"
MAC_HEADER = "ComputeSwarm-Mac"
MAX_COUNTER = 2**53


def mac(session_key: str, *, method: str, path: str, counter: int, body: bytes) -> str:
    """HMAC-SHA256 in hex over method, path, counter and body."""
    head = f"{method} {path}\n{counter}\n".encode()
    return hmac.digest(bytes.fromhex(session_key), head + body, "sha256").hex()


def headers(
    node: str, session_key: str, *, method: str, path: str, counter: int, body: bytes
) -> dict[str, str]:
    """The three headers of one call; ``counter`` must be higher than in every call before."""
    return {
        NODE_HEADER: node,
        COUNTER_HEADER: str(counter),
        MAC_HEADER: mac(session_key, method=method, path=path, counter=counter, body=body),
    }


def verify(
    session_key: str, given: str, *, method: str, path: str, counter: int, body: bytes
) -> bool:
    """Whether the MAC is right, compared in constant time."""
    wanted = mac(session_key, method=method, path=path, counter=counter, body=body)
    return hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace"))
