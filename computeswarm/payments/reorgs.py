"""Blocks that the chain takes back, with payments and refunds of ours in them.

A look is cheap: if the newest block that was checked is still the chain's, so are all before it,
and only newer ones are asked for, many in one request. What vanished is sent again, as the same
bytes or as the same authorization. A payment that can't be made any more is lost, and said to be.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from computeswarm.chain.batch import BatchClient
from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Block, Receipt, parse_block
from computeswarm.core.clock import Clock
from computeswarm.core.errors import ChainUnavailable, ComputeSwarmError
from computeswarm.payments import receipts
from computeswarm.payments.claims import Claim, ClaimStore
from computeswarm.payments.confirmation import Level, block_of
from computeswarm.payments.facilitators.base import Facilitator
from computeswarm.payments.fate import EXPIRY_MARGIN_SECONDS, Fates
from computeswarm.payments.receipts import Placed
from computeswarm.payments.refunds import RefundQueue

_log = logging.getLogger(__name__)

WATCH_SECONDS = 10.0
_COMEBACK_SECONDS = 7 * 86_400
"""For so long it is looked whether what was lost comes after all."""
OnLost = Callable[[Claim], Awaitable[None]]


class ReorgWatch:
    """Looks, from time to time, whether what was paid is still paid."""

    def __init__(
        self,
        store: ClaimStore,
        rpc: RpcClient,
        usdc: Usdc,
        sender: TxSender,
        facilitator: Facilitator,
        fates: Fates,
        refunds: RefundQueue,
        clock: Clock,
        *,
        on_lost: OnLost | None,
        seconds: float,
    ) -> None:
        self._store = store
        self._rpc = rpc
        self._many = BatchClient(rpc)
        self._usdc = usdc
        self._sender = sender
        self._facilitator = facilitator
        self._fates = fates
        self._refunds = refunds
        self._clock = clock
        self._on_lost = on_lost
        self._seconds = seconds
        self._anchor: tuple[int, str] | None = None
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            try:
                await self.look()
            except ComputeSwarmError as error:
                _log.warning("can't look for payments that were taken back: %s", error.detail)
            except Exception:
                _log.exception("can't look for payments that were taken back")
            await asyncio.sleep(self._seconds)

    async def look(self) -> None:
        """One round.

        Raises:
            RpcUnavailable: the chain doesn't say; the next round starts where this one ended.
        """
        await self._take_back()
        for claim in self._store.reorged():
            await self._recover(claim)
        for claim in self._store.untold():
            if self._on_lost is not None:
                await self._on_lost(claim)
            self._store.told(claim)
        await self._give_back_late()

    async def _take_back(self) -> None:
        newest = receipts.newest(self._store.db)
        if newest is None:
            return
        final = await block_of(self._rpc, Level.FINALIZED)
        checked = await self._checked_before()
        # what becomes final is looked at once more, whatever an earlier look said
        unsure = receipts.not_final(self._store.db, above=checked, upto=final)
        blocks = await self._hashes({row.block for row in unsure})
        # a node without the block is behind, or its chain has yet to grow: nothing is known
        if any(blocks[row.block] is None for row in unsure):
            return
        if gone := [row for row in unsure if blocks[row.block] != row.block_hash]:
            self._anchor = None
            await self._mark(gone)
            return
        self._anchor = newest
        if any(row.block <= final for row in unsure):
            with self._store.write(durable=False) as db:
                receipts.finalize(db, final)

    async def _checked_before(self) -> int:
        """The block up to which an earlier look still holds."""
        if self._anchor is None:
            return -1
        number, block_hash = self._anchor
        return number if (await self._hashes({number}))[number] == block_hash else -1

    async def _hashes(self, numbers: set[int]) -> dict[int, str | None]:
        asked = sorted(numbers)
        answers = await self._many.call("eth_getBlockByNumber", [[hex(n), False] for n in asked])
        blocks: list[Block | None] = [parse_block(answer) for answer in answers]
        return {
            number: None if block is None else block.hash
            for number, block in zip(asked, blocks, strict=True)
        }

    async def _mark(self, gone: list[Placed]) -> None:
        """Send again what is in no block, then write down that all of it is open again."""
        _log.warning("the chain took back %d transactions of ours", len(gone))
        for row in gone:  # about in the order of their nonces
            if row.signed is None or await self._rpc.receipt(row.tx) is not None:
                continue
            if row.wanted:
                with contextlib.suppress(RpcError):
                    await self._rpc.send_raw(row.signed.raw)
            elif await self._rpc.call("eth_getTransactionByHash", [row.tx]) is None:
                # a failure is not tried again, but later ones must not wait for its nonce
                await self._sender.release(row.signed)
        with self._store.write() as db:
            receipts.take_back(db, [row.tx for row in gone], self._clock.now())
        self._refunds.wake()

    async def _recover(self, claim: Claim) -> None:
        """Find the payment in another block, bring it there, or give it up."""
        given = claim.authorization
        if (receipt := await self._find(claim)) is not None:
            self._store.remined(claim, receipt)
            self._refunds.wake()  # they waited for it
            _log.info("a payment that was taken back is in block %d", receipt.block_number)
            return
        head = await self._rpc.head()
        if head.timestamp > given.valid_before + EXPIRY_MARGIN_SECONDS:
            _log.error("a payment of %d atoms for %s is lost", claim.amount, claim.subject)
            self._store.revert(claim, self._clock.now())
        elif not claim.by_transfer:  # the buyer's own transfer is his to send
            await self._send_again(claim)

    async def _give_back_late(self) -> None:
        """What was called lost and is mined after all buys nothing any more."""
        lost = self._store.reverted(self._clock.now() - _COMEBACK_SECONDS)
        found = await self._many.receipts(claim.transaction for claim in lost) if lost else {}
        for claim in lost:
            receipt = found[claim.transaction]
            if receipt is None or not self._proves(claim, receipt):
                continue
            late = self._store.turn_away(claim, receipt.tx_hash, self._clock.now(), receipt)
            self._refunds.add(late.subject, late.payer, late.amount)
            _log.warning("a payment that was lost came after all, so it goes back")

    def _proves(self, claim: Claim, receipt: Receipt) -> bool:
        given = claim.authorization
        if claim.by_transfer:
            return self._usdc.transfer_proof(receipt, given.from_, given.to, given.value)
        return self._usdc.payment_proof(receipt, given)

    async def _find(self, claim: Claim) -> Receipt | None:
        given = claim.authorization
        receipt = await self._rpc.receipt(claim.transaction)
        if receipt is not None and self._proves(claim, receipt):
            return receipt
        if claim.by_transfer:
            return None
        if not await self._usdc.authorization_state(given.from_, given.nonce):
            return None
        return await self._fates.find_payment(claim)

    async def _send_again(self, claim: Claim) -> None:
        with contextlib.suppress(RpcError, ChainUnavailable):
            if await self._fates.outrun(claim):
                await self._facilitator.anew(claim)
            else:
                await self._facilitator.again(claim)
