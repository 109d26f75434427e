"""Many calls in one transaction, at Multicall3's own address."""

from __future__ import annotations

import secrets
import time

import pytest
from eth_abi import decode, encode

from computeswarm.chain.abi import address_word, read_uint, selector
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError
from computeswarm.chain.multicall import MULTICALL3, Call, aggregate3_calldata
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import (
    Authorization,
    Usdc,
    authorization_calldata,
    transfer_calldata,
)
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.eip712 import transfer_authorization_digest


def _payment(key: PrivateKey, payee: str, value: int) -> tuple[Authorization, bytes]:
    now = int(time.time())
    nonce = "0x" + secrets.token_hex(32)
    paid = Authorization(key.address, payee, value, now - 60, now + 600, nonce)
    digest = transfer_authorization_digest(
        BASE_SEPOLIA,
        from_=paid.from_,
        to=paid.to,
        value=paid.value,
        valid_after=paid.valid_after,
        valid_before=paid.valid_before,
        nonce=paid.nonce,
    )
    return paid, authorization_calldata(paid, key.sign_digest(digest))


def results_of(answer: bytes) -> list[tuple[bool, bytes]]:
    """(succeeded, what it returned or reverted with) of each call of an ``aggregate3``."""
    from eth_abi import decode

    return list(decode(["(bool,bytes)[]"], answer)[0])


async def test_payments_of_several_wallets_land_in_one_transaction(
    chain: Devnet, rpc: RpcClient, usdc: Usdc, sender: TxSender
) -> None:
    """One that fails leaves the others standing, and each is proven by its own events."""
    payee, poor = PrivateKey.generate().address, PrivateKey.generate()
    payments = [_payment(key, payee, 10 + index) for index, key in enumerate(chain.keys[1:4])]
    payments.insert(1, _payment(poor, payee, 1))
    calls = [Call(usdc.address, data) for _, data in payments]
    data = aggregate3_calldata(calls)
    answer = results_of(await rpc.eth_call(MULTICALL3, data, sender=sender.address))
    assert [ok for ok, _ in answer] == [True, False, True, True]
    signed = await sender.prepare(MULTICALL3, data)
    await sender.broadcast(signed)
    receipt = await sender.wait_receipt(signed.hash)
    proven = [usdc.payment_proof(receipt, paid) for paid, _ in payments]
    assert proven == [True, False, True, True]
    assert await usdc.balance_of(payee) == 10 + 11 + 12


async def test_a_call_that_may_not_fail_takes_all_of_them_back(
    rpc: RpcClient, usdc: Usdc, chain: Devnet
) -> None:
    good = Call(usdc.address, _payment(chain.keys[1], chain.keys[2].address, 1)[1])
    bad = Call(usdc.address, transfer_calldata(chain.keys[2].address, 1), allow_failure=False)
    for calls in ([good, bad], [bad, good]):
        with pytest.raises(RpcError) as refused:
            await rpc.eth_call(MULTICALL3, aggregate3_calldata(calls))
        assert refused.value.reason == "Multicall3: call failed"
    assert results_of(await rpc.eth_call(MULTICALL3, aggregate3_calldata([]))) == []


async def test_calls_come_from_the_contract_and_from_nobody_else(
    rpc: RpcClient, usdc: Usdc, chain: Devnet
) -> None:
    """So it can't move the sender's own money."""
    data = aggregate3_calldata([Call(usdc.address, transfer_calldata(chain.keys[2].address, 1))])
    answer = await rpc.eth_call(MULTICALL3, data, sender=chain.keys[1].address)
    assert results_of(answer)[0][0] is False


async def test_the_older_call_that_public_programs_use(
    rpc: RpcClient, usdc: Usdc, chain: Devnet
) -> None:
    balance = selector("balanceOf(address)") + address_word(chain.keys[1].address)
    calls = [(usdc.address, balance), (usdc.address, transfer_calldata(usdc.address, 1))]
    head = selector("tryAggregate(bool,(address,bytes)[])")

    def data(strict: bool) -> bytes:
        return head + encode(["bool", "(address,bytes)[]"], [strict, calls])

    (found,) = decode(["(bool,bytes)[]"], await rpc.eth_call(MULTICALL3, data(False)))
    assert [ok for ok, _ in found] == [True, False]
    assert read_uint(found[0][1]) == await usdc.balance_of(chain.keys[1].address)
    with pytest.raises(RpcError):
        await rpc.eth_call(MULTICALL3, data(True))
