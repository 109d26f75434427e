"""What the chain says of a wallet: receipts, transfers and balances, all as of one block."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from computeswarm.chain.batch import BatchClient
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.transfers import Transfer, all_transfers, transfers_of
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Block, Receipt

_BEHIND_SECONDS = 10.0
_POLL_SECONDS = 0.5
_STRANGERS = 1_000
"""Transactions that the books don't know and that are looked into for what they paid."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """``transfers`` are all of the wallet's in the blocks ``first`` to ``last``; ``opening`` is its
    balance before them, None where the node keeps no state that old, ``closing`` the one after."""

    first: int
    last: int
    last_hash: str
    receipts: Mapping[str, Receipt | None]
    transfers: tuple[Transfer, ...]
    opening: int | None
    closing: int


async def block_at(rpc: RpcClient, time: float, last: Block) -> int:
    """The first block of that time or later; the block after ``last`` where there is none."""
    low, high = 0, last.number + 1
    while low < high:
        middle = (low + high) // 2
        if (await rpc.head(hex(middle))).timestamp < time:
            low = middle + 1
        else:
            high = middle
    return low


async def gather(
    rpc: RpcClient,
    usdc: Usdc,
    wallet: str,
    hashes: Iterable[str],
    *,
    head: Block,
    begin: int,
    whole: bool,
) -> Evidence:
    """All that concerns a wallet up to ``head``.

    Args:
        hashes: the transactions that the books name.
        begin: the first block, or one after it where ``whole`` is set: then the blocks of the
            transactions count as well.

    Raises:
        RpcUnavailable: the node doesn't say, contradicts itself, or changed its chain meanwhile.
    """
    batches = BatchClient(rpc)
    receipts = await batches.receipts(hashes)
    mined = [r.block_number for r in receipts.values() if r is not None]
    first = min([begin, *mined]) if whole else begin
    transfers = await transfers_of(rpc, usdc, wallet, first, head.number)
    strangers = [tx for tx in dict.fromkeys(t.transaction for t in transfers) if tx not in receipts]
    receipts |= await batches.receipts(strangers[:_STRANGERS])
    opening = await _opening(usdc, wallet, first)
    closing = await usdc.balance_of(wallet, block=hex(head.number))
    if (await rpc.head(hex(head.number))).hash != head.hash:
        raise RpcUnavailable("The chain took blocks back during the audit; run it again.")
    found = Evidence(first, head.number, head.hash, receipts, tuple(transfers), opening, closing)
    _check_consistent(found, usdc, wallet)
    return found


async def second_opinion(rpc: RpcClient, usdc: Usdc, wallet: str, found: Evidence) -> None:
    """Ask another node for the same, and see that it says the same.

    Raises:
        RpcUnavailable: it doesn't; nobody knows which of the two is right.
    """
    head = await _reach(rpc, found.last)
    if head.hash != found.last_hash:
        raise _contradiction(f"block {found.last}")
    other = await gather(
        rpc, usdc, wallet, found.receipts, head=head, begin=found.first, whole=False
    )
    for tx, receipt in found.receipts.items():
        if other.receipts.get(tx) != receipt:
            raise _contradiction(f"transaction {tx}")
    if sorted(map(_plain, other.transfers)) != sorted(map(_plain, found.transfers)):
        raise _contradiction(f"the transfers of {wallet}")
    openings = {other.opening, found.opening} - {None}
    if other.closing != found.closing or len(openings) > 1:
        raise _contradiction(f"the balance of {wallet}")


async def _reach(rpc: RpcClient, number: int) -> Block:
    """A block that the node may only be about to get."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _BEHIND_SECONDS
    while True:
        try:
            return await rpc.head(hex(number))
        except RpcUnavailable:
            if loop.time() > deadline:
                raise
        await asyncio.sleep(_POLL_SECONDS)


async def _opening(usdc: Usdc, wallet: str, first: int) -> int | None:
    if first == 0:
        return 0
    try:
        return await usdc.balance_of(wallet, block=hex(first - 1))
    except (RpcError, RpcUnavailable):
        return None


def _check_consistent(found: Evidence, usdc: Usdc, wallet: str) -> None:
    """The node's receipts and its events have to tell the same story."""
    by_events: dict[str, list[Transfer]] = {}
    for transfer in found.transfers:
        by_events.setdefault(transfer.transaction, []).append(transfer)
    for tx, receipt in found.receipts.items():
        by_receipt = [
            one
            for one in (all_transfers(receipt, usdc) if receipt else [])
            if one is not None
            and wallet.lower() in (one.from_, one.to)
            and found.first <= one.block <= found.last
        ]
        if sorted(map(_plain, by_receipt)) != sorted(map(_plain, by_events.get(tx, []))):
            raise RpcUnavailable(
                f"The RPC contradicts itself: receipt and events of {tx} differ. Run the audit"
                " again, or give --rpc another address."
            )


def _plain(transfer: Transfer) -> tuple[str, int, str, str, int]:
    return (
        transfer.transaction,
        transfer.block,
        transfer.from_,
        transfer.to,
        transfer.amount,
    )


def _contradiction(what: str) -> RpcUnavailable:
    return RpcUnavailable(
        f"The two RPCs contradict each other about {what}: one of them is wrong or far behind."
        " Run the audit again, or give it other addresses."
    )
