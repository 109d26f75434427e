"""Running code and transactions on one state: the only file that touches py-evm's execution.

py-evm's ``Chain`` is left out on purpose: it insists that time moves on with every block, imports
each block twice and finds receipts by scanning. A block here is one state, one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from eth.db.atomic import AtomicDB
from eth.db.backends.memory import MemoryDB
from eth.exceptions import Revert
from eth.vm.chain_context import ChainContext
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.transactions import PragueTransactionBuilder
from eth_utils.exceptions import ValidationError

from computeswarm.core.crypto import SECP256K1_N

GAS_LIMIT = 30_000_000
_GAS_TX = 21_000
_FLOOR_PER_TOKEN = 10  # EIP-7623: calldata has a floor price
_NON_ZERO_TOKENS = 4
_CREATE = b""


class Rejected(Exception):
    """A transaction or call that can't be run at all; the text is what geth would say."""


class Failed(Exception):
    """Code that ran and failed; ``output`` is what it reverted with, None where it broke down."""

    def __init__(self, output: bytes | None, error: str) -> None:
        super().__init__(error)
        self.output = output


@dataclass(slots=True)
class Call:
    """A call without a signature, in the shape py-evm's transaction executor asks for."""

    sender: bytes
    to: bytes
    data: bytes
    value: int
    gas: int
    nonce: int = 0
    max_fee_per_gas: int = 0
    max_priority_fee_per_gas: int = 0
    gas_price: int = 0
    access_list: tuple[()] = ()
    authorization_list: tuple[()] = ()
    blob_versioned_hashes: tuple[()] = ()
    type_id: int = 2

    @property
    def intrinsic_gas(self) -> int:
        """Gas spent before the first instruction (EIP-2028, EIP-3860)."""
        zeros = self.data.count(0)
        gas = _GAS_TX + 4 * zeros + 16 * (len(self.data) - zeros)
        if self.to == _CREATE:
            gas += 32_000 + 2 * -(-len(self.data) // 32)
        return gas


@dataclass(frozen=True, slots=True)
class Outcome:
    """A transaction that was mined, whether or not its code succeeded."""

    succeeded: bool
    gas_used: int
    gas_price: int
    logs: tuple[tuple[bytes, tuple[int, ...], bytes], ...]
    contract: bytes | None
    state_root: bytes


class Machine:
    """The virtual machine of one chain and the store of all its states."""

    def __init__(self, chain_id: int) -> None:
        self.chain_id = chain_id
        self._context = ChainContext(chain_id)
        self._db = AtomicDB(MemoryDB())

    def state(self, header: Any, ancestors: Iterable[Any]) -> Any:
        """The state ``header.state_root``, in the environment of ``header``."""
        return PragueVM.build_state(self._db, header, self._context, ancestors)

    def decode(self, raw: bytes) -> Any:
        """A signed transaction that could run on this chain, its sender recovered.

        Raises:
            Rejected: it can't be read, or is for another chain, or its signature is bad.
        """
        try:
            tx = PragueTransactionBuilder.decode(raw)
            _ = tx.sender  # recovered once, cached
        except Exception as error:  # rlp, sedes and signature errors share no base class
            raise Rejected(f"invalid transaction: {error}"[:300]) from error
        if tx.s > SECP256K1_N // 2:
            raise Rejected("invalid transaction: high s")
        if tx.chain_id != self.chain_id:
            raise Rejected(f"invalid chain id for signer: have {tx.chain_id} want {self.chain_id}")
        if tx.type_id == 3:
            raise Rejected("transaction type not supported")
        return tx

    def check(self, state: Any, tx: Any) -> None:
        """Refuse what a node's mempool would refuse, apart from the nonce.

        Raises:
            Rejected: too little gas, fee or balance.
        """
        if tx.gas > GAS_LIMIT:
            raise Rejected("exceeds block gas limit")
        if tx.gas < max(tx.intrinsic_gas, _floor_gas(tx.data)):
            raise Rejected("intrinsic gas too low")
        if tx.max_priority_fee_per_gas > tx.max_fee_per_gas:
            raise Rejected("max priority fee per gas higher than max fee per gas")
        if tx.max_fee_per_gas < state.execution_context.base_fee_per_gas:
            raise Rejected("max fee per gas less than block base fee")
        if state.get_balance(tx.sender) < tx.gas * tx.max_fee_per_gas + tx.value:
            raise Rejected("insufficient funds for gas * price + value")

    def apply(self, state: Any, tx: Any) -> Outcome:
        """Mine a transaction into a state and keep the new state.

        Raises:
            Rejected: it can't be part of a block.
        """
        state.lock_changes()
        try:
            done = state.apply_transaction(tx)
        except ValidationError as error:
            raise Rejected(str(error)[:300]) from error
        gas_price = state.get_gas_price(tx)
        succeeded = not done.is_error
        state.persist()
        return Outcome(
            succeeded=succeeded,
            gas_used=_gas_used(tx, done),
            gas_price=gas_price,
            logs=done.get_log_entries() if succeeded else (),
            contract=done.msg.storage_address if tx.to == _CREATE else None,
            state_root=state.state_root,
        )

    def run(self, state: Any, call: Call) -> tuple[bytes, int]:
        """Run a call and forget its effects: what it returned, and the gas it took.

        Raises:
            Failed: the code failed.
            Rejected: the call can't start.
        """
        if call.gas < call.intrinsic_gas:
            raise Rejected("intrinsic gas too low")
        if call.value > state.get_balance(call.sender):
            raise Rejected("insufficient funds for transfer")
        snapshot = state.snapshot()
        try:
            executor = state.get_transaction_executor()
            done = executor.build_computation(executor.build_evm_message(call), call)
            if done.is_error:
                raise _failure(done)
            executor.finalize_computation(call, done)
            return bytes(done.output), _gas_used(call, done)
        finally:
            state.revert(snapshot)

    def estimate(self, state: Any, call: Call) -> int:
        """The least gas limit with which a call succeeds, within 1 % above.

        Mostly two runs: at the limit, then at what that one used. A call that hands gas on needs
        more than it uses (EIP-150), which a search finds.
        """
        ceiling = call.gas
        _, low = self.run(state, call)
        high = ceiling
        guess = low
        while True:
            call.gas = guess
            try:
                self.run(state, call)
                high = guess
            except (Failed, Rejected):
                low = guess
            if high - low <= high // 100 or guess == high == low:
                return high
            guess = min((low + high) // 2, low + low // 8)


def _floor_gas(data: bytes) -> int:
    zeros = data.count(0)
    return _GAS_TX + _FLOOR_PER_TOKEN * (zeros + _NON_ZERO_TOKENS * (len(data) - zeros))


def _gas_used(tx: Any, done: Any) -> int:
    used = tx.gas - done.get_gas_remaining()
    refund = min(done.get_gas_refund(), used // 5)
    return int(max(used - refund, _floor_gas(tx.data)))


def _failure(done: Any) -> Failed:
    error = done.error
    if isinstance(error, Revert):
        return Failed(bytes(done.output), "execution reverted")
    return Failed(None, f"{type(error).__name__}: {error}"[:200])
