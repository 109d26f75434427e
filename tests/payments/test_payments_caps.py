"""Whatever servers ask and say, and however clocks jump: no more than the caps is ever at risk.

A stateful test over the real ``parse_402``, ``Guard``, ``Payer`` and ``PaymentJournal``. The world
around them is hostile: it keeps every signature it was given and hands it in whenever its window,
by the chain's own time, is open.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from payments_forger import AUTHORIZER, answers
from payments_purse import KEY, NOW, SELLER, ChainSays, Clock, challenge, purpose

from computeswarm.chain.errors import RpcUnavailable
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import SCHEME, ChannelConfig
from computeswarm.core.crypto import same_address
from computeswarm.core.eip712 import transfer_authorization_digest
from computeswarm.core.errors import BadRequest, PolicyRefused
from computeswarm.payments.challenge import Challenge, Option, parse_402
from computeswarm.payments.guard import Purpose, SpendingPolicy
from computeswarm.payments.journal import Fate, PaymentJournal, SignedPayment
from computeswarm.payments.payer import Payer

POLICY = SpendingPolicy(max_payment=1_000, max_job=2_500, max_day=4_000)
DAY = 86_400


class Pen:
    """A key that remembers all that it signed."""

    address = KEY.address

    def __init__(self) -> None:
        self.signed: list[bytes] = []

    def sign_digest(self, digest: bytes) -> bytes:
        self.signed.append(digest)
        return KEY.sign_digest(digest)


class World(RuleBasedStateMachine):
    """One wallet, two jobs, and a chain."""

    given = Bundle("given")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.chain_time = NOW
        self.pen = Pen()
        self.held: dict[str, SignedPayment] = {}
        """All that ever left, by nonce: what a hostile seller holds."""
        self.used: set[str] = set()
        self.closed: dict[str, int] = {}
        """Channels that the chain has closed, and what of them was claimed."""
        self.handed_at: dict[str, float] = {}
        self.open()

    def open(self) -> None:
        self.journal = PaymentJournal(Path(self.folder.name) / "payments.db")
        self.payer = Payer(self.pen, BASE_SEPOLIA, self.journal, POLICY, self.clock)  # type: ignore[arg-type]

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            self.folder.cleanup()

    # -- what servers do

    @rule(
        target=given, answer=answers(), job=st.integers(0, 1), slice_=st.integers(0, 3),
        most=st.sampled_from([500, 1_100]),
    )  # fmt: skip
    def ask(
        self, answer: tuple[dict[str, str], bytes], job: int, slice_: int, most: int
    ) -> Purpose:
        wanted = purpose(job_id=f"job-{job}", slice=slice_, expected_amount=most)
        try:
            found = parse_402(*answer)
        except BadRequest:
            return wanted
        return self.buy(wanted, found)

    @rule(
        target=given, amount=st.integers(1, 1_200), job=st.integers(0, 1), slice_=st.integers(0, 5),
        version=st.sampled_from([1, 2]), timeout=st.sampled_from([10, 60, 86_400]),
    )  # fmt: skip
    def ask_rightly(
        self, amount: int, job: int, slice_: int, version: int, timeout: int
    ) -> Purpose:
        found = challenge(amount, version, maxTimeoutSeconds=timeout)
        wanted = purpose(job_id=f"job-{job}", slice=slice_, expected_amount=1_200)
        return self.buy(wanted, found)

    def buy(self, wanted: Purpose, found: Challenge) -> Purpose:
        try:
            payment = self.payer.authorize(wanted, found)
        except PolicyRefused as error:
            assert error.extra["rule"]
            return wanted
        self.keep(wanted, payment)
        return wanted

    @rule(target=given, amount=st.integers(500, 3_000), job=st.integers(0, 1))
    def deposit(self, amount: int, job: int) -> Purpose:
        """Into a channel, as the channels' own payer does it."""
        wanted = purpose(job_id=f"job-{job}", slice=len(self.held))
        channel = f"0x{len(self.held):064x}"
        extra = {"name": "USDC", "version": "2"}
        extra |= {"receiverAuthorizer": AUTHORIZER, "withdrawDelay": 900}  # type: ignore[dict-item]
        found = challenge(500, scheme=SCHEME, extra=extra)
        config = ChannelConfig(
            KEY.address, KEY.address, SELLER, AUTHORIZER, BASE_SEPOLIA.usdc.address, 900, channel
        )

        def make(_: Option, now: float) -> SignedPayment:
            before = int(now) + 60
            return SignedPayment(
                wanted.job_id, wanted.slice, wanted.url, "POST", 84532, KEY.address, SELLER, amount,
                channel, before, 2, {}, Fate.OPEN, now, channel=channel,
            )  # fmt: skip

        try:
            payment = self.payer.commit(
                wanted,
                lambda now: self.payer.guard.check_deposit(wanted, found, config, amount, now=now),
                make,
            )
        except PolicyRefused:
            return wanted
        self.keep(wanted, payment)
        return wanted

    def keep(self, wanted: Purpose, payment: SignedPayment) -> None:
        """The server has it now, for ever."""
        if payment.nonce in self.held:
            return
        for old in self.held.values():
            if (old.job_id, old.slice) == (wanted.job_id, wanted.slice):
                self.may_follow(old)
        assert payment.amount <= min(POLICY.max_payment, wanted.expected_amount) or payment.channel
        if payment.version == 2 and not payment.channel:
            echoed = payment.payload["accepted"]
            assert echoed["network"] == "eip155:84532"
            assert same_address(echoed["asset"], BASE_SEPOLIA.usdc.address)
            assert same_address(echoed["payTo"], SELLER)
            assert (echoed.get("extra") or {}).get("name", "USDC") == "USDC"
        self.held[payment.nonce] = payment
        self.handed_at[payment.nonce] = self.chain_time

    def may_follow(self, old: SignedPayment) -> None:
        """Another was signed for the same purpose: the chain, or all that we had, showed why."""
        fate = {p.nonce: p.state for p in self.journal.of_job(old.job_id)}[old.nonce]
        if fate is Fate.EXPIRED:
            assert old.nonce not in self.used
            assert self.chain_time >= old.valid_before
        else:
            assert fate is Fate.WRITTEN_OFF or (fate is Fate.SPENT and old.nonce in self.used)

    @rule(wanted=given, why=st.text(max_size=5))
    def refuse(self, wanted: Purpose, why: str) -> None:
        self.payer.refused(wanted, why)

    @rule(wanted=given)
    def serve(self, wanted: Purpose) -> None:
        self.payer.settled(wanted, None)

    @rule(data=st.data())
    def hand_in(self, data: st.DataObject) -> None:
        """Use a signature on chain, whatever was said of it."""
        usable = [p.nonce for p in self.held.values() if self.usable(p)]
        if usable:
            self.used.add(data.draw(st.sampled_from(usable)))

    @rule(data=st.data(), share=st.integers(0, 100))
    def close_channel(self, data: st.DataObject, share: int) -> None:
        landed = [n for n in self.used if self.held[n].channel and n not in self.closed]
        if landed:
            nonce = data.draw(st.sampled_from(sorted(landed)))
            self.closed[nonce] = self.held[nonce].amount * share // 100
            self.journal.release(self.held[nonce].channel, self.closed[nonce])

    # -- time, and what we do

    @rule(seconds=st.sampled_from([1, 30, 61, 130, 700, 43_000, 86_300]))
    def pass_time(self, seconds: int) -> None:
        self.clock.time += seconds
        self.chain_time += seconds

    @rule(off=st.sampled_from([-600, -90, 0, 90, 600]))
    def set_clock(self, off: int) -> None:
        """Our clock is set, at most ten minutes off the chain's."""
        self.clock.time = self.chain_time + off

    @rule(how=st.sampled_from(["chain", "chain", "down", "none"]))
    def reconcile(self, how: str) -> None:
        chain: Any = ChainSays(self.chain_time, self.used)
        if how == "down":
            chain.head = _down
        try:
            _run(self.payer.reconcile(None if how == "none" else chain))
        except RpcUnavailable:
            assert how == "down"

    @rule()
    def crash(self) -> None:
        """Without a word; what was handed out has to be there."""
        self.open()
        for payment in self.held.values():
            assert payment.nonce in {p.nonce for p in self.journal.of_job(payment.job_id)}

    # -- what holds after every step

    def usable(self, payment: SignedPayment) -> bool:
        return payment.nonce not in self.used and self.chain_time < payment.valid_before

    def at_risk(self, payment: SignedPayment) -> int:
        """What it cost, or may still cost, in truth."""
        if payment.nonce in self.closed:
            return self.closed[payment.nonce]
        return payment.amount if payment.nonce in self.used or self.usable(payment) else 0

    @invariant()
    def caps_hold(self) -> None:
        if not hasattr(self, "held"):
            return
        held = self.held.values()
        for job in ("job-0", "job-1"):
            assert sum(self.at_risk(p) for p in held if p.job_id == job) <= POLICY.max_job
            assert self.journal.spent_job(job) >= sum(
                self.at_risk(p) for p in held if p.job_id == job
            )
        since = self.chain_time - DAY
        today = sum(self.at_risk(p) for p in held if self.handed_at[p.nonce] > since)
        assert today <= min(POLICY.max_day, self.payer.spent_today())

    @invariant()
    def expired_means_that_nothing_can_come_of_it(self) -> None:
        for job in ("job-0", "job-1") if hasattr(self, "held") else ():
            for payment in self.journal.of_job(job):
                if payment.state is Fate.EXPIRED:
                    assert payment.nonce not in self.used
                    assert not self.usable(payment)

    @invariant()
    def only_the_pinned_was_signed(self) -> None:
        if not hasattr(self, "pen"):
            return
        payments = [p for p in self.held.values() if not p.channel]
        assert len(self.pen.signed) == len(payments)
        for payment, digest in zip(payments, self.pen.signed, strict=True):
            given = payment.payload["payload"]["authorization"]
            after, before = int(given["validAfter"]), int(given["validBefore"])
            assert digest == transfer_authorization_digest(
                BASE_SEPOLIA, from_=KEY.address, to=SELLER, value=payment.amount,
                valid_after=after, valid_before=before, nonce=payment.nonce,
            )  # fmt: skip
            assert int(given["value"]) == payment.amount <= POLICY.max_payment
            assert before - payment.created_at <= 600


async def _down() -> None:
    raise RpcUnavailable("The chain's RPC did not answer in time.")


def _run(work: Any) -> None:
    """Drive a coroutine that never really waits."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


World.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestCaps = World.TestCase
