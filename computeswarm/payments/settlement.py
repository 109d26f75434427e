"""The seller's settlement: money first, proven by a receipt, and each payment for one thing once.

The steps are those of ``claim_states.CLAIM_TRANSITIONS``. Everything that leaves this process is on
disk before: the claim before it is verified, the signed transaction before it is broadcast. A
timeout is *unknown*, never *failed*: the same bytes are sent again until a receipt or the chain's
clock decides (``fate``), and a block that the chain takes back is noticed (``reorgs``).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Authorization, Usdc
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import same_address
from computeswarm.core.errors import (
    AuthorizationReused,
    ChainUnavailable,
    ComputeSwarmError,
    PaymentPending,
    PaymentRequired,
)
from computeswarm.core.x402 import Reason
from computeswarm.payments.claims import Claim, ClaimState, ClaimStore
from computeswarm.payments.confirmation import Confirmations
from computeswarm.payments.facilitators.base import Facilitator
from computeswarm.payments.facilitators.own import SelfFacilitator
from computeswarm.payments.facilitators.remote import HttpFacilitator
from computeswarm.payments.fate import Fates
from computeswarm.payments.ledger.entries import Entry
from computeswarm.payments.ledger.seller import Day, Earnings, by_day, earned, ledger
from computeswarm.payments.policy import SettlementPolicy
from computeswarm.payments.present import Presented, check_authorization, refused
from computeswarm.payments.refunds import RefundQueue, RefundRow
from computeswarm.payments.reorgs import WATCH_SECONDS, OnLost, ReorgWatch
from computeswarm.payments.steps import BeforeBroadcast, OnSettled, Steps
from computeswarm.payments.terms import Terms
from computeswarm.payments.transfer_payment import TransferPayments, described
from computeswarm.payments.transfer_proof import TransferProof
from computeswarm.payments.verify import Verifier

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 30.0
"""How long a request waits for its receipt; after that the settlement goes on without it."""
_PRUNE_EVERY = 256  # new claims
_Key = tuple[str, str]


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
        on_lost: told of a payment that a reorganisation of the chain took back for good; as
            ``on_settled``, until it returns.
        second: a further node that has to agree before a payment counts; closed with us.
        settle_seconds: how long ``settle`` waits before it answers "pending".
        watch_seconds: between two looks for blocks that were taken back.
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
        on_lost: OnLost | None = None,
        policy: SettlementPolicy | None = None,
        second: RpcClient | None = None,
        settle_seconds: float = SETTLE_SECONDS,
        watch_seconds: float = WATCH_SECONDS,
    ) -> None:
        policy = policy or SettlementPolicy()
        self._store = store = ClaimStore(path)
        self._rpc = rpc
        self._second = second
        self._usdc = usdc
        self._sender = sender
        self._clock = clock
        self._settle_seconds = settle_seconds
        verifier = Verifier(rpc, usdc, sender.address)
        self._facilitator: Facilitator = (
            HttpFacilitator(policy.facilitator, usdc.chain, store, verifier)
            if policy.facilitator
            else SelfFacilitator(store, rpc, sender, verifier, clock, policy.gas)
        )
        self._fates = Fates(
            *(store, rpc, usdc, sender, verifier, self._facilitator),
            *(Confirmations(rpc, policy.confirm, second), clock),
        )
        self._refunds = RefundQueue(store, rpc, usdc, sender, clock, on_refunded)
        self._steps = Steps(store, self._facilitator, self._fates, self._refunds, clock, on_settled)
        self._transfers = TransferPayments(rpc, usdc, self._steps)
        self._reorgs = ReorgWatch(
            *(store, rpc, usdc, sender, self._facilitator, self._fates, self._refunds, clock),
            on_lost=on_lost,
            seconds=watch_seconds,
        )
        self._running: dict[_Key, _Running] = {}
        self._reserved = 0

    async def start(self) -> None:
        """Take up what a crash left behind, and begin to send refunds and to watch the chain.

        Raises:
            ConfigError: the RPC serves another chain, or the facilitator does not.
        """
        await self._check_chain(self._rpc)
        if self._second is not None:
            await self._check_chain(self._second)
        await self._facilitator.start()
        for claim in self._store.in_state(ClaimState.RESERVED):
            self._store.fail(claim, Reason.UNEXPECTED_VERIFY)  # nothing was sent for it
        self._store.prune(self._clock.now())
        for claim in self._store.in_state(ClaimState.BROADCAST, ClaimState.SETTLED):
            self._spawn(_key(claim), claim.binding, self._steps.resume(claim, lost_sight=True))
        self._refunds.start()
        self._reorgs.start()

    async def close(self) -> None:
        """Stop; what is under way is taken up by the next start."""
        await self._reorgs.close()
        await self._refunds.close()
        tasks = [running.task for running in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._fates.close()
        await self._facilitator.close()
        if self._second is not None:
            await self._second.close()
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
        given = presented.authorization

        def begin(known: Claim | None) -> Coroutine[Any, Any, Claim]:
            late = self._too_late(known, presented, terms)
            claim = self._reserve(known, terms, given, presented.signature, binding, subject)
            return self._steps.run(claim, presented, terms, before_broadcast, late)

        key = (given.from_.lower(), given.nonce.lower())
        return await self._join(key, lambda: self._store.find(terms.chain, given), binding, begin)

    async def settle_transfer(
        self,
        proof: TransferProof,
        terms: Terms,
        *,
        binding: str,
        subject: str,
        before_broadcast: BeforeBroadcast,
    ) -> Claim:
        """Take a transfer that the buyer sent himself, as the original protocol has it.

        The proof's own signature and challenge have been checked. Once per transaction, whatever
        it is presented for; otherwise as ``settle``, and what ``before_broadcast`` refuses goes
        back whole.

        Raises:
            PaymentRequired: that transaction does not pay for this; the reason says whether it is
                only not mined yet.
            AuthorizationReused, PaymentPending, Unavailable: as ``settle``.
        """
        given = described(proof, terms)
        known = self._store.find(terms.chain, given, by_transfer=True)
        if known is None:
            await self._transfers.check_sent(given)
        elif not same_address(known.payer, proof.payer):
            raise refused(
                Reason.SETTLEMENT_FAILED, "The transaction was sent by another wallet; send one."
            )

        def begin(known: Claim | None) -> Coroutine[Any, Any, Claim]:
            claim = self._reserve(
                known, terms, given, proof.signature, binding, subject, by_transfer=True
            )
            return self._transfers.run(claim, before_broadcast)

        return await self._join(
            ("tx", given.nonce),
            lambda: self._store.find(terms.chain, given, by_transfer=True),
            binding,
            begin,
        )

    async def _join(
        self,
        key: _Key,
        find: Callable[[], Claim | None],
        binding: str,
        begin: Callable[[Claim | None], Coroutine[Any, Any, Claim]],
    ) -> Claim:
        """One task for each payment, which all who present it wait for."""
        running = self._running.get(key)
        if running is not None:
            _check_binding(running.binding, binding)
        else:
            known = find()
            if known is not None:
                _check_binding(known.binding, binding)
                if known.state is ClaimState.REVERTED:
                    raise refused(
                        Reason.SETTLEMENT_FAILED,
                        "The chain took this payment back, and it can't be made any more; sign a"
                        " new one.",
                    )
                if known.state in (ClaimState.CONSUMED, ClaimState.REFUNDED):
                    return _kept(known)
            if known is not None and known.state in (ClaimState.BROADCAST, ClaimState.SETTLED):
                steps = self._steps.resume(known, lost_sight=True)
            else:
                steps = begin(known)
            running = self._spawn(key, binding, steps)
        try:
            async with asyncio.timeout(self._settle_seconds):
                return _kept(await asyncio.shield(running.task))
        except TimeoutError:
            raise PaymentPending(
                "The payment is not confirmed yet; present the same payment again.",
                reason=Reason.SETTLEMENT_PENDING,
            ) from None

    def was_presented(self, name: str | None) -> bool:
        """Whether there is a claim for a payment, by its payer and nonce (``payer:nonce``)."""
        payer, _, nonce = (name or "").partition(":")
        return self._store.known(self._usdc.chain, payer, nonce)

    def set_reply(self, claim: Claim, reply: bytes) -> Claim:
        """Keep the reply to the paid request; the first one stays."""
        return self._store.set_reply(claim, reply)

    def claim(self, subject: str) -> Claim | None:
        """The claim for exactly this subject: a paid one if there is one, else the newest."""
        return self._store.by_subject(subject)

    def claims_for(self, subject: str) -> list[Claim]:
        """All claims for exactly this subject, oldest first."""
        return self._store.of_subject(subject)

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

    def _spawn(self, key: _Key, binding: str, steps: Coroutine[Any, Any, Claim]) -> _Running:
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

    async def _check_chain(self, rpc: RpcClient) -> None:
        try:
            await rpc.verify_chain(self._usdc.chain.chain_id)
        except ChainUnavailable as error:
            _log.warning("starting without the chain: %s", error.detail)

    def _reserve(
        self,
        known: Claim | None,
        terms: Terms,
        given: Authorization,
        signature: bytes,
        binding: str,
        subject: str,
        *,
        by_transfer: bool = False,
    ) -> Claim:
        if known is not None:
            return self._store.retry(known, signature, subject=subject)
        self._reserved += 1
        if self._reserved % _PRUNE_EVERY == 0:
            self._store.prune(self._clock.now())
        return self._store.insert(
            terms.chain,
            given,
            signature,
            binding=binding,
            subject=subject,
            now=self._clock.now(),
            by_transfer=by_transfer,
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


def _key(claim: Claim) -> _Key:
    payer = "tx" if claim.by_transfer else claim.authorization.from_.lower()
    return payer, claim.authorization.nonce.lower()


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
