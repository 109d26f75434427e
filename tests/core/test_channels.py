"""Channels' ids and digests, held against eth_account and the official package."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from computeswarm.core.chains import BASE, BASE_SEPOLIA, ChainInfo
from computeswarm.core.channels import (
    BATCH_SETTLEMENT,
    DEPOSIT_COLLECTOR,
    MAX_UINT128,
    MAX_WITHDRAW_DELAY,
    MIN_WITHDRAW_DELAY,
    SCHEME,
    ZERO_ADDRESS,
    ChannelConfig,
    channel_id,
    claim_batch_digest,
    deposit_digest,
    deposit_nonce,
    refund_digest,
    voucher_digest,
)
from computeswarm.core.crypto import PrivateKey, keccak256, to_checksum

addresses = st.binary(min_size=20, max_size=20).map(lambda raw: to_checksum("0x" + raw.hex()))
amounts = st.integers(0, MAX_UINT128)
words = st.integers(0, 2**256 - 1)
chains = st.sampled_from([BASE, BASE_SEPOLIA])
configs = st.builds(
    ChannelConfig,
    payer=addresses,
    payer_authorizer=addresses | st.just(ZERO_ADDRESS),
    receiver=addresses,
    receiver_authorizer=addresses,
    token=addresses,
    withdraw_delay=st.integers(MIN_WITHDRAW_DELAY, MAX_WITHDRAW_DELAY),
    salt=st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex()),
)


def _official_digest(domain: Any, types: Any, message: Any) -> bytes:
    from eth_account.messages import encode_typed_data

    signable = encode_typed_data(domain_data=domain, message_types=types, message_data=message)
    return keccak256(b"\x19\x01" + signable.header + signable.body)


def _digest(chain: ChainInfo, types: Any, message: Any) -> bytes:
    from x402.mechanisms.evm.batch_settlement.utils import get_batch_settlement_eip712_domain

    return _official_digest(get_batch_settlement_eip712_domain(chain.chain_id), types, message)


@settings(max_examples=25, deadline=None)
@given(configs, amounts, amounts, words, chains)
def test_ids_and_digests_are_the_standards(
    config: ChannelConfig, ceiling: int, total: int, nonce: int, chain: ChainInfo
) -> None:
    from x402.mechanisms.evm.batch_settlement import constants
    from x402.mechanisms.evm.batch_settlement.types import ChannelConfig as Official
    from x402.mechanisms.evm.batch_settlement.utils import compute_channel_id

    name = channel_id(config, chain)
    assert name == compute_channel_id(Official.from_dict(config.wire()), chain.caip2)
    raw = bytes.fromhex(name[2:])
    voucher = {"channelId": raw, "maxClaimableAmount": ceiling}
    assert voucher_digest(name, ceiling, chain) == _digest(chain, constants.VOUCHER_TYPES, voucher)
    refund = {"channelId": raw, "nonce": nonce, "amount": total}
    assert refund_digest(name, nonce, total, chain) == _digest(
        chain, constants.REFUND_TYPES, refund
    )
    claims = [voucher | {"totalClaimed": total}, voucher | {"totalClaimed": 1}]
    assert claim_batch_digest([(name, ceiling, total), (name, ceiling, 1)], chain) == _digest(
        chain, constants.CLAIM_BATCH_TYPES, {"claims": claims}
    )


@settings(max_examples=25, deadline=None)
@given(configs, amounts, words, chains)
def test_a_deposit_is_signed_as_the_standard_says(
    config: ChannelConfig, amount: int, salt: int, chain: ChainInfo
) -> None:
    from dataclasses import replace

    from x402.mechanisms.evm.batch_settlement import constants
    from x402.mechanisms.evm.batch_settlement.encoding import build_erc3009_deposit_nonce

    config = replace(config, token=chain.usdc.address)
    nonce = build_erc3009_deposit_nonce(channel_id(config, chain), f"{salt:#066x}")
    assert deposit_nonce(channel_id(config, chain), salt) == nonce
    domain = {
        "name": chain.usdc.name,
        "version": chain.usdc.version,
        "chainId": chain.chain_id,
        "verifyingContract": chain.usdc.address,
    }
    message = {
        "from": config.payer,
        "to": constants.ERC3009_DEPOSIT_COLLECTOR_ADDRESS,
        "value": amount,
        "validAfter": 1,
        "validBefore": 2,
        "nonce": bytes.fromhex(nonce[2:]),
    }
    found = deposit_digest(config, chain, amount=amount, valid_after=1, valid_before=2, salt=salt)
    assert found == _official_digest(domain, constants.RECEIVE_AUTHORIZATION_TYPES, message)


def test_names_and_bounds_are_the_standards() -> None:
    from x402.mechanisms.evm.batch_settlement import constants

    assert constants.SCHEME_BATCH_SETTLEMENT == SCHEME
    assert constants.BATCH_SETTLEMENT_ADDRESS == BATCH_SETTLEMENT
    assert constants.ERC3009_DEPOSIT_COLLECTOR_ADDRESS == DEPOSIT_COLLECTOR
    assert constants.MIN_WITHDRAW_DELAY == MIN_WITHDRAW_DELAY
    assert constants.MAX_WITHDRAW_DELAY == MAX_WITHDRAW_DELAY


@given(configs)
def test_a_config_survives_the_wire_in_any_spelling(config: ChannelConfig) -> None:
    wire = config.wire()
    assert ChannelConfig.parse(wire) == config
    lower = {key: v.lower() if isinstance(v, str) else v for key, v in wire.items()}
    assert ChannelConfig.parse(lower | {"more": 1}) == config
    assert channel_id(ChannelConfig.parse(lower), BASE) == channel_id(config, BASE)


_KEY = PrivateKey(b"\1" * 32).address
_GOOD = ChannelConfig(_KEY, _KEY, _KEY, _KEY, BASE.usdc.address, 900, "0x" + 64 * "a").wire()


@pytest.mark.parametrize(
    "changes",
    [
        {"payer": "0x12"},
        {"payer": _KEY[2:]},
        {"payerAuthorizer": None},
        {"receiver": 5},
        {"receiverAuthorizer": _KEY + "0"},
        {"token": "0x" + 40 * "g"},
        {"withdrawDelay": 899},
        {"withdrawDelay": 2_592_001},
        {"withdrawDelay": True},
        {"withdrawDelay": "900"},
        {"withdrawDelay": 900.0},
        {"salt": "0x" + 62 * "a"},
        {"salt": 64 * "a"},
        {"salt": "0x" + 64 * "a" + "\n"},
        {"salt": ["0x"]},
    ],
)
def test_a_malformed_config_is_refused(changes: dict[str, Any]) -> None:
    assert ChannelConfig.parse(_GOOD)
    with pytest.raises(ValueError, match="channelConfig") as refused:
        ChannelConfig.parse(_GOOD | changes)
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize("value", [None, [], "x", 5, {}])
def test_something_else_is_no_config(value: object) -> None:
    with pytest.raises(ValueError, match="channelConfig"):
        ChannelConfig.parse(value)


def test_who_signs_vouchers() -> None:
    config = ChannelConfig.parse(_GOOD)
    other = PrivateKey(b"\2" * 32).address
    assert config.voucher_signer == _KEY
    assert ChannelConfig.parse(_GOOD | {"payerAuthorizer": other}).voucher_signer == other
    assert ChannelConfig.parse(_GOOD | {"payerAuthorizer": ZERO_ADDRESS}).voucher_signer == _KEY


def test_numbers_outside_their_types_are_not_signed() -> None:
    name = channel_id(ChannelConfig.parse(_GOOD), BASE)
    for amount in (-1, MAX_UINT128 + 1):
        with pytest.raises(OverflowError):
            voucher_digest(name, amount, BASE)
        with pytest.raises(OverflowError):
            refund_digest(name, 0, amount, BASE)
        with pytest.raises(OverflowError):
            claim_batch_digest([(name, amount, 0)], BASE)
    with pytest.raises(ValueError, match="USDC"):
        deposit_digest(
            ChannelConfig.parse(_GOOD | {"token": _KEY}),
            BASE,
            amount=1,
            valid_after=0,
            valid_before=1,
            salt=0,
        )
