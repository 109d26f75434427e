"""One account's transactions: right bytes, no gaps, nothing twice, nothing forgotten."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.tx import sign_transaction
from computeswarm.chain.usdc import Usdc, transfer_calldata
from computeswarm.core.crypto import PrivateKey

_GAS = 80_000
_TOO_MUCH = 10**30  # more wei than there is: every node refuses it


@given(
    secret=st.binary(min_size=32, max_size=32).filter(lambda raw: 0 < int.from_bytes(raw) < 2**255),
    to=st.binary(min_size=20, max_size=20),
    data=st.one_of(st.binary(max_size=80), st.just(b"\x7f"), st.binary(min_size=250, max_size=300)),
    nonce=st.integers(0, 2**40),
    value=st.integers(0, 2**90),
    fee=st.integers(0, 2**50),
)
def test_signed_bytes_are_those_of_eth_account(
    secret: bytes, to: bytes, data: bytes, nonce: int, value: int, fee: int
) -> None:
    fields = {"nonce": nonce, "to": "0x" + to.hex(), "data": data, "value": value, "gas": 90_000}
    ours = sign_transaction(
        PrivateKey(secret), chain_id=8453, max_fee=fee, priority_fee=fee // 2, **fields
    )
    account = Account.from_key(secret)
    fields["to"] = bytes(to)
    theirs = account.sign_transaction(
        {**fields, "chainId": 8453, "maxFeePerGas": fee, "maxPriorityFeePerGas": fee // 2}
    )
    assert ours.raw == bytes(theirs.raw_transaction)
    assert ours.hash == "0x" + bytes(theirs.hash).hex()


async def test_concurrent_transactions_are_all_mined_whatever_their_order(
    chain: Devnet, rpc: RpcClient, usdc: Usdc, sender: TxSender
) -> None:
    payee = PrivateKey.generate().address
    data = transfer_calldata(payee, 3)
    signed = await asyncio.gather(*(sender.prepare(chain.usdc, data, gas=_GAS) for _ in range(20)))
    nonces = sorted(tx.nonce for tx in signed)
    assert nonces == list(range(nonces[0], nonces[0] + 20))
    shuffled = list(signed)
    random.Random(7).shuffle(shuffled)
    for tx in shuffled:
        await sender.broadcast(tx)
    receipts = await asyncio.gather(*(sender.wait_receipt(tx.hash) for tx in signed))
    assert all(receipt.succeeded for receipt in receipts)
    assert await usdc.balance_of(payee) == 60
    assert await rpc.nonce(sender.address) == nonces[-1] + 1


async def test_gas_is_estimated_and_a_revert_is_refused_before_it_has_a_nonce(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    before = await rpc.nonce(sender.address)
    with pytest.raises(RpcError) as caught:
        await sender.prepare(chain.usdc, transfer_calldata(chain.keys[1].address, 10**30))
    assert caught.value.reason == "ERC20: transfer amount exceeds balance"
    tx = await sender.prepare(chain.usdc, transfer_calldata(chain.keys[1].address, 1))
    assert tx.nonce == before
    await sender.broadcast(tx)
    assert (await sender.wait_receipt(tx.hash)).succeeded


async def test_a_refused_transaction_gives_its_nonce_back(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    data = transfer_calldata(chain.keys[1].address, 1)
    refused = await sender.prepare(chain.usdc, data, gas=_GAS, value=_TOO_MUCH)
    with pytest.raises(RpcError):
        await sender.broadcast(refused)
    following = await sender.prepare(chain.usdc, data, gas=_GAS)
    assert following.nonce == refused.nonce
    await sender.broadcast(following)
    assert (await sender.wait_receipt(following.hash)).succeeded


async def test_a_refused_transaction_does_not_hold_up_those_sent_after_it(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    data = transfer_calldata(chain.keys[1].address, 1)
    refused = await sender.prepare(chain.usdc, data, gas=_GAS, value=_TOO_MUCH)
    later = await sender.prepare(chain.usdc, data, gas=_GAS)
    await sender.broadcast(later)
    with pytest.raises(RpcError):
        await sender.broadcast(refused)
    assert (await sender.wait_receipt(later.hash)).succeeded
    after = await sender.prepare(chain.usdc, data, gas=_GAS)
    assert after.nonce == later.nonce + 1


async def test_a_nonce_that_a_crash_forgot_holds_up_what_came_after_it_only_until_it_is_filled(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    data = transfer_calldata(chain.keys[1].address, 1)
    await sender.prepare(chain.usdc, data, gas=_GAS)
    await sender.prepare(chain.usdc, data, gas=_GAS)
    later = await sender.prepare(chain.usdc, data, gas=_GAS)
    await sender.broadcast(later)
    restarted = TxSender(rpc, chain.keys[0], chain.chain_id)
    assert await rpc.receipt(later.hash) is None
    for _ in range(3):
        await restarted.unblock(later)
    assert (await restarted.wait_receipt(later.hash)).succeeded
    assert await rpc.nonce(restarted.address) == later.nonce + 1


async def test_a_stranger_who_used_the_key_only_costs_one_refusal(
    chain: Devnet, rpc: RpcClient, sender: TxSender
) -> None:
    data = transfer_calldata(chain.keys[1].address, 1)
    ours = await sender.prepare(chain.usdc, data, gas=_GAS)
    stranger = TxSender(rpc, chain.keys[0], chain.chain_id)
    theirs = await stranger.prepare(chain.usdc, transfer_calldata(chain.usdc, 2), gas=_GAS)
    await stranger.broadcast(theirs)
    await stranger.wait_receipt(theirs.hash)
    with pytest.raises(RpcError, match="nonce"):
        await sender.broadcast(ours)
    again = await sender.prepare(chain.usdc, data, gas=_GAS)
    assert again.nonce == theirs.nonce + 1
    await sender.broadcast(again)
    assert (await sender.wait_receipt(again.hash)).succeeded


class LosingRpc(RpcClient):
    """Delivers transactions, and loses the reply as often as told."""

    losses = 0

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        result = await super().call(method, params)
        if method == "eth_sendRawTransaction" and self.losses:
            self.losses -= 1
            raise RpcUnavailable("The reply was lost.")
        return result


async def test_after_a_lost_reply_the_same_bytes_are_sent_again_and_count_once(
    chain: Devnet, usdc: Usdc
) -> None:
    payee = PrivateKey.generate().address
    async with LosingRpc(chain.url) as rpc:
        rpc.losses = 1
        sender = TxSender(rpc, chain.keys[2], chain.chain_id)
        tx = await sender.prepare(chain.usdc, transfer_calldata(payee, 5), gas=_GAS)
        with pytest.raises(RpcUnavailable):
            await sender.broadcast(tx)
        following = await sender.prepare(chain.usdc, transfer_calldata(payee, 5), gas=_GAS)
        assert following.nonce == tx.nonce + 1, "an unknown transaction keeps its nonce"
        await sender.wait_receipt(tx.hash)
        await sender.broadcast(tx)
        await sender.broadcast(following)
        await sender.broadcast(following)
        await sender.wait_receipt(following.hash)
    assert await usdc.balance_of(payee) == 10


async def test_no_receipt_in_time_is_unknown(chain: Devnet, sender: TxSender) -> None:
    tx = await sender.prepare(chain.usdc, transfer_calldata(chain.usdc, 1), gas=_GAS)
    with pytest.raises(RpcUnavailable, match="may still come"):
        await sender.wait_receipt(tx.hash, timeout=0.05)
    await sender.release(tx)
