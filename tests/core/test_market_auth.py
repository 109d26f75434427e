from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from computeswarm.core.market_auth import COUNTER_HEADER, MAC_HEADER, headers, mac, verify

KEY = b"\xab" * 32
CALL = {"method": "POST", "path": "/api/v1/nodes/nd-0/heartbeat", "counter": 7, "body": b"{}"}


def test_the_right_call_passes() -> None:
    made = headers("nd-0", KEY, **CALL)  # type: ignore[arg-type]
    assert made[COUNTER_HEADER] == "7"
    assert verify(KEY, made[MAC_HEADER], **CALL)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"method": "PATCH"}, {"path": "/api/v1/nodes/nd-1/heartbeat"}, {"counter": 8}, {"body": b""}],
)
def test_every_covered_part_matters(change: dict[str, object]) -> None:
    made = mac(KEY, **CALL)  # type: ignore[arg-type]
    assert not verify(KEY, made, **(CALL | change))  # type: ignore[arg-type]
    assert not verify(b"\xcd" * 32, made, **CALL)  # type: ignore[arg-type]
    assert not verify(KEY, "\ud800", **CALL)  # type: ignore[arg-type]


@given(key=st.binary(min_size=32, max_size=32), body=st.binary(max_size=300))
def test_it_is_the_standards_hmac(key: bytes, body: bytes) -> None:
    made = mac(key, method="POST", path="/x", counter=1, body=body)
    assert made == hmac.digest(key, b"POST /x\n1\n" + body, "sha256").hex()
