"""Buyer and seller through anything that may happen, in any order, and the invariants after it.

A stateful test over a whole simulated world (see ``sim_world``): real seller, real buyer, real
chain engine, virtual time. I1 to I8 are those of the design; what can't hold in the middle of a
fault (every payment done, refunded or owed) is checked when all faults are over and a few minutes
have passed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sim_world import GAS_WEI, USDC, World
from threat_rig import SLICE, Signed, cancellation

from computeswarm.buyer.http.base import Answer
from computeswarm.buyer.journal import JobRecord, Stage
from computeswarm.buyer.slices import SlicePayer
from computeswarm.buyer.spec import JobPlan
from computeswarm.chain.usdc import Authorization, authorization_calldata, transfer_calldata
from computeswarm.core.channels import BATCH_SETTLEMENT, DEPOSIT_COLLECTOR, SCHEME
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import ComputeSwarmError
from computeswarm.core.jobs import JobSpec
from computeswarm.core.quotes import Scheme
from computeswarm.core.states import JobState
from computeswarm.payments.refunds import DUST_ATOMS

EXAMPLES = int(os.environ.get("SWARM_EXAMPLES", "40"))
PHASES = [Phase.generate, *([Phase.shrink] if "SWARM_SHRINK" in os.environ else [])]
STEPS = int(os.environ.get("SWARM_STEPS", "30"))
BARE = PrivateKey(b"\x34" * 32)
FUNDS = 10 * SLICE
DAY_CAP = 12 * SLICE
POLICY = {"max_payment": "0.05", "max_job": "0.06", "max_day": "0.12"}
CLAIMS, JOBS = "seller/seller/payments.db", "seller/seller/jobs.db"
PAYMENTS = "buyer/buyer/payments.db"
SECONDS = (0.1, 2.0, 11.0, 70.0, 700.0)
index = st.integers(0, 7)
SEND, RECEIPT = "eth_sendRawTransaction", "eth_getTransactionReceipt"
WEAK = ("eth_call", "eth_getTransactionCount", "eth_estimateGas", "eth_getLogs")


@dataclass(frozen=True)
class Trouble:
    """What goes wrong during one purchase: calls of the seller's node, the line, deaths."""

    calls: dict[str, list[str]]
    line: list[str]
    seller_dies: int | None
    buyer_dies: int | None


def _calls(method: str, kinds: tuple[str, ...]) -> st.SearchStrategy[dict[str, list[str]]]:
    return st.lists(st.sampled_from(kinds), min_size=1, max_size=4).map(lambda x: {method: x})


LINE = st.lists(
    st.sampled_from(["lost request", "lost reply", "lost reply", "doubled", "ok"]), max_size=4
)
CALLS = st.one_of(
    _calls(SEND, ("down", "deaf", "swallow", "refuse", "up")),
    _calls(RECEIPT, ("down", "deaf", "swallow", "up")),
    *(_calls(method, ("down", "deaf", "up")) for method in WEAK),
)
NO_TROUBLE = Trouble({}, [], None, None)
trouble = st.one_of(
    st.just(NO_TROUBLE),
    CALLS.map(lambda calls: Trouble(calls, [], None, None)),
    LINE.map(lambda line: Trouble({}, line, None, None)),
    st.integers(0, 70).map(lambda fuse: Trouble({}, [], fuse, None)),
    st.integers(0, 25).map(lambda fuse: Trouble({}, [], None, fuse)),
    st.builds(Trouble, CALLS, LINE, st.integers(0, 70), st.integers(0, 25)),
)
pause = st.sampled_from([0.0, 0.3, 8.0])


@dataclass
class Bare:
    """A purchase by a bare client, who may misbehave."""

    body: str
    payment: Signed

    @property
    def nonce(self) -> str:
        return self.payment.authorization.nonce


def spec_of(seconds: float, code: int) -> JobSpec:
    """A job that takes so long and ends so."""
    return JobSpec(
        command=("job", str(seconds), str(code)),
        max_seconds=60,
        memory_bytes=2**27,
        disk_bytes=2**24,
    )


class Swarm(RuleBasedStateMachine):
    """One world for one run."""

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.world = World(seed=seed)
        self.bare: list[Bare] = []
        self.third: set[str] = set()
        self.reorged = False
        self.replies: dict[tuple[str, str], bytes] = {}
        self.world.chain.fund(self.world.buyer_key.address, atoms=FUNDS)
        self.world.chain.fund(BARE.address, atoms=FUNDS, wei=GAS_WEI)
        self.world.chain.keep()
        assert self.world.start_seller()
        self.world.start_buyer(**POLICY)

    # What buyers do

    @property
    def served(self) -> bool:
        return self.world.up

    @property
    def buying(self) -> bool:
        process = self.world.buyer_process
        return process is not None and process.alive and self.world.buyer is not None

    def _by_buyer(self, steps: Any) -> Any:
        process = self.world.buyer_process
        assert process is not None
        try:
            return process.run(steps)
        except ComputeSwarmError:
            return None

    def _begin_trouble(self, trouble: Trouble) -> None:
        world = self.world
        world.rpc_faults = {method: list(kinds) for method, kinds in trouble.calls.items()}
        world.line_faults = list(trouble.line)
        if world.seller is not None and trouble.seller_dies is not None:
            world.seller.fuse = trouble.seller_dies
        if world.buyer_process is not None and trouble.buyer_dies is not None:
            world.buyer_process.fuse = trouble.buyer_dies

    def _end_trouble(self, pause: float) -> None:
        """Whoever died is started again, as a supervisor would."""
        self.world.pass_time(pause)
        for process in (self.world.seller, self.world.buyer_process):
            if process is not None and process.alive:
                process.fuse = None
        self.world.line_faults = []
        if self.world.seller is not None and not self.world.seller.alive:
            self._revive_seller()
        if not self.buying:
            self._revive_buyer(kill=False)

    @precondition(lambda self: self.served and self.buying)
    @rule(
        seconds=st.sampled_from([0.0, 5.0, 25.0]),
        code=st.sampled_from([0, 3]),
        slices=st.integers(1, 5),
        scheme=st.sampled_from(["exact", SCHEME]),
        trouble=trouble,
        pause=pause,
    )
    def buy(
        self,
        seconds: float,
        code: int,
        slices: int,
        scheme: Scheme,
        trouble: Trouble,
        pause: float,
    ) -> None:
        buyer, node = self.world.buyer, self.world.node()
        assert buyer is not None
        plan = JobPlan(spec=spec_of(seconds, code), sources={})

        async def steps() -> None:
            offer = await buyer.quote(node, plan, scheme=scheme)
            await buyer.start(offer, budget=SLICE * slices)

        self._begin_trouble(trouble)
        self._by_buyer(steps())
        self._end_trouble(pause)

    def _record(self, number: int) -> JobRecord | None:
        assert self.world.buyer is not None
        records = self.world.buyer.jobs()
        return records[number % len(records)] if records else None

    @precondition(lambda self: self.buying)
    @rule(number=index, trouble=trouble, pause=pause)
    def pay_slice(self, number: int, trouble: Trouble, pause: float) -> None:
        buyer, record = self.world.buyer, self._record(number)
        if record is None or record.stage is not Stage.PAID:
            return
        assert buyer is not None

        async def steps() -> None:
            fresh = await buyer.refresh(record.job_id)
            view = fresh.view
            if view is not None and view.state is JobState.RUNNING:
                pay = buyer._follower._slices_of(fresh, buyer._seller(record.endpoint))
                await pay(view.slices_paid)

        self._begin_trouble(trouble)
        self._by_buyer(steps())
        self._end_trouble(pause)

    @precondition(lambda self: self.buying)
    @rule(number=index, seconds=st.sampled_from([3.0, 12.0, 40.0]), trouble=trouble)
    def keep_it_paid(self, number: int, seconds: float, trouble: Trouble) -> None:
        """As ``run`` does for as long as it is open."""
        buyer, record = self.world.buyer, self._record(number)
        if buyer is None or record is None or record.stage is not Stage.PAID:
            return

        async def steps() -> None:
            follower, seller = buyer._follower, buyer._seller(record.endpoint)
            pay = follower._slices_of(record, seller)
            slices = SlicePayer(
                record, seller, pay, follower._journal, follower._clock, lambda _: None
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await slices.run()

        self._begin_trouble(trouble)
        self._by_buyer(steps())
        self._end_trouble(0.0)

    @precondition(lambda self: self.buying)
    @rule(number=index)
    def cancel(self, number: int) -> None:
        buyer, record = self.world.buyer, self._record(number)
        if buyer is not None and record is not None:
            self._by_buyer(buyer.cancel(record.job_id))

    @precondition(lambda self: self.buying)
    @rule()
    def resume(self) -> None:
        assert self.world.buyer is not None
        self._by_buyer(self.world.buyer.resume())

    # What a bare client does, honest or not

    @rule(
        seconds=st.sampled_from([0.0, 5.0]),
        copies=st.integers(1, 4),
        value=st.sampled_from([SLICE, SLICE, SLICE, SLICE - 1]),
        trouble=trouble,
        pause=pause,
    )
    def bare_buy(
        self, seconds: float, copies: int, value: int, trouble: Trouble, pause: float
    ) -> None:
        spec = spec_of(seconds, 0).model_dump(mode="json")
        body = json.dumps({"spec": spec, "job_id": f"job-{secrets.token_hex(10)}"})
        seller = self.world.seller_key.address
        payment = Signed.make(BARE, seller, value, now=self.world.loop.wall())
        self.bare.append(Bare(body, payment))
        self._begin_trouble(trouble)
        self._present(self.bare[-1], copies)
        self._end_trouble(pause)

    @precondition(lambda self: self.bare)
    @rule(number=index, copies=st.integers(1, 3))
    def repeat(self, number: int, copies: int) -> None:
        self._present(self.bare[number % len(self.bare)], copies)

    @precondition(lambda self: self.bare and self.served)
    @rule(number=index)
    def reuse_for_another_job(self, number: int) -> None:
        bare = self.bare[number % len(self.bare)]
        other = {"spec": spec_of(1.0, 0).model_dump(mode="json")}
        used = Bare(json.dumps(other), bare.payment)
        # the bare client that failed may present it with what it likes; a job has it for good
        if (bare.nonce, bare.body) in self.replies:
            answers = self._post(used, 1)
            assert all(answer.status in (402, 409, 503) for answer in answers)

    def _post(self, bare: Bare, copies: int) -> list[Answer]:
        async def steps() -> list[Answer | None]:
            posts = [
                self.world.http("POST", "/execute", bare.payment.headers, bare.body.encode())
                for _ in range(copies)
            ]
            async with asyncio.timeout(120):
                return await asyncio.gather(*posts)

        answers = self.world.loop.run_until_complete(steps())
        return [answer for answer in answers if answer is not None]

    def _present(self, bare: Bare, copies: int) -> None:
        for answer in self._post(bare, copies):
            if answer.status == 202:
                first = self.replies.setdefault((bare.nonce, bare.body), answer.body)
                assert answer.body == first  # I6

    def _signed(self) -> list[Signed]:
        """Every payment that is out, of whoever's; the newest last."""
        known = [bare.payment for bare in self.bare]
        for row in self.world.rows(
            PAYMENTS, "SELECT payload FROM payments WHERE channel = '' ORDER BY id"
        ):
            exact = json.loads(row["payload"])["payload"]
            given = exact["authorization"]
            authorization = Authorization(
                given["from"],
                given["to"],
                int(given["value"]),
                int(given["validAfter"]),
                int(given["validBefore"]),
                given["nonce"],
            )
            known.append(Signed(authorization, bytes.fromhex(exact["signature"][2:])))
        return known

    @rule(number=index)
    def third_party_submits(self, number: int) -> None:
        if not (signed := self._signed()):
            return
        payment = signed[-1 - number % len(signed)]
        data = authorization_calldata(payment.authorization, payment.signature)
        if payment.authorization.nonce not in self.world.chain.used():
            self.third.add(payment.authorization.nonce)
            self.world.chain.send(self.world.third_key, USDC, data)

    @precondition(lambda self: self.bare)
    @rule(number=index)
    def cancel_authorization(self, number: int) -> None:
        nonce = self.bare[number % len(self.bare)].nonce
        self.world.chain.send(BARE, USDC, cancellation(BARE, nonce))

    @rule(whose=st.sampled_from(["bare", "buyer"]))
    def drain(self, whose: str) -> None:
        key = BARE if whose == "bare" else self.world.buyer_key
        held = self.world.chain.balance(key.address)
        data = transfer_calldata(self.world.third_key.address, held)
        self.world.chain.send(key, USDC, data)

    @rule(atoms=st.sampled_from([SLICE - 1, SLICE, 5 * SLICE]))
    def top_up(self, atoms: int) -> None:
        for key in (BARE, self.world.buyer_key):
            self.world.chain.fund(key.address, atoms=atoms)

    # What happens to them

    @rule(seconds=st.sampled_from(SECONDS))
    def wait(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(blocks=st.integers(1, 8), seconds=st.sampled_from([0.0, 15.0]))
    def take_blocks_back(self, blocks: int, seconds: float) -> None:
        self.world.chain.take_back(blocks)
        self.reorged = True
        self.world.pass_time(seconds)

    @rule(mode=st.sampled_from(["up", "up", "down", "flaky", "deaf"]))
    def break_the_chains_node(self, mode: str) -> None:
        self.world.rpc_mode = mode

    @rule(wei=st.sampled_from([0, GAS_WEI]))
    def gas(self, wei: int) -> None:
        self.world.chain.fund(self.world.seller_key.address, wei=wei)
        if not wei:
            self.world.chain.ask("anvil_setBalance", self.world.seller_key.address, "0x0")

    @rule(skew=st.sampled_from([0.0, 600.0, -600.0]), whose=st.sampled_from(["seller", "buyer"]))
    def set_a_clock(self, skew: float, whose: str) -> None:
        process = self.world.seller if whose == "seller" else self.world.buyer_process
        assert process is not None
        process.skew = skew

    @rule(kill=st.booleans(), seconds=st.sampled_from([0.0, 5.0, 90.0]))
    def restart_the_seller(self, kill: bool, seconds: float) -> None:
        if kill or not self.world.up:
            self.world.kill_seller()
        else:
            self.world.stop_seller()
        self.world.pass_time(seconds)
        self._revive_seller()

    @rule()
    def restart_the_buyer(self) -> None:
        self._revive_buyer(kill=True)

    def _revive_seller(self) -> None:
        assert self.world.seller is not None
        if self.world.up:
            return
        self.world.kill_seller()
        try:
            self.world.start_seller()
        except ComputeSwarmError:
            self.world.kill_seller()

    def _revive_buyer(self, *, kill: bool) -> None:
        if self.buying and not kill:
            return
        self.world.kill_buyer()
        self.world.start_buyer(**POLICY)

    # What must hold

    @invariant()
    def safe(self) -> None:
        """What holds at any moment."""
        if not hasattr(self, "world"):
            return
        world = self.world
        used = world.chain.used()
        # one that waited may start before what a reorganisation took is back
        assert self.reorged or world.unpaid_starts == [], "I1: a job ran unpaid"
        assert all(count == 1 for count in world.starts.values()), "I3: a job ran twice"
        for claim in world.rows(CLAIMS, "SELECT * FROM claims"):
            gone = claim["state"] == "failed" and claim["nonce"] in used
            assert not gone or claim["nonce"] in self.third, "I5: what paid was taken for failed"
        jobs = world.rows(JOBS, "SELECT authorization FROM jobs")
        assert len({job["authorization"].lower() for job in jobs}) == len(jobs), "I3"
        for payer in (world.buyer_key.address, BARE.address):
            paid = world.chain.moved(payer, world.seller_key.address)
            back = world.chain.moved(world.seller_key.address, payer)
            assert back <= paid, "I4: more came back than went"
        self._caps(used)

    def _caps(self, used: set[str]) -> None:
        signed = self.world.rows(PAYMENTS, "SELECT * FROM payments")
        per_job: dict[str, int] = {}
        total = 0
        for row in signed:
            if row["state"] == "expired":
                assert row["nonce"] not in used, "I5: what is spent was taken for expired"
                continue
            total += row["amount"]
            per_job[row["job_id"]] = per_job.get(row["job_id"], 0) + row["amount"]
        assert total <= DAY_CAP, "I8: more was signed than the day's cap"
        budgets = {
            row["job_id"]: row["budget"]
            for row in self.world.rows("buyer/buyer/jobs.db", "SELECT job_id, budget FROM jobs")
        }
        assert all(atoms <= budgets[job] for job, atoms in per_job.items()), "I8: over a budget"

    def _settled(self) -> None:
        """All faults are over and minutes have passed: nothing hangs (I7), all is accounted for."""
        world = self.world
        used = world.chain.used()
        claims = world.rows(CLAIMS, "SELECT * FROM claims")
        hanging = [c["state"] for c in claims if c["state"] in ("broadcast", "settled")]
        assert not hanging, f"I7: payments hang as {hanging}"
        jobs = world.rows(JOBS, "SELECT * FROM jobs")
        running = [job["state"] for job in jobs if not JobState(job["state"]).terminal]
        assert not running, f"I7: jobs hang as {running}"
        paid = {c["nonce"]: c["amount"] for c in claims if c["state"] in ("consumed", "refunded")}
        ours = {b.nonce for b in self.bare} | {
            row["nonce"]
            for row in world.rows(PAYMENTS, "SELECT nonce FROM payments WHERE channel = ''")
        }
        unknown = (used & ours) - paid.keys() - self.third
        assert not unknown, "I2: atoms came and nobody knows of them"
        assert paid.keys() <= used, "I1: unpaid claims count as paid"
        lost = [c["subject"] for c in claims if c["state"] == "reverted"]
        assert not lost or self.reorged
        costs = sum(job["cost"] for job in jobs if not job["channel"])
        debts = world.rows(CLAIMS, "SELECT * FROM refunds")
        owed = sum(debt["amount"] for debt in debts)
        if not lost:  # else some of it was served for nothing, or given back to nobody
            assert sum(paid.values()) == costs + owed, "I4: atoms in are not costs and refunds"
        unpaid = world.rows(
            CLAIMS,
            "SELECT r.recipient, SUM(r.amount) AS atoms FROM refunds r LEFT JOIN batches b"
            " ON b.id = r.batch WHERE b.state IS NULL OR b.state != 'done' GROUP BY r.recipient",
        )
        due = [row["atoms"] for row in unpaid if row["atoms"] >= DUST_ATOMS]
        if lost:
            # he gave back part of a payment that the chain then took from him, so he may lack it
            had = world.chain.balance(world.seller_key.address)
            due = [atoms for atoms in due if atoms <= had]
        assert not due, "I2: refunds hang"
        seller = world.seller_key.address
        back = sum(world.chain.moved(seller, to) for to in (world.buyer_key.address, BARE.address))
        assert back == owed - sum(row["atoms"] for row in unpaid), "I4: refunds on the chain"
        came = sum(
            world.chain.moved(payer, seller) for payer in (world.buyer_key.address, BARE.address)
        )
        by_channel = world.chain.moved(BATCH_SETTLEMENT, seller)
        assert world.chain.balance(seller) == came + by_channel - back
        self._channels_settled(by_channel, [job for job in jobs if job["channel"]])
        given = [payment.authorization for payment in self._signed()]
        windfall = sum(g.value for g in given if g.nonce in used - paid.keys())
        assert came == sum(paid.values()) + windfall, "I4: payments on the chain"

    def _channels_settled(self, came: int, jobs: list[Any]) -> None:
        world = self.world
        if self.reorged:  # a deposit that is lost, or late, is the buyer's to take home
            assert came <= sum(job["cost"] for job in jobs), "I4: more claimed than used"
            return
        assert world.chain.balance(BATCH_SETTLEMENT) == 0, "I2: a deposit hangs"
        assert came == sum(job["cost"] for job in jobs), "I4: channels' atoms are not their costs"
        buyer = world.buyer_key.address
        put_in = world.chain.moved(buyer, DEPOSIT_COLLECTOR)
        assert put_in == came + world.chain.moved(BATCH_SETTLEMENT, buyer), "I4: deposits"

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self._quiet()
            self._settled()
        finally:
            self.world.close()

    def _quiet(self) -> None:
        world = self.world
        world.rpc_mode, world.line_faults, world.rpc_faults = "up", [], {}
        world.chain.fund(world.seller_key.address, wei=GAS_WEI)
        for process in (world.seller, world.buyer_process):
            if process is not None:
                process.skew, process.fuse = 0.0, None
        self._revive_seller()
        self._revive_buyer(kill=False)
        assert world.up and self.buying
        self.resume()
        world.pass_time(240.0)
        self.safe()


TestSwarm = Swarm.TestCase
TestSwarm.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize="SWARM_EXAMPLES" not in os.environ,
    print_blob=True,
    phases=PHASES,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True)
def _quiet_logs() -> None:
    logging.getLogger("computeswarm").setLevel(logging.CRITICAL)
