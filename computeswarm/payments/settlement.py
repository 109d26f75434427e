"""The seller's settlement: money first, proven by a receipt, and each payment for one thing once.

The steps are those of ``claim_states.CLAIM_TRANSITIONS``. Everything that leaves this process is on
disk before: the claim before it is verified, the signed transaction before it is broadcast. A
timeout is *unknown*, never *failed*: the same bytes are sent again until a receipt or the chain's
clock decides (``fate``), and a block that the chain takes back is noticed (``reorgs``).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.sender import TxSender
from computeswarm.chain.usdc import Authorization, Usdc
from computeswarm.core.clock import Clock
from computeswarm.core.crypto import same_address
from computeswarm.core.errors import (
    ChainUnavailable,
    PaymentRequired,
)
from computeswarm.core.x402 import Reason
from computeswarm.payments.claim import TRANSFER
from computeswarm.payments.claims import Claim, ClaimState, ClaimStore
from computeswarm.payments.confirmation import Confirmations
from computeswarm.payments.cover import Cover
from computeswarm.payments.facilitators.base import Facilitator
from computeswarm.payments.facilitators.own import SelfFacilitator
from computeswarm.payments.facilitators.remote import HttpFacilitator
from computeswarm.payments.fate import Fates
from computeswarm.payments.joins import Joins, Key, Steps
from computeswarm.payments.ledger.entries import Entry
from computeswarm.payments.ledger.seller import Day, Earnings, by_day, earned, ledger
from computeswarm.payments.policy import SettlementPolicy
from computeswarm.payments.present import Presented, check_authorization, refused
from computeswarm.payments.refunds import RefundQueue, RefundRow
from computeswarm.payments.reorgs import WATCH_SECONDS, OnLost, ReorgWatch
from computeswarm.payments.terms import Terms
from computeswarm.payments.transfer_payment import TransferPayments, described
from computeswarm.payments.transfer_proof import TransferProof
from computeswarm.payments.verify import Verifier
from computeswarm.payments.way import BeforeBroadcast, OnSettled, Way

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 30.0
"""How long a request waits for its receipt; after that the settlement goes on without it."""
_PRUNE_EVERY = 256  # new claims
_SENT = (ClaimState.BROADCAST, ClaimState.SETTLED)


def request_binding(method: str, url: str, body: bytes) -> str:
    """What a payment is bound to: the hash of method, URL and body."""
    head = f"{method.upper()} {url}\n".encode()
    return hashlib.sha256(head + body).hexdigest()


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
        self._joins = Joins(settle_seconds)
        verifier = Verifier(rpc, usdc, sender.address)
        self._facilitator: Facilitator = (
            HttpFacilitator(policy.facilitator, usdc.chain, store, verifier)
            if policy.facilitator
            else SelfFacilitator(store, rpc, sender, verifier, clock, policy.gas)
        )
        cover = Cover(usdc)
        self._fates = Fates(
            *(store, rpc, usdc, sender, verifier, self._facilitator),
            *(Confirmations(rpc, policy.confirm, second), clock, cover),
        )
        self._refunds = RefundQueue(store, rpc, usdc, sender, clock, on_refunded)
        self._way = Way(
            *(store, self._facilitator, self._fates, self._refunds, clock),
            *(on_settled, cover),
        )
        self._transfers = TransferPayments(rpc, usdc, self._way)
        self._reorgs = ReorgWatch(
            *(store, rpc, usdc, sender, self._facilitator, self._fates, self._refunds, clock),
            on_lost=on_lost,
            seconds=watch_seconds,
        )
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
        for claim in self._store.in_state(*_SENT):
            steps = self._way.resume(claim, lost_sight=True)
            self._joins.spawn(_key(claim), claim.binding, steps)
        self._refunds.start()
        self._reorgs.start()

    async def close(self) -> None:
        """Stop; what is under way is taken up by the next start."""
        await self._reorgs.close()
        await self._refunds.close()
        await self._joins.close()
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

        def begin(known: Claim | None) -> Steps:
            if known is not None and known.state in _SENT:
                return self._way.resume(known, lost_sight=True)
            late = self._too_late(known, presented, terms)
            claim = self._reserve(known, terms, given, presented.signature, binding, subject)
            return self._way.run(claim, presented, terms, before_broadcast, late)

        key = (given.from_.lower(), given.nonce.lower())
        return await self._joins.join(
            key, binding, lambda: self._store.find(terms.chain, given), begin
        )

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

        def begin(known: Claim | None) -> Steps:
            if known is not None and known.state in _SENT:
                return self._way.resume(known, lost_sight=True)
            claim = self._reserve(
                known, terms, given, proof.signature, binding, subject, by_transfer=True
            )
            return self._transfers.run(claim, before_broadcast)

        return await self._joins.join(
            (TRANSFER, given.nonce),
            binding,
            lambda: self._store.find(terms.chain, given, by_transfer=True),
            begin,
        )

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


def _key(claim: Claim) -> Key:
    payer = TRANSFER if claim.by_transfer else claim.authorization.from_.lower()
    return payer, claim.authorization.nonce.lower()
