"""What became of a deposit that may be on the chain: proven, surely lost, or still unknown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Receipt
from computeswarm.core.clock import Clock
from computeswarm.core.errors import ChainUnavailable, PaymentRequired, Unavailable
from computeswarm.core.x402 import Reason
from computeswarm.payments.channels.deposit_checks import Reverts
from computeswarm.payments.channels.deposit_proof import DepositSearch
from computeswarm.payments.channels.deposit_store import DepositStore
from computeswarm.payments.channels.gate import VoucherGate
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.records import DepositRow
from computeswarm.payments.present import refused

_log = logging.getLogger(__name__)

RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_RECEIPT_SECONDS = 4.0
_EXPIRY_MARGIN_SECONDS = 30
_STATE_TRIES, _STATE_PAUSE = 10, 0.2

Confirm = Callable[[Receipt, int], Awaitable[Receipt]]


class DepositFate:
    """Decides by one chain.

    Args:
        confirm: waits until a receipt is as sure as a payment of so many atoms has to be.
    """

    def __init__(
        self,
        store: DepositStore,
        gate: VoucherGate,
        rpc: RpcClient,
        contract: BatchSettlement,
        usdc: Usdc,
        sender: TxSender,
        clock: Clock,
        reverts: Reverts,
        *,
        confirm: Confirm | None,
    ) -> None:
        self._store = store
        self._gate = gate
        self._rpc = rpc
        self._contract = contract
        self._usdc = usdc
        self._sender = sender
        self._clock = clock
        self._reverts = reverts
        self._confirm = confirm
        self.search = DepositSearch(rpc, usdc)

    async def send(self, row: DepositRow) -> None:
        """Broadcast it for the first time.

        Raises:
            Unavailable: the chain surely refused it; nothing was taken.
        """
        assert row.signed_tx is not None
        try:
            await self._sender.broadcast(row.signed_tx)
        except RpcError as error:
            self._store.fail(row, ChannelReason.DEPOSIT_FAILED)
            _log.warning("the chain refused a deposit: %s", error.message)
            raise Unavailable(
                "The seller can't take deposits now; nothing was taken, try again later."
            ) from None
        except ChainUnavailable as error:
            _log.warning("broadcast without an answer: %s", error.detail)

    async def wait(self, row: DepositRow, *, look_first: bool) -> DepositRow:
        """The row once it is settled; unknown is not failed, however long it takes.

        Args:
            look_first: it may never have been sent, or long ago.

        Raises:
            PaymentRequired, Unavailable: it surely did not pay.
        """
        pauses = iter(RETRY_SECONDS)
        while True:
            try:
                if look_first and (decided := await self._reconsider(row)) is not None:
                    return decided
                receipt = await self._sender.wait_receipt(row.transaction, timeout=_RECEIPT_SECONDS)
                return await self._judge(row, receipt)
            except (ChainUnavailable, RpcError) as error:
                _log.warning("a deposit's fate is not known yet: %s", error.detail)
                await self._unblock(row)
                await asyncio.sleep(next(pauses, RETRY_SECONDS[-1]))
            look_first = True

    async def _unblock(self, row: DepositRow) -> None:
        """It may wait behind a nonce of ours that was never sent."""
        if row.signed_tx is not None:
            with contextlib.suppress(RpcError, ChainUnavailable):
                await self._sender.unblock(row.signed_tx)

    async def _judge(self, row: DepositRow, receipt: Receipt) -> DepositRow:
        """Settled or failed, by our own transaction's receipt."""
        self._store.note_gas(receipt)
        if self.search.proves(receipt, row):
            return await self.settled(row, receipt)
        self._reverts.note(row.payer)
        if await self._usdc.authorization_state(row.payer, row.nonce):
            earlier = await self.search.find(row)
            if earlier is not None:
                return await self.settled(row, earlier)
            raise self._failed(row, Reason.NONCE_USED)
        poor = await self._usdc.balance_of(row.payer) < row.amount
        raise self._failed(
            row, ChannelReason.INSUFFICIENT_BALANCE if poor else ChannelReason.DEPOSIT_FAILED
        )

    async def _reconsider(self, row: DepositRow) -> DepositRow | None:
        """No receipt yet: send the same bytes again, and see whether they can still be mined."""
        signed = row.signed_tx
        assert signed is not None
        # "nonce too low" and the like are judged below, and so is a node that only reads now
        with contextlib.suppress(RpcError, ChainUnavailable):
            await self._rpc.send_raw(signed.raw)
        used, mined, head = await asyncio.gather(
            self._usdc.authorization_state(row.payer, row.nonce),
            self._rpc.nonce(self._sender.address, "latest"),
            self._rpc.head(),
        )
        receipt = await self._rpc.receipt(signed.hash)
        if receipt is not None:
            return await self._judge(row, receipt)
        if used and (earlier := await self.search.find(row)) is not None:
            return await self.settled(row, earlier)
        if head.timestamp > row.valid_before + _EXPIRY_MARGIN_SECONDS:
            raise self._failed(row, Reason.NONCE_USED if used else ChannelReason.VALID_BEFORE)
        if mined > signed.nonce and not used:
            self._store.fail(row, ChannelReason.DEPOSIT_FAILED)
            raise Unavailable("The deposit was lost; nothing was taken, try the same again.")
        return None

    async def settled(
        self, row: DepositRow, receipt: Receipt, *, turn_away: bool = False
    ) -> DepositRow:
        """Write down that a transaction brought it, once that is sure enough.

        Args:
            turn_away: what it was for was refused.

        Raises:
            ChainUnavailable: it is not known any more.
        """
        if self._confirm is not None:
            receipt = await self._confirm(receipt, row.price)
        state = await self._state_with(row)
        return self._store.settle(
            row,
            receipt.tx_hash,
            receipt.block_number,
            state,
            self._clock.now(),
            turn_away=turn_away,
        )

    async def _state_with(self, row: DepositRow) -> OnChain:
        """The channel's state once the node that answers has seen the deposit; a node that lags
        behind another is asked a few times, then believed."""
        wanted = self._gate.known_balance(row.channel_id) + row.amount
        state = await self._contract.state(row.channel_id)
        for _ in range(_STATE_TRIES):
            if state.balance >= min(wanted, row.max_claimable):
                break
            await asyncio.sleep(_STATE_PAUSE)
            state = await self._contract.state(row.channel_id)
        return state

    def _failed(self, row: DepositRow, reason: str) -> PaymentRequired:
        self._store.fail(row, reason)
        return refused(reason, "The deposit did not go through; nothing was taken.")

    async def revisit(self, depth: int) -> None:
        """Look whether a reorg took a deposit's block; then its bytes go out again.

        Args:
            depth: blocks after which no block is taken back.

        Raises:
            ChainUnavailable: the chain doesn't say.
        """
        rows = self._store.shallow()
        if not rows:
            return
        head = await self._rpc.block_number()
        for row in rows:
            assert row.signed_tx is not None
            receipt = await self._rpc.receipt(row.transaction)
            if receipt is None:
                _log.warning("deposit %s left the chain; it is sent again", row.transaction)
                with contextlib.suppress(RpcError):
                    await self._rpc.send_raw(row.signed_tx.raw)
                await self._gate.renew(row.channel_id)
            elif receipt.block_number != row.block:
                self._store.moved(row, receipt.block_number)
            elif head - receipt.block_number >= depth:
                self._store.deep(row)
