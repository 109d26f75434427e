"""The owner's word on single jobs and GPUs: yes, no and silence to what asks, and what he holds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from channel_hands import DEPOSIT, buy_by_channel
from lone_seller import moved, seller_process
from seller_rig import Bought, Reply, Rig, open_rig, spec

from computeswarm.buyer.conditions import conditions
from computeswarm.chain.devnet import Devnet
from computeswarm.core.errors import ConfigError, Conflict, JobNotFound, NotFound
from computeswarm.core.nodes import GPUInfo, Hardware, NodeStatus
from computeswarm.core.quotes import Quote
from computeswarm.core.states import JobState
from computeswarm.seller.owner_client import OwnerClient

OpenRig = Callable[..., AbstractAsyncContextManager[Rig]]
ENDLESS = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)"
CARD = GPUInfo(vendor="nvidia", model="RTX", memory_bytes=2**34)
TWO = Hardware(cpu_model="X", cpu_cores=2, memory_bytes=2**34, gpus=(CARD, CARD))
TWO_GPUS = {"hardware": TWO, "slots": 2}


async def said(bought: Bought) -> list[str]:
    """What the buyer was told so far."""
    page = (await bought.call("GET", "/events?since=0")).json["events"]
    return [event["reason"] for event in page if event["type"] == "state" and event["reason"]]


async def ask_quote(r: Rig, **changes: Any) -> Reply:
    return await r.call("POST", "/quotes", json={"spec": spec(**changes)})


def time_passes(r: Rig, seconds: float) -> None:
    """The owner lets it pass."""
    r.agent.asking._until = {
        job_id: until - int(seconds * 1000) for job_id, until in r.agent.asking._until.items()
    }


async def test_a_paid_job_waits_for_the_owners_yes_and_keeps_its_place(rig: OpenRig) -> None:
    async with rig(accept="ask") as r, OwnerClient.find(r.paths.seller) as owner:
        quote = Quote.model_validate((await ask_quote(r)).json["document"])
        assert quote.ask_seconds == 120 and quote.starts_in_seconds is None
        told = dict(conditions(quote))
        assert told["Owner"] == "decides by hand, within 2m 00s; a no or silence pays all back"
        first, second = await r.buy(spec("print(1)")), await r.buy(spec("print(2)"))
        view = await first.view()
        assert view.state is JobState.QUEUED and view.queue_position == 1
        assert view.reason.startswith("Waiting for the owner's yes (at most ")
        assert view.starts_in_seconds is None and view.owner_decides_by_ms is not None
        assert any("Without it everything paid goes back." in text for text in await said(first))
        r.agent.dispatcher.schedule()
        assert not r.agent.dispatcher.runs
        status = await owner.status()
        assert status.asks_owner and status.accepting
        assert [job.waits_for_owner for job in status.jobs] == [True, True]
        assert status.jobs[0].decide_by_ms == view.owner_decides_by_ms
        assert any(f"{first.job_id} asks to run" in event.text for event in status.events)

        await owner.accept(second.job_id)  # whoever is not let in holds nobody up
        assert (await second.ended()).state is JobState.SUCCEEDED
        view = await first.view()
        assert (view.state, view.queue_position) == (JobState.QUEUED, 1)
        await owner.accept(first.job_id)
        view = await first.ended()
        assert view.state is JobState.SUCCEEDED and view.owner_decides_by_ms is None
        assert "The owner let the job in." in await said(first)
        with pytest.raises(Conflict, match="ended already"):
            await owner.accept(first.job_id)
        with pytest.raises(JobNotFound):
            await owner.accept("job-" + "0" * 20)


async def test_a_no_gives_everything_back_and_the_buyer_learns_why(rig: OpenRig) -> None:
    async with rig(accept="ask") as r, OwnerClient.find(r.paths.seller) as owner:
        before = await r.balance()
        bought = await r.buy(spec())
        await owner.reject(bought.job_id, "no\x1b[31m miners\nplease.")
        view = await r.refunded(bought)
        assert view.state is JobState.SELLER_LOST and view.cost == 0
        assert view.reason == (
            "The owner turned the job away: no miners please; everything paid goes back."
        )
        assert await r.balance() == before
        plain = await r.buy(spec())
        await owner.reject(plain.job_id)
        assert (await plain.view()).reason.startswith("The owner turned the job away; everything")
        await r.refunded(plain)
        for late in (owner.accept, owner.reject):
            with pytest.raises(Conflict, match="ended already"):
                await late(bought.job_id)


async def test_a_no_gives_the_whole_deposit_of_a_channel_back(rig: OpenRig) -> None:
    async with rig(accept="ask", tick_seconds=5) as r:
        before = await r.balance()
        job = await buy_by_channel(r, spec())
        assert "Waiting for the owner's yes" in (await job.view()).reason
        assert (await job.tick(1)).status == 200  # he may pay ahead while he waits
        await r.agent.asking.reject(job.job_id)
        view = await r.refunded(job)
        assert view.state is JobState.SELLER_LOST and view.cost == 0
        assert view.refund is not None and view.refund.amount == DEPOSIT
        assert await r.balance() == before


async def test_silence_is_a_no(rig: OpenRig) -> None:
    async with rig(accept="ask", ask_seconds=60) as r:
        before = await r.balance()
        silent, asking = await r.buy(spec()), await r.buy(spec())
        time_passes(r, 60)
        with pytest.raises(Conflict, match="time to answer is over"):
            r.agent.asking.accept(silent.job_id)
        view = await r.refunded(silent)
        assert view.reason == ("The owner did not answer within 1m 00s; everything paid goes back.")
        await r.refunded(asking)
        assert await r.balance() == before
        assert any("had no answer" in event.text for event in r.agent.status().events)


async def test_whoever_does_not_ask_can_be_neither_let_in_nor_turned_away(rig: OpenRig) -> None:
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        running, waiting = await r.buy(spec(ENDLESS)), await r.buy(spec())
        await running.first_output()
        assert (await running.view()).reason == ""
        for answer in (owner.accept, owner.reject):
            with pytest.raises(Conflict, match="running already; evict"):
                await answer(running.job_id)
            with pytest.raises(Conflict, match="for its place, not for your yes"):
                await answer(waiting.job_id)
        await running.call("POST", "/cancel")
        assert (await waiting.ended()).state is JobState.SUCCEEDED


async def test_a_buyer_may_leave_before_the_owner_answers(rig: OpenRig) -> None:
    async with rig(accept="ask") as r:
        before = await r.balance()
        bought = await r.buy(spec())
        assert (await bought.call("POST", "/cancel")).json["state"] == "cancelled"
        with pytest.raises(Conflict, match="ended already"):
            r.agent.asking.accept(bought.job_id)
        await r.refunded(bought)
        assert await r.balance() == before
        assert r.agent.desk.store.answers.of(bought.job_id) is None


async def test_a_changed_setting_holds_for_those_that_wait_too(rig: OpenRig) -> None:
    async with rig() as r:
        settings = r.agent.settings
        assert settings is not None
        running = await r.buy(spec(ENDLESS))
        await running.first_output()
        waiting = await r.buy(spec("print('waited')"))
        told = await r.agent.reload(replace(settings, accept="ask", ask_seconds=30))
        assert "accept is ask now (was auto)." in told
        view = await waiting.view()
        assert "at most 30s" in view.reason or "at most 29s" in view.reason
        assert (await running.view()).state is JobState.RUNNING  # it was let in
        await running.call("POST", "/cancel")
        r.agent.dispatcher.schedule()
        assert (await waiting.view()).state is JobState.QUEUED
        let_in = await r.buy(spec("print('let in')"))
        r.agent.asking.accept(let_in.job_id)
        assert (await let_in.ended()).state is JobState.SUCCEEDED
        await r.agent.reload(settings)
        assert (await waiting.ended()).state is JobState.SUCCEEDED
        assert "The owner lets jobs in without being asked now." in await said(waiting)
        with pytest.raises(ConfigError, match="accept is auto or ask"):
            await r.agent.reload(replace(settings, accept="perhaps"))
        with pytest.raises(ConfigError, match="ask_seconds is from"):
            await r.agent.reload(replace(settings, ask_seconds=0))


async def test_a_crash_takes_neither_the_question_nor_the_answer_nor_the_time(
    devnet: Devnet, tmp_path: Path
) -> None:
    async with seller_process(devnet, tmp_path, accept="ask", ask_seconds=600) as (process, r):
        before = await r.balance()
        asking, late = await r.buy(spec("print('asked')")), await r.buy(spec())
        blocker = await r.buy(spec(ENDLESS))
        accepted = await r.buy(spec("print('accepted')"))
        async with OwnerClient.find(r.paths.seller) as owner:
            await owner.accept(blocker.job_id)
            await blocker.first_output()
            await owner.accept(accepted.job_id)  # it waits for its place now
        until = (await asking.view()).owner_decides_by_ms
        process.kill()
        await process.wait()
    async with open_rig(devnet, tmp_path, accept="ask", ask_seconds=600) as again:
        assert (await moved(accepted, again).ended()).state is JobState.SUCCEEDED
        view = await moved(asking, again).view()
        assert view.state is JobState.QUEUED and view.owner_decides_by_ms == until
        again.agent.asking.accept(asking.job_id)
        assert (await moved(asking, again).ended()).state is JobState.SUCCEEDED
        time_passes(again, 600)
        ended = await again.refunded(moved(late, again))
        assert ended.state is JobState.SELLER_LOST and "did not answer" in ended.reason
        for bought in (asking, blocker, accepted):
            await again.refunded(moved(bought, again))
        spent = 0
        for bought in (asking, late, blocker, accepted):
            spent += (await moved(bought, again).view()).cost
        assert before - await again.balance() == spent


async def test_a_held_gpu_takes_no_job_and_its_job_goes_on(rig: OpenRig) -> None:
    async with rig(config=TWO_GPUS) as r, OwnerClient.find(r.paths.seller) as owner:
        running = await r.buy(spec(ENDLESS, gpu_count=1))
        await running.first_output()
        place = r.agent.slots.place(running.job_id)
        assert place is not None and place.gpus == (0,)
        assert r.agent.acceptance.status() is NodeStatus.IDLE
        await owner.hold(0, True)
        await owner.hold(1, True)
        await owner.hold(1, True)  # again is fine
        status = await owner.status()
        assert [gpu.held for gpu in status.gpus] == [True, True]
        assert status.gpus[1].trouble.startswith("Held by you")
        assert status.mood == "held" and not status.accepting
        assert r.agent.acceptance.status() is NodeStatus.DRAINING
        refused = await ask_quote(r, gpu_count=1)
        assert refused.status == 503 and "keeps the machine for himself" in refused.text()
        assert (await running.view()).state is JobState.RUNNING

        await owner.hold(0, False)
        assert r.agent.acceptance.mood() == "taking"
        assert r.agent.acceptance.status() is NodeStatus.BUSY  # the one that is not held is taken
        both = await ask_quote(r, gpu_count=2)
        assert both.status == 503 and "keeps GPU 1 for himself" in both.text()
        assert "ask for 1" in both.text()
        waiting = await r.buy(spec("print('waits')", gpu_count=1))
        await owner.hold(0, True)
        await running.call("POST", "/cancel")
        r.agent.dispatcher.schedule()
        view = await waiting.view()
        assert view.state is JobState.QUEUED and view.starts_in_seconds is None
        await owner.hold(1, False)
        assert (await waiting.ended()).state is JobState.SUCCEEDED
        with pytest.raises(NotFound, match="no GPU 2 here; they are numbered 0 to 1"):
            await owner.hold(2, True)


async def test_what_was_quoted_before_the_hold_is_refused_before_it_is_paid(rig: OpenRig) -> None:
    async with rig(config=TWO_GPUS) as r:
        job = spec(gpu_count=2)
        signed = await r.quote(job)
        r.agent.holds.hold(0, True)
        before = await r.balance()
        body = {"spec": job, "quote": signed.model_dump(mode="json")}
        quote = Quote.model_validate(signed.document)
        reply = await r.call(
            "POST", "/execute", json=body, headers=r.payment(quote.slice_amount(0))
        )
        assert reply.status == 503 and "keeps GPU 0 for himself" in reply.text()
        assert await r.balance() == before


async def test_a_machine_without_gpu_is_held_whole_also_after_a_restart(rig: OpenRig) -> None:
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        running, waiting = await r.buy(spec(ENDLESS)), await r.buy(spec())
        await running.first_output()
        await owner.hold(0, True)
        status = await owner.status()
        assert status.host.held and status.mood == "held" and status.gpus == ()
        assert any("what runs there goes on" in event.text for event in status.events)
        await running.call("POST", "/cancel")
        r.agent.dispatcher.schedule()
        assert (await waiting.view()).state is JobState.QUEUED
        with pytest.raises(NotFound, match="no GPU 1 here; 0 is the only number"):
            await owner.hold(1, True)
        await owner.hold(0, False)
        assert (await waiting.ended()).state is JobState.SUCCEEDED
        await owner.hold(0, True)
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        status = await owner.status()
        assert status.mood == "held"
        assert any("still held by you" in event.text for event in status.events)
        assert (await ask_quote(r)).status == 503
        await owner.hold(0, False)
        assert (await ask_quote(r)).status == 200
    async with rig() as r:
        assert r.agent.status().accepting


async def test_a_drain_is_the_stronger_word_than_a_pause(rig: OpenRig) -> None:
    async with rig() as r, OwnerClient.find(r.paths.seller) as owner:
        await owner.pause("tea")
        assert (await owner.status()).mood == "paused"
        await owner.drain()
        assert (await owner.status()).mood == "drained"
        await owner.resume()
        assert (await owner.status()).mood == "taking"
