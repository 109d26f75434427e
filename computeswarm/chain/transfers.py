"""All that moved between an account and USDC, by the contract's own events, in bounded ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from computeswarm.chain.abi import WORD, address_word, read_uint, topic_address
from computeswarm.chain.batch import all_or_none
from computeswarm.chain.errors import RpcError, RpcUnavailable
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import TRANSFER_TOPIC, Usdc
from computeswarm.chain.wire import Log, Receipt, parse_hash, parse_log, parse_quantity
from computeswarm.core.crypto import same_address

RANGE_BLOCKS = 5_000
"""Blocks of one question at first; public nodes allow from 500 to 10,000 and more."""
_LEAST_BLOCKS = 16


@dataclass(frozen=True, slots=True)
class Transfer:
    """One movement of ``amount`` atoms; addresses and hash as lower-case 0x hex."""

    transaction: str
    block: int
    from_: str
    to: str
    amount: int

    def within(self, account: str) -> int:
        """What it changed in an account, in atoms."""
        gained = self.amount if same_address(self.to, account) else 0
        return gained - (self.amount if same_address(self.from_, account) else 0)


def transfers_in(receipt: Receipt, usdc: Usdc, from_: str, to: str) -> list[Transfer]:
    """What a successful transaction moved of the pinned token between two accounts."""
    return [
        one
        for one in all_transfers(receipt, usdc)
        if one is not None and same_address(one.from_, from_) and same_address(one.to, to)
    ]


def all_transfers(receipt: Receipt, usdc: Usdc) -> list[Transfer | None]:
    """The pinned token's transfers at the places of their events, None at those of others."""
    if not receipt.succeeded:
        return []
    return [_of_log(log, usdc, receipt.tx_hash, receipt.block_number) for log in receipt.logs]


async def transfers_of(
    rpc: RpcClient, usdc: Usdc, account: str, first: int, last: int
) -> list[Transfer]:
    """All transfers from and to an account in the blocks ``first`` to ``last``, by block.

    Raises:
        RpcUnavailable: the node doesn't say, or says what was not asked.
    """
    word = "0x" + address_word(account).hex()
    # one question for each direction: nodes can't ask for "this topic or that position"
    sent, received = await all_or_none(
        [
            _search(rpc, usdc, [TRANSFER_TOPIC, word], first, last),
            _search(rpc, usdc, [TRANSFER_TOPIC, None, word], first, last),
        ]
    )
    to_himself = [one for one in sent if same_address(one.to, account)]
    if len(to_himself) != sum(same_address(one.from_, account) for one in received):
        raise _nonsense()
    others = [one for one in received if not same_address(one.from_, account)]
    return sorted([*sent, *others], key=lambda one: one.block)


async def transfers_between(
    rpc: RpcClient, usdc: Usdc, from_: str, to: str, first: int, last: int
) -> list[Transfer]:
    """All transfers from one account to another in the blocks ``first`` to ``last``, by block.

    Raises:
        RpcUnavailable: the node doesn't say, or says what was not asked.
    """
    words = ["0x" + address_word(account).hex() for account in (from_, to)]
    return await _search(rpc, usdc, [TRANSFER_TOPIC, *words], first, last)


async def _search(
    rpc: RpcClient, usdc: Usdc, topics: list[str | None], first: int, last: int
) -> list[Transfer]:
    found: list[Transfer] = []
    step = RANGE_BLOCKS
    while first <= last:
        end = min(last, first + step - 1)
        query = {
            "address": usdc.address,
            "topics": topics,
            "fromBlock": hex(first),
            "toBlock": hex(end),
        }
        try:
            answer = await rpc.call("eth_getLogs", [query])
        except (RpcError, RpcUnavailable):
            # nodes differ in how many blocks, and events, one question may cover, and in the error
            if step <= _LEAST_BLOCKS or end == first:
                raise
            step = max(_LEAST_BLOCKS, step // 4)
            continue
        found += _read(answer, usdc, topics, first, end)
        first = end + 1
    return found


def _read(
    answer: Any, usdc: Usdc, topics: list[str | None], first: int, last: int
) -> list[Transfer]:
    if not isinstance(answer, list):
        raise _nonsense()
    found = []
    for item in answer:
        log = parse_log(item)
        block = parse_quantity(item.get("blockNumber"))
        transfer = _of_log(log, usdc, parse_hash(item.get("transactionHash")), block)
        wanted = zip(topics, log.topics, strict=False)
        strange = any(asked is not None and given != asked for asked, given in wanted)
        if transfer is None or strange or not first <= block <= last:
            raise _nonsense()
        found.append(transfer)
    return found


def _of_log(log: Log, usdc: Usdc, transaction: str, block: int) -> Transfer | None:
    if (
        not same_address(log.address, usdc.address)
        or len(log.topics) != 3
        or log.topics[0] != TRANSFER_TOPIC
        or len(log.data) != WORD
    ):
        return None
    payer, payee = topic_address(log.topics[1]), topic_address(log.topics[2])
    return Transfer(transaction, block, payer, payee, read_uint(log.data))


def _nonsense() -> RpcUnavailable:
    return RpcUnavailable(
        "The RPC's answer makes no sense (events that were not asked for, or are missing); give"
        " --rpc another address."
    )
