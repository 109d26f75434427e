"""The seller's settlement: money first, proven by a receipt, and each payment for one thing once.

The steps are those of ``claims.CLAIM_TRANSITIONS``. Everything that leaves this process is on
disk before: the claim before it is verified, the signed transaction before it is broadcast. A
timeout is *unknown*, never *failed*: the same bytes are sent again until a receipt or the chain's
clock decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from computeswarm.chain.errors import RpcError
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Authorization, Usdc, authorization_calldata
from computeswarm.chain.wire import Receipt
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
from computeswarm.payments.claims import Claim, ClaimState, ClaimStore
from computeswarm.payments.ledger.entries import Entry
from computeswarm.payments.ledger.seller import Day, Earnings, by_day, earned, ledger
from computeswarm.payments.present import (
    Presented,
    check_authorization,
    refused,
    signed_by_payer,
)
from computeswarm.payments.refunds import RefundQueue, RefundRow
from computeswarm.payments.terms import Terms
from computeswarm.payments.verify import SETTLEMENT_GAS, Verifier

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 30.0
"""How long a request waits for its receipt; after that the settlement goes on without it."""
_RECEIPT_SECONDS = 4.0
_RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
_EXPIRY_MARGIN_SECONDS = 30
_PRUNE_EVERY = 256  # new claims
_UNDER_WAY = (ClaimState.RESERVED, ClaimState.BROADCAST, ClaimState.SETTLED)

BeforeBroadcast = Callable[[], None]
OnSettled = Callable[[Claim], Awaitable[None]]


def request_binding(method: str, url: str, body: bytes) -> str:
    """What a payment is bound to: the hash of method, URL and body."""
    head = f"{method.upper()} {url}\n".encode()
    return hashlib.sha256(head + body).hexdigest()


@dataclass(frozen=True, slots=True)
class _Running:
    """A settlement under way; all who present its authorization wait for one task."""

    binding: str
    task: asyncio.Task[Claim]


class Settlements:
    """Settles presented payments on one chain and sends refunds. One instance per wallet.

    Args:
        on_settled: takes over what was paid for, durably; called again after a crash or a failure
            until it returns, so it must be idempotent.
        on_refunded: told when a refund is proven.
        settle_seconds: how long ``settle`` waits before it answers "pending".
    """

    def __init__(
        self,
        path: Path,
        rpc: RpcClient,
        usdc: Usdc,
        sender: TxSender,
        clock: Clock,
        *,
        on_settled: OnSettled,
        on_refunded: Callable[[RefundRow], Awaitable[None]] | None = None,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._store = ClaimStore(path)
        self._rpc = rpc
        self._usdc = usdc
        self._sender = sender
        self._clock = clock
        self._on_settled = on_settled
        self._settle_seconds = settle_seconds
        self._verifier = Verifier(rpc, usdc, sender.address)
        self._running: dict[tuple[str, str], _Running] = {}
        self._reserved = 0
        self._refunds = RefundQueue(self._store, rpc, usdc, sender, clock, on_refunded)

    async def start(self) -> None:
        """Take up what a crash left behind, and begin to send refunds.

        Raises:
            ConfigError: the RPC serves another chain.
        """
        try:
            await self._rpc.verify_chain(self._usdc.chain.chain_id)
        except ChainUnavailable as error:
            _log.warning("starting without the chain: %s", error.detail)
        for claim in self._store.in_state(ClaimState.RESERVED):
            self._store.fail(claim, Reason.UNEXPECTED_VERIFY)  # nothing was sent for it
        self._store.prune(self._clock.now())
        for claim in self._store.in_state(ClaimState.BROADCAST, ClaimState.SETTLED):
            self._spawn(
                _running_key(claim.authorization),
                claim.binding,
                self._resume(claim, lost_sight=True),
            )
        self._refunds.start()

    async def close(self) -> None:
        """Stop; what is under way is taken up by the next start."""
        await self._refunds.close()
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._store.close()

    async def settle(
        self,
        presented: Presented,
        terms: Terms,
        *,
        binding: str,
        subject: str,
        before_broadcast: BeforeBroadcast,
    ) -> Claim:
        """Settle a payment, or join the settlement of the same payment.

        All who present the same authorization with the same ``binding`` get the same claim; use
        its ``subject``, which is the first's. ``before_broadcast`` runs once, after verification
        and before anything reaches the chain. Where it refuses what a third party has submitted
        already, that goes back whole, under a subject of its own.

        Raises:
            PaymentRequired: it does not pay; ``extra['reason']`` is the standard's code.
            AuthorizationReused: it was presented with another request.
            PaymentPending: not known yet; present the same payment again.
            Unavailable: the chain doesn't answer, or refuses our transaction; nothing was taken.
        """
        key = _running_key(presented.authorization)
        running = self._running.get(key)
        if running is not None:
            _check_binding(running.binding, binding)
        else:
            known = self._store.find(terms.chain, presented.authorization)
            if known is not None:
                _check_binding(known.binding, binding)
                if known.state in (ClaimState.CONSUMED, ClaimState.REFUNDED):
                    return _kept(known)
            if known is not None and known.state in (ClaimState.BROADCAST, ClaimState.SETTLED):
                steps = self._resume(known, lost_sight=True)
            else:
                late = self._too_late(known, presented, terms)
                claim = self._reserve(known, presented, terms, binding, subject)
                steps = self._run(claim, presented, terms, before_broadcast, late)
            running = self._spawn(key, binding, steps)
        try:
            return _kept(await asyncio.wait_for(asyncio.shield(running.task), self._settle_seconds))
        except TimeoutError:
            raise PaymentPending(
                "The payment is not confirmed yet; present the same payment again.",
                reason=Reason.SETTLEMENT_PENDING,
            ) from None

    def set_reply(self, claim: Claim, reply: bytes) -> Claim:
        """Keep the reply to the paid request; the first one stays."""
        return self._store.set_reply(claim, reply)

    def claim(self, subject: str) -> Claim | None:
        """The claim for exactly this subject: a paid one if there is one, else the newest."""
        return self._store.by_subject(subject)

    def claims(self, job_id: str) -> list[Claim]:
        """All claims for a job and its slices, oldest first."""
        return self._store.of_job(job_id)

    async def refund(self, subject: str, to: str, amount: int) -> RefundRow:
        """Owe ``amount`` atoms to a buyer, durably; a worker sends it and proves it by a receipt.

        Once per subject (a job id): a second call changes nothing and returns the first's row.
        Less than ``DUST_ATOMS`` waits until that buyer is owed more.
        """
        return self._refunds.add(subject, to, amount)

    def refunds(self, subject: str) -> list[RefundRow]:
        """What is owed or was sent for a subject."""
        return self._refunds.of(subject)

    def earned(self, since: float) -> Earnings:
        """Sums since a moment (unix seconds)."""
        return earned(self._store.db, since)

    def by_day(self, first: float, days: int) -> list[Day]:
        """The sums of so many days (of 86,400 s) from ``first`` on."""
        return by_day(self._store.db, first, days)

    def ledger(self, since: float = 0, limit: int = 200) -> list[Entry]:
        """The newest entries of the books since a moment, newest first."""
        chain_id = self._usdc.chain.chain_id
        return ledger(self._store.db, since, limit, chain_id=chain_id)

    def _spawn(
        self, key: tuple[str, str], binding: str, steps: Coroutine[Any, Any, Claim]
    ) -> _Running:
        """Settle in a task of its own: no caller that goes away takes it along."""
        task = asyncio.create_task(steps)
        self._running[key] = running = _Running(binding, task)

        def finished(task: asyncio.Task[Claim]) -> None:
            del self._running[key]
            if not task.cancelled() and (error := task.exception()) is not None:
                expected = isinstance(error, ComputeSwarmError)
                _log.log(
                    logging.INFO if expected else logging.ERROR,
                    "a settlement ended with: %s",
                    error,
                    exc_info=None if expected else error,
                )

        task.add_done_callback(finished)
        return running

    def _reserve(
        self, known: Claim | None, presented: Presented, terms: Terms, binding: str, subject: str
    ) -> Claim:
        if known is not None:
            return self._store.retry(known, presented.signature, subject=subject)
        self._reserved += 1
        if self._reserved % _PRUNE_EVERY == 0:
            self._store.prune(self._clock.now())
        return self._store.insert(
            terms.chain,
            presented.authorization,
            presented.signature,
            binding=binding,
            subject=subject,
            now=self._clock.now(),
        )

    def _too_late(
        self, known: Claim | None, presented: Presented, terms: Terms
    ) -> PaymentRequired | None:
        """The refusal of a payment we know whose window has closed: it may be on the chain."""
        try:
            check_authorization(presented, terms, now=self._clock.now())
        except PaymentRequired as error:
            if known is None or error.extra["reason"] != Reason.VALID_BEFORE:
                raise
            return error
        return None

    async def _run(
        self,
        claim: Claim,
        presented: Presented,
        terms: Terms,
        before_broadcast: BeforeBroadcast,
        late: PaymentRequired | None,
    ) -> Claim:
        earlier = await self._verify(claim, signed_by_payer(presented, terms), late)
        try:
            before_broadcast()
        except Exception:
            if earlier:
                await self._resume(claim, earlier=earlier, turn_away=True)
            else:
                self._store.fail(claim, Reason.UNEXPECTED_VERIFY)
            raise
        if earlier:
            return await self._resume(claim, earlier=earlier)
        return await self._resume(await self._sign(claim), send=True)

    async def _verify(self, claim: Claim, own_key: bool, late: PaymentRequired | None) -> str:
        """The transaction in which a third party submitted it already; '' where it is to be sent.

        Raises:
            PaymentRequired: it doesn't pay; ``late`` where it is not on the chain.
        """
        given, refusal = claim.authorization, late
        try:
            await self._verifier.verify(given, claim.signature, own_key=own_key)
        except PaymentRequired as error:
            reason = str(error.extra["reason"])
            if reason == Reason.BAD_SIGNATURE:
                self._store.forget(claim)
                raise
            if reason == Reason.NONCE_USED:
                earlier = await self._verifier.find_payment(given, known=claim.transaction)
                if earlier is not None:
                    return earlier
            refusal = late or error
        if refusal is not None:
            self._store.fail(claim, str(refusal.extra["reason"]))
            raise refusal
        return ""

    async def _sign(self, claim: Claim) -> Claim:
        data = authorization_calldata(claim.authorization, claim.signature)
        try:
            signed = await self._sender.prepare(self._usdc.address, data, gas=SETTLEMENT_GAS)
        except RpcError:
            self._store.fail(claim, Reason.SIMULATION_FAILED)
            raise refused(Reason.SIMULATION_FAILED, "USDC would refuse this payment.") from None
        try:
            return self._store.broadcast(claim, signed)
        except BaseException:
            await self._sender.release(signed)
            raise

    async def _send(self, claim: Claim) -> None:
        assert claim.signed_tx is not None
        try:
            await self._sender.broadcast(claim.signed_tx)
        except RpcError as error:
            self._store.fail(claim, Reason.SETTLEMENT_FAILED)
            _log.warning("the chain refused a settlement: %s", error.message)
            raise Unavailable(
                "The seller can't settle payments now; nothing was taken, try again later."
            ) from None
        except ChainUnavailable as error:
            _log.warning("broadcast without an answer: %s", error.detail)

    async def _resume(
        self,
        claim: Claim,
        *,
        earlier: str = "",
        turn_away: bool = False,
        send: bool = False,
        lost_sight: bool = False,
    ) -> Claim:
        """From what may have paid to the end, however long the chain, the disk or the one who
        takes over need. Only an outcome that is on disk ends it.

        Args:
            earlier: the transaction in which a third party submitted it.
            turn_away: what it was for was refused: give the money back.
            send: it was not sent yet.
            lost_sight: after a crash it may never have been sent.
        """
        pauses = iter(_RETRY_SECONDS)
        while True:
            try:
                if earlier and not claim.state.paid:
                    settle = self._store.turn_away if turn_away else self._store.settle
                    claim = settle(claim, earlier, self._clock.now())
                if send:
                    send = False
                    await self._send(claim)
                if claim.state is ClaimState.BROADCAST:
                    claim = await self._await_fate(claim, look_first=lost_sight)
                return await self._hand_over(claim)
            except Exception as error:
                claim = self._as_stored(claim)
                if claim.state not in _UNDER_WAY:
                    raise
                told = error.detail if isinstance(error, ComputeSwarmError) else repr(error)
                unexpected = None if isinstance(error, ComputeSwarmError) else error
                _log.error("a payment has to wait: %s", told, exc_info=unexpected)
            lost_sight = True
            await asyncio.sleep(next(pauses, _RETRY_SECONDS[-1]))

    def _as_stored(self, claim: Claim) -> Claim:
        try:
            return self._store.get(claim.id)
        except sqlite3.Error:  # a disk that can't be read now: go by what we knew
            return claim

    async def _hand_over(self, claim: Claim) -> Claim:
        if claim.turned_away:
            self._refunds.add(claim.subject, claim.payer, claim.amount)
        else:
            await self._on_settled(claim)
        claim = self._store.get(claim.id)
        # the one who took over may have refunded it already
        return self._store.consume(claim) if claim.state is ClaimState.SETTLED else claim

    async def _await_fate(self, claim: Claim, *, look_first: bool) -> Claim:
        pauses = iter(_RETRY_SECONDS)
        while True:
            try:
                if look_first and (decided := await self._reconsider(claim)) is not None:
                    return decided
                receipt = await self._sender.wait_receipt(
                    claim.transaction, timeout=_RECEIPT_SECONDS
                )
                return await self._judge(claim, receipt)
            except (ChainUnavailable, RpcError) as error:  # unknown is not failed
                _log.warning("a payment's fate is not known yet: %s", error.detail)
                await asyncio.sleep(next(pauses, _RETRY_SECONDS[-1]))
            look_first = True

    async def _judge(self, claim: Claim, receipt: Receipt) -> Claim:
        """Settled or failed, by our own transaction's receipt."""
        given = claim.authorization
        if self._usdc.payment_proof(receipt, given):
            return self._settled(claim, claim.transaction)
        used, balance = await asyncio.gather(
            self._verifier.used(given), self._usdc.balance_of(given.from_)
        )
        if used:
            earlier = await self._verifier.find_payment(given, known=claim.transaction)
            if earlier is not None:
                return self._settled(claim, earlier)
            raise self._failed(claim, Reason.NONCE_USED)
        poor = balance < given.value
        raise self._failed(claim, Reason.INSUFFICIENT_FUNDS if poor else Reason.SETTLEMENT_FAILED)

    async def _reconsider(self, claim: Claim) -> Claim | None:
        """No receipt yet: send the same bytes again, and see whether they can still be mined."""
        given, signed = claim.authorization, claim.signed_tx
        assert signed is not None
        with contextlib.suppress(RpcError):  # "nonce too low" and the like are judged below
            await self._rpc.send_raw(signed.raw)
        used, mined, head = await asyncio.gather(
            self._verifier.used(given),
            self._rpc.nonce(self._sender.address, "latest"),
            self._rpc.head(),
        )
        if used:
            earlier = await self._verifier.find_payment(given, known=signed.hash)
            if earlier is not None:
                return self._settled(claim, earlier)
        receipt = await self._rpc.receipt(signed.hash)
        if receipt is not None:
            return await self._judge(claim, receipt)
        if head.timestamp > given.valid_before + _EXPIRY_MARGIN_SECONDS:
            raise self._failed(claim, Reason.NONCE_USED if used else Reason.VALID_BEFORE)
        if mined > signed.nonce and not used:
            self._store.fail(claim, Reason.SETTLEMENT_FAILED)
            raise Unavailable("The settlement was lost; nothing was taken, try the same again.")
        return None

    def _settled(self, claim: Claim, tx: str) -> Claim:
        return self._store.settle(claim, tx, self._clock.now())

    def _failed(self, claim: Claim, reason: str) -> PaymentRequired:
        self._store.fail(claim, reason)
        return refused(reason, "The payment did not go through; nothing was taken.")


def _running_key(authorization: Authorization) -> tuple[str, str]:
    return authorization.from_.lower(), authorization.nonce.lower()


def _kept(claim: Claim) -> Claim:
    if claim.turned_away:
        raise refused(
            Reason.NONCE_USED,
            "This payment came when it was refused, so it goes back; sign a new one.",
        )
    return claim


def _check_binding(first: str, now: str) -> None:
    if first != now:
        raise AuthorizationReused(
            "This payment was presented with another request; sign a new one for this request."
        )
