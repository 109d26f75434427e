"""Putting a buyer's money into a channel: a durable state machine, like that of ``settlement``.

The deposit is reserved before it is verified, our signed transaction is on disk before it is
broadcast, a timeout is *unknown* and never *failed*, and the same bytes go out again until a
receipt or the chain's clock decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from computeswarm.chain.batch_settlement import BatchSettlement, deposit_calldata
from computeswarm.chain.batch_settlement import ChannelState as OnChain
from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Usdc
from computeswarm.chain.wire import Receipt
from computeswarm.core.chains import ChainInfo
from computeswarm.core.channels import DEPOSIT_COLLECTOR, receive_authorization_digest
from computeswarm.core.clock import Clock
from computeswarm.core.errors import (
    AuthorizationReused,
    ChainUnavailable,
    ComputeSwarmError,
    PaymentPending,
    PaymentRequired,
    Unavailable,
)
from computeswarm.core.x402 import Reason
from computeswarm.payments.channels.deposit_proof import DepositSearch
from computeswarm.payments.channels.deposit_store import TURNED_AWAY, DepositStore
from computeswarm.payments.channels.gate import VoucherGate
from computeswarm.payments.channels.present import DepositGiven, PresentedChannel
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.records import DepositRow
from computeswarm.payments.channels.states import DepositState
from computeswarm.payments.present import SETTLEMENT_MARGIN_SECONDS, refused

_log = logging.getLogger(__name__)

DEPOSIT_GAS = 400_000
"""The gas limit of every deposit: twice what one takes, the rest for a contract wallet's check of
its signature, whose code is a stranger's and runs at our expense."""
_RECEIPT_SECONDS = 4.0
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_EXPIRY_MARGIN_SECONDS = 30
_STATE_TRIES, _STATE_PAUSE = 10, 0.2
_PRUNE_EVERY = 256
_UNDER_WAY = (DepositState.RESERVED, DepositState.BROADCAST, DepositState.SETTLED)

OnDeposited = Callable[[DepositRow], Awaitable[None]]
Confirm = Callable[[Receipt, int], Awaitable[Receipt]]


@dataclass(frozen=True, slots=True)
class _Running:
    """A deposit under way; all who present its authorization wait for one task."""

    binding: str
    task: asyncio.Task[DepositRow]


class Deposits:
    """Takes deposits on one chain.

    Args:
        on_deposited: takes over what was paid for, durably; called again after a crash or a failure
            until it returns, so it must be idempotent.
        on_turned_away: told when money came for what was refused, and has to go back.
        settle_seconds: how long ``take`` waits before it answers "pending".
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
        *,
        on_deposited: OnDeposited,
        confirm: Confirm | None,
        on_turned_away: Callable[[], None],
        settle_seconds: float,
    ) -> None:
        self._store = store
        self._gate = gate
        self._rpc = rpc
        self._contract = contract
        self._usdc = usdc
        self._sender = sender
        self._clock = clock
        self._on_deposited = on_deposited
        self._confirm = confirm
        self._on_turned_away = on_turned_away
        self._settle_seconds = settle_seconds
        self._search = DepositSearch(rpc, usdc)
        self._running: dict[tuple[str, str], _Running] = {}
        self._reserved = 0

    @property
    def _chain(self) -> ChainInfo:
        return self._usdc.chain

    def start(self) -> None:
        """Take up what a crash left behind."""
        for row in self._store.in_state(DepositState.RESERVED):
            self._store.fail(row, Reason.UNEXPECTED_VERIFY)  # nothing was sent for it
        self._store.prune(self._clock.now())
        for row in self._store.in_state(DepositState.BROADCAST, DepositState.SETTLED):
            self._spawn(_key(row), row.binding, self._locked_resume(row))

    async def close(self) -> None:
        """Stop; what is under way is taken up by the next start."""
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def take(
        self,
        payment: PresentedChannel,
        price: int,
        *,
        min_deposit: int,
        binding: str,
        subject: str,
        before_broadcast: Callable[[], None],
    ) -> DepositRow:
        """Bring a deposit onto the chain, or join the one who does.

        Raises: see ``SellerChannels.pay``.
        """
        given = _given(payment)
        key = payment.payer.lower(), given.nonce
        running = self._running.get(key)
        if running is not None:
            _check_binding(running.binding, binding)
        else:
            known = self._store.find(payment.payer, given.nonce)
            if known is not None:
                _check_binding(known.binding, binding)
                if known.state is DepositState.CONSUMED:
                    return known
            if known is not None and known.state in (DepositState.BROADCAST, DepositState.SETTLED):
                steps = self._locked_resume(known)
            else:
                self._check_terms(payment, given, min_deposit, known)
                row = self._reserve(known, payment, price, binding, subject)
                steps = self._run(row, payment, given, before_broadcast)
            running = self._spawn(key, binding, steps)
        try:
            return await asyncio.wait_for(asyncio.shield(running.task), self._settle_seconds)
        except TimeoutError:
            raise PaymentPending(
                "The deposit is not confirmed yet; present the same payment again.",
                reason=Reason.SETTLEMENT_PENDING,
            ) from None

    async def revisit(self, depth: int) -> None:
        """Look whether a reorg took a deposit's block; then its bytes go out again.

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

    def _spawn(
        self, key: tuple[str, str], binding: str, steps: Coroutine[Any, Any, DepositRow]
    ) -> _Running:
        """In a task of its own: no caller that goes away takes it along."""
        task = asyncio.create_task(steps)
        self._running[key] = running = _Running(binding, task)

        def finished(task: asyncio.Task[DepositRow]) -> None:
            del self._running[key]
            if not task.cancelled() and (error := task.exception()) is not None:
                expected = isinstance(error, ComputeSwarmError)
                level = logging.INFO if expected else logging.ERROR
                _log.log(
                    level, "a deposit ended with: %s", error, exc_info=None if expected else error
                )

        task.add_done_callback(finished)
        return running

    def _check_terms(
        self,
        payment: PresentedChannel,
        given: DepositGiven,
        min_deposit: int,
        known: DepositRow | None,
    ) -> None:
        now = int(self._clock.now())
        if given.amount < min_deposit:
            raise refused(
                ChannelReason.DEPOSIT_BELOW_MINIMUM, f"Deposit at least {min_deposit} atoms."
            )
        if given.valid_after >= now:
            raise refused(
                ChannelReason.VALID_AFTER, "The deposit is not valid yet; check your clock."
            )
        if known is None and given.valid_before < now + SETTLEMENT_MARGIN_SECONDS:
            raise refused(
                ChannelReason.VALID_BEFORE, "The deposit is no longer valid; sign a new one."
            )

    def _reserve(
        self,
        known: DepositRow | None,
        payment: PresentedChannel,
        price: int,
        binding: str,
        subject: str,
    ) -> DepositRow:
        if known is not None:
            return self._store.retry(known, payment, subject=subject)
        self._reserved += 1
        if self._reserved % _PRUNE_EVERY == 0:
            self._store.prune(self._clock.now())
        return self._store.insert(
            payment, binding=binding, subject=subject, price=price, now=self._clock.now()
        )

    async def _run(
        self,
        row: DepositRow,
        payment: PresentedChannel,
        given: DepositGiven,
        before_broadcast: Callable[[], None],
    ) -> DepositRow:
        try:
            return await self._run_locked(row, payment, given, before_broadcast)
        except Exception:
            # nothing was sent for it, so it keeps no place
            if self._store.is_reserved(row):
                self._store.fail(row, Reason.UNEXPECTED_VERIFY)
            raise

    async def _run_locked(
        self,
        row: DepositRow,
        payment: PresentedChannel,
        given: DepositGiven,
        before_broadcast: Callable[[], None],
    ) -> DepositRow:
        async with self._gate.lock(row.channel_id):
            data = deposit_calldata(
                payment.config,
                given.amount,
                valid_after=given.valid_after,
                valid_before=given.valid_before,
                salt=given.salt,
                signature=given.signature,
            )
            earlier = await self._verify(row, payment, given, data)
            try:
                before_broadcast()
            except Exception:
                if earlier:
                    await self._resume(row, earlier=earlier, turn_away=True)
                raise
            if earlier:
                return await self._resume(row, earlier=earlier)
            return await self._resume(await self._sign(row, data), send=True)

    async def _verify(
        self, row: DepositRow, payment: PresentedChannel, given: DepositGiven, data: bytes
    ) -> str:
        """The transaction in which somebody submitted it already; '' where it is to be sent.

        Raises:
            PaymentRequired: it doesn't pay, or its voucher doesn't.
        """
        try:
            await self._gate.check_deposit(payment, row.price, given.amount)
            failure = await self._simulated(given, data)
            if failure is None:
                return ""
            refusal = await self._explain(payment, given, failure)
        except PaymentRequired as error:
            refusal = error
        reason = str(refusal.extra["reason"])
        if reason in (ChannelReason.VOUCHER_SIGNATURE, ChannelReason.RECEIVE_SIGNATURE):
            self._store.forget(row)
            raise refusal
        if reason == Reason.NONCE_USED:
            earlier = await self._search.find(row)
            if earlier is not None:
                return earlier
        self._store.fail(row, reason)
        raise refusal

    async def _simulated(self, given: DepositGiven, data: bytes) -> RpcError | None:
        if given.valid_before < int(self._clock.now()) + SETTLEMENT_MARGIN_SECONDS:
            return RpcError("the authorization's window is over")
        try:
            await self._contract.simulate(data, sender=self._sender.address, gas=DEPOSIT_GAS)
        except RpcError as error:
            return error
        return None

    async def _explain(
        self, payment: PresentedChannel, given: DepositGiven, failure: RpcError
    ) -> PaymentRequired:
        digest = receive_authorization_digest(
            self._chain,
            from_=payment.payer,
            to=DEPOSIT_COLLECTOR,
            value=given.amount,
            valid_after=given.valid_after,
            valid_before=given.valid_before,
            nonce=given.nonce,
        )
        signed, used, balance = await asyncio.gather(
            self._usdc.is_valid_signature(payment.payer, digest, given.signature),
            self._usdc.authorization_state(payment.payer, given.nonce),
            self._usdc.balance_of(payment.payer),
        )
        if not signed:
            return refused(
                ChannelReason.RECEIVE_SIGNATURE, "The deposit's signature is not the payer's."
            )
        if used:
            return refused(Reason.NONCE_USED, "The deposit was used or cancelled already.")
        if given.valid_before < int(self._clock.now()) + SETTLEMENT_MARGIN_SECONDS:
            return refused(
                ChannelReason.VALID_BEFORE, "The deposit is no longer valid; sign a new one."
            )
        if balance < given.amount:
            return refused(
                ChannelReason.INSUFFICIENT_BALANCE,
                f"The wallet {payment.payer} has too little USDC; top it up and try again.",
            )
        _log.info("a deposit would fail: %s", failure.message)
        return refused(
            ChannelReason.DEPOSIT_SIMULATION_FAILED, "The contract would refuse this deposit."
        )

    async def _sign(self, row: DepositRow, data: bytes) -> DepositRow:
        try:
            signed = await self._sender.prepare(self._contract.address, data, gas=DEPOSIT_GAS)
        except RpcError:
            self._store.fail(row, ChannelReason.DEPOSIT_SIMULATION_FAILED)
            raise refused(
                ChannelReason.DEPOSIT_SIMULATION_FAILED, "The contract would refuse this deposit."
            ) from None
        try:
            return self._store.broadcast(row, signed)
        except BaseException:
            await self._sender.release(signed)
            raise

    async def _send(self, row: DepositRow) -> None:
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

    async def _locked_resume(self, row: DepositRow) -> DepositRow:
        async with self._gate.lock(row.channel_id):
            return await self._resume(self._store.get(row.id), lost_sight=True)

    async def _resume(
        self,
        row: DepositRow,
        *,
        earlier: str = "",
        turn_away: bool = False,
        send: bool = False,
        lost_sight: bool = False,
    ) -> DepositRow:
        """From what may have paid to the end, however long the chain or the one who takes over
        need. Only an outcome that is on disk ends it."""
        pauses = iter(_RETRY_SECONDS)
        while True:
            try:
                if earlier and not row.state.paid:
                    row = await self._settled(row, earlier, turn_away=turn_away)
                if send:
                    send = False
                    await self._send(row)
                if row.state is DepositState.BROADCAST:
                    row = await self._await_fate(row, look_first=lost_sight)
                return await self._hand_over(row)
            except Exception as error:
                row = self._store.get(row.id)
                if row.state not in _UNDER_WAY:
                    raise
                told = error.detail if isinstance(error, ComputeSwarmError) else repr(error)
                unexpected = None if isinstance(error, ComputeSwarmError) else error
                _log.error("a deposit has to wait: %s", told, exc_info=unexpected)
            lost_sight = True
            await asyncio.sleep(next(pauses, _RETRY_SECONDS[-1]))

    async def _hand_over(self, row: DepositRow) -> DepositRow:
        if row.state is not DepositState.SETTLED:
            return row
        if row.charged is not None:
            await self._on_deposited(row)
        if turned_away(row):
            self._on_turned_away()
        self._gate.renew_later(row.channel_id)  # a refund may have crossed it
        return self._store.consume(self._store.get(row.id))

    async def _await_fate(self, row: DepositRow, *, look_first: bool) -> DepositRow:
        pauses = iter(_RETRY_SECONDS)
        while True:
            try:
                if look_first and (decided := await self._reconsider(row)) is not None:
                    return decided
                receipt = await self._sender.wait_receipt(row.transaction, timeout=_RECEIPT_SECONDS)
                return await self._judge(row, receipt)
            except (ChainUnavailable, RpcError) as error:  # unknown is not failed
                _log.warning("a deposit's fate is not known yet: %s", error.detail)
                await asyncio.sleep(next(pauses, _RETRY_SECONDS[-1]))
            look_first = True

    async def _judge(self, row: DepositRow, receipt: Receipt) -> DepositRow:
        """Settled or failed, by our own transaction's receipt."""
        if self._search.proves(receipt, row):
            if self._confirm is not None:
                receipt = await self._confirm(receipt, row.price)
            return await self._settled(row, row.transaction, block=receipt.block_number)
        if await self._usdc.authorization_state(row.payer, row.nonce):
            earlier = await self._search.find(row)
            if earlier is not None:
                return await self._settled(row, earlier)
            raise self._failed(row, Reason.NONCE_USED)
        poor = await self._usdc.balance_of(row.payer) < row.amount
        raise self._failed(
            row, ChannelReason.INSUFFICIENT_BALANCE if poor else ChannelReason.DEPOSIT_FAILED
        )

    async def _reconsider(self, row: DepositRow) -> DepositRow | None:
        """No receipt yet: send the same bytes again, and see whether they can still be mined."""
        signed = row.signed_tx
        assert signed is not None
        with contextlib.suppress(RpcError):  # "nonce too low" and the like are judged below
            await self._rpc.send_raw(signed.raw)
        used, mined, head = await asyncio.gather(
            self._usdc.authorization_state(row.payer, row.nonce),
            self._rpc.nonce(self._sender.address, "latest"),
            self._rpc.head(),
        )
        receipt = await self._rpc.receipt(signed.hash)
        if receipt is not None:
            return await self._judge(row, receipt)
        if used and (earlier := await self._search.find(row)) is not None:
            return await self._settled(row, earlier)
        if head.timestamp > row.valid_before + _EXPIRY_MARGIN_SECONDS:
            raise self._failed(row, Reason.NONCE_USED if used else ChannelReason.VALID_BEFORE)
        if mined > signed.nonce and not used:
            self._store.fail(row, ChannelReason.DEPOSIT_FAILED)
            raise Unavailable("The deposit was lost; nothing was taken, try the same again.")
        return None

    async def _settled(
        self, row: DepositRow, tx: str, *, block: int | None = None, turn_away: bool = False
    ) -> DepositRow:
        state = await self._state_with(row)
        now = self._clock.now()
        return self._store.settle(row, tx, block, state, now, turn_away=turn_away)

    async def _state_with(self, row: DepositRow) -> OnChain:
        """The channel's state once the node that answers has seen the deposit; a node that lags
        behind another is asked a few times, then believed."""
        wanted = self._gate.known_balance(row.channel_id) + row.amount
        state = await self._contract.state(row.channel_id)
        for _ in range(_STATE_TRIES):
            if state.balance >= wanted or state.balance >= row.max_claimable:
                break
            await asyncio.sleep(_STATE_PAUSE)
            state = await self._contract.state(row.channel_id)
        return state

    def _failed(self, row: DepositRow, reason: str) -> PaymentRequired:
        self._store.fail(row, reason)
        return refused(reason, "The deposit did not go through; nothing was taken.")


def turned_away(row: DepositRow) -> bool:
    """Whether the money came although what it was for was refused; it goes back."""
    return row.state.paid and row.reason == TURNED_AWAY


def _key(row: DepositRow) -> tuple[str, str]:
    return row.payer, row.nonce


def _given(payment: PresentedChannel) -> DepositGiven:
    assert payment.deposit is not None
    return payment.deposit


def _check_binding(first: str, now: str) -> None:
    if first != now:
        raise AuthorizationReused(
            "This deposit was presented with another request; sign a voucher for this request."
        )
