"""The settlement contract of payment channels, by every road that its specification names."""

from __future__ import annotations

import secrets

import pytest
from channel_rig import CHAIN, DELAY, ChannelRig

from computeswarm.chain.abi import bytes32_word, selector, topic, uint_word
from computeswarm.chain.batch_settlement import (
    ChannelState,
    claimed,
    deposit_proof,
    finalize_withdraw_calldata,
    initiate_withdraw_calldata,
    multicall_calldata,
    refund_calldata,
    refund_proof,
    refund_with_signature_calldata,
    settle_calldata,
    settled_amount,
    withdrawal_initiated,
    withdrawal_proof,
)
from computeswarm.chain.errors import RpcUnavailable
from computeswarm.chain.wire import Receipt
from computeswarm.core.channels import (
    BATCH_SETTLEMENT,
    MAX_UINT128,
    ZERO_ADDRESS,
    ChannelConfig,
    channel_id,
    claim_batch_digest,
    refund_digest,
    voucher_digest,
)
from computeswarm.core.crypto import PrivateKey

_CONFIG = "(address,address,address,address,address,uint40,bytes32)"
_CREATED = topic(f"ChannelCreated(bytes32,{_CONFIG})")
_CLOSED = topic(f"ChannelClosed(bytes32,{_CONFIG})")


def _settle(config: ChannelConfig) -> bytes:
    return settle_calldata(config.receiver, config.token)


def _has(receipt: Receipt, kind: str) -> bool:
    return any(log.topics[0] == kind for log in receipt.logs)


def _signed_refund(rig: ChannelRig, config: ChannelConfig, amount: int, nonce: int) -> bytes:
    digest = refund_digest(channel_id(config, CHAIN), nonce, amount, CHAIN)
    signature = rig.receiver.sign_digest(digest)
    return refund_with_signature_calldata(config, amount, nonce, signature)


async def test_digests_and_ids_are_the_contracts_own(rig: ChannelRig) -> None:
    config, other = rig.config(), rig.config(payer_authorizer=ZERO_ADDRESS, withdraw_delay=86_400)
    name = channel_id(config, CHAIN)
    row = rig.row(config, 5000, 4000)

    async def ask(data: bytes) -> bytes:
        return await rig.rpc.eth_call(BATCH_SETTLEMENT, data)

    # the calls that carry a config or rows are those of the bindings, under another selector
    for some in (config, other):
        body = finalize_withdraw_calldata(some)[4:]
        assert await ask(selector(f"getChannelId({_CONFIG})") + body) == bytes32_word(
            channel_id(some, CHAIN)
        )
    words = bytes32_word(name) + uint_word(5000)
    assert await ask(selector("getVoucherDigest(bytes32,uint128)") + words) == voucher_digest(
        name, 5000, CHAIN
    )
    words = bytes32_word(name) + uint_word(7) + uint_word(30)
    assert await ask(selector("getRefundDigest(bytes32,uint256,uint128)") + words) == refund_digest(
        name, 7, 30, CHAIN
    )
    rows = [row, rig.row(other, 10, 9)]
    entries = [(name, 5000, 4000), (channel_id(other, CHAIN), 10, 9)]
    body = rig.claim(*rows)[4:]
    types = f"(({_CONFIG},uint128),bytes,uint128)[]"
    assert await ask(selector(f"getClaimBatchDigest({types})") + body) == claim_batch_digest(
        entries, CHAIN
    )


async def test_deposit_then_top_up(rig: ChannelRig) -> None:
    held = await rig.usdc.balance_of(rig.payer.address)
    config = rig.config()
    name = channel_id(config, CHAIN)
    assert await rig.contract.state(name) == ChannelState(0, 0, 0, 0, 0)
    # a stranger brings the deposit: the payer signed for this channel and pays no gas
    first = await rig.done(rig.relayer, await rig.deposit_call(config, 700))
    assert deposit_proof(first, name, 700)
    assert _has(first, _CREATED)
    second = await rig.done(rig.receiver, await rig.deposit_call(config, 300))
    assert deposit_proof(second, name, 300)
    assert not deposit_proof(second, name, 1000)
    assert not deposit_proof(second, channel_id(rig.config(), CHAIN), 300)
    assert not _has(second, _CREATED)
    assert await rig.contract.state(name) == ChannelState(1000, 0, 0, 0, 0)
    assert await rig.usdc.balance_of(rig.payer.address) == held - 1000


async def test_claims_only_account_and_one_settle_pays_for_many_channels(rig: ChannelRig) -> None:
    a, a_name = await rig.open(1000)
    b, b_name = await rig.open(2000)
    held = await rig.usdc.balance_of(rig.receiver.address)
    assert await rig.contract.receiver_totals(rig.receiver.address, a.token) == (0, 0)
    receipt = await rig.done(rig.receiver, rig.claim(rig.row(a, 600, 400), rig.row(b, 2000)))
    assert (claimed(receipt, a_name), claimed(receipt, b_name)) == (400, 2000)
    assert await rig.contract.states([b_name, a_name]) == [
        ChannelState(2000, 2000, 0, 0, 0),
        ChannelState(1000, 400, 0, 0, 0),
    ]
    assert await rig.usdc.balance_of(rig.receiver.address) == held
    # anybody may have it paid out, to the receiver and nobody else
    paid = await rig.done(rig.relayer, _settle(a))
    assert settled_amount(paid, rig.receiver.address, a.token) == 2400
    assert settled_amount(paid, rig.relayer.address, a.token) == 0
    assert await rig.usdc.balance_of(rig.receiver.address) == held + 2400
    again = await rig.done(rig.relayer, _settle(a))
    assert settled_amount(again, rig.receiver.address, a.token) == 0
    assert await rig.contract.receiver_totals(rig.receiver.address, a.token) == (2400, 2400)


async def test_a_relayed_claim_counts_once_and_never_backwards(rig: ChannelRig) -> None:
    a, a_name = await rig.open(1000)
    b, b_name = await rig.open(1000)
    data = rig.signed_claim([rig.row(a, 300), rig.row(b, 500, 450)])
    receipt = await rig.done(rig.relayer, data)
    assert (claimed(receipt, a_name), claimed(receipt, b_name)) == (300, 450)
    # the same again, and an older total under a newer voucher: nothing is added or taken away
    for stale in (data, rig.signed_claim([rig.row(a, 900, 200)])):
        receipt = await rig.done(rig.relayer, stale)
        assert receipt.logs == ()
    assert (await rig.contract.state(a_name)).total_claimed == 300
    assert claimed(receipt, a_name) is None


async def test_the_receiver_gives_back_by_his_own_transaction(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    held = await rig.usdc.balance_of(rig.payer.address)
    part = await rig.done(rig.receiver, refund_calldata(config, 100))
    assert refund_proof(part, name) == 100
    assert not _has(part, _CLOSED)
    await rig.done(rig.receiver, rig.claim(rig.row(config, 250)))
    # more than there is gives what there is; what was claimed stays
    rest = await rig.done(rig.receiver, refund_calldata(config, MAX_UINT128))
    assert refund_proof(rest, name) == 650
    assert not _has(rest, _CLOSED)
    nothing = await rig.done(rig.receiver, refund_calldata(config, 1))
    assert nothing.logs == ()
    assert refund_proof(nothing, name) is None
    assert await rig.contract.state(name) == ChannelState(250, 250, 0, 0, 3)
    assert await rig.usdc.balance_of(rig.payer.address) == held + 750
    assert await rig.refusal(rig.receiver, refund_calldata(config, 0)) == "ZeroRefund"


async def test_a_signed_refund_is_good_once_and_for_its_nonce(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    data, later = (_signed_refund(rig, config, 400, nonce) for nonce in (0, 1))
    assert await rig.refusal(rig.relayer, later) == "InvalidRefundNonce"
    receipt = await rig.done(rig.relayer, data)
    assert refund_proof(receipt, name) == 400
    assert await rig.refusal(rig.relayer, data) == "InvalidRefundNonce"
    # the receiver's own refund takes the nonce of one that he signed before
    await rig.done(rig.receiver, refund_calldata(config, 1))
    assert await rig.refusal(rig.relayer, later) == "InvalidRefundNonce"
    assert await rig.contract.state(name) == ChannelState(599, 0, 0, 0, 2)
    closing = await rig.done(rig.relayer, _signed_refund(rig, config, 599, 2))
    assert _has(closing, _CLOSED)
    # a drained channel may be used again, and its nonces go on
    reopened = await rig.done(rig.relayer, await rig.deposit_call(config, 5))
    assert _has(reopened, _CREATED)
    assert await rig.contract.state(name) == ChannelState(5, 0, 0, 0, 3)


async def test_a_job_ends_in_one_transaction(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    held = [await rig.usdc.balance_of(key.address) for key in (rig.payer, rig.receiver)]
    calls = [rig.claim(rig.row(config, 420)), _settle(config), refund_calldata(config, MAX_UINT128)]
    receipt = await rig.done(rig.receiver, multicall_calldata(calls))
    assert claimed(receipt, name) == 420
    assert settled_amount(receipt, rig.receiver.address, config.token) == 420
    assert refund_proof(receipt, name) == 580
    now = [await rig.usdc.balance_of(key.address) for key in (rig.payer, rig.receiver)]
    assert now == [held[0] + 580, held[1] + 420]
    # and for anybody, by the receiver's signatures
    config, name = await rig.open(1000)
    calls = [
        rig.signed_claim([rig.row(config, 10)]),
        _signed_refund(rig, config, 990, 0),
        _settle(config),
    ]
    receipt = await rig.done(rig.relayer, multicall_calldata(calls))
    assert (claimed(receipt, name), refund_proof(receipt, name)) == (10, 990)


async def test_a_payer_withdraws_without_the_receiver_after_the_delay(rig: ChannelRig) -> None:
    authorizer = rig.devnet.keys[3]
    config, name = await rig.open(1000, payer_authorizer=authorizer.address)
    held = await rig.usdc.balance_of(rig.payer.address)
    assert await rig.refusal(rig.payer, finalize_withdraw_calldata(config)) == (
        "WithdrawalNotPending"
    )
    assert await rig.refusal(rig.payer, initiate_withdraw_calldata(config, 1001)) == (
        "WithdrawAmountExceedsAvailable"
    )
    assert await rig.refusal(rig.payer, initiate_withdraw_calldata(config, 0)) == (
        "NothingToWithdraw"
    )
    begun = await rig.done(authorizer, initiate_withdraw_calldata(config, 900))
    state = await rig.contract.state(name)
    assert (state.withdraw_amount, state.balance) == (900, 1000)
    assert withdrawal_initiated(begun, name) == (900, state.withdraw_requested_at + DELAY)
    assert await rig.refusal(rig.payer, initiate_withdraw_calldata(config, 1)) == (
        "WithdrawalAlreadyPending"
    )
    await rig.devnet.advance_time(DELAY - 60)
    assert await rig.refusal(rig.payer, finalize_withdraw_calldata(config)) == (
        "WithdrawDelayNotElapsed"
    )
    # the delay is the receiver's time to claim, and what he claims is not the payer's any more
    row = rig.row(config, 300, key=authorizer)
    await rig.done(rig.receiver, rig.claim(row))
    await rig.devnet.advance_time(61)
    for stranger in (rig.relayer, rig.receiver):
        assert await rig.refusal(stranger, finalize_withdraw_calldata(config)) == (
            "NotAuthorizedToWithdraw"
        )
    ended = await rig.done(authorizer, finalize_withdraw_calldata(config))
    assert withdrawal_proof(ended, name) == 700
    assert await rig.contract.state(name) == ChannelState(300, 300, 0, 0, 0)
    assert await rig.usdc.balance_of(rig.payer.address) == held + 700
    assert await rig.refusal(rig.payer, finalize_withdraw_calldata(config)) == (
        "WithdrawalNotPending"
    )


async def test_what_was_claimed_late_is_lost_to_the_receiver(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    await rig.done(rig.payer, initiate_withdraw_calldata(config, 1000))
    await rig.devnet.advance_time(DELAY + 1)
    closing = await rig.done(rig.payer, finalize_withdraw_calldata(config))
    assert _has(closing, _CLOSED)
    assert withdrawal_proof(closing, name) == 1000
    assert await rig.refusal(rig.receiver, rig.claim(rig.row(config, 300))) == (
        "ClaimExceedsBalance"
    )


async def test_refunds_shrink_a_pending_withdrawal(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    await rig.done(rig.payer, initiate_withdraw_calldata(config, 800))
    asked = (await rig.contract.state(name)).withdraw_requested_at
    await rig.done(rig.receiver, refund_calldata(config, 300))
    assert await rig.contract.state(name) == ChannelState(700, 0, 500, asked, 1)
    await rig.done(rig.receiver, refund_calldata(config, 500))
    assert await rig.contract.state(name) == ChannelState(200, 0, 0, 0, 2)
    # nothing left at the end of the delay: the withdrawal is over all the same
    await rig.done(rig.payer, initiate_withdraw_calldata(config, 200))
    await rig.done(rig.receiver, rig.claim(rig.row(config, 200)))
    await rig.devnet.advance_time(DELAY + 1)
    ended = await rig.done(rig.payer, finalize_withdraw_calldata(config))
    assert withdrawal_proof(ended, name) == 0
    assert await rig.contract.state(name) == ChannelState(200, 200, 0, 0, 2)


async def test_a_contract_pays_by_its_own_rule(rig: ChannelRig, wallet_code: str) -> None:
    owner = PrivateKey.generate()
    wallet = PrivateKey.generate().address
    await rig.devnet.place(wallet, wallet_code + uint_word(int(owner.address, 16)).hex())
    await rig.devnet.fund(wallet, usdc_atoms=1000)
    config = rig.config(payer=wallet, payer_authorizer=ZERO_ADDRESS)
    name = channel_id(config, CHAIN)
    assert config.voucher_signer == wallet
    await rig.done(rig.relayer, await rig.deposit_call(config, 1000, key=owner))
    assert await rig.refusal(rig.receiver, rig.claim(rig.row(config, 400))) == "InvalidSignature"
    receipt = await rig.done(rig.receiver, rig.claim(rig.row(config, 400, key=owner)))
    assert claimed(receipt, name) == 400
    # the receiver's authorizer may be a contract as well
    config = rig.config(receiver_authorizer=wallet)
    await rig.done(rig.relayer, await rig.deposit_call(config, 100))
    data = rig.signed_claim([rig.row(config, 60)], key=owner)
    assert claimed(await rig.done(rig.relayer, data), channel_id(config, CHAIN)) == 60


async def test_an_authorizers_key_counts_whatever_code_its_address_gets(
    rig: ChannelRig, wallet_code: str
) -> None:
    """As by an EIP-7702 delegation, which changes how a payer himself has to sign."""
    key = PrivateKey.generate()
    await rig.devnet.place(key.address, wallet_code + uint_word(1).hex())
    config, name = await rig.open(100, payer_authorizer=key.address)
    receipt = await rig.done(rig.receiver, rig.claim(rig.row(config, 40, key=key)))
    assert claimed(receipt, name) == 40
    config = rig.config(payer=key.address, payer_authorizer=ZERO_ADDRESS)
    row = rig.row(config, 0, key=key)
    assert await rig.refusal(rig.receiver, rig.claim(row)) == "InvalidSignature"


async def test_a_plain_payer_without_authorizer_signs_himself(rig: ChannelRig) -> None:
    config, name = await rig.open(100, payer_authorizer=ZERO_ADDRESS)
    receipt = await rig.done(rig.receiver, rig.claim(rig.row(config, 40)))
    assert claimed(receipt, name) == 40


async def test_no_deposit_into_a_channel_that_nobody_could_empty(rig: ChannelRig) -> None:
    for changes, reason in (
        ({"withdraw_delay": 899}, "WithdrawDelayOutOfRange"),
        ({"withdraw_delay": 2_592_001}, "WithdrawDelayOutOfRange"),
        ({"receiver": ZERO_ADDRESS}, "InvalidChannel"),
        ({"receiver_authorizer": ZERO_ADDRESS}, "InvalidChannel"),
        ({"payer": ZERO_ADDRESS}, "InvalidChannel"),
    ):
        data = await rig.deposit_call(rig.config(**changes), 10)
        assert await rig.refusal(rig.relayer, data) == reason
    assert await rig.refusal(rig.relayer, await rig.deposit_call(rig.config(), 0)) == "ZeroDeposit"
    assert await rig.refusal(rig.receiver, rig.claim()) == "EmptyBatch"


async def test_other_contracts_events_prove_nothing(rig: ChannelRig) -> None:
    config, name = await rig.open(100)
    receipt = await rig.done(rig.receiver, rig.claim(rig.row(config, 40)))
    assert claimed(receipt, name) == 40
    moved = [type(log)("0x" + secrets.token_hex(20), log.topics, log.data) for log in receipt.logs]
    forged = Receipt(receipt.tx_hash, True, 1, receipt.block_hash, 1, 1, tuple(moved))
    failed = Receipt(receipt.tx_hash, False, 1, receipt.block_hash, 1, 1, receipt.logs)
    assert claimed(forged, name) is None
    assert claimed(failed, name) is None


async def test_state_of_a_chain_without_the_contract(rig: ChannelRig) -> None:
    assert await rig.contract.deployed()
    code = await rig.rpc.code(BATCH_SETTLEMENT)
    await rig.rpc.call("anvil_setCode", [BATCH_SETTLEMENT, "0x"])
    try:
        assert not await rig.contract.deployed()
        with pytest.raises(RpcUnavailable, match="no payment channels"):
            await rig.contract.state("0x" + 64 * "0")
    finally:
        await rig.rpc.call("anvil_setCode", [BATCH_SETTLEMENT, "0x" + code.hex()])
