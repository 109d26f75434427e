"""What must not work on a payment channel, whoever tries."""

from __future__ import annotations

from dataclasses import replace

import pytest
import pytest_asyncio
from channel_rig import CHAIN, DELAY, ChannelRig

from computeswarm.chain.abi import (
    address_word,
    bytes32_word,
    bytes_tail,
    selector,
    topic,
    uint_word,
)
from computeswarm.chain.batch_settlement import (
    ChannelState,
    deposit_calldata,
    deposit_proof,
    finalize_withdraw_calldata,
    initiate_withdraw_calldata,
    multicall_calldata,
    refund_calldata,
    refund_with_signature_calldata,
    settle_calldata,
)
from computeswarm.chain.devnet import faucet_key
from computeswarm.chain.errors import RpcError
from computeswarm.core.chains import BASE
from computeswarm.core.channels import (
    BATCH_SETTLEMENT,
    DEPOSIT_COLLECTOR,
    MAX_UINT128,
    ChannelConfig,
    channel_id,
    refund_digest,
    voucher_digest,
)
from computeswarm.core.crypto import SECP256K1_N, PrivateKey

_ATTACKED = topic("Attacked(bool,bytes)")
_REENTRANT = selector("ReentrancyGuardReentrantCall()")
_STATE = ChannelState(1000, 0, 0, 0, 0)


async def test_a_claim_needs_the_payers_voucher_for_this_channel(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    other, other_name = await rig.open(1000)
    good = rig.row(config, 500)
    on_base = rig.payer.sign_digest(voucher_digest(name, 500, BASE))
    r, s, v = good.signature[:32], int.from_bytes(good.signature[32:64]), good.signature[64]
    twin = r + (SECP256K1_N - s).to_bytes(32) + bytes([55 - v])
    compact = r + (s | (v - 27) << 255).to_bytes(32)
    forged = {
        "foreign key": rig.row(config, 500, key=rig.relayer),
        "another channel's": replace(good, signature=rig.row(other, 500).signature),
        "another chain's": replace(good, signature=on_base),
        "a lower voucher's": replace(good, max_claimable=501),
        "malleable": replace(good, signature=twin),
        "compact": replace(good, signature=compact),
        "short": replace(good, signature=good.signature[:64]),
        "long": replace(good, signature=good.signature + b"\0"),
        "empty": replace(good, signature=b""),
        "v of 0": replace(good, signature=good.signature[:64] + bytes([v - 27])),
        "all zero": replace(good, signature=bytes(65)),
    }
    for how, row in forged.items():
        assert await rig.refusal(rig.receiver, rig.claim(row)) == "InvalidSignature", how
        assert await rig.refusal(rig.relayer, rig.signed_claim([row])) == "InvalidSignature", how
    # one bad row takes a whole batch back
    both = rig.claim(rig.row(other, 10), forged["foreign key"])
    assert not (await rig.send(rig.receiver, both)).succeeded
    assert await rig.contract.states([name, other_name]) == [_STATE, _STATE]
    assert await rig.refusal(rig.receiver, rig.claim(good)) is None


async def test_a_claim_stays_below_the_voucher_and_the_balance(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    assert await rig.refusal(rig.receiver, rig.claim(rig.row(config, 500, 501))) == (
        "ClaimExceedsCeiling"
    )
    for ceiling in (1001, MAX_UINT128):
        assert await rig.refusal(rig.receiver, rig.claim(rig.row(config, ceiling))) == (
            "ClaimExceedsBalance"
        )
    # a voucher above the deposit is good for what there is
    await rig.done(rig.receiver, rig.claim(rig.row(config, MAX_UINT128, 1000)))
    assert await rig.contract.state(name) == replace(_STATE, total_claimed=1000)


async def test_only_the_receivers_side_claims_and_refunds(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    row = rig.row(config, 500)
    for stranger in (rig.payer, rig.relayer):
        assert await rig.refusal(stranger, rig.claim(row)) == "NotAuthorizedToClaim"
        assert await rig.refusal(stranger, rig.signed_claim([row], key=stranger)) == (
            "InvalidSignature"
        )
        assert await rig.refusal(stranger, refund_calldata(config, 1)) == "NotAuthorizedToRefund"
        signature = stranger.sign_digest(refund_digest(name, 0, 1000, CHAIN))
        data = refund_with_signature_calldata(config, 1000, 0, signature)
        assert await rig.refusal(stranger, data) == "InvalidSignature"
    # the receiver's signature is for one channel, nonce, amount and chain, and for one purpose
    other, other_name = await rig.open(1000)
    signatures = (
        rig.receiver.sign_digest(refund_digest(other_name, 0, 1000, CHAIN)),
        rig.receiver.sign_digest(refund_digest(name, 0, 999, CHAIN)),
        rig.receiver.sign_digest(refund_digest(name, 1, 1000, CHAIN)),
        rig.receiver.sign_digest(refund_digest(name, 0, 1000, BASE)),
        rig.receiver.sign_digest(voucher_digest(name, 1000, CHAIN)),
    )
    for signature in signatures:
        data = refund_with_signature_calldata(config, 1000, 0, signature)
        assert await rig.refusal(rig.relayer, data) == "InvalidSignature"
    # a batch is signed as a whole: no row more, less or changed
    rows = [row, rig.row(other, 500)]
    signed = rig.signed_claim(rows)
    cheaper = rig.signed_claim([replace(row, total_claimed=499), rows[1]])
    assert await rig.refusal(rig.relayer, cheaper[:-96] + signed[-96:]) == "InvalidSignature"
    mixed = rig.row(rig.config(receiver_authorizer=rig.relayer.address), 1)
    assert await rig.refusal(rig.relayer, rig.signed_claim([row, mixed])) == (
        "NotReceiverAuthorizer"
    )


async def test_a_receivers_authorizer_may_claim_but_the_money_is_the_receivers(
    rig: ChannelRig,
) -> None:
    config, _ = await rig.open(1000, receiver_authorizer=rig.relayer.address)
    held = await rig.usdc.balance_of(rig.relayer.address)
    await rig.done(rig.relayer, rig.claim(rig.row(config, 700)))
    await rig.done(rig.relayer, settle_calldata(config.receiver, config.token))
    await rig.done(rig.relayer, settle_calldata(rig.relayer.address, config.token))
    assert await rig.usdc.balance_of(rig.receiver.address) == 700
    assert await rig.usdc.balance_of(rig.relayer.address) == held


async def test_only_the_payers_side_withdraws(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    for stranger in (rig.relayer, rig.receiver):
        assert await rig.refusal(stranger, initiate_withdraw_calldata(config, 1000)) == (
            "NotAuthorizedToWithdraw"
        )
    # one's own name on a channel like it is another channel, with nothing in it
    like = replace(config, payer=rig.relayer.address, payer_authorizer=rig.relayer.address)
    assert await rig.refusal(rig.relayer, initiate_withdraw_calldata(like, 1)) == (
        "WithdrawAmountExceedsAvailable"
    )
    # a shorter delay, too
    await rig.done(rig.payer, initiate_withdraw_calldata(config, 1000))
    shorter = replace(config, withdraw_delay=0)
    assert await rig.refusal(rig.payer, finalize_withdraw_calldata(shorter)) == (
        "WithdrawalNotPending"
    )
    assert (await rig.contract.state(name)).balance == 1000


async def test_a_deposits_signature_is_for_one_channel_and_one_time(rig: ChannelRig) -> None:
    config = rig.config()
    data = await rig.deposit_call(config, 100)
    mine = replace(config, receiver=rig.relayer.address, receiver_authorizer=rig.relayer.address)
    led_away = data.replace(address_word(config.receiver), address_word(rig.relayer.address))
    assert led_away != data
    reason = "FiatTokenV2: invalid signature"
    assert await rig.refusal(rig.relayer, led_away) == reason
    assert await rig.refusal(rig.relayer, await rig.deposit_call(mine, 100, key=rig.relayer)) == (
        reason
    )
    # nor does anybody use it up by going to the collector himself
    collector_data = data[4 + 11 * 32 :][: 8 * 32]
    collect = (
        selector("collect(address,address,uint128,bytes32,bytes)")
        + address_word(config.payer)
        + address_word(config.token)
        + uint_word(100)
        + bytes32_word(channel_id(config, CHAIN))
        + uint_word(5 * 32)
        + bytes_tail(collector_data)
    )
    with pytest.raises(RpcError) as refused:
        await rig.rpc.eth_call(DEPOSIT_COLLECTOR, collect, sender=rig.relayer.address)
    assert refused.value.reason == "OnlySettlement"
    await rig.rpc.eth_call(DEPOSIT_COLLECTOR, collect, sender=BATCH_SETTLEMENT)
    receipt = await rig.done(rig.relayer, data)
    assert await rig.refusal(rig.relayer, data) == (
        "FiatTokenV2: authorization is used or canceled"
    )
    assert deposit_proof(receipt, channel_id(config, CHAIN), 100)
    expired = deposit_calldata(
        config, 100, valid_after=0, valid_before=1, salt=1, signature=bytes(65)
    )
    assert await rig.refusal(rig.relayer, expired) == "FiatTokenV2: authorization is expired"


async def test_multicall_gives_nobody_anothers_name(rig: ChannelRig) -> None:
    config, name = await rig.open(1000)
    attacks = {
        "NotAuthorizedToRefund": refund_calldata(config, 1000),
        "NotAuthorizedToClaim": rig.claim(rig.row(config, 1000)),
        "NotAuthorizedToWithdraw": initiate_withdraw_calldata(config, 1000),
    }
    for reason, call in attacks.items():
        for data in (
            multicall_calldata([call]),
            multicall_calldata([multicall_calldata([call])]),
            multicall_calldata([settle_calldata(config.receiver, config.token), call]),
        ):
            assert await rig.refusal(rig.relayer, data) == reason
    # one call that fails takes the others back
    calls = [rig.claim(rig.row(config, 10)), rig.claim(rig.row(config, 2000))]
    assert not (await rig.send(rig.receiver, multicall_calldata(calls))).succeeded
    assert await rig.contract.state(name) == _STATE


class Hostile:
    """A channel in a token, and with a collector, of an attacker's making."""

    def __init__(self, rig: ChannelRig, token: str) -> None:
        self.rig = rig
        self.token = token
        self.config = rig.config(token=token)
        self.name = channel_id(self.config, CHAIN)

    async def call(self, signature: str, words: bytes) -> None:
        receipt = await self.rig.send(self.rig.relayer, selector(signature) + words, to=self.token)
        assert receipt.succeeded

    def deposit(self, amount: int, brought: int, config: ChannelConfig | None = None) -> bytes:
        """A deposit of ``amount`` for which the collector brings something else."""
        honest = deposit_calldata(
            config or self.config, amount, valid_after=0, valid_before=0, salt=0, signature=b""
        )
        head = honest[: 4 + 8 * 32]
        offset = uint_word(10 * 32)
        return head + address_word(self.token) + offset + bytes_tail(uint_word(brought))

    async def arm(self, data: bytes) -> None:
        words = address_word(BATCH_SETTLEMENT) + uint_word(64) + bytes_tail(data)
        await self.call("arm(address,bytes)", words)


@pytest_asyncio.fixture
async def hostile(rig: ChannelRig, hostile_token_code: str) -> Hostile:
    token = PrivateKey.generate().address
    await rig.devnet.place(token, hostile_token_code)
    return Hostile(rig, token)


async def test_a_lying_collector_credits_nothing(rig: ChannelRig, hostile: Hostile) -> None:
    for amount, brought in ((100, 0), (100, 99), (100, 101), (MAX_UINT128, 1)):
        data = hostile.deposit(amount, brought)
        assert await rig.refusal(rig.relayer, data) == "DepositCollectionFailed"
    # the collector's tokens are not USDC, however it is asked
    await rig.open(500)
    in_usdc = hostile.deposit(100, 100, rig.config())
    assert await rig.refusal(rig.relayer, in_usdc) == "DepositCollectionFailed"
    # nor does an address without code, or the token itself, collect
    for collector in (rig.relayer.address, CHAIN.usdc.address, BATCH_SETTLEMENT):
        data = hostile.deposit(100, 100, rig.config())
        data = data.replace(address_word(hostile.token), address_word(collector))
        assert not (await rig.send(rig.relayer, data)).succeeded
    await rig.done(rig.relayer, hostile.deposit(100, 100))
    assert (await rig.contract.state(hostile.name)).balance == 100
    await rig.done(rig.relayer, hostile.deposit(MAX_UINT128 - 100, MAX_UINT128 - 100))
    assert await rig.refusal(rig.relayer, hostile.deposit(1, 1)) == "DepositOverflow"


async def test_nothing_is_entered_twice(rig: ChannelRig, hostile: Hostile) -> None:
    """The token calls back while its transfer is under way: from a deposit, a settlement, a refund
    and a withdrawal, into each of them."""
    config = hostile.config
    await rig.done(rig.relayer, hostile.deposit(1000, 1000))
    await rig.done(rig.receiver, rig.claim(rig.row(config, 300)))
    await rig.done(rig.payer, initiate_withdraw_calldata(config, 100))
    await rig.devnet.advance_time(DELAY + 1)
    digest = refund_digest(hostile.name, 0, 50, CHAIN)
    again = {
        "deposit": hostile.deposit(10, 10),
        "settle": settle_calldata(config.receiver, config.token),
        "refund": refund_with_signature_calldata(config, 50, 0, rig.receiver.sign_digest(digest)),
        "claim": rig.signed_claim([rig.row(config, 400)]),
        "multicall": multicall_calldata([settle_calldata(config.receiver, config.token)]),
    }
    steps = [
        (rig.relayer, hostile.deposit(10, 10)),
        (rig.relayer, settle_calldata(config.receiver, config.token)),
        (rig.receiver, refund_calldata(config, 60)),
        (rig.payer, finalize_withdraw_calldata(config)),
    ]
    for (key, data), call in zip(steps, [*again.values()][1:], strict=True):
        await hostile.arm(call)
        receipt = await rig.done(key, data)
        (attack,) = (log for log in receipt.logs if log.topics[0] == _ATTACKED)
        assert attack.data[:32] == bytes(32)
        assert _REENTRANT in attack.data
    # 1000 + 10 came in, 60 + 40 (100 less the refund of 60) went back
    assert await rig.contract.state(hostile.name) == ChannelState(910, 300, 0, 0, 1)
    assert await rig.contract.receiver_totals(config.receiver, config.token) == (300, 300)
    await hostile.arm(again["deposit"])
    receipt = await rig.done(rig.relayer, hostile.deposit(10, 10))
    assert _REENTRANT in next(log.data for log in receipt.logs if log.topics[0] == _ATTACKED)
    assert (await rig.contract.state(hostile.name)).balance == 920


async def test_a_payer_who_may_not_be_paid_does_not_hold_up_the_receiver(
    rig: ChannelRig,
) -> None:
    """USDC's blacklist stops a refund, and with it a multicall; the claim alone goes through."""
    payer = PrivateKey.generate()
    await rig.devnet.fund(payer.address, usdc_atoms=1000)
    config = rig.config(payer=payer.address, payer_authorizer=payer.address)
    await rig.done(rig.relayer, await rig.deposit_call(config, 1000, key=payer))
    blacklist = selector("blacklist(address)") + address_word(payer.address)
    await rig.send(faucet_key(), blacklist, to=CHAIN.usdc.address)
    claim = rig.claim(rig.row(config, 400, key=payer))
    settle = settle_calldata(config.receiver, config.token)
    closing = multicall_calldata([claim, settle, refund_calldata(config, 600)])
    assert await rig.refusal(rig.receiver, closing) == ("Blacklistable: account is blacklisted")
    await rig.done(rig.receiver, multicall_calldata([claim, settle]))
    assert await rig.usdc.balance_of(rig.receiver.address) == 400
