"""A buyer and a seller who never met do business by a channel, and one of them goes away."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from demo_fixtures import Demo
from lone_seller import seller_process
from seller_rig import Rig, open_rig

from computeswarm.buyer.client import Buyer
from computeswarm.buyer.http.base import Answer
from computeswarm.buyer.spec import JobPlan, plan_job
from computeswarm.chain.devnet import Devnet, start_devnet
from computeswarm.core.chains import BASE_SEPOLIA
from computeswarm.core.channels import SCHEME
from computeswarm.core.clock import SystemClock
from computeswarm.core.errors import Conflict, PaymentPending, PolicyRefused, SellerUnavailable
from computeswarm.core.events import EndEvent, OutputEvent
from computeswarm.core.imports import import_late
from computeswarm.core.nodes import ComputeNode, NodeStatus
from computeswarm.core.settings import Paths, Settings
from computeswarm.core.signing import Signed
from computeswarm.core.states import JobState
from computeswarm.core.x402 import decode_header

BUDGET = 100_000
"""A hundred seconds at a thousand atoms each."""
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"


class LateClock(SystemClock):
    """A clock that can be put forward."""

    late = 0.0

    def now(self) -> float:
        return super().now() + self.late


def planned(tmp_path: Path, code: str, **limits: Any) -> JobPlan:
    script = tmp_path / f"{secrets.token_hex(4)}.py"
    script.write_text(code)
    return plan_job(script, **limits)


@asynccontextmanager
async def buying(
    devnet: Devnet, home: Path, market: str = "http://127.0.0.1:9", **options: Any
) -> AsyncIterator[Buyer]:
    """The devnet's first key as a buyer."""
    settings = Settings(market=market, rpc=devnet.url, max_day="0.30")
    paths = Paths(config=home, state=home, cache=home / "cache")
    async with Buyer(settings, paths, devnet.keys[0], lost_seconds=3, **options) as buyer:
        yield buyer


async def node_of(rig: Rig) -> ComputeNode:
    """The seller's node, as a market would list it."""
    record = Signed.model_validate((await rig.call("GET", "/")).json["record"])
    node_id = (await rig.call("GET", "/")).json["node_id"]
    now = int(time.time())
    return ComputeNode(
        node_id=node_id, status=NodeStatus.IDLE, record=record, registered_at=now, last_seen=now
    )


async def until_output(buyer: Buyer, job_id: str) -> None:
    """Follow it, paying, until it prints something."""
    stream = buyer.follow(job_id)
    async for event in stream:
        if isinstance(event, OutputEvent):
            break
    await stream.aclose()


async def test_ticks_carry_a_job_to_its_end_and_the_deposit_comes_home(
    devnet: Devnet, tmp_path: Path
) -> None:
    code = "import time\nprint('up', flush=True)\ntime.sleep(5)\nopen('outputs/a','w').write('x')"
    async with (
        open_rig(devnet, tmp_path, tick_seconds=1) as rig,
        buying(devnet, tmp_path / "b", rig.market_url) as buyer,
    ):
        before = await rig.balance()
        offer = await buyer.quote(await node_of(rig), planned(tmp_path, code), scheme=SCHEME)
        assert offer.at_risk(BUDGET) == 2_000  # a tick and its lead
        record = await buyer.start(offer, budget=BUDGET)
        assert before - await rig.balance() == BUDGET
        events = [event async for event in buyer.follow(record.job_id)]
        assert isinstance(events[-1], EndEvent)
        record = await buyer.money_back(record.job_id)

        assert record.view is not None
        assert record.view.state is JobState.SUCCEEDED
        assert record.view.slices_paid >= 5
        assert 5_000 <= record.cost <= record.paid
        assert record.view.refund is not None
        assert record.view.refund.transaction
        assert before - await rig.balance() == record.cost
        (channel,) = await buyer.channels.look()
        assert (channel.state, channel.claimed) == ("closed", record.cost)
        assert channel.returned == BUDGET - record.cost
        assert buyer.spent_today() == record.cost
        assert (await buyer.outputs(record.job_id, tmp_path / "got"))[0].read_text() == "x"


async def test_a_cancelled_job_gives_back_all_but_what_ran(devnet: Devnet, tmp_path: Path) -> None:
    async with (
        open_rig(devnet, tmp_path, tick_seconds=2) as rig,
        buying(devnet, tmp_path / "b", rig.market_url) as buyer,
    ):
        before = await rig.balance()
        offer = await buyer.quote(await node_of(rig), planned(tmp_path, ENDLESS), scheme=SCHEME)
        record = await buyer.start(offer, budget=BUDGET)
        await until_output(buyer, record.job_id)
        await buyer.cancel(record.job_id)
        record = await buyer.money_back(record.job_id)
        assert record.state is JobState.CANCELLED
        assert before - await rig.balance() == record.cost < 5_000
        with pytest.raises(Conflict, match="closed"):
            await buyer.channels.refund(record.job_id)


async def test_another_process_goes_on_paying_and_a_lost_answer_costs_nothing(
    devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import time\nprint('up', flush=True)\ntime.sleep(7)"
    async with open_rig(devnet, tmp_path, tick_seconds=2) as rig:
        before = await rig.balance()
        async with buying(devnet, tmp_path / "b", rig.market_url) as first:
            offer = await first.quote(await node_of(rig), planned(tmp_path, code), scheme=SCHEME)
            job_id = (await first.start(offer, budget=BUDGET)).job_id
            await until_output(first, job_id)
        async with buying(devnet, tmp_path / "b", rig.market_url) as second:
            client = second._seller(rig.url)
            post, lost = client.pay_slice, list[int]()

            async def losing(access: Any, index: int, payment: Any = None) -> Answer:
                answer = await post(access, index, payment)
                if len(lost) < 6:
                    lost.append(index)
                    raise SellerUnavailable("The answer got lost.")
                return answer

            monkeypatch.setattr(client, "pay_slice", losing)
            events = [event async for event in second.follow(job_id)]
            record = await second.money_back(job_id)
        assert isinstance(events[-1], EndEvent)
        assert len(lost) == 6
        assert record.state is JobState.SUCCEEDED
        assert record.cost >= 7_000
        assert before - await rig.balance() == record.cost


async def test_a_deposit_whose_answer_got_lost_is_made_once(
    devnet: Devnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_rig(devnet, tmp_path, tick_seconds=2) as rig:
        before = await rig.balance()
        async with buying(devnet, tmp_path / "b", rig.market_url, present_seconds=0) as first:
            offer = await first.quote(await node_of(rig), planned(tmp_path, "pass"), scheme=SCHEME)
            client = first._seller(rig.url)
            execute = client.execute

            async def losing(body: bytes, payment: Any = None) -> Answer:
                answer = await execute(body, payment)
                if payment is not None:
                    raise SellerUnavailable("The answer got lost.")
                return answer

            monkeypatch.setattr(client, "execute", losing)
            with pytest.raises(PaymentPending):
                await first.start(offer, budget=BUDGET)
            assert before - await rig.balance() == BUDGET
        async with buying(devnet, tmp_path / "b", rig.market_url) as second:
            (record,) = await second.resume(offer.job_id)
            assert record.by_channel
            events = [event async for event in second.follow(record.job_id)]
            assert isinstance(events[-1], EndEvent)
            record = await second.money_back(record.job_id)
            assert record.state is JobState.SUCCEEDED
            assert before - await rig.balance() == record.cost
            assert len(await second.channels.look()) == 1


async def test_the_budget_ends_a_job_and_is_never_exceeded(devnet: Devnet, tmp_path: Path) -> None:
    async with (
        open_rig(devnet, tmp_path, tick_seconds=1) as rig,
        buying(devnet, tmp_path / "b", rig.market_url) as buyer,
    ):
        before, notes = await rig.balance(), list[str]()
        node, plan = await node_of(rig), planned(tmp_path, ENDLESS)
        offer = await buyer.quote(node, plan, scheme=SCHEME)
        assert offer.paid_now(2_500) == 2_000
        record = await buyer.start(offer, budget=2_500)
        events = [event async for event in buyer.follow(record.job_id, note=notes.append)]
        record = await buyer.money_back(record.job_id)
        assert isinstance(events[-1], EndEvent)
        assert record.state is JobState.OUT_OF_FUNDS
        assert any("budget" in note for note in notes)
        assert before - await rig.balance() == record.cost == 2_000
        rich = await buyer.quote(node, planned(tmp_path, ENDLESS, max_seconds=600), scheme=SCHEME)
        with pytest.raises(PolicyRefused, match="24 hours"):  # what is locked counts, too
            await buyer.start(rich, budget=10**9)
        assert (await rig.balance()) == before - record.cost


async def test_without_the_seller_the_deposit_comes_home_by_itself(tmp_path: Path) -> None:
    clock = LateClock()
    async with (
        await start_devnet(engine="py-evm") as devnet,
        seller_process(devnet, tmp_path, tick_seconds=2) as (process, rig),
        buying(devnet, tmp_path / "b", clock=clock) as buyer,
    ):
        before = await rig.balance()
        offer = await buyer.quote(await node_of(rig), planned(tmp_path, ENDLESS), scheme=SCHEME)
        record = await buyer.start(offer, budget=BUDGET)
        await until_output(buyer, record.job_id)
        stream = buyer.follow(record.job_id)
        await anext(stream)
        process.kill()
        await process.wait()
        with pytest.raises(SellerUnavailable, match="channels withdraw") as gone:
            async for _ in stream:
                pass
        assert 0 < gone.value.extra["at_risk"] <= 4_000
        with pytest.raises(SellerUnavailable):
            await buyer.channels.refund(record.job_id)

        step = await buyer.channels.withdraw(record.job_id[:10])
        assert step.kind == "announced"
        assert step.ready_at is not None
        with pytest.raises(Conflict, match="can be taken back in"):
            await buyer.channels.withdraw(record.job_id)
        delay = step.ready_at - int(clock.now()) + 60
        await devnet.advance_time(delay)
        clock.late = delay
        step = await buyer.channels.withdraw(step.channel_id)
        assert (step.kind, step.amount) == ("returned", BUDGET)
        assert await rig.balance() == before
        assert buyer.spent_today() == 0
        assert buyer.job(record.job_id).state is JobState.SELLER_LOST
        # he comes back, and owes nothing any more
        async with seller_process(devnet, tmp_path, tick_seconds=2) as (_, back):
            key = {"Authorization": f"Bearer {record.access_key}"}
            view: dict[str, Any] = {}
            async with asyncio.timeout(30):
                while view.get("state") != "seller_lost" or view.get("refund") is not None:
                    view = (await back.call("GET", f"/jobs/{record.job_id}", headers=key)).json
            assert await back.balance() == before


async def test_the_official_client_buys_a_bare_job(devnet: Devnet, tmp_path: Path) -> None:
    batch = "x402.mechanisms.evm.batch_settlement.client"
    clients = import_late("x402.http.clients.httpx")
    account = import_late("eth_account").Account.from_key(devnet.keys[0].secret)
    signer = import_late("x402.mechanisms.evm.signers").EthAccountSignerWithRPC(account, devnet.url)
    scheme = import_late(batch).BatchSettlementEvmScheme(signer)
    client = import_late("x402.client").x402Client().register(BASE_SEPOLIA.caip2, scheme)
    async with open_rig(devnet, tmp_path) as rig:
        before = await rig.balance()
        for word in ("one", "two"):
            body = {"spec": {"command": ["python", "-c", f"print({word!r})"], "max_seconds": 60}}
            async with clients.x402HttpxClient(client, timeout=30) as http:
                reply = await http.post(f"{rig.url}/execute", json=body)
            assert reply.status_code == 202, reply.text
            receipt = decode_header(reply.headers["PAYMENT-RESPONSE"])
            assert receipt["success"]
            assert receipt["extra"]["chargedAmount"] == "10000"
            job_id, key = reply.json()["job"]["job_id"], reply.json()["access_key"]
            ended: dict[str, Any] = {}
            async with asyncio.timeout(30):
                while ended.get("state") != "succeeded":
                    ended = (
                        await rig.call(
                            "GET", f"/jobs/{job_id}", headers={"Authorization": f"Bearer {key}"}
                        )
                    ).json
            assert ended["scheme"] == SCHEME
            assert ended["cost"] < 10_000
        # one deposit paid for both
        assert before - await rig.balance() == 50_000


def test_the_command_line_pays_by_a_channel(demo: Demo, tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text("import time\nprint('hello', flush=True)\ntime.sleep(3)")
    done, receipt = demo.buy("--pay", "channel", "--budget", "0.05", str(script))
    offer = json.loads(done.out.splitlines()[0])
    assert (offer["scheme"], offer["deposit"]) == (SCHEME, offer["most"])
    assert offer["deposit"] <= 50_000
    assert "The deposit is locked until the job ends" in done.err
    job = receipt["job"]
    assert job["channel"]["deposit"] == offer["deposit"]
    assert job["refund"]["amount"] == offer["deposit"] - receipt["cost"]
    assert job["refund"]["transaction"].startswith("0x")

    (channel,) = demo.cli("channels", "--json").json["channels"]
    assert channel["job_id"] == receipt["job_id"]
    assert (channel["state"], channel["claimed"]) == ("closed", receipt["cost"])
    assert "closed" in demo.cli("channels").out
    again = demo.cli("channels", "withdraw", receipt["job_id"], "--json")
    assert again.code == 125
    assert "came back from it" in again.error["detail"]
    wrong = demo.cli("run", "--pay", "barter", str(script))
    assert wrong.code == 125
