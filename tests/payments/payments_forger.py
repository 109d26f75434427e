"""402s as a hostile server may send them: mostly right, so that they are dangerous."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st
from payments_purse import KEY, SELLER

from computeswarm.core.chains import BASE, BASE_SEPOLIA
from computeswarm.core.x402 import HEADER_REQUIRED_V2

USDC = BASE_SEPOLIA.usdc
AUTHORIZER = "0x" + "ab" * 20
OTHER = "0x" + "cd" * 20

_anything: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20),
    st.sampled_from(["5", "0x5", "\u0665", " 5", "5 ", "+5", "-5", "5e3", "1_000", [], {}, ["5"]]),
)  # fmt: skip
_amount = st.one_of(st.integers(2**60, 2**300).map(str), st.just("000000900"), _anything)
_extra = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "name": st.sampled_from(["USDC", "USD Coin", "usdc", "USDC\u200b"]),
            "version": st.sampled_from(["2", "1", 2]),
            "assetTransferMethod": st.sampled_from(["eip3009", "permit2"]),
            "paymentFlow": st.sampled_from(["upfront", "escrow", None]),
            "verifyingContract": st.just(OTHER),
            "chainId": st.just(8453),
            "receiverAuthorizer": st.sampled_from([AUTHORIZER, "0x" + "0" * 40]),
            "withdrawDelay": st.sampled_from([900, 899, 2_592_000, "900"]),
        },
    ),
    _anything,
)
_extensions = st.one_of(
    st.none(),
    _anything,
    st.dictionaries(
        st.sampled_from(["payment-identifier", "offer-receipt", "x"]),
        st.one_of(_anything, st.fixed_dictionaries({"info": _anything, "schema": _anything})),
    ),
    st.fixed_dictionaries(
        {"payment-identifier": st.fixed_dictionaries({"info": st.fixed_dictionaries(
            {}, optional={"required": _anything, "echo": _anything, "id": _anything})})}
    ),
)  # fmt: skip
_schemes = st.sampled_from(["upto", "batch-settlement", "Exact"])
_networks = ["base", "eip155:8453", "eip155:084532", "EIP155:84532", "solana:x", "base-sepolia"]


def _spelled(address: str) -> st.SearchStrategy[str]:
    body = address[2:]
    return st.sampled_from([address, "0x" + body.lower(), "0x" + body.upper()])


@st.composite
def _entry(draw: st.DrawFn, network: str) -> list[tuple[str, Any]]:
    """One way to pay, as pairs: a name may come twice. About every other is right."""

    def mostly(right: st.SearchStrategy[Any], wrong: st.SearchStrategy[Any]) -> Any:
        return draw(wrong if draw(st.integers(0, 11)) == 11 else right)

    amount = mostly(st.integers(0, 1_150).map(str), _amount)
    good = {"name": USDC.name, "version": USDC.version, "paymentFlow": "upfront"}
    wrong_address = st.sampled_from([KEY.address, OTHER, BASE.usdc.address, "USDC", None])
    pairs = [
        ("scheme", mostly(st.just("exact"), _schemes)),
        ("network", mostly(st.just(network), st.sampled_from(_networks))),
        ("amount", amount),
        ("maxAmountRequired", amount),
        ("asset", mostly(_spelled(USDC.address), wrong_address)),
        ("payTo", mostly(_spelled(SELLER), wrong_address)),
        ("maxTimeoutSeconds", mostly(
            st.sampled_from([60, 600, 86_400]), st.sampled_from([1, 0, -1, 2**70, "60"]))),
        ("resource", "http://s.test/execute"),
        ("extra", mostly(st.just(good), _extra)),
    ]  # fmt: skip
    twice = st.sampled_from([
        ("payTo", OTHER), ("payTo", SELLER), ("amount", "1"), ("maxAmountRequired", "999999999"),
        ("asset", USDC.address), ("network", "eip155:84532"), ("scheme", "exact"),
        ("description", "\u202e\x1b[31m"), ("outputSchema", None),
    ])  # fmt: skip
    return pairs + mostly(st.just([]), st.lists(twice, max_size=2))


def _written(value: Any) -> str:
    """JSON in which a list of pairs is an object, with its names as often as they come."""
    if isinstance(value, list) and value and all(isinstance(item, tuple) for item in value):
        members = (f"{json.dumps(name)}: {_written(member)}" for name, member in value)
        return "{" + ", ".join(members) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_written, value)) + "]"
    return json.dumps(value)


_SEED = {
    "challenge_id": "c", "amount_usd": 1e9, "amount_usdc": "1000000000", "seller_address": OTHER,
    "expires_at": "2099-01-01T00:00:00Z",
    "payment_details": {"chain": "base", "token": "USDC", "contract": OTHER},
}  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> tuple[dict[str, str], bytes]:
    """Headers and body of a 402."""

    def document(version: int, network: str) -> str:
        accepts = draw(st.lists(_entry(network), min_size=1, max_size=3))
        accepts *= draw(st.sampled_from([1, 1, 1, 20]))
        told = version if draw(st.integers(0, 11)) else draw(st.sampled_from([1, 2, 3, "1"]))
        return _written([
            ("x402Version", told), ("error", draw(st.text(max_size=10))), ("accepts", accepts),
            ("challenge", _SEED), ("resource", {"url": "http://elsewhere.test/"}),
            ("extensions", draw(_extensions)),
        ])  # fmt: skip

    body = document(1, "base-sepolia").encode()
    if draw(st.integers(0, 11)) == 11:
        body = draw(st.binary(max_size=40))
    headers = {}
    if draw(st.booleans()):
        text = document(2, "eip155:84532")
        name = draw(st.sampled_from([HEADER_REQUIRED_V2, HEADER_REQUIRED_V2.lower()]))
        headers[name] = base64.b64encode(text.encode()).decode()
    return headers, body
