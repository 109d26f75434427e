"""The official package's own facilitator and client, unmodified, on our contract.

It is synchronous, so it runs in a thread.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from channel_rig import CHAIN, DELAY, ChannelRig
from eth_account import Account
from x402.mechanisms.evm.batch_settlement import types
from x402.mechanisms.evm.batch_settlement.authorizer_signer import LocalAuthorizerSigner
from x402.mechanisms.evm.batch_settlement.client.scheme import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.facilitator import BatchSettlementEvmFacilitator
from x402.mechanisms.evm.batch_settlement.utils import compute_channel_id
from x402.mechanisms.evm.signers import FacilitatorWeb3Signer
from x402.schemas import PaymentPayload, PaymentRequirements

from computeswarm.chain.batch_settlement import (
    ChannelState,
    deposit_proof,
    refund_proof,
    settled_amount,
)
from computeswarm.core.channels import ChannelConfig

PRICE = 1000


@pytest.fixture
def facilitator(rig: ChannelRig) -> BatchSettlementEvmFacilitator:
    """It pays the gas from a key of its own; the receiver's key signs claims and refunds."""
    signer = FacilitatorWeb3Signer(
        private_key="0x" + rig.relayer.secret.hex(), rpc_url=rig.devnet.url
    )
    authorizer = LocalAuthorizerSigner(Account.from_key(rig.receiver.secret))
    return BatchSettlementEvmFacilitator(signer, authorizer)


def _requirements(rig: ChannelRig) -> PaymentRequirements:
    return PaymentRequirements(
        scheme="batch-settlement",
        network=CHAIN.caip2,
        amount=str(PRICE),
        asset=CHAIN.usdc.address,
        pay_to=rig.receiver.address,
        max_timeout_seconds=600,
        extra={
            "receiverAuthorizer": rig.receiver.address,
            "withdrawDelay": DELAY,
            "name": CHAIN.usdc.name,
            "version": CHAIN.usdc.version,
        },
    )


async def test_a_channels_whole_life_by_the_official_programs(
    rig: ChannelRig, facilitator: BatchSettlementEvmFacilitator
) -> None:
    wanted = _requirements(rig)
    client = BatchSettlementEvmScheme(Account.from_key(rig.payer.secret))

    async def ask(payload: dict[str, Any]) -> Any:
        body = PaymentPayload(payload=payload, accepted=wanted)
        verdict = await asyncio.to_thread(facilitator.verify, body, wanted)
        assert verdict.is_valid, verdict
        return verdict

    async def settle(payload: dict[str, Any]) -> Any:
        body = PaymentPayload(payload=payload, accepted=wanted)
        result = await asyncio.to_thread(facilitator.settle, body, wanted)
        assert result.success, result
        return result, await rig.rpc.receipt(result.transaction)

    # the client signs a deposit and its first voucher; the facilitator brings it
    payload = await asyncio.to_thread(client.create_payment_payload, wanted)
    config = ChannelConfig.parse(payload["channelConfig"])
    official = types.ChannelConfig.from_dict(config.wire())
    name = compute_channel_id(official, CHAIN.caip2)
    deposited = int(payload["deposit"]["amount"])
    await ask(payload)
    result, receipt = await settle(payload)
    assert deposit_proof(receipt, name, deposited)
    assert result.extra["channelState"]["balance"] == str(deposited)
    assert await rig.contract.state(name) == ChannelState(deposited, 0, 0, 0, 0)

    # our voucher for the second request, as theirs was for the first
    row = rig.row(config, 2 * PRICE)
    voucher = {
        "channelId": name,
        "maxClaimableAmount": str(2 * PRICE),
        "signature": "0x" + row.signature.hex(),
    }
    verdict = await ask({"type": "voucher", "channelConfig": config.wire(), "voucher": voucher})
    assert verdict.payer == rig.payer.address

    # claim, settle, and the rest back, each signed and sent by the facilitator
    claim = types.VoucherClaim(official, str(2 * PRICE), voucher["signature"], str(2 * PRICE))
    claims = types.ClaimPayload(claims=[claim])
    await settle(claims.to_dict())
    assert (await rig.contract.state(name)).total_claimed == 2 * PRICE
    paying = types.SettlePayload(receiver=rig.receiver.address, token=CHAIN.usdc.address)
    _, receipt = await settle(paying.to_dict())
    assert settled_amount(receipt, rig.receiver.address, CHAIN.usdc.address) == 2 * PRICE
    refund = types.EnrichedRefundPayload(
        channel_config=official,
        voucher=types.VoucherFields(name, str(2 * PRICE), voucher["signature"]),
        amount=str(deposited - 2 * PRICE),
        refund_nonce="0",
        claims=[claim],
    )
    result, receipt = await settle(refund.to_dict())
    assert refund_proof(receipt, name) == deposited - 2 * PRICE
    assert await rig.contract.state(name) == ChannelState(2 * PRICE, 2 * PRICE, 0, 0, 1)


async def test_the_official_facilitator_refuses_what_our_contract_would(
    rig: ChannelRig, facilitator: BatchSettlementEvmFacilitator
) -> None:
    wanted = _requirements(rig)
    config, name = await rig.open(5 * PRICE)
    reasons = {}
    rows = {
        "good": rig.row(config, PRICE),
        "forged": rig.row(config, PRICE, key=rig.relayer),
        "too much": rig.row(config, 6 * PRICE),
    }
    for how, row in rows.items():
        voucher = {
            "channelId": name,
            "maxClaimableAmount": str(row.max_claimable),
            "signature": "0x" + row.signature.hex(),
        }
        payload = {"type": "voucher", "channelConfig": config.wire(), "voucher": voucher}
        body = PaymentPayload(payload=payload, accepted=wanted)
        verdict = await asyncio.to_thread(facilitator.verify, body, wanted)
        reasons[how] = verdict.invalid_reason
    assert reasons == {
        "good": None,
        "forged": "invalid_batch_settlement_evm_voucher_signature",
        "too much": "invalid_batch_settlement_evm_cumulative_exceeds_balance",
    }
