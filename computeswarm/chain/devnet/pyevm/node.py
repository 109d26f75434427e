"""The chain itself: blocks, a pool for nonces that came too early, and indexes for every look-up.

Each transaction gets a block at once. Time is the wall clock's and never runs ahead of it: blocks
may share a second. An idle chain grows by an empty block when somebody looks (see ``advance``).
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from eth.constants import ZERO_ADDRESS
from eth.db.trie import make_trie_root_and_nodes
from eth.vm.forks.prague.blocks import PragueBlockHeader
from eth_bloom.bloom import BloomFilter

from computeswarm.chain.devnet.pyevm.evm import GAS_LIMIT, Machine, Outcome, Rejected

BASE_FEE = 10_000_000  # wei per gas, and constant: a hundredth of a gwei, as on Base
PRIORITY_FEE = 1_000_000
BLOCK_SECONDS = 2
_MAX_POOL = 4096
_MAX_NONCE_GAP = 1024
_ANCESTORS = 256


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction, what became of it, and where the chain's list of events it wrote begins."""

    tx: Any
    outcome: Outcome
    first_log: int


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block of one transaction or none."""

    header: Any
    mined: Mined | None


@dataclass(frozen=True, slots=True)
class StoredLog:
    """One event and its place: its index within its block is also that within its transaction."""

    block: int
    index: int
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


class Node:
    """An instant-mining chain in memory."""

    def __init__(self, chain_id: int) -> None:
        self.machine = Machine(chain_id)
        self.blocks: list[StoredBlock] = []
        self.number_of: dict[bytes, int] = {}
        self.block_of_tx: dict[bytes, int] = {}
        self.logs: list[StoredLog] = []
        self.pool: dict[bytes, dict[int, Any]] = {}
        self.pooled: dict[bytes, Any] = {}
        self._log_blocks: list[int] = []
        self._snapshots: list[int] = []
        self._time_offset = 0
        self._append(PragueBlockHeader(timestamp=self.now(), **_header_fields(0)), None)

    @property
    def head(self) -> StoredBlock:
        """The latest block."""
        return self.blocks[-1]

    def now(self) -> int:
        """Unix seconds by the wall clock, plus what ``evm_increaseTime`` added."""
        return int(time.time()) + self._time_offset

    def increase_time(self, seconds: int) -> int:
        """Move the chain's clock ahead for good; the whole offset in seconds."""
        self._time_offset += seconds
        return self._time_offset

    def advance(self) -> None:
        """Add an empty block where the last is older than a block time.

        Called before each answer, so that nobody ever sees an old time, at no cost while idle.
        """
        if self.now() - self.head.header.timestamp >= BLOCK_SECONDS:
            self.mine_empty()

    def mine_empty(self) -> None:
        """Add a block without transactions."""
        self._append(self.pending_header(), None)

    def pending_header(self) -> Any:
        """The header of the block that would come next, on the state as it is."""
        parent = self.head.header
        return PragueBlockHeader(
            timestamp=max(self.now(), parent.timestamp),
            parent_hash=parent.hash,
            state_root=parent.state_root,
            **_header_fields(parent.block_number + 1),
        )

    def ancestors(self, number: int) -> Iterator[bytes]:
        """The hashes before block ``number``, youngest first, for BLOCKHASH."""
        for index in range(number - 1, max(-1, number - 1 - _ANCESTORS), -1):
            yield self.blocks[index].header.hash

    def state_at(self, header: Any) -> Any:
        """The state after the block of that header, in its environment."""
        return self.machine.state(header, self.ancestors(header.block_number))

    def send_raw(self, raw: bytes) -> bytes:
        """Mine a transaction now, or hold it until the nonces before it have come.

        Raises:
            Rejected: as a node's mempool would.
        """
        tx = self.machine.decode(raw)
        if tx.hash in self.block_of_tx or tx.hash in self.pooled:
            raise Rejected("already known")
        state = self.state_at(self.pending_header())
        expected = state.get_nonce(tx.sender)
        if tx.nonce < expected:
            raise Rejected(f"nonce too low: next nonce {expected}, tx nonce {tx.nonce}")
        self.machine.check(state, tx)
        if tx.nonce == expected:
            self._mine(tx)
            self._promote(tx.sender, expected + 1)
        else:
            self._hold(tx, expected)
        return bytes(tx.hash)

    def set_state(
        self,
        address: bytes,
        *,
        code: bytes | None = None,
        balance: int | None = None,
        slot: tuple[int, int] | None = None,
    ) -> None:
        """Change an account by fiat, in a block of its own."""
        header = self.pending_header()
        state = self.state_at(header)
        if code is not None:
            state.set_code(address, code)
        if balance is not None:
            state.set_balance(address, balance)
        if slot is not None:
            state.set_storage(address, *slot)
        state.persist()
        self._append(header.copy(state_root=state.state_root), None)

    def snapshot(self) -> int:
        """Remember the head; the number (from 1) by which ``revert`` comes back to it."""
        self._snapshots.append(self.head.header.block_number)
        return len(self._snapshots)

    def revert(self, number: int) -> bool:
        """Forget every block since a snapshot, with what waits for later nonces: a reorganisation.

        That snapshot and later ones are used up; False where there is no such snapshot.
        """
        if not 1 <= number <= len(self._snapshots):
            return False
        height = self._snapshots[number - 1]
        del self._snapshots[number - 1 :]
        for block in self.blocks[height + 1 :]:
            del self.number_of[block.header.hash]
            if block.mined is not None:
                del self.block_of_tx[block.mined.tx.hash]
        kept = bisect_right(self._log_blocks, height)
        del self.blocks[height + 1 :], self.logs[kept:], self._log_blocks[kept:]
        self.pool.clear()
        self.pooled.clear()
        return True

    def logs_between(self, first: int, last: int) -> list[StoredLog]:
        """The events of the blocks ``first`` to ``last``, both included."""
        begin = bisect_left(self._log_blocks, first)
        return self.logs[begin : bisect_right(self._log_blocks, last)]

    def _hold(self, tx: Any, expected: int) -> None:
        if len(self.pooled) >= _MAX_POOL or tx.nonce - expected > _MAX_NONCE_GAP:
            raise Rejected("txpool is full")
        waiting = self.pool.setdefault(tx.sender, {})
        earlier = waiting.get(tx.nonce)
        if earlier is not None:
            if tx.max_fee_per_gas * 10 < earlier.max_fee_per_gas * 11:
                raise Rejected("replacement transaction underpriced")
            del self.pooled[earlier.hash]
        waiting[tx.nonce] = self.pooled[tx.hash] = tx

    def _promote(self, sender: bytes, nonce: int) -> None:
        waiting = self.pool.get(sender, {})
        # the account may have replaced what was held for a nonce that is now used
        for stale in [held for held in waiting if held < nonce]:
            del self.pooled[waiting.pop(stale).hash]
        while (tx := waiting.pop(nonce, None)) is not None:
            del self.pooled[tx.hash]
            try:
                self.machine.check(self.state_at(self.pending_header()), tx)
                self._mine(tx)
            except Rejected:
                return  # its sender can't pay for it any more; as in a real pool, it is dropped
            nonce += 1
        if not waiting:
            self.pool.pop(sender, None)

    def _mine(self, tx: Any) -> None:
        header = self.pending_header()
        outcome = self.machine.apply(self.state_at(header), tx)
        receipt = tx.make_receipt(
            b"\x01" if outcome.succeeded else b"", outcome.gas_used, outcome.logs
        )
        bloom = BloomFilter()
        for address, topics, _ in outcome.logs:
            bloom.add(address)
            for topic in topics:
                bloom.add(topic.to_bytes(32))
        header = header.copy(
            state_root=outcome.state_root,
            transaction_root=make_trie_root_and_nodes((tx,))[0],
            receipt_root=make_trie_root_and_nodes((receipt,))[0],
            gas_used=outcome.gas_used,
            bloom=int(bloom),
        )
        self.block_of_tx[tx.hash] = header.block_number
        first_log = len(self.logs)
        for index, (address, topics, data) in enumerate(outcome.logs):
            words = tuple(topic.to_bytes(32) for topic in topics)
            self.logs.append(StoredLog(header.block_number, index, address, words, data))
            self._log_blocks.append(header.block_number)
        self._append(header, Mined(tx, outcome, first_log))

    def _append(self, header: Any, mined: Mined | None) -> None:
        self.blocks.append(StoredBlock(header, mined))
        self.number_of[header.hash] = header.block_number


def _header_fields(number: int) -> dict[str, Any]:
    return {
        "difficulty": 0,
        "block_number": number,
        "gas_limit": GAS_LIMIT,
        "base_fee_per_gas": BASE_FEE,
        "coinbase": ZERO_ADDRESS,
    }
