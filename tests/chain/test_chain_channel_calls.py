"""Hand-encoded calls, held against the official package's own encoder; and what nodes answer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.batch_settlement.encoding import build_erc3009_collector_data
from x402.mechanisms.evm.multicall import encode_contract_call

from computeswarm.chain.abi import read_bytes_array, uint_word
from computeswarm.chain.batch_settlement import (
    VoucherClaim,
    claim_calldata,
    claim_with_signature_calldata,
    deposit_calldata,
    finalize_withdraw_calldata,
    initiate_withdraw_calldata,
    multicall_calldata,
    refund_calldata,
    refund_with_signature_calldata,
    settle_calldata,
)
from computeswarm.chain.multicall import Call, aggregate3_calldata
from computeswarm.core.channels import DEPOSIT_COLLECTOR, MAX_UINT128, ChannelConfig
from computeswarm.core.crypto import to_checksum

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: to_checksum("0x" + raw.hex()))
amounts = st.integers(0, MAX_UINT128)
words = st.integers(0, 2**256 - 1)
texts = st.binary(max_size=100)
configs = st.builds(
    ChannelConfig,
    payer=addresses,
    payer_authorizer=addresses,
    receiver=addresses,
    receiver_authorizer=addresses,
    token=addresses,
    withdraw_delay=st.integers(0, 2**40 - 1),
    salt=st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex()),
)
claims = st.lists(st.builds(VoucherClaim, configs, amounts, texts, amounts), max_size=3)


def _official(function: str, *args: Any) -> bytes:
    return encode_contract_call(BATCH_SETTLEMENT_ABI, function, *args)


def _tuple(config: ChannelConfig) -> tuple[Any, ...]:
    *rest, salt = config.wire().values()
    return (*rest, bytes.fromhex(salt[2:]))


def _rows(rows: list[VoucherClaim]) -> list[Any]:
    return [
        ((_tuple(row.config), row.max_claimable), row.signature, row.total_claimed) for row in rows
    ]


@settings(max_examples=30, deadline=None)
@given(claims, texts)
def test_claims(rows: list[VoucherClaim], signature: bytes) -> None:
    assert claim_calldata(rows) == _official("claim", _rows(rows))
    assert claim_with_signature_calldata(rows, signature) == _official(
        "claimWithSignature", _rows(rows), signature
    )


@settings(max_examples=30, deadline=None)
@given(configs, amounts, words, words, words, texts)
def test_money_in_and_back(
    config: ChannelConfig, amount: int, after: int, before: int, salt: int, signature: bytes
) -> None:
    data = build_erc3009_collector_data(str(after), str(before), str(salt), signature.hex())
    assert deposit_calldata(
        config, amount, valid_after=after, valid_before=before, salt=salt, signature=signature
    ) == _official("deposit", _tuple(config), amount, DEPOSIT_COLLECTOR, data)
    assert refund_calldata(config, amount) == _official("refund", _tuple(config), amount)
    assert refund_with_signature_calldata(config, amount, salt, signature) == _official(
        "refundWithSignature", _tuple(config), amount, salt, signature
    )
    assert initiate_withdraw_calldata(config, amount) == _official(
        "initiateWithdraw", _tuple(config), amount
    )
    assert finalize_withdraw_calldata(config) == _official("finalizeWithdraw", _tuple(config))
    assert settle_calldata(config.receiver, config.token) == _official(
        "settle", config.receiver, config.token
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(texts, max_size=4), addresses)
def test_many_calls_in_one(calls: list[bytes], target: str) -> None:
    from eth_abi import decode, encode

    assert multicall_calldata(calls) == _official("multicall", calls)
    assert read_bytes_array(encode(["bytes[]"], [calls])) == calls
    rows = [Call(target, data, allow_failure=bool(len(data) % 2)) for data in calls]
    (found,) = decode(["(address,bool,bytes)[]"], aggregate3_calldata(rows)[4:])
    assert list(found) == [(target.lower(), call.allow_failure, call.data) for call in rows]


@given(st.binary(max_size=300))
def test_any_bytes_are_an_answer_or_an_error(answer: bytes) -> None:
    try:
        elements = read_bytes_array(answer)
    except ValueError:
        return
    assert len(elements) * 32 <= len(answer)


def test_an_answer_that_lies_on_itself_does_not_grow() -> None:
    """Every element points at the same large one, as a hostile node might answer."""
    count, content = 500, bytes(320_000)
    offsets = [uint_word(count * 32)] * count
    answer = uint_word(32) + uint_word(count) + b"".join(offsets)
    answer += uint_word(len(content)) + content
    with pytest.raises(ValueError, match="short"):
        read_bytes_array(answer)
