"""The more it is, the deeper its block has to be; and a second node may have to agree."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from payments_engines import module_devnet  # noqa: F401 - a fixture
from payments_shop import PRICE, Shop, pay, until

from computeswarm.chain.devnet import Devnet
from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.core.errors import ConfigError, PaymentPending
from computeswarm.payments import confirmation
from computeswarm.payments.claims import ClaimState
from computeswarm.payments.confirmation import DEPTH, ConfirmationPolicy, Level, block_of
from computeswarm.payments.policy import SettlementPolicy

Opener = Callable[..., Awaitable[Shop]]


class LateRpc(RpcClient):
    """A node whose named blocks stand still at ``named`` where that is set; None: it has no names.

    ``hidden``: it has no receipts; ``elsewhere``: it saw them in another block.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.named: dict[str, int | None] = {}
        self.hidden = False
        self.elsewhere = False
        self.refuses_names = False

    async def call(self, method: str, params: Any = ()) -> Any:
        if method == "eth_getBlockByNumber" and params[0] in ("safe", "finalized"):
            if self.refuses_names:
                raise RpcError("unknown block", rpc_code=-32000)
            if params[0] in self.named:
                number = self.named[params[0]]
                params = [hex(number), False] if number is not None else params
                if number is None:
                    return None
        result = await super().call(method, params)
        if method == "eth_getTransactionReceipt" and result is not None:
            if self.hidden:
                return None
            if self.elsewhere:
                return {**result, "blockHash": "0x" + "ab" * 32}
        return result


@pytest.fixture
async def late(devnet: Devnet) -> Any:
    async with LateRpc(devnet.url) as client:
        yield client


def test_the_policy_goes_by_the_sum() -> None:
    policy = ConfirmationPolicy(safe_above=5, finalized_above=100)
    levels = [policy.level(amount) for amount in (1, 5, 6, 100, 101)]
    assert levels == [
        *(Level.RECEIPT, Level.RECEIPT),
        *(Level.SAFE, Level.SAFE, Level.FINALIZED),
    ]


@pytest.mark.parametrize(
    ("level", "policy"),
    [
        ("safe", ConfirmationPolicy(PRICE - 1, PRICE)),
        ("finalized", ConfirmationPolicy(0, PRICE - 1)),
    ],
)
async def test_a_large_payment_is_pending_until_its_block_is_deep_enough(
    devnet: Devnet,
    late: LateRpc,
    open_shop: Opener,
    level: str,
    policy: ConfirmationPolicy,
) -> None:
    late.named = {"safe": await late.block_number(), "finalized": await late.block_number()}
    shop = await open_shop(rpc=late, settle_seconds=0.3, policy=SettlementPolicy(policy))
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    for _ in range(2):
        with pytest.raises(PaymentPending):
            await shop.settle(payment)
    assert shop.started == []
    late.named[level] = await late.block_number()
    await until(lambda: bool(shop.started))
    assert (await shop.settle(payment)).state is ClaimState.CONSUMED
    await shop.settlements.close()


async def test_a_restart_while_it_waits_goes_on_waiting(
    devnet: Devnet, late: LateRpc, open_shop: Opener
) -> None:
    policy = SettlementPolicy(ConfirmationPolicy(0, PRICE))
    late.named = {"safe": await late.block_number()}
    shop = await open_shop(rpc=late, settle_seconds=0.2, policy=policy)
    payment = pay(devnet.keys[0], shop.terms.pay_to)
    with pytest.raises(PaymentPending):
        await shop.settle(payment)
    await shop.settlements.close()
    again = await open_shop(rpc=late, settle_seconds=0.2, policy=policy)
    with pytest.raises(PaymentPending):
        await again.settle(payment)
    late.named.clear()
    await late.call("evm_mine")
    await late.call("evm_mine")
    await until(lambda: bool(again.started))
    assert shop.started == []
    await again.settlements.close()


@pytest.mark.parametrize("names", ["refused", "null"])
async def test_where_a_chain_has_no_such_names_depth_stands_for_them(
    devnet: Devnet,
    late: LateRpc,
    monkeypatch: pytest.MonkeyPatch,
    names: str,
) -> None:
    late.refuses_names = names == "refused"
    late.named = {"safe": None, "finalized": None}
    monkeypatch.setitem(DEPTH, Level.SAFE, 2)
    head = await late.block_number()
    assert await block_of(late, Level.SAFE) in (head - 2, head - 1)
    assert await block_of(late, Level.FINALIZED) <= head - 890


async def test_a_second_node_has_to_have_seen_the_same(
    devnet: Devnet, late: LateRpc, open_shop: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirmation, "_POLL_SECONDS", 0.05)
    second = LateRpc(devnet.url)
    shop = await open_shop(settle_seconds=0.3, second=second)
    for fault in ("hidden", "elsewhere"):
        setattr(second, fault, True)
        before = len(shop.started)
        payment = pay(devnet.keys[0], shop.terms.pay_to)
        with pytest.raises(PaymentPending):
            await shop.settle(payment, subject=f"job-{fault}")
        assert len(shop.started) == before
        setattr(second, fault, False)
        await until(lambda before=before: len(shop.started) == before + 1)
    await shop.settlements.close()


async def test_a_second_node_of_another_chain_is_refused(devnet: Devnet, open_shop: Opener) -> None:
    class Elsewhere(RpcClient):
        async def call(self, method: str, params: Any = ()) -> Any:
            return "0x1" if method == "eth_chainId" else await super().call(method, params)

    with pytest.raises(ConfigError, match="serves"):
        await open_shop(second=Elsewhere(devnet.url))
