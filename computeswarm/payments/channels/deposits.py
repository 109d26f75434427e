"""Putting a buyer's money into a channel: a durable state machine, like that of ``settlement``.

The deposit is reserved before it is verified, our signed transaction is on disk before it is
broadcast, a timeout is *unknown* and never *failed*, and the same bytes go out again until a
receipt or the chain's clock decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from computeswarm.chain.batch_settlement import BatchSettlement
from computeswarm.chain.errors import RpcError
from computeswarm.chain.sender import TxSender
from computeswarm.chain.wire import Receipt
from computeswarm.core.clock import Clock
from computeswarm.core.errors import (
    AuthorizationReused,
    ComputeSwarmError,
    PaymentPending,
    PaymentRequired,
    Unavailable,
)
from computeswarm.core.x402 import Reason
from computeswarm.payments.channels.deposit_checks import DEPOSIT_GAS, DepositChecks, calldata
from computeswarm.payments.channels.deposit_fate import RETRY_SECONDS, DepositFate
from computeswarm.payments.channels.deposit_store import TURNED_AWAY, DepositStore
from computeswarm.payments.channels.gate import VoucherGate
from computeswarm.payments.channels.present import DepositGiven, PresentedChannel
from computeswarm.payments.channels.reasons import ChannelReason
from computeswarm.payments.channels.records import DepositRow
from computeswarm.payments.channels.states import DepositState
from computeswarm.payments.present import refused

_log = logging.getLogger(__name__)

_PRUNE_EVERY = 256
_UNDER_WAY = (DepositState.RESERVED, DepositState.BROADCAST, DepositState.SETTLED)

OnDeposited = Callable[[DepositRow], Awaitable[None]]


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
        checks: DepositChecks,
        fate: DepositFate,
        sender: TxSender,
        clock: Clock,
        *,
        on_deposited: OnDeposited,
        on_turned_away: Callable[[], None],
        settle_seconds: float,
    ) -> None:
        self._store = store
        self._gate = gate
        self._checks = checks
        self._fate = fate
        self._sender = sender
        self._clock = clock
        self._on_deposited = on_deposited
        self._on_turned_away = on_turned_away
        self._settle_seconds = settle_seconds
        self._running: dict[tuple[str, str], _Running] = {}
        self._reserved = 0

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
                self._checks.check_terms(given, min_deposit, known=known is not None)
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

    def _reserve(
        self,
        known: DepositRow | None,
        payment: PresentedChannel,
        price: int,
        binding: str,
        subject: str,
    ) -> DepositRow:
        if known is not None:
            return self._store.retry(known, payment, subject=subject, price=price)
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
            earlier = await self._verify(row, payment, given)
            try:
                before_broadcast()
            except Exception:
                if earlier is not None:
                    await self._resume(row, earlier=earlier, turn_away=True)
                raise
            if earlier is not None:
                return await self._resume(row, earlier=earlier)
            return await self._resume(await self._sign(row, calldata(payment, given)), send=True)

    async def _verify(
        self, row: DepositRow, payment: PresentedChannel, given: DepositGiven
    ) -> Receipt | None:
        """The receipt by which somebody submitted it already; None where it is to be sent.

        Raises:
            PaymentRequired: it doesn't pay, or its voucher doesn't.
            Unavailable: its gas costs more than it is worth.
        """
        refusal: PaymentRequired | None
        try:
            await self._gate.check_deposit(payment, row.price, given.amount)
            refusal = await self._checks.failure(payment, given)
        except PaymentRequired as error:
            refusal = error
        if refusal is None:
            await self._checks.check_cost(payment.payer, given.amount)
            return None
        reason = str(refusal.extra["reason"])
        if reason in (ChannelReason.VOUCHER_SIGNATURE, ChannelReason.RECEIVE_SIGNATURE):
            self._store.forget(row)
            raise refusal
        if reason == Reason.NONCE_USED:
            earlier = await self._fate.search.find(row)
            if earlier is not None:
                return earlier
        self._store.fail(row, reason)
        raise refusal

    async def _sign(self, row: DepositRow, data: bytes) -> DepositRow:
        try:
            signed = await self._sender.prepare(BatchSettlement.address, data, gas=DEPOSIT_GAS)
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

    async def _locked_resume(self, row: DepositRow) -> DepositRow:
        async with self._gate.lock(row.channel_id):
            return await self._resume(self._store.get(row.id), lost_sight=True)

    async def _resume(
        self,
        row: DepositRow,
        *,
        earlier: Receipt | None = None,
        turn_away: bool = False,
        send: bool = False,
        lost_sight: bool = False,
    ) -> DepositRow:
        """From what may have paid to the end, however long the chain or the one who takes over
        need. Only an outcome that is on disk ends it."""
        pauses = iter(RETRY_SECONDS)
        while True:
            try:
                if earlier is not None and not row.state.paid:
                    if lost_sight:
                        earlier = await self._found_again(row)
                    row = await self._fate.settled(row, earlier, turn_away=turn_away)
                if send:
                    send = False
                    await self._fate.send(row)
                if row.state is DepositState.BROADCAST:
                    row = await self._fate.wait(row, look_first=lost_sight)
                return await self._hand_over(row)
            except Exception as error:
                row = self._store.get(row.id)
                if row.state not in _UNDER_WAY:
                    raise
                told = error.detail if isinstance(error, ComputeSwarmError) else repr(error)
                unexpected = None if isinstance(error, ComputeSwarmError) else error
                _log.error("a deposit has to wait: %s", told, exc_info=unexpected)
            lost_sight = True
            await asyncio.sleep(next(pauses, RETRY_SECONDS[-1]))

    async def _found_again(self, row: DepositRow) -> Receipt:
        """A stranger's submission, which a reorg may have taken back meanwhile."""
        receipt = await self._fate.search.find(row)
        if receipt is None:
            self._store.fail(row, Reason.UNEXPECTED_VERIFY)
            raise Unavailable("The chain took the deposit back; present the same payment again.")
        return receipt

    async def _hand_over(self, row: DepositRow) -> DepositRow:
        if row.state is not DepositState.SETTLED:
            return row
        if row.charged is not None:
            await self._on_deposited(row)
        if turned_away(row):
            self._on_turned_away()
        self._gate.renew_later(row.channel_id)  # a refund may have crossed it
        return self._store.consume(self._store.get(row.id))


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
