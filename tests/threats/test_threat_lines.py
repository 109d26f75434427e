"""Our own buyer at a real seller, over a line that loses and doubles, and with a node that lags.

Mitigations: what is signed is stored before it is sent, and the same is presented again until its
fate is known; the seller answers a payment that he knows as he did the first time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import faulty_line as lines
import faulty_rpc as faults
import pytest
from buyer_fakes import make_buyer
from faulty_line import FaultyLine
from faulty_rpc import FaultyRpc
from threat_rig import FUNDS, SLICE, Attack, open_attack

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.journal import Stage
from computeswarm.buyer.spec import JobPlan, plan_job
from computeswarm.chain.devnet import Devnet
from computeswarm.chain.rpc import RpcClient
from computeswarm.chain.usdc import Usdc
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.clock import SystemClock
from computeswarm.core.crypto import PrivateKey
from computeswarm.core.errors import InsufficientFunds, PaymentPending
from computeswarm.core.nodes import ComputeNode, NodeStatus
from computeswarm.core.states import JobState
from computeswarm.payments.challenge import parse_402
from computeswarm.payments.guard import Purpose, SpendingPolicy
from computeswarm.payments.journal import Fate, PaymentJournal
from computeswarm.payments.payer import Payer
from computeswarm.payments.terms import Terms, payment_required

BUDGET = 100_000
FAULTS = [
    lines.lost_request,
    lines.lost_reply,
    lines.doubled,
    lines.cut,
    lines.bad_gateway,
]


@asynccontextmanager
async def connected(devnet: Devnet, folder: Path, **changes: Any) -> AsyncIterator[Any]:
    """A seller who is only reached over the line."""
    async with (
        FaultyLine() as line,
        open_attack(devnet, folder, endpoint=line.url, **changes) as attack,
    ):
        line.target = attack.rig.url
        yield attack, line


def node_of(attack: Attack) -> ComputeNode:
    """The seller as the market would list him."""
    offers, now = attack.rig.agent.offers, int(time.time())
    return ComputeNode(
        node_id=attack.rig.agent.node_id,
        status=NodeStatus.IDLE,
        record=offers.record(),
        registered_at=now,
        last_seen=now,
    )


def plan(folder: Path, code: str, seconds: int = 60) -> JobPlan:
    """A job of a script, for the rig's small machine."""
    script = folder / "job.py"
    script.write_text(code)
    made = plan_job(script, max_seconds=seconds)
    changes = {"memory_bytes": 128 * 2**20, "disk_bytes": 16 * 2**20}
    return replace(made, spec=made.spec.model_copy(update=changes))


def buyer_of(attack: Attack, folder: Path, **options: Any) -> Buyer:
    """Our buyer, with the rich wallet; the same folder again is a restart."""
    options = {"rpc": attack.devnet.url, **options}
    return make_buyer(folder / "buyer", attack.buyer, **options)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_one_purchase_is_charged_once_whatever_becomes_of_the_replies(
    devnet: Devnet, tmp_path: Path, fault: lines.Fault
) -> None:
    async with connected(devnet, tmp_path) as (attack, line), buyer_of(attack, tmp_path) as buyer:
        line.faults = [fault, fault]
        offer = await buyer.quote(node_of(attack), plan(tmp_path, "print('hello')"))
        record = await buyer.start(offer, budget=BUDGET)
        assert (record.stage, record.job_id) == (Stage.PAID, offer.job_id)
        assert line.paid_posts >= 2 or fault is lines.doubled
        (view,) = await attack.settled_books()
        assert (view.paid, view.state) == (SLICE, JobState.SUCCEEDED)
        assert await attack.uses(attack.buyer.address) == 1
        assert buyer.spent_today() == SLICE


async def test_slices_over_a_bad_line_are_charged_once_each_and_within_the_budget(
    devnet: Devnet, tmp_path: Path
) -> None:
    """Most paid posts are lost or doubled; no slice is paid twice, and the budget ends the job."""
    endless = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"
    options = {"slice_seconds": 1, "config": {"term_seconds": 0.1}}
    async with (
        connected(devnet, tmp_path, **options) as (attack, line),
        buyer_of(attack, tmp_path) as buyer,
    ):
        line.faults = [*FAULTS, lines.honest] * 2
        offer = await buyer.quote(node_of(attack), plan(tmp_path, endless, 30))
        record = await buyer.start(offer, budget=4_000)
        async for _ in buyer.follow(record.job_id):
            pass
        (view,) = await attack.settled_books()
        assert view.state is JobState.OUT_OF_FUNDS
        assert await attack.uses(attack.buyer.address) == view.slices_paid <= 4
        assert buyer.spent_today() == view.paid <= 4_000


async def test_a_buyer_who_is_gone_over_a_lost_reply_finds_his_job_again(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with connected(devnet, tmp_path) as (attack, line):
        async with buyer_of(attack, tmp_path, present_seconds=0.1) as buyer:
            line.faults = [lines.lost_reply] * 50
            offer = await buyer.quote(node_of(attack), plan(tmp_path, "print('hello')"))
            with pytest.raises(PaymentPending):
                await buyer.start(offer, budget=BUDGET)
        line.faults = []
        async with buyer_of(attack, tmp_path) as buyer:
            (record,) = await buyer.resume()
            assert (record.stage, record.job_id) == (Stage.PAID, offer.job_id)
        await attack.settled_books()
        assert await attack.uses(attack.buyer.address) == 1


async def test_a_refusal_on_the_line_gets_no_second_signature(
    devnet: Devnet, tmp_path: Path
) -> None:
    """The seller took the payment; somebody on the line says "insufficient funds"."""

    async def refused(post: lines.Post) -> Any:
        await post.forward()
        terms = Terms(BASE_SEPOLIA, attack.seller, SLICE, f"{line.url}/execute")
        headers, _ = payment_required(terms, error="no", reason="insufficient_funds")
        return lines.whole((402, headers, b"{}"))

    async with connected(devnet, tmp_path) as (attack, line), buyer_of(attack, tmp_path) as buyer:
        line.faults = [refused]
        offer = await buyer.quote(node_of(attack), plan(tmp_path, "print('hello')"))
        with pytest.raises(InsufficientFunds):
            await buyer.start(offer, budget=BUDGET)
        assert buyer.spent_today() == SLICE
        record = await buyer.start(offer, budget=BUDGET)
        assert record.stage is Stage.PAID
        await attack.settled_books()
        assert await attack.uses(attack.buyer.address) == 1


@pytest.mark.parametrize("lag", ["stale node", "fast clock"])
async def test_nothing_is_signed_again_before_the_chain_is_past_the_window(
    devnet: Devnet, proxy: FaultyRpc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lag: str
) -> None:
    """A node of before the window, or our clock twenty minutes ahead: neither proves a payment
    dead, so a second one is not signed while the first can still be taken."""
    key = PrivateKey.generate()
    journal = PaymentJournal(tmp_path / "payments.db")
    policy = SpendingPolicy(max_payment=SLICE, max_job=FUNDS, max_day=FUNDS)
    payer = Payer(key, BASE_SEPOLIA, journal, policy, SystemClock())
    purpose = Purpose("job-1", 0, "http://s.test/execute", "POST", SLICE, devnet.keys[1].address)
    terms = Terms(BASE_SEPOLIA, purpose.pay_to, SLICE, purpose.url)
    challenge = parse_402(*_as_read(terms))
    async with RpcClient(proxy.url) as rpc:
        first = payer.authorize(purpose, challenge)
        if lag == "stale node":
            block = await rpc.block_number()
            proxy.set("*", to=faults.stale(block))
        monkeypatch.setattr(SystemClock, "now", lambda _: time.time() + 1_200)
        assert payer.overdue() == [first]
        await payer.reconcile(Usdc(rpc, BASE_SEPOLIA))
        assert payer.authorize(purpose, challenge).nonce == first.nonce
        assert [payment.state for payment in journal.of_job("job-1")] == [Fate.OPEN]
        assert payer.spent_today() == SLICE
    journal.close()


def _as_read(terms: Terms) -> tuple[dict[str, str], bytes]:
    headers, _ = payment_required(terms, error="Pay first.")
    return {name.lower(): value for name, value in headers.items()}, b""
